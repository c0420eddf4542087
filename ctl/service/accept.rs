//! Orders that become deployments: refused, found done already, begun at once, or left waiting. What
//! is accepted has its numbers from then on, whatever becomes of it.

use std::time::Duration;

use hotctl_config::names::{Digest, ReleaseId};
use hotctl_config::units::brief;
use hotctl_deploy::ledger::{Ledger, Release, Traffic};
use hotctl_deploy::why::{Kind, Why};
use tracing::warn;

use super::{Desk, Order, Unchanged, Wish};
use crate::api::{DeploymentRecord, Progress, Verb};
use crate::history::{self, Scribe, now_ms};
use crate::site::Keep;
use crate::teller::Teller;

/// An order that waits for its turn.
#[derive(Debug)]
pub(super) enum Waiting {
    Deployment(Accepted),
    Stop(Teller),
}

/// A deployment that has its numbers and has not begun.
#[derive(Debug)]
pub(super) struct Accepted {
    pub(super) number: u32,
    /// What it is thought to make live.
    pub(super) to: ReleaseId,
    goal: Goal,
    pub(super) tell: Teller,
}

#[derive(Debug, Clone, Copy)]
enum Goal {
    /// New content, numbered for this order.
    Fresh(Unchanged),
    /// A stored release.
    Stored,
    /// Whatever is live, or was stopped, when its turn comes.
    Current,
}

impl Waiting {
    /// What it is, for who is told that it took a place, or lost it.
    pub(super) fn name(&self) -> String {
        match self {
            Self::Deployment(accepted) => match accepted.goal {
                Goal::Fresh(_) | Goal::Stored => accepted.to.to_string(),
                Goal::Current => format!("a {} of {}", accepted.tell.verb(), accepted.to.service),
            },
            Self::Stop(_) => "an order to stop".to_owned(),
        }
    }

    /// The number of its deployment, if it is one.
    pub(super) fn number(&self) -> Option<u32> {
        match self {
            Self::Deployment(accepted) => Some(accepted.number),
            Self::Stop(_) => None,
        }
    }
}

impl Desk {
    /// An order for a deployment.
    pub(super) async fn deployment(&mut self, order: Order) {
        let Order { wish, tell, .. } = order;
        let ledger = self.site.ledger();
        let environment = match (&wish, self.site.environment()) {
            (_, Ok(environment)) => Some(environment),
            // It could not be started; what goes back or out of service may have no need of it.
            (Wish::Deploy { .. }, Err(why)) => return self.refuse(&tell, why),
            (_, Err(_)) => None,
        };
        let free = self.queue.waiting().is_none() && (self.active.is_none() || self.is_warm());
        if free
            && let Some(serving) = self.serving(&ledger)
            && is_same(&wish, environment, &ledger, serving)
        {
            return tell.tell(Progress::Unchanged {
                release: ledger.id(serving),
            });
        }
        let accepted = match self.accept(wish, environment, tell.clone()) {
            Ok(accepted) => accepted,
            Err(why) => return self.refuse(&tell, why),
        };
        let Some(active) = &self.active else {
            return self.begin_deployment(accepted);
        };
        if !self.is_warm() {
            tell.tell(Progress::Queued {
                behind: active.to.clone(),
            });
        }
        self.wait(Waiting::Deployment(accepted)).await;
    }

