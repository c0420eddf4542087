//! hotctl replaces itself while it serves. The one that is there starts the new one with every socket
//! and both locks; the new one says that it is prepared; the old one lets go of the services; the new
//! one takes them up and says that it is ready. Until then the old one can take everything back, and
//! from then on it only finishes what is in flight.

mod holders;
mod predecessor;
mod successor;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hotctl_config::names::{Percent, ReleaseId};
use hotctl_config::{Address, Slot};
use hotctl_deploy::gate::Notice;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;
use tracing::{error, info, warn};

use crate::api::{Noted, Upgraded};
use crate::daemon::lodge;
use crate::fault::Fault;
use crate::house::{House, Steering};
use crate::metrics::Upgrade;
use crate::site::{Manner, Site};
use crate::who::Giver;

pub use predecessor::Predecessor;
pub use successor::{Held, Successor};

/// The version of what the two say to each other. Each later hotctl speaks this one too.
pub const PROTOCOL: &str = "1";

/// How long a deployment or a drain that is under way may take before an upgrade is refused for it.
const REST: Duration = Duration::from_secs(10);

/// That hotctl be replaced.
#[derive(Debug)]
pub struct Order {
    /// By which program; none: by the file that this one was started from, as it is now.
    pub binary: Option<PathBuf>,
    pub by: Giver,
    /// Where to tell what became of it.
    pub tell: oneshot::Sender<Result<Upgraded, Fault>>,
}

impl Order {
    /// As SIGUSR2 means it. What comes of it is in the log.
    pub fn of_signal() -> Self {
        Self {
            binary: None,
            by: Giver::signal(),
            tell: oneshot::channel().0,
        }
    }
}

/// What one says to the other: a line of JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "say", rename_all = "snake_case")]
enum Word {
    /// The new one: configuration, state and sockets are good.
    Prepared { version: String },
    /// The old one: nobody steers the services any more.
    Yours,
    /// The new one: it goes on.
    Busy,
    /// The new one: every service is taken up.
    Ready,
    /// The new one: who gets the requests of a service now. Where the other still has some, they go
    /// there.
    Serves(Serving),
    /// The new one: it ends.
    Failed { error: String, hint: Option<String> },
}

/// Who gets the requests of a service; nobody for a moment where there is no address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Serving {
    pub release: ReleaseId,
    pub slot: Slot,
    pub addresses: Vec<Address>,
    /// Why they are refused, where they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<Refusing>,
}

/// Why requests of a service are refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Refusing {
    Stopped,
    NotRunning,
    CrashLoop,
    Maintenance(Notice),
}

/// Send what requests are still here where the hotctl that has taken over sends its own.
pub fn follow(house: &House, serving: Serving) {
    let service = serving.release.service.clone();
    // Whoever was here before us, and still has requests, hears of it through us.
    house.means.serving.send_modify(|all| {
        all.insert(service.clone(), serving.clone());
    });
    // Removed or added meanwhile: nothing of it is here.
    if let Ok(resident) = house.resident(&service)
        // A worker has no requests.
        && resident.site.config().http
        && let Err(unknown) = resident.site.send_to(serving)
    {
        error!(%service, %unknown, "requests that are left here do not follow");
    }
}

/// Let another hotctl take the place of this one. Until that is begun, `end` ends the wait for it.
///
/// # Errors
/// If it did not: then all is as before.
pub async fn replace(
    house: &Arc<House>,
    held: &Held,
    order: &Order,
    end: impl Future<Output = ()>,
) -> Result<(Successor, Upgraded), Fault> {
    let began = Instant::now();
    let replaced = attempt(house, held, order, end).await;
    match replaced {
        Ok((successor, version)) => {
            house.starter.replaced_by(successor.pid());
            let took = began.elapsed();
            let pid = successor.pid();
            info!(
                version,
                pid,
                ?took,
                "hotctl is replaced: finishing what is in flight"
            );
            let took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
            let upgraded = Upgraded {
                version,
                pid,
                took_ms,
            };
            Ok((successor, upgraded))
        }
        Err(fault) => {
            error!("not replaced: {}", fault.text);
            house.means.metrics.upgrade(Upgrade::Failed);
            let noted = Noted::UpgradeFailed {
                by: order.by.clone(),
                error: fault.text.clone(),
            };
            house.means.journal.note(None, noted);
            Err(fault)
        }
    }
}

async fn attempt(
    house: &Arc<House>,
    held: &Held,
    order: &Order,
    end: impl Future<Output = ()>,
) -> Result<(Successor, String), Fault> {
    if house.means.manner == Manner::Dev {
        return Err(Fault::failed("upgrade: `hotctl dev` ends with its apps")
            .hint("end it with Ctrl-C, and start the new hotctl"));
    }
    successor::is_possible()?;
    // No reload meanwhile.
    let _turn = house.configured.turn().await;
    tokio::select! {
        rested = comes_to_rest(house) => rested?,
        () = end => return Err(Fault::failed("upgrade: hotctl is told to end")),
    }
    info!(by = order.by.who.to_string(), "hotctl is to be replaced");
    let mut successor = Successor::start(order.binary.as_deref(), held)?;
    let version = match successor.prepared().await {
        Ok(version) => version,
        Err(fault) => {
            successor.end().await;
            return Err(fault);
        }
    };
    house.let_go().await;
    match successor.take_over().await {
        Ok(()) => {
            house.steer(Steering::Replaced);
            Ok((successor, version))
        }
        Err(fault) => {
            // Only one may steer.
            successor.end().await;
            take_back(house).await;
            Err(fault)
        }
    }
}

/// Wait until nothing is on its way from one release to another: both would have to follow it.
async fn comes_to_rest(house: &House) -> Result<(), Fault> {
    let until = tokio::time::Instant::now() + REST;
    let mut said = None;
    loop {
        let residents = house.residents();
        // Asked for before it is looked, so that nothing between the two is missed.
        let found = residents.iter().find_map(|resident| {
            let stirred = resident.site.stirred();
            moves(&resident.site).map(|text| (text, stirred, &resident.site.name))
        });
        let Some((text, stirred, name)) = found else {
            return Ok(());
        };
        if said.as_ref() != Some(&text) {
            info!("an upgrade waits: {text}");
        }
        if tokio::time::timeout_at(until, stirred).await.is_err() {
            return Err(Fault::failed(format!("upgrade: {text}")).hint(format!(
                "waited {REST:?}: try again when it is over; `hotctl status {name}` shows it"
            )));
        }
        said = Some(text);
    }
}

/// What of a service is on its way from one release to another.
fn moves(site: &Site) -> Option<String> {
    let ledger = site.ledger();
    let name = &site.name;
    let under_way = ledger.deployment.as_ref();
    let under_way = under_way.filter(|deployment| deployment.weight() != Percent::ALL);
    match under_way {
        Some(deployment) => Some(format!(
            "{name}: deployment {} is under way",
            deployment.number
        )),
        None if ledger.retiring.is_empty() => None,
        None => Some(format!(
            "{name}: an old release still finishes its requests"
        )),
    }
}

/// Take the services up again that were let go of.
async fn take_back(house: &Arc<House>) {
    warn!("taking the services up again");
    if let Err(cause) = house.means.journal.read_again().await {
        error!(%cause, "the journal cannot be read again: numbers of events may be given twice");
    }
    let config = house.configured.now();
    let tasks = house.renew_tasks();
    for (name, service) in &config.services {
        let lodger = lodge(name, service, &house.means, &tasks).await;
        house.let_in(name, lodger);
    }
    house.steer(Steering::Ours);
}
