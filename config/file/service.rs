//! One `[service.NAME]` table of the configuration file, and the tables in it. Pure.

use std::collections::BTreeMap;
use std::fmt;
use std::num::{NonZeroU16, NonZeroU32};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::build::Build;
use super::log_level::LevelChange;
use crate::error::Invalid;
use crate::form;
use crate::pattern::{HostPattern, PathPrefix, StatusSet};
use crate::port_name::PortName;

/// One service: a `[service.NAME]` table. Every field may be left out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Service {
    /// Hosts it answers for: `"example.com"`, or `"*.example.com"` for all below (not `example.com`
    /// itself). An exact host goes before a starred one, and a longer one before a shorter. Default
    /// none, which is every host that no other service names.
    pub hosts: Vec<HostPattern>,
    /// Paths it answers for, with all below: `"/api"` is `/api` and `/api/x`, not `/apix`. The longest
    /// that fits wins. Default `["/"]`.
    pub paths: Vec<PathPrefix>,
    /// Whether it takes requests. `false` is for a plain worker: it has no address and no routes, its
    /// health is that it stays alive for `health.min_uptime`, or what `"notify"` or `"command"` say,
    /// and it is deployed, supervised and rolled back like anything else, but for `keep_warm`: the old
    /// one ends as soon as the new one is healthy. Default `true`.
    pub http: bool,
    /// For a worker: whether the old release goes on working until the new one is healthy. `false`
    /// stops the old one first, as `strategy = "recreate"` does. Default `true`.
    pub overlap: bool,
    /// Command that starts a release which is a folder, run within it: program, then arguments.
    /// `{port}` becomes the port, which is also in the environment as `PORT`; `{port.NAME}` one of
    /// `ports`; `{socket}` the path of the unix socket; `{data}` the service's data folder; `{release}`
    /// the release's own folder.
    /// Arguments given to `hotctl deploy` replace it. A release that is a single executable needs
    /// none. Default `[]`.
    pub run: Vec<String>,
    /// How a new release takes over: `"blue_green"` runs it beside the old one and flips; `"recreate"`
    /// stops the old one first, for what cannot run twice (a lock on a file, one GPU). Requests are
    /// parked meanwhile, see `park`; what is in flight gets half of `park.time` at most, WebSockets and
    /// streams end at once. If the new release fails, the old one is started again, still within the
    /// same park; nothing is kept warm. Default `"blue_green"`.
    pub strategy: Strategy,
    /// How a release is told where to listen: `"port"` gives it a free port of `ports` in `PORT`;
    /// `"unix"` the path of a unix socket to make in `SOCKET`, which also stands for `{socket}`;
    /// `"socket"` a listening socket that is open already, as descriptor 3, in the way of systemd
    /// (`LISTEN_FDS`); `"fixed:3000"` is for what ignores all that and listens at that port of
    /// 127.0.0.1: two of it cannot run, so `strategy` is `"recreate"`. Default `"port"`.
    pub address: AddressKind,
    /// Names of further ports, such as `["debug"]`: each process is given one of its own for each, as
    /// `PORT_DEBUG` in its environment and for `{port.debug}` in `run`, `env` and `health.command`. For what
    /// cannot be fixed since two releases run side by side: a debugger, metrics. hotctl sends nothing
    /// there. At most 8, each of `a-z`, `0-9` and `_`, beginning with a letter. Default none.
    pub ports: Vec<PortName>,
    /// How many processes of a release serve side by side, each with an address of its own, 1 to 64.
    /// Default `1`.
    pub instances: NonZeroU32,
    /// Variables for the processes, `NAME = "value"`. They go before those of `env_file` and those of
    /// the daemon. `{port}`, `{port.NAME}` and `{socket}` in a value are replaced as in `run`; what runs
    /// around a start (`before_start`, `on_live`) listens nowhere, and is not given such a variable.
    /// Default none.
    pub env: BTreeMap<String, String>,
    /// A file of `NAME=value` lines, read anew at each start, and refused when users other than its
    /// owner and group can read it. A relative path begins at the folder of this file. Default none.
    pub env_file: Option<PathBuf>,
    /// The folder that the processes are started in. A relative path begins at the folder of this
    /// file. Default: the release itself where it is a folder, else the service's own data folder,
    /// which is the same for every release and is `HOTCTL_DATA` in the environment.
    pub workdir: Option<PathBuf>,
    /// Files and folders of a folder release that outlive it, such as `["data", "uploads"]`: in each
    /// release they are links into the service's data folder. What the first release brings is moved
    /// there. Default none.
    pub persist: Vec<String>,
    /// What is left out when a folder is deployed, in the patterns of `.gitignore`, beside those of the
    /// `.hotctlignore` files in its folders. Default none.
    pub ignore: Vec<String>,
    /// Command that runs once before a new release is started, in its folder and environment, such as
    /// `["./migrate"]`. If it fails, so does the deployment. Default `[]`: none.
    pub before_start: Vec<String>,
    /// How long `before_start` may take. Above 0. Default `"5m"`.
    #[serde(with = "form::duration")]
    pub before_start_timeout: Duration,
    /// Command that runs after a release went live, in its folder and environment. If it fails, that
    /// is told, and the release stays live. Default `[]`: none.
    pub on_live: Vec<String>,
    /// How long `on_live` may take. Above 0. Default `"1m"`.
    #[serde(with = "form::duration")]
    pub on_live_timeout: Duration,
    /// How a release is proved healthy.
    pub health: Health,
    /// Paths that are requested from each process once it is healthy and before it gets traffic, so
    /// that its caches are warm. What they answer is shown and does not fail a deployment. Default
    /// none.
    pub warmup: Vec<String>,
    /// How long all of `warmup` may take together. Above 0. Default `"30s"`.
    #[serde(with = "form::duration")]
    pub warmup_timeout: Duration,
    /// How long a new release may take to become healthy, before it is given up. Above 0. Default
    /// `"30s"`.
    #[serde(with = "form::duration")]
    pub start_timeout: Duration,
    /// How long what an old release has begun may go on after the flip.
    pub drain: Drain,
    /// How long a release may take to end after SIGTERM, before all its processes are killed. `"0s"`
    /// kills at once. Default `"10s"`.
    #[serde(with = "form::duration")]
    pub stop_timeout: Duration,
    /// How long the previous release is kept running after the flip, so that a rollback is immediate.
    /// `"0s"` retires it at once. Default `"1m"`.
    #[serde(with = "form::duration")]
    pub keep_warm: Duration,
    /// How many requests in a row the new release may fail (no answer, or one of 500 to 599) while
    /// the old one is kept warm, before traffic flips back. `0` looks at no request. Default `10`.
    pub max_failures: u32,
    /// How many requests wait, and for how long, while nothing can serve them for a moment: the only
    /// process died, or an operator paused the service.
    pub park: Park,
    /// How often a process of the live release may end in a row until the service counts as failed.
    pub crash_loop: CrashLoop,
    /// What follows a crash loop: `"restart"` goes on trying, every 30 s; `"rollback"` goes back to the
    /// release that was live before. Default `"restart"`.
    pub on_crash_loop: OnCrashLoop,
    /// The age at which the processes of the live release are replaced by fresh ones of the same
    /// release, as `hotctl restart` does it, for what gets worse with time. `"0s"`: never. Default
    /// `"0s"`.
    #[serde(with = "form::duration")]
    pub recycle: Duration,
    /// The memory that a process may take with all that it has started. Beyond that the processes of the
    /// live release are replaced by fresh ones, as `recycle` does it and at most once a minute; nothing
    /// is killed. Looked at with each probe. `"0B"`: not looked at. Default `"0B"`.
    #[serde(with = "form::bytes")]
    pub memory_max: u64,
    /// The user that its processes run as, hooks and `health.command` included; hotctl itself must be
    /// root then. The service's data folder becomes that user's. Default: whoever hotctl runs as.
    pub user: Option<String>,
    /// The group that its processes run as. Default: that of `user`, with its further groups.
    pub group: Option<String>,
    /// How much each process may take of the machine.
    pub limits: Limits,
    /// How the output of the processes is kept.
    pub logs: Logs,
    /// How its own log level is changed while it runs.
    pub log_level: LevelChange,
    /// How many releases are kept on disk, those in use not counted. 1 or more. Default `5`.
    pub keep_releases: NonZeroU32,
    /// What is deployed by itself whenever it has changed.
    pub watch: Watch,
    /// How its releases are built whenever their sources have changed.
    pub build: Build,
}

