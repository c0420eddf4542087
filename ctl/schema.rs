//! The JSON Schema of what each command answers with `--json`: the shapes of the control API and
//! of the commands themselves, so that no copy can fall behind.

use clap::ValueEnum;
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use crate::answers::{Checked, Diagnosis, Failure, Levels, LogLine, Version, Watched, Written};
use crate::api::{DeploymentRecord, EventLine, Progress, ReleaseLine, Reloaded, Status, Upgraded};

/// What has a schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Subject {
    Deploy,
    Rollback,
    Stop,
    Start,
    Restart,
    Pause,
    Resume,
    Watch,
    Maintenance,
    Cancel,
    Status,
    Releases,
    History,
    Show,
    Logs,
    Events,
    Reload,
    Upgrade,
    LogLevel,
    Check,
    Init,
    Man,
    Version,
    Doctor,
    /// What every command that fails prints on standard error.
    Failure,
}

/// Where the shapes stand in an OpenAPI document, and in a JSON Schema.
const IN_API: &str = "#/components/schemas/";
const IN_SCHEMA: &str = "#/$defs/";

/// The schema.
pub fn of(subject: Subject) -> Value {
    use Subject as S;
    match subject {
        S::Deploy
        | S::Rollback
        | S::Stop
        | S::Start
        | S::Restart
        | S::Pause
        | S::Resume
        | S::Maintenance
        | S::Cancel => line::<Progress>(subject),
        S::Watch => line::<Watched>(subject),
        S::Events => line::<EventLine>(subject),
        S::Logs => line::<LogLine>(subject),
        S::Failure => line::<Failure>(subject),
        S::Status => whole::<Status>(subject),
        S::History => whole::<Vec<DeploymentRecord>>(subject),
        S::Show => whole::<DeploymentRecord>(subject),
        S::Releases => whole::<Vec<ReleaseLine>>(subject),
        S::Reload => whole::<Reloaded>(subject),
        S::Upgrade => whole::<Upgraded>(subject),
        S::LogLevel => whole::<Levels>(subject),
        S::Check => whole::<Checked>(subject),
        S::Init | S::Man => whole::<Written>(subject),
        S::Version => whole::<Version>(subject),
        S::Doctor => whole::<Diagnosis>(subject),
    }
}

/// The name of a subject on the command line.
pub fn name(subject: Subject) -> String {
    subject
        .to_possible_value()
        .map(|value| value.get_name().to_owned())
        .unwrap_or_default()
}

fn whole<T: ToSchema>(subject: Subject) -> Value {
    document::<T>(subject, "The whole of standard output.")
}

fn line<T: ToSchema>(subject: Subject) -> Value {
    document::<T>(subject, "Each line.")
}

fn document<T: ToSchema>(subject: Subject, extent: &str) -> Value {
    let mut shapes = Vec::new();
    T::schemas(&mut shapes);
    let shapes: Map<String, Value> = shapes
        .into_iter()
        .map(|(name, shape)| (name, json!(shape)))
        .collect();
    let title = match subject {
        Subject::Failure => "a command that fails, with --json".to_owned(),
        subject => format!("hotctl {} --json", name(subject)),
    };
    let mut document = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": title,
        "$comment": extent,
        "allOf": [T::schema()],
        "$defs": shapes,
    });
    at_home(&mut document);
    document
}

/// Let every reference lead to the definitions of this document.
fn at_home(value: &mut Value) {
    match value {
        Value::String(text) => {
            if let Some(name) = text.strip_prefix(IN_API) {
                *text = format!("{IN_SCHEMA}{name}");
            }
        }
        Value::Array(all) => all.iter_mut().for_each(at_home),
        Value::Object(all) => all.values_mut().for_each(at_home),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn every_schema_is_one_and_stands_by_itself() {
        for subject in Subject::value_variants() {
            let schema = of(*subject);
            jsonschema::meta::validate(&schema).unwrap_or_else(|e| panic!("{subject:?}: {e}"));
            // Building it resolves every reference.
            jsonschema::validator_for(&schema).unwrap_or_else(|e| panic!("{subject:?}: {e}"));
        }
    }
}
