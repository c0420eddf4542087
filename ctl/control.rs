//! The control API: routes from HTTP on the private socket to orders and views. Each handler is a
//! few lines; what an order does is the service's.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use axum::body::{Body, Bytes};
use axum::extract::connect_info::{ConnectInfo, Connected};
use axum::extract::{FromRequestParts, Request, State};
use axum::http::header::USER_AGENT;
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::serve::IncomingStream;
use axum::{Json, Router};
use futures_util::{StreamExt as _, stream};
use hotctl_config::names::ServiceName;
use hotctl_config::suggest::nearest;
use hotctl_deploy::machine::Phase;
use hotctl_deploy::release::Upload;
use tokio::net::UnixListener;
use tokio::sync::mpsc;
use tracing::warn;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::api::{
    CancelQuery, DeployRequest, DeploymentRecord, DeploymentStatus, EventLine, EventsQuery,
    HistoryQuery, InstanceStatus, LogsQuery, OrderRequest, Progress, Put, PutQuery, ReleaseLine,
    RollbackRequest, RunningRelease, ServiceStatus, Status, UploadKind,
};
use crate::client;
use crate::follow;
use crate::history::History;
use crate::journal::Journal;
use crate::openapi;
use crate::refused::{self, BodyOrDefault, Path, Query, Refused};
use crate::service::{IfBusy, Order, Unchanged, Which, Wish};
use crate::site::{Site, SlotView};
use crate::socket::Callers;
use crate::teller::Teller;
use crate::who::{Giver, Via, Who};

/// What the API shows and steers.
#[derive(Debug)]
pub struct House {
    pub services: BTreeMap<ServiceName, Resident>,
    pub listen: Vec<SocketAddr>,
    pub admin: Option<SocketAddr>,
    pub state: PathBuf,
    pub callers: Callers,
    pub since: Instant,
    pub journal: Journal,
}

/// One service and its mailbox.
#[derive(Debug, Clone)]
pub struct Resident {
    pub site: Arc<Site>,
    pub history: Arc<History>,
    /// Eight orders may lie unread; a sender waits for its place.
    pub orders: mpsc::Sender<Order>,
}

/// The API as a router.
pub fn router(house: Arc<House>) -> Router {
    Router::from(routes())
        .fallback(Refused::no_such_path)
        .method_not_allowed_fallback(Refused::no_such_method)
        .layer(middleware::from_fn_with_state(house.clone(), only_who_may))
        .with_state(house)
}

/// Every path with its handler, and with what is documented of it.
pub fn routes() -> OpenApiRouter<Arc<House>> {
    OpenApiRouter::with_openapi(openapi::head())
        .routes(routes!(status))
        .routes(routes!(events))
        .routes(routes!(put_release, releases))
        .routes(routes!(deploy, cancel, deployments))
        .routes(routes!(deployment))
        .routes(routes!(rollback))
        .routes(routes!(stop))
        .routes(routes!(start))
        .routes(routes!(restart))
        .routes(routes!(logs))
        .routes(routes!(description))
}

/// Who is at the other end of a connection, as the kernel says.
#[derive(Debug, Clone, Copy)]
pub struct Caller {
    uid: Option<u32>,
}

/// Who gives an order, and by which client.
impl<S: Sync> FromRequestParts<S> for Giver {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refused> {
        let caller = parts.extensions.get::<ConnectInfo<Caller>>();
        let uid = caller.and_then(|ConnectInfo(caller)| caller.uid);
        let uid = uid.ok_or_else(|| Refused::new(StatusCode::FORBIDDEN, "nobody is there"))?;
        let agent = parts.headers.get(USER_AGENT).map(HeaderValue::as_bytes);
        let ours = agent.is_some_and(|agent| agent.starts_with(client::AGENT.as_bytes()));
        Ok(Self {
            who: Who::of(uid).await,
            via: if ours { Via::Cli } else { Via::Api },
        })
    }
}

impl Connected<IncomingStream<'_, UnixListener>> for Caller {
    fn connect_info(stream: IncomingStream<'_, UnixListener>) -> Self {
        Self {
            uid: stream.io().peer_cred().ok().map(|cred| cred.uid()),
        }
    }
}

/// Whoever steers hotctl can run code as its user: only that user and root may, and the group that
/// the configuration names.
async fn only_who_may(
    State(house): State<Arc<House>>,
    ConnectInfo(caller): ConnectInfo<Caller>,
    request: Request,
    next: Next,
) -> Response {
    match caller.uid {
        Some(uid) if house.callers.include(uid) => next.run(request).await,
        uid => {
            let own = Who::ourselves();
            warn!(?uid, "refused a caller of the control socket");
            Refused::new(
                StatusCode::FORBIDDEN,
                format!(
                    "user {} may not steer this hotctl",
                    uid.map_or("unknown".into(), |u| u.to_string())
                ),
            )
            .hint(format!("run the command as user {own} or as root"))
            .into_response()
        }
    }
}

