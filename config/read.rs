//! Finds and reads the configuration, with the files that it includes, and tells all that is wrong.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use crate::check::check;
use crate::decode::{Why, decode};
use crate::error::Problems;
use crate::file::{AccessLog, Config, Listen, Service};
use crate::include::{Sources, gather};
use crate::phrase::{locate, phrase};
use crate::source::{Format, Source, about, load};
use crate::tree::Place;

/// The commented file that `hotctl init` writes: a service to begin with, and every other field with
/// its default, commented out.
pub const EXAMPLE: &str = include_str!("example.toml");

/// Where the configuration is when nobody says: the first that exists.
const PLACES: [&str; 2] = ["hotctl.toml", "/etc/hotctl/hotctl.toml"];

/// How many problems are told at once. More come from one cause.
const MOST: usize = 100;

/// Where the configuration is: the file that was named, else `./hotctl.toml`, else
/// `/etc/hotctl/hotctl.toml`, else `None`. A file that was named need not exist: [`read`] says so.
///
/// # Errors
/// One of the two cannot be looked at. It is not passed over, since it may well be there.
pub fn find(explicit: Option<&Path>) -> Result<Option<PathBuf>, Problems> {
    match explicit {
        Some(path) => Ok(Some(path.into())),
        None => first_of(PLACES.map(Path::new)),
    }
}

fn first_of(places: [&Path; 2]) -> Result<Option<PathBuf>, Problems> {
    for path in places {
        match path.metadata() {
            Ok(_) => return Ok(Some(path.into())),
            Err(error)
                if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {}
            Err(error) => return Err(about(path, format!("cannot be looked at: {error}"), None)),
        }
    }
    Ok(None)
}

/// Reads and checks a file: JSON when its name ends in `.json`, otherwise TOML.
///
/// # Errors
/// All that is wrong with it, in the order of the file, or why it cannot be read.
pub fn read(path: &Path) -> Result<Config, Problems> {
    read_with(path, |_| {})
}

/// The same, with what goes before what the file says, such as flags: the whole is checked.
///
/// # Errors
/// As [`read`].
pub fn read_with(path: &Path, change: impl FnOnce(&mut Config)) -> Result<Config, Problems> {
    parse_with(&load(path)?, Format::of(path), path, change)
}

/// Reads and checks a text, and what it includes. `origin` is the file it came from: for the messages,
/// and because relative paths begin at its folder. They come back absolute.
///
/// # Errors
/// All that is wrong with it, in the order of the files: what the format itself forbids, and if there
/// is none of that, every value and every conflict.
pub fn parse(text: &str, format: Format, origin: &Path) -> Result<Config, Problems> {
    parse_with(text, format, origin, |_| {})
}

fn parse_with(
    text: &str,
    format: Format,
    origin: &Path,
    change: impl FnOnce(&mut Config),
) -> Result<Config, Problems> {
    let source = Source {
        file: origin.into(),
        format,
    };
    let mut tree = source.tree(text)?;
    let (sources, mut problems) = gather(&mut tree, source);
    // Services that are missing because their file cannot be read are not missing.
    let services_known = problems.is_empty();
    let mut refused = Vec::new();
    // Reading ends at the first wrong value. So it is told, left out, and the rest is read again.
    let mut config: Option<Config> = loop {
        let wrong = match decode(&tree) {
            Ok(config) => break Some(config),
            Err(wrong) => wrong,
        };
        let place = wrong.place.clone();
        // What is missing because it was refused was told already.
        if !(matches!(wrong.why, Why::Missing(_)) && refused.iter().any(|r| place.overlaps(r))) {
            problems.push(phrase(wrong, &tree, &sources));
        }
        if place.0.is_empty() || problems.len() >= MOST {
            break None;
        }
        tree.refuse(&place);
        refused.push(place);
    };
    if let Some(config) = &mut config {
        change(config);
        // A value that was refused now has its default, about which nobody wants to hear. And where an
        // element of a list is left out, the numbers of the others are off.
        let touched = |place: &Place| refused.iter().any(|refused| refused.list().overlaps(place));
        let service = Place::default().key("service");
        for finding in check(config) {
            if finding.place == service && !services_known {
                continue;
            }
            if !touched(&finding.place) && !finding.with.as_ref().is_some_and(touched) {
                problems.push(locate(finding, &tree, &sources));
            }
        }
    }
    match config {
        Some(mut config) if problems.is_empty() => {
            settle(&mut config, &sources);
            Ok(config)
        }
        _ => {
            problems.sort_by_key(|problem| (sources.order(&problem.file), problem.line));
            problems.truncate(MOST);
            Err(Problems(problems))
        }
    }
}

/// What there is without any file: one service `app` that takes every request on one address.
pub fn single(listen: SocketAddr) -> Config {
    let mut config = Config {
        listen: vec![Listen { address: listen }],
        ..Config::default()
    };
    config
        .services
        .extend("app".parse().map(|name| (name, Service::default())));
    config
}

/// Takes each relative path for one that begins at the folder of the file that names it.
fn settle(config: &mut Config, sources: &Sources) {
    let main = sources.of(&Place::default());
    let whole = |source: &Source, path: &mut PathBuf| {
        let beside = source.beside(path);
        // Where the working folder is gone, the path stays what it is, and is not found later.
        *path = std::path::absolute(&beside).unwrap_or(beside);
    };
    if let AccessLog::File(path) = &mut config.access_log {
        whole(main, path);
    }
    if let Some(path) = &mut config.include {
        whole(main, path);
    }
    for (name, service) in &mut config.services {
        if !service.build.command.is_empty() {
            service.build.root.get_or_insert_with(|| ".".into());
        }
        let source = sources.of(&Place::default().key("service").key(name.as_str()));
        let paths = [
            &mut service.env_file,
            &mut service.workdir,
            &mut service.watch.path,
            &mut service.build.root,
            &mut service.build.env_file,
        ];
        for path in paths.into_iter().flatten() {
            whole(source, path);
        }
        if let (Some(root), Some(output)) = (&service.build.root, &mut service.build.output) {
            *output = root.join(&*output);
        }
    }
}

#[cfg(test)]
#[path = "read_tests.rs"]
pub(crate) mod tests;
