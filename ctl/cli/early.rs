//! What must be known before the command line is parsed, because parsing it may fail: for whom the
//! answer is, and whether it may have colours.

use std::ffi::OsString;

use anstream::ColorChoice;

use super::Form;

/// Read off the bare words, in front of any `--`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Early {
    pub form: Form,
    pub color: ColorChoice,
}

impl Early {
    /// From the words after the program's name.
    pub fn of(words: impl IntoIterator<Item = OsString>) -> Self {
        let mut found = Self {
            form: Form::Words,
            color: ColorChoice::Auto,
        };
        let words = words.into_iter().take_while(|word| word != "--");
        let mut before = OsString::new();
        for word in words {
            let text = word.to_str().unwrap_or_default();
            let value = text
                .strip_prefix("--color=")
                .or_else(|| (before == "--color").then_some(text));
            match value {
                Some("always") => found.color = ColorChoice::Always,
                Some("never") => found.color = ColorChoice::Never,
                // Wrong values are told by the parser.
                _ => {}
            }
            if text == "--json" {
                found.form = Form::Json;
            }
            before = word;
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(line: &str) -> Early {
        Early::of(line.split_whitespace().map(OsString::from))
    }

    #[test]
    fn flags_are_seen_wherever_they_stand_and_not_after_two_dashes() {
        assert_eq!(of("status --json").form, Form::Json);
        assert_eq!(of("--json status").form, Form::Json);
        assert_eq!(of("deploy ./web -- node --json").form, Form::Words);
        assert_eq!(of("status --color never").color, ColorChoice::Never);
        assert_eq!(of("status --color=always").color, ColorChoice::Always);
        assert_eq!(of("status --color sometimes").color, ColorChoice::Auto);
        assert_eq!(of("deploy x -- --color never").color, ColorChoice::Auto);
    }
}
