//! The admin listener: metrics and health, read only. Steers nothing.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hotctl_proxy::Stage;
use prometheus::{Encoder as _, Registry, TextEncoder};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tracing::error;

use crate::house::{House, Lodger};

#[derive(Clone)]
struct Shown {
    registry: Registry,
    house: Arc<House>,
    stage: watch::Receiver<Stage>,
}

/// Answer until the task is dropped.
pub async fn serve(
    listener: TcpListener,
    registry: Registry,
    house: Arc<House>,
    stage: watch::Receiver<Stage>,
) {
    let shown = Shown {
        registry,
        house,
        stage,
    };
    let app = Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .with_state(shown);
    if let Err(cause) = axum::serve(listener, app).await {
        error!(%cause, "the admin listener ended");
    }
}

async fn metrics(State(shown): State<Shown>) -> Response {
    let mut text = Vec::new();
    let encoder = TextEncoder::new();
    match encoder.encode(&shown.registry.gather(), &mut text) {
        Ok(()) => (
            [(header::CONTENT_TYPE, encoder.format_type().to_owned())],
            text,
        )
            .into_response(),
        Err(cause) => (StatusCode::INTERNAL_SERVER_ERROR, cause.to_string()).into_response(),
    }
}

/// Ready = accepting, and everything that should be live is.
async fn ready(State(shown): State<Shown>) -> Response {
    if *shown.stage.borrow() == Stage::Closing {
        return (StatusCode::SERVICE_UNAVAILABLE, "ending\n").into_response();
    }
    let lodgers = shown.house.lodgers();
    let down: Vec<&str> = lodgers
        .iter()
        .filter(|(_, lodger)| is_down(lodger))
        .map(|(name, _)| name.as_str())
        .collect();
    if down.is_empty() {
        return "ready\n".into_response();
    }
    let text = format!("not running: {}\n", down.join(", "));
    (StatusCode::SERVICE_UNAVAILABLE, text).into_response()
}

/// Whether it should be live, or may have been, and is not.
fn is_down(lodger: &Lodger) -> bool {
    let site = match lodger {
        Lodger::Well(resident) => &resident.site,
        Lodger::Damaged(_) => return true,
    };
    site.ledger().live.is_some()
        && !site
            .slots()
            .iter()
            .any(|slot| slot.role == "live" && slot.instances.iter().any(|one| one.pid.is_some()))
}
