//! What happens, in words: the lines of an order, and the events of the journal.

use std::collections::BTreeMap;

use chrono::{DateTime, Local};
use hotctl_config::PortName;
use hotctl_config::names::ReleaseId;
use hotctl_deploy::diagnosis::Diagnosis;
use hotctl_deploy::why::Why;

use super::{plural, time};
use crate::api::{EventLine, Missing, Noted, OpenRequests, Progress, Summary};
use crate::paint::{BAD, GOOD, LOOK, QUIET, in_style};

/// What a build says is wrong: the first errors with their places, else the end of its output.
pub fn what_is_wrong(errors: &[Diagnosis], output: &[String]) -> String {
    /// So many of them fit above what is being read.
    const SHOWN: usize = 5;
    let lines: Vec<String> = match errors.is_empty() {
        true => {
            let skip = output.len().saturating_sub(2 * SHOWN);
            output.iter().skip(skip).cloned().collect()
        }
        false => errors
            .iter()
            .take(SHOWN)
            .map(|error| {
                let column = error
                    .column
                    .map_or_else(String::new, |column| format!(":{column}"));
                format!("{}:{}{column}: {}", error.file, error.line, error.text)
            })
            .collect(),
    };
    let mut text: String = lines.iter().map(|line| format!("\n  {line}")).collect();
    match errors.len().saturating_sub(SHOWN) {
        0 => {}
        more => text.push_str(&format!("\n  and {more} more")),
    }
    text
}

/// An event as a line, if it has one of its own.
pub fn event(progress: &Progress) -> Option<String> {
    Some(match progress {
        Progress::Ordered { .. } => return None,
        Progress::Queued { behind } => format!("waiting for {behind} to end"),
        Progress::Stopping { release, .. } => {
            format!("{release} stopping: requests wait for what takes its place")
        }
        Progress::Stopped {
            release,
            took_ms,
            cut,
        } => {
            let cut = match *cut == OpenRequests::default() {
                true => String::new(),
                false => format!(": {} ended, their time was over", kinds(cut)),
            };
            format!("{release} stopped in {}{cut}", time(*took_ms))
        }
        Progress::Restored {
            release,
            took_ms,
            error: None,
        } => format!(
            "{release} {} again, started in {}",
            in_style(GOOD, "live"),
            time(*took_ms)
        ),
        Progress::Restored {
            release,
            error: Some(error),
            ..
        } => format!(
            "{release} {}: {error}",
            in_style(BAD, "is to be live again, and is not")
        ),
        Progress::Starting { release, .. } => format!("{release} starting"),
        Progress::Started {
            release,
            address,
            ports,
            pid,
            took_ms,
            ..
        } => format!(
            "{release} started on {address}{}, pid {pid} ({})",
            further_ports(ports),
            time(*took_ms)
        ),
        Progress::BeforeStart { release, command } => {
            format!("{release} before_start: {command}")
        }
        Progress::BeforeStartDone { release, took_ms } => {
            format!("{release} before_start done in {}", time(*took_ms))
        }
        Progress::Waiting { .. } => return None,
        Progress::Healthy {
            release,
            took_ms,
            probes,
        } => format!(
            "{release} healthy after {} ({probes} probe{})",
            time(*took_ms),
            plural(usize::try_from(*probes).unwrap_or(0))
        ),
        Progress::Warmed {
            release,
            path,
            status,
            error,
            took_ms,
            ..
        } => {
            let what = match (status, error) {
                (Some(status), _) => status.to_string(),
                (None, Some(error)) => error.clone(),
                (None, None) => "no answer".to_owned(),
            };
            format!("{release} warm-up {path}: {what} ({})", time(*took_ms))
        }
        Progress::OnLive {
            release,
            command,
            took_ms,
            error: None,
        } => format!("{release} on_live done in {}: {command}", time(*took_ms)),
        Progress::OnLive {
            release,
            command,
            error: Some(error),
            ..
        } => format!(
            "{release} on_live {}, and the release stays live: {command}: {error}",
            in_style(BAD, "failed")
        ),
        Progress::Flipped { release, took_us } => {
            format!(
                "{release} {}: flipped in {}",
                in_style(GOOD, "live"),
                time(took_us / 1e3)
            )
        }
        Progress::Draining { release, open, .. } => {
            format!("{release} draining: {} in flight", kinds(open))
        }
        Progress::Drained {
            release,
            took_ms,
            open: 0,
            ..
        } => format!("{release} drained in {}", time(*took_ms)),
        Progress::Drained {
            release,
            took_ms,
            cut,
            ..
        } => format!(
            "{release} drained in {}: {} ended, their time was over (drain)",
            time(*took_ms),
            kinds(cut),
        ),
        Progress::Reverting { release, .. } => {
            format!("{release} {}", in_style(LOOK, "taken back"))
        }
        Progress::Summary(s) => {
            let ports = further_ports(&s.ports);
            format!(
                "{} is live on {}{ports}: {}",
                s.release,
                s.address,
                summary(s)
            )
        }
        Progress::Settled { release, .. } => format!("{release} settled"),
        Progress::Unchanged { release } => {
            format!("{release} is live already: unchanged, nothing to do")
        }
        Progress::Done { text } => text.clone(),
        // Printed as the command's failure.
        Progress::Failed { live, .. } => match live {
            Some(live) => format!("{live} is live and was not touched"),
            None => return None,
        },
    })
}

