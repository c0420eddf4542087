//! A `.air.toml`: what air builds and runs becomes a service that is built. Each setting that is left out
//! is what air takes then.

mod program;
mod reasons;
mod sources;

use std::fs;
use std::time::Duration;

use hotctl_config::tree::{Node, Value};
use hotctl_config::{parse_duration, show_duration};

use super::draft::{Draft, Row, Service};
use super::fields::{Field, Fields, Said};
use super::project::Project;
use super::shell::Line;
use crate::dev::fixed_port;
use crate::fault::Fault;
use sources::Place;

/// Where most Go servers listen.
const PORT: u16 = 8080;

/// What follows from a port that is always the same.
const ONE_AT_A_TIME: &str = "Only one of it can run there, so each new version takes the place of the \
    old one, and requests wait meanwhile. If it listens at $PORT, leave this out: then the two run \
    side by side.";

/// Settings that air has for one system only: they go before those of all.
const OVERRIDDEN: [&str; 7] = [
    "pre_cmd",
    "cmd",
    "post_cmd",
    "bin",
    "entrypoint",
    "full_bin",
    "args_bin",
];

/// What comes of it.
///
/// # Errors
/// If a setting is not what it should be, or no program can be made out.
pub fn draft(file: &str, node: Node, project: &Project) -> Result<Draft, Fault> {
    let mut fields = Fields::of(file, "", node);
    let mut draft = Draft {
        from: file.into(),
        port: PORT,
        port_why: "Where requests are taken; air has no such setting.".into(),
        services: Vec::new(),
        unmapped: Vec::new(),
    };
    for name in OVERRIDDEN {
        let Some(of_linux) = fields.take(&format!("build.linux.{name}")) else {
            continue;
        };
        if let Some(of_all) = fields.take(&format!("build.{name}")) {
            let reason = "build.linux says something else, and hotctl runs on Linux only";
            draft.unmapped.push(fields.unmapped(&of_all, reason));
        }
        fields.add(Field {
            name: format!("build.{name}"),
            ..of_linux
        });
    }
    let mut service = Service::new("app");
    let root = fields.text("root")?;
    let place = Place::of(root.as_ref(), project);
    let tmp = fields.text("tmp_dir")?;
    program::rows(&mut fields, &place, tmp.as_ref(), &mut service)?;
    env_rows(&mut fields, project, &mut service, &mut draft)?;
    stop_rows(&mut fields, &mut service)?;
    let proxy = proxy_rows(&mut fields, &mut service, &mut draft)?;
    if service.fixed.is_none() {
        source_port(project, &place, &mut service);
    }
    watch_rows(&mut fields, &mut service)?;
    sources::rows(&mut fields, &place, tmp.as_ref(), &mut service, &mut draft)?;
    draft.services.push(service);
    let rest = fields.rest(|name| match name.starts_with("proxy.") && !proxy {
        true => "the proxy of air is not enabled",
        false => reasons::of(name),
    });
    draft.unmapped.extend(rest);
    Ok(draft)
}

/// A command line, or what is wrong with it.
fn line(said: &Said<String>) -> Result<Line, Fault> {
    Line::read(&said.value)
        .map_err(|why| said.wrong(&said.value, why, "a command as a shell takes it"))
}

fn env_rows(
    fields: &mut Fields,
    project: &Project,
    service: &mut Service,
    draft: &mut Draft,
) -> Result<(), Fault> {
    let Some(files) = fields.list("env_files")? else {
        return Ok(());
    };
    let mut taken = false;
    for name in &files.value {
        let reason = match project.env_file(name) {
            Some(env) if !taken => {
                taken = true;
                let path = project.path(name);
                let why = format!("{}{}", files.from(), env.note(name));
                service.rows.push(Row::text("env_file", &path, why));
                let why = "air reads it before it builds, too.";
                service.build.push(Row::text("env_file", &path, why));
                continue;
            }
            Some(_) => "env_file is one file: put its lines into that",
            None => "it is not there, and an env_file must be",
        };
        draft.unmapped.push(files.unmapped(name, reason));
    }
    Ok(())
}

