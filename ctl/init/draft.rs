//! A configuration in the making: what is known of it, where each value came from, and what of the source
//! has no equivalent. Writes it as commented TOML. Pure; knows no tool.

use std::fmt::Write as _;
use std::time::Duration;

use hotctl_config::file::{Admin, PortRange, Watch as WatchTable};
use hotctl_config::show_duration;

use crate::answers::Unmapped;

/// How long a line of a comment may be.
const WIDTH: usize = 100;

/// A configuration in the making.
#[derive(Debug)]
pub struct Draft {
    /// The file it is made from, as it was named.
    pub from: String,
    /// Where requests are to be taken, on 127.0.0.1.
    pub port: u16,
    /// Why there.
    pub port_why: String,
    pub services: Vec<Service>,
    /// What has no equivalent, in the order of the source.
    pub unmapped: Vec<Unmapped>,
}

/// A service in the making.
#[derive(Debug)]
pub struct Service {
    pub name: String,
    /// What is said in front of it, a paragraph each.
    pub notes: Vec<String>,
    /// Its own fields, and those of the tables in it.
    pub rows: Vec<Row>,
    pub watch: Vec<Row>,
    pub build: Vec<Row>,
    /// The port that it always listens at.
    pub fixed: Option<u16>,
}

/// A field with its value.
#[derive(Debug)]
pub struct Row {
    field: &'static str,
    /// As it is written.
    value: String,
    /// Where it came from, or why it is so.
    why: String,
}

impl Service {
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            notes: Vec::new(),
            rows: Vec::new(),
            watch: Vec::new(),
            build: Vec::new(),
            fixed: None,
        }
    }

    /// So long nothing may change until a change counts.
    pub fn settles(&mut self, time: Duration, why: impl Into<String>) {
        let shown = show_duration(time);
        if time > WatchTable::default().max_wait {
            self.watch
                .push(Row::text("max_wait", &shown, "Not less than what follows."));
        }
        self.watch.push(Row::text("settle", &shown, why));
    }

    /// It always listens at that port, whatever it is told.
    pub fn listens_at(&mut self, port: u16, why: impl Into<String>) {
        self.fixed = Some(port);
        self.rows
            .push(Row::text("address", &format!("fixed:{port}"), why));
    }
}

impl Row {
    pub fn text(field: &'static str, value: &str, why: impl Into<String>) -> Self {
        Self::raw(field, quoted(value), why)
    }

    pub fn list<S: AsRef<str>>(field: &'static str, values: &[S], why: impl Into<String>) -> Self {
        let values: Vec<String> = values.iter().map(|value| quoted(value.as_ref())).collect();
        let line = format!("[{}]", values.join(", "));
        let value = match field.len() + line.len() < WIDTH || values.len() < 2 {
            true => line,
            false => format!("[\n    {},\n]", values.join(",\n    ")),
        };
        Self::raw(field, value, why)
    }

    pub fn flag(field: &'static str, value: bool, why: impl Into<String>) -> Self {
        Self::raw(field, value.to_string(), why)
    }

    /// Names and their values.
    pub fn table(field: &'static str, values: &[(String, String)], why: impl Into<String>) -> Self {
        let values: Vec<String> = values
            .iter()
            .map(|(name, value)| format!("{} = {}", key(name), quoted(value)))
            .collect();
        Self::raw(field, format!("{{ {} }}", values.join(", ")), why)
    }

    fn raw(field: &'static str, value: String, why: impl Into<String>) -> Self {
        Self {
            field,
            value,
            why: why.into(),
        }
    }
}

impl Draft {
    /// Where requests are taken must be free of what the services themselves listen at.
    pub fn settle_port(&mut self) {
        let taken: Vec<u16> = self.services.iter().filter_map(|it| it.fixed).collect();
        let admin = match Admin::default() {
            Admin::At(address) => address.port(),
            Admin::Off => 0,
        };
        let wanted = self.port;
        while taken.contains(&self.port) || self.port == admin {
            self.port = self.port.checked_add(1).unwrap_or(8080);
        }
        if self.port != wanted {
            let _ = write!(
                self.port_why,
                " Not {wanted}: the app itself listens there."
            );
        }
    }

    /// Its text.
    pub fn text(&self) -> String {
        let mut out = String::new();
        comment(
            &mut out,
            &format!(
                "The configuration of hotctl, made of {} by `hotctl init --from`. `hotctl dev` and \
                 `hotctl serve` use it, and `hotctl check` says what is wrong with it.",
                self.from
            ),
        );
        if let Some(ports) = self.ports() {
            out.push('\n');
            let why = "What services are started on: not where one listens already.";
            put(&mut out, &[Row::text("ports", &ports.to_string(), why)]);
        }
        out.push('\n');
        comment(&mut out, &self.port_why);
        let _ = writeln!(out, "[[listen]]\naddress = \"127.0.0.1:{}\"", self.port);
        for service in &self.services {
            out.push('\n');
            for note in &service.notes {
                comment(&mut out, note);
            }
            let _ = writeln!(out, "[service.{}]", service.name);
            put(&mut out, &service.rows);
            for (table, rows) in [("watch", &service.watch), ("build", &service.build)] {
                if !rows.is_empty() {
                    let _ = writeln!(out, "\n[service.{}.{table}]", service.name);
                    put(&mut out, rows);
                }
            }
        }
        if !self.unmapped.is_empty() {
            out.push('\n');
            let text = format!("What of {} has no equivalent in hotctl:", self.from);
            comment(&mut out, &text);
            for unmapped in &self.unmapped {
                comment(&mut out, &format!("- {unmapped}"));
            }
        }
        out
    }

