//! Phrases what is wrong with a configuration for the operator: place, value, reason, remedy. Pure.

use crate::check::Finding;
use crate::decode::{Due, Why, Wrong};
use crate::error::{Invalid, Problem};
use crate::file::{PortRange, fields};
use crate::include::Sources;
use crate::source::Format;
use crate::suggest::{listed, nearest};
use crate::tree::{Node, Place, Step, Value};

/// Fields of earlier versions, and where their meaning is now.
const MOVED: [(&str, &str); 1] = [("drain_timeout", "drain.requests")];

/// A rule that is broken, with the lines of its fields.
pub(crate) fn locate(finding: Finding, tree: &Node, sources: &Sources) -> Problem {
    let Finding {
        place,
        mut reason,
        hint,
        with,
    } = finding;
    let file = &sources.of(&place).file;
    if let Some(with) = with.filter(|with| tree.get(with).is_some()) {
        let line = tree.line_of(&with);
        let other = &sources.of(&with).file;
        reason += &match other == file {
            true => format!(" (line {line})"),
            false => format!(" ({}:{line})", other.display()),
        };
    }
    Problem {
        file: file.clone(),
        line: Some(tree.line_of(&place)),
        field: place.to_string(),
        value: tree.get(&place).and_then(|node| shown(&place, &node.value)),
        reason,
        hint,
    }
}

/// A value that cannot be read, in words.
pub(crate) fn phrase(wrong: Wrong, tree: &Node, sources: &Sources) -> Problem {
    let Wrong { place, why } = wrong;
    let source = sources.of(&place);
    let value = tree.get(&place).map(|node| &node.value);
    let mut written = value.and_then(|value| shown(&place, value));
    let name = match place.0.last() {
        Some(Step::Key(key)) => key.clone(),
        _ => String::new(),
    };
    let (reason, hint) = match why {
        Why::Unknown(known) => {
            written = None;
            unknown(&place, &name, known)
        }
        Why::Name(invalid) => {
            written = Some(format!("{name:?}"));
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
            let hint = value.and_then(|value| remedy(&due, value, &place, source.format));
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
        file: source.file.clone(),
        line: Some(tree.line_of(&place)),
        field,
        value: written,
        reason,
        hint,
    }
}

/// A value as it is written, unless it may be a secret.
fn shown(place: &Place, value: &Value) -> Option<String> {
    (!is_variable(place)).then(|| value.shown()).flatten()
}

/// Whether it is a variable for the processes, or all of them.
fn is_variable(place: &Place) -> bool {
    matches!(place.0.as_slice(), [_, _, Step::Key(env), ..] if env == "env")
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
    if let Some((_, now)) = MOVED.iter().find(|(old, _)| *old == name) {
        return ("unknown field".into(), Some((*now).into()));
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
fn remedy(due: &Due, value: &Value, place: &Place, format: Format) -> Option<String> {
    let name = match place.0.last() {
        Some(Step::Key(key)) => key.as_str(),
        _ => "",
    };
    match (due, value) {
        // Without the value, which may be a secret.
        (Due::Other(_), Value::Whole(_) | Value::Flag(_) | Value::Odd(..))
            if is_variable(place) =>
        {
            Some("the same in quotes".into())
        }
        (Due::List, Value::Table(_)) if format == Format::Toml => {
            Some(format!("[[{name}]], with two brackets"))
        }
        (Due::List, Value::Text(address)) if name == "listen" && format == Format::Toml => {
            Some(format!("a table [[listen]] with address = {address:?}"))
        }
        (Due::List, Value::Text(command)) if is_command(name) => {
            let words: Vec<_> = command
                .split_whitespace()
                .map(|word| format!("{word:?}"))
                .collect();
            Some(format!("[{}]", words.join(", ")))
        }
        (Due::List, Value::Text(range))
            if name == "ports" && range.parse::<PortRange>().is_ok() =>
        {
            Some("ports at the top of the file, above every table, is the range".into())
        }
        (Due::Other(_), Value::List(_)) if place.0.len() == 1 && name == "ports" => {
            Some("names of ports are for a service: ports in [service.NAME]".into())
        }
        (Due::List, Value::Text(_)) => value.shown().map(|shown| format!("[{shown}]")),
        (Due::Table, Value::List(_)) if name == "service" => {
            Some("[service.NAME], with its name and single brackets".into())
        }
        (Due::Table, Value::Text(kind)) if name == "health" => {
            Some(format!("health.kind = {kind:?}"))
        }
        (Due::Table, Value::Text(time)) if name == "drain" => {
            Some(format!("drain.requests = {time:?}"))
        }
        (Due::Table, Value::Text(size)) if name == "logs" => {
            Some(format!("logs.file_size = {size:?}"))
        }
        (Due::Table, Value::Text(_)) if name == "log_level" => Some(
            "how it is changed, such as log_level = { signal = \"USR1\" }; what it begins with is for env"
                .into(),
        ),
        (Due::Table, Value::List(_)) if name == "env" => {
            Some("a table, such as env = { NAME = \"value\" }".into())
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

fn is_command(name: &str) -> bool {
    matches!(name, "run" | "before_start" | "on_live" | "command")
}
