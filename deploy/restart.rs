//! When to start a live process that died: at once the first time, then later and later, and from
//! the beginning again once it has served for a while. And when to say that it dies again and again.
//! Pure: the clock is handed in.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use hotctl_config::file::CrashLoop;

/// The first pause after a start that did not last.
const FIRST: Duration = Duration::from_millis(100);
/// No pause is longer.
const LONGEST: Duration = Duration::from_secs(30);
/// A process that served so long counts as stable.
const STABLE: Duration = Duration::from_secs(10);

/// How a process has died so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Backoff {
    /// How often it died young in a row.
    deaths: u32,
    /// When the last of these were, as far as they can make up a crash loop.
    recent: VecDeque<Instant>,
    looping: bool,
}

/// A process has died.
#[derive(Debug, Clone, Copy)]
pub struct Death {
    /// When.
    pub at: Instant,
    /// How long it had served; nothing if it never came so far.
    pub served: Duration,
    /// 0 to 1: spreads the starts of many services over up to a quarter of the pause.
    pub jitter: f64,
}

/// What follows a death.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Again {
    /// How long to wait before it is started again.
    pub pause: Duration,
    /// Whether it dies again and again.
    pub crash_loop: Loop,
}

/// Whether a process dies again and again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loop {
    /// It does not.
    No,
    /// From this death on.
    Begins,
    /// It has before.
    GoesOn,
}

impl Backoff {
    /// It died. `limits`: from when on that is a crash loop; then every pause is the longest.
    pub fn died(&mut self, death: Death, limits: &CrashLoop) -> Again {
        if death.served >= STABLE {
            *self = Self::default();
        }
        self.deaths = self.deaths.saturating_add(1);
        let crash_loop = self.crash_loop(death.at, limits);
        let pause = match (crash_loop, self.deaths) {
            (Loop::Begins | Loop::GoesOn, _) => LONGEST,
            (Loop::No, 1) => {
                return Again {
                    pause: Duration::ZERO,
                    crash_loop,
                };
            }
            (Loop::No, deaths) => FIRST
                .saturating_mul(1_u32.checked_shl(deaths - 2).unwrap_or(u32::MAX))
                .min(LONGEST),
        };
        Again {
            pause: pause.mul_f64(1.0 - 0.25 * death.jitter.clamp(0.0, 1.0)),
            crash_loop,
        }
    }

    /// Deaths in a row.
    pub fn deaths(&self) -> u32 {
        self.deaths
    }

    /// Whether it dies again and again: until it has served for a while.
    pub fn is_looping(&self) -> bool {
        self.looping
    }

    fn crash_loop(&mut self, at: Instant, limits: &CrashLoop) -> Loop {
        if self.looping {
            return Loop::GoesOn;
        }
        let most = usize::try_from(limits.deaths).unwrap_or(usize::MAX);
        if most == 0 {
            return Loop::No;
        }
        self.recent.push_back(at);
        while self.recent.len() > most {
            self.recent.pop_front();
        }
        let first = self.recent.front().copied().unwrap_or(at);
        self.looping =
            self.recent.len() == most && at.saturating_duration_since(first) <= limits.within;
        match self.looping {
            true => Loop::Begins,
            false => Loop::No,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    const YOUNG: Duration = Duration::from_millis(5);

    fn limits(deaths: u32, within: u64) -> CrashLoop {
        CrashLoop {
            deaths,
            within: Duration::from_secs(within),
        }
    }

    fn death(at: Instant, served: Duration, jitter: f64) -> Death {
        Death { at, served, jitter }
    }

    #[test]
    fn pauses_double_up_to_half_a_minute_and_begin_anew_after_a_stable_life() {
        let (mut backoff, now) = (Backoff::default(), Instant::now());
        let never = limits(0, 1);
        let pauses: Vec<_> = (0..12)
            .map(|_| backoff.died(death(now, YOUNG, 0.0), &never).pause)
            .collect();
        assert_eq!(pauses[0], Duration::ZERO);
        assert_eq!(pauses[1], FIRST);
        assert_eq!(pauses[2], FIRST * 2);
        assert_eq!(pauses[11], LONGEST);
        let again = backoff.died(death(now, STABLE, 0.0), &never);
        assert_eq!((again.pause, again.crash_loop), (Duration::ZERO, Loop::No));
        assert_eq!(backoff.deaths(), 1);
    }

    #[test]
    fn jitter_only_shortens_and_many_deaths_do_not_overflow() {
        let (never, now) = (limits(0, 1), Instant::now());
        let mut backoff = Backoff {
            deaths: u32::MAX - 1,
            ..Backoff::default()
        };
        let pause = backoff.died(death(now, YOUNG, 1.0), &never).pause;
        assert_eq!(pause, LONGEST.mul_f64(0.75));
        assert_eq!(backoff.deaths(), u32::MAX);
        let pause = backoff.died(death(now, YOUNG, 0.0), &never).pause;
        assert_eq!(pause, LONGEST);
    }

    #[test]
    fn so_many_deaths_within_the_time_are_a_crash_loop_until_it_has_served() {
        let (mut backoff, begun) = (Backoff::default(), Instant::now());
        let limits = limits(3, 60);
        let mut die = |second: u64, served: Duration| {
            let at = begun + Duration::from_secs(second);
            let again = backoff.died(death(at, served, 0.0), &limits);
            (again.crash_loop, again.pause, backoff.is_looping())
        };
        assert_eq!(die(0, YOUNG).0, Loop::No);
        assert_eq!(die(30, YOUNG).0, Loop::No);
        // The first is too long ago.
        assert_eq!(die(61, YOUNG).0, Loop::No);
        assert_eq!(die(90, YOUNG), (Loop::Begins, LONGEST, true));
        // However late.
        assert_eq!(die(900, YOUNG), (Loop::GoesOn, LONGEST, true));
        assert_eq!(die(1000, STABLE), (Loop::No, Duration::ZERO, false));
        assert_eq!(die(1001, YOUNG).0, Loop::No);
    }
}
