//! `hotctl doctor`: what is wrong with this machine, this configuration and this daemon, each with
//! its remedy. Looks, and changes nothing.

mod network;
mod places;
mod services;
mod system;

use hotctl_config::file::Config;

use crate::answers::{Diagnosis, Finding, Verdict};
use crate::api::{Refusal, Status};
use crate::cli::{self, Form, Places};
use crate::client::Client;
use crate::fault::Fault;
use crate::paint::{BAD, GOOD, LOOK, in_style};
use crate::print;

/// Look at everything, and print it.
///
/// # Errors
/// If something is wrong.
pub async fn run(places: &Places, asked: &cli::Doctor, form: Form) -> Result<(), Fault> {
    let daemon = running(places).await;
    let mut checks = places::check(places, daemon.as_ref()).await;
    let (config, finding) = configuration(asked);
    checks.push(finding);
    if let Some(config) = &config {
        checks.extend(network::check(config, daemon.as_ref()));
        checks.extend(services::check(config, &places::state(places)));
    }
    checks.extend(daemon.iter().flat_map(damaged));
    checks.extend(system::check(config.as_ref()));
    let wrong = checks
        .iter()
        .filter(|one| one.verdict == Verdict::Wrong)
        .count();
    let diagnosis = Diagnosis { wrong, checks };
    let text = match form {
        Form::Words => words(&diagnosis),
        Form::Json => serde_json::to_string_pretty(&diagnosis)
            .map_err(|cause| Fault::failed(cause.to_string()))?,
    };
    print::line(&text).map_err(|cause| Fault::failed(format!("standard output: {cause}")))?;
    match diagnosis.wrong {
        0 => Ok(()),
        1 => Err(Fault::failed("one check found something wrong")),
        n => Err(Fault::failed(format!("{n} checks found something wrong"))),
    }
}

impl Finding {
    fn new(check: &str, verdict: Verdict, text: impl Into<String>) -> Self {
        Self {
            check: check.to_owned(),
            verdict,
            text: text.into(),
            hint: None,
        }
    }

    fn good(check: &str, text: impl Into<String>) -> Self {
        Self::new(check, Verdict::Good, text)
    }

    fn note(check: &str, text: impl Into<String>) -> Self {
        Self::new(check, Verdict::Note, text)
    }

    fn wrong(check: &str, text: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            hint: Some(hint.into()),
            ..Self::new(check, Verdict::Wrong, text)
        }
    }

    /// What would keep the daemon from starting, in its own words.
    fn of_fault(check: &str, fault: Fault) -> Self {
        Self {
            hint: fault.hint,
            ..Self::new(check, Verdict::Wrong, fault.text)
        }
    }
}

/// The daemon that runs, if one does.
async fn running(places: &Places) -> Option<Status> {
    let client = Client::find(places).await.ok()?;
    client.get("/v1/status").await.ok()
}

/// The services whose state cannot be read.
fn damaged(daemon: &Status) -> Vec<Finding> {
    let damaged = daemon.services.iter().filter_map(|service| {
        let Refusal { error, hint } = service.damage.as_ref()?;
        let check = format!("{}: state", service.name);
        Some(Finding::wrong(
            &check,
            error,
            hint.clone().unwrap_or_default(),
        ))
    });
    damaged.collect()
}

fn configuration(asked: &cli::Doctor) -> (Option<Config>, Finding) {
    const CHECK: &str = "configuration";
    let refused = |problems: hotctl_config::Problems| {
        let problem = Finding::wrong(
            CHECK,
            problems.to_string(),
            "put that right, then `hotctl check`",
        );
        (None, problem)
    };
    let path = match hotctl_config::find(asked.config.as_deref()) {
        Ok(Some(path)) => path,
        Ok(None) => {
            let text = "none: neither ./hotctl.toml nor /etc/hotctl/hotctl.toml is there";
            return (None, Finding::note(CHECK, text));
        }
        Err(problems) => return refused(problems),
    };
    match hotctl_config::read(&path) {
        Ok(config) => {
            let services = config.services.len();
            let text = format!(
                "{}: {services} service{}",
                path.display(),
                if services == 1 { "" } else { "s" }
            );
            (Some(config), Finding::good(CHECK, text))
        }
        Err(problems) => refused(problems),
    }
}

fn words(diagnosis: &Diagnosis) -> String {
    let wide = diagnosis.checks.iter().map(|one| one.check.chars().count());
    let wide = wide.max().unwrap_or(0);
    let lines = diagnosis.checks.iter().map(|one| {
        let verdict = match one.verdict {
            Verdict::Good => in_style(GOOD, "good "),
            Verdict::Note => in_style(LOOK, "note "),
            Verdict::Wrong => in_style(BAD, "wrong"),
        };
        let indent = " ".repeat(7 + wide + 2);
        let text = one.text.replace('\n', &format!("\n{indent}"));
        let hint = one
            .hint
            .as_ref()
            .map(|hint| format!("\n{indent}try: {hint}"))
            .unwrap_or_default();
        format!("{verdict}  {:<wide$}  {text}{hint}", one.check)
    });
    lines.collect::<Vec<_>>().join("\n")
}
