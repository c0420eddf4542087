//! `hotctl log-level`: how much is written, by the daemon or by what runs of a service.

use std::collections::BTreeMap;

use hotctl_config::names::{ReleaseId, ServiceName};
use reqwest::Method;

use super::{answer, service_path};
use crate::answers::Levels;
use crate::api::{LevelChanged, LogLevel, LogLevelRequest, Logging, ServiceLevelRequest};
use crate::cli::{Form, LevelOf};
use crate::client::Client;
use crate::fault::Fault;

/// Where that of the daemon is.
const OWN: &str = "/v1/log-level";

/// `hotctl log-level`.
pub async fn log_level(client: &Client, asked: &LevelOf, form: Form) -> Result<(), Fault> {
    match asked {
        LevelOf::Shown => {
            let logging: Logging = client.get(OWN).await?;
            let text = logging.level.to_string();
            answer(form, &Levels::Daemon(logging), || text)
        }
        LevelOf::Daemon(level) => daemon(client, *level, form).await,
        LevelOf::Service(name, level) => service(client, name, level, form).await,
    }
}

async fn daemon(client: &Client, level: LogLevel, form: Form) -> Result<(), Fault> {
    let request = LogLevelRequest { level };
    let response = client.order(Method::PUT, OWN, &request).await?;
    let logging: Logging = response.json().await.map_err(|cause| client.lost(&cause))?;
    let Logging { level, before } = &logging;
    let text = match level == before {
        true => format!("{level}, as before"),
        false => format!("{level}, before: {before}"),
    };
    answer(form, &Levels::Daemon(logging), || text)
}

async fn service(
    client: &Client,
    name: &ServiceName,
    level: &str,
    form: Form,
) -> Result<(), Fault> {
    let path = format!("{}/log-level", service_path(client, Some(name)).await?);
    let request = ServiceLevelRequest {
        level: level.to_owned(),
    };
    let response = client.order(Method::PUT, &path, &request).await?;
    let changed: LevelChanged = response.json().await.map_err(|cause| client.lost(&cause))?;
    let text = words(&changed);
    answer(form, &Levels::Service(changed), || text)
}

/// `USR1 sent to 2 processes of web@3`.
fn words(changed: &LevelChanged) -> String {
    let mut releases: BTreeMap<&ReleaseId, usize> = BTreeMap::new();
    for process in &changed.processes {
        *releases.entry(&process.release).or_default() += 1;
    }
    let to: Vec<String> = releases
        .into_iter()
        .map(|(release, count)| {
            let es = if count == 1 { "" } else { "es" };
            format!("{count} process{es} of {release}")
        })
        .collect();
    let to = to.join(" and ");
    let level = &changed.level;
    match (&changed.signal, &changed.request) {
        (Some(signal), _) => format!(
            "{signal} sent to {to}; a signal names no level, so what {level} is to them is their own"
        ),
        (None, Some(request)) => format!("{level}: {request} taken by {to}"),
        (None, None) => format!("{level}: taken by {to}"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use crate::api::ToldProcess;

    #[test]
    fn it_is_told_how_many_of_which_release_were_told_and_how() {
        let told = |release: &str, instance| ToldProcess {
            release: release.parse().unwrap(),
            instance,
            pid: 7,
            status: None,
        };
        let mut changed = LevelChanged {
            service: "web".parse().unwrap(),
            level: "debug".into(),
            signal: Some("USR1".into()),
            request: None,
            processes: vec![told("web@3", 0), told("web@3", 1), told("web@4", 0)],
        };
        let text = words(&changed);
        assert!(
            text.starts_with("USR1 sent to 2 processes of web@3 and 1 process of web@4; a signal"),
            "{text}"
        );
        changed.signal = None;
        changed.request = Some("PUT /log".into());
        changed.processes.truncate(1);
        assert_eq!(
            words(&changed),
            "debug: PUT /log taken by 1 process of web@3"
        );
    }
}
