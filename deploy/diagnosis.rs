//! What a build says is wrong, and where: the first errors in its output, in the forms of cargo and
//! rustc, go, tsc, gcc and clang, and of a traceback of Python. Pure.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The most that are told.
const MOST: usize = 20;

/// One error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Diagnosis {
    /// The file, as the build calls it.
    pub file: String,
    /// Its line, from 1.
    pub line: u32,
    /// The column, from 1, where the build says it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub column: Option<u32>,
    /// What is wrong, in one line.
    pub text: String,
}

/// The errors in the output of a build, at most 20; warnings are none.
pub fn errors(output: &[String]) -> Vec<Diagnosis> {
    let mut found: Vec<Diagnosis> = Vec::new();
    let mut reader = Reader::default();
    for line in output {
        if found.len() == MOST {
            break;
        }
        let plain = anstream::adapter::strip_str(line).to_string();
        if let Some(one) = reader.read(&plain)
            && !found.contains(&one)
        {
            found.push(one);
        }
    }
    found
}

/// What is remembered from line to line.
#[derive(Default)]
struct Reader {
    /// rustc says what is wrong, then where.
    rustc: Option<String>,
    /// Python says where, and last what is wrong.
    python: Option<(String, u32)>,
}

impl Reader {
    fn read(&mut self, line: &str) -> Option<Diagnosis> {
        let trimmed = line.trim();
        if let Some(at) = trimmed.strip_prefix("--> ") {
            let (file, line, column) = place(at)?;
            let text = self.rustc.take()?;
            return Some(diagnosis(file, line, column, &text));
        }
        if let Some(text) = rustc(line) {
            self.rustc = Some(text);
            return None;
        }
        if line.starts_with("warning") {
            // Its place is none of an error.
            self.rustc = None;
            return None;
        }
        if let Some(at) = python(trimmed) {
            self.python = Some(at);
            return None;
        }
        if let Some((file, number)) = &self.python
            && !line.starts_with(' ')
            && is_exception(trimmed)
        {
            let found = diagnosis(file, *number, None, trimmed);
            self.python = None;
            return Some(found);
        }
        tsc(trimmed).or_else(|| gcc(trimmed))
    }
}

fn diagnosis(file: &str, line: u32, column: Option<u32>, text: &str) -> Diagnosis {
    Diagnosis {
        file: file.to_owned(),
        line,
        column,
        text: text.trim().to_owned(),
    }
}

/// `error[E0308]: mismatched types`, `error: expected one of …`.
fn rustc(line: &str) -> Option<String> {
    let rest = line.strip_prefix("error")?;
    let rest = match rest.strip_prefix('[') {
        Some(rest) => rest.split_once(']')?.1,
        None => rest,
    };
    rest.strip_prefix(": ").map(ToOwned::to_owned)
}

/// `File "app.py", line 3, in run`.
fn python(line: &str) -> Option<(String, u32)> {
    let (file, rest) = line.strip_prefix("File \"")?.split_once("\", line ")?;
    let digits = rest.split(|c: char| !c.is_ascii_digit()).next()?;
    Some((file.to_owned(), digits.parse().ok()?))
}

/// `SyntaxError: invalid syntax`, `django.core.exceptions.ImproperlyConfigured: …`.
fn is_exception(line: &str) -> bool {
    let name = line.split(':').next().unwrap_or_default();
    let is_name = |part: &str| {
        part.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && part.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    };
    name.split('.').all(is_name)
        && name
            .rsplit('.')
            .next()
            .is_some_and(|last| last.starts_with(|c: char| c.is_ascii_uppercase()))
}

/// `src/a.ts(3,5): error TS2322: Type …`, and what it says to a terminal: `src/a.ts:3:5 - error TS2322: …`.
fn tsc(line: &str) -> Option<Diagnosis> {
    if let Some((at, text)) = line.split_once(" - error ") {
        let (file, line, column) = place(at)?;
        return Some(diagnosis(file, line, column, text));
    }
    let (at, text) = line.split_once("): error ")?;
    let (file, numbers) = at.rsplit_once('(')?;
    let (line, column) = numbers.split_once(',')?;
    Some(diagnosis(
        file,
        line.parse().ok()?,
        column.parse().ok(),
        text,
    ))
}

