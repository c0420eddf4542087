//! The way out: a release that lost its traffic is drained, then ended with all it has started; in
//! the end its files go, too.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use hotctl_config::ReleaseId;
use hotctl_deploy::logs;
use hotctl_deploy::machine::Placement;
use hotctl_deploy::process::Process;
use hotctl_proxy::{Open, Pool};
use tokio::sync::{Notify, watch};
use tokio_util::task::AbortOnDropHandle;
use tracing::{error, info, warn};

use super::{Keep, Site};
use crate::failpoint;

/// How many releases may drain at once; the oldest beyond that is cut first.
const MAX_DRAINING: usize = 3;

/// The wait for the last answer of a pool that lost its traffic.
#[derive(Debug)]
pub(super) struct Drain {
    over: watch::Receiver<bool>,
    _task: AbortOnDropHandle<()>,
}

/// How a drain ended.
#[derive(Debug, Clone, Copy)]
pub struct Drained {
    pub took: Duration,
    /// What was open when its time was over, and was ended.
    pub cut: Open,
}

impl Site {
    /// A placement has lost its traffic: wait for its last answers in the background, and say how
    /// that went.
    pub fn lose(self: &Arc<Self>, at: Placement, then: impl FnOnce(Drained) + Send + 'static) {
        let mut inner = self.inner();
        let Some(running) = inner.slots.get_mut(&at.slot) else {
            // It did not run: there is nothing to wait for.
            drop(inner);
            then(Drained {
                took: Duration::ZERO,
                cut: Open::default(),
            });
            return;
        };
        running.beside = None;
        let (tell, over) = watch::channel(false);
        let site = self.clone();
        let pool = running.pool.clone();
        let switching = self.means.traffic.switching(&self.name);
        let task = self.spawn(async move {
            let began = Instant::now();
            let cut = site.means.switch.retire(&pool, &site.config().drain).await;
            // What it still answers is not seen here.
            site.wait_for_predecessor().await;
            let took = began.elapsed();
            site.count_cut(pool.release(), cut);
            site.means.metrics.drain(&site.name, took);
            drop(switching);
            // A retirement waits for this; that nobody does yet is no failure.
            let _ = tell.send(true);
            then(Drained { took, cut });
        });
        running.drain = Some(Drain {
            over,
            _task: AbortOnDropHandle::new(task),
        });
    }

    /// Drain what is still to drain, then stop it and everything it started; in the background.
    pub fn retire(self: &Arc<Self>, at: Placement) {
        let hurry = Arc::new(Notify::new());
        {
            let mut inner = self.inner();
            inner.draining.push_back((at.slot, hurry.clone()));
            if inner.draining.len() > MAX_DRAINING
                && let Some((slot, oldest)) = inner.draining.front()
            {
                info!(service = %self.name, %slot, "more than {MAX_DRAINING} releases drain: the oldest is cut");
                oldest.notify_one();
            }
        }
        let site = self.clone();
        self.spawn(async move { site.retirement(at, &hurry).await });
    }

    async fn retirement(self: Arc<Self>, at: Placement, hurry: &Notify) {
        failpoint::pass("before-retirement");
        let release = at.release_of(&self.name);
        self.wait_for_predecessor().await;
        let (over, pool) = {
            let inner = self.inner();
            let running = inner.slots.get(&at.slot);
            (
                running.and_then(|r| r.drain.as_ref().map(|d| d.over.clone())),
                running.map(|r| r.pool.clone()),
            )
        };
        if let Some(mut over) = over {
            tokio::select! {
                // An error is the drain's task gone: nothing to wait for.
                _ = over.wait_for(|over| *over) => {}
                () = hurry.notified() => {}
            }
        }
        if let Some(pool) = pool {
            // In a hurry, or never drained: nothing is left open on a process that is ended.
            let cut = pool.cut_now().await;
            self.count_cut(&release, cut);
            // What the app still sees open would hold up its end.
            pool.close_idle();
        }
        self.inner().draining.retain(|(slot, _)| *slot != at.slot);
        failpoint::pass("before-retired-stop");
        self.end_processes(at.slot, self.config().stop_timeout)
            .await;
        failpoint::pass("after-retired-stop");
        let gone = self
            .change(Keep::Anyway, |ledger| ledger.retired(at.slot))
            .await;
        failpoint::pass("after-record-retired");
        if let Err(cause) = gone {
            error!(%release, %cause, "cannot record that a release is retired");
        }
        self.means.traffic.release_retired(&release);
    }

    /// The hotctl that was replaced may still have requests on a release. It leaves within its
    /// `shutdown_timeout`.
    pub async fn wait_for_predecessor(&self) {
        let mut here = self.means.predecessor.subscribe();
        // An error would be its sender gone, with us.
        let _ = here.wait_for(|here| !*here).await;
    }

