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
use axum::extract::{FromRequestParts, Path, Query, Request, State};
use axum::http::header::USER_AGENT;
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use axum::serve::IncomingStream;
use axum::{Json, Router};
use futures_util::{StreamExt as _, stream};
use hotctl_config::names::ServiceName;
use hotctl_deploy::machine::Phase;
use hotctl_deploy::release::Upload;
use tokio::net::UnixListener;
use tokio::sync::mpsc;
use tracing::warn;

use crate::api::{
    CancelQuery, DeployRequest, DeploymentStatus, EventsQuery, LogsQuery, Progress, Put, PutQuery,
    Refusal, ReleaseLine, RunningRelease, ServiceStatus, Status, UploadKind,
};
use crate::client;
use crate::follow;
use crate::journal::Journal;
use crate::service::{Order, Unchanged, Which, Wish};
use crate::site::Site;
use crate::teller::Teller;
use crate::who::{Giver, Via, Who};

/// What the API shows and steers.
#[derive(Debug)]
pub struct House {
    pub services: BTreeMap<ServiceName, Resident>,
    pub listen: Vec<SocketAddr>,
    pub admin: Option<SocketAddr>,
    pub state: PathBuf,
    pub since: Instant,
    pub journal: Journal,
}

/// One service and its mailbox.
#[derive(Debug, Clone)]
pub struct Resident {
    pub site: Arc<Site>,
    /// Eight orders may lie unread; a sender waits for its place.
    pub orders: mpsc::Sender<Order>,
}

/// The API as a router.
pub fn router(house: Arc<House>) -> Router {
    Router::new()
        .route("/v1/status", get(status))
        .route("/v1/events", get(events))
        .route(
            "/v1/services/{service}/releases",
            put(put_release).get(releases),
        )
        .route(
            "/v1/services/{service}/deployments",
            post(deploy).delete(cancel),
        )
        .route("/v1/services/{service}/rollback", post(rollback))
        .route("/v1/services/{service}/stop", post(stop))
        .route("/v1/services/{service}/start", post(start))
        .route("/v1/services/{service}/restart", post(restart))
        .route("/v1/services/{service}/logs", get(logs))
        .fallback(|| async {
            Refused::new(StatusCode::NOT_FOUND, "no such path in the control API")
        })
        .layer(middleware::from_fn(only_ourselves))
        .with_state(house)
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

/// Whoever steers hotctl can run code as its user: only that user and root may.
async fn only_ourselves(
    ConnectInfo(caller): ConnectInfo<Caller>,
    request: Request,
    next: Next,
) -> Response {
    let own = rustix::process::geteuid().as_raw();
    match caller.uid {
        Some(uid) if uid == own || uid == 0 => next.run(request).await,
        uid => {
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

/// An answer that is not 2xx.
#[derive(Debug)]
pub struct Refused {
    status: StatusCode,
    refusal: Refusal,
}

impl Refused {
    fn new(status: StatusCode, error: impl Into<String>) -> Self {
        Self {
            status,
            refusal: Refusal {
                error: error.into(),
                hint: None,
            },
        }
    }

    fn hint(mut self, hint: impl Into<String>) -> Self {
        self.refusal.hint = Some(hint.into());
        self
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        (self.status, Json(self.refusal)).into_response()
    }
}

impl House {
    fn resident(&self, name: &str) -> Result<&Resident, Refused> {
        self.services.get(name).ok_or_else(|| {
            let names: Vec<&str> = self.services.keys().map(ServiceName::as_str).collect();
            Refused::new(StatusCode::NOT_FOUND, format!("no service named {name}"))
                .hint(format!("one of: {}", names.join(", ")))
        })
    }
}

async fn put_release(
    State(house): State<Arc<House>>,
    Path(service): Path<String>,
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
        Err(refused) => Err(Refused {
            status: StatusCode::UNPROCESSABLE_ENTITY,
            refusal: Refusal {
                error: refused.text,
                hint: refused.hint,
            },
        }),
    }
}

async fn deploy(
    State(house): State<Arc<House>>,
    Path(service): Path<String>,
    by: Giver,
    Json(request): Json<DeployRequest>,
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
        .map_err(|refused| Refused {
            status: StatusCode::BAD_REQUEST,
            refusal: Refusal {
                error: refused.text,
                hint: refused.hint,
            },
        })?;
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
    order(resident, by, wish).await
}

async fn rollback(
    house: State<Arc<House>>,
    service: Path<String>,
    by: Giver,
) -> Result<Response, Refused> {
    order(house.resident(&service)?, by, Wish::Rollback).await
}

async fn stop(
    house: State<Arc<House>>,
    service: Path<String>,
    by: Giver,
) -> Result<Response, Refused> {
    order(house.resident(&service)?, by, Wish::Stop).await
}

async fn start(
    house: State<Arc<House>>,
    service: Path<String>,
    by: Giver,
) -> Result<Response, Refused> {
    order(house.resident(&service)?, by, Wish::Start).await
}

async fn restart(
    house: State<Arc<House>>,
    service: Path<String>,
    by: Giver,
) -> Result<Response, Refused> {
    order(house.resident(&service)?, by, Wish::Restart).await
}

async fn cancel(
    house: State<Arc<House>>,
    service: Path<String>,
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
    order(house.resident(&service)?, by, Wish::Cancel(which)).await
}

/// Put a wish into the mailbox; what becomes of it is streamed back, a line of JSON an event. The
/// order stands whether or not anybody reads them.
async fn order(resident: &Resident, by: Giver, wish: Wish) -> Result<Response, Refused> {
    let (tell, progress) = Teller::new(
        wish.verb(),
        by,
        &resident.site.name,
        &resident.site.means.journal,
    );
    resident
        .orders
        .send(Order { wish, tell })
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

async fn releases(
    State(house): State<Arc<House>>,
    Path(service): Path<String>,
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

async fn logs(
    State(house): State<Arc<House>>,
    Path(service): Path<String>,
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
async fn events(
    State(house): State<Arc<House>>,
    Query(query): Query<EventsQuery>,
) -> Result<Response, Refused> {
    if let Some(service) = &query.service {
        house.resident(service.as_str())?;
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

fn service_status(site: &Site) -> ServiceStatus {
    let ledger = site.ledger();
    let running: Vec<RunningRelease> = site
        .slots()
        .into_iter()
        .map(|slot| RunningRelease {
            release: slot.at.release_of(&site.name),
            slot: slot.at.slot,
            role: slot.role.to_owned(),
            address: slot.address,
            pid: slot.pid,
            uptime_s: slot.uptime.as_secs_f64(),
            tickets: slot.tickets,
            health: slot.health,
            restarts: slot.restarts,
        })
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
        }),
    }
}
