//! How a browser opens a file in an editor: by an address that the editor has registered for. Pure.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

/// A template of such addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Editor(String);

/// What a template may not begin with: it would run in the page.
const RUNS: [&str; 3] = ["javascript:", "data:", "vbscript:"];

impl FromStr for Editor {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let scheme = text.split_once(':').map(|(scheme, _)| scheme);
        let is_scheme = |scheme: &str| {
            let mut chars = scheme.chars();
            chars.next().is_some_and(|c| c.is_ascii_alphabetic())
                && chars.all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c))
        };
        let lower = text.to_ascii_lowercase();
        if !scheme.is_some_and(is_scheme) || RUNS.iter().any(|it| lower.starts_with(it)) {
            return Err("not an address such as vscode://file{file}:{line}:{column}".to_owned());
        }
        if !text.contains("{file}") {
            return Err("has no {file}; {line} and {column} are filled in as well".to_owned());
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for Editor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Default for Editor {
    fn default() -> Self {
        Self("vscode://file{file}:{line}:{column}".to_owned())
    }
}

impl Editor {
    /// The address of a place in a file, whose path is a whole one.
    pub fn link(&self, file: &Path, line: u32, column: Option<u32>) -> String {
        let mut path = String::new();
        for byte in file.as_os_str().as_encoded_bytes() {
            match byte {
                b'/' | b'-' | b'_' | b'.' | b'~' => path.push(char::from(*byte)),
                byte if byte.is_ascii_alphanumeric() => path.push(char::from(*byte)),
                byte => path.push_str(&format!("%{byte:02X}")),
            }
        }
        let Self(template) = self;
        template
            .replace("{line}", &line.to_string())
            .replace("{column}", &column.unwrap_or(1).to_string())
            .replace("{file}", &path)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;

    #[test]
    fn a_place_is_filled_in_whatever_is_in_its_name() {
        let link = |editor: &Editor, file: &str| editor.link(Path::new(file), 3, None);
        assert_eq!(
            link(&Editor::default(), "/a b/{line}\".rs"),
            "vscode://file/a%20b/%7Bline%7D%22.rs:3:1"
        );
        let idea = "idea://open?file={file}&line={line}".parse().unwrap();
        assert_eq!(link(&idea, "/x.rs"), "idea://open?file=/x.rs&line=3");
    }

    #[test]
    fn what_opens_no_editor_is_refused() {
        for text in [
            "code {file}",
            "JavaScript:alert('{file}')",
            "vscode://file",
            "",
        ] {
            assert!(text.parse::<Editor>().is_err(), "{text}");
        }
    }
}