    /// Count what was ended because its time was over.
    pub(super) fn count_cut(&self, release: &ReleaseId, cut: Open) {
        if cut != Open::default() {
            let Open {
                requests,
                websockets,
                streams,
            } = cut;
            warn!(%release, requests, websockets, streams, "cut: the time to drain is over");
            self.means.traffic.cut(&self.name, &cut);
        }
    }

    /// Wait until every answer that was begun is given, or its time to drain is over. The service must
    /// be out of the routes.
    pub async fn finish(&self) {
        let pools: Vec<Pool> = {
            let inner = self.inner();
            inner.slots.values().map(|r| r.pool.clone()).collect()
        };
        let config = self.config();
        let drains = pools.iter().map(|pool| async {
            let cut = self.means.switch.retire(pool, &config.drain).await;
            self.count_cut(pool.release(), cut);
        });
        join_all(drains).await;
    }

    /// End what is in flight, on whatever release, with a word to WebSockets. Nothing new may come.
    pub async fn cut_everything(&self) {
        let pools: Vec<Pool> = {
            let inner = self.inner();
            inner.slots.values().map(|r| r.pool.clone()).collect()
        };
        join_all(pools.iter().map(|pool| async {
            let cut = pool.cut_now().await;
            self.count_cut(pool.release(), cut);
        }))
        .await;
    }

    /// End every process of the service, side by side; for the daemon's own end.
    pub async fn stop_everything(&self) {
        self.end_all(self.config().stop_timeout).await;
        // The daemon ends without dropping what it holds.
        let inner = self.inner();
        for one in inner.slots.values().flat_map(|r| &r.instances) {
            if let Err(cause) = one.place.clear() {
                warn!(address = %one.place.address(), %cause, "its socket cannot be removed");
            }
        }
    }

    /// Kill every process of the service: somebody does not want to wait for their end.
    pub async fn kill_everything(&self) {
        self.end_all(Duration::ZERO).await;
    }

    /// Let go of every process: they live on when this daemon has ended, for the next one.
    pub async fn leave_everything(&self) {
        for one in self.inner().slots.values().flat_map(|r| &r.instances) {
            one.place.keep();
        }
        self.left.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        join_all(self.processes().iter().map(Process::leave)).await;
    }

    async fn end_all(&self, grace: Duration) {
        let processes = self.processes();
        join_all(processes.iter().map(|process| process.stop(grace))).await;
    }

    /// Every process of the service.
    fn processes(&self) -> Vec<Process> {
        let inner = self.inner();
        let instances = inner.slots.values().flat_map(|r| &r.instances);
        instances.map(|one| one.process.clone()).collect()
    }

    /// Forget the oldest releases beyond `keep_releases`, their content and their logs.
    pub async fn prune(self: &Arc<Self>) {
        let keep = usize::try_from(self.config().keep_releases.get()).unwrap_or(usize::MAX);
        let gone = {
            let mut after = self.ledger();
            after.prune(keep)
        };
        if gone.is_empty() {
            return;
        }
        let written = self
            .change(Keep::IfWritten, |ledger| {
                ledger.prune(keep);
            })
            .await;
        if let Err(cause) = written {
            warn!(service = %self.name, %cause, "old releases are kept: cannot write the state");
            return;
        }
        let site = self.clone();
        self.tasks.spawn_blocking(move || site.sweep(&gone));
    }

    /// Remove from disk what the record no longer names.
    fn sweep(&self, gone: &[u32]) {
        let used: Vec<_> = self.ledger().releases.values().map(|r| r.digest).collect();
        if let Err(cause) = self.store.sweep(&used) {
            warn!(service = %self.name, %cause, "cannot remove old releases");
        }
        let logs = gone.iter().flat_map(|number| self.logs_of(*number));
        for path in logs.flat_map(|log| logs::files(&log)) {
            match std::fs::remove_file(&path) {
                Ok(()) => {}
                Err(cause) if cause.kind() == io::ErrorKind::NotFound => {}
                Err(cause) => warn!(path = %path.display(), %cause, "cannot remove an old log"),
            }
        }
    }

    /// Keep the logs of the service within their bound, in the background.
    pub fn trim_logs(self: &Arc<Self>) {
        let site = self.clone();
        self.tasks.spawn_blocking(move || {
            let in_use: Vec<PathBuf> = {
                let inner = site.inner();
                let instances = inner.slots.values().flat_map(|r| &r.instances);
                instances.map(|one| one.spec.log.clone()).collect()
            };
            let total = site.config().logs.total_size;
            if let Err(cause) = logs::trim(&site.logs(), total, &in_use) {
                warn!(service = %site.name, %cause, "cannot remove old logs");
            }
        });
    }
}
