//! The configuration file, as it is written: TOML, or JSON with the same names. Pure.
//!
//! The comments on the fields are the reference: what it is, its unit, its range, its default.
//! A field that is not here is refused. Every time is text with units, such as `"30s"` or `"1m30s"`, and
//! at most 100 years.

mod build;
mod log_level;
mod service;

use std::collections::BTreeMap;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::error::Invalid;
use crate::form;
use crate::names::ServiceName;

pub use build::{Build, OnChange};
pub use log_level::{LevelChange, LevelSignal};
pub use service::{
    AddressKind, CrashLoop, Drain, Health, HealthKind, Limits, Logs, OnCrashLoop, Ownership, Park,
    Service, Strategy, Watch,
};

/// The whole file. `default()` is an empty one: every field as if it were left out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where hotctl takes requests: one `[[listen]]` table for each address. At least one.
    pub listen: Vec<Listen>,
    /// Address of the read-only admin server (`/metrics`, `/healthz`, `/readyz`), or `"off"`. Port 0
    /// takes a free one. Default `"127.0.0.1:10480"`.
    pub admin: Admin,
    /// Networks, or single addresses, of proxies in front of hotctl whose `X-Forwarded-*` and
    /// `X-Request-Id` headers are believed. From others these headers are replaced. Default none.
    #[serde(with = "form::networks")]
    pub trusted_proxies: Vec<IpNet>,
    /// Ports that services are started on, first and last, 1024 to 65535. Best outside of the range
    /// the system gives to outgoing connections (`net.ipv4.ip_local_port_range`). Default
    /// `"20000-29999"`.
    pub ports: PortRange,
    /// Threads that serve requests, 1 to 1024. Default: one for each core.
    pub threads: Option<NonZeroUsize>,
    /// How long requests in flight may go on when hotctl itself is stopped, before they are cut. `"0s"`
    /// cuts at once. Default `"30s"`.
    #[serde(with = "form::duration")]
    pub shutdown_timeout: Duration,
    /// What becomes of the apps when hotctl itself is stopped: `"stop"` ends them, `"keep"` lets them
    /// live on, and the next hotctl adopts them as they are. When hotctl is killed, they live on in
    /// either case. Default `"stop"`.
    pub on_exit: OnExit,
    /// How long hotctl waits for clients and for services.
    pub timeouts: Timeouts,
    /// Where a line of JSON for each request is written: `"off"`, `"stdout"`, or a file, which is
    /// opened anew on SIGUSR1. A relative path begins at the folder of this file. Default `"off"`.
    pub access_log: AccessLog,
    /// Who may steer the daemon.
    pub control: Control,
    /// A folder whose `*.toml` and `*.json` files hold further `[service.NAME]` tables, read in the
    /// order of their names. A relative path begins at the folder of this file. Default none.
    pub include: Option<PathBuf>,
    /// The services, each a `[service.NAME]` table. At least one. A name is 1 to 63 characters of
    /// `a-z`, `0-9` and `-`.
    #[serde(rename = "service")]
    pub services: BTreeMap<ServiceName, Service>,
}

/// What becomes of the apps when hotctl itself is stopped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnExit {
    /// They are ended.
    #[default]
    Stop,
    /// They live on.
    Keep,
}

/// One address that takes requests: a `[[listen]]` table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listen {
    /// Address and port, such as `"0.0.0.0:80"` or `"[::]:80"`. Port 0 takes a free one. No default.
    #[serde(with = "form::address")]
    pub address: SocketAddr,
}

/// Where the read-only admin server listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admin {
    /// On this address.
    At(SocketAddr),
    /// Nowhere.
    Off,
}

/// A range of ports, both ends included, written `20000-29999`. The first is never above the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortRange {
    /// The lowest port.
    pub first: u16,
    /// The highest port.
    pub last: u16,
}

/// Where the access log goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum AccessLog {
    /// Nowhere.
    #[default]
    Off,
    /// To standard output.
    Stdout,
    /// To this file.
    File(PathBuf),
}

/// Who may steer the daemon: the `[control]` table.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Control {
    /// A group of the system whose members may use the control socket beside the daemon's own user
    /// and root. Who may steer hotctl may run code as the user that services run as. Default none.
    pub group: Option<String>,
}

