//! Takes up what was there before: the record of each service, its deployments so far, and what was
//! live. A service whose state cannot be read is left alone, and keeps none of the others from it.

use std::sync::Arc;

use hotctl_config::file::Service;
use hotctl_config::names::ServiceName;
use hotctl_deploy::machine::Deployment;
use hotctl_proxy::{Closed, Split};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::api::Noted;
use crate::fault::Fault;
use crate::history::History;
use crate::house::{Damaged, Lodger, Resident, Tasks};
use crate::service;
use crate::site::{Ended, Means, Site};

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
    interrupted: Option<Deployment>,
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
        let (site, interrupted) = Site::open(&name, &config, &means, tell_exits)?;
        let history = history_of(&means, &name)?;
        Ok(Opened {
            site,
            history,
            exits,
            interrupted,
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
        interrupted,
    } = opened;
    if let Some(deployment) = &interrupted {
        info!(service = %site.name, deployment = deployment.number, became = %deployment.phase,
            "a deployment was under way when hotctl ended");
    }
    history.end_interrupted(interrupted.as_ref());
    if site.ledger().live.is_none() {
        site.publish();
    }
    start_live(&site).await;
    let (stop, rest) = tasks.of_one();
    let (orders, mailbox) = mpsc::channel(8);
    tasks.services.spawn(service::run(
        site.clone(),
        history.clone(),
        mailbox,
        exits,
        stop.clone(),
    ));
    until(&rest, site.clone().keep_probing());
    until(&rest, site.clone().watch_requests());
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

/// Start again what was live when the last daemon ended. Traffic goes there at once: until the app
/// listens, connects are refused, and the proxy tries again.
async fn start_live(site: &Arc<Site>) {
    let Some(live) = site.ledger().live else {
        return;
    };
    let release = live.release_of(&site.name);
    match site.launch(live).await {
        Ok(launched) => {
            site.publish();
            for (instance, one) in launched.instances.into_iter().enumerate() {
                info!(%release, instance, address = %one.address, pid = one.process.pid(), "started again");
                site.bring_up(live.slot, instance, one);
            }
        }
        Err(why) => {
            let hint = why.hint.as_deref().unwrap_or_default();
            warn!(%release, %why, hint, "cannot start the live release again");
            site.publish();
        }
    }
}