/// How long what an old release has begun may go on after the flip, before it is cut: the
/// `[service.NAME.drain]` table. `"0s"` cuts at once.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Drain {
    /// Requests. Default `"30s"`.
    #[serde(with = "form::duration")]
    pub requests: Duration,
    /// WebSockets. At the end of it each gets a Close frame, and a moment to answer it. Default
    /// `"5m"`.
    #[serde(with = "form::duration")]
    pub websockets: Duration,
    /// Event streams, and other answers whose length is not known when they begin. Default `"1m"`.
    #[serde(with = "form::duration")]
    pub streams: Duration,
    /// The code of the Close frame: `1012` (service restart: most clients come back by themselves) or
    /// `1001` (going away). Default `1012`.
    pub close_code: u32,
    /// WebSockets are closed, and streams are cut, at random times within so long before their end,
    /// so that their clients do not all come back at once. At most the shorter of the two. Default
    /// `"5s"`.
    #[serde(with = "form::duration")]
    pub spread: Duration,
}

/// How a new release takes over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Strategy {
    /// Beside the old one, then a flip.
    #[default]
    BlueGreen,
    /// In the place of the old one, which is stopped first.
    Recreate,
}

/// How many requests wait while nothing can serve them for a moment, and for how long: the
/// `[service.NAME.park]` table. What is beyond gets 503 with `Retry-After`. A request that waits costs
/// a connection and the memory for its header; its body stays unread.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Park {
    /// Requests that wait at a time, at most 1000000. `0` lets none wait: then they try to connect for
    /// `timeouts.retry`. Default `1000`.
    pub max: u32,
    /// How long one waits. Above 0. Default `"10s"`.
    #[serde(with = "form::duration")]
    pub time: Duration,
}

