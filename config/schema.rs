//! How names look in a JSON Schema, as the control API shows them. Pure.

use std::borrow::Cow;

use utoipa::openapi::schema::{Object, ObjectBuilder, Schema, Type};
use utoipa::openapi::{KnownFormat, RefOr, SchemaFormat};
use utoipa::{PartialSchema, ToSchema};

use crate::address::Address;
use crate::names::{Digest, ReleaseId, ServiceName, Slot};
use crate::port_name::PortName;

/// Text of one form. The pattern is what the parser takes, as far as a pattern can say it.
fn text(what: &str, example: &str, pattern: Option<&str>) -> RefOr<Schema> {
    Object::builder()
        .schema_type(Type::String)
        .description(Some(what))
        .pattern(pattern)
        .examples([example])
        .into()
}

macro_rules! text_schema {
    ($name:ident, $what:literal, $example:literal, $pattern:expr) => {
        impl PartialSchema for $name {
            fn schema() -> RefOr<Schema> {
                text($what, $example, $pattern)
            }
        }

        impl ToSchema for $name {
            fn name() -> Cow<'static, str> {
                stringify!($name).into()
            }
        }
    };
}

text_schema!(
    ServiceName,
    "The name of a service.",
    "web",
    Some("^[a-z0-9][a-z0-9-]{0,62}$")
);
text_schema!(
    ReleaseId,
    "A release: its service, and its number.",
    "web@7",
    Some("^[a-z0-9][a-z0-9-]{0,62}@[1-9][0-9]*$")
);
text_schema!(
    Digest,
    "The digest of a release's content (BLAKE3).",
    "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262",
    Some("^[0-9a-f]{64}$")
);
text_schema!(
    PortName,
    "The name of a port beside the address.",
    "debug",
    Some("^[a-z][a-z0-9_]{0,31}$")
);
text_schema!(
    Address,
    "Where a process listens: address and port, or the path of a unix socket.",
    "127.0.0.1:20000",
    None
);

impl PartialSchema for Slot {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(Type::Integer)
            .format(Some(SchemaFormat::KnownFormat(KnownFormat::Int32)))
            .minimum(Some(0))
            .description(Some("Where a release runs; counts up."))
            .into()
    }
}

impl ToSchema for Slot {}
