//! Descriptors that clients may not use up: those that answering them takes, and those by which
//! hotctl is steered. Knows numbers of descriptors; accepts nothing.

use std::os::fd::{AsFd, AsRawFd as _};
use std::time::Duration;

use rustix::process::{Resource, getrlimit};

/// How often it is looked whether there is room again.
const LOOK: Duration = Duration::from_millis(50);
/// What of the limit is kept back: a fourth of it, and not more than this.
const MOST: u64 = 1024;

/// How many descriptors may be open until nobody is let in any more.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spare {
    /// The system gives the lowest number that is free: one from here on says how many are in use.
    ceiling: u64,
}

impl Spare {
    /// By the limit of this process.
    pub(crate) fn of_this_process() -> Self {
        Self::of(getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX))
    }

    fn of(limit: u64) -> Self {
        Self {
            ceiling: limit - (limit / 4).min(MOST),
        }
    }

    /// Whether the descriptor just opened is one of the last.
    pub(crate) fn is_touched_by(self, opened: impl AsFd) -> bool {
        u64::try_from(opened.as_fd().as_raw_fd()).is_ok_and(|number| number >= self.ceiling)
    }

    /// Wait until there is room for one more. `any` is a descriptor that is open.
    pub(crate) async fn room(self, any: impl AsFd) {
        let mut told = false;
        while self.is_full(&any) {
            if !told {
                told = true;
                tracing::warn!(
                    ceiling = self.ceiling,
                    "nearly out of descriptors: connections wait until others have ended; try: raise the limit (ulimit -n, or LimitNOFILE in a unit)"
                );
            }
            tokio::time::sleep(LOOK).await;
        }
        if told {
            tracing::info!("there are descriptors again: connections are taken");
        }
    }

    fn is_full(self, any: impl AsFd) -> bool {
        match any.as_fd().try_clone_to_owned() {
            Ok(one) => self.is_touched_by(one),
            Err(_) => true,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[tokio::test]
    async fn room_is_waited_for_where_every_number_is_one_of_the_last() {
        let any = std::fs::File::open("/dev/null").unwrap();
        let full = Spare { ceiling: 0 };
        assert!(full.is_touched_by(&any));
        let waited = tokio::time::timeout(Duration::from_millis(1), full.room(&any)).await;
        assert!(waited.is_err(), "there is no room");
        let wide = Spare { ceiling: u64::MAX };
        assert!(!wide.is_touched_by(&any));
        wide.room(&any).await;
    }

    #[test]
    fn a_fourth_is_kept_back_and_not_more_than_a_thousand() {
        for (limit, ceiling) in [(160, 120), (1024, 768), (65_536, 64_512)] {
            assert_eq!(Spare::of(limit).ceiling, ceiling);
        }
    }
}
