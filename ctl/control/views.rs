//! What the control API shows: status, releases, deployments, events, output. Changes nothing.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use futures_util::{Stream, StreamExt as _, stream};
use hotctl_config::names::ServiceName;
use hotctl_deploy::gate::{Gate, Notice};
use hotctl_deploy::ledger::Ledger;
use hotctl_deploy::machine::Phase;

use super::ndjson;
use crate::api::{
    DeploymentRecord, DeploymentStatus, EventLine, EventsQuery, GateKind, GateStatus, HistoryQuery,
    InstanceStatus, LogsQuery, Outcome, Refusal, ReleaseLine, RunningRelease, ServiceStatus,
    Status, WaitingStatus,
};
use crate::follow;
use crate::history::{History, now_ms};
use crate::house::{Damaged, House, Lodger, Resident};
use crate::refused::{NoQuery, Path, Query, Refused};
use crate::site::{Site, SlotView};
use crate::store::on_disk;

/// The stored releases, oldest first.
#[utoipa::path(
    get,
    path = "/v1/services/{service}/releases",
    params(("service" = ServiceName, Path, description = "The service")),
    responses((status = 200, body = Vec<ReleaseLine>), Refused)
)]
pub(super) async fn releases(
    State(house): State<Arc<House>>,
    _: NoQuery,
    Path(service): Path<ServiceName>,
) -> Result<Json<Vec<ReleaseLine>>, Refused> {
    let site = house.resident(&service)?.site;
    let ledger = site.ledger();
    let slots = site.slots();
    let role = |number: u32| {
        let running = slots.iter().rev().find(|slot| slot.at.release == number);
        running
            .map(|slot| slot.role)
            .or_else(|| (ledger.previous == Some(number)).then_some("previous"))
            .or_else(|| (ledger.stopped == Some(number)).then_some("stopped"))
            .map(str::to_owned)
    };
    let lines = ledger.releases.iter().map(|(number, release)| ReleaseLine {
        release: ledger.id(*number),
        digest: release.digest,
        name: release.name.clone(),
        args: release.args.clone(),
        created_ms: release.created_ms,
        role: role(*number),
        stored: true,
    });
    let mut lines: Vec<ReleaseLine> = lines.collect();
    on_disk(|| {
        for line in &mut lines {
            // What cannot be read may be there.
            line.stored = site
                .store
                .find(&line.digest)
                .map_or(true, |it| it.is_some());
        }
    });
    Ok(Json(lines))
}

/// The deployments that are remembered, newest first.
#[utoipa::path(
    get,
    path = "/v1/services/{service}/deployments",
    params(("service" = ServiceName, Path, description = "The service"), HistoryQuery),
    responses((status = 200, body = Vec<DeploymentRecord>), Refused)
)]
pub(super) async fn deployments(
    State(house): State<Arc<House>>,
    Path(service): Path<ServiceName>,
    Query(query): Query<HistoryQuery>,
) -> Result<Json<Vec<DeploymentRecord>>, Refused> {
    let history = house.resident(&service)?.history;
    Ok(Json(history.newest(query.limit.unwrap_or(usize::MAX))))
}

/// One deployment.
#[utoipa::path(
    get,
    path = "/v1/services/{service}/deployments/{number}",
    params(
        ("service" = ServiceName, Path, description = "The service"),
        ("number" = u32, Path, description = "The deployment"),
    ),
    responses((status = 200, body = DeploymentRecord), Refused)
)]
pub(super) async fn deployment(
    State(house): State<Arc<House>>,
    _: NoQuery,
    Path((service, number)): Path<(ServiceName, u32)>,
) -> Result<Json<DeploymentRecord>, Refused> {
    let history = house.resident(&service)?.history;
    let record = history.get(number).ok_or_else(|| {
        Refused::new(
            StatusCode::NOT_FOUND,
            format!("{service}: no record of a deployment {number}"),
        )
        .hint(format!("`hotctl history {service}` lists what is kept"))
    })?;
    Ok(Json(record))
}

