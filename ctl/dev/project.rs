//! What a folder is: cargo, go, node or python, how it is built and run, and the usual port. Looks at
//! files, and runs nothing but `cargo metadata`.

mod cargo;
mod go;
mod named;

use std::fs;
use std::num::NonZeroU16;
use std::path::Path;

use hotctl_config::file::{AddressKind, Build, Service};
use serde_json::Value;

use crate::fault::Fault;

/// A folder that is understood.
#[derive(Debug, Clone)]
pub struct Project {
    pub service: Service,
    /// Where requests are taken.
    pub port: u16,
    /// What was found, and what follows of it; a line each.
    pub said: Vec<String>,
}

/// What counts as source: what is built in, or read when it starts, and not what an app writes.
const SOURCES: [&str; 24] = [
    "*.html",
    "*.css",
    "*.js",
    "*.json",
    "*.sql",
    "*.toml",
    "*.yaml",
    "*.yml",
    "*.proto",
    "*.graphql",
    "*.tmpl",
    "*.tpl",
    "*.gohtml",
    "*.mjs",
    "*.cjs",
    "*.ts",
    "*.tsx",
    "*.jsx",
    "*.ejs",
    "*.pug",
    "*.hbs",
    "*.jinja",
    "*.jinja2",
    "*.j2",
];

/// Usual ports: of axum and most Go servers, of express, of Flask, of Django and uvicorn.
const COMPILED: u16 = 8080;
const NODE: u16 = 3000;
const FLASK: u16 = 5000;
const PYTHON: u16 = 8000;

/// What this folder is; a command that is named runs in it as it is.
///
/// # Errors
/// If it cannot be told, with what to do.
pub fn of(folder: &Path, command: &[String]) -> Result<Project, Fault> {
    if !command.is_empty() {
        named::can_run(folder, command)?;
        let mut said = vec![format!("runs {}", shell_words::join(command))];
        let mut run = command.to_vec();
        if let (Some(path), Some(first)) = (named::left_out(folder, command), run.first_mut()) {
            said.push(format!(
                "{first} is left out of what is watched, as .gitignore or hotctl itself has it: it runs where it \
                 is, and a change of it alone is not seen (Ctrl-C, and again)"
            ));
            *first = path.display().to_string();
        }
        return Ok(Project {
            service: in_place(folder, run, Vec::new()),
            port: COMPILED,
            said,
        });
    }
    let has = |name: &str| folder.join(name).exists();
    if has("Cargo.toml") {
        return cargo::of(folder);
    }
    if has("go.mod") {
        return go::of(folder);
    }
    if has("package.json") {
        return node(folder);
    }
    if let Some(project) = python(folder) {
        return Ok(project);
    }
    Err(Fault::config(format!(
        "{}: no Cargo.toml, go.mod, package.json, manage.py, main.py or app.py here",
        folder.display()
    ))
    .hint("hotctl dev -- COMMAND, which is to listen at $PORT; or `hotctl init`"))
}

/// An interpreted app, which runs from the files that are edited.
fn in_place(folder: &Path, run: Vec<String>, own: Vec<String>) -> Service {
    Service {
        run,
        workdir: Some(folder.to_owned()),
        build: Build {
            root: Some(folder.to_owned()),
            watch: own,
            ..Build::default()
        },
        ..Service::default()
    }
}

/// What counts as source, with more of its own kind.
pub fn sources(own: &[&str]) -> Vec<String> {
    let all = own.iter().chain(&SOURCES);
    all.map(|pattern| (*pattern).to_owned()).collect()
}

/// Whether a pattern is for a kind of file that such projects have, and this one may not have yet.
pub fn is_usual(pattern: &str) -> bool {
    const OWN: [&str; 6] = ["*.rs", "Cargo.lock", "*.go", "go.sum", "go.mod", "*.py"];
    SOURCES.contains(&pattern) || OWN.contains(&pattern)
}

fn words(line: &str) -> Vec<String> {
    line.split(' ').map(ToOwned::to_owned).collect()
}