impl House {
    fn resident(&self, name: &ServiceName) -> Result<&Resident, Refused> {
        self.services.get(name).ok_or_else(|| {
            let names: Vec<&str> = self.services.keys().map(ServiceName::as_str).collect();
            let hint = match nearest(name.as_str(), &names) {
                Some(meant) => format!("did you mean {meant}? there are: {}", names.join(", ")),
                None => format!("one of: {}", names.join(", ")),
            };
            Refused::new(StatusCode::NOT_FOUND, format!("no service named {name}")).hint(hint)
        })
    }
}

/// Store a release; content that is stored already is not stored again.
#[utoipa::path(
    put,
    path = "/v1/services/{service}/releases",
    params(("service" = ServiceName, Path, description = "The service"), PutQuery),
    request_body(content = inline(openapi::Octets), content_type = "application/octet-stream", description = "The file, or a tar of the folder"),
    responses((status = 200, body = Put), Refused)
)]
async fn put_release(
    State(house): State<Arc<House>>,
    Path(service): Path<ServiceName>,
    Query(query): Query<PutQuery>,
    body: Body,
) -> Result<Json<Put>, Refused> {
    let resident = house.resident(&service)?;
    let upload = match query.kind {
        UploadKind::File => Upload::File { name: query.name },
        UploadKind::Folder => Upload::Folder,
    };
    let bytes = body
        .into_data_stream()
        .map(|part| part.map_err(std::io::Error::other));
    match resident.site.store.put(upload, Box::pin(bytes)).await {
        Ok(digest) => Ok(Json(Put { digest })),
        Err(refused) => Err(Refused::not_taken(
            StatusCode::UNPROCESSABLE_ENTITY,
            refused,
        )),
    }
}

/// Deploy what is stored. The order stands whether or not its events are read to the end.
#[utoipa::path(
    post,
    path = "/v1/services/{service}/deployments",
    params(("service" = ServiceName, Path, description = "The service")),
    request_body = DeployRequest,
    responses((status = 200, description = "What becomes of the order, an event a line, until its end", body = Progress, content_type = "application/x-ndjson"), Refused)
)]
async fn deploy(
    State(house): State<Arc<House>>,
    Path(service): Path<ServiceName>,
    by: Giver,
    refused::Body(request): refused::Body<DeployRequest>,
) -> Result<Response, Refused> {
    let resident = house.resident(&service)?;
    let site = &resident.site;
    let stored = site.store.get(&request.digest).ok_or_else(|| {
        Refused::new(
            StatusCode::NOT_FOUND,
            format!("no content {} in the store", request.digest.short()),
        )
        .hint("upload it first")
    })?;
    // Usage is told now; that it can be found on this machine is told by the start.
    stored
        .command(&site.config.run, &request.args, std::path::Path::new("/"))
        .map_err(|refused| Refused::not_taken(StatusCode::BAD_REQUEST, refused))?;
    let wish = Wish::Deploy {
        digest: request.digest,
        args: request.args,
        name: request.name.unwrap_or(stored.name),
        unchanged: if request.force {
            Unchanged::Deploy
        } else {
            Unchanged::Nothing
        },
    };
    order(resident, by, wish, if_busy(request.no_wait)).await
}

/// Go back to the release before, or to an earlier one.
#[utoipa::path(
    post,
    path = "/v1/services/{service}/rollback",
    params(("service" = ServiceName, Path, description = "The service")),
    request_body = Option<RollbackRequest>,
    responses((status = 200, description = "What becomes of the order, an event a line, until its end", body = Progress, content_type = "application/x-ndjson"), Refused)
)]
async fn rollback(
    State(house): State<Arc<House>>,
    Path(service): Path<ServiceName>,
    by: Giver,
    BodyOrDefault(request): BodyOrDefault<RollbackRequest>,
) -> Result<Response, Refused> {
    let wish = Wish::Rollback { to: request.to };
    let resident = house.resident(&service)?;
    order(resident, by, wish, if_busy(request.no_wait)).await
}

