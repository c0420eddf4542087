//! The daemon itself over the control API: to read its configuration again, to be replaced.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use tokio::sync::oneshot;
use tracing::info;

use crate::api::{LogLevelRequest, Logging, ReloadRequest, Reloaded, UpgradeRequest, Upgraded};
use crate::fault::{Exit, Fault};
use crate::house::House;
use crate::refused::{Body, BodyOrDefault, NoQuery, Refused};
use crate::reload::Mode;
use crate::upgrade::Order;
use crate::who::Giver;

/// Read the configuration again. It is in force whole, or not at all.
#[utoipa::path(
    post,
    path = "/v1/reload",
    request_body = Option<ReloadRequest>,
    responses((status = 200, body = Reloaded), Refused)
)]
pub(super) async fn reload(
    State(house): State<Arc<House>>,
    _: NoQuery,
    by: Giver,
    BodyOrDefault(request): BodyOrDefault<ReloadRequest>,
) -> Result<Json<Reloaded>, Refused> {
    let mode = match request.dry_run {
        true => Mode::DryRun,
        false => Mode::Apply,
    };
    // Of its own: a caller that leaves does not leave half of it undone.
    let reload = tokio::spawn(async move { house.reload(mode, &by).await });
    let fault = match reload.await {
        Ok(Ok(reloaded)) => return Ok(Json(reloaded)),
        Ok(Err(fault)) => fault,
        Err(ended) => {
            let text = format!("the reload ended: {ended}");
            return Err(Refused::new(StatusCode::INTERNAL_SERVER_ERROR, text));
        }
    };
    Err(refused(fault))
}

/// Let another hotctl take the place of this one. Answered once it serves.
#[utoipa::path(
    post,
    path = "/v1/upgrade",
    request_body = Option<UpgradeRequest>,
    responses((status = 200, body = Upgraded), Refused)
)]
pub(super) async fn upgrade(
    State(house): State<Arc<House>>,
    _: NoQuery,
    by: Giver,
    BodyOrDefault(request): BodyOrDefault<UpgradeRequest>,
) -> Result<Json<Upgraded>, Refused> {
    if let Some(binary) = &request.binary
        && !binary.is_absolute()
    {
        let text = format!("binary: {} is not an absolute path", binary.display());
        return Err(Refused::new(StatusCode::BAD_REQUEST, text));
    }
    let (tell, told) = oneshot::channel();
    let order = Order {
        binary: request.binary,
        by,
        tell,
    };
    // One may wait while another is under way.
    if house.upgrades.try_send(order).is_err() {
        let text = "upgrade: another one is under way";
        return Err(Refused::new(StatusCode::CONFLICT, text).hint("hotctl events"));
    }
    match told.await {
        Ok(Ok(upgraded)) => Ok(Json(upgraded)),
        Ok(Err(fault)) => Err(refused(fault)),
        Err(_) => Err(Refused::new(
            StatusCode::CONFLICT,
            "upgrade: hotctl ends, or has been replaced already",
        )
        .hint("`hotctl version` says which one answers now; upgrade that one, if need be")),
    }
}

/// How much the daemon writes of what happens.
#[utoipa::path(
    get,
    path = "/v1/log-level",
    responses((status = 200, body = Logging), Refused)
)]
pub(super) async fn log_level(State(house): State<Arc<House>>, _: NoQuery) -> Json<Logging> {
    let level = house.means.log.level();
    Json(Logging {
        level,
        before: level,
    })
}

/// Change it, until the daemon ends or is upgraded.
#[utoipa::path(
    put,
    path = "/v1/log-level",
    request_body = LogLevelRequest,
    responses((status = 200, body = Logging), Refused)
)]
pub(super) async fn set_log_level(
    State(house): State<Arc<House>>,
    _: NoQuery,
    by: Giver,
    Body(request): Body<LogLevelRequest>,
) -> Result<Json<Logging>, Refused> {
    let level = request.level;
    let before = house.means.log.set(level).map_err(refused)?;
    info!(by = by.who.to_string(), %before, %level, "log level");
    Ok(Json(Logging { level, before }))
}

fn refused(fault: Fault) -> Refused {
    let status = match fault.exit {
        Exit::Usage => StatusCode::BAD_REQUEST,
        _ => StatusCode::CONFLICT,
    };
    Refused::of(status, fault)
}
