//! `hotctl serve`: the composition root. What can be refused is taken in `boot`, what was there
//! before is taken up in `recover`, and `run` serves until a signal ends it.

mod boot;
mod door;
pub mod inherit;
mod listeners;
mod recover;
mod run;
mod signals;

use std::num::NonZeroUsize;
use std::time::Duration;

use crate::cli::{Places, Serve};
use crate::dev::Console;
use crate::fault::Fault;
use crate::log::Log;
use crate::memory;
use crate::reload::Origin;
use crate::site::Manner;
use crate::upgrade::Predecessor;

use inherit::Inherited;
pub use listeners::bind;
pub use recover::lodge;

/// Run the daemon until a signal ends it.
///
/// # Errors
/// If configuration, state or an address does not allow it; nothing has been started then.
pub fn serve(places: &Places, flags: &Serve) -> Result<(), Fault> {
    run_as(places, || {
        Ok(Setup {
            log: Log::start(flags.log_format, flags.log_level)?,
            origin: origin(flags)?,
            console: None,
        })
    })
}

/// How a daemon runs.
pub struct Setup {
    pub log: Log,
    pub origin: Origin,
    /// Who tells it to a person, and hears that one's keys.
    pub console: Option<Console>,
}

/// Run one that is set up so.
///
/// # Errors
/// As [`serve`].
pub fn run_as(places: &Places, setup: impl FnOnce() -> Result<Setup, Fault>) -> Result<(), Fault> {
    // Before anything is opened.
    let mut inherited = Inherited::take()?;
    let mut predecessor = Predecessor::of(&mut inherited);
    let ended = setup().and_then(|setup| begin(places, setup, inherited, &mut predecessor));
    if let (Err(fault), Some(predecessor)) = (&ended, &mut predecessor) {
        predecessor.failed(fault);
    }
    ended
}

fn begin(
    places: &Places,
    setup: Setup,
    inherited: Inherited,
    predecessor: &mut Option<Predecessor>,
) -> Result<(), Fault> {
    let Setup {
        log,
        origin,
        console,
    } = setup;
    let config = origin.read()?;
    let threads = config
        .threads
        .or_else(|| std::thread::available_parallelism().ok())
        .unwrap_or(NonZeroUsize::MIN);
    memory::give_back();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads.get())
        .global_queue_interval(GLOBAL_QUEUE)
        .enable_all()
        .build()
        .map_err(|cause| Fault::failed(format!("cannot start the runtime: {cause}")))?;
    let ended = runtime.block_on(async {
        let booted = boot::boot(places, origin, config, threads, log, inherited, predecessor)?;
        run::run(booted, predecessor, console).await
    });
    // All that counts is written by now. A thread that hangs in a read of a dead disk is not waited
    // for any longer.
    runtime.shutdown_timeout(Duration::from_secs(1));
    ended
}

/// How many tasks a thread runs until it looks at those that have no thread.
///
/// A thread has room for 256 that are ready. Where more connections than that have something to do, half of
/// them, those that wait the longest, go to where they have no thread, and at tokio's own 61 they wait there
/// several times as long as everybody else: that was the tail of the answers (p999) at 256 connections.
const GLOBAL_QUEUE: u32 = 8;

/// Where the configuration comes from by flags and files.
fn origin(flags: &Serve) -> Result<Origin, Fault> {
    Ok(Origin {
        file: hotctl_config::find(flags.config.as_deref()).map_err(refused)?,
        listen: flags.listen.clone(),
        admin: flags.admin,
        manner: Manner::Serve,
        found: None,
        only: Vec::new(),
    })
}

/// Configuration problems as a fault: they bring their own remedies.
pub fn refused(problems: hotctl_config::Problems) -> Fault {
    Fault::config(problems.to_string())
}
