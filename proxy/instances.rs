//! The instances of a pool: where each is, whether it may serve, and which one is next.
//!
//! Knows nothing of tickets and of shards. A pool of one instance has nothing to choose and nothing
//! to count here, so it costs nothing here; in a larger one all cores write to the counters, since
//! who has least to do is a question about all of them.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use hotctl_config::Address;

use crate::sync::Padded;

/// Whether an instance may get new requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It gets its part.
    Up,
    /// It gets none as long as another one is up.
    Down,
}

/// See the head of this file. Never empty.
pub(crate) struct Instances {
    all: Box<[Instance]>,
    /// What was asked for, by index. It differs from what is so for the last one that went down.
    wanted: Mutex<Box<[Standing]>>,
}

struct Instance {
    address: Address,
    serves: AtomicBool,
    /// Its requests in flight.
    load: Padded<AtomicUsize>,
}

/// Why an instance is chosen rather than another, the best first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    Untried,
    Tried,
    Down,
}

impl Instances {
    pub(crate) fn new(first: Address, more: &[Address]) -> Self {
        let all: Box<[Instance]> = std::iter::once(first)
            .chain(more.iter().cloned())
            .map(|address| Instance {
                address,
                serves: AtomicBool::new(true),
                load: Padded(AtomicUsize::new(0)),
            })
            .collect();
        let wanted = all.iter().map(|_| Standing::Up).collect();
        Self {
            all,
            wanted: Mutex::new(wanted),
        }
    }

    pub(crate) fn addresses(&self) -> impl Iterator<Item = &Address> {
        self.all.iter().map(|it| &it.address)
    }

    /// The address of one. `index` comes from `take`, so it is there.
    pub(crate) fn address(&self, index: usize) -> &Address {
        &self.all[index].address
    }

    /// What an instance is taken for, the last one up included; nothing if there is no such one.
    pub(crate) fn standing(&self, index: usize) -> Option<Standing> {
        let serves = self.all.get(index)?.serves.load(Ordering::Relaxed);
        Some(match serves {
            true => Standing::Up,
            false => Standing::Down,
        })
    }

    /// See [`crate::Pool::set`].
    pub(crate) fn set(&self, index: usize, standing: Standing) {
        let mut wanted = self.wanted.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(slot) = wanted.get_mut(index) else {
            return;
        };
        *slot = standing;
        if wanted.iter().all(|it| *it == Standing::Down) {
            // The last one stays: whoever served until now goes on.
            return;
        }
        // First those that come, so that no pick in between finds nobody.
        for turn in [Standing::Up, Standing::Down] {
            let changed = self.all.iter().zip(&*wanted);
            for (instance, _) in changed.filter(|(_, wanted)| **wanted == turn) {
                instance
                    .serves
                    .store(turn == Standing::Up, Ordering::Relaxed);
            }
        }
    }

    /// Chooses the one with the fewest requests in flight and counts one more on it. Of equals it is
    /// the first from `turn` on. Bit n of `tried`: instance n was tried before, prefer another.
    pub(crate) fn take(&self, turn: impl FnOnce() -> usize, tried: u64) -> usize {
        let count = self.all.len();
        if count == 1 {
            return 0;
        }
        let from = turn() % count;
        loop {
            let best = (from..count)
                .chain(0..from)
                .map(|index| {
                    let load = self.all[index].load.load(Ordering::Relaxed);
                    (self.rank(index, tried), load, index)
                })
                .min_by_key(|(rank, load, _)| (*rank, *load));
            let (load, index) = best.map_or((0, from), |(_, load, index)| (load, index));
            // Only if it still has as few: else two cores would take the same one for the best.
            let counted = self.all[index].load.compare_exchange_weak(
                load,
                load + 1,
                Ordering::Relaxed,
                Ordering::Relaxed,
            );
            if counted.is_ok() {
                return index;
            }
        }
    }

    /// The counterpart of `take`.
    pub(crate) fn give_back(&self, index: usize) {
        if self.all.len() > 1 {
            self.all[index].load.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Whether there is one that serves and was not tried.
    pub(crate) fn has_untried(&self, tried: u64) -> bool {
        (0..self.all.len()).any(|index| self.rank(index, tried) == Rank::Untried)
    }

    fn rank(&self, index: usize, tried: u64) -> Rank {
        match self.all[index].serves.load(Ordering::Relaxed) {
            false => Rank::Down,
            true if tried & bit(index) != 0 => Rank::Tried,
            true => Rank::Untried,
        }
    }
}

/// The bit of an instance. Beyond 64 there is none: such an instance always counts as untried.
pub(crate) fn bit(index: usize) -> u64 {
    u32::try_from(index)
        .ok()
        .and_then(|index| 1u64.checked_shl(index))
        .unwrap_or(0)
}

#[cfg(all(test, not(loom)))]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;

    fn instances(count: u16) -> Instances {
        let address = |port| Address::Inet(([127, 0, 0, 1], port).into());
        let more: Vec<_> = (2..=count).map(address).collect();
        Instances::new(address(1), &more)
    }

    #[test]
    fn the_one_with_the_fewest_requests_is_next() {
        let three = instances(3);
        let taken: Vec<_> = (0..6).map(|_| three.take(|| 1, 0)).collect();
        assert_eq!(taken, [1, 2, 0, 1, 2, 0]);
        three.give_back(2);
        assert_eq!(three.take(|| 0, 0), 2);
    }

    #[test]
    fn one_that_is_down_gets_nothing_while_another_is_up() {
        let three = instances(3);
        three.set(1, Standing::Down);
        let taken: Vec<_> = (0..4).map(|_| three.take(|| 1, 0)).collect();
        assert_eq!(taken, [2, 0, 2, 0]);
        three.set(1, Standing::Up);
        assert_eq!(three.take(|| 0, 0), 1);
    }

    #[test]
    fn the_last_one_stays_until_another_comes() {
        let two = instances(2);
        two.set(0, Standing::Down);
        two.set(1, Standing::Down);
        assert_eq!(two.standing(1), Some(Standing::Up));
        assert_eq!([0; 3].map(|_| two.take(|| 0, 0)), [1; 3]);
        two.set(0, Standing::Up);
        assert_eq!(two.standing(1), Some(Standing::Down));
        assert_eq!([0; 3].map(|_| two.take(|| 0, 0)), [0; 3]);
    }

    #[test]
    fn one_that_was_tried_is_tried_again_only_after_all_others_that_are_up() {
        let three = instances(3);
        three.set(2, Standing::Down);
        assert_eq!(three.take(|| 0, 0b001), 1);
        assert!(three.has_untried(0b001));
        assert_eq!(three.take(|| 0, 0b011), 0);
        assert!(!three.has_untried(0b011));
    }

    #[test]
    fn all_cores_together_keep_the_instances_level() {
        let four = instances(4);
        std::thread::scope(|threads| {
            for start in 0..4 {
                let four = &four;
                threads.spawn(move || {
                    for _ in 0..1000 {
                        four.take(|| start, 0);
                    }
                });
            }
        });
        let loads = four.all.iter().map(|it| it.load.load(Ordering::Relaxed));
        assert_eq!(loads.collect::<Vec<_>>(), [1000; 4]);
    }
}
