//! A command line as tools hand it to a shell: taken apart where that changes nothing, kept for a shell
//! where it needs one. Pure.

use std::num::NonZeroU16;

use hotctl_config::is_own_variable;

/// What stands for the port in an argument.
const PORT: &str = "{port}";

/// What only a shell can do, so that it cannot be told to `exec` it.
const OF_A_SHELL: [&str; 27] = [
    ".", ":", "alias", "case", "cd", "command", "eval", "export", "for", "if", "read", "readonly",
    "set", "shift", "source", "time", "trap", "type", "ulimit", "umask", "unset", "until", "wait",
    "while", "[", "{", "!",
];

/// A command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// What it sets in front of its program.
    pub env: Vec<(String, String)>,
    /// `PORT=3000` in front of it: where whoever wrote it expects the app.
    pub port: Option<NonZeroU16>,
    /// What is left.
    pub form: Form,
}

/// What a command line needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Form {
    /// Nothing: a program and its arguments.
    Words(Vec<String>),
    /// A shell, for one program.
    Simple(String),
    /// A shell, for several, or for what it does itself.
    Compound(String),
}

impl Line {
    /// Read one.
    ///
    /// # Errors
    /// If it is none: a quote is not closed, or there is nothing.
    pub fn read(text: &str) -> Result<Self, &'static str> {
        let text = text.trim();
        if text.is_empty() {
            return Err("no command");
        }
        let needs = needs(text)?;
        let whole = |form| Self {
            env: Vec::new(),
            port: None,
            form,
        };
        let kept = || match needs {
            Needs::Shell => whole(Form::Compound(text.to_owned())),
            Needs::Nothing | Needs::Expansion => whole(simple(text)),
        };
        if needs == Needs::Shell {
            return Ok(kept());
        }
        let filled = with_port_filled(text);
        if self::needs(&filled)? != Needs::Nothing {
            return Ok(kept());
        }
        let Ok(mut words) = shell_words::split(&filled) else {
            return Ok(kept());
        };
        let mut env = Vec::new();
        let mut port = None;
        while let Some((name, value)) = words.first().and_then(|word| assignment(word)) {
            match name {
                "PORT" => match value.parse() {
                    Ok(number) => port = Some(number),
                    Err(_) => return Ok(kept()),
                },
                // hotctl sets these itself, and takes no others; a shell comes after it.
                _ if is_own_variable(name) || value.contains(PORT) => return Ok(kept()),
                _ => env.push((name.to_owned(), value.to_owned())),
            }
            words.remove(0);
        }
        if words.first().is_some_and(|word| word == "exec") {
            words.remove(0);
        }
        match words.first() {
            Some(program) if !OF_A_SHELL.contains(&program.as_str()) => {}
            _ => return Ok(whole(Form::Compound(text.to_owned()))),
        }
        // The configuration takes no empty argument.
        if words.iter().any(String::is_empty) {
            return Ok(kept());
        }
        Ok(Self {
            env,
            port,
            form: Form::Words(words),
        })
    }

    /// What is run. A program that is named by a relative path is one of the folder that it is started
    /// in, and not of a release: a shell looks there.
    pub fn command(&self) -> Vec<String> {
        let shell = |line: String| vec!["sh".to_owned(), "-c".to_owned(), line];
        match &self.form {
            Form::Words(words) => match words.first() {
                Some(program) if program.contains('/') && !program.starts_with('/') => {
                    shell(format!("exec {}", joined(words)))
                }
                _ => words.clone(),
            },
            Form::Simple(text) => shell(format!("exec {text}")),
            Form::Compound(text) => shell(text.clone()),
        }
    }

    /// The port that its arguments name, where they name one: `-p 3000`, `--port=3000`, `0.0.0.0:3000`.
    pub fn port_in_arguments(&self) -> Option<NonZeroU16> {
        let text;
        let words: Vec<&str> = match &self.form {
            Form::Words(words) => words.iter().map(String::as_str).collect(),
            Form::Simple(line) | Form::Compound(line) => {
                text = line.replace(['"', '\''], " ");
                text.split_whitespace().collect()
            }
        };
        let hosts = ["0.0.0.0:", "127.0.0.1:", "localhost:", "[::]:", ":"];
        words.iter().enumerate().find_map(|(at, word)| {
            let of_flag = match *word {
                "-p" | "--port" | "-P" => words.get(at + 1).copied(),
                _ => word
                    .strip_prefix("--port=")
                    .or_else(|| word.strip_prefix("PORT=")),
            };
            let of_host = || hosts.iter().find_map(|host| word.strip_prefix(host));
            let port: NonZeroU16 = of_flag.or_else(of_host)?.parse().ok()?;
            (port.get() >= 1024).then_some(port)
        })
    }
}

