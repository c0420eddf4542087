//! Where an instance listens, ours until it is dropped: a leased port, the path of a unix socket, or
//! a socket that listens already; and its further ports. Starts nothing.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use hotctl_config::{Address, AddressKind, PortName, Slot};
use hotctl_deploy::ports::{self, Lease, Listener, Ports};
use hotctl_deploy::sockets::{self, Holder};
use hotctl_deploy::why::{Kind, Why};

use super::named::{NamedPorts, PortMap, lease};

/// The longest path of a unix socket: `sun_path` holds 108 bytes, the last of them NUL (unix(7)).
const SOCKET_PATH_MAX: usize = 107;

/// See the head of this file.
#[derive(Debug)]
pub struct Place {
    address: Address,
    held: Held,
    named: NamedPorts,
}

/// What keeps it ours.
#[derive(Debug)]
enum Held {
    Port(Option<Lease>),
    Unix(SocketFile),
    /// Nothing: it is always the same.
    Fixed,
    /// The listener is kept as long as the place, so that connections wait in its backlog while the
    /// process is started again.
    Socket(Option<Lease>, Listener),
}

/// Why an app cannot have the port that it always listens at, with who has it where that can be seen.
fn not_free(address: SocketAddr, cause: &io::Error) -> Why {
    let port = address.port();
    if cause.kind() != io::ErrorKind::AddrInUse {
        return Why::new(Kind::NoPort, format!("{address}: {cause}"))
            .hint(format!("let the app listen at another port than {port}"));
    }
    let elsewhere = "or let the app listen at $PORT, or at another";
    match sockets::holder(address) {
        Some(Holder { pid, command }) => Why::new(
            Kind::NoPort,
            format!("{address}: taken by another process, pid {pid}: {command}"),
        )
        .hint(format!("kill {pid}, where it is not needed; {elsewhere}")),
        None => Why::new(
            Kind::NoPort,
            format!("{address}: taken by another process, of another user"),
        )
        .hint(format!(
            "`sudo ss -ltnp 'sport = :{port}'` shows which: stop it; {elsewhere}"
        )),
    }
}

