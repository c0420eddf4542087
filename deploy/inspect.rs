//! Why a program cannot run on this machine, and what to do about it: its interpreter, its loader, its
//! libraries, a virtual environment that was made elsewhere. Looks, and changes nothing.

use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};

use crate::process::Exit;
use crate::refused::Refused;
use crate::{elf, shim};

/// How much of a first line the kernel reads.
const FIRST_LINE: u64 = 256;
/// What to do with an environment of Python that lies elsewhere.
const VENV: &str = "run it as `VENV/bin/python -m NAME`, or leave the environment out of the release and make it in \
     before_start: `python3 -m venv`, or `python3 -m pip install --target`";

/// Look at a program before it is run: `path` is where it is, `name` how it was called. Only what
/// would fail for sure is refused; what cannot be looked at passes.
///
/// # Errors
/// If its interpreter is not there, or belongs to a virtual environment at another place.
pub(crate) fn before(path: &Path, name: &str, env: &[(String, String)]) -> Result<(), Refused> {
    let mut line = Vec::new();
    let read = File::open(path).and_then(|file| file.take(FIRST_LINE).read_to_end(&mut line));
    let Some(line) = line.strip_prefix(b"#!").filter(|_| read.is_ok()) else {
        return Ok(());
    };
    let line = line.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let line = String::from_utf8_lossy(line);
    let mut words = line
        .split([' ', '\t', '\r'])
        .filter(|word| !word.is_empty());
    let Some(interpreter) = words.next() else {
        return Ok(());
    };
    if line.ends_with('\r') && !Path::new(line.trim_end_matches(' ')).exists() {
        return Err(Refused::new(format!(
            "{name}: its first line ends with a carriage return"
        ))
        .hint(format!(
            r"save it with Unix line ends: sed -i 's/\r$//' {name}"
        )));
    }
    let there = Path::new(interpreter);
    if there.is_absolute() {
        environment(path, name, there)?;
        if !there.exists() {
            return Err(Refused::new(format!(
                "{name}: its interpreter {interpreter} is not on this machine"
            ))
            .hint(format!(
                "install it, or let the first line be `#!/usr/bin/env {}`",
                there.file_name().unwrap_or_default().to_string_lossy()
            )));
        }
    }
    if there.file_name().is_some_and(|name| name == "env") {
        // Options and variables come first.
        let program = words.find(|word| !word.starts_with('-') && !word.contains('='));
        if let Some(program) = program
            && shim::find(program, env).is_none()
        {
            return Err(
                Refused::new(format!("{name}: its interpreter {program} is not in PATH")).hint(
                    format!("install {program}, or set PATH in the service's env"),
                ),
            );
        }
    }
    Ok(())
}

/// A script of a virtual environment that names the interpreter of another one: of the place where
/// the environment was made.
fn environment(script: &Path, name: &str, interpreter: &Path) -> Result<(), Refused> {
    let root = |path: &Path| Some(path.parent()?.parent()?.to_owned());
    let is_environment = |root: &PathBuf| root.join("pyvenv.cfg").is_file();
    let Some(own) = root(script).filter(is_environment) else {
        return Ok(());
    };
    let other = root(interpreter).filter(|other| same(other) != same(&own));
    match other {
        Some(other) if is_environment(&other) || !interpreter.exists() => {
            Err(Refused::new(format!(
                "{name}: runs {}, from the place where its virtual environment was made",
                interpreter.display()
            ))
            .hint(VENV))
        }
        _ => Ok(()),
    }
}

fn same(path: &Path) -> PathBuf {
    fs::canonicalize(path).unwrap_or_else(|_| path.to_owned())
}

/// Why the kernel says of a program that is there that it is not: its loader is missing.
pub(crate) fn no_loader(path: &Path, name: &str) -> Refused {
    let loader = File::open(path).ok().and_then(|file| elf::loader(&file));
    match loader.filter(|loader| !loader.exists()) {
        Some(loader) => {
            let shown = loader.display();
            let hint = if shown.to_string().contains("musl") {
                "it was built for musl, as on Alpine: install it (Debian: apt install musl), or build on this system, or statically"
            } else {
                "build it on this system, or statically (Rust: --target x86_64-unknown-linux-musl, Go: CGO_ENABLED=0)"
            };
            Refused::new(format!(
                "{name}: the loader it was linked for, {shown}, is not on this machine"
            ))
            .hint(hint)
        }
        None => Refused::new(format!(
            "{name}: its interpreter, or the loader it was linked for, is not on this machine"
        )),
    }
}

/// Why the kernel says of a program that it is none.
pub(crate) fn no_program(path: &Path, name: &str) -> Refused {
    let foreign = File::open(path).map(|file| elf::check(&file, name));
    match foreign {
        Ok(Err(refused)) if elf::is_known(path) => refused,
        _ => Refused::new(format!(
            "{name}: not a program of this machine, and without a #! line"
        )),
    }
}

/// What an early end means, if its last words tell: a shared library that is missing or too old, an
/// interpreter that was not found. The loader itself says so, which looks where nobody else knows to.
pub fn after(exit: &Exit, output: &[String]) -> Option<Refused> {
    if !matches!(exit, Exit::Code(1 | 126 | 127)) {
        return None;
    }
    output
        .iter()
        .rev()
        .find_map(|line| library(line).or_else(|| not_found(line)))
}

fn library(line: &str) -> Option<Refused> {
    if let Some((program, rest)) = line.split_once(": error while loading shared libraries: ") {
        let (library, why) = rest.split_once(": ")?;
        return Some(match why.contains("No such file") {
            true => missing(program, library),
            false => Refused::new(format!("{program}: its shared library {library}: {why}"))
                .hint("install one that is built for this machine, or link it statically"),
        });
    }
    // musl's words.
    if let Some(rest) = line.strip_prefix("Error loading shared library ") {
        let (library, rest) = rest.split_once(": ")?;
        let program = rest.split_once("(needed by ")?.1.trim_end_matches(')');
        return Some(missing(program, library));
    }
    let (place, rest) = line.split_once(": version `")?;
    let (version, rest) = rest.split_once("' not found (required by ")?;
    let program = rest.trim_end_matches(')');
    let library = place.rsplit([' ', '/']).next()?;
    Some(
        Refused::new(format!(
            "{program}: needs {version}, and {library} of this machine is older"
        ))
        .hint("build it on this system or an older one, or statically (Rust: --target x86_64-unknown-linux-musl, Go: CGO_ENABLED=0)"),
    )
}

fn missing(program: &str, library: &str) -> Refused {
    Refused::new(format!(
        "{program}: its shared library {library} is not on this machine"
    ))
    .hint(format!(
        "install the package that has it (Debian: `apt-file search {library}` names it), or link it statically, or set LD_LIBRARY_PATH in the service's env"
    ))
}

/// `env`, and a shell that was told to `exec`.
fn not_found(line: &str) -> Option<Refused> {
    let rest = line.strip_suffix(": No such file or directory")?;
    let (env, program) = rest.split_once(": ")?;
    let program = program.trim_matches(['\'', '\u{2018}', '\u{2019}']);
    (env.rsplit('/').next() == Some("env")).then(|| {
        Refused::new(format!("{program}: no such program in PATH")).hint(format!(
            "install {program}, or set PATH in the service's env"
        ))
    })
}

#[cfg(test)]
#[path = "inspect_tests.rs"]
mod tests;
