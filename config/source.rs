//! One file of a configuration: what it is called, how it is written, its text.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::error::{Problem, Problems};
use crate::tree::{self, Node};

/// The two ways to write a configuration. The names are the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// TOML 1.0.
    Toml,
    /// JSON. A null is as if the field were left out.
    Json,
}

impl Format {
    /// JSON when the file's name ends in `.json`, otherwise TOML.
    pub fn of(path: &Path) -> Self {
        match path.extension() {
            Some(extension) if extension.eq_ignore_ascii_case("json") => Self::Json,
            _ => Self::Toml,
        }
    }

    /// A text that is written so, as a tree whose values know their lines. `file` is for the messages.
    ///
    /// # Errors
    /// What the format forbids.
    pub fn tree(self, text: &str, file: &Path) -> Result<Node, Problems> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        match self {
            Self::Toml => tree::from_toml(text, file),
            Self::Json => tree::from_json(text, file),
        }
    }
}

/// A file of a configuration.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    /// As the operator named it.
    pub file: PathBuf,
    pub format: Format,
}

impl Source {
    /// The file at a path.
    pub(crate) fn at(path: PathBuf) -> Self {
        let format = Format::of(&path);
        Self { file: path, format }
    }

    /// Its text, as a tree.
    pub(crate) fn tree(&self, text: &str) -> Result<Node, Problems> {
        self.format.tree(text, &self.file)
    }

    /// Where a path that is written in it begins.
    pub(crate) fn beside(&self, path: &Path) -> PathBuf {
        match self.file.parent() {
            Some(folder) => folder.join(path),
            None => path.into(),
        }
    }
}

/// The text of a file.
///
/// # Errors
/// It cannot be read, or is not UTF-8.
pub fn load(path: &Path) -> Result<String, Problems> {
    let bytes = std::fs::read(path).map_err(|error| {
        let hint = (error.kind() == ErrorKind::NotFound).then_some("hotctl init writes one");
        about(path, format!("cannot be read: {error}"), hint)
    })?;
    String::from_utf8(bytes).map_err(|error| {
        let good = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = good.iter().filter(|byte| **byte == b'\n').count() + 1;
        let mut problems = about(path, "not UTF-8 text".into(), None);
        problems
            .0
            .iter_mut()
            .for_each(|problem| problem.line = Some(line));
        problems
    })
}

/// A problem of a file as a whole.
pub(crate) fn about(file: &Path, reason: String, hint: Option<&str>) -> Problems {
    let hint = hint.map(Into::into);
    Problem {
        file: file.into(),
        line: None,
        field: String::new(),
        value: None,
        reason,
        hint,
    }
    .into()
}
