//! The configuration over the control API: to read it again.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;

use crate::api::{ReloadRequest, Reloaded};
use crate::fault::Exit;
use crate::house::House;
use crate::refused::{BodyOrDefault, NoQuery, Refused};
use crate::reload::Mode;
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
    let status = match fault.exit {
        Exit::Usage => StatusCode::BAD_REQUEST,
        _ => StatusCode::CONFLICT,
    };
    let refused = Refused::new(status, fault.text);
    Err(match fault.hint {
        Some(hint) => refused.hint(hint),
        None => refused,
    })
}
