//! What each command takes.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use clap_complete::Shell;
use hotctl_config::file::Admin;
use hotctl_config::names::{ReleaseId, ServiceName};
use hotctl_config::parse_duration;

use crate::api::LogLevel;
use crate::dev::Editor;
use crate::fault::Fault;
use crate::schema::Subject;

#[derive(Debug, Args)]
#[command(after_help = "\
Without a configuration file, --listen gives one service named `app` that takes every request.
Configuration: --config, else ./hotctl.toml, else /etc/hotctl/hotctl.toml; see `hotctl init`.")]
pub struct Serve {
    /// The configuration file, TOML, or JSON if its name ends in .json
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Listen here, instead of where the configuration says; may be given again. Port 0 = any free
    #[arg(long, value_name = "ADDRESS", value_parser = listen)]
    pub listen: Vec<SocketAddr>,
    /// Metrics and health, read only; `off` for none [default: 127.0.0.1:10480]
    #[arg(long, value_name = "ADDRESS|off", value_parser = admin)]
    pub admin: Option<Admin>,
    /// How the daemon writes its own log
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub log_format: LogFormat,
    /// How much it writes
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    pub log_level: LogLevel,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  hotctl dev                 hotctl.toml here, else what the folder is: cargo, go, node, python
  hotctl dev web worker      only these services of hotctl.toml
  hotctl dev -- ./run.sh     this command, started again beside the old one at each save

Each save is built and started on another port, and gets the requests once it is healthy. Where that
fails, the version before serves on, and the reason is told. State and control socket are in
`.hotctl`, so that `hotctl status` and the like work in the project. The apps end with hotctl.
Keys, with Enter: r builds again, l shows more or less of hotctl's own log, q quits.")]
pub struct Dev {
    /// Services of hotctl.toml; none = all
    #[arg(value_name = "SERVICE")]
    pub services: Vec<ServiceName>,
    /// Listen here [default: the usual port of what the project is, such as 127.0.0.1:3000]
    #[arg(long, value_name = "ADDRESS", value_parser = listen)]
    pub listen: Vec<SocketAddr>,
    /// The configuration file [default: ./hotctl.toml, where it is there]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// How much hotctl writes of what it does itself
    #[arg(long, value_name = "LEVEL", default_value = "error")]
    pub log_level: LogLevel,
    /// How the browser opens {file} at {line} and {column} [default: vscode://file{file}:{line}:{column}]
    #[arg(
        long,
        value_name = "ADDRESS",
        default_value_t,
        hide_default_value = true
    )]
    pub editor: Editor,
    /// The command that runs the app, from the folder's own files; {port} is filled in
    #[arg(last = true, value_name = "COMMAND")]
    pub command: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    Text,
    Json,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  hotctl deploy ./app-v2                         an executable file
  hotctl deploy ./app-v2 -- --port {port}        with arguments; {port} is filled in
  hotctl deploy ./web -- node server.js          a folder and its command
  hotctl deploy ./web --service shop             where several services are configured

