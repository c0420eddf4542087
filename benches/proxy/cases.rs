//! What is measured. Pure.

use crate::field::client::Kind;
use crate::field::peers::{Link, Log, Setting};
use crate::field::process::Cores;

/// One load, and how the proxies are set for it.
pub struct Case {
    pub name: &'static str,
    pub what: &'static str,
    pub kind: Kind,
    pub connections: usize,
    pub setting: Setting,
    /// A setting to compare with, and the words for the one and the other.
    pub beside: Option<(&'static str, Setting, &'static str)>,
    /// Where the load runs.
    pub load: Vec<usize>,
}

/// What the processor time is divided by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Per {
    Requests,
    /// Of bodies of so many bytes.
    Gigabyte(usize),
}

const BODY: usize = 1024 * 1024;

impl Case {
    /// How its cost is told.
    pub fn per(&self) -> Per {
        match self.kind {
            Kind::Big => Per::Gigabyte(BODY),
            Kind::Post(BODY) => Per::Gigabyte(BODY),
            _ => Per::Requests,
        }
    }

    /// Whether wrk is the load; else it is our own client.
    pub fn is_for_wrk(&self) -> bool {
        matches!(self.kind, Kind::Small | Kind::NewConnection)
    }
}

/// In the order they are run.
pub fn all(cores: &Cores) -> Vec<Case> {
    let plain = Setting::plain(&cores.proxy);
    let case = |name, what, kind, connections| Case {
        name,
        what,
        kind,
        connections,
        setting: plain.clone(),
        beside: None,
        load: cores.load.clone(),
    };
    let with = |name, what, setting| Case {
        setting,
        ..case(name, what, Kind::Small, 64)
    };
    let routes = Setting {
        routes: 10_000,
        ..plain.clone()
    };
    let unix = Setting {
        link: Link::Unix,
        ..plain.clone()
    };
    let log = Setting {
        log: Log::On,
        ..plain.clone()
    };
    let free = Setting {
        threads: 2,
        cores: cores.all.clone(),
        ..plain.clone()
    };
    vec![
        case(
            "keepalive",
            "100 bytes, keep-alive, 64 connections",
            Kind::Small,
            64,
        ),
        case(
            "tail",
            "100 bytes, keep-alive, 256 connections",
            Kind::Small,
            256,
        ),
        case(
            "connection",
            "100 bytes, a new connection for each request, 64 at once",
            Kind::NewConnection,
            64,
        ),
        case("down", "1 MiB down, 16 connections", Kind::Big, 16),
        case("up", "1 MiB up, 16 connections", Kind::Post(BODY), 16),
        case(
            "post",
            "POST of 64 KiB, 64 connections",
            Kind::Post(64 * 1024),
            64,
        ),
        case(
            "websocket",
            "echo of 12 bytes on a WebSocket, 64 connections",
            Kind::Message,
            64,
        ),
        Case {
            beside: Some(("10,000 routes", plain.clone(), "1 route")),
            ..with(
                "routes",
                "10,000 routes against 1, 100 bytes, keep-alive, 64 connections",
                routes,
            )
        },
        Case {
            beside: Some(("unix socket", plain.clone(), "TCP")),
            ..with(
                "unix",
                "upstream by unix socket against TCP, 100 bytes, keep-alive, 64 connections",
                unix,
            )
        },
        Case {
            load: cores.all.clone(),
            ..with(
                "threads",
                "two threads, nothing pinned, 100 bytes, keep-alive, 64 connections",
                free,
            )
        },
        with(
            "log",
            "access log to a file, 100 bytes, keep-alive, 64 connections",
            log,
        ),
    ]
}
