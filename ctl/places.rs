//! Where hotctl keeps its control socket and its state, for the daemon and for the command line.
//! Knows the environment and the file system's rules about both, and nothing about what is inside.

use std::env;
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::fault::Fault;

/// The longest path of a unix socket: `sun_path` holds 108 bytes, the last of them NUL (unix(7)).
const SOCKET_PATH_MAX: usize = 107;
const SYSTEM_RUN: &str = "/run/hotctl";
const SYSTEM_STATE: &str = "/var/lib/hotctl";
/// The name of the control socket.
pub const SOCKET: &str = "control.sock";
/// The folder in a project that `hotctl dev` keeps its state and its socket in.
pub const PROJECT: &str = ".hotctl";

/// Who asks, and with which environment: handed in, so that it can be tested.
#[derive(Debug, Clone, Default)]
pub struct Whereabouts {
    /// The effective user id.
    pub uid: u32,
    /// systemd's RuntimeDirectory=.
    pub runtime_directory: Option<PathBuf>,
    /// systemd's StateDirectory=.
    pub state_directory: Option<PathBuf>,
    /// XDG base directory for sockets.
    pub xdg_runtime: Option<PathBuf>,
    /// XDG base directory for state.
    pub xdg_state: Option<PathBuf>,
    /// The home folder.
    pub home: Option<PathBuf>,
    /// The folder for temporary files.
    pub temp: PathBuf,
    /// The folder one stands in.
    pub here: Option<PathBuf>,
}

impl Whereabouts {
    /// Of this process.
    pub fn here() -> Self {
        // systemd may give several folders, separated by colons; the first is ours.
        let folder = |name: &str| {
            let value = env::var_os(name)?;
            let first = env::split_paths(&value).next()?;
            first.is_absolute().then_some(first)
        };
        Self {
            uid: rustix::process::geteuid().as_raw(),
            runtime_directory: folder("RUNTIME_DIRECTORY"),
            state_directory: folder("STATE_DIRECTORY"),
            xdg_runtime: folder("XDG_RUNTIME_DIR"),
            xdg_state: folder("XDG_STATE_HOME"),
            home: folder("HOME"),
            temp: env::temp_dir(),
            here: env::current_dir().ok(),
        }
    }

    /// The default control socket of a daemon run by this user.
    pub fn socket(&self) -> PathBuf {
        if self.uid == 0 {
            return Path::new(SYSTEM_RUN).join(SOCKET);
        }
        self.runtime_directory
            .clone()
            .or_else(|| self.xdg_runtime.as_ref().map(|d| d.join("hotctl")))
            .unwrap_or_else(|| self.own_temp())
            .join(SOCKET)
    }

    /// The default state folder of a daemon run by this user.
    pub fn state(&self) -> PathBuf {
        if self.uid == 0 {
            return PathBuf::from(SYSTEM_STATE);
        }
        let xdg = || {
            self.xdg_state
                .clone()
                .or_else(|| self.home.as_ref().map(|h| h.join(".local/state")))
        };
        self.state_directory
            .clone()
            .or_else(|| xdg().map(|d| d.join("hotctl")))
            .unwrap_or_else(|| self.own_temp().join("state"))
    }

    /// Where the command line looks for a daemon: that of the project one stands in, the user's own,
    /// then the system's.
    pub fn sockets(&self) -> Vec<PathBuf> {
        let mut found: Vec<PathBuf> = self.of_project().into_iter().collect();
        found.push(self.socket());
        let system = Path::new(SYSTEM_RUN).join(SOCKET);
        if !found.contains(&system) {
            found.push(system);
        }
        found
    }

    /// The control socket of `hotctl dev` for the folder one stands in, or one above it, if it is this
    /// user's.
    fn of_project(&self) -> Option<PathBuf> {
        let here = self.here.as_deref()?;
        let sockets = here
            .ancestors()
            .map(|folder| folder.join(PROJECT).join(SOCKET));
        let mut ours = sockets
            .filter(|socket| fs::symlink_metadata(socket).is_ok_and(|meta| meta.uid() == self.uid));
        ours.next()
    }

    fn own_temp(&self) -> PathBuf {
        self.temp.join(format!("hotctl-{}", self.uid))
    }
}

/// Whether a folder of state may be made where it is gone: that of a project never without the project, which
/// somebody has moved or removed.
///
/// # Errors
/// If the project is not there.
pub fn may_be_made(state: &Path) -> io::Result<()> {
    let of_project = |at: &&Path| at.file_name().is_some_and(|name| name == PROJECT);
    let project = state.ancestors().find(of_project).and_then(Path::parent);
    match project {
        Some(project) if !project.is_dir() => Err(io::Error::new(
            io::ErrorKind::NotFound,
            format!("{}: the project is gone", project.display()),
        )),
        _ => Ok(()),
    }
}