/// How often a process may end in a row until its service counts as failed: the
/// `[service.NAME.crash_loop]` table. From then on requests are refused at once, and the process is
/// started every 30 s. A process that lives for 10 s begins anew.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CrashLoop {
    /// So many ends. `0`: never. Default `8`.
    pub deaths: u32,
    /// Within so long. Above 0. Default `"1m"`.
    #[serde(with = "form::duration")]
    pub within: Duration,
}

/// What a build leaves, which is deployed whenever it has changed and come to rest, as `hotctl watch`
/// does it: the `[service.NAME.watch]` table. What is there when hotctl starts is deployed if it is
/// none of the stored releases, so that a start never takes a rollback back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Watch {
    /// An executable file, a folder with its command in `run`, or a link to one that is swapped; it may
    /// not be there yet. A relative path begins at the folder of this file. Default: nothing is watched.
    pub path: Option<PathBuf>,
    /// How long nothing may change before it counts as come to rest. Above 0. Default `"50ms"`.
    #[serde(with = "form::duration")]
    pub settle: Duration,
    /// Where changes go on and on it is deployed after so long in any case. Above 0. Default `"1s"`.
    #[serde(with = "form::duration")]
    pub max_wait: Duration,
}

/// What follows a crash loop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnCrashLoop {
    /// It is started again and again.
    #[default]
    Restart,
    /// The release that was live before is deployed.
    Rollback,
}

/// How much each process of a service may take of the machine (setrlimit(2)), soft and hard alike: the
/// `[service.NAME.limits]` table. Above what hotctl may have itself only where it is root. Each is as
/// hotctl's own by default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Descriptors. 16 or more.
    pub open_files: Option<u64>,
    /// Processes and threads of the user that they run as, whoever started them. 1 or more.
    pub processes: Option<u64>,
    /// The size of a core dump; `"0B"` writes none.
    #[serde(with = "form::maybe_bytes")]
    pub core_size: Option<u64>,
    /// Memory that may be kept from being swapped out.
    #[serde(with = "form::maybe_bytes")]
    pub locked_memory: Option<u64>,
}

/// How the output of a service's processes is kept: the `[service.NAME.logs]` table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Logs {
    /// A file that would grow beyond this is put aside. 64KiB or more. Default `"16MiB"`.
    #[serde(with = "form::bytes")]
    pub file_size: u64,
    /// How many files put aside are kept of each process: the newest as it is, older ones compressed
    /// (gzip). 1 to 1000. Default `4`.
    pub files: NonZeroU32,
    /// All files of the service together. Beyond this the oldest are removed, never those that are
    /// being written. Default `"256MiB"`.
    #[serde(with = "form::bytes")]
    pub total_size: u64,
}

