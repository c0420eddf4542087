//! The proxy: what it is told, and how it serves. Opens the hall to its requests, and no more.

use std::fmt;
use std::num::NonZeroUsize;
use std::sync::Arc;

use hotctl_config::{IpNet, Timeouts};
use tokio::net::TcpListener;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};
use tokio::sync::watch;

use crate::access::AccessLog;
use crate::conn::Limits;
use crate::desk::Desk;
use crate::hall::{Hall, Stage};
use crate::metrics::Metrics;
use crate::pass::Passed;
use crate::request::Requests;
use crate::switch::Switch;

/// What the proxy is told once, when it is made.
#[derive(Clone)]
pub struct Settings {
    /// Whose `X-Forwarded-*` and `X-Request-Id` are believed.
    pub trusted_proxies: Vec<IpNet>,
    /// How long to wait for clients and for releases.
    pub timeouts: Timeouts,
    /// The threads of the runtime that it will run on.
    pub threads: NonZeroUsize,
    /// Where a line for each request is written.
    pub access_log: AccessLog,
    /// Who edits what is served, if somebody does: pages get a script more, and what begins with
    /// [`crate::OWN_PATHS`] is not for a release.
    pub desk: Option<Arc<dyn Desk>>,
}

/// Serves requests. A clone is another handle to the same proxy.
#[derive(Clone)]
pub struct Proxy(Hall<Requests>);

impl Proxy {
    /// A proxy that sends requests where the switch says.
    pub fn new(switch: Arc<Switch>, metrics: Arc<Metrics>, settings: Settings) -> Self {
        metrics.watch(&switch);
        metrics.watch_access_log(&settings.access_log);
        let limits = Limits {
            header: settings.timeouts.header,
            idle: settings.timeouts.idle,
        };
        let lines = switch.lines().clone();
        let requests = Requests {
            switch,
            metrics,
            trusted: settings.trusted_proxies,
            timeouts: settings.timeouts,
            access_log: settings.access_log,
            desk: settings.desk,
        };
        Self(Hall::new(requests, lines, limits))
    }

    /// Where connections go in [`Stage::Passing`], and those that become idle later. To be said once,
    /// before the stage; connections are closed instead where it was not, or nobody receives.
    pub fn passes_to(&self, way: UnboundedSender<Passed>) {
        self.0.passes_to(way);
    }

    /// Serves what comes in at `listener`, on the tokio runtime that this runs on.
    ///
    /// When `stage` becomes [`Stage::Closing`] (or its sender is gone) the listener is closed, after
    /// the connections that the kernel had already accepted are taken in. Answers then tell their
    /// clients to close, and connections between two requests are closed after a short while.
    /// In [`Stage::Passing`] the listener is closed only here, and nobody is told to close whose
    /// connection can be passed on. Returns when the last connection is gone; an upload, a WebSocket or an event stream can take
    /// as long as it likes, so the caller sets a bound. Dropped before, it cuts what is left.
    pub async fn serve(&self, listener: TcpListener, stage: watch::Receiver<Stage>) {
        self.0.serve(listener, stage).await;
    }

    /// Serves connections that another process has passed on, as [`Proxy::serve`] does those that it
    /// takes itself. Returns when no more can come, and the last one is gone.
    pub async fn serve_passed(
        &self,
        passed: UnboundedReceiver<Passed>,
        stage: watch::Receiver<Stage>,
    ) {
        self.0.serve_passed(passed, stage).await;
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Proxy")
    }
}
