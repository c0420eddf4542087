//! What the control API says when it does not do what was asked: one shape for every answer that
//! is not 2xx, whoever refuses, a handler or the framework. Knows no order and no service.

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, JsonRejection, PathRejection, QueryRejection};
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use hotctl_deploy::refused::Refused as NotTaken;
use serde::de::DeserializeOwned;
use utoipa::openapi::{ContentBuilder, Ref, ResponseBuilder, Responses, ResponsesBuilder};

use crate::api::Refusal;
use crate::fault::Fault;

/// An answer that is not 2xx.
#[derive(Debug)]
pub struct Refused {
    status: StatusCode,
    refusal: Refusal,
}

/// A body of JSON; anything else is refused in the one shape.
#[derive(Debug, FromRequest)]
#[from_request(via(axum::Json), rejection(Refused))]
pub struct Body<T>(pub T);

/// A body of JSON that may be left out: then everything in it has its default.
#[derive(Debug)]
pub struct BodyOrDefault<T>(pub T);

impl<S: Send + Sync, T: Default + DeserializeOwned> FromRequest<S> for BodyOrDefault<T> {
    type Rejection = Refused;

    async fn from_request(request: Request, state: &S) -> Result<Self, Refused> {
        let body = Bytes::from_request(request, state).await?;
        match body.trim_ascii() {
            b"" | b"null" => Ok(Self(T::default())),
            // Its fields in a list would be understood, too, and nobody means that.
            body if !body.starts_with(b"{") => Err(Refused::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "body: not an object",
            )
            .hint("GET /v1/openapi.json says what each path takes, and where")),
            body => {
                let read = serde_json::from_slice(body).map_err(|cause| {
                    Refused::new(StatusCode::UNPROCESSABLE_ENTITY, format!("body: {cause}"))
                })?;
                Ok(Self(read))
            }
        }
    }
}

/// The query of the address.
#[derive(Debug, FromRequestParts)]
#[from_request(via(axum::extract::Query), rejection(Refused))]
pub struct Query<T>(pub T);

/// The variable parts of the path.
#[derive(Debug, FromRequestParts)]
#[from_request(via(axum::extract::Path), rejection(Refused))]
pub struct Path<T>(pub T);

impl Refused {
    /// Why, object first.
    pub fn new(status: StatusCode, error: impl Into<String>) -> Self {
        Self {
            status,
            refusal: Refusal {
                error: error.into(),
                hint: None,
            },
        }
    }

    /// A fault, with its remedy where it has one.
    pub fn of(status: StatusCode, fault: Fault) -> Self {
        Self {
            status,
            refusal: Refusal {
                error: fault.text,
                hint: fault.hint,
            },
        }
    }

    /// The same with a remedy.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.refusal.hint = Some(hint.into());
        self
    }

    /// A release or a command that is not taken.
    pub fn not_taken(status: StatusCode, refused: NotTaken) -> Self {
        Self {
            status,
            refusal: Refusal {
                error: refused.text,
                hint: refused.hint,
            },
        }
    }

    /// A path that is none of the API's.
    pub async fn no_such_path() -> Self {
        Self::new(StatusCode::NOT_FOUND, "no such path in the control API")
            .hint("GET /v1/openapi.json lists them")
    }

    /// A path of the API, but not with this method.
    pub async fn no_such_method() -> Self {
        Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "this path does not take that method",
        )
        .hint("the Allow header lists those it takes")
    }
}

/// For a path that takes no query: one that is there all the same is a slip, and is refused before
/// anything is done.
#[derive(Debug, Clone, Copy)]
pub struct NoQuery;

impl<S: Sync> FromRequestParts<S> for NoQuery {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refused> {
        match parts.uri.query() {
            None | Some("") => Ok(Self),
            Some(query) => Err(Refused::new(
                StatusCode::BAD_REQUEST,
                format!("query: {query:?}: this path takes no query"),
            )
            .hint("GET /v1/openapi.json says what each path takes, and where")),
        }
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        (self.status, Json(self.refusal)).into_response()
    }
}

/// What the framework refuses keeps its status and gets the one shape.
macro_rules! from_rejection {
    ($rejection:ident, $what:literal) => {
        impl From<$rejection> for Refused {
            fn from(rejection: $rejection) -> Self {
                Self::new(
                    rejection.status(),
                    format!("{}: {}", $what, plainly(&rejection.body_text())),
                )
            }
        }
    };
}

from_rejection!(BytesRejection, "body");
from_rejection!(JsonRejection, "body");
from_rejection!(QueryRejection, "query");
from_rejection!(PathRejection, "path");

/// What is wrong, without the framework's opening words.
fn plainly(text: &str) -> &str {
    text.split_once(": ").map_or(text, |(_, rest)| rest)
}

impl utoipa::IntoResponses for Refused {
    fn responses()
    -> std::collections::BTreeMap<String, utoipa::openapi::RefOr<utoipa::openapi::Response>> {
        let refusals = [
            (400, "The query, the path or the body is not as described."),
            (403, "The caller may not steer this hotctl."),
            (404, "There is no such service, release, content or path."),
            (405, "The path does not take that method."),
            (409, "What is under way does not allow it."),
            (413, "The body is too large."),
            (415, "The body is not JSON by its content type."),
            (422, "The body is read, and what it says is refused."),
            (
                502,
                "A process of the service was asked, and did not answer as it should.",
            ),
            (
                503,
                "hotctl is ending, or the state of the service is damaged.",
            ),
        ];
        let responses =
            refusals
                .into_iter()
                .fold(ResponsesBuilder::new(), |all, (status, what)| {
                    let shape = ContentBuilder::new()
                        .schema(Some(Ref::from_schema_name("Refusal")))
                        .build();
                    let one = ResponseBuilder::new()
                        .description(what)
                        .content("application/json", shape);
                    all.response(status.to_string(), one)
                });
        Responses::from(responses).responses
    }
}