/// How a release is told where to listen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AddressKind {
    /// By a port.
    #[default]
    Port,
    /// By the path of a unix socket.
    Unix,
    /// By a listening socket that it inherits.
    Socket,
    /// Not at all: it always listens at this port of 127.0.0.1.
    Fixed(NonZeroU16),
    /// Not at all: it listens nowhere. Never written: that is what `http = false` is.
    Nowhere,
}

impl FromStr for AddressKind {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let kinds = r#""port", "unix", "socket", or "fixed:" and a port, such as "fixed:3000""#;
        match text {
            "port" => Ok(Self::Port),
            "unix" => Ok(Self::Unix),
            "socket" => Ok(Self::Socket),
            _ => match text.strip_prefix("fixed:").map(str::parse) {
                Some(Ok(port)) => Ok(Self::Fixed(port)),
                Some(Err(_)) => Err(Invalid::new("not a port after \"fixed:\"", kinds)),
                None => Err(Invalid::new("no such kind of address", kinds)),
            },
        }
    }
}

impl fmt::Display for AddressKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Port => f.write_str("port"),
            Self::Unix => f.write_str("unix"),
            Self::Socket => f.write_str("socket"),
            Self::Fixed(port) => write!(f, "fixed:{port}"),
            Self::Nowhere => f.write_str("nowhere"),
        }
    }
}

/// How a release is proved healthy, before it gets requests and as long as it does: the
/// `[service.NAME.health]` table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Health {
    /// `"process"` only looks whether the process lives, and has for `min_uptime`;
    /// `"http"` sends a request and looks at the answer; `"tcp"` only connects; `"notify"` waits for
    /// `READY=1` on `NOTIFY_SOCKET` (sd_notify(3)); `"command"` runs `command`, whose exit status 0 is
    /// healthy. Default `"http"`, for a worker `"process"`.
    pub kind: HealthKind,
    /// The command, for that kind: program, then arguments. It runs in the folder and the environment
    /// of the process that it asks about. Default `[]`.
    pub command: Vec<String>,
    /// Path and query of the request. Default `"/"`.
    pub path: String,
    /// `Host` header of the request. Default: the address that is probed.
    pub host: Option<String>,
    /// Method of the request, in capitals. Default `"GET"`.
    pub method: String,
    /// Status codes that are healthy, such as `"200-399,404"`, 100 to 599. Default `"100-499"`: the
    /// service answered, and did not say that it is broken.
    pub status: StatusSet,
    /// Text that must occur in the first 64 KiB of the answer's body. Default: the body is not looked
    /// at.
    pub body: Option<String>,
    /// For kind `"process"`: how long it must have lived. Below `start_timeout`. Default `"2s"`.
    #[serde(with = "form::duration")]
    pub min_uptime: Duration,
    /// How long one probe may take. Above 0. Default `"5s"`.
    #[serde(with = "form::duration")]
    pub timeout: Duration,
    /// Time between two probes. A release that is starting is probed at once and then at growing
    /// distances up to this. Above 0. Default `"1s"`.
    #[serde(with = "form::duration")]
    pub interval: Duration,
    /// How many probes in a row must succeed until it is healthy. 1 or more. Default `1`.
    pub rise: u32,
    /// How many probes in a row must fail until it is unhealthy. 1 or more. Default `3`.
    pub fall: u32,
    /// Whether the listening socket must be seen to belong to the release's own processes before a
    /// success counts: `"require"`, `"warn"` or `"off"`. Default `"warn"`.
    pub ownership: Ownership,
}

/// What a probe does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HealthKind {
    /// Sends a request and looks at the answer.
    #[default]
    Http,
    /// Only connects.
    Tcp,
    /// Waits for the process to say so.
    Notify,
    /// Runs a command.
    Command,
    /// Looks whether the process lives.
    Process,
}

/// What happens when a release answers on a socket that is not its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Ownership {
    /// It is not healthy.
    Require,
    /// It is healthy, and the deployment says so.
    #[default]
    Warn,
    /// Nobody looks.
    Off,
}