/// `a.c:3:5: error: …` of gcc and clang; `./main.go:5:2: undefined: x` of go; `b.y:7: …`.
fn gcc(line: &str) -> Option<Diagnosis> {
    let (file, rest) = line.split_once(':')?;
    let is_file = file.contains('.') && !file.contains(char::is_whitespace) && !file.is_empty();
    if !is_file {
        return None;
    }
    let (number, rest) = rest.split_once(':')?;
    let number = number.parse().ok()?;
    let (column, text) = match rest.split_once(':') {
        Some((column, text)) if column.parse::<u32>().is_ok() => (column.parse().ok(), text),
        _ => (None, rest),
    };
    let text = text.trim();
    let is_note = ["warning", "note", "remark", "In function"];
    if text.is_empty() || is_note.iter().any(|kind| text.starts_with(kind)) {
        return None;
    }
    let text = ["fatal error: ", "error: "]
        .into_iter()
        .find_map(|kind| text.strip_prefix(kind))
        .unwrap_or(text);
    Some(diagnosis(file, number, column, text))
}

/// `src/main.rs:3:5`, `src/main.rs:3`.
fn place(at: &str) -> Option<(&str, u32, Option<u32>)> {
    let (rest, last) = at.trim().rsplit_once(':')?;
    let last = last.parse().ok()?;
    match rest.rsplit_once(':') {
        Some((file, line)) if line.parse::<u32>().is_ok() => {
            Some((file, line.parse().ok()?, Some(last)))
        }
        _ => Some((rest, last, None)),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    fn of(output: &str) -> Vec<String> {
        let lines: Vec<String> = output.lines().map(ToOwned::to_owned).collect();
        let found = errors(&lines).into_iter().map(|one| {
            let column = one.column.map_or_else(String::new, |it| format!(":{it}"));
            format!("{}:{}{column} {}", one.file, one.line, one.text)
        });
        found.collect()
    }

    #[test]
    fn each_compiler_says_it_in_its_own_way() {
        let cases = [
            (
                "\u{1b}[1m\u{1b}[91merror[E0308]\u{1b}[0m: expected `Vec<T>`\n   \u{1b}[94m--> \u{1b}[0msrc/main.rs:3:5\n    |\n3 |     x\n",
                vec!["src/main.rs:3:5 expected `Vec<T>`"],
            ),
            (
                "warning: unused variable: `x`\n --> src/a.rs:1:1\nerror: expected one of `;`\n --> src/b.rs:2:9\nerror: could not compile `app` (bin \"app\") due to 1 previous error",
                vec!["src/b.rs:2:9 expected one of `;`"],
            ),
            (
                "# example.com/app\n./main.go:5:2: undefined: x\n./main.go:7:9: \"os\" imported and not used",
                vec![
                    "./main.go:5:2 undefined: x",
                    "./main.go:7:9 \"os\" imported and not used",
                ],
            ),
            (
                "src/a.ts(3,5): error TS2322: Type 'string' is not assignable to type 'number'.",
                vec!["src/a.ts:3:5 TS2322: Type 'string' is not assignable to type 'number'."],
            ),
            (
                "src/a.ts:3:5 - error TS2304: Cannot find name 'b'.",
                vec!["src/a.ts:3:5 TS2304: Cannot find name 'b'."],
            ),
            (
                "a.c: In function 'main':\na.c:3:5: error: 'x' undeclared\na.c:3:5: note: each is told once\na.c:9:1: warning: unused\nb.y:7: syntax error",
                vec!["a.c:3:5 'x' undeclared", "b.y:7 syntax error"],
            ),
            (
                "Traceback (most recent call last):\n  File \"run.py\", line 1, in <module>\n    import app\n  File \"/srv/app.py\", line 3\n    def x(:\n          ^\nSyntaxError: invalid syntax",
                vec!["/srv/app.py:3 SyntaxError: invalid syntax"],
            ),
            ("compiled in 3.5s: 12:30:45 all good", vec![]),
            ("GET http://127.0.0.1:8080/x: refused", vec![]),
        ];
        for (output, expected) in cases {
            assert_eq!(of(output), expected, "{output}");
        }
    }

    #[test]
    fn no_more_are_told_than_can_be_read_and_each_once() {
        let many: String = (1..100)
            .map(|n| format!("a.c:{n}:1: error: no\n"))
            .collect();
        assert_eq!(of(&many).len(), MOST);
        assert_eq!(of("a.c:1:1: error: no\na.c:1:1: error: no").len(), 1);
    }
}