/// What its processes wrote.
#[utoipa::path(
    get,
    path = "/v1/services/{service}/logs",
    params(("service" = ServiceName, Path, description = "The service"), LogsQuery),
    responses((status = 200, description = "The lines", body = String, content_type = "text/plain"), Refused)
)]
pub(super) async fn logs(
    State(house): State<Arc<House>>,
    Path(service): Path<ServiceName>,
    Query(query): Query<LogsQuery>,
) -> Result<Response, Refused> {
    let site = house.resident(&service)?.site;
    if let Some(number) = query.release
        && site.logs_of(number).is_empty()
    {
        return Err(Refused::new(
            StatusCode::NOT_FOUND,
            format!("{service}@{number}: no output is kept of it"),
        )
        .hint(format!("hotctl releases {service}")));
    }
    let follower = house.clone();
    let over = async move { follower.replaced().await };
    let lines = follow::lines(site, query, over);
    Ok((
        [("content-type", "text/plain; charset=utf-8")],
        Body::from_stream(broken_off(house, lines)),
    )
        .into_response())
}

/// What has happened, and what happens, a line of JSON an event.
#[utoipa::path(
    get,
    path = "/v1/events",
    params(EventsQuery),
    responses((status = 200, description = "An event a line", body = EventLine, content_type = "application/x-ndjson"), Refused)
)]
pub(super) async fn events(
    State(house): State<Arc<House>>,
    Query(query): Query<EventsQuery>,
) -> Result<Response, Refused> {
    if let Some(service) = &query.service {
        house.knows(service)?;
    }
    let newest = house.means.journal.newest();
    let after = query
        .after
        .or_else(|| query.last.map(|last| newest.saturating_sub(last)))
        .unwrap_or(0);
    let reader = house.means.journal.after(after, query.service);
    let follower = house.clone();
    let lines = stream::unfold(reader, move |mut reader| {
        let house = follower.clone();
        async move {
            let lines = match query.follow {
                true => tokio::select! {
                    lines = reader.follow() => lines?,
                    () = house.replaced() => return None,
                },
                false => reader.next().await?,
            };
            Some((Ok(lines), reader))
        }
    });
    Ok(ndjson(Body::from_stream(broken_off(house, lines))))
}

/// What ends because another hotctl steers does not end as if it were whole: whoever reads it goes on
/// there.
fn broken_off(
    house: Arc<House>,
    lines: impl Stream<Item = Result<Bytes, Infallible>> + Send + 'static,
) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
    let end = stream::once(async move { house.is_replaced() });
    let end = end.filter_map(|replaced| async move {
        replaced.then(|| Err(io::Error::other("another hotctl serves")))
    });
    lines
        .map(|line| line.map_err(|never| match never {}))
        .chain(end)
}

/// What runs where.
#[utoipa::path(
    get,
    path = "/v1/status",
    responses((status = 200, body = Status), Refused)
)]
pub(super) async fn status(State(house): State<Arc<House>>, _: NoQuery) -> Json<Status> {
    Json(Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
        uptime_s: house.since.elapsed().as_secs_f64(),
        listen: house.listen.clone(),
        admin: house.admin,
        state: house.means.state.root().display().to_string(),
        services: house
            .lodgers()
            .iter()
            .map(|(name, lodger)| match lodger {
                Lodger::Well(resident) => service_status(resident),
                Lodger::Damaged(damaged) => damaged_status(name, damaged),
            })
            .collect(),
    })
}

fn service_status(resident: &Resident) -> ServiceStatus {
    let Resident { site, history, .. } = resident;
    let (ledger, config) = (site.ledger(), site.config());
    let running: Vec<RunningRelease> = site
        .slots()
        .into_iter()
        .filter_map(|slot| running_release(site, slot))
        .collect();
    let live = running.iter().find(|r| r.role == "live").cloned();
    ServiceStatus {
        name: site.name.clone(),
        state: match (&live, ledger.stopped) {
            _ if matches!(ledger.gate, Gate::Maintenance { .. }) => "maintenance",
            (Some(_), _) if matches!(ledger.gate, Gate::Paused { .. }) => "paused",
            (Some(_), _) if site.is_failed() => "failed",
            (_, None) if site.is_parked() => "parked",
            (Some(_), _) => "serving",
            (None, Some(_)) => "stopped",
            (None, None) if ledger.live.is_some() => "down",
            (None, None) => "nothing_deployed",
        }
        .to_owned(),
        http: config.http,
        hosts: texts(&config.hosts),
        paths: match config.http {
            true => texts(&config.paths),
            false => Vec::new(),
        },
        ignore: config.ignore.clone(),
        damage: None,
        parked: site.parked(),
        gate: gate(&ledger.gate),
        live,
        running,
        last_failure: history.last_failure(),
        build: site.build_status(),
        previous: ledger.back().map(|number| ledger.id(number)),
        deployment: ledger.deployment.as_ref().map(|d| DeploymentStatus {
            number: d.number,
            to: d.to.release_of(&site.name),
            from: d.from.map(|from| from.release_of(&site.name)),
            by: history.get(d.number).map(|record| record.by.said()),
            phase: match &d.phase {
                Phase::Reverting(_) => "reverting".to_owned(),
                _ if d.is_warm() => "warm".to_owned(),
                phase => phase.to_string(),
            },
            age_s: site.deployment_age().as_secs_f64(),
            hold_left_s: site
                .hold_left()
                .filter(|_| d.is_warm() && d.from.is_some())
                .map(|left| left.as_secs_f64()),
        }),
        waiting: waiting(history, &ledger),
    }
}

