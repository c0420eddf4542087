//! The loop that carries a deployment through its phases: record, then perform, then wait for the
//! event that ends the phase. It knows no process and no proxy; those are behind [`Hands`].

use std::future::Future;
use std::io;
use std::sync::Arc;

use tokio::sync::mpsc;
use tracing::{error, warn};

use crate::machine::{Deployment, Duty, Event, Phase};
use crate::why::{Kind, Why};

/// What a driver needs done. There are two: the real one, and the script of a test.
pub trait Hands: Send + Sync + 'static {
    /// Write down where the deployment stands, before anything of that phase is done.
    fn record(&self, deployment: &Deployment) -> impl Future<Output = io::Result<()>> + Send;

    /// Do one duty. The answer, if it is one that ends the phase. The future may be dropped at any
    /// await: it owns nothing that must outlive it.
    fn perform(&self, duty: Duty) -> impl Future<Output = Option<Event>> + Send;
}

/// Carry `deployment` to its end and return it. Events on `orders` come from operators (promote,
/// cancel, rollback); when the channel closes, only the duties' own answers count.
pub async fn drive(
    mut deployment: Deployment,
    hands: Arc<impl Hands>,
    mut orders: mpsc::Receiver<Event>,
) -> Deployment {
    loop {
        let recorded = hands.record(&deployment).await;
        if let Err(cause) = &recorded {
            error!(service = %deployment.service, phase = %deployment.phase, %cause, "cannot record a deployment");
        }
        if deployment.phase.is_end() {
            return deployment;
        }
        // What cannot be written down must not go forward; the way back is taken all the same.
        let forward = matches!(
            deployment.phase,
            Phase::Stopping | Phase::Starting | Phase::Step(_)
        );
        let next = match recorded {
            Err(cause) if forward => deployment.next(Event::Failed(
                Why::new(
                    Kind::NotRecorded,
                    format!("cannot write the state: {cause}"),
                )
                .hint("free space or mend the permissions of the state folder, then deploy again"),
            )),
            _ => phase_after(&deployment, &*hands, &mut orders).await,
        };
        match next {
            Ok(phase) => deployment.phase = phase,
            // Only a fault in the machine itself leads here: give way rather than spin.
            Err(unexpected) => {
                error!(service = %deployment.service, %unexpected, "a deployment lost its way");
                deployment.phase =
                    Phase::Failed(Why::new(Kind::Interrupted, unexpected.to_string()));
            }
        }
    }
}

/// Do the duties of the present phase until an event ends it.
async fn phase_after(
    deployment: &Deployment,
    hands: &impl Hands,
    orders: &mut mpsc::Receiver<Event>,
) -> Result<Phase, crate::machine::Unexpected> {
    let duties = async {
        for duty in deployment.duties() {
            if let Some(event) = hands.perform(duty).await {
                return event;
            }
        }
        // Every phase that is not an end has a duty that answers; the tests of the machine hold
        // that. Waiting for an operator is the harmless reading of a list that did not.
        std::future::pending().await
    };
    tokio::pin!(duties);
    loop {
        let event = tokio::select! {
            // An operator's word counts before an answer of the same instant.
            biased;
            Some(order) = orders.recv() => match deployment.next(order) {
                Ok(phase) => return Ok(phase),
                Err(unexpected) => {
                    warn!(service = %deployment.service, %unexpected, "order ignored");
                    continue;
                }
            },
            event = &mut duties => event,
        };
        return deployment.next(event);
    }
}

#[cfg(test)]
#[path = "drive_tests.rs"]
mod tests;
