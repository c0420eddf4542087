//! What serving remembers about a pool. Kept with the pool, so that a request that holds a ticket
//! holds this too, without looking anything up.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::metrics::Meter;

/// See the head of this file.
#[derive(Default)]
pub(crate) struct Notes {
    /// The handles of the service's metrics.
    pub(crate) meter: OnceLock<Arc<Meter>>,
    /// How long the release says that it keeps idle connections, in seconds; 0 if it says nothing.
    says: AtomicU32,
}

/// How long an upstream connection is kept for the next request where the release does not say how
/// long it keeps it. Below the shortest limit that is common (gunicorn: 2 s).
const IDLE: Duration = Duration::from_secs(1);

/// At most, whatever the release says: a connection that is not used for longer is not missed.
const LONGEST_IDLE: Duration = Duration::from_secs(30);

impl Notes {
    /// Reads the value of a `Keep-Alive` header, such as `timeout=5, max=1000`.
    pub(crate) fn hear(&self, keep_alive: &[u8]) {
        let seconds = std::str::from_utf8(keep_alive)
            .ok()
            .into_iter()
            .flat_map(|text| text.split(','))
            .filter_map(|pair| pair.split_once('='))
            .find(|(name, _)| name.trim().eq_ignore_ascii_case("timeout"))
            .and_then(|(_, value)| value.trim().parse::<u32>().ok());
        if let Some(seconds) = seconds
            && seconds != self.says.load(Ordering::Relaxed)
        {
            self.says.store(seconds, Ordering::Relaxed);
        }
    }

    /// How long to keep an idle connection: a second less than the release does, so that it is not
    /// the release that closes it, in the very moment of the next request.
    pub(crate) fn idle(&self) -> Duration {
        match self.says.load(Ordering::Relaxed) {
            0 => IDLE,
            seconds => {
                let less = Duration::from_secs(seconds.saturating_sub(1).into());
                less.min(LONGEST_IDLE)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Notes;
    use std::time::Duration;

    #[test]
    fn a_connection_is_kept_a_second_less_than_the_release_says() {
        for (says, kept) in [
            ("timeout=5", 4),
            ("max=100, Timeout = 7", 6),
            ("timeout=1", 0),
            ("timeout=86400", 30),
            ("max=100", 1),
            ("timeout=soon", 1),
            ("", 1),
        ] {
            let notes = Notes::default();
            notes.hear(says.as_bytes());
            assert_eq!(notes.idle(), Duration::from_secs(kept), "{says:?}");
        }
    }
}
