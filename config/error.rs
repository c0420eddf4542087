//! What is wrong with a configuration: where it stands, what it is, why it is refused, what to do.

use std::fmt;
use std::path::PathBuf;

use serde::Serialize;

/// Everything that is wrong with one configuration, in the order of the file. Never empty when
/// returned as an error. `Display` is one problem after the other, a line or two each.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Problems(pub Vec<Problem>);

/// One thing that is wrong with a configuration. `Display`:
///
/// ```text
/// hotctl.toml:14: service.web.start_timeout: "30 parsecs": unknown unit "parsecs"
///   try: a time such as "30s" or "1m30s"
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// The file as the operator named it.
    pub file: PathBuf,
    /// Line in that file, from 1. `None` when the problem has no place: a file that cannot be read.
    pub line: Option<usize>,
    /// The field, from the top of the file: `service.web.health.path`, `listen[1].address` (counted
    /// from 0). Empty when it is the file as a whole.
    pub field: String,
    /// The value that is refused, as it would be written, on one line, cut when it is long.
    pub value: Option<String>,
    /// Why it is refused.
    pub reason: String,
    /// What to do about it.
    pub hint: Option<String>,
}

/// Why a piece of text is not what it should be: the error of every `FromStr` in this crate.
/// `Display` is the reason, and on a second line `  try: ` and the hint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invalid {
    /// Why it is refused.
    pub reason: String,
    /// What to write instead.
    pub hint: Option<String>,
}

/// Between a reason and its hint. An [`Invalid`] that travels through serde as plain text is taken
/// apart here again.
const TRY: &str = "\n  try: ";

impl Invalid {
    /// A reason and what to write instead.
    pub(crate) fn new(reason: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            reason: reason.into(),
            hint: Some(hint.into()),
        }
    }

    /// A reason that speaks for itself.
    pub(crate) fn plain(reason: impl Into<String>) -> Self {
        Self {
            reason: reason.into(),
            hint: None,
        }
    }

    /// Back from `Display`.
    pub(crate) fn from_text(text: &str) -> Self {
        match text.split_once(TRY) {
            Some((reason, hint)) => Self::new(reason, hint),
            None => Self::plain(text),
        }
    }
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.reason)?;
        match &self.hint {
            Some(hint) => write!(f, "{TRY}{hint}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.file.display())?;
        if let Some(line) = self.line {
            write!(f, "{line}:")?;
        }
        if !self.field.is_empty() {
            write!(f, " {}:", self.field)?;
        }
        if let Some(value) = &self.value {
            write!(f, " {value}:")?;
        }
        write!(f, " {}", self.reason)?;
        match &self.hint {
            Some(hint) => write!(f, "{TRY}{hint}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, problem) in self.0.iter().enumerate() {
            if n > 0 {
                writeln!(f)?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Invalid {}
impl std::error::Error for Problem {}
impl std::error::Error for Problems {}

impl From<Problem> for Problems {
    fn from(problem: Problem) -> Self {
        Self(vec![problem])
    }
}