    /// Another range than the usual one, where somebody listens within that.
    fn ports(&self) -> Option<PortRange> {
        let fixed = self.services.iter().filter_map(|it| it.fixed);
        let taken: Vec<u16> = fixed.chain([self.port]).collect();
        let usual = PortRange::default();
        let others = [30_000, 40_000, 50_000].map(|first| PortRange {
            first,
            last: first + 9_999,
        });
        let free = |range: &PortRange| !taken.iter().any(|port| range.contains(*port));
        let found = std::iter::once(usual).chain(others).find(free)?;
        (found != usual).then_some(found)
    }
}

fn put(out: &mut String, rows: &[Row]) {
    for row in rows {
        comment(out, &row.why);
        let _ = writeln!(out, "{} = {}", row.field, row.value);
    }
}

/// A paragraph as a comment.
fn comment(out: &mut String, text: &str) {
    let mut line = String::from("#");
    for word in tame(text).split_whitespace() {
        if line.chars().count() + 1 + word.chars().count() > WIDTH && line.len() > 1 {
            out.push_str(&line);
            out.push('\n');
            line.truncate(1);
        }
        line.push(' ');
        line.push_str(word);
    }
    if line.len() > 1 {
        out.push_str(&line);
        out.push('\n');
    }
}

/// Without what a comment cannot have, and what a terminal would obey.
pub fn tame(text: &str) -> String {
    let mut tamed = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '\n' | '\t' | '\r' => tamed.push(' '),
            _ if letter.is_control() => tamed.extend(letter.escape_default()),
            _ => tamed.push(letter),
        }
    }
    tamed
}

/// A name as the key of a table.
fn key(name: &str) -> String {
    let bare = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    match !name.is_empty() && name.chars().all(bare) {
        true => name.to_owned(),
        false => quoted(name),
    }
}

/// A basic string of TOML.
fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for letter in text.chars() {
        match letter {
            '"' | '\\' => quoted.extend(['\\', letter]),
            '\n' => quoted.push_str("\\n"),
            '\t' => quoted.push_str("\\t"),
            _ if letter.is_control() => {
                let _ = write!(quoted, "\\u{:04X}", u32::from(letter));
            }
            _ => quoted.push(letter),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use std::path::Path;

    use hotctl_config::{Config, Format};

    use super::*;

    fn draft(service: Service) -> Draft {
        Draft {
            from: "Procfile".into(),
            port: 5000,
            port_why: "There.".into(),
            services: vec![service],
            unmapped: Vec::new(),
        }
    }

    fn config(draft: &Draft) -> Config {
        let text = draft.text();
        hotctl_config::parse(&text, Format::Toml, Path::new("hotctl.toml"))
            .unwrap_or_else(|wrong| panic!("{wrong}\n{text}"))
    }

    #[test]
    fn what_is_written_is_read_back_as_it_was_whatever_it_is() {
        let words = [
            "sh",
            "-c",
            "a \"b\" \\ 'c'\n\tü \u{7f} \u{1b}[31m # '''\"\"\" {port}",
        ];
        let env = [("a.b c".to_owned(), "x = \"y\"".to_owned())];
        let mut web = Service::new("web");
        web.notes.push("An \u{1b}[31m evil\ncomment".into());
        web.rows.push(Row::list("run", &words, "why"));
        web.rows.push(Row::table("env", &env, "why"));
        let draft = draft(web);
        let service = config(&draft).services.into_values().next().unwrap();
        assert_eq!(service.run, words);
        assert_eq!(service.env.get("a.b c").unwrap(), "x = \"y\"");
        assert!(!draft.text().contains('\u{1b}'), "{}", draft.text());
    }

    #[test]
    fn nothing_is_to_listen_where_something_does() {
        let mut web = Service::new("web");
        web.listens_at(5000, "it does");
        let mut moved = draft(web);
        moved.settle_port();
        assert_eq!(config(&moved).listen[0].address.port(), 5001);
        let mut web = Service::new("web");
        web.listens_at(25_000, "it does");
        let mut ranged = draft(web);
        ranged.port = 31_000;
        ranged.settle_port();
        assert_eq!(config(&ranged).ports.first, 40_000);
    }

    #[test]
    fn a_long_comment_is_broken_between_words() {
        let mut out = String::new();
        comment(&mut out, &"word ".repeat(50));
        assert_eq!(out.lines().count(), 3);
        assert!(
            out.lines()
                .all(|line| line.len() <= WIDTH && line.starts_with("# "))
        );
    }
}
