//! The file as a tree of values, each with its line: what TOML and JSON have in common.
//!
//! Knows nothing of what the fields mean. Exists so that every error, also one found long after the
//! text is gone, can say where its value stands.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;
use std::path::Path;

use serde::Deserialize;
use serde::de::{MapAccess, Visitor};
use serde_json::value::RawValue;
use toml::de::{DeTable, DeValue};

use crate::error::{Problem, Problems};

/// A value and the line where it begins.
#[derive(Debug)]
pub struct Node {
    /// From 1.
    pub line: usize,
    /// What stands there.
    pub value: Value,
}

/// What TOML and JSON can both say.
#[derive(Debug)]
pub enum Value {
    /// A string.
    Text(String),
    /// A whole number of 64 bits.
    Whole(i64),
    /// True or false.
    Flag(bool),
    /// An array.
    List(Vec<Node>),
    /// In the order of the file where the format keeps it.
    Table(Vec<Entry>),
    /// JSON's null: as if the field were left out.
    Nothing,
    /// What no field takes: a fraction, a date, a number beyond 64 bits. What it is, and as written.
    Odd(&'static str, String),
    /// Was refused, and is left out from now on, so that the rest can be looked at.
    Refused,
}

/// One field of a table.
#[derive(Debug)]
pub struct Entry {
    /// Its name.
    pub key: String,
    /// Where the name stands, from 1.
    pub line: usize,
    /// Its value.
    pub node: Node,
}

/// Where a value stands in the tree: `service.web.hosts[0]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Place(pub Vec<Step>);

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Key(String),
    Index(usize),
}

impl Node {
    /// The node at a place.
    pub(crate) fn get(&self, place: &Place) -> Option<&Node> {
        place
            .0
            .iter()
            .try_fold(self, |node, step| node.child(step).map(|(_, child)| child))
    }

    /// The line of a place, or of what is nearest above it.
    pub(crate) fn line_of(&self, place: &Place) -> usize {
        let (mut node, mut line) = (self, self.line);
        for step in &place.0 {
            match node.child(step) {
                Some((at, child)) => (node, line) = (child, at),
                None => break,
            }
        }
        line
    }

    /// Leaves out the value at a place from now on.
    pub(crate) fn refuse(&mut self, place: &Place) {
        let mut node = self;
        for step in &place.0 {
            let child = match (&mut node.value, step) {
                (Value::Table(entries), Step::Key(key)) => entries
                    .iter_mut()
                    .find(|entry| entry.key == *key)
                    .map(|entry| &mut entry.node),
                (Value::List(nodes), Step::Index(index)) => nodes.get_mut(*index),
                _ => None,
            };
            match child {
                Some(child) => node = child,
                None => return,
            }
        }
        node.value = Value::Refused;
    }

    fn child(&self, step: &Step) -> Option<(usize, &Node)> {
        match (&self.value, step) {
            (Value::Table(entries), Step::Key(key)) => entries
                .iter()
                .find(|entry| entry.key == *key)
                .map(|entry| (entry.line, &entry.node)),
            (Value::List(nodes), Step::Index(index)) => {
                nodes.get(*index).map(|node| (node.line, node))
            }
            _ => None,
        }
    }
}

impl Value {
    /// What it is, for messages.
    pub fn what(&self) -> &'static str {
        match self {
            Self::Text(_) => "a string",
            Self::Whole(_) => "a number",
            Self::Flag(_) => "true or false",
            Self::List(_) => "a list",
            Self::Table(_) => "a table",
            Self::Nothing => "null",
            Self::Odd(what, _) => what,
            Self::Refused => "nothing",
        }
    }

    /// As it would be written, on one line and not too long. `None` for tables.
    pub fn shown(&self) -> Option<String> {
        const LONG: usize = 80;
        let mut shown = match self {
            Self::Text(text) => format!("{text:?}"),
            Self::Whole(number) => number.to_string(),
            Self::Flag(flag) => flag.to_string(),
            Self::Nothing => "null".into(),
            Self::Odd(_, shown) => shown.clone(),
            Self::List(nodes) => {
                let shown: Option<Vec<_>> = nodes.iter().map(|node| node.value.shown()).collect();
                format!("[{}]", shown?.join(", "))
            }
            Self::Table(_) | Self::Refused => return None,
        };
        if let Some((cut, _)) = shown.char_indices().nth(LONG) {
            shown.truncate(cut);
            shown.push('…');
        }
        Some(shown)
    }
}

impl Place {
    /// The place of a field below this one.
    pub(crate) fn key(&self, key: impl Into<String>) -> Self {
        self.with(Step::Key(key.into()))
    }

    /// The place of an element of this list.
    pub(crate) fn index(&self, index: usize) -> Self {
        self.with(Step::Index(index))
    }

