//! The command line: its words, and nothing of what they do.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use hotctl_config::file::Admin;
use hotctl_config::names::{ReleaseId, ServiceName};

/// Deploys that lose nothing, for any HTTP service that is a plain executable.
#[derive(Debug, Parser)]
#[command(name = "hotctl", version, max_term_width = 100, after_help = EXAMPLES)]
pub struct Cli {
    #[command(flatten)]
    pub places: Places,
    #[command(subcommand)]
    pub command: Command,
}

const EXAMPLES: &str = "\
Examples:
  hotctl serve --listen 127.0.0.1:8080        run the proxy and its controller
  hotctl deploy ./app-v2                      start it, prove it healthy, flip, drain the old one
  hotctl deploy ./web -- node server.js       a folder and the command to run in it
  hotctl rollback                             go back to the release before
  hotctl status                               what runs where

Exit status: 0 done, 1 failed or reverted, 2 usage or configuration, 3 no daemon reached,
5 superseded by a newer deploy.";

/// Where the daemon is; the same for every command.
#[derive(Debug, Clone, Args)]
pub struct Places {
    /// The control socket [env: HOTCTL_SOCKET] [default: /run/hotctl/control.sock for root, else in
    /// XDG_RUNTIME_DIR]
    #[arg(long, global = true, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// The state folder [env: HOTCTL_STATE] [default: /var/lib/hotctl for root, else
    /// ~/.local/state/hotctl]
    #[arg(long, global = true, value_name = "DIR")]
    pub state: Option<PathBuf>,
}

impl Places {
    /// What is not given as a flag comes from the environment; an empty variable is none, as in
    /// `HOTCTL_SOCKET= hotctl status`.
    pub fn or_from_environment(&mut self) {
        let from = |name: &str| {
            std::env::var_os(name)
                .filter(|value| !value.is_empty())
                .map(PathBuf::from)
        };
        self.socket = self.socket.take().or_else(|| from("HOTCTL_SOCKET"));
        self.state = self.state.take().or_else(|| from("HOTCTL_STATE"));
    }
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the proxy and its controller in the foreground
    Serve(Serve),
    /// Start a new release, prove it healthy, flip traffic to it, drain and stop the old one
    Deploy(Deploy),
    /// Go back to the release before: at once while it is still warm, else by starting it again
    Rollback(OnService),
    /// Show services, releases, addresses, pids and what is under way
    Status(Status),
    /// List the stored releases of a service
    Releases(Releases),
    /// Print what a service wrote to its standard output and error
    Logs(Logs),
    /// Stop a service; requests get 503 until it is started
    Stop(OnService),
    /// Start a stopped service
    Start(OnService),
    /// Replace a service's processes by fresh ones of the same release, without a gap
    Restart(OnService),
    /// End the deployment under way; what is live stays
    Cancel(OnService),
    /// Read and check a configuration without using it
    Check(Check),
    /// Write a commented hotctl.toml
    Init(Init),
}

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
    /// How much it writes: error, warn, info, debug, trace
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    pub log_level: String,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
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
    /// What to wait for: `live` = until traffic has flipped, `drained` = until the old release has
    /// answered its last request too, `settled` = until it is not kept warm any more
    #[arg(long, value_name = "STATE", default_value = "drained")]
    pub wait: Wait,
    /// Print every event as a line of JSON
    #[arg(long)]
    pub json: bool,
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
    /// Print every event as a line of JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct Status {
    /// Only this service
    pub service: Option<ServiceName>,
    /// As JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct Releases {
    /// Which service; may be left out where there is only one
    pub service: Option<ServiceName>,
    /// As JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  hotctl logs                    the last 100 lines of the live release
  hotctl logs web -f             follow it, across deploys
  hotctl logs web@7 -n 20        the last lines of one release")]
pub struct Logs {
    /// A service, or one release of it as in web@7
    #[arg(value_name = "SERVICE")]
    pub of: Option<LogsOf>,
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
pub struct Init {
    /// Where to write it; an existing file is never overwritten
    #[arg(default_value = "hotctl.toml")]
    pub path: PathBuf,
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn what_follows_two_dashes_belongs_to_the_app() {
        let cli = Cli::parse_from([
            "hotctl",
            "deploy",
            "./web",
            "--",
            "node",
            "server.js",
            "--json",
        ]);
        let Command::Deploy(deploy) = cli.command else {
            panic!("not a deploy");
        };
        assert_eq!(deploy.args, ["node", "server.js", "--json"]);
        assert!(!deploy.json);
    }
}
