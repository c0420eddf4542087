//! Takes everything that can be refused, before anything is started: state, sockets, the access log.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hotctl_config::file::Config;
use hotctl_deploy::cgroup;
use hotctl_deploy::ports::Ports;
use hotctl_proxy::{AccessLog, Switch};
use prometheus::Registry;
use tokio::net::UnixListener;
use tokio::sync::watch;

use super::inherit::{Inherited, name};
use super::listeners::{Listeners, reason};
use crate::cli::Places;
use crate::failpoint;
use crate::fault::Fault;
use crate::journal::Journal;
use crate::log::Log;
use crate::metrics::{Metrics, Read};
use crate::places::{self, Whereabouts};
use crate::reload::{self, Origin};
use crate::sealed::Outlives;
use crate::site::{Manner, Means};
use crate::socket::{Callers, Named, Socket};
use crate::store::StateFolder;
use crate::upgrade::Predecessor;

/// A daemon that is ready to run.
pub struct Booted {
    pub origin: Origin,
    pub config: Config,
    pub listeners: Listeners,
    pub control: UnixListener,
    pub socket: Socket,
    pub callers: Callers,
    pub means: Arc<Means>,
    pub registry: Registry,
    pub access_log: AccessLog,
    pub threads: NonZeroUsize,
}

/// Take everything that can be refused, before anything is started.
pub fn boot(
    places: &Places,
    origin: Origin,
    config: Config,
    threads: NonZeroUsize,
    log: Log,
    mut inherited: Inherited,
    predecessor: &mut Option<Predecessor>,
) -> Result<Booted, Fault> {
    let here = Whereabouts::here();
    let socket = places.socket.clone().unwrap_or_else(|| here.socket());
    let state = places.state.clone().unwrap_or_else(|| here.state());
    places::check_socket_path(&socket)?;
    let state = absolute(&state, "state")?;
    let state = match inherited.named(name::STATE_LOCK) {
        Some(lock) => StateFolder::with_lock(&state, lock)?,
        None => StateFolder::open(&state)?,
    };
    let state = state.which_outlives(match origin.manner {
        Manner::Serve => Outlives::PowerCut,
        // Nothing of a desk does: its apps end with hotctl, and each save makes another release.
        Manner::Dev => Outlives::Kill,
    });
    let registry = Registry::new();
    let metric = |cause: prometheus::Error| Fault::failed(format!("metrics: {cause}"));
    let metrics = Arc::new(Metrics::new(&registry).map_err(metric)?);
    let listeners = Listeners::of(&config, &mut inherited)?;
    let named = if places.socket.is_some() {
        Named::ByOperator
    } else {
        Named::ByDefault
    };
    let callers = Callers::of(&config.control)?;
    let socket = absolute(&socket, "socket")?;
    let passed = (
        inherited.named(name::SOCKET_LOCK),
        inherited.named(name::CONTROL),
    );
    let (socket, control) = match passed {
        (Some(lock), Some(listener)) => Socket::passed_on(&socket, named, lock, listener)?,
        _ => Socket::bind(&socket, named, &callers)?,
    };
    // All that can be refused without steering anything has not been.
    if let Some(predecessor) = predecessor {
        failpoint::pass("before-prepared");
        predecessor.prepared()?;
    }
    let journal = Journal::open(state.root(), metrics.write_errors().clone()).map_err(|cause| {
        Fault::config(format!(
            "state {}: events.ndjson: {cause}",
            state.root().display()
        ))
        .hint("mend its permissions, or move it away")
    })?;
    let access_log = AccessLog::start(&config.access_log).map_err(|cause| {
        Fault::config(format!(
            "access_log {}: {}",
            config.access_log,
            reason(&cause)
        ))
        .hint("choose a file that hotctl may write, \"stdout\" or \"off\"")
    })?;
    let switch = Arc::new(Switch::new(threads));
    let traffic = Arc::new(hotctl_proxy::Metrics::new(&registry, threads).map_err(metric)?);
    switch
        .publish(reload::table(&config), reload::FIRST)
        .map_err(|stale| Fault::failed(stale.to_string()))?;
    metrics.config_read(reload::FIRST, Read::InForce);
    let cgroups = cgroup::apps(&state.mark());
    if let Some(apps) = &cgroups {
        cgroup::sweep(apps);
    }
    let means = Arc::new(Means {
        switch,
        traffic,
        metrics,
        journal,
        log,
        ports: Ports::new(config.ports),
        state,
        cgroups,
        predecessor: watch::Sender::new(predecessor.is_some()),
        serving: watch::Sender::default(),
        manner: origin.manner,
        shards: threads,
    });
    Ok(Booted {
        origin,
        config,
        listeners,
        control,
        socket,
        callers,
        means,
        registry,
        access_log,
        threads,
    })
}

fn absolute(path: &Path, what: &str) -> Result<PathBuf, Fault> {
    std::path::absolute(path)
        .map_err(|cause| Fault::config(format!("{what} {}: {cause}", path.display())))
}
