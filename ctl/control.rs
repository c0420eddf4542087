//! The control API: who may call it, and which path leads to which handler. Each handler is a few
//! lines; what an order does is the service's.

mod config;
mod orders;
mod views;

use std::sync::Arc;

use axum::body::Body;
use axum::extract::connect_info::{ConnectInfo, Connected};
use axum::extract::{FromRequestParts, Request, State};
use axum::http::header::USER_AGENT;
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::serve::IncomingStream;
use axum::{Json, Router};
use tokio::net::UnixListener;
use tracing::warn;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::client;
use crate::house::{House, Steering};
use crate::openapi;
use crate::refused::{NoQuery, Refused};
use crate::who::{Giver, Via, Who};

/// The API as a router.
pub fn router(house: Arc<House>) -> Router {
    Router::from(routes())
        .fallback(Refused::no_such_path)
        .method_not_allowed_fallback(Refused::no_such_method)
        .layer(middleware::from_fn_with_state(
            house.clone(),
            whoever_steers,
        ))
        .layer(middleware::from_fn_with_state(house.clone(), only_who_may))
        .with_state(house)
}

/// Every path with its handler, and with what is documented of it.
pub fn routes() -> OpenApiRouter<Arc<House>> {
    OpenApiRouter::with_openapi(openapi::head())
        .routes(routes!(views::status))
        .routes(routes!(views::events))
        .routes(routes!(orders::put_release, views::releases))
        .routes(routes!(orders::deploy, orders::cancel, views::deployments))
        .routes(routes!(views::deployment))
        .routes(routes!(orders::rollback))
        .routes(routes!(orders::stop))
        .routes(routes!(orders::start))
        .routes(routes!(orders::restart))
        .routes(routes!(orders::pause))
        .routes(routes!(orders::resume))
        .routes(routes!(orders::begin_maintenance, orders::end_maintenance))
        .routes(routes!(views::logs))
        .routes(routes!(config::reload))
        .routes(routes!(config::upgrade))
        .routes(routes!(config::log_level, config::set_log_level))
        .routes(routes!(config::set_service_level))
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

/// While another hotctl takes over, a caller waits until it is known who steers.
async fn whoever_steers(State(house): State<Arc<House>>, request: Request, next: Next) -> Response {
    match house.steering().await {
        Steering::Replaced => {
            let refused = Refused::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "this hotctl has been replaced by another",
            );
            let mut answer = refused
                .hint("ask again: the other one answers")
                .into_response();
            let replaced = HeaderValue::from_static("1");
            answer.headers_mut().insert(client::REPLACED, replaced);
            answer
        }
        Steering::Ours | Steering::Away => next.run(request).await,
    }
}

/// This description.
#[utoipa::path(
    get,
    path = "/v1/openapi.json",
    responses((status = 200, description = "OpenAPI 3.1", body = Object), Refused)
)]
async fn description(_: NoQuery) -> Json<utoipa::openapi::OpenApi> {
    Json(openapi::document())
}

fn ndjson(body: Body) -> Response {
    ([("content-type", "application/x-ndjson")], body).into_response()
}
