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

/// What is left out of one folder.
#[derive(Debug, Clone)]
pub(crate) struct Without {
    patterns: Gitignore,
}

impl Without {
    /// What `ignore` says, then the lines of the `.hotctlignore` in it, each a pattern as in a
    /// `.gitignore` there: the last that fits counts, and one with `!` takes back in. `shown` is what
    /// the folder is called in an error.
    ///
    /// # Errors
    /// If a pattern is none, or the file cannot be read.
    pub(crate) fn of(root: &Path, ignore: &[String], shown: &str) -> Result<Self, Refused> {
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
        let text = match fs::read_to_string(root.join(IGNORE)) {
            Ok(text) => text,
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => String::new(),
            Err(cause) => return Err(Refused::new(format!("{shown}/{IGNORE}: {cause}"))),
        };
        for (number, line) in (1..).zip(text.lines()) {
            add(line, format!("{shown}/{IGNORE}:{number}"))?;
        }
        let patterns = builder
            .build()
            .map_err(|cause| Refused::new(format!("{shown}: its patterns: {cause}")))?;
        Ok(Self { patterns })
    }

    /// Whether this is left out; where it lies in a folder that is left out, that is to be asked
    /// first.
    pub(crate) fn leaves_out(&self, path: &Path, is_dir: bool) -> bool {
        let name = path.file_name().unwrap_or_default();
        NEVER.iter().any(|never| name == *never) || self.patterns.matched(path, is_dir).is_ignore()
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
