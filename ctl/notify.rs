//! What systemd, or whoever else has started us and listens, is told of this daemon: sd_notify(3).
//! Knows words; when they are true is for others to say. Where nobody listens nothing is sent.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::time::{Interval, MissedTickBehavior, interval};
use tokio_util::task::AbortOnDropHandle;
use tracing::warn;

/// How often more time is asked for, and how much.
const ASK: Duration = Duration::from_secs(5);
const MORE: Duration = Duration::from_secs(20);

/// Whoever started us; a cheap handle.
#[derive(Debug, Clone, Default)]
pub struct Starter {
    /// That it could not be told has been said.
    complained: Arc<AtomicBool>,
}

impl Starter {
    /// Requests are answered.
    pub fn ready(&self, status: &str) {
        self.tell(&[NotifyState::Ready, NotifyState::Status(status)]);
    }

    /// The configuration is read again; [`Starter::ready`] ends it.
    pub fn reloading(&self) {
        match NotifyState::monotonic_usec_now() {
            Ok(now) => self.tell(&[NotifyState::Reloading, now]),
            Err(_) => self.tell(&[NotifyState::Reloading]),
        }
    }

    /// The daemon ends. More time is asked for until this is dropped, for so long at most: what hangs
    /// then is to be ended.
    pub fn stopping(&self, status: &str, within: Duration) -> AbortOnDropHandle<()> {
        self.tell(&[NotifyState::Stopping, NotifyState::Status(status)]);
        let starter = self.clone();
        AbortOnDropHandle::new(tokio::spawn(async move {
            let more = u32::try_from(MORE.as_micros()).unwrap_or(u32::MAX);
            let mut asks = interval(ASK);
            let asking = async {
                loop {
                    asks.tick().await;
                    starter.tell(&[NotifyState::ExtendTimeoutUsec(more), NotifyState::Watchdog]);
                }
            };
            let _ = tokio::time::timeout(within, asking).await;
        }))
    }

    /// Another process is the daemon now.
    pub fn replaced_by(&self, pid: u32) {
        self.tell(&[NotifyState::MainPid(pid)]);
    }

    /// It still turns.
    pub fn alive(&self) {
        self.tell(&[NotifyState::Watchdog]);
    }

    fn tell(&self, what: &[NotifyState<'_>]) {
        if let Err(cause) = sd_notify::notify(what)
            && !self.complained.swap(true, Ordering::Relaxed)
        {
            warn!(%cause, "NOTIFY_SOCKET: whoever started hotctl cannot be told how it is");
        }
    }
}

/// When to say that the daemon still turns: twice in the time after which it counts as hung
/// (`WatchdogSec=`).
#[derive(Debug)]
pub struct Watchdog(Option<Interval>);

impl Watchdog {
    /// As the environment says.
    pub fn of_environment() -> Self {
        let within = sd_notify::watchdog_enabled().filter(|within| !within.is_zero());
        Self(within.map(|within| {
            let mut ticks = interval(within / 2);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            ticks
        }))
    }

    /// Resolves when it is to be said once more; never where nobody watches.
    pub async fn due(&mut self) {
        match &mut self.0 {
            Some(ticks) => {
                ticks.tick().await;
            }
            None => std::future::pending().await,
        }
    }
}
