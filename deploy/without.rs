//! What is left out of a folder that is deployed, or watched for it.

use std::fs;
use std::io;
use std::path::Path;

use ignore::gitignore::{Gitignore, GitignoreBuilder};

use crate::refused::Refused;

/// Never part of a release: history and secrets.
const NEVER: [&str; 3] = [".git", ".env", IGNORE];
/// A file of patterns in a folder that is to be deployed.
pub(crate) const IGNORE: &str = ".hotctlignore";

/// What of sources is none: what builds and tools make, and what editors put beside a file.
const NO_SOURCES: [&str; 12] = [
    "target",
    "node_modules",
    "__pycache__",
    ".hotctl",
    ".hg",
    ".venv",
    "*~",
    "*.sw?",
    ".#*",
    "\\#*#",
    "4913",
    "*___jb_???___",
];

/// Some of what is in a folder, by patterns of `.gitignore`.
#[derive(Debug, Clone)]
pub struct Only(Gitignore);

impl Only {
    /// None where there are no patterns, or none that are any: the check of the configuration has said so.
    pub fn of(root: &Path, patterns: &[String]) -> Option<Self> {
        if patterns.is_empty() {
            return None;
        }
        let mut builder = GitignoreBuilder::new(root);
        for pattern in patterns {
            builder.add_line(None, pattern).ok()?;
        }
        builder.build().ok().map(Self)
    }

    /// Whether this file is among it, or lies in a folder that is. A relative path begins at the root.
    pub fn has(&self, path: &Path) -> bool {
        let Self(patterns) = self;
        // Whatever lies outside matches nothing, and may not be asked for.
        let inside = path.is_relative() || path.starts_with(patterns.path());
        inside
            && patterns
                .matched_path_or_any_parents(path, false)
                .is_ignore()
    }
}

/// What is left out of one folder.
#[derive(Debug, Clone)]
pub(crate) struct Without {
    patterns: Gitignore,
    /// Of files, only these; `None` is all.
    only: Option<Gitignore>,
    /// The files of patterns that were read.
    files: &'static [&'static str],
}

impl Without {
    /// What `ignore` says, then the lines of the `.hotctlignore` in it, each a pattern as in a
    /// `.gitignore` there: the last that fits counts, and one with `!` takes back in. `shown` is what
    /// the folder is called in an error.
    ///
    /// # Errors
    /// If a pattern is none, or the file cannot be read.
    pub(crate) fn of(root: &Path, ignore: &[String], shown: &str) -> Result<Self, Refused> {
        let ignore: Vec<&str> = ignore.iter().map(String::as_str).collect();
        Self::read(root, &ignore, &[], &[IGNORE], shown)
    }

    /// What of a folder of sources is none: what is made of them, what `ignore` and the files of
    /// patterns say, and all but `only`, if that says anything.
    ///
    /// # Errors
    /// As [`Without::of`].
    pub(crate) fn of_sources(
        root: &Path,
        ignore: &[String],
        only: &[String],
        shown: &str,
    ) -> Result<Self, Refused> {
        let ignore = NO_SOURCES
            .into_iter()
            .chain(ignore.iter().map(String::as_str));
        let ignore: Vec<&str> = ignore.collect();
        Self::read(
            root,
            &ignore,
            only,
            &[".gitignore", ".ignore", IGNORE],
            shown,
        )
    }

    fn read(
        root: &Path,
        ignore: &[&str],
        only: &[String],
        files: &'static [&'static str],
        shown: &str,
    ) -> Result<Self, Refused> {
        let mut builder = GitignoreBuilder::new(root);
        let mut add = |pattern: &str, place: String| match builder.add_line(None, pattern) {
            Ok(_) => Ok(()),
            Err(cause) => Err(Refused::new(format!("{place}: {cause}")).hint(
                "patterns are those of .gitignore, such as \"*.log\", \"/target\" or \"!keep.log\"",
            )),
        };
        for pattern in ignore {
            add(pattern, format!("ignore {pattern:?}"))?;
        }
        for file in files {
            let text = match fs::read_to_string(root.join(file)) {
                Ok(text) => text,
                Err(cause) if cause.kind() == io::ErrorKind::NotFound => continue,
                Err(cause) => return Err(Refused::new(format!("{shown}/{file}: {cause}"))),
            };
            for (number, line) in (1..).zip(text.lines()) {
                add(line, format!("{shown}/{file}:{number}"))?;
            }
        }
        let failed = |cause| Refused::new(format!("{shown}: its patterns: {cause}"));
        let patterns = builder.build().map_err(failed)?;
        let mut wanted = GitignoreBuilder::new(root);
        for pattern in only {
            wanted.add_line(None, pattern).map_err(failed)?;
        }
        let only = match only.is_empty() {
            true => None,
            false => Some(wanted.build().map_err(failed)?),
        };
        Ok(Self {
            patterns,
            only,
            files,
        })
    }

    /// Whether it is one of the files that say what is left out, and were read.
    pub(crate) fn is_file_of_patterns(&self, path: &Path) -> bool {
        let name = path.file_name().unwrap_or_default();
        self.files.iter().any(|file| name == *file)
    }

    /// Whether this is left out; where it lies in a folder that is left out, that is to be asked
    /// first.
    pub(crate) fn leaves_out(&self, path: &Path, is_dir: bool) -> bool {
        let name = path.file_name().unwrap_or_default();
        let unwanted = |only: &Gitignore| {
            !is_dir && !only.matched_path_or_any_parents(path, is_dir).is_ignore()
        };
        NEVER.iter().any(|never| name == *never)
            || self.patterns.matched(path, is_dir).is_ignore()
            || self.only.as_ref().is_some_and(unwanted)
    }

    /// Whether this is left out, or a folder above it is.
    pub(crate) fn leaves_out_all(&self, root: &Path, path: &Path) -> bool {
        let Ok(inside) = path.strip_prefix(root) else {
            return false;
        };
        let mut at = root.to_path_buf();
        let mut parts = inside.components().peekable();
        while let Some(part) = parts.next() {
            at.push(part);
            let is_dir = parts.peek().is_some() || at.is_dir();
            if self.leaves_out(&at, is_dir) {
                return true;
            }
        }
        false
    }
}
