//! `hotctl reload`: let the daemon read its configuration again, and say what has changed.

use reqwest::Method;

use super::answer;
use crate::api::{ReloadRequest, Reloaded};
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
