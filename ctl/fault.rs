//! A failure of a command, as a person and a script see it: text, remedy, exit code.

use std::fmt;
use std::process::ExitCode;

use crate::answers::Failure;

/// What went wrong and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Object first, lower case, no full stop.
    pub text: String,
    /// The remedy, printed after `try:`.
    pub hint: Option<String>,
    /// How the command ends.
    pub exit: Exit,
}

/// How a command ends; the numbers are a documented contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// 1: reverted, failed, refused by what was asked for.
    Failed = 1,
    /// 2: usage or configuration.
    Usage = 2,
    /// 3: no daemon could be reached.
    Unreachable = 3,
    /// 4: refused, because another deployment is under way and waiting was not wanted.
    Busy = 4,
    /// 5: a newer order took the place of this one.
    Superseded = 5,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit as u8)
    }
}

impl Fault {
    /// Something that was tried and failed.
    pub fn failed(text: impl Into<String>) -> Self {
        Self::new(Exit::Failed, text)
    }

    /// A wrong flag, a wrong value, a wrong file.
    pub fn config(text: impl Into<String>) -> Self {
        Self::new(Exit::Usage, text)
    }

    /// What the parser of the command line says, without its ornaments.
    pub fn usage(said: &str) -> Self {
        let mut lines = said.lines().map(str::trim).filter(|line| !line.is_empty());
        let first = lines.next().unwrap_or_default();
        let fault = Self::config(first.strip_prefix("error: ").unwrap_or(first));
        match lines.find_map(|line| line.strip_prefix("tip: ")) {
            Some(tip) => fault.hint(tip),
            None => fault.hint("hotctl --help"),
        }
    }

    /// Nobody answers at the control socket.
    pub fn unreachable(text: impl Into<String>) -> Self {
        Self::new(Exit::Unreachable, text)
    }

    fn new(exit: Exit, text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            hint: None,
            exit,
        }
    }

    /// As a script sees it.
    pub fn as_shape(&self) -> Failure {
        Failure {
            error: self.text.clone(),
            hint: self.hint.clone(),
            exit: self.exit as u8,
        }
    }

    /// The same with a remedy.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)?;
        if let Some(hint) = &self.hint {
            write!(f, "\n  try: {hint}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Fault {}
