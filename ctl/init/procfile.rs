//! A Procfile: a line `name: command` for each process, which becomes a service. As foreman reads it, but
//! that a line it would pass over is refused.

use std::collections::BTreeSet;

use super::draft::{Draft, Row, Service};
use super::project::Project;
use super::shell::{Line, knows_port};
use crate::answers::Unmapped;
use crate::fault::Fault;

/// Where foreman has the first process listen, and how far the next is from it.
const PORT: u16 = 5000;
const APART: usize = 100;

/// One line of it.
#[derive(Debug)]
struct Process {
    /// As it stands there.
    name: String,
    number: usize,
    text: String,
    line: Line,
    /// The comments in front of it.
    comments: Vec<String>,
}

impl Process {
    /// What takes requests: the one of that name, and what asks for a port.
    fn is_http(&self) -> bool {
        self.name == "web" || knows_port(&self.text)
    }
}

/// What comes of it.
///
/// # Errors
/// If it is none.
pub fn draft(file: &str, text: &str, project: &Project) -> Result<Draft, Fault> {
    let (mut processes, comments) = read(file, text)?;
    let release = processes
        .iter()
        .position(|process| process.name == "release")
        .map(|at| (at, processes.remove(at)));
    if processes.is_empty() {
        return Err(Fault::config(format!("{file}: has no process"))
            .hint("a line such as `web: ./server --port $PORT`"));
    }
    let first = processes.iter().position(Process::is_http);
    let web = processes.iter().position(|process| process.name == "web");
    let main = web.or(first);
    let (port, port_why) = listen(file, &processes, main, release.as_ref().map(|(at, _)| *at));
    let mut draft = Draft {
        from: file.into(),
        port,
        port_why,
        services: Vec::new(),
        unmapped: Vec::new(),
    };
    let main_name = main.and_then(|at| processes.get(at)).map(|it| &it.name);
    let mut names = BTreeSet::new();
    for (at, process) in processes.iter().enumerate() {
        let name = name(&process.name, &mut names);
        let mut service = Service::new(name);
        service.notes.extend(process.comments.iter().cloned());
        service.notes.push(format!(
            "From {file}:{}: {}: {}",
            process.number, process.name, process.text
        ));
        match (process.is_http(), main == Some(at)) {
            (true, true) => web_rows(process, &mut service),
            (true, false) => {
                let main = main_name.map_or("", String::as_str);
                other_rows(file, process, main, &mut service, &mut draft);
            }
            (false, _) => worker_rows(process, &mut service),
        }
        run_rows(process, project, &mut service);
        // Once for all that runs, so before the one that takes requests.
        if let Some((_, release)) = &release
            && at == main.unwrap_or(0)
        {
            let why = format!(
                "From {file}:{}: release: {}. Runs once before a new release of this service is \
                 started; if it fails, that is not.",
                release.number, release.text
            );
            let command = hook(release);
            service.notes.extend(release.comments.iter().cloned());
            service.rows.push(Row::list("before_start", &command, why));
        }
        draft.services.push(service);
    }
    for (line, comment) in comments {
        draft.unmapped.push(Unmapped {
            file: file.into(),
            line,
            field: "a comment".into(),
            value: format!("{comment:?}"),
            reason: "no process follows it".into(),
        });
    }
    Ok(draft)
}

/// A comment and its line.
type Comment = (usize, String);

/// Its processes, and the comments after the last.
fn read(file: &str, text: &str) -> Result<(Vec<Process>, Vec<Comment>), Fault> {
    let mut processes: Vec<Process> = Vec::new();
    let mut comments: Vec<Comment> = Vec::new();
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if line.is_empty() {
            continue;
        }
        if line.starts_with('#') {
            comments.push((number, line.trim_start_matches('#').trim().to_owned()));
            continue;
        }
        let wrong = |why: &str, hint: &str| {
            Fault::config(format!("{file}:{number}: {line:?}: {why}")).hint(hint)
        };
        let letter = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
        let (name, command) = match line.split_once(':') {
            Some((name, command)) if !name.is_empty() && name.chars().all(letter) => {
                (name, command.trim())
            }
            _ => {
                let why = "not a name, a colon and a command";
                return Err(wrong(
                    why,
                    "such as `web: node server.js`; a comment begins with `#`",
                ));
            }
        };
        if let Some(first) = processes.iter().find(|process| process.name == name) {
            let why = format!("{name} stands twice, first in line {}", first.number);
            return Err(wrong(&why, "another name for one of the two"));
        }
        let parsed = Line::read(command)
            .map_err(|why| wrong(why, "a command as a shell takes it: `web: node server.js`"))?;
        let comments = std::mem::take(&mut comments);
        processes.push(Process {
            name: name.into(),
            number,
            text: command.into(),
            line: parsed,
            comments: comments.into_iter().map(|(_, text)| text).collect(),
        });
    }
    Ok((processes, comments))
}

