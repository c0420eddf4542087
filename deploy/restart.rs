//! When to start a live process that died: at once the first time, then later and later, and from
//! the beginning again once it has stayed up. Pure: the clock is handed in as durations.

use std::time::Duration;

/// The first pause after a start that did not last.
const FIRST: Duration = Duration::from_millis(100);
/// No pause is longer.
const LONGEST: Duration = Duration::from_secs(30);
/// A process that lived so long counts as stable.
const STABLE: Duration = Duration::from_secs(10);

/// How often a process has died young in a row.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Backoff {
    deaths: u32,
}

impl Backoff {
    /// It died after `uptime`: how long to wait before it is started again. `jitter`, 0 to 1,
    /// spreads starts of many services over up to a quarter of the pause.
    pub fn died_after(&mut self, uptime: Duration, jitter: f64) -> Duration {
        if uptime >= STABLE {
            self.deaths = 0;
        }
        self.deaths = self.deaths.saturating_add(1);
        if self.deaths == 1 {
            return Duration::ZERO;
        }
        let pause = FIRST
            .saturating_mul(1_u32.checked_shl(self.deaths - 2).unwrap_or(u32::MAX))
            .min(LONGEST);
        pause.mul_f64(1.0 - 0.25 * jitter.clamp(0.0, 1.0))
    }

    /// Deaths in a row.
    pub fn deaths(&self) -> u32 {
        self.deaths
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn pauses_double_up_to_half_a_minute_and_begin_anew_after_a_stable_life() {
        let mut backoff = Backoff::default();
        let young = Duration::from_millis(5);
        let pauses: Vec<_> = (0..12).map(|_| backoff.died_after(young, 0.0)).collect();
        assert_eq!(pauses[0], Duration::ZERO);
        assert_eq!(pauses[1], FIRST);
        assert_eq!(pauses[2], FIRST * 2);
        assert_eq!(pauses[11], LONGEST);
        assert_eq!(backoff.died_after(STABLE, 0.0), Duration::ZERO);
        assert_eq!(backoff.deaths(), 1);
    }

    #[test]
    fn jitter_only_shortens_and_many_deaths_do_not_overflow() {
        let mut backoff = Backoff {
            deaths: u32::MAX - 1,
        };
        let pause = backoff.died_after(Duration::ZERO, 1.0);
        assert_eq!(pause, LONGEST.mul_f64(0.75));
        assert_eq!(backoff.deaths(), u32::MAX);
        assert_eq!(backoff.died_after(Duration::ZERO, 0.0), LONGEST);
    }
}
