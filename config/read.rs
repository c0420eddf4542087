//! Finds and reads the configuration, and phrases all that is wrong with it.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use crate::check::{Finding, check};
use crate::decode::{Due, Why, Wrong, decode};
use crate::error::{Invalid, Problem, Problems};
use crate::file::{Config, Listen, Service, fields};
use crate::suggest::{listed, nearest};
use crate::tree::{self, Node, Place, Step, Value};

/// The commented file that `hotctl init` writes: a service to begin with, and every other field with
/// its default, commented out.
pub const EXAMPLE: &str = include_str!("example.toml");

/// Where the configuration is when nobody says: the first that exists.
const PLACES: [&str; 2] = ["hotctl.toml", "/etc/hotctl/hotctl.toml"];

/// How many problems are told at once. More come from one cause.
const MOST: usize = 100;

/// The two ways to write a configuration. The names are the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// TOML 1.0.
    Toml,
    /// JSON. A null is as if the field were left out.
    Json,
}

impl Format {
    /// JSON when the file's name ends in `.json`, otherwise TOML.
    pub fn of(path: &Path) -> Self {
        match path.extension() {
            Some(extension) if extension.eq_ignore_ascii_case("json") => Self::Json,
            _ => Self::Toml,
        }
    }
}

/// Where the configuration is: the file that was named, else `./hotctl.toml`, else
/// `/etc/hotctl/hotctl.toml`, else `None`. A file that was named need not exist: [`read`] says so.
///
/// # Errors
/// One of the two cannot be looked at. It is not passed over, since it may well be there.
pub fn find(explicit: Option<&Path>) -> Result<Option<PathBuf>, Problems> {
    match explicit {
        Some(path) => Ok(Some(path.into())),
        None => first_of(PLACES.map(Path::new)),
    }
}

fn first_of(places: [&Path; 2]) -> Result<Option<PathBuf>, Problems> {
    for path in places {
        match path.metadata() {
            Ok(_) => return Ok(Some(path.into())),
            Err(error)
                if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {}
            Err(error) => return Err(about(path, format!("cannot be looked at: {error}"), None)),
        }
    }
    Ok(None)
}

/// Reads and checks a file: JSON when its name ends in `.json`, otherwise TOML.
///
/// # Errors
/// All that is wrong with it, in the order of the file, or why it cannot be read.
pub fn read(path: &Path) -> Result<Config, Problems> {
    let bytes = std::fs::read(path).map_err(|error| {
        let hint = (error.kind() == ErrorKind::NotFound).then_some("hotctl init writes one");
        about(path, format!("cannot be read: {error}"), hint)
    })?;
    let text = String::from_utf8(bytes).map_err(|error| {
        let good = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = good.iter().filter(|byte| **byte == b'\n').count() + 1;
        let mut problems = about(path, "not UTF-8 text".into(), None);
        problems
            .0
            .iter_mut()
            .for_each(|problem| problem.line = Some(line));
        problems
    })?;
    parse(&text, Format::of(path), path)
}

/// Reads and checks a text. `origin` is the file it came from, for the messages.
///
/// # Errors
/// All that is wrong with it, in the order of the file: what the format itself forbids, and if there
/// is none of that, every value and every conflict.
pub fn parse(text: &str, format: Format, origin: &Path) -> Result<Config, Problems> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut tree = match format {
        Format::Toml => tree::from_toml(text, origin)?,
        Format::Json => tree::from_json(text, origin)?,
    };
    let mut problems = Vec::new();
    let mut refused = Vec::new();
    // Reading ends at the first wrong value. So it is told, left out, and the rest is read again.
    let config: Option<Config> = loop {
        let wrong = match decode(&tree) {
            Ok(config) => break Some(config),
            Err(wrong) => wrong,
        };
        let place = wrong.place.clone();
        // What is missing because it was refused was told already.
        if !(matches!(wrong.why, Why::Missing(_)) && refused.iter().any(|r| place.overlaps(r))) {
            problems.push(phrase(wrong, &tree, format, origin));
        }
        if place.0.is_empty() || problems.len() >= MOST {
            break None;
        }
        tree.refuse(&place);
        refused.push(place);
    };
    if let Some(config) = &config {
        // A value that was refused now has its default, about which nobody wants to hear. And where an
        // element of a list is left out, the numbers of the others are off.
        let touched = |place: &Place| refused.iter().any(|refused| refused.list().overlaps(place));
        for finding in check(config) {
            if !touched(&finding.place) && !finding.with.as_ref().is_some_and(touched) {
                problems.push(locate(finding, &tree, origin));
            }
        }
    }
    match config {
        Some(config) if problems.is_empty() => Ok(config),
        _ => {
            problems.sort_by_key(|problem| problem.line);
            problems.truncate(MOST);
            Err(Problems(problems))
        }
    }
}

/// What there is without any file: one service `app` that takes every request on one address.
pub fn single(listen: SocketAddr) -> Config {
    let mut config = Config {
        listen: vec![Listen { address: listen }],
        ..Config::default()
    };
    config
        .services
        .extend("app".parse().map(|name| (name, Service::default())));
    config
}