The app gets PORT and HOST in its environment and must listen there.
Ctrl-C cancels the deployment; what is live stays. Losing the connection does not.")]
pub struct Deploy {
    /// An executable file, or a folder
    pub path: PathBuf,
    /// Which service; may be left out where there is only one
    #[arg(long, short, value_name = "NAME")]
    pub service: Option<ServiceName>,
    /// Deploy even if content and arguments are the same as what is live
    #[arg(long)]
    pub force: bool,
    /// Refuse, with exit 4, rather than wait for a deployment that is under way
    #[arg(long)]
    pub no_wait: bool,
    /// What to wait for: `live` = until traffic has flipped, `drained` = until the old release has
    /// answered its last request too, `settled` = until it is not kept warm any more
    #[arg(long, value_name = "STATE", default_value = "drained")]
    pub wait: Wait,
    /// The file's arguments, or the folder's command
    #[arg(last = true, value_name = "ARGS")]
    pub args: Vec<String>,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  hotctl watch ./target/release/app              an executable, deployed whenever it is built
  hotctl watch ./dist -s shop -- node server.js  a folder and its command
  hotctl watch /srv/web/current                  a link that is swapped for another

What is there at first is deployed, too; what is the same as what is live is not. A change in the
middle of a deployment takes its place. A failure is told, and the next change waited for; what is
live stays. Ctrl-C ends it, and the daemon goes on.")]
pub struct Watch {
    /// An executable file, a folder, or a link to one; it may not be there yet
    #[arg(default_value = ".")]
    pub path: PathBuf,
    /// Which service; may be left out where there is only one
    #[arg(long, short, value_name = "NAME")]
    pub service: Option<ServiceName>,
    /// How long nothing may change before it counts as come to rest
    #[arg(long, value_name = "TIME", default_value = "50ms", value_parser = parse_duration)]
    pub settle: Duration,
    /// Deploy after so long in any case, where changes go on and on
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = parse_duration)]
    pub max_wait: Duration,
    /// Say of each event why it counts, or does not
    #[arg(long)]
    pub explain: bool,
    /// The file's arguments, or the folder's command
    #[arg(last = true, value_name = "ARGS")]
    pub args: Vec<String>,
}

/// When `deploy` returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Wait {
    Live,
    Drained,
    Settled,
}

#[derive(Debug, Args)]
pub struct OnService {
    /// Which service; may be left out where there is only one
    pub service: Option<ServiceName>,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  hotctl maintenance on --message 'Back at eight.'    503 with that sentence, and Retry-After
  hotctl maintenance on web --page closed.html        with a page of your own
  hotctl maintenance off web                          as before")]
pub struct Maintenance {
    /// Whether there is to be maintenance
    pub switch: OnOff,
    /// Which service; may be left out where there is only one
    pub service: Option<ServiceName>,
    /// What clients are told, on hotctl's own page
    #[arg(long, value_name = "TEXT", conflicts_with = "page")]
    pub message: Option<String>,
    /// A file of HTML that clients get, at most 256 KiB
    #[arg(long, value_name = "FILE")]
    pub page: Option<PathBuf>,
}

/// Begin or end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum OnOff {
    On,
    Off,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  hotctl rollback                 to the release before
  hotctl rollback web --to 7      to one that is stored; `hotctl releases` lists them")]
pub struct Rollback {
    /// Which service; may be left out where there is only one
    pub service: Option<ServiceName>,
    /// To this release: its number, or web@7
    #[arg(long, value_name = "RELEASE")]
    pub to: Option<ReleaseRef>,
    /// Refuse, with exit 4, rather than wait for a deployment that is under way
    #[arg(long)]
    pub no_wait: bool,
}

/// A release by its number, or with its service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReleaseRef {
    /// Of the service that is meant.
    Number(u32),
    /// In full.
    Id(ReleaseId),
}

impl std::str::FromStr for ReleaseRef {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.contains('@') {
            return text.parse().map(Self::Id).map_err(|e| format!("{e}"));
        }
        match text.parse() {
            Ok(number) if number > 0 => Ok(Self::Number(number)),
            _ => Err("not a release: a number, or a service and a number such as web@7".into()),
        }
    }
}

#[derive(Debug, Args)]
pub struct History {
    /// Which service; may be left out where there is only one
    pub service: Option<ServiceName>,
    /// How many, the newest first
    #[arg(long, short = 'n', value_name = "DEPLOYMENTS", default_value_t = 20)]
    pub limit: usize,
}

#[derive(Debug, Args)]
pub struct Show {
    /// The number of the deployment, as `hotctl history` lists it
    pub number: u32,
    /// Which service; may be left out where there is only one
    pub service: Option<ServiceName>,
}

#[derive(Debug, Args)]
pub struct Status {
    /// Only this service
    pub service: Option<ServiceName>,
}

