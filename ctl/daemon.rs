//! `hotctl serve`: the composition root. What can be refused is taken in `boot`, what was there
//! before is taken up in `recover`, and `run` serves until a signal ends it.

mod boot;
mod listeners;
mod recover;
mod run;

use std::num::NonZeroUsize;

use hotctl_config::file::{Config, Listen};

use crate::cli::{Places, Serve};
use crate::fault::Fault;
use crate::log;

pub use listeners::bind;

/// Where `serve` listens if neither file nor flag says so.
const NO_CONFIG: &str = "no configuration found";

/// Run the daemon until a signal ends it.
///
/// # Errors
/// If configuration, state or an address does not allow it; nothing has been started then.
pub fn serve(places: &Places, flags: &Serve) -> Result<(), Fault> {
    log::start(flags.log_format, &flags.log_level)?;
    let config = configuration(flags)?;
    let threads = config
        .threads
        .or_else(|| std::thread::available_parallelism().ok())
        .unwrap_or(NonZeroUsize::MIN);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads.get())
        .enable_all()
        .build()
        .map_err(|cause| Fault::failed(format!("cannot start the runtime: {cause}")))?;
    runtime.block_on(async {
        let booted = boot::boot(places, config, threads)?;
        run::run(booted).await
    })
}

/// The configuration that the flags and files give, checked.
fn configuration(flags: &Serve) -> Result<Config, Fault> {
    let path = hotctl_config::find(flags.config.as_deref()).map_err(refused)?;
    let mut config = match (&path, flags.listen.first()) {
        (Some(path), _) => hotctl_config::read(path).map_err(refused)?,
        (None, Some(listen)) => hotctl_config::single(*listen),
        (None, None) => {
            return Err(Fault::config(format!(
                "{NO_CONFIG}: neither ./hotctl.toml nor /etc/hotctl/hotctl.toml is there"
            ))
            .hint("`hotctl serve --listen 127.0.0.1:8080` for one service, or `hotctl init`"));
        }
    };
    if !flags.listen.is_empty() {
        config.listen = flags
            .listen
            .iter()
            .map(|&address| Listen { address })
            .collect();
    }
    if let Some(admin) = flags.admin {
        config.admin = admin;
    }
    Ok(config)
}

/// Configuration problems as a fault: they bring their own remedies.
pub fn refused(problems: hotctl_config::Problems) -> Fault {
    Fault::config(problems.to_string())
}
