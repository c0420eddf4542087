//! Takes up what was there before: the record of each service, its deployments so far, and what was
//! live. A service whose state cannot be read is left alone, and keeps none of the others from it.

use std::sync::Arc;

use hotctl_config::file::Service;
use hotctl_config::names::{Percent, ServiceName};
use hotctl_deploy::ledger::Traffic;
use hotctl_deploy::machine::{Deployment, Placement};
use hotctl_proxy::{Closed, Split};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::api::Noted;
use crate::fault::Fault;
use crate::history::History;
use crate::house::{Damaged, Lodger, Resident, Tasks};
use crate::service::{self, Resume};
use crate::site::{Ended, Means, Site};
use crate::watch;

/// Take up one service, whose routes are published already, and look after it from now on.
pub async fn lodge(
    name: &ServiceName,
    config: &Service,
    means: &Arc<Means>,
    tasks: &Tasks,
) -> Lodger {
    match take_up(name, config, means).await {
        Ok(opened) => Lodger::Well(look_after(opened, tasks).await),
        Err(why) => Lodger::Damaged(Arc::new(leave_alone(name, config, means, why))),
    }
}

/// A service whose state has been read.
struct Opened {
    site: Arc<Site>,
    history: Arc<History>,
    exits: mpsc::Receiver<Ended>,
}

/// Read what is there. Where the disk is slow, nobody else waits for it.
async fn take_up(
    name: &ServiceName,
    config: &Service,
    means: &Arc<Means>,
) -> Result<Opened, Fault> {
    let (name, config, means) = (name.clone(), config.clone(), means.clone());
    let opened = tokio::task::spawn_blocking(move || {
        let (tell_exits, exits) = mpsc::channel(16);
        let site = Site::open(&name, &config, &means, tell_exits)?;
        let history = history_of(&means, &name)?;
        // A record that was moved away, or its last good copy, may know less.
        site.note(|ledger| ledger.number_after(history.numbers()));
        Ok(Opened {
            site,
            history,
            exits,
        })
    });
    opened
        .await
        .unwrap_or_else(|join| Err(Fault::failed(join.to_string())))
}

async fn look_after(opened: Opened, tasks: &Tasks) -> Resident {
    let Opened {
        site,
        history,
        exits,
    } = opened;
    site.adopt().await;
    let resume = resume(&site, &history).await;
    let (parting, rest) = tasks.of_one();
    let stop = parting.stop.clone();
    let (orders, mailbox) = mpsc::channel(8);
    tasks.services.spawn(service::run(
        site.clone(),
        history.clone(),
        mailbox,
        exits,
        parting,
        resume,
    ));
    until(&rest, site.clone().keep_probing());
    until(&rest, site.clone().watch_requests());
    until(&rest, watch::keep_watching(site.clone(), orders.clone()));
    Resident {
        site,
        history,
        orders,
        stop,
        rest,
    }
}

/// Let something run until a token ends it, which thereby owns it.
fn until(end: &CancellationToken, work: impl Future<Output = ()> + Send + 'static) {
    let end = end.clone();
    tokio::spawn(async move {
        let _ = end.run_until_cancelled_owned(work).await;
    });
}

/// Requests for it are refused with the reason, and so are orders. Neither its files nor what may
/// still run of it are touched: whoever mends the state finds both.
fn leave_alone(name: &ServiceName, config: &Service, means: &Means, why: Fault) -> Damaged {
    let hint = why.hint.as_deref().unwrap_or_default();
    error!(service = %name, hint, "its state cannot be read, so it is left alone and gets no request: {}", why.text);
    means.journal.note(
        Some(name),
        Noted::StateDamaged {
            error: why.text.clone(),
            hint: why.hint.clone(),
        },
    );
    if let Err(unknown) = means
        .switch
        .split(name, Split::Closed(Closed::StateDamaged))
    {
        error!(service = %name, %unknown, "the routes do not know this service");
    }
    Damaged {
        config: config.clone(),
        why,
    }
}

/// The deployments of a service so far.
fn history_of(means: &Means, service: &ServiceName) -> Result<Arc<History>, Fault> {
    let folder = means.state.service(service);
    let errors = means.metrics.write_errors().clone();
    let history = History::open(&folder, service, errors).map_err(|cause| {
        Fault::config(format!("state {}: history.json: {cause}", folder.display()))
            .hint("mend its permissions, or move it away; then `hotctl reload`")
    })?;
    Ok(Arc::new(history))
}

/// See to it that what should serve does, and that what is on its way out goes on. Says what the
/// service's task is to go on with.
async fn resume(site: &Arc<Site>, history: &Arc<History>) -> Resume {
    let mut ledger = site.ledger();
    if let Some(deployment) = &ledger.deployment
        && !site.runs(deployment.to)
        && !deployment.from.is_some_and(|from| site.runs(from))
    {
        // The machine was started anew, say: there is nothing to compare, and nothing to go back to.
        // What had flipped is live, and what had not begins once more when the live one is back.
        if deployment.weight() > Percent::ZERO {
            let number = deployment.number;
            site.note(|ledger| ledger.interrupted());
            ledger = site.ledger();
            info!(service = %site.name, deployment = number, "a deployment had flipped when everything ended: it is done");
        }
    }
    history.take_up(&ledger);
    let serving = match ledger.traffic() {
        Traffic::All(at) | Traffic::Shared { live: at, .. } => Some(at),
        Traffic::Parked(_) | Traffic::NothingDeployed | Traffic::Stopped => None,
    };
    // Where the old release may only run once the candidate has ended, that is the deployment's to do.
    let between = ledger.deployment.as_ref();
    let between = between.is_some_and(Deployment::is_between);
    match serving {
        Some(at) if !site.runs(at) && !between => start_again(site, at).await,
        _ => site.publish(),
    }
    for at in ledger.retiring.clone() {
        site.retire(at);
    }
    let waiting = history.waiting(&ledger);
    if ledger.waiting.is_some() && waiting.is_none() {
        // Nobody knows any more what was wanted of it.
        site.note(|ledger| {
            ledger
                .waiting
                .take()
                .map(|release| ledger.withdraw(release))
        });
    }
    Resume {
        deployment: ledger.deployment,
        waiting,
    }
}

/// Start again what should serve and does not run. Its requests are parked until it is healthy.
async fn start_again(site: &Arc<Site>, at: Placement) {
    let release = at.release_of(&site.name);
    match site.launch(at).await {
        Ok(launched) => {
            site.publish();
            for (instance, one) in launched.instances.into_iter().enumerate() {
                info!(%release, instance, address = %one.address, pid = one.process.pid(), "started again");
                site.bring_up(at.slot, instance, one);
            }
        }
        Err(why) => {
            let hint = why.hint.as_deref().unwrap_or_default();
            warn!(%release, %why, hint, "cannot start the live release again");
            site.publish();
        }
    }
}
