//! `hotctl reload` and `hotctl upgrade`: what is done to the daemon itself, and what came of it.

use reqwest::Method;

use super::answer;
use crate::api::{ReloadRequest, Reloaded, UpgradeRequest, Upgraded};
use crate::cli::{self, Form};
use crate::client::Client;
use crate::fault::Fault;

/// `hotctl reload`.
pub async fn reload(client: &Client, asked: &cli::Reload, form: Form) -> Result<(), Fault> {
    let request = ReloadRequest {
        dry_run: asked.dry_run,
    };
    let response = client.order(Method::POST, "/v1/reload", &request).await?;
    let reloaded: Reloaded = response.json().await.map_err(|cause| client.lost(&cause))?;
    answer(form, &reloaded, || words(&reloaded))
}

fn words(reloaded: &Reloaded) -> String {
    let Reloaded {
        file,
        revision,
        dry_run,
        changes,
        notes,
    } = reloaded;
    let mut out = match (changes.is_empty(), dry_run) {
        (true, _) => format!("{file}: nothing has changed, revision {revision} is in force"),
        (false, true) => format!("{file}: would change, and was not applied:"),
        (false, false) => format!("{file}: revision {revision} is in force:"),
    };
    for change in changes {
        out.push_str(&format!("\n  {change}"));
    }
    for note in notes {
        out.push_str(&format!("\n  {note}"));
    }
    out
}

/// `hotctl upgrade`.
pub async fn upgrade(client: &Client, asked: &cli::Upgrade, form: Form) -> Result<(), Fault> {
    let binary = asked.binary.as_ref().map(|binary| {
        // The daemon has another working directory.
        std::path::absolute(binary)
            .map_err(|cause| Fault::config(format!("binary {}: {cause}", binary.display())))
    });
    let request = UpgradeRequest {
        binary: binary.transpose()?,
    };
    let response = client.order(Method::POST, "/v1/upgrade", &request).await?;
    let upgraded: Upgraded = response.json().await.map_err(|cause| client.lost(&cause))?;
    answer(form, &upgraded, || {
        let Upgraded {
            version,
            pid,
            took_ms,
        } = &upgraded;
        format!("hotctl {version} serves, pid {pid}, after {took_ms} ms")
    })
}
