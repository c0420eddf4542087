//! `hotctl init`: writes a configuration to begin with, with every field or made of that of another tool.
//! What is written passes the check; nothing that stands there is overwritten.

mod air;
mod draft;
mod fields;
mod nodemon;
mod procfile;
mod project;
mod shell;
#[cfg(test)]
mod testing;

use std::fs;
use std::io::{self, Write as _};
use std::path::Path;

use hotctl_config::Format;

use crate::answers::Written;
use crate::cli::{self, Form};
use crate::commands::answer;
use crate::fault::Fault;
use draft::{Draft, tame};
use project::Project;

/// Files that it can begin with.
const KNOWN: &str = "Procfile, Procfile.dev and the like, .air.toml, nodemon.json, or package.json";

/// Write it.
///
/// # Errors
/// If there is something already, the file of the other tool cannot be understood, or it cannot be
/// written.
pub fn run(asked: &cli::Init, form: Form) -> Result<(), Fault> {
    let path = &asked.path;
    let shown = path.display().to_string();
    if Format::of(path) == Format::Json {
        return Err(
            Fault::config(format!("{shown}: it is TOML that is written"))
                .hint("name a file that ends in .toml"),
        );
    }
    // Before anything is read: what is there is not to be written in any case.
    if path.symlink_metadata().is_ok() {
        return Err(is_there(&shown));
    }
    let (text, unmapped, made) = match &asked.from {
        None => (hotctl_config::EXAMPLE.to_owned(), Vec::new(), String::new()),
        Some(from) => {
            let draft = draft(from, path)?;
            let made = format!(" from {}", draft.from);
            (checked(&draft, path)?, draft.unmapped, made)
        }
    };
    let written = fs::File::create_new(path).and_then(|mut file| file.write_all(text.as_bytes()));
    match written {
        Ok(()) => {}
        Err(cause) if cause.kind() == io::ErrorKind::AlreadyExists => return Err(is_there(&shown)),
        Err(cause) => {
            return Err(
                Fault::config(format!("{shown}: {cause}")).hint("another place: hotctl init FILE")
            );
        }
    }
    let written = Written {
        files: vec![shown],
        unmapped,
    };
    answer(form, &written, || words(&written, &made))
}

fn words(written: &Written, made: &str) -> String {
    let file = &written.files[0];
    if made.is_empty() {
        return format!("wrote {file}; read it, then `hotctl serve`");
    }
    let mut words = format!("wrote {file}{made}; read it, then `hotctl dev` or `hotctl serve`");
    if !written.unmapped.is_empty() {
        words.push_str("\nwithout an equivalent, and a comment at its end:");
        for unmapped in &written.unmapped {
            words.push_str("\n  ");
            words.push_str(&tame(&unmapped.to_string()));
        }
    }
    words
}

fn is_there(shown: &str) -> Fault {
    Fault::config(format!("{shown}: is there already, and is not overwritten"))
        .hint("name another file: hotctl init FILE")
}

/// Whose file it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tool {
    Procfile,
    Air,
    Nodemon,
    Package,
}

impl Tool {
    /// By the name of its file.
    fn of(path: &Path) -> Option<Self> {
        let name = path.file_name()?.to_str()?.to_ascii_lowercase();
        let mut parts = name.split('.');
        let is_air = name.ends_with(".toml") && parts.any(|part| part == "air");
        match name.as_str() {
            "package.json" => Some(Self::Package),
            _ if name.starts_with("procfile") => Some(Self::Procfile),
            _ if is_air => Some(Self::Air),
            _ if name.ends_with(".json") && name.trim_start_matches('.').starts_with("nodemon") => {
                Some(Self::Nodemon)
            }
            _ => None,
        }
    }
}

/// What comes of the file of another tool. `path` is where it will be written.
fn draft(from: &Path, path: &Path) -> Result<Draft, Fault> {
    let shown = from.display().to_string();
    let Some(tool) = Tool::of(from) else {
        return Err(Fault::config(format!(
            "{shown}: not a file that a configuration can be made of, by its name"
        ))
        .hint(format!("{KNOWN}; or `hotctl init` alone")));
    };
    let text = hotctl_config::load(from).map_err(|wrong| {
        let hint = match fs::metadata(from) {
            Ok(_) => format!("{KNOWN}, as UTF-8 text that can be read"),
            Err(_) => format!("name a file that is there: {KNOWN}"),
        };
        refused(wrong).hint(hint)
    })?;
    let project = Project::of(from, path);
    let read = |format: Format| {
        let tree = format.tree(&text, from);
        tree.map_err(|wrong| {
            let hint = wrong.0.iter().find_map(|problem| problem.hint.clone());
            let hint = hint.unwrap_or_else(|| format!("make it good {}", name_of(format)));
            refused(wrong).hint(hint)
        })
    };
    let mut draft = match tool {
        Tool::Procfile => procfile::draft(&shown, &text, &project)?,
        Tool::Air => air::draft(&shown, read(Format::Toml)?, &project)?,
        Tool::Nodemon => nodemon::of_nodemon(&shown, read(Format::Json)?, &project)?,
        Tool::Package => nodemon::of_package(&shown, read(Format::Json)?, &project)?,
    };
    draft.settle_port();
    draft.unmapped.sort_by_key(|unmapped| unmapped.line);
    Ok(draft)
}

fn name_of(format: Format) -> &'static str {
    match format {
        Format::Toml => "TOML",
        Format::Json => "JSON, without comments and trailing commas",
    }
}

/// The first thing that is wrong; the rest often follows from it.
fn refused(problems: hotctl_config::Problems) -> Fault {
    let mut problems = problems.0;
    for problem in &mut problems {
        problem.hint = None;
    }
    let first = problems.first().map(ToString::to_string);
    Fault::config(first.unwrap_or_default())
}

/// The text of it, which is good. What another tool takes may be what hotctl refuses.
fn checked(draft: &Draft, path: &Path) -> Result<String, Fault> {
    let text = draft.text();
    match hotctl_config::parse(&text, Format::Toml, path) {
        Ok(_) => Ok(text),
        Err(problems) => {
            let first = problems.0.first();
            let why = first.map_or_else(String::new, |problem| {
                let value = problem.value.as_deref().unwrap_or_default();
                format!("{} = {value}: {}", problem.field, problem.reason)
            });
            Err(Fault::config(format!(
                "{}: no good configuration comes of it: {why}",
                draft.from
            ))
            .hint("change it there; or `hotctl init`, and write it by hand"))
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn a_file_is_known_by_its_name() {
        let cases = [
            ("Procfile", Some(Tool::Procfile)),
            ("a/Procfile.dev", Some(Tool::Procfile)),
            (".air.toml", Some(Tool::Air)),
            (".config/air.toml", Some(Tool::Air)),
            (".air.linux.toml", Some(Tool::Air)),
            ("api.air.toml", Some(Tool::Air)),
            ("nodemon.json", Some(Tool::Nodemon)),
            ("nodemon-debug.json", Some(Tool::Nodemon)),
            (".nodemon.json", Some(Tool::Nodemon)),
            ("web/package.json", Some(Tool::Package)),
            ("hair.toml", None),
            ("Cargo.toml", None),
            ("package-lock.json", None),
            ("docker-compose.yml", None),
            ("..", None),
        ];
        for (name, tool) in cases {
            assert_eq!(Tool::of(Path::new(name)), tool, "{name}");
        }
    }
}
