//! Ports for candidates: free when they are given, and never given twice on one machine, not even by
//! two daemons.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr as UnixAddr, UnixDatagram};
use std::sync::Arc;

use hotctl_config::file::PortRange;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, socket_with, sockopt};

/// The ports of a range, leased one by one.
#[derive(Debug, Clone)]
pub struct Ports {
    range: PortRange,
}

/// One port, ours until this is dropped. It is kept by an abstract unix socket named after it, so it
/// holds among all daemons of the network namespace and ends with its holder, however that ends.
/// Cheap to clone; it ends with the last clone, in whatever process.
#[derive(Debug, Clone)]
pub struct Lease {
    port: u16,
    held: Arc<OwnedFd>,
}

/// A bound, listening socket that apps inherit, one after the other. Whoever keeps a clone keeps the
/// connections that wait in it, also while no app runs. Cheap to clone; equal only to its clones.
#[derive(Debug, Clone)]
pub struct Listener(Arc<OwnedFd>);

/// How many connections may wait in a [`Listener`] for an app to take them. The system allows no
/// more than `net.core.somaxconn`, 4096 as a rule.
const BACKLOG: i32 = 4096;

/// Listen on a leased port of the loopback address.
///
/// # Errors
/// If somebody else took the port meanwhile, or no socket can be had.
pub fn listen(lease: &Lease) -> io::Result<Listener> {
    let socket = socket_with(
        AddressFamily::INET,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    )?;
    // The port may rest from connections of a minute ago.
    sockopt::set_socket_reuseaddr(&socket, true)?;
    bind(
        &socket,
        &SocketAddr::from((Ipv4Addr::LOCALHOST, lease.port)),
    )?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(Listener(Arc::new(socket)))
}

impl Listener {
    /// Whether connections wait in it that no app has taken yet.
    pub(crate) fn waits(&self) -> bool {
        let mut waited = [PollFd::new(self, PollFlags::IN)];
        let at_once = Timespec::default();
        rustix::event::poll(&mut waited, Some(&at_once)).is_ok_and(|ready| ready > 0)
    }
}

impl From<OwnedFd> for Listener {
    fn from(socket: OwnedFd) -> Self {
        Self(Arc::new(socket))
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl PartialEq for Listener {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Listener {}

/// Every port of the range is in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoPort {
    range: PortRange,
}

impl Ports {
    /// Ports of this range, both ends included.
    pub fn new(range: PortRange) -> Self {
        Self { range }
    }

    /// A port that nobody uses and nobody else has leased. Begins at random, so that a port is not
    /// soon given again.
    ///
    /// # Errors
    /// [`NoPort`] if there is none.
    pub fn lease(&self) -> Result<Lease, NoPort> {
        // A port with a connection that was closed a minute ago is free for apps that say so
        // (SO_REUSEADDR), which not all do: those come last.
        [Strictness::Strict, Strictness::Lenient]
            .into_iter()
            .find_map(|strictness| self.find(strictness))
            .ok_or(NoPort { range: self.range })
    }

    fn find(&self, strictness: Strictness) -> Option<Lease> {
        let (first, last) = (self.range.first, self.range.last);
        let start = fastrand::u16(first..=last);
        (start..=last)
            .chain(first..start)
            .find_map(|port| lease(port, strictness))
    }
}

impl Lease {
    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The lease that another process has handed over.
    pub(crate) fn taken_over(port: u16, held: OwnedFd) -> Self {
        Self {
            port,
            held: Arc::new(held),
        }
    }
}

impl AsFd for Lease {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.held.as_fd()
    }
}

impl PartialEq for Lease {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.held, &other.held)
    }
}

impl Eq for Lease {}

impl fmt::Display for NoPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no free port in {}", self.range)
    }
}

impl std::error::Error for NoPort {}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Strictness {
    Strict,
    Lenient,
}

fn lease(port: u16, strictness: Strictness) -> Option<Lease> {
    let name = UnixAddr::from_abstract_name(format!("hotctl-port-{port}")).ok()?;
    let held = UnixDatagram::bind_addr(&name).ok()?;
    is_free(port, strictness).then(|| Lease::taken_over(port, held.into()))
}

/// Whether an app could listen there, on whatever address of this machine.
fn is_free(port: u16, strictness: Strictness) -> bool {
    let free = |address: SocketAddr| match try_bind(address, strictness) {
        Ok(()) => true,
        // A machine without IPv6.
        Err(e) => address.is_ipv6() && e.kind() != io::ErrorKind::AddrInUse,
    };
    free((Ipv4Addr::LOCALHOST, port).into())
        && free((Ipv4Addr::UNSPECIFIED, port).into())
        && free((Ipv6Addr::UNSPECIFIED, port).into())
}

/// Bind, without ever listening: nobody can connect to a test.
fn try_bind(address: SocketAddr, strictness: Strictness) -> io::Result<()> {
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let socket = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    if address.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    if strictness == Strictness::Lenient {
        sockopt::set_socket_reuseaddr(&socket, true)?;
    }
    bind(&socket, &address)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use std::collections::BTreeSet;
    use std::net::TcpListener;

    use super::{PortRange, Ports};

    fn range(first: u16, last: u16) -> Ports {
        Ports::new(PortRange { first, last })
    }

    #[test]
    fn a_port_is_leased_once_until_it_is_given_back() {
        let ports = range(17_100, 17_103);
        let leases: Vec<_> = std::iter::from_fn(|| ports.lease().ok()).collect();
        let given: BTreeSet<u16> = leases.iter().map(super::Lease::port).collect();
        assert_eq!(given, (17_100..=17_103).collect());
        let none = ports.lease().unwrap_err();
        assert_eq!(none.to_string(), "no free port in 17100-17103");
        // A second daemon asks the same system.
        assert!(range(17_100, 17_103).lease().is_err());
        drop(leases);
        assert!(ports.lease().is_ok());
    }

    #[test]
    fn a_port_that_somebody_listens_on_is_not_given() {
        for address in ["127.0.0.1", "0.0.0.0", "127.0.0.9"] {
            let taken = TcpListener::bind((address, 0)).unwrap();
            let port = taken.local_addr().unwrap().port();
            let lease = range(port, port).lease();
            assert!(lease.is_err(), "{address}");
        }
    }

    #[test]
    fn a_port_that_was_just_used_is_given_when_there_is_no_other() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let client = std::net::TcpStream::connect(address).unwrap();
        // The listening side closes first, so its port is the one that rests.
        drop(listener.accept().unwrap());
        drop(listener);
        drop(client);
        let lease = range(address.port(), address.port()).lease().unwrap();
        assert_eq!(lease.port(), address.port());
    }
}