/// How it is ended.
fn stop_rows(fields: &mut Fields, service: &mut Service) -> Result<(), Fault> {
    let Some(interrupt) = fields.flag("build.send_interrupt")? else {
        return Ok(());
    };
    if !interrupt.value {
        let why = format!(
            "{} air kills it at once; hotctl sends SIGTERM, and kills it after this.",
            interrupt.from()
        );
        service.rows.push(Row::text("stop_timeout", "10s", why));
        return Ok(());
    }
    let delay = fields.take("build.kill_delay");
    let time = match &delay {
        Some(delay) => kill_delay(&delay.value).ok_or_else(|| {
            let hint = "milliseconds, or a time such as \"500ms\"";
            fields.wrong(delay, "not a time", hint)
        })?,
        None => hotctl_config::Service::default().stop_timeout,
    };
    let mut why = interrupt.from();
    if let Some(delay) = &delay {
        why = format!("{why} {}", fields.said(delay, ()).from());
    }
    let why = format!("{why} What it is sent is SIGTERM, not SIGINT.");
    let time = show_duration(time);
    service.rows.push(Row::text("stop_timeout", &time, why));
    Ok(())
}

/// A number below a million is milliseconds, and nanoseconds from there on; a text is a time as Go has it.
fn kill_delay(value: &Value) -> Option<Duration> {
    match value {
        Value::Whole(number) => {
            let number = u64::try_from(*number).ok()?;
            Some(match number < 1_000_000 {
                true => Duration::from_millis(number),
                false => Duration::from_millis(number / 1_000_000),
            })
        }
        Value::Text(text) => parse_duration(text).ok().or_else(|| {
            let digits = text.find(|c: char| c.is_ascii_alphabetic())?;
            let (number, unit) = text.split_at_checked(digits)?;
            let unit = parse_duration(&format!("1{unit}")).ok()?;
            let number: f64 = number.parse().ok()?;
            Duration::try_from_secs_f64(number * unit.as_secs_f64()).ok()
        }),
        _ => None,
    }
}

/// The proxy of air is what hotctl is. Whether it is on.
fn proxy_rows(
    fields: &mut Fields,
    service: &mut Service,
    draft: &mut Draft,
) -> Result<bool, Fault> {
    // It stays where it is: what reloads the page has no setting.
    if !matches!(fields.look("proxy.enabled"), Some(Value::Flag(true))) {
        return Ok(false);
    }
    if let Some(own) = fields.port("proxy.proxy_port")? {
        draft.port = own.value;
        draft.port_why = own.from();
    }
    if let Some(app) = fields.port("proxy.app_port")? {
        let why = format!("{} {ONE_AT_A_TIME}", app.from());
        service.listens_at(app.value, why);
    }
    if let Some(start) = fields.number("proxy.app_start_timeout")?
        && start.value > 0
    {
        let time = show_duration(Duration::from_millis(start.value));
        let why = start.from();
        service.rows.push(Row::text("start_timeout", &time, why));
    }
    Ok(true)
}

/// Where its source names a port, and does not ask for `PORT`.
fn source_port(project: &Project, place: &Place, service: &mut Service) {
    let text = fs::read_to_string(project.file(&place.own("main.go"))).unwrap_or_default();
    match fixed_port(&text) {
        Some(port) => {
            let why =
                format!("main.go names that port, and does not ask for PORT. {ONE_AT_A_TIME}");
            service.listens_at(port.get(), why);
        }
        None => service
            .notes
            .push("It is to listen at PORT, which is in its environment.".into()),
    }
}

/// When a change counts. What air takes by itself is left where it is: hotctl need not be as slow.
fn watch_rows(fields: &mut Fields, service: &mut Service) -> Result<(), Fault> {
    if let Some(Value::Whole(0 | 1000)) = fields.look("build.delay") {
        return Ok(());
    }
    if let Some(delay) = fields.number("build.delay")? {
        service.settles(Duration::from_millis(delay.value), delay.from());
    }
    Ok(())
}

/// Several command lines as one, which fails where one of them does.
fn in_a_row(lines: &[String]) -> String {
    match lines {
        [line] => line.clone(),
        lines => {
            let lines: Vec<String> = lines
                .iter()
                .map(|line| match line.contains('#') {
                    // What follows would be a part of the comment.
                    true => format!("({line}\n)"),
                    false => format!("({line})"),
                })
                .collect();
            lines.join(" && ")
        }
    }
}

#[cfg(test)]
#[path = "air_tests.rs"]
mod tests;
