//! How the daemon writes its own log: to standard error, a line an event, text or JSON.

use anstream::{AutoStream, ColorChoice};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt;

use crate::cli::LogFormat;
use crate::fault::Fault;

/// Start logging.
///
/// # Errors
/// If `level` is not one of error, warn, info, debug, trace.
pub fn start(format: LogFormat, level: &str) -> Result<(), Fault> {
    let wrong = |cause: &dyn std::fmt::Display| {
        Fault::config(format!("--log-level {level}: {cause}"))
            .hint("one of error, warn, info, debug, trace")
    };
    // pingora logs each broken connection as an error; what matters of that, hotctl counts and
    // answers for itself.
    let filter = EnvFilter::try_new(format!(
        "{level},pingora=off,pingora_core=off,pingora_proxy=off"
    ))
    .map_err(|cause| wrong(&cause))?;
    let lines = fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_target(false);
    let started = match format {
        LogFormat::Json => lines.json().flatten_event(true).try_init(),
        LogFormat::Text => {
            let colour = AutoStream::choice(&std::io::stderr()) != ColorChoice::Never;
            lines.with_ansi(colour).try_init()
        }
    };
    started.map_err(|cause| wrong(&cause))
}