/// Take the service out of service.
#[utoipa::path(
    post,
    path = "/v1/services/{service}/stop",
    params(("service" = ServiceName, Path, description = "The service")),
    request_body = Option<OrderRequest>,
    responses((status = 200, description = "What becomes of the order, an event a line, until its end", body = Progress, content_type = "application/x-ndjson"), Refused)
)]
async fn stop(
    State(house): State<Arc<House>>,
    Path(service): Path<ServiceName>,
    by: Giver,
    BodyOrDefault(request): BodyOrDefault<OrderRequest>,
) -> Result<Response, Refused> {
    let resident = house.resident(&service)?;
    order(resident, by, Wish::Stop, if_busy(request.no_wait)).await
}

/// Start what was stopped.
#[utoipa::path(
    post,
    path = "/v1/services/{service}/start",
    params(("service" = ServiceName, Path, description = "The service")),
    request_body = Option<OrderRequest>,
    responses((status = 200, description = "What becomes of the order, an event a line, until its end", body = Progress, content_type = "application/x-ndjson"), Refused)
)]
async fn start(
    State(house): State<Arc<House>>,
    Path(service): Path<ServiceName>,
    by: Giver,
    BodyOrDefault(request): BodyOrDefault<OrderRequest>,
) -> Result<Response, Refused> {
    let resident = house.resident(&service)?;
    order(resident, by, Wish::Start, if_busy(request.no_wait)).await
}

/// Replace its processes by fresh ones of the same release.
#[utoipa::path(
    post,
    path = "/v1/services/{service}/restart",
    params(("service" = ServiceName, Path, description = "The service")),
    request_body = Option<OrderRequest>,
    responses((status = 200, description = "What becomes of the order, an event a line, until its end", body = Progress, content_type = "application/x-ndjson"), Refused)
)]
async fn restart(
    State(house): State<Arc<House>>,
    Path(service): Path<ServiceName>,
    by: Giver,
    BodyOrDefault(request): BodyOrDefault<OrderRequest>,
) -> Result<Response, Refused> {
    let resident = house.resident(&service)?;
    order(resident, by, Wish::Restart, if_busy(request.no_wait)).await
}

/// End a deployment; what is live stays.
#[utoipa::path(
    delete,
    path = "/v1/services/{service}/deployments",
    params(("service" = ServiceName, Path, description = "The service"), CancelQuery),
    responses((status = 200, description = "What becomes of the order, an event a line, until its end", body = Progress, content_type = "application/x-ndjson"), Refused)
)]
async fn cancel(
    State(house): State<Arc<House>>,
    Path(service): Path<ServiceName>,
    by: Giver,
    Query(query): Query<CancelQuery>,
) -> Result<Response, Refused> {
    let which = match query {
        CancelQuery {
            number: Some(number),
            ..
        } => Which::Number(number),
        CancelQuery { waiting: true, .. } => Which::Waiting,
        _ => Which::Any,
    };
    let resident = house.resident(&service)?;
    order(resident, by, Wish::Cancel(which), IfBusy::Wait).await
}

fn if_busy(no_wait: bool) -> IfBusy {
    if no_wait {
        IfBusy::Refuse
    } else {
        IfBusy::Wait
    }
}

/// Put a wish into the mailbox; what becomes of it is streamed back, a line of JSON an event. The
/// order stands whether or not anybody reads them.
async fn order(
    resident: &Resident,
    by: Giver,
    wish: Wish,
    if_busy: IfBusy,
) -> Result<Response, Refused> {
    let (tell, progress) = Teller::new(
        wish.verb(),
        by,
        &resident.site.name,
        &resident.site.means.journal,
    );
    resident
        .orders
        .send(Order {
            wish,
            if_busy,
            tell,
        })
        .await
        .map_err(|_| Refused::new(StatusCode::SERVICE_UNAVAILABLE, "hotctl is ending"))?;
    let lines = stream::unfold(progress, |mut progress| async move {
        let line = progress.recv().await?;
        Some((Ok::<_, Infallible>(line_of(&line)), progress))
    });
    Ok(ndjson(Body::from_stream(lines)))
}

fn line_of(progress: &Progress) -> Bytes {
    let mut line = serde_json::to_vec(progress).unwrap_or_default();
    line.push(b'\n');
    line.into()
}

fn ndjson(body: Body) -> Response {
    ([("content-type", "application/x-ndjson")], body).into_response()
}

/// The stored releases, oldest first.
#[utoipa::path(
    get,
    path = "/v1/services/{service}/releases",
    params(("service" = ServiceName, Path, description = "The service")),
    responses((status = 200, body = Vec<ReleaseLine>), Refused)
)]
async fn releases(
    State(house): State<Arc<House>>,
    Path(service): Path<ServiceName>,
) -> Result<Json<Vec<ReleaseLine>>, Refused> {
    let site = &house.resident(&service)?.site;
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
    });
    Ok(Json(lines.collect()))
}

