//! hotctl: a proxy and the controller behind it in one program. Parses the command line and hands
//! over; every command is in a room of its own.

mod admin;
mod answers;
mod api;
mod chunks;
mod cli;
mod client;
mod commands;
mod control;
mod daemon;
mod dev;
mod difference;
mod doctor;
mod failpoint;
mod fault;
mod follow;
mod hands;
mod history;
mod house;
mod init;
mod journal;
mod level_request;
mod log;
mod memory;
mod metrics;
mod notify;
mod openapi;
mod paint;
mod places;
mod print;
mod refused;
mod reload;
mod schema;
mod sealed;
mod service;
mod site;
mod socket;
mod store;
mod sys;
mod teller;
mod upgrade;
mod watch;
mod who;

use std::process::ExitCode;

use clap::Parser as _;

use crate::cli::{Cli, Early, Form};
use crate::fault::Fault;

fn main() -> ExitCode {
    // Before anything else: a shim is one process an app, and carries none of the rest.
    if std::env::args_os()
        .nth(1)
        .is_some_and(|word| word == "shim")
    {
        return hotctl_deploy::shim::main();
    }
    let early = Early::of(std::env::args_os().skip(1));
    early.color.write_global();
    let (done, form) = match parse(early) {
        Ok(mut cli) => {
            cli.places.or_from_environment();
            (commands::run(&cli), cli.form_of_failure())
        }
        Err(fault) => (Err(fault), early.form),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(fault) => {
            print::fault(&fault, form);
            fault.exit.into()
        }
    }
}

/// The command line. Help, and for people what is wrong with it, is printed by the parser, which
/// ends the program then.
fn parse(early: Early) -> Result<Cli, Fault> {
    Cli::try_parse().map_err(|wrong| match (early.form, wrong.use_stderr()) {
        (Form::Json, true) => Fault::usage(&wrong.render().to_string()),
        _ => wrong.exit(),
    })
}