/// What follows an address: `, debug 20417`.
pub fn further_ports(ports: &BTreeMap<PortName, u16>) -> String {
    let ports = ports.iter();
    ports
        .map(|(name, port)| format!(", {name} {port}"))
        .collect()
}

/// What is in flight: `2 requests, 1 WebSocket`.
pub fn kinds(open: &OpenRequests) -> String {
    let counted = [
        (open.requests, "request"),
        (open.websockets, "WebSocket"),
        (open.streams, "stream"),
    ];
    let words: Vec<String> = counted
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!("{count} {what}{}", plural(*count)))
        .collect();
    match words.is_empty() {
        true => "nothing".to_owned(),
        false => words.join(", "),
    }
}

/// The figures of a deployment.
pub fn summary(s: &Summary) -> String {
    let mut parts = vec![format!("start {}", time(s.start_ms))];
    parts.push(format!("health {}", time(s.health_ms)));
    parts.push(format!("flip {}", time(s.flip_us / 1e3)));
    parts.extend(s.drain_ms.map(|drain| format!("drain {}", time(drain))));
    parts.push(format!("total {}", time(s.total_ms)));
    if s.open > 0 {
        parts.push(format!("{} ended by its drain", kinds(&s.cut)));
    }
    parts.join(", ")
}

/// An event of the journal as a line.
pub fn event_line(line: &EventLine) -> String {
    let event = match line {
        EventLine::Missing(Missing::Gap { missed, after }) => {
            let plural = if *missed == 1 { "" } else { "s" };
            return format!("{missed} event{plural} after {after}: not kept any more");
        }
        EventLine::Event(event) => event,
    };
    let head = in_style(QUIET, &format!("{:>5} {}", event.number, when(event.at_ms)));
    let service = event
        .service
        .as_ref()
        .map_or("hotctl", |name| name.as_str());
    format!("{head}  {service}  {}", noted(&event.what))
}

/// A moment of the past, by the clock of this machine.
pub fn when(at_ms: u64) -> String {
    let moment = i64::try_from(at_ms)
        .ok()
        .and_then(DateTime::from_timestamp_millis);
    match moment {
        Some(moment) => moment
            .with_timezone(&Local)
            .format("%Y-%m-%d %H:%M:%S")
            .to_string(),
        None => "-".to_owned(),
    }
}

