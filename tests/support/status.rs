//! `hotctl status --json` and the events of `hotctl deploy --json`, as a reader from outside sees
//! them: the fields that are needed here, whatever else there is.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;

use serde::Deserialize;
use serde_json::Value;

/// The daemon.
#[derive(Clone, Debug, Deserialize)]
pub struct Status {
    pub pid: u32,
    pub listen: Vec<SocketAddr>,
    pub admin: Option<SocketAddr>,
    pub services: Vec<Service>,
}

/// One service.
#[derive(Clone, Debug, Deserialize)]
pub struct Service {
    pub name: String,
    pub state: String,
    pub live: Option<Running>,
    pub running: Vec<Running>,
    pub previous: Option<String>,
    pub deployment: Option<Value>,
    pub waiting: Option<Value>,
}

/// A release that runs.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Running {
    pub release: String,
    pub role: String,
    pub address: Address,
    #[serde(default)]
    pub ports: BTreeMap<String, u16>,
    pub pid: Option<u32>,
    pub tickets: usize,
    pub restarts: u32,
    #[serde(default)]
    pub instances: Vec<Instance>,
}

/// One process of a release.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Instance {
    pub address: Address,
    #[serde(default)]
    pub ports: BTreeMap<String, u16>,
    pub pid: Option<u32>,
    pub state: String,
    pub restarts: u32,
}

/// Where a process listens: `127.0.0.1:20417`, or `unix:` and a path.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Address(String);

/// What a deploy has brought, from its events.
#[derive(Clone, Debug)]
pub struct Deployed {
    pub release: String,
    pub pid: u32,
    pub address: Address,
}

/// The last event of a deploy that went well and waited for the old release's last answer.
#[derive(Clone, Debug, Deserialize)]
pub struct Summary {
    pub release: String,
    pub pid: u32,
    pub address: Address,
    pub start_ms: f64,
    pub listen_ms: Option<f64>,
    pub health_ms: f64,
    pub flip_us: f64,
    pub live_ms: f64,
    pub drain_ms: Option<f64>,
    pub open: usize,
    pub total_ms: f64,
}

impl Address {
    /// The port and its host; panics if it is a unix socket.
    #[track_caller]
    pub fn inet(&self) -> SocketAddr {
        let parsed = self.0.parse();
        parsed.unwrap_or_else(|_| panic!("{self}: not a port"))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Deployed {
    /// From the events of a deploy that has flipped; none if it has not.
    pub fn of(events: &[Value]) -> Option<Self> {
        let find = |name: &str| events.iter().find(|event| event["event"] == name);
        let (started, flipped) = (find("started")?, find("flipped")?);
        Some(Self {
            release: flipped["release"].as_str()?.to_string(),
            pid: u32::try_from(started["pid"].as_u64()?).ok()?,
            address: Address(started["address"].as_str()?.to_string()),
        })
    }
}

impl Status {
    /// The service of that name.
    #[track_caller]
    pub fn service(&self, name: &str) -> &Service {
        let found = self.services.iter().find(|service| service.name == name);
        found.unwrap_or_else(|| panic!("no service {name} in {self:#?}"))
    }
}

impl Service {
    /// How many releases of it have that role.
    pub fn count(&self, role: &str) -> usize {
        self.running.iter().filter(|one| one.role == role).count()
    }
}
