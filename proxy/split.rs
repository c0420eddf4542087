//! Which release serves a request: the live one or the candidate, by a throw of the dice.
//!
//! Pure. What a split means is here, how it is published is in `switch`.

use std::sync::Arc;

use hotctl_config::Percent;

use crate::park::Limits;
use crate::pool::{Pool, Seat, Ticket, Tried};

/// Who gets what part of a service's new requests.
#[derive(Clone, Debug)]
pub enum Split {
    /// Nobody: requests are answered with 503 and the reason.
    Closed(Closed),
    /// Nobody for a moment: requests wait within these limits, holding no ticket, until the next
    /// split; what is beyond them is answered with 503.
    Parked(Limits),
    /// The live release, and a candidate with its share where there is one.
    Live {
        /// Gets all requests that the candidate does not get.
        live: Pool,
        /// Gets that part of the requests.
        candidate: Option<(Pool, Percent)>,
    },
}

impl Split {
    /// Everything to one pool.
    pub fn all(live: Pool) -> Self {
        Self::Live {
            live,
            candidate: None,
        }
    }

    /// The pools that can be chosen, or that are named with 0 percent.
    pub(crate) fn pools(&self) -> impl Iterator<Item = &Pool> {
        let (live, candidate) = match self {
            Self::Closed(_) | Self::Parked(_) => (None, None),
            Self::Live { live, candidate } => (Some(live), candidate.as_ref()),
        };
        live.into_iter().chain(candidate.map(|(pool, _)| pool))
    }

    /// What one shard needs of it.
    pub(crate) fn choice(&self, shard: usize) -> Choice {
        match self {
            Self::Closed(why) => Choice::Closed(why.clone()),
            Self::Parked(limits) => Choice::Parked(*limits),
            Self::Live { live, candidate } => Choice::Live {
                live: live.seat(shard),
                candidate: candidate
                    .as_ref()
                    .filter(|(_, share)| share.get() > 0)
                    .map(|(pool, share)| (pool.seat(shard), share.get())),
            },
        }
    }
}

/// Why nothing serves a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Closed {
    /// It never had a release.
    NothingDeployed,
    /// An operator stopped it.
    Stopped,
    /// It has a live release, which could not be started.
    NotRunning,
    /// What is known of it cannot be read.
    StateDamaged,
    /// Its live release ends again and again soon after it is started.
    CrashLoop,
    /// An operator has put this in its place.
    Maintenance(Arc<Notice>),
}

/// What an operator wants clients to see instead of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// That it is being worked on.
    Plain,
    /// A sentence, shown on hotctl's own page.
    Message(String),
    /// A whole page of HTML.
    Page(String),
}

/// A split as one shard sees it: the seats of that shard.
pub(crate) enum Choice {
    Closed(Closed),
    Parked(Limits),
    Live {
        live: Arc<Seat>,
        candidate: Option<(Arc<Seat>, u8)>,
    },
}

/// Why a shard has no ticket to give.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum NoTicket {
    Closed(Closed),
    Parked(Limits),
}

impl Choice {
    /// Takes a ticket by a roll of 0 to 99: the candidate gets the rolls below its share.
    pub(crate) fn take(&self, roll: u8, tried: &Tried) -> Result<Ticket, NoTicket> {
        match self {
            Self::Closed(why) => Err(NoTicket::Closed(why.clone())),
            Self::Parked(limits) => Err(NoTicket::Parked(*limits)),
            Self::Live {
                candidate: Some((seat, share)),
                ..
            } if roll < *share => Ok(seat.take(tried)),
            Self::Live { live, .. } => Ok(live.take(tried)),
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;
    use hotctl_config::{Address, Slot};
    use std::num::NonZeroUsize;

    fn pool(release: &str) -> Pool {
        let address = Address::Inet(([127, 0, 0, 1], 1).into());
        let release = release.parse().unwrap();
        Pool::new(release, Slot(1), address, &[], NonZeroUsize::MIN)
    }

    #[test]
    fn a_candidate_gets_exactly_its_share_of_the_rolls() {
        for share in [0, 1, 25, 99, 100] {
            let split = Split::Live {
                live: pool("web@1"),
                candidate: Some((pool("web@2"), Percent::try_from(share).unwrap())),
            };
            let choice = split.choice(0);
            let candidates = (0..100).filter(|&roll| {
                let ticket = choice.take(roll, &Tried::default()).unwrap();
                ticket.release().number == 2
            });
            assert_eq!(candidates.count(), usize::from(share));
        }
    }

    #[test]
    fn a_closed_service_says_why() {
        for why in [
            Closed::NothingDeployed,
            Closed::Stopped,
            Closed::NotRunning,
            Closed::StateDamaged,
        ] {
            let split = Split::Closed(why.clone());
            let refused = split.choice(0).take(0, &Tried::default()).map(|_| ());
            assert_eq!(refused, Err(NoTicket::Closed(why)));
        }
    }

    #[test]
    fn a_parked_service_says_within_which_limits() {
        let limits = Limits {
            max: 7,
            time: std::time::Duration::from_secs(3),
        };
        let refused = Split::Parked(limits).choice(0).take(0, &Tried::default());
        assert_eq!(refused.map(|_| ()), Err(NoTicket::Parked(limits)));
    }
}
