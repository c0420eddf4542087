//! When a burst of changes is over: after a time of quiet, and after a longer one in any case. Pure:
//! the clock is handed in.

use std::time::{Duration, Instant};

/// Since when there are changes, and when the last one was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Debounce {
    settle: Duration,
    most: Duration,
    /// The first and the last of them.
    burst: Option<(Instant, Instant)>,
}

impl Debounce {
    /// Quiet for `settle`; after `most` since the first change at the latest.
    pub fn new(settle: Duration, most: Duration) -> Self {
        Self {
            settle,
            most: most.max(settle),
            burst: None,
        }
    }

    /// Something has changed.
    pub fn stir(&mut self, now: Instant) {
        let first = self.burst.map_or(now, |(first, _)| first);
        self.burst = Some((first, now));
    }

    /// When it is time to look; none as long as nothing has changed.
    pub fn due(&self) -> Option<Instant> {
        let (first, last) = self.burst?;
        Some((last + self.settle).min(first + self.most))
    }

    /// When the first change of the burst was.
    pub fn since(&self) -> Option<Instant> {
        self.burst.map(|(first, _)| first)
    }

    /// It is looked now: what changes from here on is another burst.
    pub fn looked(&mut self) {
        self.burst = None;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_burst_is_over_after_quiet_and_in_any_case_after_a_while() {
        let began = Instant::now();
        let mut debounce = Debounce::new(50 * MS, 1000 * MS);
        assert_eq!(debounce.due(), None);
        debounce.stir(began);
        assert_eq!(debounce.due(), Some(began + 50 * MS));
        debounce.stir(began + 30 * MS);
        assert_eq!(debounce.due(), Some(began + 80 * MS));
        for n in 0..40 {
            debounce.stir(began + n * 30 * MS);
        }
        assert_eq!(debounce.due(), Some(began + 1000 * MS));
        debounce.looked();
        assert_eq!(debounce.due(), None);
        debounce.stir(began + 2000 * MS);
        assert_eq!(debounce.due(), Some(began + 2050 * MS));
    }

    #[test]
    fn a_long_quiet_is_waited_for() {
        let began = Instant::now();
        let mut debounce = Debounce::new(3000 * MS, 1000 * MS);
        debounce.stir(began);
        assert_eq!(debounce.due(), Some(began + 3000 * MS));
    }
}
