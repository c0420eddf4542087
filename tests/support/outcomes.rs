//! What came of each request of a load. Pure.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use super::http::Trouble;

/// How many failures of a kind are kept in full.
const SAMPLES: usize = 3;

/// What a client of the load does, again and again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// `GET /` on one connection.
    KeepAlive,
    /// `GET /` on a connection for each.
    NewConnection,
    /// `POST /echo`, bodies of several sizes and both framings, compared byte by byte.
    Post,
    /// `GET /slow`: two seconds until the answer.
    Slow,
    /// `GET /sse`: two seconds of events, none left out, to the end of the stream.
    EventStream,
    /// `/ws`: two seconds of messages, each echoed.
    WebSocket,
    /// `POST /digest`: 2 MiB over about half a second.
    Upload,
}

/// What went wrong with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Failure {
    /// Answered, but not with what it should be.
    WrongBody,
    /// Nobody took the connection.
    Refused,
    /// The connection was reset.
    Reset,
    /// The connection was closed before the answer was whole.
    ClosedEarly,
    /// Another status than was asked for.
    Status,
    /// No whole answer in time.
    Timeout,
    /// Answered by a release that should not get requests any more, or not yet.
    WrongVersion,
    /// Not HTTP, not an event stream, not a WebSocket.
    Garbled,
}

/// A failed request: what, and all that is known about it.
#[derive(Clone, Debug)]
pub struct Failed(pub Failure, pub String);

/// One request that was answered well, in microseconds.
#[derive(Clone, Copy, Debug)]
pub struct Timed {
    /// Since the load began.
    pub at: u32,
    /// From when it should have been sent to its answer.
    pub took: u32,
}

/// What came of the requests of one client, or of several.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Answered as they should be.
    pub ok: u64,
    /// Connections that ended after an answer which announced it.
    pub announced: u64,
    /// Connections that were found closed between two requests without a word. No request is lost
    /// by that when the client sees it in time, as here; the next one of less luck would be.
    pub closed_idle: u64,
    failures: BTreeMap<Failure, (u64, Vec<String>)>,
    /// If they were asked for.
    pub times: Vec<Timed>,
}

/// What came of the whole load.
#[derive(Clone, Debug)]
pub struct Outcomes {
    pub took: Duration,
    pub classes: BTreeMap<Class, Tally>,
}

impl Tally {
    /// Count a failure.
    pub fn fail(&mut self, Failed(failure, about): Failed) {
        let (count, samples) = self.failures.entry(failure).or_default();
        *count += 1;
        if samples.len() < SAMPLES {
            samples.push(about);
        }
    }

    /// How many failed.
    pub fn failed(&self) -> u64 {
        self.failures.values().map(|(count, _)| count).sum()
    }

    /// How many failed in this way.
    pub fn count(&self, failure: Failure) -> u64 {
        self.failures.get(&failure).map_or(0, |(count, _)| *count)
    }

    /// What was kept of those that failed in this way.
    pub fn samples(&self, failure: Failure) -> &[String] {
        self.failures
            .get(&failure)
            .map_or(&[], |(_, samples)| samples)
    }

    fn add(&mut self, other: Tally) {
        self.ok += other.ok;
        self.announced += other.announced;
        self.closed_idle += other.closed_idle;
        self.times.extend(other.times);
        for (failure, (count, more)) in other.failures {
            let (sum, samples) = self.failures.entry(failure).or_default();
            *sum += count;
            samples.extend(more.into_iter().take(SAMPLES.saturating_sub(samples.len())));
        }
    }
}

impl Outcomes {
    /// Put together what each client has seen.
    pub fn of(took: Duration, clients: impl IntoIterator<Item = (Class, Tally)>) -> Self {
        let mut classes: BTreeMap<Class, Tally> = BTreeMap::new();
        for (class, tally) in clients {
            classes.entry(class).or_default().add(tally);
        }
        Self { took, classes }
    }

    /// How many requests there were.
    pub fn total(&self) -> u64 {
        self.classes
            .values()
            .map(|tally| tally.ok + tally.failed())
            .sum()
    }

    /// How many of them failed.
    pub fn failed(&self) -> u64 {
        self.classes.values().map(Tally::failed).sum()
    }

    /// How many kept-alive connections were found closed without a word.
    pub fn closed_idle(&self) -> u64 {
        self.classes.values().map(|tally| tally.closed_idle).sum()
    }

    /// How many failed in this way.
    pub fn count(&self, failure: Failure) -> u64 {
        self.classes
            .values()
            .map(|tally| tally.count(failure))
            .sum()
    }

    /// What came of one class.
    #[track_caller]
    pub fn of_class(&self, class: Class) -> &Tally {
        self.classes
            .get(&class)
            .unwrap_or_else(|| panic!("no client of {class:?}"))
    }

    /// That none failed, in a load of which every class has had answers. Prints how many ran.
    #[track_caller]
    pub fn assert_none_failed(&self) {
        eprintln!("{self}");
        assert!(
            self.failed() == 0,
            "{} of {} requests failed\n{self}",
            self.failed(),
            self.total()
        );
        for (class, tally) in &self.classes {
            assert!(
                tally.ok > 0,
                "{class:?}: none failed, but none ran either\n{self}"
            );
        }
    }
}

impl fmt::Display for Outcomes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (total, failed) = (self.total(), self.failed());
        write!(f, "{total} requests in {:.1?}, {failed} failed", self.took)?;
        for (class, tally) in &self.classes {
            write!(f, "\n  {class:?}: {} ok", tally.ok)?;
            for (name, count) in [
                ("connections closed as announced", tally.announced),
                ("idle connections closed without a word", tally.closed_idle),
            ] {
                if count > 0 {
                    write!(f, ", {count} {name}")?;
                }
            }
            for (failure, (count, samples)) in &tally.failures {
                write!(f, "\n    {count} {failure:?}, the first:")?;
                for sample in samples {
                    write!(
                        f,
                        "\n      {}",
                        sample.trim_end().replace('\n', "\n        ")
                    )?;
                }
            }
        }
        Ok(())
    }
}

impl From<Trouble> for Failed {
    fn from(trouble: Trouble) -> Self {
        let failure = match trouble {
            Trouble::Refused => Failure::Refused,
            Trouble::Reset(_) => Failure::Reset,
            Trouble::ClosedEarly(_) => Failure::ClosedEarly,
            Trouble::Garbled(_) => Failure::Garbled,
        };
        Self(failure, trouble.to_string())
    }
}
