//! Telling who started this app that it is ready: sd_notify(3).

use std::env;
use std::ffi::OsString;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use crate::misbehave::say;

/// Say what is going on, and when it is time that the app is ready.
pub async fn ready(after: Duration) {
    let Some(socket) = env::var_os("NOTIFY_SOCKET") else {
        say("no NOTIFY_SOCKET to notify");
        return;
    };
    tell(&socket, "STATUS=warming up");
    tokio::time::sleep(after).await;
    tell(&socket, "READY=1\nSTATUS=serving");
}

fn tell(socket: &OsString, message: &str) {
    if let Err(e) = send(socket, message) {
        say(&format!("{}: {e}", socket.display()));
    }
}

fn send(socket: &OsString, message: &str) -> io::Result<()> {
    let address = match socket.as_bytes() {
        // A name without a file.
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(socket)?,
    };
    UnixDatagram::unbound()?.send_to_addr(message.as_bytes(), &address)?;
    Ok(())
}