/// Make a folder that only its owner can enter, or see that it is one.
///
/// # Errors
/// If it cannot be made, is not a folder, or belongs to somebody else.
pub fn private_folder(path: &Path, what: &str) -> Result<(), Fault> {
    let uid = rustix::process::geteuid().as_raw();
    let fault = |cause: io::Error| {
        Fault::config(format!("{what} {}: {cause}", path.display()))
            .hint(format!("choose another with --{what}"))
    };
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(fault)?;
    // Not through a link: in a shared temp folder somebody else could have put one there.
    let meta = fs::symlink_metadata(path).map_err(fault)?;
    let meta = if meta.is_symlink() && meta.uid() == uid {
        fs::metadata(path).map_err(fault)?
    } else {
        meta
    };
    if !meta.is_dir() {
        return Err(Fault::config(format!(
            "{what} {}: not a folder",
            path.display()
        )));
    }
    if meta.uid() != uid {
        return Err(Fault::config(format!(
            "{what} {}: belongs to user {}, not to user {uid}",
            path.display(),
            meta.uid()
        ))
        .hint(format!("choose a folder of your own with --{what}")));
    }
    // Passing through is for the services that run as another user: what they may not see is not to
    // be read.
    if meta.permissions().mode() & 0o066 != 0 {
        fs::set_permissions(path, fs::Permissions::from_mode(0o700)).map_err(fault)?;
    }
    Ok(())
}

/// Whether nobody but root, ourselves and that user can have put a socket in its place: each folder
/// on its path belongs to one of them, and nobody else can write there.
pub fn is_kept_by(socket: &Path, owner: u32) -> bool {
    let own = rustix::process::geteuid().as_raw();
    let folder = socket
        .parent()
        .and_then(|folder| folder.canonicalize().ok());
    folder.is_some_and(|folder| {
        folder.ancestors().all(|folder| {
            fs::metadata(folder).is_ok_and(|meta| {
                [0, own, owner].contains(&meta.uid()) && meta.permissions().mode() & 0o002 == 0
            })
        })
    })
}

/// Refuse a socket path that the system would cut.
///
/// # Errors
/// If it is longer than a unix socket's path can be.
pub fn check_socket_path(path: &Path) -> Result<(), Fault> {
    let length = path.as_os_str().len();
    if length <= SOCKET_PATH_MAX {
        return Ok(());
    }
    Err(Fault::config(format!(
        "socket {}: the path has {length} bytes, a unix socket's may have {SOCKET_PATH_MAX}",
        path.display()
    ))
    .hint("choose a shorter one with --socket"))
}

/// Whether an open file is the one at this place.
pub fn is_same_file(open: &std::fs::File, place: &Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    match (open.metadata(), std::fs::metadata(place)) {
        (Ok(one), Ok(other)) => (one.dev(), one.ino()) == (other.dev(), other.ino()),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    fn somebody() -> Whereabouts {
        Whereabouts {
            uid: 1000,
            temp: "/tmp".into(),
            ..Whereabouts::default()
        }
    }

    #[test]
    fn root_always_has_the_systems_places() {
        let root = Whereabouts {
            uid: 0,
            xdg_runtime: Some("/run/user/0".into()),
            runtime_directory: Some("/run/other".into()),
            ..somebody()
        };
        assert_eq!(root.socket(), Path::new("/run/hotctl/control.sock"));
        assert_eq!(root.state(), Path::new("/var/lib/hotctl"));
        assert_eq!(root.sockets().len(), 1);
    }

    #[test]
    fn a_user_has_systemds_folders_then_xdg_then_a_temp_folder_of_their_own() {
        let mut user = somebody();
        assert_eq!(user.socket(), Path::new("/tmp/hotctl-1000/control.sock"));
        assert_eq!(user.state(), Path::new("/tmp/hotctl-1000/state"));
        user.home = Some("/home/ann".into());
        user.xdg_runtime = Some("/run/user/1000".into());
        assert_eq!(
            user.socket(),
            Path::new("/run/user/1000/hotctl/control.sock")
        );
        assert_eq!(user.state(), Path::new("/home/ann/.local/state/hotctl"));
        user.runtime_directory = Some("/run/hc".into());
        user.state_directory = Some("/var/lib/hc".into());
        assert_eq!(user.socket(), Path::new("/run/hc/control.sock"));
        assert_eq!(user.state(), Path::new("/var/lib/hc"));
        assert_eq!(user.sockets()[1], Path::new("/run/hotctl/control.sock"));
    }

    #[test]
    fn a_socket_is_kept_only_where_nobody_else_can_write() {
        let somebody = 4_123_456_789;
        assert!(is_kept_by(Path::new("/run/hotctl.sock"), somebody));
        assert!(!is_kept_by(
            Path::new("/no such folder/control.sock"),
            somebody
        ));
        let temp = tempfile::tempdir().unwrap();
        // Nobody else can write to this one, but to the folder it is in.
        assert!(!is_kept_by(&temp.path().join("control.sock"), somebody));
    }

    #[test]
    fn a_socket_path_that_the_system_would_cut_is_refused_with_the_reason() {
        let long = PathBuf::from(format!("/tmp/{}", "x".repeat(103)));
        assert!(
            check_socket_path(&long)
                .unwrap_err()
                .to_string()
                .contains("108 bytes")
        );
        assert!(check_socket_path(&PathBuf::from(format!("/tmp/{}", "x".repeat(102)))).is_ok());
    }

    #[test]
    fn a_private_folder_is_made_private_and_a_file_in_its_place_refused() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("a/b");
        private_folder(&path, "state").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o700);
        let file = temp.path().join("file");
        fs::write(&file, "").unwrap();
        assert!(private_folder(&file, "state").is_err());
    }
}
