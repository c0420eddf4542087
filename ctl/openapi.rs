//! The description of the control API (OpenAPI 3.1), made from the handlers and the shapes they
//! speak, and the JSON Schemas of what the commands print, which are those same shapes.

use hotctl_config::names::ServiceName;
use utoipa::openapi::schema::{Object, Schema, Type};
use utoipa::openapi::{KnownFormat, OpenApi, RefOr, SchemaFormat};
use utoipa::{OpenApi as _, PartialSchema, ToSchema};

use crate::api::{Refusal, UploadKind};
use crate::control;

/// The whole description.
pub fn document() -> OpenApi {
    control::routes().into_openapi()
}

/// What stands above the paths.
pub fn head() -> OpenApi {
    Head::openapi()
}

/// The control API of hotctl.
///
/// HTTP/1.1 on the control socket, such as `curl --unix-socket /run/hotctl/control.sock
/// http://hotctl/v1/status`. Fields are added, never changed or removed; a reader must pass over
/// those that it does not know. A query parameter or a field of a request that is not described is
/// refused.
#[derive(utoipa::OpenApi)]
#[openapi(
    info(title = "hotctl"),
    components(schemas(Refusal, ServiceName, UploadKind)),
    servers((url = "http://hotctl", description = "Any host: the control socket is where it goes"))
)]
struct Head;

/// A body of bytes; there is no value of it, it only stands in the description.
pub enum Octets {}

impl PartialSchema for Octets {
    fn schema() -> RefOr<Schema> {
        Object::builder()
            .schema_type(Type::String)
            .format(Some(SchemaFormat::KnownFormat(KnownFormat::Binary)))
            .into()
    }
}

impl ToSchema for Octets {}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn every_reference_of_the_description_leads_somewhere() {
        let document = serde_json::to_value(document()).unwrap();
        let text = document.to_string();
        let marker = "#/components/schemas/";
        assert!(text.contains(marker));
        for (at, _) in text.match_indices(marker) {
            let name = text[at + marker.len()..].split('"').next().unwrap();
            assert!(
                document["components"]["schemas"].get(name).is_some(),
                "{name} is referred to, and not described"
            );
        }
    }

    #[test]
    fn every_operation_documents_what_it_answers_and_how_it_refuses() {
        let document = serde_json::to_value(document()).unwrap();
        for (path, methods) in document["paths"].as_object().unwrap() {
            for (method, operation) in methods.as_object().unwrap() {
                let what = format!("{method} {path}");
                assert!(operation["summary"].is_string(), "{what}");
                for status in ["200", "404"] {
                    assert!(
                        operation["responses"][status].is_object(),
                        "{what} {status}"
                    );
                }
            }
        }
    }
}
