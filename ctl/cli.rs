//! The command line: its words, and nothing of what they do.

mod args;
mod early;

use std::path::PathBuf;

use clap::{Args, ColorChoice, Parser, Subcommand};

pub use args::{
    Check, Completions, Deploy, Dev, Doctor, Events, History, Init, LevelOf, LogFormat, LogLevelOf,
    Logs, LogsOf, Maintenance, Man, OnOff, OnService, ReleaseRef, Releases, Reload, Rollback,
    Schema, Serve, Show, Status, Systemd, Unit, Upgrade, Wait, Watch,
};
pub use early::Early;

/// Deploys that lose nothing, for any HTTP service that is a plain executable.
#[derive(Debug, Parser)]
#[command(name = "hotctl", version, max_term_width = 100, after_help = EXAMPLES)]
pub struct Cli {
    #[command(flatten)]
    pub places: Places,
    #[command(flatten)]
    pub answers: Answers,
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

With --json a command answers in JSON on standard output; `hotctl schema COMMAND` describes it. One
that fails prints {\"error\":…,\"hint\":…,\"exit\":…} as its last line on standard error.

Exit status: 0 done, 1 failed or reverted, 2 usage or configuration, 3 no daemon reached,
4 refused because another deployment is under way, 5 superseded by a newer deploy.";

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

impl Cli {
    /// Whoever reads a log of JSON reads why the daemon did not start in JSON too.
    pub fn form_of_failure(&self) -> Form {
        match &self.command {
            Command::Serve(serve) if serve.log_format == LogFormat::Json => Form::Json,
            _ => self.answers.form(),
        }
    }
}

/// How a command answers; the same for every command.
#[derive(Debug, Clone, Args)]
pub struct Answers {
    /// Answer in JSON: a value, or a line for each event
    #[arg(long, global = true)]
    json: bool,
    /// When to use colours; on a terminal, `auto` also asks NO_COLOR, CLICOLOR and TERM
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto")]
    pub color: ColorChoice,
}

/// For whom a command answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// For a program.
    Json,
    /// For a person.
    Words,
}

impl Answers {
    /// For whom.
    pub fn form(&self) -> Form {
        if self.json { Form::Json } else { Form::Words }
    }
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the proxy and its controller in the foreground
    Serve(Serve),
    /// Start a new release, prove it healthy, flip traffic to it, stop the old one
    Deploy(Deploy),
    /// Deploy what a build leaves, each time it has changed and come to rest
    Watch(Watch),
    /// Build and run a project at the desk: each save is live a moment later
    Dev(Dev),
    /// Go back to the release before; at once while that is still warm
    Rollback(Rollback),
    /// Show services, releases, addresses, pids and what is under way
    Status(Status),
    /// List the stored releases of a service
    Releases(Releases),
    /// Print what a service wrote to its standard output and error
    Logs(Logs),
    /// List the deployments of a service: who, when, from, to, and what became of each
    History(History),
    /// Show one deployment in full: phases, figures, reason
    Show(Show),
    /// Print what has happened: deployments, restarts, orders
    Events(Events),
    /// Stop a service; requests get 503 until it is started
    Stop(OnService),
    /// Start a stopped service
    Start(OnService),
    /// Replace a service's processes by fresh ones, without a gap
    Restart(OnService),
    /// Let requests wait, within the bounds of `park`, until `resume`
    Pause(OnService),
    /// End a pause; what waits goes on
    Resume(OnService),
    /// Answer requests with 503 and a notice, or no longer; it outlives restarts
    Maintenance(Maintenance),
    /// End the deployment under way, and the order that waits; what is live stays
    Cancel(OnService),
    /// Read the configuration again; what did not change is not touched
    Reload(Reload),
    /// Let another hotctl take the place of the daemon, without a gap
    Upgrade(Upgrade),
    /// Print or change how much the daemon, or a service, writes of what happens
    LogLevel(LogLevelOf),
    /// Read and check a configuration without using it
    Check(Check),
    /// Write a commented hotctl.toml
    Init(Init),
    /// Look for what is wrong with machine and configuration, and say the remedy
    Doctor(Doctor),
    /// Print the version of this program, and of the daemon if there is one
    Version,
    /// Print alert rules for Prometheus
    Alerts,
    /// Print a unit for systemd
    Systemd(Systemd),
    /// Print completions for a shell
    Completions(Completions),
    /// Print the manual page, or write a page for each command into a folder
    Man(Man),
    /// Print the description of the control API (OpenAPI 3.1)
    Openapi,
    /// Print the JSON Schema of what a command answers with --json
    Schema(Schema),
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
    fn no_help_is_wider_than_it_is_printed() {
        let all = Cli::command();
        for command in all.get_subcommands().chain([&all]) {
            let Some(help) = command.get_after_help() else {
                continue;
            };
            for line in help.to_string().lines() {
                let (name, width) = (command.get_name(), line.chars().count());
                assert!(width <= 100, "{name}: {width} in {line:?}");
            }
        }
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
        assert_eq!(cli.answers.form(), Form::Words);
    }
}
