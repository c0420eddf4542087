//! Whether a command that was named at the desk can be run at all, before anything else is said of the
//! folder. Looks, and runs nothing.

use std::path::{Component, Path, PathBuf};

use hotctl_deploy::without::unmatched;
use rustix::fs::{Access, access};

use crate::fault::Fault;

/// The program of a command is there and may be executed: beside what is edited, or in `PATH`.
///
/// # Errors
/// If it is not, by the name that was given to it, with what to do.
pub fn can_run(folder: &Path, command: &[String]) -> Result<(), Fault> {
    let Some(program) = command.first() else {
        return Ok(());
    };
    let beside = folder.join(program);
    // What the folder has goes before what PATH has.
    if !program.contains('/') && !beside.is_file() {
        return match which::which(program) {
            Ok(_) => Ok(()),
            Err(_) => Err(Fault::config(format!(
                "{program}: no such program in PATH, and no such file here"
            ))
            .hint(format!(
                "install {program}, or name its file: hotctl dev -- ./{program}"
            ))),
        };
    }
    if beside.is_dir() {
        return Err(Fault::config(format!("{program}: a folder, not a program"))
            .hint("name the program that is to run: hotctl dev -- COMMAND"));
    }
    if !beside.exists() {
        return Err(Fault::config(format!("{program}: no such file"))
            .hint("build it first, or name another: hotctl dev -- COMMAND"));
    }
    if access(&beside, Access::EXEC_OK).is_err() {
        let shown = match program.contains('/') {
            true => program.clone(),
            false => format!("./{program}"),
        };
        return Err(Fault::config(format!("{program}: not executable"))
            .hint(format!("chmod +x {}", shell_words::quote(&shown))));
    }
    Ok(())
}

/// Where the program of a command lies, if that is in the folder and left out of what is taken of it, as
/// `target/debug/app` and `.venv/bin/python` are: then it is run from there.
pub fn left_out(folder: &Path, command: &[String]) -> Option<PathBuf> {
    let program = Path::new(command.first().filter(|program| program.contains('/'))?);
    if program.is_absolute() {
        return None;
    }
    let inside: PathBuf = program
        .components()
        .filter(|part| *part != Component::CurDir)
        .collect();
    let pattern = format!("/{}", inside.display());
    let has_signs = pattern.contains(['*', '?', '[', '\\', ' ']);
    let is_left_out = !has_signs && !unmatched(folder, &[], &[], &[pattern]).is_empty();
    is_left_out.then(|| folder.join(inside))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn what_is_left_out_of_the_sources_is_run_where_it_is() {
        let temp = tempfile::tempdir().unwrap();
        let folder = temp.path();
        for path in ["target/debug/app", "bin/app", "made/app"] {
            let path = folder.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
        std::fs::write(folder.join(".gitignore"), "/made\n").unwrap();
        for (program, is_left_out) in [
            ("./target/debug/app", true),
            ("made/app", true),
            ("./bin/app", false),
            ("/bin/sh", false),
            ("sh", false),
        ] {
            let found = left_out(folder, &[program.to_owned()]);
            let inside = program.trim_start_matches("./");
            assert_eq!(found, is_left_out.then(|| folder.join(inside)), "{program}");
        }
    }

    #[test]
    fn what_cannot_be_run_is_told_by_the_name_that_was_given() {
        let temp = tempfile::tempdir().unwrap();
        let folder = temp.path();
        std::fs::write(folder.join("an app"), "#!/bin/sh\n").unwrap();
        std::fs::create_dir(folder.join("bin")).unwrap();
        for (program, told) in [
            ("sh", None),
            ("/bin/sh", None),
            (
                "no-such-program",
                Some(
                    "no-such-program: no such program in PATH, and no such file here\n  try: install no-such-program, or name its file: hotctl dev -- ./no-such-program",
                ),
            ),
            (
                "./none",
                Some(
                    "./none: no such file\n  try: build it first, or name another: hotctl dev -- COMMAND",
                ),
            ),
            (
                "./an app",
                Some("./an app: not executable\n  try: chmod +x './an app'"),
            ),
            (
                "an app",
                Some("an app: not executable\n  try: chmod +x './an app'"),
            ),
            (
                "./bin",
                Some(
                    "./bin: a folder, not a program\n  try: name the program that is to run: hotctl dev -- COMMAND",
                ),
            ),
        ] {
            let refused = can_run(folder, &[program.to_owned()]).err();
            let text = refused.map(|fault| fault.to_string());
            assert_eq!(text.as_deref(), told, "{program}");
        }
    }
}
