//! Tells the one who gave an order what becomes of it, and the journal and the record with them.
//! Losing the listener changes nothing.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hotctl_config::names::ServiceName;
use tokio::sync::mpsc;

use hotctl_deploy::machine::Deployment;

use crate::api::{Noted, Progress, Verb};
use crate::history::Scribe;
use crate::journal::Journal;
use crate::who::Giver;

/// Lines that may lie unread. When the reader is so slow that it is full, lines are lost, never
/// the deployment held up; what is said often (`waiting`) gives way first.
const UNREAD: usize = 128;
/// Places kept free for what is said once.
const RESERVED: usize = 32;

/// The speaking end of an order; a cheap handle.
#[derive(Debug, Clone)]
pub struct Teller(Arc<Story>);

/// One order and what has been told of it.
#[derive(Debug)]
struct Story {
    verb: Verb,
    by: Giver,
    service: ServiceName,
    journal: Journal,
    ordered: Instant,
    told: Mutex<Told>,
}

#[derive(Debug)]
struct Told {
    /// Gone with the last line.
    to: Option<mpsc::Sender<Progress>>,
    settled: Settled,
    /// From when it is a deployment of its own.
    scribe: Option<Scribe>,
}

/// A deployment may settle before the old release has given its last answer; it is told after that.
#[derive(Debug)]
enum Settled {
    BeforeSummary,
    Waits(Progress),
    AfterSummary,
}

impl Teller {
    /// A teller for an order of a service, and where its lines are read.
    pub fn new(
        verb: Verb,
        by: Giver,
        service: &ServiceName,
        journal: &Journal,
    ) -> (Self, mpsc::Receiver<Progress>) {
        Self::since(Duration::ZERO, verb, by, service, journal)
    }

    /// The same, for an order that was given so long ago.
    pub fn since(
        ago: Duration,
        verb: Verb,
        by: Giver,
        service: &ServiceName,
        journal: &Journal,
    ) -> (Self, mpsc::Receiver<Progress>) {
        let (send, receive) = mpsc::channel(UNREAD);
        let now = Instant::now();
        let story = Story {
            verb,
            by,
            service: service.clone(),
            journal: journal.clone(),
            ordered: now.checked_sub(ago).unwrap_or(now),
            told: Mutex::new(Told {
                to: Some(send),
                settled: Settled::BeforeSummary,
                scribe: None,
            }),
        };
        (Self(Arc::new(story)), receive)
    }

    /// Say one line. The last line of an order ends it; later ones are not said.
    pub fn tell(&self, progress: Progress) {
        let mut told = self.0.told();
        let progress = match (progress, &told.settled) {
            (progress @ Progress::Settled { .. }, Settled::BeforeSummary) => {
                told.settled = Settled::Waits(progress);
                return;
            }
            (progress, _) => progress,
        };
        let summary = matches!(progress, Progress::Summary(_));
        self.0.say(&mut told, progress);
        if summary
            && let Settled::Waits(settled) =
                std::mem::replace(&mut told.settled, Settled::AfterSummary)
        {
            self.0.say(&mut told, settled);
        }
    }

    /// From now on what is told is written into the record of a deployment, too.
    pub fn record_with(&self, scribe: Scribe) {
        self.0.told().scribe = Some(scribe);
    }

    /// The deployment's turn has come.
    pub fn begins(&self, deployment: &Deployment) {
        if let Some(scribe) = &self.0.told().scribe {
            scribe.begins(deployment);
        }
    }

    /// The deployment enters a phase.
    pub fn phase(&self, deployment: &Deployment) {
        if let Some(scribe) = &self.0.told().scribe {
            scribe.phase(deployment);
        }
    }

    /// What was asked for.
    pub fn verb(&self) -> Verb {
        self.0.verb
    }

    /// Who asked.
    pub fn by(&self) -> &Giver {
        &self.0.by
    }

    /// Since the order was given.
    pub fn elapsed(&self) -> Duration {
        self.0.ordered.elapsed()
    }
}

