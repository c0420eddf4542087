//! A file of `NAME=value` lines, which may hold secrets: no message quotes a value, and a file that
//! strangers can read is not taken. Nothing is substituted; the environment of this process is not
//! looked at.

use std::fs::File;
use std::io::Read as _;
use std::iter::Peekable;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::str::Chars;

use crate::refused::Refused;

/// No file is larger, in bytes.
const MOST: u64 = 1024 * 1024;

/// Read a file, in its order; of a name that stands there twice the last counts.
///
/// ```text
/// # a comment
/// export DATABASE_URL=postgres://localhost/app   # and another
/// MOTTO='taken as it stands: $HOME \n'
/// KEY="escapes: \n \t \" \\ \$, and it may
/// go over several lines"
/// ```
///
/// # Errors
/// If it cannot be read, is open to others, or a line is not of that form.
pub fn read(path: &Path) -> Result<Vec<(String, String)>, Refused> {
    let shown = path.display();
    let failed = |cause: std::io::Error| {
        Refused::new(format!("env_file {shown}: {cause}"))
            .hint("let the user that hotctl runs as read it")
    };
    let file = File::options()
        .read(true)
        // A pipe would be waited for.
        .custom_flags(libc::O_NONBLOCK)
        .open(path)
        .map_err(|cause| match cause.kind() {
            std::io::ErrorKind::NotFound => Refused::new(format!("env_file {shown}: no such file"))
                .hint("make it, or take env_file out of the configuration"),
            _ => failed(cause),
        })?;
    guarded(&file, path)?;
    let mut bytes = Vec::new();
    file.take(MOST + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    if bytes.len() as u64 > MOST {
        return Err(Refused::new(format!("env_file {shown}: larger than 1 MiB")));
    }
    let text = String::from_utf8(bytes).map_err(|cause| {
        let before = cause.as_bytes().get(..cause.utf8_error().valid_up_to());
        let line = before.map_or(1, |bytes| {
            1 + bytes.iter().filter(|byte| **byte == b'\n').count()
        });
        Refused::new(format!("env_file {shown}:{line}: not UTF-8"))
    })?;
    parse(&text).map_err(|(line, wrong)| Refused {
        text: format!("env_file {shown}:{line}: {}", wrong.text),
        hint: wrong.hint,
    })
}

/// Only its owner, which is us or root, and its group may have anything to do with it.
fn guarded(file: &File, path: &Path) -> Result<(), Refused> {
    let shown = path.display();
    let meta = file
        .metadata()
        .map_err(|cause| Refused::new(format!("env_file {shown}: {cause}")))?;
    if !meta.is_file() {
        return Err(Refused::new(format!("env_file {shown}: not a file")));
    }
    let (own, owner) = (rustix::process::geteuid().as_raw(), meta.uid());
    if owner != own && owner != 0 {
        return Err(Refused::new(format!(
            "env_file {shown}: belongs to user {owner}, not to user {own}, which hotctl runs as"
        ))
        .hint(format!("chown {own} {shown}")));
    }
    let mode = meta.mode() & 0o7777;
    if mode & 0o006 != 0 {
        let may = match mode & 0o004 {
            0 => "write",
            _ => "read",
        };
        return Err(Refused::new(format!(
            "env_file {shown}: every user can {may} it (mode {mode:o})"
        ))
        .hint(format!("chmod o= {shown}")));
    }
    Ok(())
}

type Wrong = (usize, Refused);

fn parse(text: &str) -> Result<Vec<(String, String)>, Wrong> {
    let mut reading = Reading {
        rest: text.trim_start_matches('\u{feff}').chars().peekable(),
        line: 1,
    };
    let mut found: Vec<(String, String)> = Vec::new();
    while let Some((name, value)) = reading.variable()? {
        found.retain(|(known, _)| *known != name);
        found.push((name, value));
    }
    Ok(found)
}

struct Reading<'a> {
    rest: Peekable<Chars<'a>>,
    /// From 1.
    line: usize,
}

