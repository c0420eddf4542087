//! What is left out of a folder that is deployed, or watched for it.

mod patterns;
mod unmatched;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use ignore::Match;
use ignore::gitignore::{Gitignore, GitignoreBuilder};

use crate::refused::Refused;
use patterns::Patterns;
pub use unmatched::unmatched;

/// Never part of a release: history and secrets.
const NEVER: [&str; 4] = [".git", ".env", PROJECT, IGNORE];
/// What hotctl keeps at the desk, the releases before this one among it.
const PROJECT: &str = ".hotctl";
/// A file of patterns in a folder that is to be deployed.
const IGNORE: &str = ".hotctlignore";
/// The files of patterns in a folder of sources; of two in one folder the later has the last word.
const OF_SOURCES: [&str; 3] = [".gitignore", ".ignore", IGNORE];

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
    root: PathBuf,
    /// Left out whatever a pattern says.
    never: Vec<PathBuf>,
    /// What is configured, and then what the folders above say: the last that says anything counts.
    above: Vec<Gitignore>,
    /// What the folders within say, those that were entered: the deepest has the first word.
    within: BTreeMap<PathBuf, Gitignore>,
    /// Of files, only these; `None` is all.
    only: Option<Gitignore>,
    patterns: Patterns,
}

impl Without {
    /// What `ignore` says, then the lines of each `.hotctlignore` in it, each a pattern as in a
    /// `.gitignore` there: the last that fits counts, and one with `!` takes back in. `shown` is what
    /// the folder is called in an error.
    ///
    /// # Errors
    /// If a pattern is none, or the file cannot be read.
    pub(crate) fn of(root: &Path, ignore: &[String], shown: &str) -> Result<Self, Refused> {
        let ignore: Vec<&str> = ignore.iter().map(String::as_str).collect();
        Self::read(root, &ignore, &[], Patterns::in_files(&[IGNORE]), shown)
    }

    /// What of a folder of sources is none: what is made of them, what `ignore` and the files of
    /// patterns say, in it and above it up to the top of its repository, and all but `only`, if that
    /// says anything.
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
        let patterns = Patterns::in_files(&OF_SOURCES);
        let mut without = Self::read(root, &ignore, only, patterns, shown)?;
        for folder in patterns::above(root) {
            let said = without.patterns.of_folder(&folder);
            let said = said.map_err(|wrong| wrong.refused(&folder.display().to_string()))?;
            without.above.extend(said);
        }
        Ok(without)
    }

    fn read(
        root: &Path,
        ignore: &[&str],
        only: &[String],
        patterns: Patterns,
        shown: &str,
    ) -> Result<Self, Refused> {
        let mut without = Self {
            root: root.to_path_buf(),
            never: Vec::new(),
            above: vec![patterns::configured(root, ignore)?],
            within: BTreeMap::new(),
            only: match only {
                [] => None,
                only => Some(patterns::configured(root, only)?),
            },
            patterns,
        };
        let said = without.patterns.of_folder(root);
        let said = said.map_err(|wrong| wrong.refused(shown))?;
        without
            .within
            .extend(said.map(|it| (root.to_path_buf(), it)));
        Ok(without)
    }

    /// The same, and these paths are left out whatever any pattern says; not the folder itself.
    pub(crate) fn never<'a>(mut self, paths: impl IntoIterator<Item = &'a PathBuf>) -> Self {
        let paths = paths.into_iter();
        // By their real names, as the folder is.
        let paths = paths.map(|path| path.canonicalize().unwrap_or_else(|_| path.clone()));
        self.never.extend(paths.filter(|path| *path != self.root));
        self
    }

    /// Hear what a folder within says of what is left out of it. To be asked before what is in it is;
    /// `names` are those in it.
    ///
    /// # Errors
    /// As [`Without::of`], in words that begin at the root.
    pub(crate) fn enter<'a>(
        &mut self,
        folder: &Path,
        mut names: impl Iterator<Item = &'a OsString>,
    ) -> std::io::Result<()> {
        // That of the root is known.
        if folder == self.root || !names.any(|name| self.patterns.is_file(Path::new(name))) {
            return Ok(());
        }
        let said = self.patterns.of_folder(folder).map_err(|wrong| {
            let inside = folder.strip_prefix(&self.root).unwrap_or(folder);
            std::io::Error::other(wrong.refused(&inside.display().to_string()).text)
        })?;
        self.within
            .extend(said.map(|it| (folder.to_path_buf(), it)));
        Ok(())
    }

    /// The files of patterns above the root that count, whether they are there or not.
    pub(crate) fn files_above(root: &Path) -> Vec<PathBuf> {
        let folders = patterns::above(root).into_iter();
        folders
            .flat_map(|folder| OF_SOURCES.map(|file| folder.join(file)))
            .collect()
    }

    /// Whether it is one of the files that say what is left out, and were read.
    pub(crate) fn is_file_of_patterns(&self, path: &Path) -> bool {
        self.patterns.is_file(path)
    }

    /// Whether this is left out; where it lies in a folder that is left out, that is to be asked
    /// first.
    pub(crate) fn leaves_out(&self, path: &Path, is_dir: bool) -> bool {
        let name = path.file_name().unwrap_or_default();
        let unwanted = |only: &Gitignore| {
            !is_dir && !only.matched_path_or_any_parents(path, is_dir).is_ignore()
        };
        NEVER.iter().any(|never| name == *never)
            || self.never.iter().any(|never| path == never)
            || self.is_ignored(path, is_dir)
            || self.only.as_ref().is_some_and(unwanted)
    }

    fn is_ignored(&self, path: &Path, is_dir: bool) -> bool {
        let folders = path.ancestors().skip(1);
        let folders = folders.take_while(|folder| folder.starts_with(&self.root));
        let within = folders.filter_map(|folder| self.within.get(folder));
        let words = within.chain(self.above.iter().rev());
        for said in words {
            match said.matched(path, is_dir) {
                Match::Ignore(_) => return true,
                Match::Whitelist(_) => return false,
                Match::None => {}
            }
        }
        false
    }

    /// Whether this is left out, or a folder above it is.
    pub(crate) fn leaves_out_all(&self, path: &Path) -> bool {
        let Ok(inside) = path.strip_prefix(&self.root) else {
            return false;
        };
        let mut at = self.root.clone();
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

#[cfg(test)]
#[path = "without_tests.rs"]
mod tests;
