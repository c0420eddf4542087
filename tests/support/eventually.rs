//! Waiting for something to become true, with one deadline for it.

use std::thread;
use std::time::{Duration, Instant};

/// Longer than anything here takes on a machine that is busy with other tests.
const PATIENCE: Duration = Duration::from_secs(20);
/// Short: what is waited for is there within milliseconds as a rule.
const BETWEEN: Duration = Duration::from_millis(5);

/// Wait until it is true; panics with `what` if it does not become so.
#[track_caller]
pub fn eventually(what: &str, mut is_true: impl FnMut() -> bool) {
    eventually_some(what, || is_true().then_some(()));
}

/// Wait until there is a value; panics with `what` if none comes.
#[track_caller]
pub fn eventually_some<T>(what: &str, get: impl FnMut() -> Option<T>) -> T {
    match within(PATIENCE, get) {
        Some(value) => value,
        None => panic!("not within {PATIENCE:?}: {what}"),
    }
}

/// The value, as soon as there is one; none if there is none in time.
pub fn within<T>(patience: Duration, mut get: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(value) = get() {
            return Some(value);
        }
        if Instant::now() >= deadline {
            return None;
        }
        // Not to wait for something: between two looks, with a deadline above.
        thread::sleep(BETWEEN);
    }
}