fn node(folder: &Path) -> Result<Project, Fault> {
    let file = folder.join("package.json");
    let wrong = |cause: String| Fault::config(format!("{}: {cause}", file.display()));
    let text = fs::read_to_string(&file).map_err(|cause| {
        wrong(cause.to_string()).hint("mend it, or name the program: hotctl dev -- node FILE")
    })?;
    let package: Value = serde_json::from_str(&text).map_err(|cause| {
        let (line, column) = (cause.line(), cause.column());
        let text = cause.to_string();
        let why = text.split(" at line ").next().unwrap_or_default();
        Fault::config(format!(
            "{}:{line}:{column}: no JSON: {why}",
            file.display()
        ))
        .hint(
            "mend that line (comments and a comma after the last value are none of JSON), \
             or name the program: hotctl dev -- node FILE",
        )
    })?;
    let start = package["scripts"]["start"].as_str().unwrap_or_default();
    let entry = match shell_words::split(start).unwrap_or_default().as_slice() {
        [node, entry] if node == "node" => Some(entry.clone()),
        _ => None,
    };
    let entry = entry.or_else(|| {
        let main = package["main"].as_str().map(ToOwned::to_owned);
        let usual = [
            "server.js",
            "index.js",
            "app.js",
            "src/index.js",
            "server.mjs",
            "index.mjs",
        ];
        let usual = usual.map(ToOwned::to_owned);
        main.into_iter()
            .chain(usual)
            .find(|name| start.is_empty() && folder.join(name).is_file())
    });
    let (run, source) = match &entry {
        Some(entry) => (vec!["node".to_owned(), entry.clone()], entry.as_str()),
        // A shell, and what it starts, end together.
        None if !start.is_empty() => (words("npm run --silent start"), "server.js"),
        None => {
            return Err(
                wrong("names no program: neither scripts.start nor main".to_owned())
                    .hint("hotctl dev -- node FILE"),
            );
        }
    };
    let said = vec![format!("node: runs {}", shell_words::join(&run))];
    let service = in_place(folder, run, sources(&[]));
    Ok(with_port(service, NODE, &folder.join(source), said))
}

fn python(folder: &Path) -> Option<Project> {
    let own = folder.join(".venv/bin/python");
    let python = match own.exists() {
        true => own.display().to_string(),
        false => "python3".to_owned(),
    };
    let module = |args: &str| -> Vec<String> {
        let mut run = vec![python.clone()];
        run.extend(words(args));
        run
    };
    if folder.join("manage.py").is_file() {
        let run = module("manage.py runserver --noreload 127.0.0.1:{port}");
        let said = vec![format!("django: runs {}", shell_words::join(&run))];
        return Some(Project {
            service: in_place(folder, run, sources(&["*.py"])),
            port: PYTHON,
            said,
        });
    }
    let names = ["main", "app", "server", "wsgi", "asgi"];
    let found = names.into_iter().find_map(|name| {
        let file = folder.join(format!("{name}.py"));
        Some((name, fs::read_to_string(&file).ok()?, file))
    });
    let (name, text, file) = found?;
    let variable = |class: &str| {
        let line = text.lines().find(|line| line.contains(class))?;
        let (variable, _) = line.split_once('=')?;
        let variable = variable.trim();
        let is_name = variable
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || c == '_');
        (is_name && !variable.is_empty()).then(|| variable.to_owned())
    };
    let (run, port) = if let Some(app) = variable("FastAPI(").or_else(|| variable("Starlette(")) {
        (
            module(&format!(
                "-m uvicorn {name}:{app} --host 127.0.0.1 --port {{port}}"
            )),
            PYTHON,
        )
    } else if let Some(app) = variable("Flask(") {
        (
            module(&format!(
                "-m flask --app {name}:{app} run --host 127.0.0.1 --port {{port}}"
            )),
            FLASK,
        )
    } else {
        (module(&format!("{name}.py")), PYTHON)
    };
    let said = vec![format!("python: runs {}", shell_words::join(&run))];
    let takes_port = run.iter().any(|word| word.contains("{port}"));
    let service = in_place(folder, run, sources(&["*.py"]));
    Some(match takes_port {
        true => Project {
            service,
            port,
            said,
        },
        false => with_port(service, port, &file, said),
    })
}

