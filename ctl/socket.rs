//! The control socket's file: where it may stand, who may connect to it, and that nobody else
//! serves there. Knows folders and permissions; nothing of what is said over it.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use hotctl_config::file::Control;
use rustix::fs::Mode;
use rustix::net::{self, AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use tokio::net::UnixListener;

use crate::fault::Fault;
use crate::places;
use crate::who;

/// Who may connect beside root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Callers {
    /// The daemon's own user.
    Ourselves,
    /// That user, and the members of a group of the system.
    Group { name: String, gid: u32 },
}

/// How a socket's place came to be chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Named {
    /// By a flag or a variable: its folder may be shared on purpose, and is not changed.
    ByOperator,
    /// By nobody: the folder is the daemon's own.
    ByDefault,
}

/// The file; removed when the daemon ends.
#[derive(Debug)]
pub struct Socket {
    path: PathBuf,
    named: Named,
    /// Which file it was when it was bound, by device and number; none where it was not there then.
    file: Option<(u64, u64)>,
    /// Held as long as the socket is ours, so that nobody takes it for stale.
    lock: Option<fs::File>,
    heir: Heir,
}

/// To whom the file is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Heir {
    /// To nobody: it is removed.
    Nobody,
    /// To the hotctl that took our place.
    Successor,
}

impl Callers {
    /// As the configuration says.
    ///
    /// # Errors
    /// If the system knows no such group.
    pub fn of(control: &Control) -> Result<Self, Fault> {
        let Some(name) = &control.group else {
            return Ok(Self::Ourselves);
        };
        match who::group(name) {
            Some(gid) => Ok(Self::Group {
                name: name.clone(),
                gid,
            }),
            None => Err(
                Fault::config(format!("control.group: the system knows no group {name}")).hint(
                    format!("`groupadd {name}`, or name a group of `getent group`"),
                ),
            ),
        }
    }

    /// Whether that user may steer, given that the kernel let it connect.
    pub fn include(&self, uid: u32) -> bool {
        match self {
            Self::Ourselves => uid == 0 || uid == rustix::process::geteuid().as_raw(),
            // The socket's mode has been looked at by the kernel.
            Self::Group { .. } => true,
        }
    }
}

impl Socket {
    /// Take the place, whoever left a socket there before.
    ///
    /// # Errors
    /// If another daemon serves there, others could put a socket in its place, or it cannot be given
    /// to the group.
    pub fn bind(
        path: &Path,
        named: Named,
        callers: &Callers,
    ) -> Result<(Self, UnixListener), Fault> {
        let fault = |cause: io::Error| {
            Fault::config(format!("socket {}: {}", path.display(), reason(&cause)))
                .hint("choose another with --socket")
        };
        open_folder(path, named, callers)?;
        let lock = Some(lock(path, fault)?);
        let listener = take_place(path, callers)?;
        let socket = Self {
            path: path.to_owned(),
            named,
            file: file_at(path),
            lock,
            heir: Heir::Nobody,
        };
        Ok((socket, listener))
    }

    /// Whether its file is still where it was bound; without it nobody can connect.
    pub fn is_in_place(&self) -> bool {
        self.file.is_some() && file_at(&self.path) == self.file
    }

    /// Bind it again: somebody has removed its file, or put another there.
    ///
    /// # Errors
    /// As [`Socket::bind`].
    pub fn renew(&mut self, callers: &Callers) -> Result<UnixListener, Fault> {
        let fault = |cause: io::Error| {
            Fault::config(format!(
                "socket {}: {}",
                self.path.display(),
                reason(&cause)
            ))
        };
        open_folder(&self.path, self.named, callers)?;
        // The lock may have gone with it.
        let place = lock_path(&self.path);
        let is_there = |lock: &fs::File| places::is_same_file(lock, &place);
        if !self.lock.as_ref().is_some_and(is_there) {
            self.lock = Some(lock(&self.path, fault)?);
        }
        let listener = take_place(&self.path, callers)?;
        self.file = file_at(&self.path);
        Ok(listener)
    }

    /// The socket of the hotctl that is being replaced, with its lock.
    ///
    /// # Errors
    /// If another place is wanted than where it is.
    pub fn passed_on(
        path: &Path,
        named: Named,
        lock: OwnedFd,
        listener: OwnedFd,
    ) -> Result<(Self, UnixListener), Fault> {
        let lock = fs::File::from(lock);
        let fault = |what: String| {
            Fault::config(format!("socket {}: {what}", path.display()))
                .hint("stop hotctl and start it again, to have it use another socket")
        };
        let listener = std::os::unix::net::UnixListener::from(listener);
        if !places::is_same_file(&lock, &lock_path(path)) {
            return Err(fault(
                "is not the socket of the hotctl that is being replaced".to_owned(),
            ));
        }
        let listener = listener
            .set_nonblocking(true)
            .and_then(|()| UnixListener::from_std(listener))
            .map_err(|cause| fault(cause.to_string()))?;
        let socket = Self {
            path: path.to_owned(),
            named,
            file: file_at(path),
            lock: Some(lock),
            // Until it is taken over it is not ours to remove.
            heir: Heir::Successor,
        };
        Ok((socket, listener))
    }