    /// Give an order its numbers, and a record.
    fn accept(
        &self,
        wish: Wish,
        environment: Option<Digest>,
        tell: Teller,
    ) -> Result<Accepted, Why> {
        let ledger = self.site.ledger();
        let (release, goal) = match wish {
            Wish::Deploy {
                digest,
                args,
                name,
                unchanged,
            } => {
                let release = Release {
                    digest,
                    args,
                    name,
                    created_ms: now_ms(),
                    proved: false,
                    environment,
                };
                let number = self.site.note(|ledger| ledger.add(release));
                (number, Goal::Fresh(unchanged))
            }
            Wish::Rollback { to } => (ledger.back_to(to)?, Goal::Stored),
            Wish::Start | Wish::Restart | Wish::Stop | Wish::Cancel(_) | Wish::Gate(_) => {
                let coming = ledger.deployment.as_ref().map(|d| d.to.release);
                let current = coming.or_else(|| current(&ledger));
                let current = current.ok_or_else(|| self.nothing_deployed())?;
                (current, Goal::Current)
            }
        };
        let number = self.site.note(Ledger::order);
        let to = ledger.id(release);
        let record = history::record(number, tell.verb(), tell.by(), to.clone());
        tell.record_with(Scribe::new(&self.history, record));
        tell.tell(Progress::Ordered {
            release: to.clone(),
            deployment: number,
            verb: tell.verb(),
            by: tell.by().clone(),
        });
        Ok(Accepted {
            number,
            to,
            goal,
            tell,
        })
    }

    /// Let an order wait; the one that waited before gives way.
    pub(super) async fn wait(&mut self, waiting: Waiting) {
        if let Some(active) = &self.active {
            // A hold that only keeps the old release warm gives way, now or when it begins.
            active.hurry.notify_one();
        }
        let newer = waiting.name();
        let needed = match &waiting {
            Waiting::Deployment(accepted) => Some(accepted.to.number),
            Waiting::Stop(_) => None,
        };
        if let Some(older) = self.queue.wait(waiting) {
            let why = format!("{}: superseded by {newer}", older.name());
            self.give_up(older, Why::new(Kind::Superseded, why));
        }
        self.site.note(|ledger| ledger.waiting = needed);
        // Its numbers are given for good, also if the daemon ends before its turn comes.
        if let Err(cause) = self.site.change(Keep::Anyway, |_| {}).await {
            warn!(service = %self.site.name, %cause, "cannot record an order that waits");
        }
    }

    /// An order that waited when the last daemon ended waits again.
    pub(super) async fn wait_again(&mut self, record: DeploymentRecord, tell: Teller) {
        let accepted = Accepted {
            number: record.number,
            goal: match record.verb {
                // Whether it was to be deployed even if it is live already is not known any more.
                Verb::Deploy => Goal::Fresh(Unchanged::Nothing),
                Verb::Rollback => Goal::Stored,
                Verb::Start | Verb::Restart => Goal::Current,
                // Never deployments: nothing of them waits.
                Verb::Stop | Verb::Cancel | Verb::Pause | Verb::Resume | Verb::Maintenance => {
                    Goal::Current
                }
            },
            to: record.to,
            tell,
        };
        match self.active {
            Some(_) => self.wait(Waiting::Deployment(accepted)).await,
            None => self.begin(Waiting::Deployment(accepted)).await,
        }
    }

    /// An order's turn never came.
    pub(super) fn give_up(&self, waiting: Waiting, why: Why) {
        match waiting {
            Waiting::Deployment(accepted) => {
                self.site.note(|ledger| ledger.withdraw(accepted.to.number));
                accepted.tell.tell(Progress::Failed {
                    release: Some(accepted.to),
                    live: self.live(),
                    why,
                });
            }
            Waiting::Stop(tell) => self.refuse(&tell, why),
        }
    }

    /// Its turn has come; nothing is under way.
    pub(super) async fn begin(&mut self, waiting: Waiting) {
        match waiting {
            // It waits, for all that is written, until it is written that it has begun.
            Waiting::Deployment(accepted) => self.begin_deployment(accepted),
            Waiting::Stop(tell) => {
                self.site.note(|ledger| ledger.waiting = None);
                self.stop(&tell).await;
            }
        }
    }