#[derive(Debug, Args)]
pub struct Releases {
    /// Which service; may be left out where there is only one
    pub service: Option<ServiceName>,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  hotctl logs                    the last 100 lines of the live release
  hotctl logs web -f             follow it, across deploys
  hotctl logs web@7 -n 20        the last lines of one release

What the last build of a service said is in services/NAME/logs/build.log of the
state folder, which is .hotctl/state in a project of `hotctl dev`.")]
pub struct Logs {
    /// A service, or one release of it as in web@7
    #[arg(value_name = "SERVICE")]
    pub of: Option<LogsOf>,
    /// Only what this release wrote: `web --release 7` is `web@7`
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..))]
    pub release: Option<u32>,
    /// Go on printing as it is written
    #[arg(long, short)]
    pub follow: bool,
    /// How many lines to begin with
    #[arg(long, short = 'n', value_name = "LINES", default_value_t = 100)]
    pub lines: usize,
}

/// Whose output is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogsOf {
    /// What is live.
    Service(ServiceName),
    /// One release, whatever its role.
    Release(ReleaseId),
}

impl std::str::FromStr for LogsOf {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.contains('@') {
            text.parse().map(Self::Release).map_err(|e| format!("{e}"))
        } else {
            text.parse().map(Self::Service).map_err(|e| format!("{e}"))
        }
    }
}

#[derive(Debug, Args)]
pub struct Check {
    /// The file to check [default: ./hotctl.toml, else /etc/hotctl/hotctl.toml]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  hotctl init                       every field, with its default
  hotctl init --from Procfile       what that says, each process a service
  hotctl init --from .air.toml      or nodemon.json, or package.json
  hotctl init shop.toml --from shop/Procfile

The name of the file tells what it is: Procfile, Procfile.dev and so on, .air.toml, nodemon.json,
or a package.json with nodemonConfig or scripts. Where each value came from stands beside it. What
has no equivalent is printed, with the reason, and stands at the end of what is written.")]
pub struct Init {
    /// Where to write it; an existing file is never overwritten
    #[arg(default_value = "hotctl.toml")]
    pub path: PathBuf,
    /// Begin with what the configuration of another tool says
    #[arg(long, value_name = "FILE")]
    pub from: Option<PathBuf>,
}

fn listen(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| {
        format!("`{text}` is no address and port such as 127.0.0.1:8080 or [::]:80; port 0 takes any free one")
    })
}

