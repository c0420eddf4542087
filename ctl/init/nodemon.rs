//! What nodemon runs becomes a service that runs from the files that are edited. Where it is told so: in
//! a `nodemon.json`, in a `package.json`, or on a command line in the scripts of that, which goes first.

mod asked;
mod package;
mod patterns;
mod program;
mod reasons;
mod sources;

use std::path::Path;
use std::time::Duration;

use hotctl_config::is_own_variable;
use hotctl_config::tree::{Node, Value};

use super::draft::{Draft, Row, Service};
use super::fields::{Field, Fields, Said};
use super::project::Project;
use super::shell::Line;
use crate::fault::Fault;
use package::Package;

/// Where most servers of node listen.
const PORT: u16 = 3000;
/// Where settings stand: what comes first goes before the others.
#[derive(Debug)]
struct Settings(Vec<Fields>);

impl Settings {
    /// The first that there is. The others are left, and have no effect.
    fn first<T>(
        &mut self,
        read: impl Fn(&mut Fields) -> Result<Option<Said<T>>, Fault>,
    ) -> Result<Option<Said<T>>, Fault> {
        for fields in &mut self.0 {
            if let Some(said) = read(fields)? {
                return Ok(Some(said));
            }
        }
        Ok(None)
    }

    fn text(&mut self, name: &str) -> Result<Option<Said<String>>, Fault> {
        self.first(|fields| fields.text(name))
    }

    fn list(&mut self, name: &str) -> Result<Option<Said<Vec<String>>>, Fault> {
        self.first(|fields| fields.list(name))
    }

    /// All of a table, what comes first last.
    fn below(&mut self, name: &str) -> Vec<Said<(String, Value)>> {
        let mut found = Vec::new();
        for fields in self.0.iter_mut().rev() {
            for field in fields.below(name) {
                let whole = Field {
                    name: format!("{name}.{}", field.name),
                    line: field.line,
                    value: Value::Nothing,
                };
                found.push(fields.said(&whole, (field.name, field.value)));
            }
        }
        found
    }
}

/// What comes of a `nodemon.json`.
///
/// # Errors
/// If a setting is not what it should be, or no program can be made out.
pub fn of_nodemon(file: &str, node: Node, project: &Project) -> Result<Draft, Fault> {
    let fields = Fields::of(file, "", node);
    let mut package = Package::beside(project);
    let line = match fields.look("script") {
        Some(_) => None,
        None => package
            .as_mut()
            .and_then(|package| package.nodemon_line(Some(Path::new(file)))),
    };
    let settings = Settings(line.into_iter().chain([fields]).collect());
    draft(file, settings, package.as_mut(), project)
}

/// What comes of a `package.json`.
///
/// # Errors
/// As for [`of_nodemon`].
pub fn of_package(file: &str, node: Node, project: &Project) -> Result<Draft, Fault> {
    let mut package = Package::of(file, node);
    let config = package.nodemon_config();
    let line = package.nodemon_line(None);
    let mut draft = if line.is_none() && config.is_empty() {
        package.plain(project)?
    } else {
        let settings = Settings(line.into_iter().chain([config]).collect());
        draft(file, settings, Some(&mut package), project)?
    };
    draft.unmapped.extend(package.rest());
    Ok(draft)
}

fn draft(
    file: &str,
    mut settings: Settings,
    package: Option<&mut Package>,
    project: &Project,
) -> Result<Draft, Fault> {
    let mut draft = new_draft(file);
    let mut service = Service::new("app");
    let program = program::of(&mut settings, package, project)?;
    let folder = settings.text("cwd")?;
    let folder = folder.map_or_else(
        || project.path("."),
        |said| {
            service.notes.push(said.from());
            project.path(&said.value)
        },
    );
    let env = env(&mut settings, &mut draft);
    run_rows(
        &program.line,
        &program.why,
        env,
        &folder,
        &mut service,
        &mut draft,
    );
    if let Some(script) = &program.script {
        source_port(script, project, &draft, &mut service);
    }
    event_rows(&mut settings, &mut service);
    if let Some(delay) = delay(&mut settings)? {
        service.settles(delay.value, delay.from());
    }
    sources::rows(
        &mut settings,
        &program.endings,
        project,
        &mut service,
        &mut draft,
    )?;
    let why = "Started at once, and again beside the old one whenever one of these changes.";
    service.build.push(Row::text("root", &folder, why));
    draft.services.push(service);
    let rest = settings.0.iter_mut().flat_map(|it| it.rest(reasons::of));
    draft.unmapped.extend(rest.collect::<Vec<_>>());
    Ok(draft)
}

