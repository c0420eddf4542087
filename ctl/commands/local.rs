//! The commands that need no daemon: about files, and about hotctl itself.

use std::path::{Path, PathBuf};

use clap::{CommandFactory as _, ValueEnum as _};
use hotctl_config::names::ServiceName;

use super::{answer, say};
use crate::answers::{Checked, Written};
use crate::cli::{self, Cli, Form, Unit};
use crate::fault::Fault;
use crate::schema::{self, Subject};
use crate::{daemon, openapi};

/// The configuration that is meant.
fn find(named: Option<&Path>) -> Result<PathBuf, Fault> {
    let found = hotctl_config::find(named).map_err(daemon::refused)?;
    found.ok_or_else(|| {
        Fault::config(
            "no configuration found: neither ./hotctl.toml nor /etc/hotctl/hotctl.toml is there",
        )
        .hint("`hotctl init` writes one")
    })
}

/// `hotctl check`.
pub fn check(check: &cli::Check, form: Form) -> Result<(), Fault> {
    let path = find(check.config.as_deref())?;
    let config = hotctl_config::read(&path).map_err(daemon::refused)?;
    let checked = Checked {
        file: path.display().to_string(),
        services: config.services.keys().cloned().collect(),
    };
    answer(form, &checked, || {
        let services: Vec<&str> = checked.services.iter().map(ServiceName::as_str).collect();
        format!("{}: good; services: {}", checked.file, services.join(", "))
    })
}

/// `hotctl alerts`.
pub fn alerts() -> Result<(), Fault> {
    say(include_str!("../alerts/hotctl.yml").trim_end())
}

/// `hotctl systemd`.
pub fn systemd(asked: &cli::Systemd) -> Result<(), Fault> {
    let path = find(asked.config.as_deref())?;
    let config = hotctl_config::read(&path).map_err(daemon::refused)?;
    match asked.unit {
        Unit::Socket => {
            let listen = config.listen.iter();
            let listen: Vec<String> = listen
                .map(|one| format!("ListenStream={}", one.address))
                .collect();
            if config.listen.iter().any(|one| one.address.port() == 0) {
                let text = format!("{}: listen: systemd cannot hold port 0", path.display());
                return Err(Fault::config(text).hint("name a port"));
            }
            let unit = include_str!("../units/hotctl.socket");
            say(unit.replace("{listen}", &listen.join("\n")).trim_end())
        }
        Unit::Service => {
            let absolute = std::path::absolute(&path);
            let binary = std::env::current_exe();
            let (path, binary) = match (absolute, binary) {
                (Ok(path), Ok(binary)) => (path, binary),
                (Err(cause), _) | (_, Err(cause)) => return Err(Fault::failed(cause.to_string())),
            };
            let unit = include_str!("../units/hotctl.service")
                .replace("{binary}", &word(&binary)?)
                .replace("{config}", &word(&path)?);
            say(unit.trim_end())
        }
    }
}

/// A path as one word of a unit (systemd.service(5), command lines).
fn word(path: &Path) -> Result<String, Fault> {
    let refused = |why: &str| {
        Fault::config(format!("{}: {why}", path.display())).hint("move it to another place")
    };
    let text = path.to_str().ok_or_else(|| refused("is not UTF-8"))?;
    if text.contains(['"', '\\', '\'']) || text.contains(char::is_control) {
        return Err(refused("has characters that a unit cannot have"));
    }
    let text = text.replace('%', "%%").replace('$', "$$");
    Ok(match text.contains(' ') {
        true => format!("\"{text}\""),
        false => text,
    })
}

/// `hotctl completions`.
pub fn completions(asked: &cli::Completions) -> Result<(), Fault> {
    let mut script = Vec::new();
    clap_complete::generate(asked.shell, &mut Cli::command(), "hotctl", &mut script);
    say(String::from_utf8_lossy(&script).trim_end())
}

/// `hotctl man`.
pub fn man(asked: &cli::Man, form: Form) -> Result<(), Fault> {
    let Some(folder) = &asked.out else {
        let mut page = Vec::new();
        clap_mangen::Man::new(Cli::command())
            .render(&mut page)
            .map_err(|cause| Fault::failed(format!("manual page: {cause}")))?;
        return say(String::from_utf8_lossy(&page).trim_end());
    };
    let shown = folder.display();
    if !folder.is_dir() {
        return Err(
            Fault::config(format!("{shown}: no such folder")).hint(format!("mkdir -p {shown}"))
        );
    }
    clap_mangen::generate_to(Cli::command(), folder)
        .map_err(|cause| Fault::config(format!("{shown}: {cause}")))?;
    let command = Cli::command();
    let names = command.get_subcommands().map(clap::Command::get_name);
    let pages = names.map(|name| format!("hotctl-{name}.1"));
    let files = std::iter::once("hotctl.1".to_owned()).chain(pages);
    let written = Written {
        files: files
            .map(|file| folder.join(file).display().to_string())
            .collect(),
        unmapped: Vec::new(),
    };
    answer(form, &written, || {
        format!("wrote {} pages into {shown}", written.files.len())
    })
}

/// `hotctl openapi`.
pub fn openapi() -> Result<(), Fault> {
    let text = openapi::document()
        .to_pretty_json()
        .map_err(|cause| Fault::failed(cause.to_string()))?;
    say(&text)
}

/// `hotctl schema`.
pub fn schema(asked: &cli::Schema) -> Result<(), Fault> {
    let Some(subject) = asked.command else {
        let names: Vec<String> = Subject::value_variants()
            .iter()
            .map(|subject| schema::name(*subject))
            .collect();
        return say(&names.join("\n"));
    };
    let text = serde_json::to_string_pretty(&schema::of(subject))
        .map_err(|cause| Fault::failed(cause.to_string()))?;
    say(&text)
}
