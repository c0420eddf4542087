//! Apps that write among the files they run from: each start would be the reason for the next. Pure.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use hotctl_deploy::earlier::is_code;

/// What the last deployment came to, and what has changed since.
#[derive(Debug, Default)]
pub(super) struct Repeats {
    came_to: CameTo,
    began: Option<Instant>,
    paths: Vec<PathBuf>,
    times: u32,
    /// What it turned out to be that changes so.
    known: Vec<PathBuf>,
}

#[derive(Debug, Default, Clone, Copy)]
enum CameTo {
    /// Nothing runs that has begun by it.
    #[default]
    Nothing,
    /// It goes on.
    GoesOn,
    Live(Instant),
}

/// When a change is deployed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pace {
    AtOnce,
    /// Not before; from now on.
    SlowerFrom(Instant),
    /// Not before, as is known.
    Slow(Instant),
}

impl Repeats {
    /// So many times in a row the same may change as soon as a version runs. People do not save a file just
    /// in the moment when their last save has gone live, again and again.
    const MOST: u32 = 8;
    /// What changes so soon after it went live may have been changed by it.
    const SOON: Duration = Duration::from_millis(500);
    /// From then on it is deployed as often as that.
    pub const EVERY: Duration = Duration::from_secs(5);

    /// A deployment begins.
    pub fn begins(&mut self, now: Instant) {
        (self.came_to, self.began) = (CameTo::GoesOn, Some(now));
    }

    /// It went live.
    pub fn live(&mut self, now: Instant) {
        self.came_to = CameTo::Live(now);
    }

    /// It has ended.
    pub fn ended(&mut self) {
        if matches!(self.came_to, CameTo::GoesOn) {
            self.came_to = CameTo::Nothing;
        }
    }

    /// These have changed.
    pub fn changed(&mut self, paths: &[PathBuf], now: Instant) -> Pace {
        let due = self.began.unwrap_or(now) + Self::EVERY;
        if paths.iter().all(|path| is_code(path)) {
            return Pace::AtOnce;
        }
        if paths.iter().all(|path| self.known.contains(path)) {
            return Pace::Slow(due);
        }
        let soon = match self.came_to {
            CameTo::Nothing => false,
            CameTo::GoesOn => true,
            CameTo::Live(since) => now < since + Self::SOON,
        };
        let again = !paths.is_empty() && paths == self.paths;
        if !again {
            self.paths = paths.to_vec();
        }
        self.times = match again && soon {
            true => self.times + 1,
            false => 0,
        };
        if self.times <= Self::MOST {
            return Pace::AtOnce;
        }
        self.times = 0;
        self.known.extend(std::mem::take(&mut self.paths));
        Pace::SlowerFrom(due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(names: &[&str]) -> Vec<PathBuf> {
        names.iter().map(PathBuf::from).collect()
    }

    /// The last of so many changes of a file, each so long after the one before went live.
    fn after(times: u32, pause: Duration) -> (Repeats, Pace, Instant) {
        let mut repeats = Repeats::default();
        let mut now = Instant::now();
        let mut pace = Pace::AtOnce;
        for _ in 0..times {
            now += pause;
            pace = repeats.changed(&paths(&["data.json"]), now);
            repeats.begins(now);
            repeats.live(now);
        }
        (repeats, pace, now)
    }

    #[test]
    fn what_changes_each_time_it_goes_live_is_deployed_more_slowly() {
        let soon = Duration::from_millis(100);
        let (_, pace, _) = after(9, soon);
        assert_eq!(pace, Pace::AtOnce);
        let (mut repeats, pace, now) = after(10, soon);
        assert_eq!(pace, Pace::SlowerFrom(now - soon + Repeats::EVERY));
        // It is still slow, however late that is; anything else is not.
        let later = now + Repeats::EVERY;
        assert!(matches!(
            repeats.changed(&paths(&["data.json"]), later),
            Pace::Slow(_)
        ));
        assert_eq!(
            repeats.changed(&paths(&["app.js", "data.json"]), later),
            Pace::AtOnce
        );
        // Whatever else is saved: it is still the same app.
        assert!(matches!(
            repeats.changed(&paths(&["data.json"]), later),
            Pace::Slow(_)
        ));
    }

    #[test]
    fn who_saves_again_and_again_is_not_slowed_down() {
        let (_, pace, _) = after(50, Duration::from_secs(1));
        assert_eq!(pace, Pace::AtOnce);
    }

    #[test]
    fn what_only_people_write_is_never_slowed_down() {
        let mut repeats = Repeats::default();
        let now = Instant::now();
        for _ in 0..50 {
            assert_eq!(repeats.changed(&paths(&["src/app.py"]), now), Pace::AtOnce);
            repeats.begins(now);
            repeats.live(now);
        }
    }

    #[test]
    fn what_fails_changes_nothing_by_itself() {
        let mut repeats = Repeats::default();
        let now = Instant::now();
        for _ in 0..50 {
            assert_eq!(repeats.changed(&paths(&["data.json"]), now), Pace::AtOnce);
            repeats.begins(now);
            repeats.ended();
        }
    }
}