    fn begin_deployment(&mut self, accepted: Accepted) {
        let ledger = self.site.ledger();
        let Accepted {
            number,
            to,
            goal,
            tell,
        } = accepted;
        let release = match goal {
            Goal::Fresh(_) | Goal::Stored => to.number,
            Goal::Current => match current(&ledger) {
                Some(release) => release,
                None => {
                    self.site.note(|ledger| ledger.waiting = None);
                    return tell.tell(Progress::Failed {
                        release: Some(to),
                        live: None,
                        why: self.nothing_deployed(),
                    });
                }
            },
        };
        let serving = self.serving(&ledger).filter(|serving| match goal {
            Goal::Fresh(Unchanged::Nothing) => are_same(&ledger, release, *serving),
            Goal::Fresh(Unchanged::Deploy) => false,
            Goal::Stored => release == *serving,
            Goal::Current => tell.verb() == Verb::Start,
        });
        if let Some(serving) = serving {
            self.site.note(|ledger| {
                ledger.waiting = None;
                ledger.withdraw(release);
            });
            return tell.tell(Progress::Unchanged {
                release: ledger.id(serving),
            });
        }
        self.deploy(number, release, tell);
    }

    /// Why an order that is not to wait is refused; none where it need not wait.
    pub(super) fn busy(&self) -> Option<Why> {
        let number = match (&self.active, self.queue.waiting()) {
            (Some(active), _) if !self.is_warm() => active.number,
            (_, Some(waiting)) => waiting.number()?,
            (_, None) => return None,
        };
        let record = self.history.get(number)?;
        let (phase, since_ms) = record
            .phases
            .last()
            .map_or(("queued", record.ordered_ms), |last| {
                (last.phase.as_str(), last.began_ms)
            });
        let age = Duration::from_millis(now_ms().saturating_sub(since_ms));
        let service = &self.site.name;
        let text = format!(
            "{service}: deployment {number} of {} by {} is {phase} for {}",
            record.to,
            record.by.who,
            seconds(age)
        );
        Some(Why::new(Kind::Busy, text).hint(format!(
            "leave out --no-wait to wait for it, or `hotctl cancel {service}` to end it"
        )))
    }

    /// The release that gets every new request, if it runs.
    fn serving(&self, ledger: &Ledger) -> Option<u32> {
        match ledger.traffic() {
            Traffic::All(at) if self.site.runs(at) => Some(at.release),
            _ => None,
        }
    }

    fn nothing_deployed(&self) -> Why {
        let text = format!("{}: nothing is deployed", self.site.name);
        Why::new(Kind::NoRelease, text).hint("hotctl deploy PATH")
    }
}

/// What `start` and `restart` mean.
fn current(ledger: &Ledger) -> Option<u32> {
    ledger.live.map(|live| live.release).or(ledger.stopped)
}

/// Whether a wish is what is true already.
fn is_same(wish: &Wish, environment: Option<Digest>, ledger: &Ledger, serving: u32) -> bool {
    match wish {
        Wish::Deploy {
            digest,
            args,
            unchanged: Unchanged::Nothing,
            ..
        } => ledger.releases.get(&serving).is_some_and(|release| {
            release.digest == *digest && release.args == *args && release.environment == environment
        }),
        Wish::Rollback { to } => *to == Some(serving),
        Wish::Start => true,
        Wish::Deploy { .. } | Wish::Restart | Wish::Stop | Wish::Cancel(_) | Wish::Gate(_) => false,
    }
}

/// Whether two releases are the same content with the same arguments in the same environment.
fn are_same(ledger: &Ledger, one: u32, other: u32) -> bool {
    match (ledger.releases.get(&one), ledger.releases.get(&other)) {
        (Some(one), Some(other)) => {
            one.digest == other.digest
                && one.args == other.args
                && one.environment == other.environment
        }
        _ => false,
    }
}

/// Whole seconds are enough for an age.
fn seconds(age: Duration) -> String {
    match age.as_secs() {
        0 => "0 s".to_owned(),
        whole => brief(Duration::from_secs(whole)),
    }
}