    /// The lock, for the hotctl that takes our place.
    ///
    /// # Errors
    /// If no descriptor is left.
    pub fn lock(&self) -> io::Result<OwnedFd> {
        let lock = self.lock.as_ref().ok_or(io::ErrorKind::NotFound)?;
        Ok(lock.try_clone()?.into())
    }

    /// It is ours now, and is removed in the end.
    pub fn keep(&mut self) {
        self.heir = Heir::Nobody;
    }

    /// It stays, for the hotctl that took our place; the lock is that one's alone.
    pub fn leave(&mut self) {
        self.heir = Heir::Successor;
        self.lock = None;
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if self.heir == Heir::Successor {
            return;
        }
        let _ = fs::remove_file(&self.path);
        let _ = fs::remove_file(lock_path(&self.path));
    }
}

/// Make its folder, or see to it that one which an operator has named is fit for it.
fn open_folder(path: &Path, named: Named, callers: &Callers) -> Result<(), Fault> {
    let Some(folder) = path.parent() else {
        return Ok(());
    };
    if named == Named::ByOperator && folder.exists() {
        check_private(folder)?;
        return check_open_to(folder, callers);
    }
    places::private_folder(folder, "socket")?;
    open_to(folder, callers, 0o710)
}

/// Bind the socket, given that its lock is ours.
fn take_place(path: &Path, callers: &Callers) -> Result<UnixListener, Fault> {
    let fault = |cause: io::Error| {
        Fault::config(format!("socket {}: {}", path.display(), reason(&cause)))
            .hint("choose another with --socket")
    };
    match fs::symlink_metadata(path) {
        // With the lock ours, whoever bound it is gone.
        Ok(meta) if meta.file_type().is_socket() => fs::remove_file(path).map_err(fault)?,
        Ok(_) => {
            return Err(Fault::config(format!(
                "socket {}: a file that is no socket is in its place",
                path.display()
            ))
            .hint("move it away, or choose another with --socket"));
        }
        Err(_) => {}
    }
    let listener = bind_private(path).map_err(fault)?;
    open_to(path, callers, 0o660)?;
    Ok(listener)
}

/// The socket that is there, by device and number.
fn file_at(path: &Path) -> Option<(u64, u64)> {
    let meta = fs::symlink_metadata(path).ok()?;
    let is_socket = meta.file_type().is_socket();
    is_socket.then(|| (meta.dev(), meta.ino()))
}

/// Nobody else may connect, not even for a moment: Linux gives the file the mode that the socket has
/// when it is bound. (The umask would do it for every thread.)
fn bind_private(path: &Path) -> io::Result<UnixListener> {
    /// Connections that may wait to be accepted.
    const WAITING: i32 = 128;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    rustix::fs::fchmod(&socket, Mode::from_raw_mode(0o600))?;
    net::bind(&socket, &SocketAddrUnix::new(path)?)?;
    net::listen(&socket, WAITING)?;
    UnixListener::from_std(socket.into())
}

fn lock(path: &Path, fault: impl Fn(io::Error) -> Fault) -> Result<fs::File, Fault> {
    let lock = fs::File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(lock_path(path))
        .map_err(fault)?;
    if lock.try_lock().is_err() {
        return Err(Fault::config(format!(
            "socket {}: another hotctl serves here",
            path.display()
        ))
        .hint("stop it first, or choose another with --socket and --state"));
    }
    Ok(lock)
}

fn lock_path(path: &Path) -> PathBuf {
    let mut lock = path.to_owned().into_os_string();
    lock.push(".lock");
    lock.into()
}

/// Give a file or folder of ours to the group, with this mode; leave it ours alone where there is none.
fn open_to(path: &Path, callers: &Callers, mode: u32) -> Result<(), Fault> {
    let Callers::Group { name, gid } = callers else {
        return Ok(());
    };
    let given = std::os::unix::fs::chown(path, None, Some(*gid))
        .and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(mode)));
    given.map_err(|cause| {
        Fault::config(format!(
            "socket {}: cannot be given to group {name}: {}",
            path.display(),
            reason(&cause)
        ))
        .hint(format!(
            "add the user that runs hotctl to the group: `usermod -aG {name} {}`",
            who::Who::ourselves()
        ))
    })
}

