//! What a folder of go builds and runs: its own package where that is a program, else the one below
//! `cmd`, as such modules are laid out. Looks at files, and builds nothing.

use std::fs;
use std::path::Path;

use hotctl_config::file::{Build, Service};

use super::{COMPILED, Project, sources, with_port, words};
use crate::fault::Fault;
use crate::places::PROJECT;

/// What is built of a module.
///
/// # Errors
/// If there are several programs, with how one is named.
pub fn of(folder: &Path) -> Result<Project, Fault> {
    let below = match is_program(folder) {
        true => Vec::new(),
        false => programs(&folder.join("cmd")),
    };
    match below.as_slice() {
        // Where nothing is found, go itself says what is missing.
        [] => Ok(package(folder, ".", "go: builds and runs this package")),
        [only] => {
            let name = format!("./cmd/{only}");
            Ok(package(
                folder,
                &name,
                &format!("go: builds and runs {name}"),
            ))
        }
        [first, ..] => {
            let names: Vec<String> = below.iter().map(|it| format!("./cmd/{it}")).collect();
            let output = format!("{PROJECT}/{first}");
            Err(Fault::config(format!(
                "{}: {} programs, and none here: {}",
                folder.display(),
                names.len(),
                names.join(", ")
            ))
            .hint(format!(
                "hotctl dev -- go run ./cmd/{first}; or one service for each in hotctl.toml, with \
                 [service.{first}.build] command = [\"go\", \"build\", \"-o\", \"{output}\", \
                 \"./cmd/{first}\"] and output = \"{output}\""
            )))
        }
    }
}

fn package(folder: &Path, name: &str, said: &str) -> Project {
    let output = folder.join(PROJECT).join("app");
    let mut command = words("go build -o");
    command.extend([output.display().to_string(), name.to_owned()]);
    let service = Service {
        workdir: Some(folder.to_owned()),
        build: Build {
            command,
            output: Some(output),
            root: Some(folder.to_owned()),
            watch: sources(&["*.go", "go.sum", "go.mod"]),
            ..Build::default()
        },
        ..Service::default()
    };
    let main = folder.join(name).join("main.go");
    with_port(service, COMPILED, &main, vec![said.to_owned()])
}

/// The folders in this one that are programs, by name.
fn programs(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let programs = entries.filter(|entry| is_program(&entry.path()));
    let mut names: Vec<String> = programs
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

/// Whether one of the files of a folder says `package main`; a test, or a script that is built for
/// itself, does not count.
fn is_program(folder: &Path) -> bool {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).any(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.ends_with(".go")
            && !name.ends_with("_test.go")
            && fs::read_to_string(&path).is_ok_and(|text| says_main(&text))
    })
}

fn says_main(text: &str) -> bool {
    let mut lines = text.lines().map(str::trim_end);
    let package = lines.clone().position(|line| line.starts_with("package "));
    let is_left_out = |line: &str| line == "//go:build ignore" || line == "// +build ignore";
    let Some(at) = package else { return false };
    let is_built = !lines.clone().take(at).any(is_left_out);
    let words = lines.nth(at).map(|line| line.split_whitespace().nth(1));
    is_built && words == Some(Some("main"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    fn found(files: &[(&str, &str)]) -> Result<String, String> {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let shown = folder.path().display().to_string();
        match of(folder.path()) {
            Ok(project) => Ok(project.service.build.command.last().unwrap().clone()),
            Err(fault) => Err(fault.to_string().replace(&shown, "HERE")),
        }
    }

    #[test]
    fn the_program_of_a_module_is_here_or_the_only_one_below_cmd() {
        let main = "// Package main serves.\npackage main\n\nfunc main() {}\n";
        for (files, builds) in [
            (&[("main.go", main), ("cmd/a/main.go", main)][..], "."),
            (
                &[("lib.go", "package lib\n"), ("cmd/a/a.go", main)],
                "./cmd/a",
            ),
            (
                &[("cmd/a/main.go", main), ("cmd/lib/lib.go", "package lib\n")],
                "./cmd/a",
            ),
            (
                &[
                    ("tools.go", "//go:build ignore\n\npackage main\n"),
                    ("cmd/a/main.go", main),
                ],
                "./cmd/a",
            ),
            (
                &[("cmd/a/main.go", main), ("cmd/b/main_test.go", main)],
                "./cmd/a",
            ),
            (&[("go.mod", "module x\n")], "."),
        ] {
            assert_eq!(found(files).as_deref(), Ok(builds), "{files:?}");
        }
        let told = found(&[("cmd/web/main.go", main), ("cmd/mail/main.go", main)]).unwrap_err();
        assert_eq!(
            told,
            "HERE: 2 programs, and none here: ./cmd/mail, ./cmd/web\n  try: hotctl dev -- go run ./cmd/mail; or one service for each in hotctl.toml, with [service.mail.build] command = [\"go\", \"build\", \"-o\", \".hotctl/mail\", \"./cmd/mail\"] and output = \".hotctl/mail\""
        );
    }
}
