//! What the process that started us has opened for us: listening sockets in the way of systemd
//! (sd_listen_fds(3)), and from the hotctl that is being replaced its locks and its line as well.
//! Knows descriptors and their names; what is done with them is decided elsewhere.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, OwnedFd};

use rustix::net::{SocketType, sockopt};

use crate::fault::Fault;
use crate::sys;
use crate::upgrade::PROTOCOL;

/// How many descriptors are passed on, from 3 on.
pub const LISTEN_FDS: &str = "LISTEN_FDS";
/// For which process. One that replaces another gets them from its parent, whose number is here:
/// its own is not known before it runs.
pub const LISTEN_PID: &str = "LISTEN_PID";
/// Their names, separated by colons.
pub const LISTEN_FDNAMES: &str = "LISTEN_FDNAMES";
/// Set by the hotctl that is being replaced: the version of what the two say to each other.
pub const UPGRADE: &str = "HOTCTL_UPGRADE";

/// The names of descriptors between two hotctls. Everything else listens for requests.
pub mod name {
    /// Listens for requests.
    pub const HTTP: &str = "http";
    /// Listens for scrapes.
    pub const ADMIN: &str = "admin";
    /// Listens for the command line.
    pub const CONTROL: &str = "control";
    /// Holds the lock of the control socket.
    pub const SOCKET_LOCK: &str = "socket-lock";
    /// Holds the lock of the state folder.
    pub const STATE_LOCK: &str = "state-lock";
    /// What the two say to each other.
    pub const LINK: &str = "link";
    /// Where connections arrive.
    pub const PASS: &str = "pass";
}

/// From whom descriptors come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Giver {
    /// systemd, or what does as it does.
    Activator,
    /// The hotctl that is being replaced.
    Predecessor,
}

/// The descriptors that were passed on and are not taken yet.
#[derive(Debug)]
pub struct Inherited {
    giver: Giver,
    open: Vec<(String, OwnedFd)>,
}

impl Inherited {
    /// Take what the environment speaks of. To be called before anything is opened.
    ///
    /// # Errors
    /// If it speaks of what is not there.
    pub fn take() -> Result<Self, Fault> {
        let var = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let giver = match var(UPGRADE) {
            Some(protocol) if protocol == PROTOCOL => Giver::Predecessor,
            Some(protocol) => {
                return Err(Fault::config(format!(
                    "upgrade: the hotctl that is to be replaced speaks protocol {protocol}, and this one {PROTOCOL}"
                ))
                .hint("upgrade to a version in between first, or stop that one and start this one: with `on_exit = \"keep\"` apps go on meanwhile"));
            }
            None => Giver::Activator,
        };
        let nothing = Self {
            giver: Giver::Activator,
            open: Vec::new(),
        };
        let Some(count) = var(LISTEN_FDS) else {
            return Ok(nothing);
        };
        let for_us = match giver {
            Giver::Activator => Some(std::process::id()),
            Giver::Predecessor => rustix::process::getppid()
                .and_then(|pid| u32::try_from(pid.as_raw_nonzero().get()).ok()),
        };
        if var(LISTEN_PID).and_then(|pid| pid.parse().ok()) != for_us {
            // It was meant for a process further up.
            return Ok(nothing);
        }
        let count: u16 = count.parse().map_err(|_| {
            Fault::config(format!(
                "{LISTEN_FDS}: `{count}` is no number of descriptors"
            ))
            .hint("leave it to systemd, or unset it")
        })?;
        let names = var(LISTEN_FDNAMES).unwrap_or_default();
        let mut names = names.split(':');
        let mut open = Vec::new();
        for number in sys::FIRST..sys::FIRST + i32::from(count) {
            let descriptor = sys::inherit(number).map_err(|cause| {
                Fault::config(format!(
                    "{LISTEN_FDS}={count}: descriptor {number}: {cause}"
                ))
                .hint("leave it to systemd, or unset it")
            })?;
            let name = names.next().unwrap_or_default().to_owned();
            open.push((name, descriptor));
        }
        Ok(Self { giver, open })
    }

    /// From whom they come.
    pub fn giver(&self) -> Giver {
        self.giver
    }

    /// The socket that listens at this address, for requests or (`admin`) for scrapes. Port 0 takes
    /// the first that is left of its address.
    pub fn listener(&mut self, address: SocketAddr, admin: bool) -> Option<TcpListener> {
        let fits = |name: &str, descriptor: &OwnedFd| {
            (name == name::ADMIN) == admin
                && listens(descriptor).is_some_and(|at| match address.port() {
                    0 => at.ip() == address.ip(),
                    _ => at == address,
                })
        };
        let at = self
            .open
            .iter()
            .position(|(name, descriptor)| fits(name, descriptor))?;
        Some(TcpListener::from(self.open.remove(at).1))
    }

    /// What the hotctl that is being replaced has passed on by this name.
    pub fn named(&mut self, name: &str) -> Option<OwnedFd> {
        if self.giver != Giver::Predecessor {
            return None;
        }
        let at = self.open.iter().position(|(its, _)| its == name)?;
        Some(self.open.remove(at).1)
    }

    /// Close the sockets that are left and listen; their names and addresses.
    pub fn unclaimed(&mut self) -> Vec<(String, SocketAddr)> {
        let (sockets, rest) = std::mem::take(&mut self.open)
            .into_iter()
            .map(|(name, descriptor)| (listens(&descriptor), name, descriptor))
            .partition::<Vec<_>, _>(|(at, ..)| at.is_some());
        let rest = rest.into_iter();
        self.open = rest
            .map(|(_, name, descriptor)| (name, descriptor))
            .collect();
        let sockets = sockets.into_iter();
        sockets
            .filter_map(|(at, name, _)| Some((name, at?)))
            .collect()
    }
}

/// Where a socket listens for connections, if it does.
fn listens(descriptor: impl AsFd) -> Option<SocketAddr> {
    let look = || -> io::Result<Option<SocketAddr>> {
        if sockopt::socket_type(&descriptor)? != SocketType::STREAM
            || !sockopt::socket_acceptconn(&descriptor)?
        {
            return Ok(None);
        }
        let address = rustix::net::getsockname(&descriptor)?;
        Ok(SocketAddr::try_from(address).ok())
    };
    look().ok().flatten()
}
