//! From a duty to what does it, and from its answer to an event: the one place where the machine
//! meets processes and traffic. Decides nothing.

mod start;

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hotctl_config::names::Percent;
use hotctl_deploy::drive::Hands;
use hotctl_deploy::logs;
use hotctl_deploy::machine::{Deployment, Duty, Event, Phase, Placement};
use hotctl_deploy::probe::Healthy;
use hotctl_deploy::why::{Kind, Why};
use tokio::sync::Notify;

use crate::api::{Noted, OpenRequests, Progress, Summary};
use crate::failpoint;
use crate::sealed::Outlives;
use crate::site::{Drained, Launched, Site};
use crate::store::on_disk;
use crate::teller::{Teller, ms};

/// How many lines of its output a failed candidate is quoted with.
const LAST_LINES: usize = 20;

/// The hands of one deployment.
#[derive(Debug)]
pub struct DeployHands {
    site: Arc<Site>,
    tell: Teller,
    deployment: u32,
    from: Option<Placement>,
    to: Placement,
    hurry: Arc<Notify>,
    progress: Arc<Mutex<Times>>,
}

/// What has been measured so far, for the summary.
#[derive(Debug, Default)]
struct Times {
    launched: Option<(Launched, Duration)>,
    healthy: Option<Healthy>,
    flip: Option<Duration>,
    live: Duration,
    phase: Option<(&'static str, Instant)>,
}

impl DeployHands {
    /// Hands for `deployment`, whose steps are told to `tell`.
    /// `hurry` ends the hold of the last step: somebody waits for the end of the deployment.
    pub fn new(
        site: &Arc<Site>,
        deployment: &Deployment,
        tell: Teller,
        hurry: Arc<Notify>,
    ) -> Self {
        Self {
            site: site.clone(),
            tell,
            deployment: deployment.number,
            from: deployment.from,
            to: deployment.to,
            hurry,
            progress: Arc::default(),
        }
    }

    /// What goes live must survive a power cut, where its record does.
    async fn content_is_on_disk(&self, at: Placement) -> Result<(), Why> {
        let digest = self
            .site
            .ledger()
            .releases
            .get(&at.release)
            .map(|release| release.digest);
        let Some(digest) = digest else { return Ok(()) };
        if self.site.means.state.outlives() == Outlives::Kill {
            return Ok(());
        }
        self.site.store.durable(&digest).await.map_err(|cause| {
            Why::new(
                Kind::NotRecorded,
                format!("cannot write the release to the disk: {cause}"),
            )
            .hint("free space in the state folder, then deploy again")
        })
    }

    fn flip(&self, weight: Percent) {
        let _switching = self.site.means.traffic.switching(&self.site.name);
        let began = Instant::now();
        self.site.publish();
        let took = began.elapsed();
        self.site.means.traffic.switched(&self.site.name, took);
        if weight != Percent::ALL {
            return;
        }
        {
            let mut times = self.times();
            times.flip = Some(took);
            times.live = self.tell.elapsed();
        }
        self.tell.tell(Progress::Flipped {
            release: self.to.release_of(&self.site.name),
            took_us: took.as_secs_f64() * 1e6,
        });
        self.on_live();
        let Some(old) = self.from else {
            self.summary(None);
            return;
        };
        let release = old.release_of(&self.site.name);
        let open = self.site.in_flight(old.slot);
        if open.total() > 0 {
            self.tell.tell(Progress::Draining {
                release: release.clone(),
                requests: open.total(),
                open: open.into(),
            });
        }
        let told = self.clone();
        self.site.lose(old, move |drained| {
            told.tell.tell(Progress::Drained {
                release,
                took_ms: ms(drained.took),
                open: drained.cut.total(),
                cut: drained.cut.into(),
            });
            told.summary(Some(drained));
        });
    }

    fn summary(&self, drained: Option<Drained>) {
        let times = self.times();
        let (Some((launched, start)), Some(healthy), Some(flip)) =
            (&times.launched, &times.healthy, times.flip)
        else {
            return;
        };
        let Some(first) = launched.first() else {
            return;
        };
        self.tell.tell(Progress::Summary(Summary {
            release: self.to.release_of(&self.site.name),
            deployment: self.deployment,
            address: first.address.clone(),
            ports: first.ports.clone(),
            pid: first.process.pid(),
            instances: launched.instances.len(),
            start_ms: ms(*start),
            listen_ms: healthy.listening.map(ms),
            health_ms: ms(healthy.took),
            flip_us: flip.as_secs_f64() * 1e6,
            live_ms: ms(times.live),
            drain_ms: drained.map(|d| ms(d.took)),
            open: drained.map_or(0, |d| d.cut.total()),
            cut: drained.map_or_else(OpenRequests::default, |d| d.cut.into()),
            total_ms: ms(self.tell.elapsed()),
        }));
    }

    /// End what is live, so that the candidate can take its place.
    async fn stop(&self, old: Placement) -> Event {
        // What cannot be started anyway should not cost a moment.
        if let Err(why) = self.site.could_start(self.to) {
            return Event::Failed(why);
        }
        let release = old.release_of(&self.site.name);
        self.tell.tell(Progress::Stopping {
            release: release.clone(),
            deployment: self.deployment,
        });
        let drained = self.site.end(old).await;
        self.tell.tell(Progress::Stopped {
            release,
            took_ms: ms(drained.took),
            cut: drained.cut.into(),
        });
        Event::Stopped
    }