impl Reading<'_> {
    /// The next variable; `None` at the end.
    fn variable(&mut self) -> Result<Option<(String, String)>, Wrong> {
        loop {
            self.blanks();
            match self.rest.peek() {
                None => return Ok(None),
                Some('#') => self.comment(),
                Some('\n') => self.step(),
                Some(_) => break,
            }
        }
        let mut name = self.word();
        if name == "export" && self.rest.peek().is_some_and(|c| is_blank(*c)) {
            self.blanks();
            name = self.word();
        }
        self.blanks();
        // The line may be the rest of a secret that has lost its quotes: none of it is quoted.
        if self.rest.peek() != Some(&'=') || name.is_empty() {
            return Err(self
                .wrong("does not begin with a name and \"=\"".into())
                .hinted("such as NAME=value, NAME='value' or NAME=\"value\""));
        }
        if !is_name(&name) {
            return Err(self
                .wrong("what is before the \"=\" is not the name of a variable".into())
                .hinted("letters, digits and _, with no digit first"));
        }
        self.rest.next();
        self.blanks();
        let value = match self.rest.peek() {
            Some('\'') => self.literal(&name)?,
            Some('"') => self.escaped(&name)?,
            _ => self.bare(),
        };
        if value.contains('\0') {
            return Err(self
                .wrong(format!("{name}: a zero byte in its value"))
                .plain());
        }
        Ok(Some((name, value)))
    }

    fn word(&mut self) -> String {
        let mut word = String::new();
        while let Some(c) = self
            .rest
            .next_if(|c| !c.is_whitespace() && !"='\"#".contains(*c))
        {
            word.push(c);
        }
        word
    }

    /// Up to the end of the line, or to a comment, which needs a blank before it.
    fn bare(&mut self) -> String {
        let mut value = String::new();
        while let Some(c) = self.rest.next_if(|c| *c != '\n') {
            if c == '#' && value.ends_with(is_blank) {
                self.comment();
                break;
            }
            value.push(c);
        }
        value.truncate(value.trim_end().len());
        value
    }

    fn literal(&mut self, name: &str) -> Result<String, Wrong> {
        let began = self.line;
        self.rest.next();
        let mut value = String::new();
        loop {
            match self.next() {
                Some('\'') => break,
                Some(c) => value.push(c),
                None => return Err(open(began, name, '\'')),
            }
        }
        self.nothing_more(name)?;
        Ok(value)
    }

    fn escaped(&mut self, name: &str) -> Result<String, Wrong> {
        let began = self.line;
        self.rest.next();
        let mut value = String::new();
        loop {
            match self.next() {
                Some('"') => break,
                Some('\\') => match self.next() {
                    Some('n') => value.push('\n'),
                    Some('r') => value.push('\r'),
                    Some('t') => value.push('\t'),
                    // The line goes on.
                    Some('\n') => {}
                    Some(c @ ('"' | '\\' | '$' | '`' | '\'')) => value.push(c),
                    Some(_) => {
                        return Err(self
                            .wrong(format!("{name}: an escape that is none"))
                            .hinted(
                                r#"\n, \r, \t, \", \\ and \$ are; in single quotes nothing is"#,
                            ));
                    }
                    None => return Err(open(began, name, '"')),
                },
                Some(c) => value.push(c),
                None => return Err(open(began, name, '"')),
            }
        }
        self.nothing_more(name)?;
        Ok(value)
    }

    fn nothing_more(&mut self, name: &str) -> Result<(), Wrong> {
        self.blanks();
        match self.rest.peek() {
            None | Some('\n') => Ok(()),
            Some('#') => {
                self.comment();
                Ok(())
            }
            Some(_) => Err(self
                .wrong(format!("{name}: something follows the closing quote"))
                .hinted("put the whole value into one pair of quotes")),
        }
    }

    fn next(&mut self) -> Option<char> {
        let next = self.rest.next();
        if next == Some('\n') {
            self.line += 1;
        }
        next
    }

    fn step(&mut self) {
        self.next();
    }

    fn blanks(&mut self) {
        while self.rest.next_if(|c| is_blank(*c)).is_some() {}
    }

    fn comment(&mut self) {
        while self.rest.next_if(|c| *c != '\n').is_some() {}
    }

    fn wrong(&self, text: String) -> Told {
        Told(self.line, Refused::new(text))
    }
}

/// What is wrong with a line, which is still to be given its hint.
struct Told(usize, Refused);

impl Told {
    fn hinted(self, hint: &str) -> Wrong {
        (self.0, self.1.hint(hint))
    }

    fn plain(self) -> Wrong {
        (self.0, self.1)
    }
}

fn open(began: usize, name: &str, quote: char) -> Wrong {
    let wrong = Refused::new(format!("{name}: its value has no closing {quote}"));
    (began, wrong)
}

fn is_blank(c: char) -> bool {
    c != '\n' && c.is_whitespace()
}