    /// Whether one of the two lies within the other.
    pub(crate) fn overlaps(&self, other: &Self) -> bool {
        self.0.iter().zip(&other.0).all(|(a, b)| a == b)
    }

    /// The list whose element this is, or itself.
    pub(crate) fn list(&self) -> Self {
        match self.0.split_last() {
            Some((Step::Index(_), list)) => Self(list.into()),
            _ => self.clone(),
        }
    }

    fn with(&self, step: Step) -> Self {
        Self(self.0.iter().cloned().chain([step]).collect())
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bare = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
        for (n, step) in self.0.iter().enumerate() {
            match step {
                Step::Index(index) => write!(f, "[{index}]")?,
                Step::Key(key) => {
                    let dot = if n > 0 { "." } else { "" };
                    match !key.is_empty() && key.chars().all(bare) {
                        true => write!(f, "{dot}{key}")?,
                        false => write!(f, "{dot}{key:?}")?,
                    }
                }
            }
        }
        Ok(())
    }
}

/// Reads TOML. All that is no TOML is told at once.
pub(crate) fn from_toml(text: &str, file: &Path) -> Result<Node, Problems> {
    let lines = Lines::new(text);
    let (table, errors) = DeTable::parse_recoverable(text);
    if errors.is_empty() {
        let value = toml_table(table.into_inner(), &lines);
        return Ok(Node { line: 1, value });
    }
    let mut slips: Vec<_> = errors
        .iter()
        .map(|error| {
            let start = error.span().map_or(0, |span| span.start);
            let open_list = error.message().contains("array");
            (lines.at(start), !open_list, start, error.message())
        })
        .collect();
    slips.sort();
    // What follows from the first slip in a line is not worth telling.
    slips.dedup_by_key(|(line, ..)| *line);
    let mut problems = Vec::new();
    for (line, closed, start, message) in slips {
        let written = text.lines().nth(line - 1).unwrap_or_default();
        let (reason, hint) = match quotes(written, lines.column(start)) {
            _ if !closed => (
                message,
                Some("closing the list before it with \"]\"".into()),
            ),
            Some(quoted) => ("text must be in quotes", Some(quoted)),
            None => (message, None),
        };
        let shown = Value::Odd("", written.trim().into()).shown();
        problems.push(Problem {
            file: file.into(),
            line: Some(line),
            field: String::new(),
            value: shown.filter(|shown| !shown.is_empty()),
            reason: reason.into(),
            hint,
        });
        // What comes after an open list is taken for a part of it.
        if !closed {
            break;
        }
    }
    Err(Problems(problems))
}

/// The commonest slip in TOML, `start_timeout = 30s`, has a remedy of its own. `slip` is the column
/// where the parser gave up, from 0.
fn quotes(line: &str, slip: usize) -> Option<String> {
    let (key, value) = line.split_once('=')?;
    let value = value.split('#').next()?.trim();
    let bare = |c: char| c.is_ascii_alphanumeric() || ".:/-_*%".contains(c);
    let is_text = value.chars().any(|c| !c.is_ascii_digit()) && value.chars().all(bare);
    (slip > key.len() && is_text).then(|| format!("{} = \"{value}\"", key.trim()))
}

fn toml_table(table: DeTable<'_>, lines: &Lines) -> Value {
    let mut entries: Vec<(Range<usize>, Entry)> = table
        .into_iter()
        .map(|(key, value)| {
            let span = key.span();
            let line = lines.at(span.start);
            let node = Node {
                line: lines.at(value.span().start),
                value: toml_value(value.into_inner(), lines),
            };
            (
                span,
                Entry {
                    key: key.into_inner().into_owned(),
                    line,
                    node,
                },
            )
        })
        .collect();
    entries.sort_by_key(|(span, _)| span.start);
    Value::Table(entries.into_iter().map(|(_, entry)| entry).collect())
}

fn toml_value(value: DeValue<'_>, lines: &Lines) -> Value {
    match value {
        DeValue::String(text) => Value::Text(text.into_owned()),
        DeValue::Boolean(flag) => Value::Flag(flag),
        DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
            Ok(number) => Value::Whole(number),
            Err(_) => Value::Odd("a number out of range", number.to_string()),
        },
        DeValue::Float(number) => Value::Odd("a fraction", number.to_string()),
        DeValue::Datetime(date) => Value::Odd("a date or a time of day", date.to_string()),
        DeValue::Table(table) => toml_table(table, lines),
        DeValue::Array(list) => Value::List(
            list.into_iter()
                .map(|value| Node {
                    line: lines.at(value.span().start),
                    value: toml_value(value.into_inner(), lines),
                })
                .collect(),
        ),
    }
}

