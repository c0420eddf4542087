//! A cgroup of its own for each app (cgroups(7), version 2), where the system lets us have one: all that
//! the app starts is in there, whatever it does to get away, and ends at one stroke. Where it does not,
//! processes are found by who started them. Knows paths and files only.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::tree;

/// Where the leaves of all apps are made, within our own cgroup.
const APPS: &str = "hotctl-apps";
/// If our own cgroup is called so, it is a part for the daemon alone of one that is ours
/// (`DelegateSubgroup=` of systemd): the leaves lie beside it.
const DAEMON: &str = "daemon";

/// Our own cgroup of version 2; none where there is no such thing.
pub fn own() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    let own = fs::read_to_string("/proc/self/cgroup").ok()?;
    folder(&mounts, &own)
}

/// The folder in which leaves can be made; `None` where there is no cgroup v2, or it is not ours to
/// divide, or cannot end its processes at one stroke (before Linux 5.14). Makes it. `whose` tells our
/// leaves from those of other daemons, whose shims we may not even see.
pub fn apps(whose: &str) -> Option<PathBuf> {
    let own = own()?;
    let ours = match own.file_name().is_some_and(|name| name == DAEMON) {
        true => own.parent()?.to_owned(),
        false => own,
    };
    let all = ours.join(APPS);
    let apps = all.join(whose);
    for folder in [&all, &apps] {
        match fs::create_dir(folder) {
            Err(cause) if cause.kind() != io::ErrorKind::AlreadyExists => return None,
            _ => {}
        }
    }
    // So that a leaf can tell who ended for lack of memory. Refused where others have a say in that.
    for folder in [&ours, &all, &apps] {
        let _ = fs::write(folder.join("cgroup.subtree_control"), "+memory");
    }
    // Only trying tells.
    let probe = Leaf::make(apps.join("probe"), std::process::id()).ok()?;
    probe.path.join("cgroup.kill").exists().then_some(apps)
}

/// Remove what shims that are gone have left in such a folder, processes included.
pub fn sweep(apps: &Path) {
    let Ok(entries) = apps.read_dir() else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        let shim = path
            .extension()
            .and_then(|number| number.to_str()?.parse().ok());
        let Some(shim) = shim else { continue };
        // One that has died and that nobody has asked about is as good as gone.
        if tree::stat(shim).is_none_or(|stat| stat.state == 'Z') {
            Leaf { path }.end();
        }
    }
}

/// Where our own cgroup is in the file system.
fn folder(mounts: &str, own: &str) -> Option<PathBuf> {
    let own = own.lines().find_map(|line| line.strip_prefix("0::"))?;
    mounts.lines().find_map(|line| {
        // ID PARENT DEVICE ROOT POINT OPTIONS [FIELDS] - TYPE SOURCE OPTIONS
        let (left, right) = line.split_once(" - ")?;
        let mut words = left.split(' ').skip(3);
        let (root, point) = (words.next()?, words.next()?);
        let is_v2 = right.split(' ').next() == Some("cgroup2");
        let within = Path::new(own).strip_prefix(root).ok()?;
        is_v2.then(|| Path::new(point).join(within))
    })
}

/// The cgroup of one app.
#[derive(Debug)]
pub(crate) struct Leaf {
    path: PathBuf,
}

impl Leaf {
    /// Make it. `prefix` is as in [`crate::confine::Confines::cgroup`].
    pub(crate) fn make(prefix: PathBuf, shim: u32) -> io::Result<Self> {
        let leaf = Self::of(prefix, shim);
        fs::create_dir(&leaf.path)?;
        Ok(leaf)
    }

    /// That of a shim, whoever made it.
    pub(crate) fn of(prefix: PathBuf, shim: u32) -> Self {
        let mut path = prefix.into_os_string();
        path.push(format!(".{shim}"));
        Self { path: path.into() }
    }

    /// Where its processes are entered.
    pub(crate) fn entry(&self) -> io::Result<File> {
        File::options()
            .write(true)
            .open(self.path.join("cgroup.procs"))
    }

    /// Send SIGKILL to each process in it, also to those that are just being born.
    pub(crate) fn kill(&self) {
        // Not there any more: nobody is.
        let _ = fs::write(self.path.join("cgroup.kill"), "1");
    }

    /// How many processes in it the kernel has ended for lack of memory; `None` where that is not
    /// counted.
    pub(crate) fn out_of_memory(&self) -> Option<u64> {
        let events = fs::read_to_string(self.path.join("memory.events")).ok()?;
        let count = events
            .lines()
            .find_map(|line| line.strip_prefix("oom_kill "))?;
        count.trim().parse().ok()
    }

    /// End all that is in it. It is removed with this.
    pub(crate) fn end(self) {
        self.kill();
        for _ in 0..50 {
            let events = fs::read_to_string(self.path.join("cgroup.events"));
            if !events.is_ok_and(|events| events.contains("populated 1")) {
                break;
            }
            // Until the kernel has done it.
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Leaf {
    fn drop(&mut self) {
        // Not while somebody is in it: the next daemon sweeps it up.
        let _ = fs::remove_dir(&self.path);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use std::path::Path;

    use super::folder;

    const HYBRID: &str = "\
30 25 0:26 / /sys/fs/cgroup ro,nosuid shared:9 - tmpfs tmpfs ro,mode=755
31 30 0:27 / /sys/fs/cgroup/memory rw shared:10 - cgroup cgroup rw,memory
32 30 0:28 / /sys/fs/cgroup/unified rw shared:11 - cgroup2 cgroup2 rw,nsdelegate
";

    #[test]
    fn our_cgroup_is_found_beside_those_of_the_first_version() {
        let own = "4:memory:/a\n0::/system.slice/hotctl.service\n";
        let expected = "/sys/fs/cgroup/unified/system.slice/hotctl.service";
        assert_eq!(folder(HYBRID, own).as_deref(), Some(Path::new(expected)));
    }

    #[test]
    fn of_a_mount_that_shows_a_part_only_that_part_is_looked_at() {
        let mounts = "32 30 0:28 /box /sys/fs/cgroup rw - cgroup2 cgroup rw\n";
        let found = folder(mounts, "0::/box/a\n");
        assert_eq!(found.as_deref(), Some(Path::new("/sys/fs/cgroup/a")));
        assert_eq!(folder(mounts, "0::/elsewhere\n"), None);
    }

    #[test]
    fn without_the_second_version_there_is_none() {
        assert_eq!(folder(HYBRID, "4:memory:/a\n"), None);
        let first = "31 30 0:27 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n";
        assert_eq!(folder(first, "0::/\n"), None);
    }
}
