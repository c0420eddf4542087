//! What a folder of cargo builds and runs. Asks `cargo metadata`, and builds nothing.

use std::path::{Path, PathBuf};
use std::process::Command;

use hotctl_config::file::{Build, Service};
use serde::Deserialize;

use super::{COMPILED, Project, sources, with_port, words};
use crate::fault::Fault;

/// Of what `cargo metadata --no-deps` says.
#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    target_directory: PathBuf,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    manifest_path: PathBuf,
    default_run: Option<String>,
    targets: Vec<Target>,
}

#[derive(Deserialize)]
struct Target {
    name: String,
    kind: Vec<String>,
    src_path: PathBuf,
}

/// What is built of a package or a workspace.
///
/// # Errors
/// If cargo cannot say what there is, or there is no program.
pub fn of(folder: &Path) -> Result<Project, Fault> {
    const HINT: &str = "`cargo metadata` says more";
    let output = Command::new("cargo")
        .args(["metadata", "--no-deps", "--format-version", "1"])
        .current_dir(folder)
        .output()
        .map_err(|cause| {
            Fault::config(format!("cargo: {cause}")).hint("install Rust from https://rustup.rs")
        })?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        return Err(Fault::config(format!("cargo metadata: {}", text.trim())));
    }
    let metadata: Metadata = serde_json::from_slice(&output.stdout)
        .map_err(|cause| Fault::config(format!("cargo metadata: {cause}")).hint(HINT))?;
    let manifest = folder.join("Cargo.toml");
    let own = |package: &&Package| {
        package.manifest_path.canonicalize().ok() == manifest.canonicalize().ok()
    };
    let of_package = metadata.packages.iter().find(own);
    let among: Vec<&Package> =
        of_package.map_or_else(|| metadata.packages.iter().collect(), |it| vec![it]);
    let default = among.iter().find_map(|package| package.default_run.clone());
    let programs: Vec<(&Package, &Target)> = among
        .iter()
        .flat_map(|package| package.targets.iter().map(|target| (*package, target)))
        .filter(|(_, target)| target.kind.iter().any(|kind| kind == "bin"))
        .collect();
    let chosen = programs
        .iter()
        .find(|(_, target)| Some(&target.name) == default.as_ref())
        .or_else(|| programs.first());
    let Some((package, program)) = chosen else {
        return Err(
            Fault::config(format!("{}: has no program", manifest.display()))
                .hint("stand in the folder of the package that has one"),
        );
    };
    let mut said = vec![format!("cargo: builds and runs {}", program.name)];
    if programs.len() > 1 && default.is_none() {
        said.push(others(&programs));
    }
    let mut command = words("cargo build --bin");
    command.push(program.name.clone());
    if of_package.is_none() {
        command.extend(["-p".to_owned(), package.name.clone()]);
    }
    let service = Service {
        workdir: Some(folder.to_owned()),
        build: Build {
            command,
            output: Some(metadata.target_directory.join("debug").join(&program.name)),
            root: Some(folder.to_owned()),
            watch: sources(&["*.rs", "Cargo.lock"]),
            ..Build::default()
        },
        ..Service::default()
    };
    Ok(with_port(service, COMPILED, &program.src_path, said))
}

/// That there are others than the first, and how another is named: in its package where that is one
/// package, else one service for each.
fn others(programs: &[(&Package, &Target)]) -> String {
    let names: Vec<&str> = programs.iter().map(|(_, it)| it.name.as_str()).collect();
    let count = names.len();
    let names = names.join(", ");
    let packages = programs.iter().map(|(package, _)| &package.name);
    match packages.clone().min() == packages.clone().max() {
        true => format!(
            "there are {count} programs: {names}; this is the first (default-run in Cargo.toml names another)"
        ),
        false => {
            let other = programs.last().map(|(package, program)| {
                let (package, program) = (&package.name, &program.name);
                format!(
                    "[service.{program}.build] command = [\"cargo\", \"build\", \"-p\", \
                     \"{package}\"] and output = \"target/debug/{program}\""
                )
            });
            format!(
                "there are {count} programs in this workspace: {names}; this is the first (for another, or \
                 several side by side, one service for each in hotctl.toml, with {})",
                other.unwrap_or_default()
            )
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use std::fs;

    fn package(folder: &Path, name: &str) {
        let own = folder.join(name);
        fs::create_dir_all(own.join("src")).unwrap();
        let text =
            format!("[package]\nname = \"{name}\"\nversion = \"0.1.0\"\nedition = \"2021\"\n");
        fs::write(own.join("Cargo.toml"), text).unwrap();
        fs::write(own.join("src/main.rs"), "fn main() {}\n").unwrap();
    }

    #[test]
    fn a_workspace_of_several_programs_names_them_and_how_another_is_chosen() {
        let folder = tempfile::tempdir().unwrap();
        let text = "[workspace]\nresolver = \"2\"\nmembers = [\"api\", \"mailer\"]\n";
        fs::write(folder.path().join("Cargo.toml"), text).unwrap();
        package(folder.path(), "api");
        package(folder.path(), "mailer");
        let project = of(folder.path()).unwrap();
        assert_eq!(
            project.service.build.command,
            words("cargo build --bin api -p api")
        );
        assert_eq!(
            project.said[1],
            "there are 2 programs in this workspace: api, mailer; this is the first (for another, or several \
             side by side, one service for each in hotctl.toml, with [service.mailer.build] command = \
             [\"cargo\", \"build\", \"-p\", \"mailer\"] and output = \"target/debug/mailer\")"
        );
        // Within one package cargo has a word for it.
        let own = folder.path().join("api");
        fs::create_dir(own.join("src/bin")).unwrap();
        fs::write(own.join("src/bin/more.rs"), "fn main() {}\n").unwrap();
        let project = of(&own).unwrap();
        assert_eq!(
            project.service.build.command,
            words("cargo build --bin api")
        );
        assert_eq!(
            project.said[1],
            "there are 2 programs: api, more; this is the first (default-run in Cargo.toml names another)"
        );
    }
}
