//! Something that cannot be taken as a release, and what to do about it.

use std::fmt;

/// Why content is not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// Object first, lower case, no full stop.
    pub text: String,
    /// The remedy.
    pub hint: Option<String>,
}

impl Refused {
    /// Without a remedy.
    pub fn new(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            hint: None,
        }
    }

    /// The same with one.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Refused {}