/// All that can be said of a service whose state cannot be read.
fn damaged_status(name: &ServiceName, damaged: &Damaged) -> ServiceStatus {
    ServiceStatus {
        name: name.clone(),
        state: "damaged".to_owned(),
        http: damaged.config.http,
        hosts: texts(&damaged.config.hosts),
        paths: texts(&damaged.config.paths),
        ignore: damaged.config.ignore.clone(),
        damage: Some(Refusal {
            error: damaged.why.text.clone(),
            hint: damaged.why.hint.clone(),
        }),
        parked: 0,
        gate: None,
        live: None,
        running: Vec::new(),
        last_failure: None,
        build: None,
        previous: None,
        deployment: None,
        waiting: None,
    }
}

fn texts(all: &[impl ToString]) -> Vec<String> {
    all.iter().map(ToString::to_string).collect()
}

/// What an operator has put between requests and the service.
fn gate(gate: &Gate) -> Option<GateStatus> {
    let (kind, since_ms, message) = match gate {
        Gate::Open => return None,
        Gate::Paused { since_ms } => (GateKind::Paused, since_ms, None),
        Gate::Maintenance { notice, since_ms } => {
            let message = match notice {
                Notice::Message(text) => Some(text.clone()),
                Notice::Plain | Notice::Page(_) => None,
            };
            (GateKind::Maintenance, since_ms, message)
        }
    };
    Some(GateStatus {
        kind,
        for_s: Duration::from_millis(now_ms().saturating_sub(*since_ms)).as_secs_f64(),
        message,
    })
}

/// The order that waits: the newest there is, as a newer one would have taken its place.
fn waiting(history: &History, ledger: &Ledger) -> Option<WaitingStatus> {
    let newest = history.newest(1).pop()?;
    let age_ms = now_ms().saturating_sub(newest.ordered_ms);
    // It begins, which is not written yet.
    let begins = ledger.deployment.is_none() && ledger.waiting == Some(newest.to.number);
    (newest.result == Outcome::Queued || begins).then(|| WaitingStatus {
        number: newest.number,
        to: newest.to,
        by: newest.by.who.name,
        age_s: Duration::from_millis(age_ms).as_secs_f64(),
    })
}

/// None only of a slot without instances, of which there is none.
fn running_release(site: &Site, slot: SlotView) -> Option<RunningRelease> {
    let instances: Vec<InstanceStatus> = slot
        .instances
        .into_iter()
        .enumerate()
        .map(|(instance, one)| InstanceStatus {
            instance,
            address: one.address,
            ports: one.ports,
            pid: one.pid,
            state: one.state.label().to_owned(),
            uptime_s: one.uptime.as_secs_f64(),
            health: one.health,
            restarts: one.restarts,
        })
        .collect();
    let first = instances.first()?;
    let ill = instances.iter().find(|one| one.health != "healthy");
    Some(RunningRelease {
        release: slot.at.release_of(&site.name),
        slot: slot.at.slot,
        role: slot.role.to_owned(),
        address: first.address.clone(),
        ports: first.ports.clone(),
        pid: first.pid,
        uptime_s: first.uptime_s,
        tickets: slot.tickets,
        open: slot.open.into(),
        health: ill.unwrap_or(first).health.clone(),
        restarts: instances.iter().map(|one| one.restarts).sum(),
        instances,
    })
}
