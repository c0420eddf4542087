//! A deployment that the watch has ordered, and what becomes of it. Decides nothing.

use std::time::Instant;

use tokio::sync::mpsc;

use crate::api::Progress;
use crate::service::{IfBusy, Order, Which, Wish};
use crate::site::Site;
use crate::who::Giver;

/// None where the service ends.
pub(super) async fn order(
    site: &Site,
    orders: &mpsc::Sender<Order>,
    wish: Wish,
) -> Option<mpsc::Receiver<Progress>> {
    let (order, progress) = Order::of(site, wish, Giver::watch(), IfBusy::Wait);
    orders.send(order).await.ok().map(|()| progress)
}

/// A deployment that was ordered and has not ended.
pub(super) struct Begun {
    progress: mpsc::Receiver<Progress>,
    number: Option<u32>,
    /// Since when it is known that something has changed.
    since: Option<Instant>,
}

impl Begun {
    pub fn new(progress: mpsc::Receiver<Progress>, since: Option<Instant>) -> Self {
        Self {
            progress,
            number: None,
            since,
        }
    }

    /// It is not wanted any more. Refused where it is live already, which then stays until the next is.
    pub async fn give_up(mut self, site: &Site, orders: &mpsc::Sender<Order>) {
        while let Ok(progress) = self.progress.try_recv() {
            self.note(site, &progress);
        }
        if let Some(number) = self.number {
            let cancel = Wish::Cancel(Which::Number(number));
            let _ = order(site, orders, cancel).await;
        }
    }

    fn note(&mut self, site: &Site, progress: &Progress) -> Heard {
        match progress {
            Progress::Ordered { deployment, .. } => {
                self.number = Some(*deployment);
                Heard::Other
            }
            Progress::Flipped { .. } => {
                self.number = None;
                if let Some(since) = self.since.take() {
                    let took = since.elapsed();
                    site.means.metrics.edit_to_live(&site.name, took);
                }
                Heard::Flipped
            }
            _ => Heard::Other,
        }
    }
}

/// Hear what becomes of what was begun, until it has ended.
pub(super) async fn hear(site: &Site, begun: &mut Option<Begun>) -> Heard {
    match begun {
        None => std::future::pending().await,
        Some(known) => match known.progress.recv().await {
            Some(progress) => known.note(site, &progress),
            None => {
                *begun = None;
                Heard::Ended
            }
        },
    }
}

/// What becomes of a deployment.
pub(super) enum Heard {
    Flipped,
    Ended,
    Other,
}
