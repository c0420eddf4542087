//! The name of a port that an app is given beside its address, and where it stands in a command. Pure.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::error::Invalid;
use crate::form;

/// The name of a port that an app is given beside its address: 1 to 32 characters of `a-z`, `0-9` and
/// `_`, beginning with a letter. So it is safe in the name of a variable and in a command. Cheap to
/// clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortName(Arc<str>);

/// What a placeholder begins with.
const BEGIN: &str = "{port.";

impl PortName {
    /// The longest name, in characters.
    pub const MAX_LEN: usize = 32;

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The variable that holds the port: `PORT_DEBUG`.
    pub fn variable(&self) -> String {
        format!("PORT_{}", self.0.to_ascii_uppercase())
    }

    /// What stands for the port in a command: `{port.debug}`.
    pub fn placeholder(&self) -> String {
        format!("{BEGIN}{}}}", self.0)
    }

    /// The names that a word of a command asks for, known or not: those in `{port.NAME}`.
    pub fn asked_for(word: &str) -> impl Iterator<Item = &str> {
        let after = word.split(BEGIN).skip(1);
        after.filter_map(|rest| rest.split_once('}').map(|(name, _)| name))
    }
}

impl FromStr for PortName {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        const HINT: &str = r#"a name of a-z, 0-9 and "_", such as "debug""#;
        let refuse = |reason: String| Err(Invalid::new(reason, HINT));
        let good = |c: char| matches!(c, 'a'..='z' | '0'..='9' | '_');
        if text.is_empty() {
            return refuse("the name of a port is empty".into());
        }
        if let Some(bad) = text.chars().find(|c| !good(*c)) {
            return refuse(format!("the name of a port cannot contain {bad:?}"));
        }
        if !text.starts_with(|c: char| c.is_ascii_lowercase()) {
            return refuse("the name of a port begins with a letter".into());
        }
        if text.len() > Self::MAX_LEN {
            let (is, max) = (text.len(), Self::MAX_LEN);
            return refuse(format!(
                "the name of a port has at most {max} characters, this one {is}"
            ));
        }
        Ok(Self(text.into()))
    }
}

impl fmt::Display for PortName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

// As `Display`: the wrapping is noise.
impl fmt::Debug for PortName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

// Sound: equality, order and hash are those of the text.
impl Borrow<str> for PortName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

form::as_text!(PortName, "the name of a port");

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::PortName;

    #[test]
    fn a_name_is_part_of_a_variable_and_of_a_placeholder() {
        let name: PortName = "debug_2".parse().unwrap();
        assert_eq!(name.variable(), "PORT_DEBUG_2");
        assert_eq!(name.placeholder(), "{port.debug_2}");
        let longest = "a".repeat(PortName::MAX_LEN);
        assert_eq!(longest.parse::<PortName>().unwrap().as_str(), longest);
        let longer = format!("{longest}a");
        for bad in ["", "Debug", "2d", "_d", "de bug", "de-bug", "dé", &longer] {
            assert!(bad.parse::<PortName>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn the_names_that_a_word_asks_for_are_found() {
        for (word, names) in [
            ("--inspect={port.debug}", &["debug"][..]),
            ("{port.a}:{port.b}", &["a", "b"]),
            ("{port}", &[]),
            ("{port.}", &[""]),
            ("{port.open", &[]),
            ("{port.{port.a}", &["a"]),
        ] {
            let found: Vec<&str> = PortName::asked_for(word).collect();
            assert_eq!(found, names, "{word:?}");
        }
    }
}
