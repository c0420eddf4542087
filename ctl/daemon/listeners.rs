//! The sockets that the daemon listens at.

use std::io;
use std::net::{SocketAddr, TcpListener};

use crate::fault::Fault;

/// Listen; what stands in the way is told with its remedy.
pub fn bind(address: SocketAddr, what: &str) -> Result<TcpListener, Fault> {
    let listener = TcpListener::bind(address).and_then(|listener| {
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