/// Where its source names a port, and does not ask for `PORT`, it listens there whatever it is told, and
/// the usual port may be that one.
fn with_port(mut service: Service, usual: u16, source: &Path, mut said: Vec<String>) -> Project {
    let text = fs::read_to_string(source).unwrap_or_default();
    let mut port = usual;
    if let Some(fixed) = fixed_port(&text) {
        service.address = AddressKind::Fixed(fixed);
        if fixed.get() == usual {
            port = usual + 1;
        }
        said.push(format!(
            "{} names port {fixed} and does not ask for PORT: only one of it can run, so each new version \
             takes the place of the old one, and requests wait meanwhile",
            source.file_name().unwrap_or_default().to_string_lossy()
        ));
    }
    Project {
        service,
        port,
        said,
    }
}

/// The port that a program names where it listens, if it does not ask for another.
pub fn fixed_port(text: &str) -> Option<NonZeroU16> {
    if text.contains("PORT") {
        return None;
    }
    let lines = text.lines().filter(|line| {
        let line = line.to_ascii_lowercase();
        ["listen", "port", "bind", "serve", "run("]
            .iter()
            .any(|word| line.contains(word))
    });
    lines.flat_map(numbers).find(|port| port.get() >= 1024)
}

/// The numbers in a line that stand alone.
fn numbers(line: &str) -> Vec<NonZeroU16> {
    line.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == '.'))
        .filter_map(|word| word.parse().ok())
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    fn found(files: &[(&str, &str)]) -> Result<Project, Fault> {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            fs::write(folder.path().join(name), text).unwrap();
        }
        of(folder.path(), &[])
    }

    fn runs(files: &[(&str, &str)]) -> (String, u16, AddressKind) {
        let project = found(files).unwrap();
        let run = shell_words::join(&project.service.run);
        (run, project.port, project.service.address)
    }

    #[test]
    fn a_project_is_known_by_its_files() {
        let port = AddressKind::Port;
        let app = "const port = process.env.PORT || 3000\nserver.listen(port)";
        let fixed = AddressKind::Fixed(NonZeroU16::new(3000).unwrap());
        type Case<'a> = (&'a [(&'a str, &'a str)], &'a str, u16, AddressKind);
        let cases: [Case; 8] = [
            (
                &[
                    ("package.json", r#"{"scripts":{"start":"node web.js"}}"#),
                    ("web.js", app),
                ],
                "node web.js",
                3000,
                port,
            ),
            (
                &[
                    ("package.json", "{}"),
                    ("index.js", "http.createServer(f).listen(3000)"),
                ],
                "node index.js",
                3001,
                fixed,
            ),
            (
                &[("package.json", r#"{"scripts":{"start":"tsx src/a.ts"}}"#)],
                "npm run --silent start",
                3000,
                port,
            ),
            (
                &[("main.py", "from fastapi import FastAPI\napi = FastAPI()\n")],
                "python3 -m uvicorn main:api --host 127.0.0.1 --port {port}",
                8000,
                port,
            ),
            (
                &[("app.py", "app = Flask(__name__)\napp.run(port=5000)")],
                "python3 -m flask --app app:app run --host 127.0.0.1 --port {port}",
                5000,
                port,
            ),
            (
                &[("manage.py", ""), ("main.py", "")],
                "python3 manage.py runserver --noreload 127.0.0.1:{port}",
                8000,
                port,
            ),
            (
                &[("server.py", "HTTPServer(('', 3000), H).serve_forever()")],
                "python3 server.py",
                8000,
                fixed,
            ),
            (&[("go.mod", "module x")], "", 8080, port),
        ];
        for (files, run, listens, address) in cases {
            assert_eq!(runs(files), (run.to_owned(), listens, address), "{files:?}");
        }
    }

    #[test]
    fn a_folder_that_is_nothing_is_told_with_what_to_do() {
        let refused = found(&[("readme.md", "")]).unwrap_err();
        assert!(refused.hint.unwrap().contains("hotctl dev -- COMMAND"));
        let refused = found(&[("package.json", "{}")]).unwrap_err();
        assert!(refused.text.contains("names no program"), "{refused}");
        let broken = "{\n  \"main\": \"app.js\",\n}\n";
        let refused = found(&[("package.json", broken)]).unwrap_err();
        let told = "/package.json:3:1: no JSON: trailing comma";
        assert!(refused.text.ends_with(told), "{refused}");
        assert!(refused.hint.unwrap().contains("hotctl dev -- node FILE"));
    }
}
