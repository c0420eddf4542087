//! What nodemon runs: the program for a script by its ending, or the command that is named.

use hotctl_config::tree::Value;

use super::super::fields::Said;
use super::super::project::Project;
use super::super::shell::{Form, Line, joined};
use super::Settings;
use super::package::Package;
use crate::fault::Fault;

/// What runs a script, by its ending; all others are for node.
const PROGRAMS: [(&str, &str); 3] = [("py", "python"), ("rb", "ruby"), ("ts", "ts-node")];

/// Programs that are no part of a project, so that they need not be looked for in it.
const OF_THE_SYSTEM: [&str; 15] = [
    "node", "npm", "npx", "yarn", "pnpm", "bun", "deno", "python", "python3", "ruby", "go",
    "cargo", "sh", "bash", "make",
];

/// What is run.
#[derive(Debug)]
pub struct Program {
    pub line: Line,
    /// The file that it runs, where one is known.
    pub script: Option<String>,
    /// The endings of what it reads.
    pub endings: Vec<String>,
    /// Where it came from.
    pub why: String,
}

/// As nodemon finds it.
///
/// # Errors
/// If it cannot be told.
pub fn of(
    settings: &mut Settings,
    package: Option<&mut Package>,
    project: &Project,
) -> Result<Program, Fault> {
    let exec = settings.list("exec")?;
    let mut script = settings.text("script")?;
    if exec.is_none() && script.is_none() {
        let mut start = None;
        if let Some(package) = package {
            script = package.main()?;
            start = match script {
                Some(_) => None,
                None => package.start()?,
            };
        }
        if script.is_none() && project.file("index.js").is_file() {
            let why = "index.js, which nodemon takes where nothing is named.";
            return named("index.js", why.into());
        }
        if script.is_none()
            && let Some(start) = start
        {
            return read(&start, &start.value, script_in(&start.value), start.from());
        }
    }
    let of_script = || script.as_ref().map(|said| said.with(()));
    let Some(first) = exec.as_ref().map(|said| said.with(())).or_else(of_script) else {
        let file = settings.0.last().map_or("", |fields| fields.file());
        return Err(Fault::config(format!(
            "{file}: names no program: neither exec nor script here, and no main in package.json"
        ))
        .hint("\"exec\": \"node server.js\", say"));
    };
    let mut why = vec![first.from()];
    let mut words = Vec::new();
    let filename = script.as_ref().map(|said| said.value.clone());
    let mut needs_script = true;
    let mut is_node = false;
    match exec {
        Some(exec) => {
            let exec = match exec.value.as_slice() {
                // As it stands: a line for a shell.
                [line] => line.replace("{{pwd}}", "\"$PWD\""),
                words => joined(words).replace("{{pwd}}", "."),
            };
            needs_script = !exec.contains("{{filename}}");
            is_node = exec.split(' ').next() == Some("node");
            words.push(exec.replace("{{filename}}", filename.as_deref().unwrap_or_default()));
        }
        None => {
            let ending = ending(filename.as_deref().unwrap_or_default());
            let mapped = settings.first(|fields| fields.text(&format!("execMap.{ending}")))?;
            words.push(match mapped {
                Some(said) => {
                    why.push(said.from());
                    said.value.replace("{{pwd}}", "\"$PWD\"")
                }
                None => {
                    let known = PROGRAMS.iter().find(|(of, _)| *of == ending);
                    is_node = known.is_none();
                    known.map_or("node", |(_, program)| program).to_owned()
                }
            });
        }
    }
    for name in ["execArgs", "nodeArgs"] {
        if name == "nodeArgs" && !is_node {
            continue;
        }
        if let Some(said) = settings.list(name)? {
            why.push(said.from());
            words.push(joined(&said.value));
        }
    }
    if let Some(script) = script.filter(|_| needs_script) {
        if !why.contains(&script.from()) {
            why.push(script.from());
        }
        words.push(joined(&[script.value]));
    }
    if let Some(args) = settings.list("args")? {
        why.push(args.from());
        words.push(joined(&args.value));
    }
    let line = words.join(" ");
    let script = filename.or_else(|| script_in(&line));
    read(&first, &line, script, why.join(" "))
}

/// A file for node.
pub fn named(file: &str, why: String) -> Result<Program, Fault> {
    let text = format!("node {}", shell_words::quote(file));
    let line = Line::read(&text)
        .map_err(|why| Fault::config(format!("{file}: {why}")).hint("another name for it"))?;
    Ok(program(line, Some(file.into()), why))
}

/// A command line that stands somewhere.
pub fn read<T>(
    at: &Said<T>,
    text: &str,
    script: Option<String>,
    why: String,
) -> Result<Program, Fault> {
    let line = Line::read(text).map_err(|why| {
        at.wrong(
            text,
            why,
            "a command as a shell takes it: \"node server.js\"",
        )
    })?;
    Ok(program(line, script, why))
}

fn program(line: Line, script: Option<String>, why: String) -> Program {
    let endings: &[&str] = match script.as_deref().map_or("", ending) {
        "" | "js" | "mjs" | "cjs" => &["js", "mjs", "cjs", "json"],
        other => &[other, "json"],
    };
    Program {
        line,
        endings: endings.iter().map(ToString::to_string).collect(),
        script,
        why,
    }
}

/// What is run: a program of the project lies in `node_modules/.bin`, which nodemon and npm look into.
pub fn command(line: &Line) -> Vec<String> {
    let text = match &line.form {
        Form::Words(words) => match words.first() {
            Some(first) if OF_THE_SYSTEM.contains(&first.as_str()) || first.contains('/') => {
                return line.command();
            }
            _ => format!("exec {}", joined(words)),
        },
        Form::Simple(text) => format!("exec {text}"),
        Form::Compound(text) => text.clone(),
    };
    let text = format!("export PATH=\"$PWD/node_modules/.bin:$PATH\"; {text}");
    ["sh".to_owned(), "-c".to_owned(), text].into()
}

/// The first word that is a file of a program.
pub fn script_in(line: &str) -> Option<String> {
    let mut words = line.split_whitespace();
    words.find_map(|word| {
        let known = ["js", "mjs", "cjs", "ts", "mts", "tsx", "py", "rb"];
        let is_file = known.contains(&ending(word)) && !word.starts_with('-');
        is_file.then(|| word.trim_matches(['"', '\'']).to_owned())
    })
}

fn ending(file: &str) -> &str {
    let name = file.rsplit('/').next().unwrap_or_default();
    match name.rsplit_once('.') {
        Some((before, ending)) if !before.is_empty() => ending,
        _ => "",
    }
}

/// A list that stands for a table of JSON.
pub fn texts(line: usize, texts: Vec<String>) -> Value {
    let nodes = texts.into_iter().map(|text| hotctl_config::tree::Node {
        line,
        value: Value::Text(text),
    });
    Value::List(nodes.collect())
}
