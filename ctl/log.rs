//! How the daemon writes its own log: to standard error, a line an event, text or JSON; and how much, which
//! can be changed while it runs.

use std::sync::{Arc, Mutex, PoisonError};

use anstream::{AutoStream, ColorChoice};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _, Registry, fmt, registry, reload};

use crate::api::LogLevel;
use crate::cli::LogFormat;
use crate::fault::Fault;

/// The log that was started; a cheap handle.
#[derive(Debug, Clone)]
pub struct Log {
    level: Arc<Mutex<LogLevel>>,
    filter: reload::Handle<EnvFilter, Registry>,
}

impl Log {
    /// Start logging.
    ///
    /// # Errors
    /// If this process logs already.
    pub fn start(format: LogFormat, level: LogLevel) -> Result<Self, Fault> {
        let (filter, handle) = reload::Layer::new(filter(level));
        let lines = fmt::layer().with_writer(std::io::stderr).with_target(false);
        let lines = match format {
            LogFormat::Json => lines.json().flatten_event(true).boxed(),
            LogFormat::Text => {
                let colour = AutoStream::choice(&std::io::stderr()) != ColorChoice::Never;
                lines.with_ansi(colour).boxed()
            }
        };
        registry()
            .with(filter)
            .with(lines)
            .try_init()
            .map_err(|cause| Fault::failed(format!("cannot start to log: {cause}")))?;
        Ok(Self {
            level: Arc::new(Mutex::new(level)),
            filter: handle,
        })
    }

    /// How much is written now.
    pub fn level(&self) -> LogLevel {
        *self.level.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Write so much from now on; what it was before.
    ///
    /// # Errors
    /// If the log has ended.
    pub fn set(&self, level: LogLevel) -> Result<LogLevel, Fault> {
        // Held until both agree.
        let mut known = self.level.lock().unwrap_or_else(PoisonError::into_inner);
        self.filter
            .reload(filter(level))
            .map_err(|cause| Fault::failed(format!("log level {level}: {cause}")))?;
        Ok(std::mem::replace(&mut *known, level))
    }
}

/// pingora logs each broken connection as an error; what matters of that, hotctl counts and answers for
/// itself.
fn filter(level: LogLevel) -> EnvFilter {
    EnvFilter::new(format!(
        "{level},pingora=off,pingora_core=off,pingora_proxy=off"
    ))
}
