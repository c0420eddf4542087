//! Tells the one who gave an order what becomes of it. Losing the listener changes nothing.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use crate::api::Progress;

/// Lines that may lie unread. When the reader is so slow that it is full, lines are lost, never
/// the deployment held up; what is said often (`waiting`) gives way first.
const UNREAD: usize = 128;
/// Places kept free for what is said once.
const RESERVED: usize = 32;

/// The speaking end of an order.
#[derive(Debug, Clone)]
pub struct Teller {
    to: Arc<Mutex<Option<mpsc::Sender<Progress>>>>,
    ordered: Instant,
}

impl Teller {
    /// A teller, and where its lines are read.
    pub fn new() -> (Self, mpsc::Receiver<Progress>) {
        let (send, receive) = mpsc::channel(UNREAD);
        let teller = Self {
            to: Arc::new(Mutex::new(Some(send))),
            ordered: Instant::now(),
        };
        (teller, receive)
    }

    /// Say one line. The last line of an order ends it; later ones are not said.
    pub fn tell(&self, progress: Progress) {
        let mut to = self.to.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(sender) = to.as_ref() else { return };
        let last = progress.is_last();
        let often = matches!(progress, Progress::Waiting { .. });
        if !often || sender.capacity() > RESERVED {
            // Full or closed: see above.
            let _ = sender.try_send(progress);
        }
        if last {
            *to = None;
        }
    }

    /// Since the order was given.
    pub fn elapsed(&self) -> Duration {
        self.ordered.elapsed()
    }
}

/// Milliseconds as the API gives them.
pub fn ms(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn a_listener_that_does_not_listen_misses_waiting_lines_and_not_the_last_one() {
        let (teller, mut lines) = Teller::new();
        for n in 0..1000 {
            teller.tell(Progress::Waiting {
                release: "web@1".parse().unwrap(),
                probe: n.to_string(),
                for_ms: 0.0,
            });
        }
        teller.tell(Progress::Done {
            text: "stopped".into(),
        });
        teller.tell(Progress::Done {
            text: "too late".into(),
        });
        let mut heard = Vec::new();
        while let Ok(line) = lines.try_recv() {
            heard.push(line);
        }
        assert_eq!(
            heard.last(),
            Some(&Progress::Done {
                text: "stopped".into()
            })
        );
        assert_eq!(heard.len(), UNREAD - RESERVED + 1);
        assert!(lines.is_closed());
    }
}
