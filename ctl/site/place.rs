//! Where an instance listens, ours until it is dropped: a leased port, the path of a unix socket, or
//! a socket that listens already. Starts nothing.

use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use hotctl_config::{Address, AddressKind, Slot};
use hotctl_deploy::ports::{self, Lease, Listener, Ports};
use hotctl_deploy::why::{Kind, Why};

/// The longest path of a unix socket: `sun_path` holds 108 bytes, the last of them NUL (unix(7)).
const SOCKET_PATH_MAX: usize = 107;

/// See the head of this file.
#[derive(Debug)]
pub struct Place {
    address: Address,
    held: Held,
}

/// What keeps it ours.
#[derive(Debug)]
enum Held {
    Port {
        _lease: Lease,
    },
    Unix(SocketFile),
    /// The listener is kept as long as the place, so that connections wait in its backlog while the
    /// process is started again.
    Socket {
        _lease: Lease,
        listener: Listener,
    },
}

impl Place {
    /// A place that nobody else has.
    ///
    /// # Errors
    /// If no port is free, or `run`, the folder for sockets, has too long a path.
    pub fn take(
        kind: AddressKind,
        ports: &Ports,
        run: &Path,
        slot: Slot,
        instance: usize,
    ) -> Result<Self, Why> {
        let lease = || {
            ports.lease().map_err(|none| {
                Why::new(Kind::NoPort, none.to_string())
                    .hint("widen `ports` in the configuration, or stop what uses them")
            })
        };
        let at = |lease: &Lease| Address::Inet((Ipv4Addr::LOCALHOST, lease.port()).into());
        match kind {
            AddressKind::Port => {
                let lease = lease()?;
                Ok(Self {
                    address: at(&lease),
                    held: Held::Port { _lease: lease },
                })
            }
            AddressKind::Unix => {
                let file = SocketFile::in_folder(run, slot, instance)?;
                Ok(Self {
                    address: Address::Unix(file.path.as_path().into()),
                    held: Held::Unix(file),
                })
            }
            AddressKind::Socket => {
                let lease = lease()?;
                let listener = ports::listen(&lease).map_err(|cause| {
                    let port = lease.port();
                    Why::new(
                        Kind::NoPort,
                        format!("cannot listen on port {port}: {cause}"),
                    )
                    .hint("deploy again: another port is taken then")
                })?;
                Ok(Self {
                    address: at(&lease),
                    held: Held::Socket {
                        _lease: lease,
                        listener,
                    },
                })
            }
        }
    }

    /// Where it is.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// The socket to hand over, if that is how the app is told.
    pub fn listener(&self) -> Option<Listener> {
        match &self.held {
            Held::Socket { listener, .. } => Some(listener.clone()),
            Held::Port { .. } | Held::Unix(_) => None,
        }
    }

    /// Make it ready for a process: what the one before left of its socket is removed.
    ///
    /// # Errors
    /// If it cannot be removed.
    pub fn clear(&self) -> io::Result<()> {
        match &self.held {
            Held::Unix(file) => file.remove(),
            Held::Port { .. } | Held::Socket { .. } => Ok(()),
        }
    }

    /// Whether somebody else took the port between our look and the app's.
    pub fn is_taken(&self) -> bool {
        match (&self.held, &self.address) {
            (Held::Port { .. }, Address::Inet(address)) => {
                std::net::TcpListener::bind(address).is_err()
            }
            _ => false,
        }
    }
}

/// Remove the sockets that a daemon has left which was killed: its processes have ended with it.
///
/// # Errors
/// If the folder cannot be read, or a socket cannot be removed.
pub fn sweep(run: &Path) -> io::Result<()> {
    for entry in run.read_dir()? {
        let path = entry?.path();
        if path
            .extension()
            .is_some_and(|extension| extension == "sock")
        {
            std::fs::remove_file(path)?;
        }
    }
    Ok(())
}

/// The path of a unix socket; what is there goes with it.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
}

impl SocketFile {
    fn in_folder(run: &Path, slot: Slot, instance: usize) -> Result<Self, Why> {
        let path = run.join(format!("{}.{instance}.sock", slot.0));
        let length = path.as_os_str().len();
        if length > SOCKET_PATH_MAX {
            let why = format!(
                "{}: {length} bytes, and the path of a unix socket has at most {SOCKET_PATH_MAX}",
                path.display()
            );
            return Err(Why::new(Kind::NotStarted, why)
                .hint("a state folder with a shorter path (--state), or address = \"port\""));
        }
        let file = Self { path };
        file.remove().map_err(|cause| {
            Why::new(
                Kind::NotStarted,
                format!("{}: cannot be removed: {cause}", file.path.display()),
            )
            .hint("mend the permissions of the state folder")
        })?;
        Ok(file)
    }

    fn remove(&self) -> io::Result<()> {
        match std::fs::remove_file(&self.path) {
            Err(cause) if cause.kind() != io::ErrorKind::NotFound => Err(cause),
            _ => Ok(()),
        }
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Nothing else can be done about it here; the next start in this slot's place tries again.
        let _ = self.remove();
    }
}