/// How long hotctl waits for clients and for services: the `[timeouts]` table. None of these cuts a
/// response, a WebSocket or an event stream that is under way.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Timeouts {
    /// To connect to a service, each try. Above 0. Default `"3s"`.
    #[serde(with = "form::duration")]
    pub connect: Duration,
    /// For a client to send the whole header of a request. Above 0. Default `"10s"`.
    #[serde(with = "form::duration")]
    pub header: Duration,
    /// How long a client's connection is kept open without a request. Above 0. Default `"75s"`.
    #[serde(with = "form::duration")]
    pub idle: Duration,
    /// How long connecting to a service is tried again, before the client gets 502 or 504. `"0s"` tries
    /// once. Default `"10s"`.
    #[serde(with = "form::duration")]
    pub retry: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: Vec::new(),
            admin: Admin::default(),
            trusted_proxies: Vec::new(),
            ports: PortRange::default(),
            threads: None,
            shutdown_timeout: Duration::from_secs(30),
            on_exit: OnExit::Stop,
            timeouts: Timeouts::default(),
            access_log: AccessLog::default(),
            control: Control::default(),
            include: None,
            services: BTreeMap::new(),
        }
    }
}

impl Default for Admin {
    fn default() -> Self {
        Self::At((Ipv4Addr::LOCALHOST, 10480).into())
    }
}

impl Default for PortRange {
    fn default() -> Self {
        Self {
            first: 20_000,
            last: 29_999,
        }
    }
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(3),
            header: Duration::from_secs(10),
            idle: Duration::from_secs(75),
            retry: Duration::from_secs(10),
        }
    }
}

impl FromStr for Admin {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        if text == "off" {
            return Ok(Self::Off);
        }
        form::address::parse(text).map(Self::At)
    }
}

impl fmt::Display for Admin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::At(address) => write!(f, "{address}"),
            Self::Off => f.write_str("off"),
        }
    }
}

impl FromStr for AccessLog {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        match text {
            "" => Err(Invalid::new(
                "not a path",
                r#""off", "stdout" or a path such as "/var/log/hotctl/access.log""#,
            )),
            "off" => Ok(Self::Off),
            "stdout" => Ok(Self::Stdout),
            path => Ok(Self::File(path.into())),
        }
    }
}

impl fmt::Display for AccessLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str("off"),
            Self::Stdout => f.write_str("stdout"),
            Self::File(path) => write!(f, "{}", path.display()),
        }
    }
}

impl PortRange {
    /// How many ports there are: 1 or more.
    pub fn count(&self) -> u32 {
        u32::from(self.last.saturating_sub(self.first)) + 1
    }

    /// Whether a port lies within.
    pub fn contains(&self, port: u16) -> bool {
        (self.first..=self.last).contains(&port)
    }
}

impl FromStr for PortRange {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let wrong = |reason: String| Invalid::new(reason, r#"such as "20000-29999""#);
        let port = |text: &str| {
            text.trim()
                .parse::<u16>()
                .map_err(|_| wrong(format!("{:?} is not a port", text.trim())))
        };
        let (first, last) = text
            .split_once('-')
            .ok_or_else(|| wrong("not a first and a last port".into()))?;
        let (first, last) = (port(first)?, port(last)?);
        match first <= last {
            true => Ok(Self { first, last }),
            false => Err(wrong(format!("{first}-{last} runs backwards"))),
        }
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}

form::as_text!(Admin, "an address such as \"127.0.0.1:10480\", or \"off\"");
form::as_text!(
    AddressKind,
    "\"port\", \"unix\", \"socket\" or \"fixed:\" and a port"
);
form::as_text!(AccessLog, "\"off\", \"stdout\" or a path");
form::as_text!(PortRange, "a range of ports such as \"20000-29999\"");

/// Every field there is, as it would be addressed: `ports`, `listen.address`,
/// `service.NAME.health.path`, with the tables above them (`service.NAME.health`). Taken from the
/// structs themselves, so that it cannot fall behind.
pub fn fields() -> Vec<String> {
    let mut whole = Config {
        listen: vec![Listen {
            address: ([0, 0, 0, 0], 0).into(),
        }],
        ..Config::default()
    };
    whole.services.extend(
        "name"
            .parse()
            .map(|name: ServiceName| (name, Service::default())),
    );
    let mut found = Vec::new();
    if let Ok(value) = serde_json::to_value(&whole) {
        collect(&value, "", &mut found);
    }
    found
}

fn collect(value: &serde_json::Value, at: &str, found: &mut Vec<String>) {
    match value {
        serde_json::Value::Object(table) => {
            for (key, value) in table {
                // The name of a service is no field.
                let key = if at == "service" { "NAME" } else { key };
                let path = if at.is_empty() {
                    key.into()
                } else {
                    format!("{at}.{key}")
                };
                if key != "NAME" {
                    found.push(path.clone());
                }
                collect(value, &path, found);
            }
        }
        serde_json::Value::Array(list) => list.iter().for_each(|value| collect(value, at, found)),
        _ => {}
    }
}
