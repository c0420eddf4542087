//! The commands that look: what runs, what is stored, what was written, what has happened.

use hotctl_config::names::ReleaseId;

use super::{answer, service, service_path, unknown, with_query};
use crate::answers::{LogLine, Version};
use crate::api::{
    DeploymentRecord, EventLine, EventsQuery, HistoryQuery, LogsQuery, ReleaseLine, Status,
};
use crate::cli::{self, Form, LogsOf};
use crate::client::{self, Client, Lines};
use crate::fault::{Exit, Fault};
use crate::print::{self, Reader};

/// With how many events following them begins.
const RECENT: u64 = 20;

/// `hotctl version`.
pub async fn version(client: Option<Client>, form: Form) -> Result<(), Fault> {
    let daemon = match client {
        Some(client) => Some(client.get::<Status>("/v1/status").await?.version),
        None => None,
    };
    let version = Version {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        daemon,
    };
    answer(form, &version, || match &version.daemon {
        Some(daemon) => format!("hotctl {}\ndaemon {daemon}", version.version),
        None => format!("hotctl {}\nno daemon reached", version.version),
    })
}

/// `hotctl status`.
pub async fn status(client: &Client, asked: &cli::Status, form: Form) -> Result<(), Fault> {
    let mut status: Status = client.get("/v1/status").await?;
    if let Some(wanted) = &asked.service {
        if !status.services.iter().any(|s| s.name == *wanted) {
            return Err(unknown(wanted, &status));
        }
        status.services.retain(|s| s.name == *wanted);
    }
    answer(form, &status, || print::status(&status))
}

/// `hotctl releases`.
pub async fn releases(client: &Client, asked: &cli::Releases, form: Form) -> Result<(), Fault> {
    let service = service_path(client, asked.service.as_ref()).await?;
    let lines: Vec<ReleaseLine> = client.get(&format!("{service}/releases")).await?;
    answer(form, &lines, || print::releases(&lines))
}

/// `hotctl history`.
pub async fn history(client: &Client, asked: &cli::History, form: Form) -> Result<(), Fault> {
    let service = service_path(client, asked.service.as_ref()).await?;
    let query = HistoryQuery {
        limit: Some(asked.limit),
    };
    let path = with_query(&format!("{service}/deployments"), &query)?;
    let records: Vec<DeploymentRecord> = client.get(&path).await?;
    answer(form, &records, || print::history(&records))
}

/// `hotctl show`.
pub async fn show(client: &Client, asked: &cli::Show, form: Form) -> Result<(), Fault> {
    let service = service_path(client, asked.service.as_ref()).await?;
    let path = format!("{service}/deployments/{}", asked.number);
    let record: DeploymentRecord = client.get(&path).await?;
    answer(form, &record, || print::record(&record))
}

/// `hotctl logs`.
pub async fn logs(client: &Client, asked: &cli::Logs, form: Form) -> Result<(), Fault> {
    let (named, release) = match &asked.of {
        None => (None, asked.release),
        Some(LogsOf::Service(name)) => (Some(name), asked.release),
        Some(LogsOf::Release(id)) if asked.release.is_some_and(|n| n != id.number) => {
            return Err(
                Fault::config(format!("{id} and --release differ")).hint("name one release")
            );
        }
        Some(LogsOf::Release(id)) => (Some(&id.service), Some(id.number)),
    };
    let mut query = LogsQuery {
        lines: Some(asked.lines),
        follow: asked.follow,
        release,
    };
    let service = service(client, named).await?;
    let path = format!("/v1/services/{service}/logs");
    let release = release.map(|number| ReleaseId { service, number });
    let as_json = |line| {
        serde_json::to_string(&LogLine {
            release: release.clone(),
            line,
        })
        .map_err(|cause| Fault::failed(cause.to_string()))
    };
    let mut answer = client.stream(&with_query(&path, &query)?).await?;
    loop {
        let told = match form {
            Form::Words => client::copy_to_stdout(client, answer).await,
            Form::Json => each_line(client, answer, as_json).await,
        };
        let Some(next) = next_daemon(client, asked.follow, &told).await else {
            return told;
        };
        query.lines = Some(0);
        answer = next.stream(&with_query(&path, &query)?).await?;
    }
}

/// `hotctl events`.
pub async fn events(client: &Client, asked: &cli::Events, form: Form) -> Result<(), Fault> {
    let service = match &asked.service {
        Some(named) => Some(service(client, Some(named)).await?),
        None => None,
    };
    let mut query = EventsQuery {
        after: asked.after,
        last: asked.last.or_else(|| asked.follow.then_some(RECENT)),
        service,
        follow: asked.follow,
    };
    let mut last = None;
    let mut answer = client.stream(&with_query("/v1/events", &query)?).await?;
    loop {
        let told = each_line(client, answer, |line| {
            let event = serde_json::from_str::<EventLine>(&line);
            if let Ok(EventLine::Event(event)) = &event {
                last = Some(event.number);
            }
            Ok(match (form, event) {
                (Form::Words, Ok(event)) => print::event_line(&event),
                // Of a newer daemon: better as it is than not at all.
                (Form::Words, Err(_)) | (Form::Json, _) => line,
            })
        })
        .await;
        let Some(next) = next_daemon(client, asked.follow, &told).await else {
            return told;
        };
        query.after = last.or(query.after);
        answer = next.stream(&with_query("/v1/events", &query)?).await?;
    }
}

/// Where the daemon has ended that was followed: the next one.
async fn next_daemon(client: &Client, follows: bool, told: &Result<(), Fault>) -> Option<Client> {
    match told {
        Err(fault) if follows && fault.exit == Exit::Unreachable => client.next_daemon().await,
        _ => None,
    }
}

/// Print what becomes of each line, until the answer ends or nobody reads any more.
async fn each_line(
    client: &Client,
    answer: reqwest::Response,
    mut shown: impl FnMut(String) -> Result<String, Fault>,
) -> Result<(), Fault> {
    let mut lines = Lines::of(answer);
    while let Some(line) = lines.next().await.map_err(|cause| client.lost(&cause))? {
        match print::line(&shown(line)?) {
            Ok(Reader::There) => {}
            Ok(Reader::Gone) => return Ok(()),
            Err(cause) => return Err(Fault::failed(format!("standard output: {cause}"))),
        }
    }
    Ok(())
}
