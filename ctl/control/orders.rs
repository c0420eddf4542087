//! The orders of the control API: from a request to a wish in the service's mailbox, and what
//! becomes of it streamed back. Decides nothing.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use futures_util::{StreamExt as _, stream};
use hotctl_config::names::ServiceName;
use hotctl_deploy::gate::Notice;
use hotctl_deploy::release::Upload;

use super::ndjson;
use crate::api::{
    CancelQuery, DeployRequest, MaintenanceRequest, OrderRequest, Progress, Put, PutQuery,
    RollbackRequest, UploadKind,
};
use crate::house::{House, Resident};
use crate::openapi;
use crate::refused::{self, BodyOrDefault, NoQuery, Path, Query, Refused};
use crate::service::{IfBusy, Move, Order, Unchanged, Which, Wish};
use crate::store::on_disk;
use crate::who::Giver;

/// How long the rest of an upload is read that is refused already.
const REST: Duration = Duration::from_secs(10);

/// Store a release; content that is stored already is not stored again.
#[utoipa::path(
    put,
    path = "/v1/services/{service}/releases",
    params(("service" = ServiceName, Path, description = "The service"), PutQuery),
    request_body(content = inline(openapi::Octets), content_type = "application/octet-stream", description = "The file, or a tar of the folder"),
    responses((status = 200, body = Put), Refused)
)]
pub(super) async fn put_release(
    State(house): State<Arc<House>>,
    Path(service): Path<ServiceName>,
    Query(query): Query<PutQuery>,
    body: Body,
) -> Result<Json<Put>, Refused> {
    let upload = match query.kind {
        UploadKind::File => Upload::File { name: query.name },
        UploadKind::Folder => Upload::Folder,
    };
    let mut bytes = body
        .into_data_stream()
        .map(|part| part.map_err(std::io::Error::other));
    let refused = match house.resident(&service) {
        Ok(resident) => match resident.site.store.put(upload, &mut bytes).await {
            Ok(digest) => return Ok(Json(Put { digest })),
            Err(refused) => Refused::not_taken(StatusCode::UNPROCESSABLE_ENTITY, refused),
        },
        Err(refused) => refused,
    };
    // Who still sends would find the connection closed, and not read why.
    let rest = async { while let Some(Ok(_)) = bytes.next().await {} };
    let _ = tokio::time::timeout(REST, rest).await;
    Err(refused)
}

/// Deploy what is stored. The order stands whether or not its events are read to the end.
#[utoipa::path(
    post,
    path = "/v1/services/{service}/deployments",
    params(("service" = ServiceName, Path, description = "The service")),
    request_body = DeployRequest,
    responses((status = 200, description = "What becomes of the order, an event a line, until its end", body = Progress, content_type = "application/x-ndjson"), Refused)
)]
pub(super) async fn deploy(
    State(house): State<Arc<House>>,
    _: NoQuery,
    Path(service): Path<ServiceName>,
    by: Giver,
    refused::Body(request): refused::Body<DeployRequest>,
) -> Result<Response, Refused> {
    let resident = house.resident(&service)?;
    let site = &resident.site;
    let stored = on_disk(|| site.store.get(&request.digest)).ok_or_else(|| {
        Refused::new(
            StatusCode::NOT_FOUND,
            format!("no content {} in the store", request.digest.short()),
        )
        .hint("upload it first")
    })?;
    // Usage is told now; that it can be found on this machine is told by the start.
    let config = site.config();
    on_disk(|| stored.command(&config.run, &request.args, std::path::Path::new("/")))
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
    order(&resident, by, wish, if_busy(request.no_wait)).await
}

/// Go back to the release before, or to an earlier one.
#[utoipa::path(
    post,
    path = "/v1/services/{service}/rollback",
    params(("service" = ServiceName, Path, description = "The service")),
    request_body = Option<RollbackRequest>,
    responses((status = 200, description = "What becomes of the order, an event a line, until its end", body = Progress, content_type = "application/x-ndjson"), Refused)
)]
pub(super) async fn rollback(
    State(house): State<Arc<House>>,
    _: NoQuery,
    Path(service): Path<ServiceName>,
    by: Giver,
    BodyOrDefault(request): BodyOrDefault<RollbackRequest>,
) -> Result<Response, Refused> {
    let wish = Wish::Rollback { to: request.to };
    let resident = house.resident(&service)?;
    order(&resident, by, wish, if_busy(request.no_wait)).await
}

/// Take the service out of service.
#[utoipa::path(
    post,
    path = "/v1/services/{service}/stop",
    params(("service" = ServiceName, Path, description = "The service")),
    request_body = Option<OrderRequest>,
    responses((status = 200, description = "What becomes of the order, an event a line, until its end", body = Progress, content_type = "application/x-ndjson"), Refused)
)]
pub(super) async fn stop(
    State(house): State<Arc<House>>,
    _: NoQuery,
    Path(service): Path<ServiceName>,
    by: Giver,
    BodyOrDefault(request): BodyOrDefault<OrderRequest>,
) -> Result<Response, Refused> {
    let resident = house.resident(&service)?;
    order(&resident, by, Wish::Stop, if_busy(request.no_wait)).await
}

