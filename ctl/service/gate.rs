//! `pause`, `resume`, `maintenance`: what an operator puts between requests and a service, recorded, so
//! that it is there again after a restart of the daemon. Deployments go on behind it.

use hotctl_config::units::show_duration;
use hotctl_deploy::gate::{Gate, Notice};
use hotctl_deploy::why::{Kind, Why};
use tracing::info;

use super::Desk;
use crate::api::Progress;
use crate::history::now_ms;
use crate::site::Keep;
use crate::teller::Teller;

/// What is wanted of the gate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Move {
    /// Let requests wait.
    Pause,
    /// End a pause.
    Resume,
    /// Answer them with a notice.
    Close(Notice),
    /// No longer.
    Reopen,
}

impl Desk {
    /// Put something between requests and the service, or take it away.
    pub(super) async fn gate(&self, to: &Move, tell: &Teller) {
        let (now, since_ms) = (self.site.ledger().gate, now_ms());
        let (name, by) = (&self.site.name, &tell.by().who);
        if !self.site.config().http {
            let text = format!("{name}: is a worker and takes no requests");
            let why = Why::new(Kind::Refused, text);
            return self.refuse(tell, why.hint(format!("hotctl stop {name}")));
        }
        let (gate, text) = match (to, now) {
            (Move::Pause, Gate::Open) => {
                let park = &self.site.config().park;
                if park.max == 0 {
                    let text = format!("{name}: cannot be paused: park.max is 0, no request waits");
                    let why = Why::new(Kind::Refused, text);
                    return self.refuse(tell, why.hint(format!("hotctl maintenance on {name}")));
                }
                let text = format!(
                    "{name} is paused by {by}: {} requests wait, each for {} at most",
                    park.max,
                    show_duration(park.time)
                );
                (Gate::Paused { since_ms }, text)
            }
            (Move::Pause, Gate::Paused { .. }) => {
                return tell.tell(Progress::Done {
                    text: format!("{name} is paused already"),
                });
            }
            (Move::Resume, Gate::Paused { .. }) => {
                (Gate::Open, format!("{name} is resumed by {by}"))
            }
            (Move::Resume, Gate::Open) => {
                return tell.tell(Progress::Done {
                    text: format!("{name} is not paused"),
                });
            }
            (Move::Pause | Move::Resume, Gate::Maintenance { .. }) => {
                let text = format!("{name}: is in maintenance");
                let why = Why::new(Kind::Refused, text);
                return self.refuse(tell, why.hint(format!("hotctl maintenance off {name}")));
            }
            (Move::Close(notice), now) => {
                // A new notice for the same maintenance.
                let since_ms = match now {
                    Gate::Maintenance { since_ms, .. } => since_ms,
                    Gate::Open | Gate::Paused { .. } => since_ms,
                };
                let notice = notice.clone();
                let text = format!("{name} is in maintenance by {by}: requests get 503");
                (Gate::Maintenance { notice, since_ms }, text)
            }
            (Move::Reopen, Gate::Maintenance { .. }) => {
                (Gate::Open, format!("{name} is out of maintenance by {by}"))
            }
            (Move::Reopen, Gate::Open | Gate::Paused { .. }) => {
                return tell.tell(Progress::Done {
                    text: format!("{name} is not in maintenance"),
                });
            }
        };
        // The way back is taken in any case.
        let keep = match gate {
            Gate::Open => Keep::Anyway,
            Gate::Paused { .. } | Gate::Maintenance { .. } => Keep::IfWritten,
        };
        let changed = self.site.change(keep, |ledger| ledger.gate = gate.clone());
        if let Err(cause) = changed.await {
            if keep == Keep::Anyway {
                self.site.publish();
            }
            let text = format!("{name}: cannot write the state: {cause}");
            let why = Why::new(Kind::NotRecorded, text);
            let hint = "free space or mend the permissions of the state folder, then try again";
            return self.refuse(tell, why.hint(hint));
        }
        self.site.publish();
        info!(service = %name, "{text}");
        tell.tell(Progress::Done { text });
    }
}
