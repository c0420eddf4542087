//! What of a project counts as source for nodemon.

use hotctl_config::tree::Value;

use super::super::draft::{Draft, Row, Service};
use super::super::fields::Said;
use super::super::project::Project;
use super::{Settings, patterns};
use crate::fault::Fault;

/// What nodemon leaves out by itself; what it leaves out beside, hotctl does too.
const LEFT_OUT: [&str; 2] = ["bower_components", "coverage"];
/// Files and folders that begin with a dot, unless one of them is to be watched.
const HIDDEN: &str = ".*";

/// What is watched, and what is not. `usual` are the endings where none are named.
///
/// # Errors
/// If a setting is not what it should be.
pub fn rows(
    settings: &mut Settings,
    usual: &[String],
    project: &Project,
    service: &mut Service,
    draft: &mut Draft,
) -> Result<(), Fault> {
    let mut why = Vec::new();
    let ext = settings.list("ext")?;
    let endings = match &ext {
        Some(said) => {
            why.push(said.from());
            patterns::endings(&said.value)
        }
        None => {
            why.push("What nodemon watches by itself for such a program.".into());
            usual.to_vec()
        }
    };
    let is_off = settings
        .0
        .iter()
        .any(|fields| matches!(fields.look("watch"), Some(Value::Flag(false))));
    let watch = match is_off {
        true => None,
        false => settings.list("watch")?,
    };
    let mut watched = Vec::new();
    let mut ignored: Vec<String> = Vec::new();
    match &watch {
        Some(said) if !said.value.is_empty() => {
            why.insert(0, said.from());
            for one in &said.value {
                match one.strip_prefix('!') {
                    Some(not) => match patterns::ignored(not, project) {
                        Some(patterns) => ignored.extend(patterns),
                        None => draft.unmapped.push(said.unmapped(one, patterns::REASON)),
                    },
                    None => match patterns::watched(one, &endings, project) {
                        Some(patterns) => watched.extend(patterns),
                        None => draft.unmapped.push(said.unmapped(one, patterns::REASON)),
                    },
                }
            }
        }
        _ => {}
    }
    if watched.is_empty() {
        watched.extend(endings.iter().map(|ending| format!("*.{ending}")));
    }
    watched.dedup();
    service
        .build
        .push(Row::list("watch", &watched, why.join(" ")));
    let mut why = Vec::new();
    match settings.list("ignoreRoot")? {
        Some(said) => {
            why.push(said.from());
            ignored.extend(all_ignored(&said, project, draft));
        }
        None => {
            why.push("What nodemon leaves out by itself.".into());
            ignored.extend(LEFT_OUT.map(ToOwned::to_owned));
            let names_hidden = |one: &String| one.starts_with('.') || one.contains("/.");
            if !watched.iter().any(names_hidden) {
                ignored.push(HIDDEN.into());
            }
        }
    }
    if let Some(said) = settings.list("ignore")? {
        why.push(said.from());
        ignored.extend(all_ignored(&said, project, draft));
    }
    if !ignored.is_empty() {
        service
            .build
            .push(Row::list("ignore", &ignored, why.join(" ")));
    }
    Ok(())
}

fn all_ignored(said: &Said<Vec<String>>, project: &Project, draft: &mut Draft) -> Vec<String> {
    let mut found = Vec::new();
    for one in &said.value {
        match patterns::ignored(one, project) {
            Some(patterns) => found.extend(patterns),
            None => draft.unmapped.push(said.unmapped(one, patterns::REASON)),
        }
    }
    found
}