fn new_draft(file: &str) -> Draft {
    Draft {
        from: file.into(),
        port: PORT,
        port_why: "Where requests are taken. hotctl gives the app a PORT of its own.".into(),
        services: Vec::new(),
        unmapped: Vec::new(),
    }
}

/// What is run, where, and with which variables.
fn run_rows(
    line: &Line,
    why: &str,
    mut env: Vec<(String, String)>,
    folder: &str,
    service: &mut Service,
    draft: &mut Draft,
) {
    for (name, value) in &line.env {
        env.retain(|(other, _)| other != name);
        env.push((name.clone(), value.clone()));
    }
    if let Some(port) = line.port {
        draft.port = port.get();
        draft.port_why = format!("{why} PORT stands in front of it; hotctl gives the app its own.");
    }
    let command = program::command(line);
    service.rows.push(Row::list("run", &command, why));
    if !env.is_empty() {
        let why = "The variables that it is given there.";
        service.rows.push(Row::table("env", &env, why));
    }
    let why = "It runs from the files that are edited, and not from a copy.";
    service.rows.push(Row::text("workdir", folder, why));
    if let Some(port) = line.port_in_arguments() {
        let why = format!("Its command names that port. {ONE_AT_A_TIME}");
        service.listens_at(port.get(), why);
    }
}

/// What follows from a port that is always the same.
const ONE_AT_A_TIME: &str = "Only one of it can run there, so each new version takes the place of the \
    old one, and requests wait meanwhile. If it listens at $PORT, leave this out: then the two run \
    side by side.";

/// Where its source names a port, and does not ask for `PORT`.
fn source_port(script: &str, project: &Project, draft: &Draft, service: &mut Service) {
    let text = std::fs::read_to_string(project.file(script)).unwrap_or_default();
    match crate::dev::fixed_port(&text) {
        _ if service.fixed.is_some() => {}
        Some(port) => {
            let why =
                format!("{script} names that port, and does not ask for PORT. {ONE_AT_A_TIME}");
            service.listens_at(port.get(), why);
        }
        None if draft.port == PORT => service
            .notes
            .push("It is to listen at PORT, which is in its environment.".into()),
        None => {}
    }
}

/// Its variables. `PORT` says where people expect it.
fn env(settings: &mut Settings, draft: &mut Draft) -> Vec<(String, String)> {
    let mut env: Vec<(String, String)> = Vec::new();
    for said in settings.below("env") {
        let (name, value) = &said.value;
        let text = match value {
            Value::Text(text) => text.clone(),
            value => value.shown().unwrap_or_default(),
        };
        match text.parse() {
            Ok(port) if name == "PORT" => {
                draft.port = port;
                draft.port_why = format!("{} hotctl gives the app a PORT of its own.", said.from());
            }
            _ if is_own_variable(name) => {
                let reason = "hotctl sets it for each process";
                draft.unmapped.push(said.unmapped(&text, reason));
            }
            _ => {
                env.retain(|(other, _)| other != name);
                env.push((name.clone(), text));
            }
        }
    }
    env
}

/// What is done once it runs: after the first start, or, where that is not named, after another.
fn event_rows(settings: &mut Settings, service: &mut Service) {
    for name in ["events.start", "events.restart"] {
        for fields in &mut settings.0 {
            // What has changed is not told.
            let Some(Value::Text(text)) = fields.look(name) else {
                continue;
            };
            let Ok(line) = Line::read(text) else {
                continue;
            };
            if text.contains("FILENAME") {
                continue;
            }
            let command = match line.env.is_empty() {
                true => line.command(),
                false => ["sh", "-c", text].map(ToOwned::to_owned).into(),
            };
            if let Some(field) = fields.take(name) {
                let said = fields.said(&field, ());
                let why = format!("{} Runs once a new version is live.", said.from());
                service.rows.push(Row::list("on_live", &command, why));
            }
            return;
        }
    }
}

/// Milliseconds, as a number or a text.
fn delay(settings: &mut Settings) -> Result<Option<Said<Duration>>, Fault> {
    settings.first(|fields| {
        let Some(field) = fields.take("delay") else {
            return Ok(None);
        };
        let ms = match &field.value {
            Value::Whole(ms) => u64::try_from(*ms).ok(),
            Value::Text(text) => text.trim().trim_end_matches("ms").parse().ok(),
            _ => None,
        };
        match ms {
            Some(0) => Ok(None),
            Some(ms) => Ok(Some(fields.said(&field, Duration::from_millis(ms)))),
            None => Err(fields.wrong(&field, "not a time", "milliseconds, such as 2500")),
        }
    })
}

#[cfg(test)]
#[path = "nodemon_tests.rs"]
mod tests;