/// Start what was stopped.
#[utoipa::path(
    post,
    path = "/v1/services/{service}/start",
    params(("service" = ServiceName, Path, description = "The service")),
    request_body = Option<OrderRequest>,
    responses((status = 200, description = "What becomes of the order, an event a line, until its end", body = Progress, content_type = "application/x-ndjson"), Refused)
)]
pub(super) async fn start(
    State(house): State<Arc<House>>,
    _: NoQuery,
    Path(service): Path<ServiceName>,
    by: Giver,
    BodyOrDefault(request): BodyOrDefault<OrderRequest>,
) -> Result<Response, Refused> {
    let resident = house.resident(&service)?;
    order(&resident, by, Wish::Start, if_busy(request.no_wait)).await
}

/// Replace its processes by fresh ones of the same release.
#[utoipa::path(
    post,
    path = "/v1/services/{service}/restart",
    params(("service" = ServiceName, Path, description = "The service")),
    request_body = Option<OrderRequest>,
    responses((status = 200, description = "What becomes of the order, an event a line, until its end", body = Progress, content_type = "application/x-ndjson"), Refused)
)]
pub(super) async fn restart(
    State(house): State<Arc<House>>,
    _: NoQuery,
    Path(service): Path<ServiceName>,
    by: Giver,
    BodyOrDefault(request): BodyOrDefault<OrderRequest>,
) -> Result<Response, Refused> {
    let resident = house.resident(&service)?;
    order(&resident, by, Wish::Restart, if_busy(request.no_wait)).await
}

/// Let requests wait, within the bounds of `park`.
#[utoipa::path(
    post,
    path = "/v1/services/{service}/pause",
    params(("service" = ServiceName, Path, description = "The service")),
    responses((status = 200, description = "What becomes of the order, an event a line, until its end", body = Progress, content_type = "application/x-ndjson"), Refused)
)]
pub(super) async fn pause(
    State(house): State<Arc<House>>,
    _: NoQuery,
    Path(service): Path<ServiceName>,
    by: Giver,
) -> Result<Response, Refused> {
    let resident = house.resident(&service)?;
    order(&resident, by, Wish::Gate(Move::Pause), IfBusy::Wait).await
}

/// End a pause: what waits goes on.
#[utoipa::path(
    post,
    path = "/v1/services/{service}/resume",
    params(("service" = ServiceName, Path, description = "The service")),
    responses((status = 200, description = "What becomes of the order, an event a line, until its end", body = Progress, content_type = "application/x-ndjson"), Refused)
)]
pub(super) async fn resume(
    State(house): State<Arc<House>>,
    _: NoQuery,
    Path(service): Path<ServiceName>,
    by: Giver,
) -> Result<Response, Refused> {
    let resident = house.resident(&service)?;
    order(&resident, by, Wish::Gate(Move::Resume), IfBusy::Wait).await
}

/// Answer requests with 503 and a notice.
#[utoipa::path(
    post,
    path = "/v1/services/{service}/maintenance",
    params(("service" = ServiceName, Path, description = "The service")),
    request_body = Option<MaintenanceRequest>,
    responses((status = 200, description = "What becomes of the order, an event a line, until its end", body = Progress, content_type = "application/x-ndjson"), Refused)
)]
pub(super) async fn begin_maintenance(
    State(house): State<Arc<House>>,
    _: NoQuery,
    Path(service): Path<ServiceName>,
    by: Giver,
    BodyOrDefault(request): BodyOrDefault<MaintenanceRequest>,
) -> Result<Response, Refused> {
    /// It is written with every change of the record.
    const LONGEST: usize = 256 << 10;
    let unfit = |text: &str| Refused::new(StatusCode::UNPROCESSABLE_ENTITY, text);
    let notice = match (request.message, request.page) {
        (Some(_), Some(_)) => {
            return Err(unfit(
                "maintenance: message and page: only one of them can be shown",
            ));
        }
        (Some(text), None) => Notice::Message(text),
        (None, Some(text)) => Notice::Page(text),
        (None, None) => Notice::Plain,
    };
    if let Notice::Message(text) | Notice::Page(text) = &notice
        && text.len() > LONGEST
    {
        return Err(unfit("maintenance: longer than 256 KiB")
            .hint("let the page take its pictures from elsewhere"));
    }
    let resident = house.resident(&service)?;
    let wish = Wish::Gate(Move::Close(notice));
    order(&resident, by, wish, IfBusy::Wait).await
}

/// Let requests through again.
#[utoipa::path(
    delete,
    path = "/v1/services/{service}/maintenance",
    params(("service" = ServiceName, Path, description = "The service")),
    responses((status = 200, description = "What becomes of the order, an event a line, until its end", body = Progress, content_type = "application/x-ndjson"), Refused)
)]
pub(super) async fn end_maintenance(
    State(house): State<Arc<House>>,
    _: NoQuery,
    Path(service): Path<ServiceName>,
    by: Giver,
) -> Result<Response, Refused> {
    let resident = house.resident(&service)?;
    order(&resident, by, Wish::Gate(Move::Reopen), IfBusy::Wait).await
}

/// End a deployment; what is live stays.
#[utoipa::path(
    delete,
    path = "/v1/services/{service}/deployments",
    params(("service" = ServiceName, Path, description = "The service"), CancelQuery),
    responses((status = 200, description = "What becomes of the order, an event a line, until its end", body = Progress, content_type = "application/x-ndjson"), Refused)
)]
pub(super) async fn cancel(
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
    order(&resident, by, Wish::Cancel(which), IfBusy::Wait).await
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
    let (order, progress) = Order::of(&resident.site, wish, by, if_busy);
    let sent = resident.orders.send(order).await;
    sent.map_err(|_| Refused::new(StatusCode::SERVICE_UNAVAILABLE, "hotctl is ending"))?;
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