    /// Run again what was live, in the place of the candidate.
    async fn restore(&self, old: Placement) {
        let began = Instant::now();
        let release = old.release_of(&self.site.name);
        // It was never ended, where that could not be recorded.
        let was_ended = self.site.launched(old).is_none();
        let restored = self.site.restore(old, self.to).await;
        if !was_ended && restored.is_ok() {
            return;
        }
        if let (Err(why), false) = (&restored, self.site.means.manner.tells_events()) {
            tracing::error!(%release, %why, "what was live is not back");
        }
        self.tell.tell(Progress::Restored {
            release,
            took_ms: ms(began.elapsed()),
            error: restored.err().map(|why| why.text),
        });
    }

    async fn judge(&self, hold: Duration) -> Event {
        self.site.hold(self.to.slot, hold);
        let release = self.to.release_of(&self.site.name);
        let evidence = tokio::select! {
            // Without a hold nobody is kept to go back to.
            biased;
            () = tokio::time::sleep(hold) => return Event::Passed,
            () = self.hurry.notified() => return Event::Passed,
            evidence = self.site.evidence(self.to.slot) => evidence,
        };
        // What is kept warm may hang meanwhile: then it is better to mend what is live.
        if self.from.is_some_and(|old| !self.site.is_well(old.slot)) {
            tracing::warn!(%release, "{}, and what is kept warm is not well either: it stays", evidence.text);
            return Event::Passed;
        }
        self.site
            .means
            .metrics
            .flipped_back(&self.site.name, evidence.kind);
        let launched = self.times().launched.clone();
        let logs = launched.map_or_else(Vec::new, |(launched, _)| launched.logs());
        let tails = logs
            .iter()
            .map(|log| on_disk(|| logs::tail(log, LAST_LINES)));
        let output = tails.max_by_key(Vec::len).unwrap_or_default();
        let why = Why {
            output,
            ..Why::new(evidence.kind, format!("{release}: {}", evidence.text))
                .hint(format!("hotctl logs {release}"))
        };
        if let Some(old) = self.from {
            self.site.means.journal.note(
                Some(&self.site.name),
                Noted::FlipBack {
                    from: release,
                    to: old.release_of(&self.site.name),
                    why: why.clone(),
                },
            );
        }
        Event::Failed(why)
    }

    fn times(&self) -> MutexGuard<'_, Times> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Note that a phase begins, and with it that the one before is over.
    fn phase_begins(&self, phase: &Phase) {
        let name = match phase {
            Phase::Stopping => Some("stopping"),
            Phase::Starting => Some("starting"),
            Phase::Step(_) => Some("step"),
            Phase::Reverting(_) => Some("reverting"),
            Phase::Done | Phase::Failed(_) => None,
        };
        let before = std::mem::replace(
            &mut self.times().phase,
            name.map(|name| (name, Instant::now())),
        );
        if let Some((name, began)) = before {
            self.site
                .means
                .metrics
                .phase(&self.site.name, name, began.elapsed());
        }
    }
}

impl Clone for DeployHands {
    fn clone(&self) -> Self {
        Self {
            site: self.site.clone(),
            tell: self.tell.clone(),
            progress: self.progress.clone(),
            hurry: self.hurry.clone(),
            ..*self
        }
    }
}

impl Hands for DeployHands {
    async fn record(&self, deployment: &Deployment) -> io::Result<()> {
        self.phase_begins(&deployment.phase);
        self.tell.phase(deployment);
        if let Phase::Reverting(why) = &deployment.phase {
            self.tell.tell(Progress::Reverting {
                release: self.to.release_of(&self.site.name),
                why: why.clone(),
            });
        }
        let phase = match &deployment.phase {
            Phase::Stopping => "stopping",
            Phase::Starting => "starting",
            Phase::Step(_) => "step",
            Phase::Reverting(_) => "reverting",
            Phase::Done => "done",
            Phase::Failed(_) => "failed",
        };
        failpoint::pass(&format!("before-record-{phase}"));
        let recorded = self.site.record(deployment).await;
        failpoint::pass(&format!("after-record-{phase}"));
        recorded
    }

    async fn perform(&self, duty: Duty) -> Option<Event> {
        let name = match duty {
            Duty::Park => "park",
            Duty::Stop(_) => "stop",
            Duty::Restore(_) => "restore",
            Duty::Start(_) => "start",
            Duty::Split(_) => "split",
            Duty::Judge(_) => "judge",
            Duty::Revert => "revert",
        };
        failpoint::pass(&format!("before-{name}"));
        let event = self.done(duty).await;
        failpoint::pass(&format!("after-{name}"));
        event
    }
}

impl DeployHands {
    async fn done(&self, duty: Duty) -> Option<Event> {
        match duty {
            Duty::Park => {
                // What it still has in flight would be cut off with the old release.
                self.site.wait_for_predecessor().await;
                self.site.publish();
                None
            }
            Duty::Stop(old) => Some(self.stop(old).await),
            Duty::Restore(old) => {
                self.restore(old).await;
                None
            }
            Duty::Start(at) => {
                // Side by side: the app does not wait for the disk, only the flip does.
                let (proved, written) = tokio::join!(self.start(at), self.content_is_on_disk(at));
                Some(match proved.and(written) {
                    Ok(()) => Event::Ready,
                    Err(why) => Event::Failed(why),
                })
            }
            Duty::Split(weight) => {
                self.flip(weight);
                None
            }
            Duty::Judge(hold) => Some(self.judge(hold).await),
            Duty::Revert => {
                self.site.publish();
                // A candidate that never had traffic is drained at once.
                self.site.lose(self.to, |_| {});
                Some(Event::Reverted)
            }
        }
    }
}