/// The deployments that are remembered, newest first.
#[utoipa::path(
    get,
    path = "/v1/services/{service}/deployments",
    params(("service" = ServiceName, Path, description = "The service"), HistoryQuery),
    responses((status = 200, body = Vec<DeploymentRecord>), Refused)
)]
async fn deployments(
    State(house): State<Arc<House>>,
    Path(service): Path<ServiceName>,
    Query(query): Query<HistoryQuery>,
) -> Result<Json<Vec<DeploymentRecord>>, Refused> {
    let history = &house.resident(&service)?.history;
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
async fn deployment(
    State(house): State<Arc<House>>,
    Path((service, number)): Path<(ServiceName, u32)>,
) -> Result<Json<DeploymentRecord>, Refused> {
    let history = &house.resident(&service)?.history;
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
async fn logs(
    State(house): State<Arc<House>>,
    Path(service): Path<ServiceName>,
    Query(query): Query<LogsQuery>,
) -> Result<Response, Refused> {
    let site = house.resident(&service)?.site.clone();
    if let Some(number) = query.release
        && site.logs_of(number).is_empty()
    {
        return Err(Refused::new(
            StatusCode::NOT_FOUND,
            format!("{service}@{number}: no output is kept of it"),
        )
        .hint(format!("hotctl releases {service}")));
    }
    let lines = follow::lines(site, query);
    Ok((
        [("content-type", "text/plain; charset=utf-8")],
        Body::from_stream(lines),
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
async fn events(
    State(house): State<Arc<House>>,
    Query(query): Query<EventsQuery>,
) -> Result<Response, Refused> {
    if let Some(service) = &query.service {
        house.resident(service)?;
    }
    let newest = house.journal.newest();
    let after = query
        .after
        .or_else(|| query.last.map(|last| newest.saturating_sub(last)))
        .unwrap_or(0);
    let reader = house.journal.after(after, query.service);
    let lines = stream::unfold(reader, move |mut reader| async move {
        let lines = if query.follow {
            reader.follow().await?
        } else {
            reader.next().await?
        };
        Some((Ok::<_, Infallible>(lines), reader))
    });
    Ok(ndjson(Body::from_stream(lines)))
}

/// What runs where.
#[utoipa::path(
    get,
    path = "/v1/status",
    responses((status = 200, body = Status), Refused)
)]
async fn status(State(house): State<Arc<House>>) -> Json<Status> {
    Json(Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
        uptime_s: house.since.elapsed().as_secs_f64(),
        listen: house.listen.clone(),
        admin: house.admin,
        state: house.state.display().to_string(),
        services: house
            .services
            .values()
            .map(|r| service_status(&r.site))
            .collect(),
    })
}

/// This description.
#[utoipa::path(
    get,
    path = "/v1/openapi.json",
    responses((status = 200, description = "OpenAPI 3.1", body = Object), Refused)
)]
async fn description() -> Json<utoipa::openapi::OpenApi> {
    Json(openapi::document())
}

fn service_status(site: &Site) -> ServiceStatus {
    let ledger = site.ledger();
    let running: Vec<RunningRelease> = site
        .slots()
        .into_iter()
        .filter_map(|slot| running_release(site, slot))
        .collect();
    let live = running.iter().find(|r| r.role == "live").cloned();
    ServiceStatus {
        name: site.name.clone(),
        state: match (&live, ledger.stopped) {
            (Some(_), _) => "serving",
            (None, Some(_)) => "stopped",
            (None, None) if ledger.live.is_some() => "down",
            (None, None) => "nothing_deployed",
        }
        .to_owned(),
        hosts: site.config.hosts.iter().map(ToString::to_string).collect(),
        paths: site.config.paths.iter().map(ToString::to_string).collect(),
        live,
        running,
        previous: ledger.back().map(|number| ledger.id(number)),
        deployment: ledger.deployment.as_ref().map(|d| DeploymentStatus {
            number: d.number,
            to: d.to.release_of(&site.name),
            from: d.from.map(|from| from.release_of(&site.name)),
            phase: match &d.phase {
                Phase::Reverting(_) => "reverting".to_owned(),
                _ if d.is_warm() => "warm".to_owned(),
                phase => phase.to_string(),
            },
            age_s: site.deployment_age().as_secs_f64(),
            hold_left_s: site
                .hold_left()
                .filter(|_| d.is_warm())
                .map(|left| left.as_secs_f64()),
        }),
    }
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
        pid: first.pid,
        uptime_s: first.uptime_s,
        tickets: slot.tickets,
        open: slot.open.into(),
        health: ill.unwrap_or(first).health.clone(),
        restarts: instances.iter().map(|one| one.restarts).sum(),
        instances,
    })
}
