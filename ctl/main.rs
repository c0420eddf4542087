//! hotctl: a proxy and the controller behind it in one program. Parses the command line and hands
//! over; every command is in a room of its own.

mod admin;
mod api;
mod cli;
mod client;
mod commands;
mod control;
mod daemon;
mod fault;
mod follow;
mod hands;
mod journal;
mod log;
mod metrics;
mod openapi;
mod places;
mod print;
mod refused;
mod service;
mod site;
mod store;
mod teller;
mod who;

use std::process::ExitCode;

use clap::Parser as _;

use crate::cli::{Cli, Command};

fn main() -> ExitCode {
    // Before anything else: a shim is one process an app, and carries none of the rest.
    if std::env::args_os()
        .nth(1)
        .is_some_and(|word| word == "shim")
    {
        return hotctl_deploy::shim::main();
    }
    let mut cli = Cli::parse();
    cli.places.or_from_environment();
    let done = match &cli.command {
        Command::Serve(serve) => daemon::serve(&cli.places, serve),
        Command::Check(check) => commands::check(check),
        Command::Init(init) => commands::init(init),
        command => commands::ask(&cli.places, command),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(fault) => {
            // Problems of a configuration begin with their own file and line.
            eprintln!("hotctl: {fault}");
            fault.exit.into()
        }
    }
}