impl Story {
    fn say(&self, told: &mut Told, progress: Progress) {
        let Some(sender) = &told.to else {
            // May come when the order is over, and is worth knowing all the same.
            if matches!(progress, Progress::OnLive { .. }) {
                self.journal
                    .note(Some(&self.service), self.as_noted(&progress));
            }
            return;
        };
        self.journal
            .note(Some(&self.service), self.as_noted(&progress));
        if let Some(scribe) = &told.scribe {
            match &progress {
                Progress::Flipped { .. } => scribe.live(),
                Progress::Summary(summary) => scribe.summary(summary),
                Progress::Settled { .. } => scribe.ends(None),
                Progress::Failed { why, .. } => scribe.ends(Some(why)),
                Progress::Unchanged { .. } => scribe.unchanged(),
                _ => {}
            }
        }
        let last = progress.is_last();
        let often = matches!(progress, Progress::Waiting { .. });
        if !often || sender.capacity() > RESERVED {
            // Full or closed: see above.
            let _ = sender.try_send(progress);
        }
        if last {
            told.to = None;
        }
    }

    fn as_noted(&self, progress: &Progress) -> Noted {
        match progress {
            // It has never become a deployment.
            Progress::Failed {
                release: None, why, ..
            } => Noted::OrderRefused {
                verb: self.verb,
                by: self.by.clone(),
                why: why.clone(),
            },
            progress => Noted::Progress(progress.clone()),
        }
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Story {
    fn drop(&mut self) {
        // The old release was cut before its last answer: there is no summary to wait for.
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if let Settled::Waits(settled) = std::mem::replace(&mut told.settled, Settled::AfterSummary)
        {
            self.say(&mut told, settled);
        }
    }
}

/// Milliseconds as the API gives them.
pub fn ms(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    fn teller(folder: &tempfile::TempDir) -> (Teller, mpsc::Receiver<Progress>, Journal) {
        let journal = Journal::open(
            folder.path(),
            prometheus::IntCounter::new("errors", "errors").unwrap(),
        )
        .unwrap();
        let web = "web".parse().unwrap();
        let (teller, lines) = Teller::new(Verb::Deploy, Giver::daemon(), &web, &journal);
        (teller, lines, journal)
    }

    fn done(text: &str) -> Progress {
        Progress::Done { text: text.into() }
    }

    fn settled() -> Progress {
        Progress::Settled {
            release: "web@2".parse().unwrap(),
            deployment: 2,
        }
    }

    fn summary() -> Progress {
        let text = r#"{"event":"summary","release":"web@2","deployment":2,"address":"127.0.0.1:1",
            "pid":1,"start_ms":1,"health_ms":1,"flip_us":1,"live_ms":1,"open":0,"total_ms":1}"#;
        serde_json::from_str(text).unwrap()
    }

    fn heard(lines: &mut mpsc::Receiver<Progress>) -> Vec<Progress> {
        std::iter::from_fn(|| lines.try_recv().ok()).collect()
    }

    #[tokio::test]
    async fn a_listener_that_does_not_listen_misses_waiting_lines_and_not_the_last_one() {
        let folder = tempfile::tempdir().unwrap();
        let (teller, mut lines, journal) = teller(&folder);
        for n in 0..1000 {
            teller.tell(Progress::Waiting {
                release: "web@1".parse().unwrap(),
                probe: n.to_string(),
                for_ms: 0.0,
            });
        }
        teller.tell(done("stopped"));
        teller.tell(done("too late"));
        let heard = heard(&mut lines);
        assert_eq!(heard.last(), Some(&done("stopped")));
        assert_eq!(heard.len(), UNREAD - RESERVED + 1);
        assert!(lines.is_closed());
        assert_eq!(journal.newest(), 1001);
    }

    #[tokio::test]
    async fn a_deployment_settles_after_the_last_answer_of_the_old_release() {
        let folder = tempfile::tempdir().unwrap();
        let (teller, mut lines, _) = teller(&folder);
        teller.tell(settled());
        assert_eq!(heard(&mut lines), []);
        teller.tell(summary());
        assert_eq!(heard(&mut lines), [summary(), settled()]);
        assert!(lines.is_closed());
    }

    #[tokio::test]
    async fn a_deployment_settles_also_where_the_old_release_was_cut() {
        let folder = tempfile::tempdir().unwrap();
        let (teller, mut lines, _) = teller(&folder);
        teller.tell(settled());
        drop(teller);
        assert_eq!(heard(&mut lines), [settled()]);
    }
}
