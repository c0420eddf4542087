//! The life of one deployment as a pure state machine: which phase follows which event, and what
//! each phase has to do. No clock, no file, no process, no task: `next` and `duties` are functions
//! of values, so that every order of events can be searched and every crash resumed.

use std::fmt;
use std::time::Duration;

use hotctl_config::file::Strategy;
use hotctl_config::names::{Percent, ReleaseId, ServiceName, Slot};
use serde::{Deserialize, Serialize};

use crate::why::Why;

/// One deployment of one service: from what was live when it began to its candidate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Deployment {
    /// The service it belongs to.
    pub service: ServiceName,
    /// Counts the deployments of the service, from 1.
    pub number: u32,
    /// What was live when it began; none at the first deployment and after a stop.
    pub from: Option<Placement>,
    /// The candidate.
    pub to: Placement,
    /// How the candidate takes over.
    #[serde(default)]
    pub strategy: Strategy,
    /// What the candidate climbs; never empty.
    pub ladder: Ladder,
    /// Where it stands.
    pub phase: Phase,
}

/// A release in a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Placement {
    /// The release's number within its service, as in `web@7`.
    pub release: u32,
    /// Where it runs.
    pub slot: Slot,
}

impl Placement {
    /// The release's full name.
    pub fn release_of(&self, service: &ServiceName) -> ReleaseId {
        ReleaseId {
            service: service.clone(),
            number: self.release,
        }
    }
}

/// The steps a candidate climbs; the last has weight 100.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ladder(Vec<Step>);

impl Ladder {
    /// Plain blue/green: one step of 100 percent, the old release kept warm for `hold` after it.
    pub fn blue_green(hold: Duration) -> Self {
        Self(vec![Step {
            weight: Percent::ALL,
            hold,
        }])
    }

    /// The steps in order.
    pub fn steps(&self) -> &[Step] {
        &self.0
    }

    fn last(&self) -> usize {
        self.0.len().saturating_sub(1)
    }
}

/// One step of a ladder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// Percent of new requests that the candidate gets.
    pub weight: Percent,
    /// How long the step is judged before the next one; in the last step, how long the old release
    /// is kept warm.
    pub hold: Duration,
}

/// Where a deployment stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// What is live is ended, so that the candidate can take its place. Requests wait.
    Stopping,
    /// The candidate is started and has to prove itself healthy. No request reaches it.
    Starting,
    /// It gets the weight of this step of the ladder.
    Step(usize),
    /// Its weight is taken back, for this reason. Where it had taken the place of what was live, that
    /// is started again.
    Reverting(Why),
    /// It is the live release.
    Done,
    /// It is not, for this reason, and takes no requests.
    Failed(Why),
}

impl Phase {
    /// Whether nothing follows.
    pub fn is_end(&self) -> bool {
        matches!(self, Self::Done | Self::Failed(_))
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stopping => f.write_str("stopping"),
            Self::Starting => f.write_str("starting"),
            Self::Step(n) => write!(f, "step {n}"),
            Self::Reverting(why) => write!(f, "reverting ({})", why.kind),
            Self::Done => f.write_str("done"),
            Self::Failed(why) => write!(f, "failed ({})", why.kind),
        }
    }
}

/// A fact that may end a phase.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// Nothing of what was live runs any more.
    Stopped,
    /// The candidate has proved itself healthy.
    Ready,
    /// The step's hold is over and nothing spoke against it.
    Passed,
    /// The candidate cannot or must not go on: unhealthy, exited, cancelled, rolled back.
    Failed(Why),
    /// An operator, or the next deployment, wants it to end well now.
    Promote,
    /// The weight has been taken back.
    Reverted,
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stopped => f.write_str("stopped"),
            Self::Ready => f.write_str("ready"),
            Self::Passed => f.write_str("passed"),
            Self::Failed(why) => write!(f, "failed {}", why.kind),
            Self::Promote => f.write_str("promote"),
            Self::Reverted => f.write_str("reverted"),
        }
    }
}

/// Work that a phase demands. Each may be done again without harm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Duty {
    /// Let new requests wait. Answers nothing.
    Park,
    /// End what is live, once what it has begun is over or its time is. Answers `Stopped`, or `Failed`
    /// where it can be seen beforehand that the candidate cannot be started.
    Stop(Placement),
    /// End the candidate, run this again and wait until it is healthy, or does not become so. Answers
    /// nothing.
    Restore(Placement),
    /// Run the candidate and wait until it is healthy. Answers `Ready` or `Failed`.
    Start(Placement),
    /// Give the candidate this share of new requests, the rest to what was live. Answers nothing.
    Split(Percent),
    /// Watch the candidate for so long. Answers `Passed` or `Failed`.
    Judge(Duration),
    /// Take all requests from the candidate. Answers `Reverted`.
    Revert,
}

