//! The daemon itself over the control API: to read its configuration again, to be replaced; and how much
//! is written, by it and by apps.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use hotctl_config::names::ServiceName;
use tokio::sync::oneshot;
use tracing::info;

use crate::api::{
    LevelChanged, LogLevelRequest, Logging, ReloadRequest, Reloaded, ServiceLevelRequest,
    UpgradeRequest, Upgraded,
};
use crate::fault::{Exit, Fault};
use crate::house::House;
use crate::level_request::is_level;
use crate::refused::{Body, BodyOrDefault, NoQuery, Path, Refused};
use crate::reload::Mode;
use crate::site::LevelStays;
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

/// Change the log level of the app itself, in what is live and in a candidate that is up. Answered once
/// each of them was told.
#[utoipa::path(
    put,
    path = "/v1/services/{service}/log-level",
    params(("service" = ServiceName, Path, description = "The service")),
    request_body = ServiceLevelRequest,
    responses((status = 200, body = LevelChanged), Refused)
)]
pub(super) async fn set_service_level(
    State(house): State<Arc<House>>,
    _: NoQuery,
    Path(service): Path<ServiceName>,
    by: Giver,
    Body(request): Body<ServiceLevelRequest>,
) -> Result<Json<LevelChanged>, Refused> {
    let site = house.resident(&service)?.site;
    let level = request.level;
    if !is_level(&level) {
        let text = format!("level {level:?}: not a word that could be sent");
        return Err(Refused::new(StatusCode::BAD_REQUEST, text)
            .hint("1 to 64 letters, digits and any of -_.:=, such as \"debug\""));
    }
    // Of its own: a caller that leaves does not leave half of the processes at another level.
    let changed = tokio::spawn(async move { site.change_level(&level, &by).await }).await;
    match changed {
        Ok(Ok(changed)) => Ok(Json(changed)),
        Ok(Err(LevelStays::NoWay(fault))) => Err(Refused::of(StatusCode::NOT_FOUND, fault)),
        Ok(Err(LevelStays::NotNow(fault))) => Err(Refused::of(StatusCode::CONFLICT, fault)),
        Ok(Err(LevelStays::NotTaken(fault))) => Err(Refused::of(StatusCode::BAD_GATEWAY, fault)),
        Err(ended) => {
            let text = format!("the change of the level ended: {ended}");
            Err(Refused::new(StatusCode::INTERNAL_SERVER_ERROR, text))
        }
    }
}

fn refused(fault: Fault) -> Refused {
    let status = match fault.exit {
        Exit::Usage => StatusCode::BAD_REQUEST,
        _ => StatusCode::CONFLICT,
    };
    Refused::of(status, fault)
}
