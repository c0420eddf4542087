//! Where two releases cannot run side by side: what is live is ended first, and started again if the
//! one in its place fails. What is asked for meanwhile waits in the park.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use hotctl_config::file::Strategy;
use hotctl_config::{Drain, Slot};
use hotctl_deploy::ledger::Ledger;
use hotctl_deploy::machine::Placement;
use hotctl_deploy::process::Process;
use hotctl_deploy::why::Why;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use super::slot::State;
use super::{Drained, Site};
use crate::failpoint;

/// How often what was live is tried to be started again where it cannot even be started.
const TRIES: u32 = 10;
const BETWEEN: Duration = Duration::from_millis(500);
/// How long the end of what ran before is waited for, beyond its `stop_timeout`.
const LONGEST_END: Duration = Duration::from_secs(20);

impl Site {
    /// Whether a placement could be started: its files are there, and its environment can be read.
    ///
    /// # Errors
    /// Why not.
    pub fn could_start(&self, at: Placement) -> Result<(), Why> {
        self.content(at).map(|_| ())?;
        self.environment().map(|_| ())
    }

    /// Where two releases cannot run side by side: wait until one that failed, or was stopped, has ended.
    /// Not for ever: who is in its way then is told by the start.
    pub async fn until_alone(&self, slot: Slot) {
        let config = self.config();
        if config.strategy() == Strategy::BlueGreen {
            return;
        }
        let alone = async {
            loop {
                // Asked for before it is looked, so that nothing between the two is missed.
                let stirred = self.stirred();
                let is_ending = |ledger: &Ledger| ledger.retiring.iter().any(|it| it.slot != slot);
                if !is_ending(&self.ledger()) {
                    return;
                }
                stirred.await;
            }
        };
        let within = config.stop_timeout + LONGEST_END;
        if tokio::time::timeout(within, alone).await.is_err() {
            warn!(service = %self.name, "what ran before has not ended yet");
        }
    }

    /// End what gets no new requests any more, with all that it has started. What is in flight gets
    /// a part of the time that others wait in the park for it.
    pub async fn end(&self, at: Placement) -> Drained {
        let began = Instant::now();
        let release = at.release_of(&self.name);
        let pool = {
            let mut inner = self.inner();
            inner.slots.get_mut(&at.slot).map(|running| {
                running.beside = None;
                running.drain = None;
                running.pool.clone()
            })
        };
        let cut = match pool {
            Some(pool) => {
                let _switching = self.means.traffic.switching(&self.name);
                let cut = self.means.switch.retire(&pool, &self.short_drain()).await;
                self.count_cut(&release, cut);
                self.means.metrics.drain(&self.name, began.elapsed());
                // What the app still sees open would hold up its end.
                pool.close_idle();
                cut
            }
            None => hotctl_proxy::Open::default(),
        };
        failpoint::pass("after-last-answer");
        self.end_processes(at.slot, self.config().stop_timeout)
            .await;
        Drained {
            took: began.elapsed(),
            cut,
        }
    }

    /// End the candidate and run again what it was to replace, until that is healthy.
    ///
    /// # Errors
    /// Why it is not; a process that ends is started again all the same, see `revive`.
    pub async fn restore(
        self: &Arc<Self>,
        at: Placement,
        instead_of: Placement,
    ) -> Result<(), Why> {
        self.end_processes(instead_of.slot, self.config().stop_timeout)
            .await;
        let release = at.release_of(&self.name);
        failpoint::pass("after-candidate-ended");
        for tried in 1.. {
            let launched = match self.launched(at) {
                Some(launched) => Ok(launched),
                None => {
                    // What was being ended is ended.
                    self.end_processes(at.slot, self.config().stop_timeout)
                        .await;
                    self.launch(at).await
                }
            };
            match launched {
                Ok(launched) => {
                    // Whoever is up serves from now on.
                    self.publish();
                    let proofs = launched.instances.iter().enumerate();
                    join_all(proofs.map(|(n, one)| self.let_serve(at.slot, n, one))).await;
                    break;
                }
                Err(why) if tried == TRIES => return Err(why),
                Err(why) => {
                    warn!(%release, %why, "what was live cannot be started again yet");
                    tokio::time::sleep(BETWEEN).await;
                }
            }
        }
        match self.is_up(at.slot) {
            true => Ok(()),
            false => Err(Why::new(
                hotctl_deploy::why::Kind::NotHealthy,
                format!("{release}: not healthy when it was started again"),
            )
            .hint(format!("hotctl logs {release}"))),
        }
    }

    /// End the processes of a slot, with all that they have started, and forget it.
    pub(super) async fn end_processes(&self, slot: Slot, grace: Duration) {
        let (processes, starts): (Vec<Process>, TaskTracker) = {
            let mut inner = self.inner();
            let Some(running) = inner.slots.get_mut(&slot) else {
                return;
            };
            let ending = running.instances.iter_mut().map(|one| {
                one.state = State::Ending;
                one.process.clone()
            });
            (ending.collect(), running.starts.clone())
        };
        let stops = processes.iter().map(|process| process.stop(grace));
        for stopped in join_all(stops).await {
            info!(service = %self.name, %slot, exit = %stopped.exit, killed = stopped.killed, "stopped");
        }
        // What was being started again in that instant finds its place gone, and is ended, too.
        starts.close();
        starts.wait().await;
        self.inner().slots.remove(&slot);
    }

    /// How long what is in flight may go on where everybody else waits for its end.
    fn short_drain(&self) -> Drain {
        let config = self.config();
        let requests = match config.park.max {
            0 => config.drain.requests,
            _ => config.drain.requests.min(config.park.time / 2),
        };
        Drain {
            requests,
            websockets: Duration::ZERO,
            streams: Duration::ZERO,
            spread: Duration::ZERO,
            ..config.drain.clone()
        }
    }
}