/// An event of the journal as a line.
pub fn noted(what: &Noted) -> String {
    match what {
        Noted::DaemonStarted {
            version,
            pid,
            replaces,
        } => {
            let replaces = replaces.map(|pid| format!(" in place of {pid}"));
            format!(
                "hotctl {version} serves, pid {pid}{}",
                replaces.unwrap_or_default()
            )
        }
        Noted::UpgradeFailed { by, error } => {
            format!("hotctl was not replaced, as {} wanted: {error}", by.who)
        }
        Noted::AssetsChanged { paths, .. } => {
            format!("assets changed: {}", paths.join(", "))
        }
        Noted::WatchFailed { error, hint } => {
            let hint = hint.as_ref().map(|hint| format!("\n  try: {hint}"));
            format!("watch: not deployed: {error}{}", hint.unwrap_or_default())
        }
        Noted::BuildStarted {
            build,
            command,
            changed,
        } => {
            let changed = match changed.is_empty() {
                true => String::new(),
                false => format!(", changed: {}", changed.join(", ")),
            };
            format!("build {build}: {command}{changed}")
        }
        Noted::BuildDone { build, took_ms } => format!("build {build} done in {}", time(*took_ms)),
        Noted::BuildFailed {
            build,
            why,
            hint,
            took_ms,
            errors,
            output,
        } => {
            let mut text = format!(
                "build {build} {} after {}: {why}",
                in_style(BAD, "failed"),
                time(*took_ms)
            );
            text.push_str(&what_is_wrong(errors, output));
            if let Some(hint) = hint {
                text.push_str(&format!("\n  try: {hint}"));
            }
            text
        }
        Noted::BuildCancelled { build, took_ms } => format!(
            "build {build} ended after {}: there is something newer",
            time(*took_ms)
        ),
        Noted::WatchMatchesNothing { patterns, root } => {
            let shown: Vec<String> = patterns.iter().map(|it| format!("{it:?}")).collect();
            format!(
                "watch: {} matches no file in {root} that .gitignore and build.ignore do not leave out: no change there is seen\n  try: mend it in build.watch or build.assets: a pattern is as in .gitignore, and begins at build.root",
                shown.join(", "),
            )
        }
        Noted::BuildDisturbsItself { paths } => format!(
            "the build changes its own sources, which does not count any more while it goes on: {}\n  try: {}",
            paths.join(", "),
            to_ignore(paths)
        ),
        Noted::AppDisturbsItself { paths, every_ms } => format!(
            "the same changes as soon as a version runs, as if the app wrote it; that alone is deployed once in {} \
             from now on: {}\n  try: {}, or a line each in .hotctlignore",
            time(*every_ms),
            paths.join(", "),
            to_ignore(paths)
        ),
        Noted::DaemonStopping => "hotctl ends".to_owned(),
        Noted::ConfigReloaded {
            by,
            revision,
            changes,
        } => format!(
            "configuration read again by {}, revision {revision}: {}",
            by.who,
            match changes.is_empty() {
                true => "nothing changed".to_owned(),
                false => changes.join(", "),
            }
        ),
        Noted::ConfigRefused { by, error } => format!(
            "configuration read again by {}, and {}: {error}",
            by.who,
            in_style(BAD, "refused")
        ),
        Noted::LogLevelChanged {
            by,
            level,
            how,
            pids,
            error,
        } => {
            let pids: Vec<String> = pids.iter().map(ToString::to_string).collect();
            let to = match (pids.as_slice(), error) {
                ([], Some(error)) => format!("{}: {error}", in_style(BAD, "not changed")),
                (_, Some(error)) => format!(
                    "pid {}; {}: {error}",
                    pids.join(", "),
                    in_style(BAD, "not all")
                ),
                (_, None) => format!("pid {}", pids.join(", ")),
            };
            format!("log level {level} by {how}, as {} wanted: {to}", by.who)
        }
        Noted::OrderRefused { verb, by, why } => {
            format!("{} by {} refused: {why}", word(verb), by.who)
        }
        Noted::CancelOrdered { release, by, .. } => {
            format!("{release} to be cancelled, by {}", by.who)
        }
        Noted::InstanceExited {
            release, pid, exit, ..
        } => format!(
            "{release} {} by itself, pid {pid}: {exit}",
            in_style(BAD, "ended")
        ),
        Noted::InstanceEnded {
            release, pid, why, ..
        } => format!("{release} ended by hotctl, pid {pid}: {why}"),
        Noted::InstanceAdopted { release, pid, .. } => {
            format!(
                "{release} {}, pid {pid} as before",
                in_style(GOOD, "adopted")
            )
        }
        Noted::DeploymentResumed {
            release,
            deployment,
            phase,
        } => format!("deployment {deployment} of {release} goes on: it was {phase}"),
        Noted::InstanceRestarted { release, pid, .. } => {
            format!("{release} started again, pid {pid}")
        }
        Noted::Renewal {
            release, reason, ..
        } => {
            let why = match reason.as_str() {
                "unhealthy" => "as none is healthy".to_owned(),
                reason => format!("for its {reason}"),
            };
            format!("{release} to be replaced by fresh processes, {why}")
        }
        Noted::CrashLoop {
            release,
            deaths,
            exit,
            ..
        } => format!(
            "{release} {}: ended {deaths} times in a row, the last time: {exit}",
            in_style(BAD, "crash loop")
        ),
        Noted::Unhealthy { release, text, .. } => {
            format!("{release} {}: {text}", in_style(BAD, "unhealthy"))
        }
        Noted::HealthyAgain { release, .. } => {
            format!("{release} {} again", in_style(GOOD, "healthy"))
        }
        Noted::StateRestored { text } => {
            format!("{}: {text}", in_style(LOOK, "state restored"))
        }
        Noted::StateDamaged { error, .. } => {
            format!("{}: {error}", in_style(BAD, "state damaged"))
        }
        Noted::FlipBack { from, to, why } => format!(
            "{} from {from} to {to}: {why}",
            in_style(LOOK, "flipped back")
        ),
        Noted::Progress(Progress::Ordered {
            release, verb, by, ..
        }) => format!("{release} ordered: {} by {}", word(verb), by.said()),
        Noted::Progress(Progress::Waiting { release, probe, .. }) => {
            format!("{release} waiting: {probe}")
        }
        Noted::Progress(Progress::Failed { release, why, .. }) => {
            let failed = in_style(BAD, "failed");
            match release {
                Some(release) => format!("{release} {failed}: {}", apart_from(why, release)),
                None => format!("{failed}: {why}"),
            }
        }
        Noted::Progress(progress) => event(progress).unwrap_or_default(),
    }
}

/// The reason, where its release has been named already.
pub fn apart_from<'a>(why: &'a Why, release: &ReleaseId) -> &'a str {
    let rest = why.text.strip_prefix(&release.to_string());
    rest.and_then(|rest| rest.strip_prefix(": "))
        .unwrap_or(&why.text)
}

/// The setting that leaves these out.
fn to_ignore(paths: &[String]) -> String {
    let patterns: Vec<_> = paths.iter().map(|path| format!("\"/{path}\"")).collect();
    format!("build.ignore = [{}]", patterns.join(", "))
}

/// The word of a value that JSON writes as one.
fn word(value: &impl serde::Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word,
        _ => String::new(),
    }
}