/// A problem of a file as a whole.
fn about(file: &Path, reason: String, hint: Option<&str>) -> Problems {
    let hint = hint.map(Into::into);
    Problem {
        file: file.into(),
        line: None,
        field: String::new(),
        value: None,
        reason,
        hint,
    }
    .into()
}

/// A rule that is broken, with the lines of its fields.
fn locate(finding: Finding, tree: &Node, file: &Path) -> Problem {
    let Finding {
        place,
        mut reason,
        hint,
        with,
    } = finding;
    if let Some(with) = with.filter(|with| tree.get(with).is_some()) {
        reason += &format!(" (line {})", tree.line_of(&with));
    }
    Problem {
        file: file.into(),
        line: Some(tree.line_of(&place)),
        field: place.to_string(),
        value: tree.get(&place).and_then(|node| node.value.shown()),
        reason,
        hint,
    }
}

/// A value that cannot be read, in words.
fn phrase(wrong: Wrong, tree: &Node, format: Format, file: &Path) -> Problem {
    let Wrong { place, why } = wrong;
    let value = tree.get(&place).map(|node| &node.value);
    let mut shown = value.and_then(Value::shown);
    let name = match place.0.last() {
        Some(Step::Key(key)) => key.clone(),
        _ => String::new(),
    };
    let (reason, hint) = match why {
        Why::Unknown(known) => {
            shown = None;
            unknown(&place, &name, known)
        }
        Why::Name(invalid) => {
            shown = Some(format!("{name:?}"));
            (invalid.reason, invalid.hint)
        }
        Why::Missing(field) => (format!("{field} is missing"), missing(field)),
        Why::Choice(known) => {
            let word = match value {
                Some(Value::Text(word)) => word,
                _ => "",
            };
            let choice = match nearest(word, known) {
                Some(meant) => format!("{meant:?}"),
                None => listed(known),
            };
            ("not one of the values there are".into(), Some(choice))
        }
        Why::Value(Invalid { reason, hint }) => (reason, hint),
        Why::Kind(due) => {
            let is = value.map_or("nothing", Value::what);
            let hint = value.and_then(|value| remedy(&due, value, &name, format));
            let due = match due {
                Due::List => "a list".into(),
                Due::Table => "a table".into(),
                Due::Whole => "a whole number".into(),
                Due::Other(due) => due,
            };
            (format!("{is}, where {due} is due"), hint)
        }
    };
    let field = place.to_string();
    Problem {
        file: file.into(),
        line: Some(tree.line_of(&place)),
        field,
        value: shown,
        reason,
        hint,
    }
}

/// How to write a field that has no default.
fn missing(field: &str) -> Option<String> {
    (field == "address").then(|| "an address such as \"0.0.0.0:80\"".into())
}

/// A field that does not exist: the one that was meant, or the table it belongs to, or all there are.
fn unknown(place: &Place, name: &str, known: &[&str]) -> (String, Option<String>) {
    if name == "tls" && matches!(place.0.first(), Some(Step::Key(top)) if top == "listen") {
        let hint = "leave it out, and end TLS in a proxy in front of hotctl";
        return ("not yet supported".into(), Some(hint.into()));
    }
    let service = match place.0.as_slice() {
        [Step::Key(top), Step::Key(service), ..] if top == "service" => service,
        _ => "NAME",
    };
    let elsewhere = || {
        let table = |field: &String| {
            Some(
                field
                    .strip_suffix(name)?
                    .strip_suffix('.')?
                    .replace("NAME", service),
            )
        };
        let tables: Vec<_> = fields().iter().filter_map(table).collect();
        (!tables.is_empty()).then(|| format!("{name} in [{}]", tables.join("] or [")))
    };
    let hint = match nearest(name, known) {
        Some(meant) => format!("{meant:?}"),
        None => elsewhere().unwrap_or_else(|| format!("one of {}", listed(known))),
    };
    ("unknown field".into(), Some(hint))
}

/// The commonest slips between kinds of values.
fn remedy(due: &Due, value: &Value, name: &str, format: Format) -> Option<String> {
    match (due, value) {
        (Due::List, Value::Table(_)) if format == Format::Toml => {
            Some(format!("[[{name}]], with two brackets"))
        }
        (Due::List, Value::Text(address)) if name == "listen" && format == Format::Toml => {
            Some(format!("a table [[listen]] with address = {address:?}"))
        }
        (Due::List, Value::Text(command)) if name == "run" => {
            let words: Vec<_> = command
                .split_whitespace()
                .map(|word| format!("{word:?}"))
                .collect();
            Some(format!("[{}]", words.join(", ")))
        }
        (Due::List, Value::Text(_)) => value.shown().map(|shown| format!("[{shown}]")),
        (Due::Table, Value::List(_)) if name == "service" => {
            Some("[service.NAME], with its name and single brackets".into())
        }
        (Due::Table, Value::Text(kind)) if name == "health" => {
            Some(format!("health.kind = {kind:?}"))
        }
        (Due::Whole, Value::Text(text)) => text
            .parse::<u32>()
            .ok()
            .map(|n| format!("{n}, without quotes")),
        (Due::Other(due), Value::Whole(number)) if due.starts_with("a time") => {
            Some(format!("\"{number}s\""))
        }
        _ => None,
    }
}

#[cfg(test)]
#[path = "read_tests.rs"]
pub(crate) mod tests;