/// Whether a command line asks for `PORT`, or sets it.
pub fn knows_port(text: &str) -> bool {
    let set = |word: &str| word.starts_with("PORT=");
    with_port_filled(text).contains(PORT)
        || ["${PORT:", "${PORT-", "${PORT?"]
            .iter()
            .any(|it| text.contains(it))
        || text.split_whitespace().any(set)
}

/// Words as a shell reads them, `{port}` as it stands.
pub fn joined(words: &[String]) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./:=,@%+{}".contains(c);
    let quoted: Vec<_> = words
        .iter()
        .map(|word| match !word.is_empty() && word.chars().all(plain) {
            true => word.into(),
            false => shell_words::quote(word),
        })
        .collect();
    quoted.join(" ")
}

fn simple(text: &str) -> Form {
    let bare = text.strip_prefix("exec ").unwrap_or(text).trim_start();
    let first = bare.split_whitespace().next().unwrap_or_default();
    match OF_A_SHELL.contains(&first) || assignment(first).is_some() {
        true => Form::Compound(bare.to_owned()),
        false => Form::Simple(bare.to_owned()),
    }
}

/// `NAME=value`.
fn assignment(word: &str) -> Option<(&str, &str)> {
    let (name, value) = word.split_once('=')?;
    let letter = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let is_name = name.chars().all(letter) && name.starts_with(|c: char| !c.is_ascii_digit());
    is_name.then_some((name, value))
}

/// `$PORT` is what `{port}` is.
fn with_port_filled(text: &str) -> String {
    let text = text.replace("${PORT}", PORT);
    let mut parts = text.split("$PORT");
    let mut filled = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let longer = part.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
        filled.push_str(if longer { "$PORT" } else { PORT });
        filled.push_str(part);
    }
    filled
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Needs {
    Nothing,
    /// Of variables, or of patterns of files; or it redirects.
    Expansion,
    /// More than one program.
    Shell,
}