impl Place {
    /// A place that nobody else has, with a port for each of these names.
    ///
    /// # Errors
    /// If no port is free, or `run`, the folder for sockets, has too long a path.
    pub fn take(
        kind: AddressKind,
        names: &[PortName],
        ports: &Ports,
        run: &Path,
        slot: Slot,
        instance: usize,
    ) -> Result<Self, Why> {
        let at = |lease: &Lease| Address::Inet((Ipv4Addr::LOCALHOST, lease.port()).into());
        let (address, held) = match kind {
            AddressKind::Port => {
                let lease = lease(ports)?;
                (at(&lease), Held::Port(Some(lease)))
            }
            AddressKind::Unix => {
                let file = SocketFile::in_folder(run, slot, instance)?;
                (Address::Unix(file.path.as_path().into()), Held::Unix(file))
            }
            AddressKind::Nowhere => (Address::Nowhere, Held::Fixed),
            AddressKind::Fixed(port) => {
                let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port.get()));
                // What listens there already would be taken for the app.
                std::net::TcpListener::bind(address).map_err(|cause| not_free(address, &cause))?;
                (address.into(), Held::Fixed)
            }
            AddressKind::Socket => {
                let lease = lease(ports)?;
                let listener = ports::listen(&lease).map_err(|cause| {
                    let port = lease.port();
                    Why::new(
                        Kind::NoPort,
                        format!("cannot listen on port {port}: {cause}"),
                    )
                    .hint("deploy again: another port is taken then")
                })?;
                (at(&lease), Held::Socket(Some(lease), listener))
            }
        };
        Ok(Self {
            address,
            held,
            named: NamedPorts::default().with(names, ports)?,
        })
    }

    /// Where it is.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// The socket to hand over, if that is how the app is told.
    pub fn listener(&self) -> Option<Listener> {
        match &self.held {
            Held::Socket(_, listener) => Some(listener.clone()),
            Held::Port(_) | Held::Fixed | Held::Unix(_) => None,
        }
    }

    /// Where an app listens that another daemon has started, with what its shim kept of the place.
    pub fn adopted(
        address: &Address,
        named: &PortMap,
        listener: Option<Listener>,
        leases: &[Lease],
    ) -> Self {
        let own = leases
            .iter()
            .find(|lease| address.port() == Some(lease.port()))
            .cloned();
        Self::of(address, own, listener, NamedPorts::adopted(named, leases))
    }

    fn of(
        address: &Address,
        lease: Option<Lease>,
        listener: Option<Listener>,
        named: NamedPorts,
    ) -> Self {
        let held = match (address, listener) {
            (Address::Unix(path), _) => Held::Unix(SocketFile {
                path: path.to_path_buf(),
                kept: AtomicBool::new(false),
            }),
            (Address::Inet(_), Some(listener)) => Held::Socket(lease, listener),
            (Address::Inet(_), None) => Held::Port(lease),
            (Address::Nowhere, _) => Held::Fixed,
        };
        Self {
            address: address.clone(),
            held,
            named,
        }
    }

    /// Its further ports.
    pub fn named(&self) -> &NamedPorts {
        &self.named
    }

    /// Those are its further ports from now on.
    pub fn give(&mut self, named: NamedPorts) {
        self.named = named;
    }

    /// The leases of its ports, for whoever listens there to hold them, too: its own at the end, where
    /// an older hotctl that knows of one only takes it from.
    pub fn leases(&self) -> Vec<Lease> {
        self.named.leases().chain(self.own_lease()).collect()
    }

    fn own_lease(&self) -> Option<Lease> {
        match &self.held {
            Held::Port(lease) | Held::Socket(lease, _) => lease.clone(),
            Held::Fixed | Held::Unix(_) => None,
        }
    }

    /// Another view of the same place, which removes nothing when it is dropped.
    pub fn again(&self) -> Self {
        let again = Self::of(
            &self.address,
            self.own_lease(),
            self.listener(),
            self.named.clone(),
        );
        again.keep();
        again
    }

    /// Somebody else goes on using it: nothing of it is removed when it is dropped here.
    pub fn keep(&self) {
        if let Held::Unix(file) = &self.held {
            file.kept.store(true, Ordering::Relaxed);
        }
    }

    /// Make it ready for a process: what the one before left of its socket is removed.
    ///
    /// # Errors
    /// If it cannot be removed.
    pub fn clear(&self) -> io::Result<()> {
        match &self.held {
            Held::Unix(file) => file.remove(),
            Held::Port(_) | Held::Fixed | Held::Socket(..) => Ok(()),
        }
    }

    /// Whether somebody else took a port between our look and the app's.
    pub fn is_taken(&self) -> bool {
        let own = match (&self.held, &self.address) {
            (Held::Port(_), Address::Inet(address)) => Some(*address),
            _ => None,
        };
        let named = self.named.ports().into_values();
        let mut all = named
            .map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
            .chain(own);
        all.any(|address| std::net::TcpListener::bind(address).is_err())
    }
}

/// Remove the sockets of apps that are not there any more: all but those.
///
/// # Errors
/// If the folder is there and cannot be read, or a socket cannot be removed.
pub fn sweep(run: &Path, kept: &[PathBuf]) -> io::Result<()> {
    let entries = match run.read_dir() {
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let path = entry?.path();
        let is_socket = path.extension().is_some_and(|it| it == "sock");
        if is_socket && !kept.contains(&path) {
            std::fs::remove_file(path)?;
        }
    }
    Ok(())
}

/// The path of a unix socket; what is there goes with it.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    /// It is not removed with this.
    kept: AtomicBool,
}

impl SocketFile {
    fn in_folder(run: &Path, slot: Slot, instance: usize) -> Result<Self, Why> {
        // With our own number: an app that the last daemon was just starting when it died may still
        // be about to listen at the name of this one's predecessor.
        let own = std::process::id();
        let path = run.join(format!("{}.{instance}.{own}.sock", slot.0));
        let length = path.as_os_str().len();
        if length > SOCKET_PATH_MAX {
            let why = format!(
                "{}: {length} bytes, and the path of a unix socket has at most {SOCKET_PATH_MAX}",
                path.display()
            );
            return Err(Why::new(Kind::NotStarted, why)
                .hint("a state folder with a shorter path (--state), or address = \"port\""));
        }
        let file = Self {
            path,
            kept: AtomicBool::new(false),
        };
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
        if self.kept.load(Ordering::Relaxed) {
            return;
        }
        // Nothing else can be done about it here; the next start in this slot's place tries again.
        let _ = self.remove();
    }
}
