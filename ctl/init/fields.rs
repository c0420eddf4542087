//! The settings of a file of another tool, by name. What has been taken is gone; what is left in the end
//! has no equivalent, and nothing can be forgotten. Pure; knows no tool.

use std::fmt;

use hotctl_config::tree::{Node, Value};

use crate::answers::Unmapped;
use crate::fault::Fault;

/// The settings of one file that have not been taken.
#[derive(Debug)]
pub struct Fields {
    file: String,
    /// In front of each name in the file.
    prefix: String,
    left: Vec<Field>,
}

/// A setting: `build.cmd`, or `env.NODE_ENV`.
#[derive(Debug)]
pub struct Field {
    pub name: String,
    pub line: usize,
    pub value: Value,
}

/// A value of the kind that was expected, and where it stands.
#[derive(Debug, Clone)]
pub struct Said<T> {
    pub value: T,
    pub line: usize,
    /// In full.
    pub name: String,
    file: String,
}

impl<T> Said<T> {
    /// Where it came from, for people.
    pub fn from(&self) -> String {
        format!("From {}:{}, {}.", self.file, self.line, self.name)
    }

    /// That there is no equivalent for it, or for a part of it.
    pub fn unmapped(&self, value: impl fmt::Debug, reason: impl Into<String>) -> Unmapped {
        Unmapped {
            file: self.file.clone(),
            line: self.line,
            field: self.name.clone(),
            value: format!("{value:?}"),
            reason: reason.into(),
        }
    }

    /// That it is wrong.
    pub fn wrong(&self, value: impl fmt::Debug, why: &str, hint: &str) -> Fault {
        let Self {
            file, line, name, ..
        } = self;
        Fault::config(format!("{file}:{line}: {name}: {value:?}: {why}")).hint(hint)
    }

    /// The same with another value.
    pub fn with<U>(&self, value: U) -> Said<U> {
        Said {
            value,
            line: self.line,
            name: self.name.clone(),
            file: self.file.clone(),
        }
    }
}

impl Fields {
    /// Of a file, or of one table in it, which is named by `prefix`.
    pub fn of(file: &str, prefix: &str, node: Node) -> Self {
        let mut left = Vec::new();
        collect(String::new(), node.line, node.value, &mut left);
        Self {
            file: file.into(),
            prefix: prefix.into(),
            left,
        }
    }

    /// Without any setting.
    pub fn none(file: &str, prefix: &str) -> Self {
        Self {
            file: file.into(),
            prefix: prefix.into(),
            left: Vec::new(),
        }
    }

    /// Whether none is left.
    pub fn is_empty(&self) -> bool {
        self.left.is_empty()
    }

    /// All that are left.
    pub fn all(&self) -> impl Iterator<Item = &Field> {
        self.left.iter()
    }

    /// One more.
    pub fn add(&mut self, field: Field) {
        self.left.push(field);
    }

    /// The file, as it was named.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// Whatever stands there.
    pub fn take(&mut self, name: &str) -> Option<Field> {
        let at = self.left.iter().position(|field| field.name == name)?;
        Some(self.left.remove(at))
    }

    /// Whatever stands there, without taking it.
    pub fn look(&self, name: &str) -> Option<&Value> {
        let mut left = self.left.iter();
        left.find(|field| field.name == name)
            .map(|field| &field.value)
    }

    /// All below a name, without it: `NODE_ENV` of `env.NODE_ENV`.
    pub fn below(&mut self, table: &str) -> Vec<Field> {
        let prefix = format!("{table}.");
        let mut found = Vec::new();
        let all = std::mem::take(&mut self.left);
        for mut field in all {
            match field.name.strip_prefix(&prefix).map(ToOwned::to_owned) {
                Some(name) => {
                    field.name = name;
                    found.push(field);
                }
                None => self.left.push(field),
            }
        }
        found
    }

    /// A text. One that is empty is as if it were left out.
    ///
    /// # Errors
    /// If something else stands there.
    pub fn text(&mut self, name: &str) -> Result<Option<Said<String>>, Fault> {
        self.typed(name, "a text in quotes", |value| match value {
            Value::Text(text) => Some(text.clone()),
            _ => None,
        })
        .map(|said| said.filter(|said| !said.value.trim().is_empty()))
    }

    /// A list of texts, or one text.
    ///
    /// # Errors
    /// If something else stands there.
    pub fn list(&mut self, name: &str) -> Result<Option<Said<Vec<String>>>, Fault> {
        self.typed(name, "a list of texts in quotes", |value| match value {
            Value::Text(text) => Some(vec![text.clone()]),
            Value::List(nodes) => nodes
                .iter()
                .map(|node| match &node.value {
                    Value::Text(text) => Some(text.clone()),
                    _ => None,
                })
                .collect(),
            _ => None,
        })
    }

    /// Yes or no.
    ///
    /// # Errors
    /// If something else stands there.
    pub fn flag(&mut self, name: &str) -> Result<Option<Said<bool>>, Fault> {
        self.typed(name, "true or false", |value| match value {
            Value::Flag(flag) => Some(*flag),
            _ => None,
        })
    }

    /// A number.
    ///
    /// # Errors
    /// If something else stands there, or it is below 0.
    pub fn number(&mut self, name: &str) -> Result<Option<Said<u64>>, Fault> {
        self.typed(name, "a whole number, 0 or more", |value| match value {
            Value::Whole(number) => u64::try_from(*number).ok(),
            _ => None,
        })
    }