/// What a line needs of a shell. Rather more than less.
fn needs(text: &str) -> Result<Needs, &'static str> {
    const OPEN: &str = "a quote that is not closed";
    let mut found = Needs::Nothing;
    let mut letters = text.chars();
    let mut before = ' ';
    let mut quote = None;
    while let Some(letter) = letters.next() {
        let need = match (quote, letter) {
            (Some('\''), '\'') | (Some('"'), '"') => {
                quote = None;
                Needs::Nothing
            }
            (Some('\''), _) => Needs::Nothing,
            (_, '\\') => match letters.next() {
                Some(_) => Needs::Nothing,
                None => return Err("a backslash with nothing after it"),
            },
            (_, '$' | '`') => Needs::Expansion,
            (Some(_), _) => Needs::Nothing,
            (None, '\'' | '"') => {
                quote = Some(letter);
                Needs::Nothing
            }
            (None, '&') if matches!(before, '>' | '<') => Needs::Expansion,
            (None, '|' | '&' | ';' | '\n' | '(' | ')') => Needs::Shell,
            (None, '<' | '>' | '*' | '?' | '[') => Needs::Expansion,
            (None, '~' | '#') if before.is_whitespace() => Needs::Expansion,
            (None, _) => Needs::Nothing,
        };
        found = found.max(need);
        before = letter;
    }
    match quote {
        Some(_) => Err(OPEN),
        None => Ok(found),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn a_line_is_run_as_the_shell_would() {
        let cases: [(&str, &[&str]); 17] = [
            ("node server.js", &["node", "server.js"]),
            (
                "bundle exec puma -p $PORT",
                &["bundle", "exec", "puma", "-p", "{port}"],
            ),
            (
                "exec puma -b tcp://0.0.0.0:${PORT}",
                &["puma", "-b", "tcp://0.0.0.0:{port}"],
            ),
            (
                "node -e 'a b' \"c d\" e\\ f",
                &["node", "-e", "a b", "c d", "e f"],
            ),
            (
                "./bin/web --port $PORT",
                &["sh", "-c", "exec ./bin/web --port {port}"],
            ),
            ("./bin/web 'a b'", &["sh", "-c", "exec ./bin/web 'a b'"]),
            ("/usr/bin/web", &["/usr/bin/web"]),
            (
                "puma -p ${PORT:-3000}",
                &["sh", "-c", "exec puma -p ${PORT:-3000}"],
            ),
            ("a $PORTS", &["sh", "-c", "exec a $PORTS"]),
            ("rm *.pid", &["sh", "-c", "exec rm *.pid"]),
            ("a > b 2>&1", &["sh", "-c", "exec a > b 2>&1"]),
            ("cd web && npm start", &["sh", "-c", "cd web && npm start"]),
            ("a | b", &["sh", "-c", "a | b"]),
            ("export A=$B", &["sh", "-c", "export A=$B"]),
            ("A=:$PORT ./web", &["sh", "-c", "A=:$PORT ./web"]),
            (
                "HOST=0.0.0.0 node a.js",
                &["sh", "-c", "HOST=0.0.0.0 node a.js"],
            ),
            ("a ''", &["sh", "-c", "exec a ''"]),
        ];
        for (text, command) in cases {
            assert_eq!(Line::read(text).unwrap().command(), command, "{text}");
        }
    }

    #[test]
    fn what_is_set_in_front_of_a_program_is_its_environment() {
        let line = Line::read("NODE_ENV=production PORT=3000 M='a b' node a.js --x=y").unwrap();
        let env = [("NODE_ENV", "production"), ("M", "a b")];
        let env = env.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(line.env, env);
        assert_eq!(line.port, NonZeroU16::new(3000));
        assert_eq!(line.command(), ["node", "a.js", "--x=y"]);
    }

    #[test]
    fn a_port_that_is_named_is_found() {
        let cases = [
            ("thin start -p 3000", 3000),
            ("uvicorn a:b --port 8000", 8000),
            ("vite --port=5173", 5173),
            ("gunicorn -b 0.0.0.0:8001 a", 8001),
            ("sh -c 'PORT=4000 ./a'", 0),
            ("cd a && PORT=4000 ./a", 4000),
            ("cp -p 80 a", 0),
            ("mkdir -p tmp", 0),
            ("puma -p $PORT", 0),
        ];
        for (text, port) in cases {
            let found = Line::read(text).unwrap().port_in_arguments();
            assert_eq!(found, NonZeroU16::new(port), "{text}");
        }
    }

    #[test]
    fn whether_a_line_asks_for_its_port_is_known() {
        for (text, knows) in [
            ("a $PORT", true),
            ("a ${PORT}", true),
            ("a ${PORT:-3000}", true),
            ("PORT=3 a", true),
            ("a $PORTAL ${PORTAL} REPORT=3", false),
        ] {
            assert_eq!(knows_port(text), knows, "{text}");
        }
    }

    #[test]
    fn a_line_that_is_none_is_refused() {
        for text in ["", "  ", "echo 'a", "echo \"a", "echo \\"] {
            assert!(Line::read(text).is_err(), "{text}");
        }
    }
}
