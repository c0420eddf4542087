//! `cancel`: what has not flipped is ended, whether it runs or waits; what is live stays live.

use hotctl_deploy::machine::Event;
use hotctl_deploy::why::{Kind, Why};

use super::accept::Waiting;
use super::{Desk, Order, Which};
use crate::api::{Noted, Progress};

impl Desk {
    pub(super) async fn cancel(&mut self, which: Which, order: Order) {
        let by = order.tell.by().clone();
        let waited = self.cancel_waiting(which, &order);
        let service = self.site.name.clone();
        match &self.active {
            Some(active) if which == Which::Any || which == Which::Number(active.number) => {
                if !self.is_warm() {
                    self.site.means.journal.note(
                        Some(&service),
                        Noted::CancelOrdered {
                            release: active.to.clone(),
                            deployment: active.number,
                            by: by.clone(),
                        },
                    );
                    let text = format!("cancelled by {}", by.who);
                    active.say(Event::Failed(Why::new(Kind::Cancelled, text)));
                    // Answered when it has ended.
                    return self.against(order);
                }
                if waited.is_none() {
                    let text = format!("{} is live already", active.to);
                    let why = Why::new(Kind::Cancelled, text);
                    return self
                        .refuse(&order.tell, why.hint(format!("hotctl rollback {service}")));
                }
            }
            _ => {}
        }
        let text = match (waited, self.live()) {
            (Some(waited), Some(live)) => format!("{waited} was cancelled; {live} is live"),
            (Some(waited), None) => format!("{waited} was cancelled; nothing is live"),
            (None, _) => format!("{service}: no deployment is under way"),
        };
        order.tell.tell(Progress::Done { text });
    }

    /// Take the order that waits out of the queue, if it is meant; its name.
    fn cancel_waiting(&mut self, which: Which, order: &Order) -> Option<String> {
        let waiting = self.queue.waiting()?;
        let meant = match which {
            Which::Any | Which::Waiting => true,
            Which::Number(number) => waiting.number() == Some(number),
        };
        if !meant {
            return None;
        }
        let waiting = self.queue.take()?;
        let name = waiting.name();
        let by = order.tell.by().clone();
        let why = Why::new(Kind::Cancelled, format!("{name}: cancelled by {}", by.who));
        if let Waiting::Deployment(accepted) = &waiting {
            let noted = Noted::CancelOrdered {
                release: accepted.to.clone(),
                deployment: accepted.number,
                by,
            };
            self.site.means.journal.note(Some(&self.site.name), noted);
        }
        self.give_up(waiting, why);
        Some(name)
    }
}
