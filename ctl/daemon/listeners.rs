//! The sockets that the daemon listens at: passed on to it, or bound now.

use std::io;
use std::net::{SocketAddr, TcpListener};

use hotctl_config::file::{Admin, Config};

use super::inherit::{Giver, Inherited};
use crate::fault::Fault;

/// Every socket that a configuration names.
#[derive(Debug)]
pub struct Listeners {
    /// For requests.
    pub http: Vec<TcpListener>,
    /// For scrapes.
    pub admin: Option<TcpListener>,
}

impl Listeners {
    /// Take what was passed on, bind what was not.
    ///
    /// # Errors
    /// If one cannot be bound, or a socket was passed on that the configuration does not name: whoever
    /// connects there would wait for ever.
    pub fn of(config: &Config, inherited: &mut Inherited) -> Result<Self, Fault> {
        let mut have = |address, what| match inherited.listener(address, what == "admin") {
            Some(listener) => match listener.set_nonblocking(true) {
                Ok(()) => Ok(listener),
                Err(cause) => Err(Fault::failed(format!("{what} {address}: {cause}"))),
            },
            None => bind(address, what),
        };
        let http = config.listen.iter().map(|one| have(one.address, "listen"));
        let http = http.collect::<Result<Vec<_>, _>>()?;
        let admin = match config.admin {
            Admin::At(address) => Some(have(address, "admin")?),
            Admin::Off => None,
        };
        for (name, address) in inherited.unclaimed() {
            match inherited.giver() {
                Giver::Activator => {
                    return Err(Fault::config(format!(
                        "listen: a socket of {address} was passed on (named `{name}`), and the configuration does not listen there"
                    ))
                    .hint(format!(
                        "add a [[listen]] table with address = \"{address}\"; for the admin address, FileDescriptorName=admin in its socket unit"
                    )));
                }
                // The configuration has changed since: it is closed once both have let go of it.
                Giver::Predecessor => tracing::info!(%address, "not listening there any more"),
            }
        }
        Ok(Self { http, admin })
    }
}

/// Listen; what stands in the way is told with its remedy.
pub fn bind(address: SocketAddr, what: &str) -> Result<TcpListener, Fault> {
    /// Connections that wait to be accepted. The standard library asks for 128, and of a burst of more clients
    /// than that some try again a second later. The kernel takes less where it has less (net.core.somaxconn).
    const BACKLOG: i32 = 4096;
    let listener = TcpListener::bind(address).and_then(|listener| {
        rustix::net::listen(&listener, BACKLOG)?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    });
    listener.map_err(|cause| {
        let fault = Fault::config(format!("{what} {address}: {}", reason(&cause)));
        match cause.kind() {
            io::ErrorKind::AddrInUse => {
                let other = if what == "admin" {
                    "choose another with --admin ADDRESS, or none with --admin off"
                } else {
                    "choose another address"
                };
                let port = address.port();
                fault.hint(format!(
                    "`ss -ltnp 'sport = :{port}'` shows who has it; stop that, or {other}"
                ))
            }
            io::ErrorKind::PermissionDenied => fault
                .hint("ports below 1024 need root or CAP_NET_BIND_SERVICE; choose a higher one"),
            io::ErrorKind::AddrNotAvailable => {
                fault.hint("this machine has no such address; `ip addr` lists what it has")
            }
            _ => fault,
        }
    })
}

/// The text of an I/O error without its number.
pub fn reason(cause: &io::Error) -> String {
    match cause.kind() {
        io::ErrorKind::AddrInUse => "address in use".to_owned(),
        io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        io::ErrorKind::AddrNotAvailable => "no such address on this machine".to_owned(),
        _ => cause.to_string(),
    }
}

/// Where a socket listens.
pub fn local(listener: &TcpListener) -> Result<SocketAddr, Fault> {
    listener
        .local_addr()
        .map_err(|cause| Fault::failed(format!("listener: {cause}")))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::net::TcpStream;
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_burst_of_clients_need_not_try_again() {
        let listener = bind("127.0.0.1:0".parse().unwrap(), "listener").unwrap();
        let address = listener.local_addr().unwrap();
        // Nobody accepts: whom the kernel does not let wait is not connected however long it tries.
        let burst = (0..300).map(|_| TcpStream::connect_timeout(&address, Duration::from_secs(10)));
        let clients: io::Result<Vec<_>> = burst.collect();
        assert_eq!(clients.unwrap().len(), 300);
    }
}