impl Default for Service {
    fn default() -> Self {
        Self {
            hosts: Vec::new(),
            paths: vec![PathPrefix::default()],
            http: true,
            overlap: true,
            run: Vec::new(),
            strategy: Strategy::default(),
            address: AddressKind::default(),
            ports: Vec::new(),
            instances: NonZeroU32::MIN,
            env: BTreeMap::new(),
            env_file: None,
            workdir: None,
            persist: Vec::new(),
            ignore: Vec::new(),
            before_start: Vec::new(),
            before_start_timeout: Duration::from_secs(300),
            on_live: Vec::new(),
            on_live_timeout: Duration::from_secs(60),
            health: Health::default(),
            warmup: Vec::new(),
            warmup_timeout: Duration::from_secs(30),
            start_timeout: Duration::from_secs(30),
            drain: Drain::default(),
            stop_timeout: Duration::from_secs(10),
            keep_warm: Duration::from_secs(60),
            max_failures: 10,
            recycle: Duration::ZERO,
            park: Park::default(),
            crash_loop: CrashLoop::default(),
            on_crash_loop: OnCrashLoop::default(),
            memory_max: 0,
            user: None,
            group: None,
            limits: Limits::default(),
            logs: Logs::default(),
            log_level: LevelChange::default(),
            keep_releases: NonZeroU32::MIN.saturating_add(4),
            watch: Watch::default(),
            build: Build::default(),
        }
    }
}

impl Default for Watch {
    fn default() -> Self {
        Self {
            path: None,
            settle: Duration::from_millis(50),
            max_wait: Duration::from_secs(1),
        }
    }
}

impl Default for Drain {
    fn default() -> Self {
        Self {
            requests: Duration::from_secs(30),
            websockets: Duration::from_secs(300),
            streams: Duration::from_secs(60),
            close_code: 1012,
            spread: Duration::from_secs(5),
        }
    }
}

impl Service {
    /// How a new release takes over: one at a fixed address cannot run beside another, nor a worker
    /// that must not overlap.
    pub fn strategy(&self) -> Strategy {
        match self.address {
            AddressKind::Fixed(_) => Strategy::Recreate,
            _ if !self.overlap => Strategy::Recreate,
            AddressKind::Port | AddressKind::Unix | AddressKind::Socket | AddressKind::Nowhere => {
                self.strategy
            }
        }
    }

    /// How long the old release is kept running after a flip. Nothing else can be beside a release
    /// that took the place of another, and two workers would both work.
    pub fn keep_warm(&self) -> Duration {
        match self.strategy() {
            Strategy::BlueGreen if self.http => self.keep_warm,
            Strategy::BlueGreen | Strategy::Recreate => Duration::ZERO,
        }
    }

    /// How a release is told where to listen: a worker does not listen.
    pub fn address_kind(&self) -> AddressKind {
        match self.http {
            true => self.address,
            false => AddressKind::Nowhere,
        }
    }

    /// How many ports of the range a release of it takes.
    pub fn leased_ports(&self) -> u32 {
        let own = match self.address_kind() {
            AddressKind::Port | AddressKind::Socket => 1,
            AddressKind::Unix | AddressKind::Fixed(_) | AddressKind::Nowhere => 0,
        };
        let each =
            u32::try_from(self.ports.len()).map_or(u32::MAX, |named| named.saturating_add(own));
        self.instances.get().saturating_mul(each)
    }

    /// What a probe does: a worker has nothing to connect to.
    pub fn health_kind(&self) -> HealthKind {
        match self.health.kind {
            HealthKind::Http | HealthKind::Tcp if !self.http => HealthKind::Process,
            kind => kind,
        }
    }
}

impl Default for Park {
    fn default() -> Self {
        Self {
            max: 1000,
            time: Duration::from_secs(10),
        }
    }
}

impl Default for CrashLoop {
    fn default() -> Self {
        Self {
            deaths: 8,
            within: Duration::from_secs(60),
        }
    }
}

impl Default for Logs {
    fn default() -> Self {
        Self {
            file_size: 16 << 20,
            files: NonZeroU32::MIN.saturating_add(3),
            total_size: 256 << 20,
        }
    }
}

impl Default for Health {
    fn default() -> Self {
        Self {
            kind: HealthKind::default(),
            command: Vec::new(),
            path: "/".into(),
            host: None,
            method: "GET".into(),
            status: StatusSet::default(),
            body: None,
            min_uptime: Duration::from_secs(2),
            timeout: Duration::from_secs(5),
            interval: Duration::from_secs(1),
            rise: 1,
            fall: 3,
            ownership: Ownership::default(),
        }
    }
}
