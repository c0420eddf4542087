//! Which proxies there are, and how each is set. Pure.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use rustix::process::Signal;

use super::process::words;
use super::{caddy, envoy, example, find, haproxy, hotctl, nginx, sozu};

/// One of the field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Peer {
    Hotctl,
    /// hotctl's way of a request without its daemon.
    Datapath,
    /// pingora with nothing added, on hotctl's loop that takes connections in.
    Hall,
    /// pingora behind its own `Service`.
    Bare,
    Nginx,
    Haproxy,
    Sozu,
    Envoy,
    Caddy,
}

/// Those that users have, and what hotctl is made of, in the order of the tables.
pub const ALL: [Peer; 9] = [
    Peer::Hotctl,
    Peer::Datapath,
    Peer::Hall,
    Peer::Bare,
    Peer::Nginx,
    Peer::Haproxy,
    Peer::Sozu,
    Peer::Envoy,
    Peer::Caddy,
];

/// What a case asks of a proxy. All else is left as each of them has it by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    pub link: Link,
    pub threads: usize,
    pub routes: usize,
    pub log: Log,
    pub under: Under,
    /// Where it may run.
    pub cores: Vec<usize>,
}

/// How the proxy reaches the backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    Tcp,
    Unix,
}

/// Whether there is an access log; it is a file then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Log {
    Off,
    On,
}

/// What looks on while it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Under {
    Nothing,
    /// valgrind, which counts instructions and leaves a file `callgrind.PID` for each process.
    Callgrind,
}

/// Where a backend listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Upstream {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

/// Everything a configuration is made of.
pub struct Place<'a> {
    pub folder: &'a Path,
    pub listen: SocketAddr,
    /// Where it is steered, if it is by TCP.
    pub admin: SocketAddr,
    pub upstream: Upstream,
    pub setting: &'a Setting,
}

impl Peer {
    pub fn name(self) -> &'static str {
        match self {
            Self::Hotctl => "hotctl",
            Self::Datapath => "hotctl's data path",
            Self::Hall => "pingora in hotctl's loop",
            Self::Bare => "pingora",
            Self::Nginx => "nginx",
            Self::Haproxy => "haproxy",
            Self::Sozu => "sozu",
            Self::Envoy => "envoy",
            Self::Caddy => "caddy",
        }
    }

    /// The signal that ends it without a long goodbye.
    pub fn farewell(self) -> Signal {
        match self {
            // pingora sleeps for minutes after SIGTERM.
            Self::Bare => Signal::INT,
            _ => Signal::TERM,
        }
    }

    /// Its program, if it can be had here.
    pub fn program(self) -> Option<PathBuf> {
        match self {
            Self::Hotctl => Some(super::hotctl()),
            Self::Datapath | Self::Hall => Some(example("datapath")),
            Self::Bare => Some(example("bare")),
            _ => find(self.name()),
        }
    }

    /// Whether it can be set so: a peer that cannot is left out of the case.
    pub fn can(self, setting: &Setting) -> bool {
        match self {
            Self::Hotctl | Self::Nginx | Self::Haproxy => true,
            Self::Bare => setting.routes == 1 && setting.log == Log::Off,
            Self::Envoy | Self::Caddy => setting.routes == 1,
            Self::Sozu => {
                setting.routes == 1 && setting.log == Log::Off && setting.link == Link::Tcp
            }
            Self::Datapath | Self::Hall => *setting == Setting::plain(&setting.cores),
        }
    }

    /// The text of its configuration, and the name of the file that it is in.
    pub fn configuration(self, place: &Place) -> (&'static str, String) {
        match self {
            Self::Hotctl => ("hotctl.toml", hotctl::configuration(place)),
            Self::Bare | Self::Datapath | Self::Hall => ("nothing", String::new()),
            Self::Nginx => ("nginx.conf", nginx::configuration(place)),
            Self::Haproxy => ("haproxy.cfg", haproxy::configuration(place)),
            Self::Sozu => ("sozu.toml", sozu::configuration(place)),
            Self::Envoy => ("envoy.json", envoy::configuration(place)),
            Self::Caddy => ("caddy.json", caddy::configuration(place)),
        }
    }

    /// How it is started with that file, in the foreground.
    pub fn words(self, place: &Place, file: &Path) -> Vec<String> {
        let file = file.display().to_string();
        let threads = place.setting.threads.to_string();
        let words: &[&str] = match self {
            Self::Hotctl => &["serve", "--config", &file],
            Self::Bare | Self::Datapath => &[
                &place.listen.to_string(),
                &place.upstream.path_or_address(),
                &threads,
            ],
            Self::Hall => &[
                "--bare",
                &place.listen.to_string(),
                &place.upstream.path_or_address(),
            ],
            Self::Nginx => &["-e", "stderr", "-c", &file],
            // With a master, which is what takes a new configuration.
            Self::Haproxy => &["-W", "-db", "-f", &file],
            Self::Sozu => &["--config", &file, "start"],
            Self::Envoy => &[
                "--config-path",
                &file,
                "--concurrency",
                &threads,
                "--use-dynamic-base-id",
                "--log-level",
                "error",
            ],
            Self::Caddy => &["run", "--config", &file],
        };
        words.iter().map(|word| (*word).to_string()).collect()
    }

    /// The same under `taskset`, on its cores from its first instruction on: what looks how many cores
    /// there are sees no others.
    pub fn command(self, place: &Place, file: &Path) -> Option<std::process::Command> {
        let mut command = std::process::Command::new("taskset");
        command
            .args(["-c", &words(&place.setting.cores)])
            .args(place.setting.under.words(place.folder))
            .arg(self.program()?)
            .args(self.words(place, file));
        Some(command)
    }
}

impl Setting {
    /// One thread, one route, and nothing that is not needed.
    pub fn plain(cores: &[usize]) -> Self {
        Self {
            link: Link::Tcp,
            threads: 1,
            routes: 1,
            log: Log::Off,
            under: Under::Nothing,
            cores: cores.to_vec(),
        }
    }
}

impl Under {
    fn words(self, folder: &Path) -> Vec<String> {
        match self {
            Self::Nothing => Vec::new(),
            // Workers too.
            Self::Callgrind => vec![
                "valgrind".to_string(),
                "--tool=callgrind".to_string(),
                "--trace-children=yes".to_string(),
                format!("--callgrind-out-file={}/callgrind.%p", folder.display()),
            ],
        }
    }
}

impl Upstream {
    /// As most of them write it.
    pub fn path_or_address(&self) -> String {
        match self {
            Self::Tcp(address) => address.to_string(),
            Self::Unix(path) => path.display().to_string(),
        }
    }
}
