//! Who uses the service while it changes.

use std::net::SocketAddr;
use std::time::Duration;

use crate::support::load::{Class, Load, Plan};

/// A mix of clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crowd {
    /// Short requests.
    Steady,
    /// The same, and fifty of two seconds at any time.
    InFlight,
    /// The same as the first, and what stays open: WebSockets, event streams, requests of two seconds.
    Open,
}

pub const ALL: [Crowd; 3] = [Crowd::Steady, Crowd::InFlight, Crowd::Open];

impl Crowd {
    pub fn name(self) -> &'static str {
        match self {
            Self::Steady => "steady",
            Self::InFlight => "in-flight",
            Self::Open => "open",
        }
    }

    pub fn what(self) -> &'static str {
        match self {
            Self::Steady => "short requests, keep-alive and new connections, and posts",
            Self::InFlight => "the same, with 50 requests in flight that take 2 s",
            Self::Open => "the same, with WebSockets, streams and 2-second requests open",
        }
    }

    /// The time between two switches: nothing of one is there at the next.
    pub fn pause(self) -> Duration {
        match self {
            Self::Steady => Duration::from_millis(1000),
            Self::InFlight | Self::Open => Duration::from_millis(2500),
        }
    }

    pub fn start(self, to: SocketAddr) -> Load {
        let plan = Plan::to(to)
            .clients(Class::KeepAlive, 16)
            .clients(Class::NewConnection, 4)
            .clients(Class::Post, 2);
        let plan = match self {
            Self::Steady => plan,
            Self::InFlight => plan.clients(Class::Slow, 50),
            Self::Open => plan
                .clients(Class::WebSocket, 2)
                .clients(Class::EventStream, 2)
                .clients(Class::Slow, 2),
        };
        plan.every(Duration::from_millis(10)).start()
    }
}