/// Reads JSON.
pub(crate) fn from_json(text: &str, file: &Path) -> Result<Node, Problems> {
    let json = Json {
        text,
        file,
        lines: Lines::new(text),
    };
    let whole: &RawValue = serde_json::from_str(text).map_err(|error| {
        // Who reads the values knows better words, such as "trailing comma", than who skips them.
        let better = serde_json::from_str::<serde_json::Value>(text).err();
        json.syntax(better.unwrap_or(error), text)
    })?;
    json.node(whole, &Place::default())
}

/// JSON, piece by piece. A raw value is a slice of the text, and so knows where it stands.
struct Json<'a> {
    text: &'a str,
    file: &'a Path,
    lines: Lines,
}

impl<'a> Json<'a> {
    /// Far beyond what a configuration needs, and far below what a stack holds.
    const DEEPEST: usize = 32;

    fn node(&self, raw: &'a RawValue, place: &Place) -> Result<Node, Problems> {
        let written = raw.get();
        let line = self.line_of(written);
        let syntax = |error| self.syntax(error, written);
        if place.0.len() > Self::DEEPEST {
            return Err(self.problem(line, &Place::default(), "nested too deeply".into()));
        }
        let value = match written.as_bytes().first() {
            Some(b'{') => {
                let Pairs(pairs) = serde_json::from_str(written).map_err(syntax)?;
                let mut entries: Vec<Entry> = Vec::new();
                for (key, raw) in pairs {
                    let (place, line) = (place.key(&*key), self.line_of(raw.get()));
                    if let Some(first) = entries.iter().find(|entry| entry.key == key) {
                        let reason = format!("stands twice, first in line {}", first.line);
                        return Err(self.problem(line, &place, reason));
                    }
                    let node = self.node(raw, &place)?;
                    entries.push(Entry {
                        key: key.into_owned(),
                        line,
                        node,
                    });
                }
                Value::Table(entries)
            }
            Some(b'[') => {
                let raws: Vec<&RawValue> = serde_json::from_str(written).map_err(syntax)?;
                let nodes = raws.into_iter().enumerate();
                Value::List(
                    nodes
                        .map(|(index, raw)| self.node(raw, &place.index(index)))
                        .collect::<Result<_, _>>()?,
                )
            }
            Some(b'"') => Value::Text(serde_json::from_str(written).map_err(syntax)?),
            Some(b't' | b'f') => Value::Flag(serde_json::from_str(written).map_err(syntax)?),
            Some(b'n') => Value::Nothing,
            _ => match written.parse() {
                Ok(number) => Value::Whole(number),
                Err(_) if written.contains(['.', 'e', 'E']) => {
                    Value::Odd("a fraction", written.into())
                }
                Err(_) => Value::Odd("a number out of range", written.into()),
            },
        };
        Ok(Node { line, value })
    }

    /// The line of a slice of the text.
    fn line_of(&self, slice: &str) -> usize {
        self.lines
            .at((slice.as_ptr() as usize).saturating_sub(self.text.as_ptr() as usize))
    }

    /// What serde_json says about a slice of the text, with the line within the whole.
    fn syntax(&self, error: serde_json::Error, slice: &str) -> Problems {
        let line = self.line_of(slice) + error.line().saturating_sub(1);
        let reason = error.to_string();
        let reason = reason.split(" at line ").next().unwrap_or_default();
        self.problem(line, &Place::default(), reason.into())
    }

    fn problem(&self, line: usize, place: &Place, reason: String) -> Problems {
        Problem {
            file: self.file.into(),
            line: Some(line),
            field: place.to_string(),
            value: None,
            reason,
            hint: None,
        }
        .into()
    }
}

/// The pairs of a JSON object as they stand there: in order, and also those that stand twice.
struct Pairs<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Pairs<'a> {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Pairs<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Pairs<'de>, A::Error> {
                let mut pairs = Vec::new();
                while let Some((key, value)) = map.next_entry::<String, _>()? {
                    pairs.push((key.into(), value));
                }
                Ok(Pairs(pairs))
            }
        }
        from.deserialize_map(Object)
    }
}

/// Where the lines of a text end.
struct Lines(Vec<usize>);

impl Lines {
    fn new(text: &str) -> Self {
        Self(text.match_indices('\n').map(|(at, _)| at).collect())
    }

    /// The line of a byte, from 1.
    fn at(&self, byte: usize) -> usize {
        self.0.partition_point(|newline| *newline < byte) + 1
    }

    /// The column of a byte, in bytes from 0.
    fn column(&self, byte: usize) -> usize {
        let before = self.0.partition_point(|newline| *newline < byte);
        let begin = before.checked_sub(1).and_then(|last| self.0.get(last));
        byte - begin.map_or(0, |newline| newline + 1)
    }
}