    /// A port.
    ///
    /// # Errors
    /// If something else stands there.
    pub fn port(&mut self, name: &str) -> Result<Option<Said<u16>>, Fault> {
        self.typed(name, "a port, 1 to 65535", |value| match value {
            Value::Whole(number) => u16::try_from(*number).ok().filter(|port| *port > 0),
            Value::Text(text) => text.parse().ok().filter(|port| *port > 0),
            _ => None,
        })
    }

    fn typed<T>(
        &mut self,
        name: &str,
        due: &str,
        of: impl Fn(&Value) -> Option<T>,
    ) -> Result<Option<Said<T>>, Fault> {
        let Some(field) = self.take(name) else {
            return Ok(None);
        };
        match of(&field.value) {
            Some(value) => Ok(Some(self.said(&field, value))),
            None => Err(self.wrong(&field, &format!("not {due}"), due)),
        }
    }

    /// What a setting says.
    pub fn said<T>(&self, field: &Field, value: T) -> Said<T> {
        Said {
            value,
            line: field.line,
            name: format!("{}{}", self.prefix, field.name),
            file: self.file.clone(),
        }
    }

    /// A setting that is wrong.
    pub fn wrong(&self, field: &Field, why: &str, hint: &str) -> Fault {
        let Field { name, line, value } = field;
        let shown = value.shown().unwrap_or_else(|| value.what().to_owned());
        Fault::config(format!(
            "{}:{line}: {}{name}: {shown}: {why}",
            self.file, self.prefix
        ))
        .hint(hint)
    }

    /// A setting without an equivalent.
    pub fn unmapped(&self, field: &Field, reason: &str) -> Unmapped {
        Unmapped {
            file: self.file.clone(),
            line: field.line,
            field: format!("{}{}", self.prefix, field.name),
            value: written(&field.value),
            reason: reason.into(),
        }
    }

    /// All that is left, with the reason for each.
    pub fn rest(&mut self, reason: impl Fn(&str) -> &'static str) -> Vec<Unmapped> {
        let left = std::mem::take(&mut self.left);
        let unmapped = left
            .iter()
            .map(|field| self.unmapped(field, reason(&field.name)));
        unmapped.collect()
    }
}

fn collect(name: String, line: usize, value: Value, into: &mut Vec<Field>) {
    match value {
        Value::Table(entries) if !entries.is_empty() || name.is_empty() => {
            for entry in entries {
                let below = match name.is_empty() {
                    true => entry.key,
                    false => format!("{name}.{}", entry.key),
                };
                collect(below, entry.line, entry.node.value, into);
            }
        }
        // As if it were left out.
        Value::Nothing => {}
        value => into.push(Field { name, line, value }),
    }
}

/// A value in full, on one line.
fn written(value: &Value) -> String {
    match value {
        Value::Text(text) => format!("{text:?}"),
        Value::Whole(number) => number.to_string(),
        Value::Flag(flag) => flag.to_string(),
        Value::Nothing | Value::Refused => "null".into(),
        Value::Odd(_, shown) => shown.clone(),
        Value::List(nodes) => {
            let nodes: Vec<String> = nodes.iter().map(|node| written(&node.value)).collect();
            format!("[{}]", nodes.join(", "))
        }
        Value::Table(entries) if entries.is_empty() => "{}".into(),
        Value::Table(entries) => {
            let entries: Vec<String> = entries
                .iter()
                .map(|entry| format!("{} = {}", entry.key, written(&entry.node.value)))
                .collect();
            format!("{{ {} }}", entries.join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use std::path::Path;

    use hotctl_config::Format;

    use super::*;

    fn fields(text: &str) -> Fields {
        let node = Format::Toml.tree(text, Path::new("x.toml")).unwrap();
        Fields::of("x.toml", "", node)
    }

    #[test]
    fn what_is_not_taken_is_left_with_its_line_and_value() {
        let text = "a = \"x\"\n[t]\nlist = [1, 'b']\nempty = {}\n[[t.rules]]\ncmd = \"c\"\n";
        let mut fields = fields(text);
        assert_eq!(fields.text("a").unwrap().unwrap().value, "x");
        let left: Vec<String> = fields
            .rest(|_| "why")
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(
            left,
            [
                "x.toml:3: t.list = [1, \"b\"]: why",
                "x.toml:4: t.empty = {}: why",
                "x.toml:5: t.rules = [{ cmd = \"c\" }]: why",
            ]
        );
    }

    #[test]
    fn a_value_of_another_kind_is_told_with_its_place() {
        let mut fields = fields("a = 1\nb = true\nc = [1]\nd = -1\n");
        let wrong = |fault: Fault| fault.to_string();
        let said = wrong(fields.text("a").unwrap_err());
        assert_eq!(
            said,
            "x.toml:1: a: 1: not a text in quotes\n  try: a text in quotes"
        );
        assert!(wrong(fields.list("b").unwrap_err()).starts_with("x.toml:2: b: true: not a list"));
        assert!(wrong(fields.list("c").unwrap_err()).starts_with("x.toml:3: c: [1]"));
        assert!(wrong(fields.number("d").unwrap_err()).starts_with("x.toml:4: d: -1"));
    }
}
