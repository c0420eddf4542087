//! The files of one configuration: the main one, and those of the folder that it includes.
//!
//! Services of included files are put into the main tree, so that from there on there is one
//! configuration, and every rule holds across files. What is remembered is whose a service is.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::error::{Problem, Problems};
use crate::source::{Source, about, load};
use crate::tree::{Entry, Node, Place, Step, Value};

/// The files of one configuration, and which of them holds what.
#[derive(Debug)]
pub(crate) struct Sources {
    main: Source,
    /// In the order in which they are read.
    included: Vec<Source>,
    /// For each service of an included file: its index there.
    owners: BTreeMap<String, usize>,
}

impl Sources {
    /// The file in which a place stands.
    pub(crate) fn of(&self, place: &Place) -> &Source {
        let owner = match place.0.as_slice() {
            [Step::Key(top), Step::Key(service), ..] if top == "service" => {
                self.owners.get(service)
            }
            _ => None,
        };
        owner
            .and_then(|index| self.included.get(*index))
            .unwrap_or(&self.main)
    }

    /// Where a file comes among them: the main one first.
    pub(crate) fn order(&self, file: &Path) -> Option<usize> {
        self.included.iter().position(|source| source.file == file)
    }
}

/// Puts the services of the included files, if there are any, into the tree of the main one. What
/// cannot be taken in is left out and told.
pub(crate) fn gather(tree: &mut Node, main: Source) -> (Sources, Vec<Problem>) {
    let mut gathering = Gathering {
        sources: Sources {
            main,
            included: Vec::new(),
            owners: BTreeMap::new(),
        },
        problems: Vec::new(),
    };
    let include = Place::default().key("include");
    // Anything else than a path is refused with all the other values.
    let folder = match tree.get(&include).map(|node| &node.value) {
        Some(Value::Text(folder)) if !folder.is_empty() => folder.clone(),
        _ => return (gathering.sources, gathering.problems),
    };
    match files(&gathering.sources.main.beside(Path::new(&folder))) {
        Ok(files) => files
            .into_iter()
            .for_each(|file| gathering.take(tree, Source::at(file))),
        Err(error) => gathering.problems.push(Problem {
            file: gathering.sources.main.file.clone(),
            line: Some(tree.line_of(&include)),
            field: include.to_string(),
            value: Some(format!("{folder:?}")),
            reason: format!("cannot be read: {error}"),
            hint: Some("make the folder, or leave it out".into()),
        }),
    }
    (gathering.sources, gathering.problems)
}

/// The configuration files of a folder, in the order of their names. Hidden ones are not meant: editors
/// leave them.
fn files(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in folder.read_dir()? {
        let path = entry?.path();
        let hidden = path
            .file_name()
            .is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        let ours = path.extension().is_some_and(|extension| {
            ["toml", "json"]
                .iter()
                .any(|known| extension.eq_ignore_ascii_case(known))
        });
        if ours && !hidden {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

struct Gathering {
    sources: Sources,
    problems: Vec<Problem>,
}

impl Gathering {
    fn take(&mut self, tree: &mut Node, source: Source) {
        let index = self.sources.included.len();
        self.sources.included.push(source.clone());
        let read = load(&source.file).and_then(|text| source.tree(&text));
        let entries = match read.and_then(|tree| table(tree, &source)) {
            Ok(entries) => entries,
            Err(Problems(problems)) => return self.problems.extend(problems),
        };
        for entry in entries {
            match (entry.key.as_str(), entry.node.value) {
                ("service", Value::Table(services)) => {
                    services
                        .into_iter()
                        .for_each(|service| self.add(tree, &source, index, service));
                }
                ("service", Value::Nothing) => {}
                ("service", other) => {
                    let reason = format!("{}, where a table is due", other.what());
                    let hint = "[service.NAME], with its name and single brackets".into();
                    self.refuse(&source, entry.line, "service".into(), reason, hint);
                }
                (key, _) => {
                    let field = Place::default().key(key).to_string();
                    let main = self.sources.main.file.display();
                    let hint = format!("[service.NAME] tables here, the rest in {main}");
                    let reason = "an included file holds only services".into();
                    self.refuse(&source, entry.line, field, reason, hint);
                }
            }
        }
    }

    fn add(&mut self, tree: &mut Node, source: &Source, index: usize, service: Entry) {
        let place = Place::default().key("service").key(&*service.key);
        if tree.get(&place).is_some() {
            let other = &self.sources.of(&place).file;
            let reason = format!("stands in {}:{} too", other.display(), tree.line_of(&place));
            let hint = "another name for one of the two".into();
            return self.refuse(source, service.line, place.to_string(), reason, hint);
        }
        let Value::Table(top) = &mut tree.value else {
            // The main file is no table, which is told.
            return;
        };
        let at = match top.iter().position(|entry| entry.key == "service") {
            Some(at) => at,
            None => {
                top.push(Entry {
                    key: "service".into(),
                    line: tree.line,
                    node: Node {
                        line: tree.line,
                        value: Value::Table(Vec::new()),
                    },
                });
                top.len() - 1
            }
        };
        if matches!(top[at].node.value, Value::Nothing) {
            top[at].node.value = Value::Table(Vec::new());
        }
        // Where it is no table in the main file, that is told.
        if let Value::Table(services) = &mut top[at].node.value {
            self.sources.owners.insert(service.key.clone(), index);
            services.push(service);
        }
    }

    fn refuse(
        &mut self,
        source: &Source,
        line: usize,
        field: String,
        reason: String,
        hint: String,
    ) {
        self.problems.push(Problem {
            file: source.file.clone(),
            line: Some(line),
            field,
            value: None,
            reason,
            hint: Some(hint),
        });
    }
}

/// The fields of a file.
fn table(tree: Node, source: &Source) -> Result<Vec<Entry>, Problems> {
    match tree.value {
        Value::Table(entries) => Ok(entries),
        other => {
            let reason = format!("{}, where a table is due", other.what());
            Err(about(&source.file, reason, None))
        }
    }
}

#[cfg(test)]
#[path = "include_tests.rs"]
mod tests;