/// A folder that an operator named is not changed: the group must be able to reach what is in it.
fn check_open_to(folder: &Path, callers: &Callers) -> Result<(), Fault> {
    let Callers::Group { name, gid } = callers else {
        return Ok(());
    };
    let open = fs::metadata(folder).is_ok_and(|meta| {
        let mode = meta.permissions().mode();
        mode & 0o001 != 0 || (meta.gid() == *gid && mode & 0o010 != 0)
    });
    if open {
        return Ok(());
    }
    let folder = folder.display();
    Err(Fault::config(format!(
        "socket folder {folder}: members of group {name} cannot enter it"
    ))
    .hint(format!("`chgrp {name} {folder} && chmod g+x {folder}`")))
}

/// A control socket in a folder that others can write to could be replaced under us.
pub fn check_private(folder: &Path) -> Result<(), Fault> {
    let own = rustix::process::geteuid().as_raw();
    let fault = |text: String| {
        Fault::config(format!("socket folder {}: {text}", folder.display())).hint(
            "name a socket in a folder of your own; one that is not there yet is made private",
        )
    };
    let meta = std::fs::metadata(folder).map_err(|cause| fault(cause.to_string()))?;
    if meta.uid() != own && meta.uid() != 0 {
        return Err(fault(format!(
            "belongs to user {}, not to user {own}",
            meta.uid()
        )));
    }
    let mode = meta.permissions().mode();
    if mode & 0o022 != 0 {
        return Err(fault(format!(
            "others can write to it (mode {:o})",
            mode & 0o7777
        )));
    }
    Ok(())
}

/// The text of an I/O error without its number.
fn reason(cause: &io::Error) -> String {
    match cause.kind() {
        io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        _ => cause.to_string(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    fn own_group() -> Callers {
        Callers::Group {
            name: "ours".into(),
            gid: rustix::process::getegid().as_raw(),
        }
    }

    #[tokio::test]
    async fn without_a_group_only_the_owner_can_reach_the_socket() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("run/control.sock");
        let bound = Socket::bind(&path, Named::ByDefault, &Callers::Ourselves).unwrap();
        assert_eq!((mode(path.parent().unwrap()), mode(&path)), (0o700, 0o600));
        drop(bound);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_group_can_reach_the_socket_and_nothing_beside_it() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("run/control.sock");
        let _bound = Socket::bind(&path, Named::ByDefault, &own_group()).unwrap();
        assert_eq!((mode(path.parent().unwrap()), mode(&path)), (0o710, 0o660));
        let second = Socket::bind(&path, Named::ByDefault, &own_group()).unwrap_err();
        assert!(second.text.contains("another hotctl"), "{second}");
    }

    #[tokio::test]
    async fn a_socket_whose_file_was_removed_is_bound_again_with_its_folder_and_lock() {
        let temp = tempfile::tempdir().unwrap();
        let folder = temp.path().join("run");
        let path = folder.join("control.sock");
        let ourselves = Callers::Ourselves;
        let (mut socket, _listener) = Socket::bind(&path, Named::ByDefault, &ourselves).unwrap();
        assert!(socket.is_in_place());
        fs::remove_file(&path).unwrap();
        assert!(!socket.is_in_place());
        let _second = socket.renew(&ourselves).unwrap();
        assert!(socket.is_in_place());
        fs::remove_dir_all(&folder).unwrap();
        let _third = socket.renew(&ourselves).unwrap();
        assert!(socket.is_in_place());
        assert_eq!((mode(&folder), mode(&path)), (0o700, 0o600));
        // The lock is ours again, too.
        Socket::bind(&path, Named::ByDefault, &ourselves).unwrap_err();
        // What somebody else has put there is not removed.
        fs::remove_file(&path).unwrap();
        fs::write(&path, "notes").unwrap();
        let refused = socket.renew(&ourselves).unwrap_err();
        assert!(refused.text.contains("no socket"), "{refused}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "notes");
    }

    #[tokio::test]
    async fn a_folder_that_was_named_is_not_opened_but_explained() {
        let temp = tempfile::tempdir().unwrap();
        let private = fs::Permissions::from_mode(0o700);
        fs::set_permissions(temp.path(), private).unwrap();
        let other = Callers::Group {
            name: "deploy".into(),
            gid: 4_123_456_789,
        };
        let path = temp.path().join("control.sock");
        let refused = Socket::bind(&path, Named::ByOperator, &other).unwrap_err();
        assert!(refused.text.contains("cannot enter"), "{refused}");
        assert!(refused.hint.unwrap().contains("chgrp deploy"));
        assert_eq!(mode(temp.path()), 0o700);
    }

    #[test]
    fn a_group_that_the_system_does_not_know_is_refused_with_a_remedy() {
        let control = Control {
            group: Some("no-such-group".into()),
        };
        let refused = Callers::of(&control).unwrap_err();
        assert!(refused.hint.unwrap().contains("groupadd no-such-group"));
    }
}
