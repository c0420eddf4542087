//! Patterns of `.gitignore`: where they stand, and which lines are some.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use ignore::gitignore::{Gitignore, GitignoreBuilder};

use super::IGNORE;
use crate::refused::Refused;

/// The files that patterns are read from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patterns {
    files: &'static [&'static str],
}

/// What is wrong with a file of patterns.
#[derive(Debug)]
pub(super) struct Wrong {
    file: &'static str,
    /// The line; none where the file cannot be read.
    line: Option<usize>,
    cause: String,
}

impl Patterns {
    /// In files of these names; of two in one folder the later has the last word.
    pub(super) fn in_files(files: &'static [&'static str]) -> Self {
        Self { files }
    }

    /// Whether it is called like such a file.
    pub(super) fn is_file(self, path: &Path) -> bool {
        let name = path.file_name().unwrap_or_default();
        self.files.iter().any(|file| name == *file)
    }

    /// What those in this folder say; none where that is nothing.
    pub(super) fn of_folder(self, folder: &Path) -> Result<Option<Gitignore>, Wrong> {
        let mut builder = GitignoreBuilder::new(folder);
        for file in self.files {
            let wrong = |line, cause: &dyn ToString| Wrong {
                file,
                line,
                cause: cause.to_string(),
            };
            // Those of others are read as git reads them: what is no pattern says nothing, wherever in a
            // tree it stands.
            let is_ours = *file == IGNORE;
            let bytes = match fs::read(folder.join(file)) {
                Ok(bytes) => bytes,
                Err(cause) if cause.kind() == io::ErrorKind::NotFound || !is_ours => continue,
                Err(cause) => return Err(wrong(None, &cause)),
            };
            let text = String::from_utf8_lossy(&bytes);
            let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
            for (number, line) in (1..).zip(text.lines()) {
                if let (Err(cause), true) = (builder.add_line(None, line), is_ours) {
                    return Err(wrong(Some(number), &cause));
                }
            }
        }
        let said = builder.build().map_err(|cause| Wrong {
            file: IGNORE,
            line: None,
            cause: cause.to_string(),
        })?;
        Ok((!said.is_empty()).then_some(said))
    }
}

impl Wrong {
    /// The same in a folder that is called `shown`.
    pub(super) fn refused(self, shown: &str) -> Refused {
        let (file, cause) = (self.file, self.cause);
        match self.line {
            Some(line) => refused(&format!("{shown}/{file}:{line}"), &cause),
            None => Refused::new(format!("{shown}/{file}: {cause}")),
        }
    }
}

/// Patterns of the configuration, as if they stood in this folder.
///
/// # Errors
/// If one is none.
pub(super) fn configured(
    folder: &Path,
    patterns: &[impl AsRef<str>],
) -> Result<Gitignore, Refused> {
    let mut builder = GitignoreBuilder::new(folder);
    for pattern in patterns.iter().map(AsRef::as_ref) {
        let added = builder.add_line(None, pattern).map(drop);
        added.map_err(|cause| refused(&format!("ignore {pattern:?}"), &cause.to_string()))?;
    }
    let built = builder.build();
    built.map_err(|cause| Refused::new(format!("{}: its patterns: {cause}", folder.display())))
}

fn refused(place: &str, cause: &str) -> Refused {
    Refused::new(format!("{place}: {cause}"))
        .hint("patterns are those of .gitignore, such as \"*.log\", \"/target\" or \"!keep.log\"")
}

/// The folders above this one up to the top of its repository, that first; none where it is in no
/// repository, or its top.
pub(super) fn above(folder: &Path) -> Vec<PathBuf> {
    let mut all: Vec<PathBuf> = Vec::new();
    for at in folder.ancestors() {
        let is_top = fs::symlink_metadata(at.join(".git")).is_ok();
        if at != folder {
            all.push(at.to_path_buf());
        }
        if is_top {
            all.reverse();
            return all;
        }
    }
    Vec::new()
}