fn admin(text: &str) -> Result<Admin, String> {
    if text == "off" {
        return Ok(Admin::Off);
    }
    text.parse()
        .map(Admin::At)
        .map_err(|_| format!("`{text}` is neither an address such as 127.0.0.1:10480 nor `off`"))
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  hotctl events                   what is kept of the past
  hotctl events web -f            the last 20 of one service, and whatever comes
  hotctl events --after 118 --json   go on where a reader ended")]
pub struct Events {
    /// Only of this service
    pub service: Option<ServiceName>,
    /// Go on printing as it happens
    #[arg(long, short)]
    pub follow: bool,
    /// Only what came after the event of this number
    #[arg(long, value_name = "NUMBER")]
    pub after: Option<u64>,
    /// How many to begin with, where --after is not given [default: all; with -f 20]
    #[arg(long, short = 'n', value_name = "EVENTS")]
    pub last: Option<u64>,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Exit status: 0 nothing is wrong, 1 something is.")]
pub struct Doctor {
    /// The configuration [default: ./hotctl.toml, else /etc/hotctl/hotctl.toml]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  hotctl completions bash > /etc/bash_completion.d/hotctl
  hotctl completions zsh > ~/.zfunc/_hotctl
  hotctl completions fish > ~/.config/fish/completions/hotctl.fish")]
pub struct Completions {
    /// Which shell
    pub shell: Shell,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  hotctl man | man -l -
  hotctl man --out /usr/local/share/man/man1")]
pub struct Man {
    /// Write a page for each command into this folder, which must be there
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct Schema {
    /// The command, or `failure` for what every command that fails prints; none lists them
    pub command: Option<Subject>,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  hotctl reload --dry-run         what would change
  hotctl reload                   let it be in force; SIGHUP to the daemon does the same

The daemon reads the file that it was started with. It is in force whole or, where anything is wrong
with it, not at all (exit 2). What only counts with the next deploy or restart of a service, or of
hotctl, is said to.")]
pub struct Reload {
    /// Only say what would change
    #[arg(long)]
    pub dry_run: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  hotctl upgrade                            the file that the daemon was started from, as it is now
  hotctl upgrade --binary ./hotctl-new      another one

The new process gets the sockets and the locks, checks configuration and state, and takes the
services up; the apps run on. If it does not get that far within 10 seconds of silence, it is ended
and the old one serves on (exit 1, with the reason). A deployment that has not flipped, or an old
release that drains before its end, is waited for, up to 10 seconds; one that is kept warm is not.
What is in flight is finished by the old process, within `shutdown_timeout`. SIGUSR2 to the daemon
does the same as no --binary.")]
pub struct Upgrade {
    /// The program that is to take over
    #[arg(long, value_name = "PATH")]
    pub binary: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(
    override_usage = "hotctl log-level [OPTIONS] [[SERVICE] LEVEL]",
    after_help = "\
Examples:
  hotctl log-level             what that of the daemon is
  hotctl log-level debug       from now on, until the daemon ends or is upgraded
  hotctl log-level web debug   that of what runs of web, until it is started again

The daemon knows error, warn, info, debug and trace. One that is started, or takes over in an
upgrade, begins with what `serve --log-level` says. The levels of a service are the app's own
words, and [service.web.log_level] in the configuration says how it is told: by a signal, which
names no level, or by a request to each process that is live."
)]
pub struct LogLevelOf {
    /// A service, where a level follows; else a level of the daemon's own log
    #[arg(value_name = "SERVICE|LEVEL")]
    first: Option<String>,
    /// The level of that service
    #[arg(value_name = "LEVEL")]
    second: Option<String>,
}

/// Whose log level is wanted, or is to be changed. How many words there are decides, so that a service
/// may be named like a level.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LevelOf {
    /// What that of the daemon is.
    Shown,
    /// The daemon's.
    Daemon(LogLevel),
    /// That of what runs of a service, in the app's own words.
    Service(ServiceName, String),
}

impl LogLevelOf {
    /// What is meant.
    ///
    /// # Errors
    /// If a word is none that could stand there.
    pub fn meant(&self) -> Result<LevelOf, Fault> {
        let (first, level) = match (&self.first, &self.second) {
            (None, _) => return Ok(LevelOf::Shown),
            (Some(first), second) => (first, second),
        };
        if let Some(level) = level {
            let service = first
                .parse()
                .map_err(|invalid| Fault::config(format!("log-level {first}: {invalid}")))?;
            return Ok(LevelOf::Service(service, level.clone()));
        }
        match LogLevel::from_str(first, false) {
            Ok(level) => Ok(LevelOf::Daemon(level)),
            Err(_) => {
                let all = LogLevel::value_variants().iter().map(ToString::to_string);
                let all: Vec<String> = all.collect();
                let text = format!("log-level {first}: not a level of the daemon's own log");
                Err(Fault::config(text).hint(format!(
                    "one of {}; for a service hotctl log-level {first} LEVEL",
                    all.join(", ")
                )))
            }
        }
    }
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  hotctl systemd service > /etc/systemd/system/hotctl.service
  hotctl systemd socket > /etc/systemd/system/hotctl.socket
  systemctl daemon-reload && systemctl enable --now hotctl.socket hotctl.service

With the socket unit systemd holds the addresses of [[listen]], so that connections wait while
hotctl is away. Print it again when they change.")]
pub struct Systemd {
    /// Which unit
    #[arg(value_enum)]
    pub unit: Unit,
    /// The configuration [default: ./hotctl.toml, else /etc/hotctl/hotctl.toml]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// A unit of systemd.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Unit {
    /// That runs hotctl
    Service,
    /// That holds its sockets
    Socket,
}
