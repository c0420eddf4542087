//! What goes on from the last daemon: the deployment under way, and the order that waited. Whoever
//! gave them does not listen any more; record and journal do.

use std::time::Duration;

use hotctl_config::names::Percent;
use hotctl_deploy::machine::{Deployment, Event};
use tracing::info;

use super::Desk;
use crate::api::{DeploymentRecord, Noted, Verb};
use crate::history::{Scribe, now_ms};
use crate::site::Site;
use crate::teller::Teller;
use crate::who::Giver;

/// What the last daemon was at when it ended.
#[derive(Debug)]
pub struct Resume {
    /// The deployment under way.
    pub deployment: Option<Deployment>,
    /// The order that waited for its turn.
    pub waiting: Option<DeploymentRecord>,
}

impl Desk {
    /// Go on where the last daemon ended.
    pub(super) async fn resume(&mut self, resume: Resume) {
        if let Some(deployment) = resume.deployment {
            let release = deployment.to.release_of(&self.site.name);
            let (number, phase) = (deployment.number, deployment.phase.to_string());
            info!(%release, deployment = number, phase, "a deployment goes on");
            let noted = Noted::DeploymentResumed {
                release,
                deployment: number,
                phase,
            };
            self.site.means.journal.note(Some(&self.site.name), noted);
            let tell = self.teller_again(self.history.get(number).as_ref(), number);
            let has_flipped = deployment.weight() == Percent::ALL;
            let back = deployment.from.map(|from| from.slot);
            self.drive(deployment, tell);
            if has_flipped
                && !back.is_some_and(|slot| self.site.is_up(slot))
                && let Some(active) = &self.active
            {
                // Nobody is kept to go back to.
                active.say(Event::Promote);
            }
        }
        if let Some(record) = resume.waiting {
            let tell = self.teller_again(Some(&record), record.number);
            self.wait_again(record, tell).await;
        }
    }

    /// Nobody listens any more; record and journal do.
    fn teller_again(&self, record: Option<&DeploymentRecord>, number: u32) -> Teller {
        let (verb, by, ordered_ms) = match record {
            Some(record) => (record.verb, record.by.clone(), record.ordered_ms),
            None => (Verb::Deploy, Giver::daemon(), now_ms()),
        };
        let ago = Duration::from_millis(now_ms().saturating_sub(ordered_ms));
        let Site { name, means, .. } = &*self.site;
        let (tell, _) = Teller::since(ago, verb, by, name, &means.journal);
        tell.record_with(Scribe::again(&self.history, number));
        tell
    }
}
