//! As whom the processes of a service run, and what of the state folder they may enter then: through
//! the folders to the releases, which nobody can list, and into a data folder of their own.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, lchown};
use std::path::Path;

use hotctl_deploy::confine::{Confines, Limits, User};
use hotctl_deploy::machine::Placement;
use hotctl_deploy::why::{Kind, Why};

use super::Site;
use crate::store::on_disk;
use crate::who;

/// Who may pass through a folder, and list it.
const PASSED: u32 = 0o711;
/// Of the daemon's user alone.
const PRIVATE: u32 = 0o700;

impl Site {
    /// What holds for a process that is started now, and the variables that tell it who it is.
    pub(super) fn confines(
        &self,
        at: Placement,
        what: &str,
    ) -> Result<(Confines, Vec<(String, String)>), Why> {
        let config = self.config();
        let limits = Limits {
            open_files: config.limits.open_files,
            processes: config.limits.processes,
            core_size: config.limits.core_size,
            locked_memory: config.limits.locked_memory,
        };
        let owner = self.owner()?;
        if let Some(owner) = &owner {
            on_disk(|| self.let_in(&owner.user)).map_err(|cause| {
                Why::new(
                    Kind::NotStarted,
                    format!("the data folder cannot be given to {}: {cause}", owner.name),
                )
                .hint("mend the permissions of the state folder")
            })?;
        }
        let leaf = format!("{}.{}.{what}", self.name, at.slot.0);
        let variables = owner
            .as_ref()
            .map_or_else(Vec::new, who::Account::variables);
        Ok((
            Confines {
                user: owner.map(|owner| owner.user),
                limits,
                cgroup: self.means.cgroups.as_ref().map(|apps| apps.join(leaf)),
            },
            variables,
        ))
    }

    /// Whom the configuration names, if that is somebody else than we are.
    fn owner(&self) -> Result<Option<who::Account>, Why> {
        let config = self.config();
        who::account(config.user.as_deref(), config.group.as_deref()).map_err(|fault| Why {
            hint: fault.hint,
            ..Why::new(Kind::NotStarted, fault.text)
        })
    }

    /// Let a user come to the releases and have the data.
    fn let_in(&self, user: &User) -> io::Result<()> {
        let folder = self.folder();
        let above = folder
            .ancestors()
            .take_while(|at| at.starts_with(self.means.state.root()));
        // What only the daemon is to see first, or it could be seen in between.
        for private in ["logs", "run"] {
            set_mode(&folder.join(private), PRIVATE)?;
        }
        for passed in above.chain([folder.join("releases").as_path()]) {
            set_mode(passed, PASSED)?;
        }
        let sockets = self.socket_folder();
        fs::create_dir_all(&sockets)?;
        let persisted = self.config();
        let persisted = persisted.persist.iter().map(|path| self.data().join(path));
        for theirs in [sockets, self.data()].into_iter().chain(persisted) {
            give(&theirs, user)?;
        }
        Ok(())
    }
}

fn set_mode(path: &Path, mode: u32) -> io::Result<()> {
    match fs::metadata(path)?.mode() & 0o7777 == mode {
        true => Ok(()),
        false => fs::set_permissions(path, fs::Permissions::from_mode(mode)),
    }
}

/// Give what is at a path to a user, with all in it, if it is still of whoever had it before the
/// folder was theirs. No link is followed.
fn give(path: &Path, to: &User) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(meta) if (meta.uid(), meta.gid()) == (to.uid, to.gid) => Ok(()),
        Ok(meta) => give_all(path, meta.uid(), to),
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(cause) => Err(cause),
    }
}

fn give_all(path: &Path, from: u32, to: &User) -> io::Result<()> {
    let meta = fs::symlink_metadata(path)?;
    if meta.is_dir() {
        for entry in path.read_dir()? {
            give_all(&entry?.path(), from, to)?;
        }
    }
    // A second name of a file may be a name that others rely on.
    let is_shared = meta.is_file() && meta.nlink() > 1;
    match meta.uid() == from && !is_shared {
        true => lchown(path, Some(to.uid), Some(to.gid)),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    /// Only root can give anything away.
    #[test]
    fn what_is_given_is_given_whole_but_for_links_out_of_it() {
        let own = rustix::process::geteuid();
        let temp = tempfile::TempDir::new().unwrap();
        let data = temp.path().join("data");
        fs::create_dir_all(data.join("sub")).unwrap();
        fs::write(data.join("sub/file"), "x").unwrap();
        fs::write(temp.path().join("outside"), "x").unwrap();
        std::os::unix::fs::symlink("../outside", data.join("link")).unwrap();
        fs::hard_link(temp.path().join("outside"), data.join("second")).unwrap();
        let to = User {
            uid: if own.is_root() { 65534 } else { own.as_raw() },
            gid: if own.is_root() {
                65534
            } else {
                rustix::process::getegid().as_raw()
            },
            groups: Vec::new(),
        };
        give(&data, &to).unwrap();
        let uid = |path: &str| fs::symlink_metadata(temp.path().join(path)).unwrap().uid();
        for theirs in ["data", "data/sub", "data/sub/file", "data/link"] {
            assert_eq!(uid(theirs), to.uid, "{theirs}");
        }
        assert_eq!(uid("outside"), own.as_raw());
    }
}