/// Where requests are taken, and why. `release` is where a line stood that foreman counts, too.
fn listen(
    file: &str,
    processes: &[Process],
    main: Option<usize>,
    release: Option<usize>,
) -> (u16, String) {
    let Some((at, process)) = main.and_then(|at| Some((at, processes.get(at)?))) else {
        let why = "Nothing answers here: no process is called web or uses $PORT.";
        return (PORT, why.into());
    };
    let name = &process.name;
    if let Some(port) = process.line.port {
        let why = format!("Where {file}:{} has {name} listen.", process.number);
        return (port.get(), why);
    }
    let before = usize::from(release.is_some_and(|release| release <= at));
    // More than these would come to the ports that services are started on.
    let steps = (at + before).min(99) * APART;
    let port = u16::try_from(steps).map_or(PORT, |steps| PORT + steps);
    let why =
        format!("Where foreman has {name} listen. hotctl gives each process a port of its own.");
    (port, why)
}

/// A name that a service can have, and none has yet.
fn name(written: &str, taken: &mut BTreeSet<String>) -> String {
    let lower = written.to_ascii_lowercase().replace('_', "-");
    let bare: String = lower.trim_start_matches('-').chars().take(50).collect();
    let bare = if bare.is_empty() { "app".into() } else { bare };
    let numbered = (2..).map(|number| format!("{bare}-{number}"));
    let free = std::iter::once(bare.clone())
        .chain(numbered)
        .find(|name| !taken.contains(name))
        .unwrap_or(bare);
    taken.insert(free.clone());
    free
}

/// The one that takes every request that is for no other.
fn web_rows(process: &Process, service: &mut Service) {
    if knows_port(&process.text) {
        return;
    }
    match process.line.port_in_arguments() {
        Some(port) => service.listens_at(
            port.get(),
            "Its command names that port. Only one of it can run there, so each new version takes \
             the place of the old one, and requests wait meanwhile; with $PORT in the command, and \
             without this line, the two run side by side.",
        ),
        None => service
            .notes
            .push("It is to listen at PORT, which is in its environment.".into()),
    }
}

/// Another one that takes requests.
fn other_rows(file: &str, process: &Process, main: &str, service: &mut Service, draft: &mut Draft) {
    let host = format!("{}.localhost", service.name);
    let why = format!(
        "It uses $PORT, so it takes requests: those for this host, and {main} all others. Or, \
         instead: paths = [\"/{}\"].",
        service.name
    );
    service.rows.push(Row::list("hosts", &[&host], why));
    if let Some(port) = process.line.port {
        draft.unmapped.push(Unmapped {
            file: file.into(),
            line: process.number,
            field: format!("{}: PORT", process.name),
            value: port.to_string(),
            reason: format!("hotctl gives it a port of its own; it is reached as {host}"),
        });
    }
}

fn worker_rows(process: &Process, service: &mut Service) {
    let why = "A worker, which takes no requests: it is not called web, and does not use $PORT.";
    service.rows.push(Row::flag("http", false, why));
    if let Some(port) = process.line.port_in_arguments() {
        let why = format!("Its command names port {port}: two of it cannot run at once.");
        service.rows.push(Row::flag("overlap", false, why));
    }
}

/// How it is run: in the folder of the file, as foreman does.
fn run_rows(process: &Process, project: &Project, service: &mut Service) {
    let command = process.line.command();
    let why = match command == ["sh", "-c", &process.text] {
        true => "Its command needs a shell.",
        false => "Its command.",
    };
    service.rows.push(Row::list("run", &command, why));
    if !process.line.env.is_empty() {
        let why = "What stood in front of the command.";
        service.rows.push(Row::table("env", &process.line.env, why));
    }
    if let Some(env) = project.env_file(".env") {
        let why = format!("It lies beside, and foreman reads it.{}", env.note(".env"));
        service
            .rows
            .push(Row::text("env_file", &project.path(".env"), why));
    }
    let why = "It runs from the files that are edited, and not from a copy.";
    let folder = project.path(".");
    service.rows.push(Row::text("workdir", &folder, why));
    let why = "Started at once, and again beside the old one whenever something in here changes that \
               git does not ignore. `watch = [\"*.rb\"]` counts only those; without this table it is \
               deployed by hand: hotctl deploy.";
    service.build.push(Row::text("root", &folder, why));
}

/// A command that is no process of its own: it has the environment of one, and no `{port}`.
fn hook(process: &Process) -> Vec<String> {
    let Line { env, port, .. } = &process.line;
    match env.is_empty() && port.is_none() && !knows_port(&process.text) {
        true => process.line.command(),
        false => ["sh", "-c", &process.text].map(ToOwned::to_owned).into(),
    }
}

#[cfg(test)]
#[path = "procfile_tests.rs"]
mod tests;