impl fmt::Display for Duty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Park => f.write_str("park"),
            Self::Stop(at) => write!(f, "stop release {} in {}", at.release, at.slot),
            Self::Restore(at) => write!(f, "restore release {} in {}", at.release, at.slot),
            Self::Start(at) => write!(f, "start release {} in {}", at.release, at.slot),
            Self::Split(weight) => write!(f, "split {weight}"),
            Self::Judge(hold) => write!(f, "judge {}", hotctl_config::units::show_duration(*hold)),
            Self::Revert => f.write_str("revert"),
        }
    }
}

/// An event that means nothing in this phase; nothing changes.
#[derive(Debug, Clone, PartialEq)]
pub struct Unexpected {
    /// Where the deployment stood.
    pub phase: Phase,
    /// What came.
    pub event: Event,
}

impl fmt::Display for Unexpected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} means nothing while {}", self.event, self.phase)
    }
}

impl std::error::Error for Unexpected {}

impl Deployment {
    /// The phase that follows `event`.
    ///
    /// # Errors
    /// [`Unexpected`] if the event means nothing in the present phase.
    // The error is as large as what it tells of; it is made a few times in the life of a daemon.
    #[allow(clippy::result_large_err)]
    pub fn next(&self, event: Event) -> Result<Phase, Unexpected> {
        match (&self.phase, event) {
            (Phase::Stopping, Event::Stopped) => Ok(Phase::Starting),
            (Phase::Starting, Event::Ready) => Ok(Phase::Step(0)),
            (Phase::Step(n), Event::Passed) if *n < self.ladder.last() => Ok(Phase::Step(n + 1)),
            (Phase::Step(_), Event::Passed) => Ok(Phase::Done),
            // To promote is to go to the last step; there it ends the hold.
            (Phase::Step(n), Event::Promote) if *n < self.ladder.last() => {
                Ok(Phase::Step(self.ladder.last()))
            }
            (Phase::Step(_), Event::Promote) => Ok(Phase::Done),
            (Phase::Stopping | Phase::Starting | Phase::Step(_), Event::Failed(why)) => {
                Ok(Phase::Reverting(why))
            }
            (Phase::Reverting(why), Event::Reverted) => Ok(Phase::Failed(why.clone())),
            (phase, event) => Err(Unexpected {
                phase: phase.clone(),
                event,
            }),
        }
    }

    /// What the present phase demands, in this order.
    pub fn duties(&self) -> Vec<Duty> {
        match &self.phase {
            Phase::Stopping => match self.from {
                Some(from) => vec![Duty::Park, Duty::Stop(from)],
                // It cannot have begun so; there is nothing to undo.
                None => vec![Duty::Revert],
            },
            Phase::Starting => vec![Duty::Start(self.to)],
            Phase::Step(n) => match self.ladder.steps().get(*n) {
                Some(step) => vec![Duty::Split(step.weight), Duty::Judge(step.hold)],
                None => vec![Duty::Revert],
            },
            Phase::Reverting(_) => self
                .replaced()
                .map(Duty::Restore)
                .into_iter()
                .chain([Duty::Revert])
                .collect(),
            Phase::Done | Phase::Failed(_) => Vec::new(),
        }
    }

    /// The candidate's share of new requests in the present phase.
    pub fn weight(&self) -> Percent {
        match &self.phase {
            Phase::Step(n) => self
                .ladder
                .steps()
                .get(*n)
                .map_or(Percent::ZERO, |step| step.weight),
            Phase::Done => Percent::ALL,
            Phase::Stopping | Phase::Starting | Phase::Reverting(_) | Phase::Failed(_) => {
                Percent::ZERO
            }
        }
    }

    /// What the candidate takes the place of, where it cannot run beside it.
    pub fn replaced(&self) -> Option<Placement> {
        self.from.filter(|_| self.strategy == Strategy::Recreate)
    }

    /// Whether it stands between two releases that cannot run side by side: what was live has been
    /// ended, or is about to be, and the candidate does not serve yet.
    pub fn is_between(&self) -> bool {
        let between = matches!(
            self.phase,
            Phase::Stopping | Phase::Starting | Phase::Reverting(_)
        );
        between && self.replaced().is_some()
    }

    /// Whether it is in a last step of 100 percent: flipped, and only keeping the old one warm.
    pub fn is_warm(&self) -> bool {
        matches!(self.phase, Phase::Step(n) if n == self.ladder.last())
    }
}

#[cfg(test)]
#[path = "machine_tests.rs"]
mod tests;