fn is_name(text: &str) -> bool {
    let letter = |c: char| c.is_ascii_alphabetic() || c == '_';
    text.starts_with(letter) && text.chars().all(|c| letter(c) || c.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::PathBuf;

    use proptest::prelude::{prop_assert_eq, proptest};

    use super::*;

    fn made(folder: &tempfile::TempDir, text: &[u8], mode: u32) -> PathBuf {
        let path = folder.path().join("env");
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    }

    fn one(text: &str) -> String {
        let mut all = parse(text).map_err(|(_, wrong)| wrong.text).unwrap();
        assert_eq!(all.len(), 1, "{text}");
        all.pop().unwrap().1
    }

    #[test]
    fn every_way_to_write_a_value_is_read_as_it_is_meant() {
        for (text, value) in [
            ("A=plain", "plain"),
            ("A=", ""),
            ("A=\r\n", ""),
            ("  export A = spaces around \t\n", "spaces around"),
            ("A=a#b #c", "a#b"),
            ("A=url://h/?a=b&c=$d", "url://h/?a=b&c=$d"),
            ("A=back\\slash", "back\\slash"),
            ("A=it's", "it's"),
            ("A='$HOME \\n \"'  # said", "$HOME \\n \""),
            (r#"A="a\tb\n\"\\\$HOME""#, "a\tb\n\"\\$HOME"),
            (
                "A=\"-----BEGIN\nabc\n-----END\"\n",
                "-----BEGIN\nabc\n-----END",
            ),
            ("A=1\nA=2", "2"),
            ("\u{feff}A=1", "1"),
            ("export=1", "1"),
        ] {
            assert_eq!(one(text), value, "{text:?}");
        }
        assert_eq!(parse("\n# A=1\n\n").map_err(drop).unwrap(), []);
    }

    #[test]
    fn what_is_wrong_is_told_by_line_and_never_by_value() {
        let folder = tempfile::tempdir().unwrap();
        for (text, line, said) in [
            (
                "A=1\nsecret value\n",
                2,
                "does not begin with a name and \"=\"",
            ),
            (
                "A-secret=1",
                1,
                "what is before the \"=\" is not the name of a variable",
            ),
            ("=secret", 1, "does not begin with a name and \"=\""),
            ("\nA='secret\n\n", 2, "A: its value has no closing '"),
            ("A=\"secret", 1, "A: its value has no closing \""),
            (
                "A='secret' secret",
                1,
                "A: something follows the closing quote",
            ),
            ("A=1\n\nB=\"secret\\q\"", 3, "B: an escape that is none"),
            ("A=secret\0", 1, "A: a zero byte in its value"),
        ] {
            let path = made(&folder, text.as_bytes(), 0o600);
            let refused = read(&path).unwrap_err();
            let whole = format!("env_file {}:{line}: {said}", path.display());
            assert_eq!(refused.text, whole);
            let hint = refused.hint.unwrap_or_default();
            assert!(
                !format!("{whole}{hint}").contains("secret"),
                "{whole} {hint}"
            );
        }
        let path = made(&folder, b"A=1\nB=\xff", 0o600);
        assert!(read(&path).unwrap_err().text.ends_with("env:2: not UTF-8"));
    }

    #[test]
    fn a_file_that_others_can_read_is_refused_with_the_remedy() {
        let folder = tempfile::tempdir().unwrap();
        let path = made(&folder, b"A=1", 0o644);
        let refused = read(&path).unwrap_err();
        let shown = path.display();
        assert_eq!(
            refused.text,
            format!("env_file {shown}: every user can read it (mode 644)")
        );
        assert_eq!(refused.hint.unwrap(), format!("chmod o= {shown}"));
        let path = made(&folder, b"A=1", 0o602);
        assert!(read(&path).unwrap_err().text.contains("can write it"));
        let path = made(&folder, b"A=1", 0o640);
        assert_eq!(read(&path).unwrap(), [("A".to_owned(), "1".to_owned())]);
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::chown(&path, Some(4711), None).unwrap();
            let refused = read(&path).unwrap_err();
            assert!(refused.text.contains("belongs to user 4711"), "{refused}");
        }
        let none = read(&folder.path().join("none")).unwrap_err();
        assert!(none.text.ends_with("no such file"));
        assert!(read(folder.path()).is_err());
    }

    proptest! {
        #[test]
        fn any_text_in_single_quotes_is_taken_as_it_stands(text in "[^'\0]*") {
            prop_assert_eq!(one(&format!("A='{text}'")), text);
        }

        #[test]
        fn nothing_makes_it_panic(text in "\\PC*") {
            let _ = parse(&text);
        }
    }
}
