//! The command line of nodemon, as it stands in the scripts of a `package.json`: the same settings as in
//! its file. Pure.

use hotctl_config::tree::Value;

use super::super::fields::{Field, Fields};
use super::super::shell::{Form, Line};
use super::program::texts;

/// Its options: as they are written, the setting, and whether a value follows.
const OPTIONS: [(&[&str], &str, Follows); 20] = [
    (&["--watch", "-w"], "watch", Follows::Another),
    (&["--ignore", "-i"], "ignore", Follows::Another),
    (&["--ext", "-e"], "ext", Follows::Text),
    (&["--exec", "-x"], "exec", Follows::Text),
    (&["--delay", "-d"], "delay", Follows::Seconds),
    (&["--signal", "-s"], "signal", Follows::Text),
    (&["--cwd"], "cwd", Follows::Text),
    (&["--config"], "configFile", Follows::Text),
    (
        &["--polling-interval", "-P"],
        "pollingInterval",
        Follows::Text,
    ),
    (&["--legacy-watch", "-L"], "legacyWatch", Follows::Nothing),
    (&["--verbose", "-V"], "verbose", Follows::Nothing),
    (&["--quiet", "-q"], "quiet", Follows::Nothing),
    (
        &["--on-change-only", "-C"],
        "runOnChangeOnly",
        Follows::Nothing,
    ),
    (&["--no-stdin", "-I"], "stdin", Follows::Nothing),
    (
        &["--no-colours", "--no-colors"],
        "colours",
        Follows::Nothing,
    ),
    (
        &["--no-update-notifier"],
        "noUpdateNotifier",
        Follows::Nothing,
    ),
    (&["--exitcrash"], "exitCrash", Follows::Nothing),
    (&["--spawn"], "spawn", Follows::Nothing),
    (&["--dump"], "dump", Follows::Nothing),
    (&["--js"], "js", Follows::Nothing),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Follows {
    Nothing,
    Text,
    /// A text that is one of several.
    Another,
    /// Seconds, or milliseconds with their unit.
    Seconds,
}

/// The settings of a command line that is one of nodemon and nothing else. `name` is that of the script.
pub fn settings(file: &str, name: &str, line: usize, text: &str) -> Option<Fields> {
    let read = Line::read(text).ok()?;
    let Form::Words(words) = &read.form else {
        return None;
    };
    let mut env = read.env.clone();
    if let Some(port) = read.port {
        env.push(("PORT".into(), port.to_string()));
    }
    let mut words = words.iter().map(String::as_str).peekable();
    // `cross-env A=b nodemon`, `npx nodemon`.
    while let Some(word) = words.next_if(|word| *word != "nodemon") {
        match word.split_once('=') {
            _ if matches!(word, "cross-env" | "env" | "npx") => {}
            Some((name, value)) => env.push((name.into(), value.into())),
            None => return None,
        }
    }
    words.next()?;
    let mut fields = Fields::none(file, &format!("scripts.{name}: "));
    let mut put = |name: &str, value: Value| {
        let name = name.to_owned();
        fields.add(Field { name, line, value });
    };
    for (name, value) in env {
        put(&format!("env.{name}"), Value::Text(value));
    }
    let mut several: Vec<(&str, Vec<String>)> = Vec::new();
    let mut script = None;
    let (mut before, mut after) = (Vec::new(), Vec::new());
    let mut has_exec = false;
    while let Some(word) = words.next() {
        let (option, joined) = match word.split_once('=') {
            Some((option, value)) if option.starts_with("--") => (option, Some(value)),
            _ => (word, None),
        };
        let known = OPTIONS.iter().find(|(names, ..)| names.contains(&option));
        match known {
            // What comes after the script is for it.
            _ if script.is_some() => after.push(word.to_owned()),
            Some((_, setting, Follows::Nothing)) => put(setting, Value::Flag(true)),
            Some((_, setting, follows)) => {
                let value = joined.or_else(|| words.next())?;
                has_exec |= *setting == "exec";
                match follows {
                    Follows::Another => match several.iter_mut().find(|(of, _)| of == setting) {
                        Some((_, values)) => values.push(value.into()),
                        None => several.push((setting, vec![value.into()])),
                    },
                    Follows::Seconds => put(setting, Value::Whole(ms(value)?)),
                    _ => put(setting, Value::Text(value.into())),
                }
            }
            None if word == "--" => {
                after.extend(words.by_ref().map(ToOwned::to_owned));
                if script.is_none() && !has_exec && !after.is_empty() {
                    script = Some(after.remove(0));
                }
            }
            None if word.starts_with('-') => before.push(word.to_owned()),
            None => script = Some(word.to_owned()),
        }
    }
    for (setting, values) in several {
        put(setting, texts(line, values));
    }
    if let Some(script) = script {
        put("script", Value::Text(script));
    }
    for (setting, values) in [("execArgs", before), ("args", after)] {
        if !values.is_empty() {
            put(setting, texts(line, values));
        }
    }
    Some(fields)
}

/// `2.5` is seconds, `2500ms` is not.
fn ms(text: &str) -> Option<i64> {
    if let Some(ms) = text.strip_suffix("ms") {
        return ms.parse().ok();
    }
    let seconds: f64 = text.trim_end_matches('s').parse().ok()?;
    // 100 years fit, and so does what is no time at all.
    (0.0..3e9)
        .contains(&seconds)
        .then(|| (seconds * 1000.0).round() as i64)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    fn said(text: &str) -> Option<Vec<String>> {
        let mut fields = settings("package.json", "dev", 4, text)?;
        let rest = fields.rest(|_| "");
        let shown = rest.iter().map(|it| {
            let name = it.field.trim_start_matches("scripts.dev: ");
            format!("{name} = {}", it.value)
        });
        Some(shown.collect())
    }

    #[test]
    fn a_command_line_is_what_the_file_would_be() {
        let cases: [(&str, Option<&[&str]>); 9] = [
            (
                "nodemon app.js --port 3",
                Some(&["script = \"app.js\"", "args = [\"--port\", \"3\"]"]),
            ),
            (
                "cross-env A=b npx nodemon -w src -w lib -e ts,json --exec 'ts-node' src/a.ts",
                Some(&[
                    "env.A = \"b\"",
                    "ext = \"ts,json\"",
                    "exec = \"ts-node\"",
                    "watch = [\"src\", \"lib\"]",
                    "script = \"src/a.ts\"",
                ]),
            ),
            (
                "PORT=4000 nodemon --inspect -L --delay 2.5 server.js",
                Some(&[
                    "env.PORT = \"4000\"",
                    "legacyWatch = true",
                    "delay = 2500",
                    "script = \"server.js\"",
                    "execArgs = [\"--inspect\"]",
                ]),
            ),
            (
                "nodemon --delay=250ms -- a.js -x",
                Some(&["delay = 250", "script = \"a.js\"", "args = [\"-x\"]"]),
            ),
            ("nodemon", Some(&[])),
            ("tsc && nodemon dist/a.js", None),
            ("concurrently \"nodemon a.js\"", None),
            ("node a.js", None),
            ("nodemon --watch", None),
        ];
        for (text, settings) in cases {
            let settings =
                settings.map(|it| it.iter().map(ToString::to_string).collect::<Vec<_>>());
            assert_eq!(said(text), settings, "{text}");
        }
    }
}
