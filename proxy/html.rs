//! Where in a page of HTML a script can be put in that is to run whatever else is there, and putting it
//! there as the page passes, piece by piece. Reads no more of it than what stands before its content:
//! byte order mark, comments, doctype, and the start tags of `html` and `head` (HTML, 13.2.6.4.1 to
//! 13.2.6.4.3).

use bytes::{Bytes, BytesMut};

/// What stands before the content of a page is not looked at further than this, in bytes.
const MOST: usize = 64 * 1024;

/// The byte order marks of UTF-16, into which no script of ASCII can be put.
const WIDE: [&[u8]; 2] = [b"\xff\xfe", b"\xfe\xff"];

/// A page under way that gets a script.
pub(crate) struct Splice {
    script: String,
    /// What was read and does not show yet where the script goes.
    held: BytesMut,
    /// Whether this is a whole page for sure, or is taken for one.
    whole: bool,
    done: bool,
}

impl Splice {
    /// Into this page.
    pub(crate) fn into_any(script: String) -> Self {
        Self {
            script,
            held: BytesMut::new(),
            whole: true,
            done: false,
        }
    }

    /// Only if it begins as whole pages do.
    pub(crate) fn into_whole(script: String) -> Self {
        Self {
            whole: false,
            ..Self::into_any(script)
        }
    }

    /// Some of the page passes; what comes out of it.
    pub(crate) fn pass(&mut self, bytes: &[u8], end: bool) -> Bytes {
        if self.done {
            return Bytes::copy_from_slice(bytes);
        }
        self.held.extend_from_slice(bytes);
        if WIDE.iter().any(|mark| self.held.starts_with(mark)) {
            self.done = true;
            return self.held.split().freeze();
        }
        let mut out = BytesMut::new();
        loop {
            match token(&self.held) {
                Token::Passes { length, begins } => {
                    out.extend_from_slice(&self.held.split_to(length));
                    self.whole |= begins == Begins::APage;
                    if begins == Begins::ItsHead {
                        self.whole = true;
                        break;
                    }
                }
                Token::Content => break,
                // It is no HTML, or never ends.
                Token::Unfinished if end || self.held.len() > MOST => break,
                Token::Unfinished => return out.freeze(),
            }
        }
        self.done = true;
        if self.whole {
            out.extend_from_slice(self.script.as_bytes());
        }
        out.extend_from_slice(&self.held.split());
        out.freeze()
    }
}

/// What stands at the beginning of what is left.
#[derive(Debug, PartialEq, Eq)]
enum Token {
    /// Something that comes before the content.
    Passes {
        length: usize,
        begins: Begins,
    },
    Content,
    Unfinished,
}

#[derive(Debug, PartialEq, Eq)]
enum Begins {
    Nothing,
    APage,
    ItsHead,
}

fn token(bytes: &[u8]) -> Token {
    const MARK: &[u8] = b"\xef\xbb\xbf";
    const COMMENT: &[u8] = b"<!--";
    let passes = |length, begins| Token::Passes { length, begins };
    let Some(first) = bytes.first() else {
        return Token::Unfinished;
    };
    if first.is_ascii_whitespace() {
        return passes(1, Begins::Nothing);
    }
    for whole in [MARK, COMMENT] {
        if bytes.len() < whole.len() && whole.starts_with(bytes) {
            return Token::Unfinished;
        }
    }
    if bytes.starts_with(MARK) {
        return passes(MARK.len(), Begins::Nothing);
    }
    if bytes.starts_with(COMMENT) {
        return match find(&bytes[COMMENT.len()..], b"-->") {
            Some(at) => passes(COMMENT.len() + at + 3, Begins::Nothing),
            None => Token::Unfinished,
        };
    }
    for (start, begins) in [
        (&b"<!doctype"[..], Begins::APage),
        (b"<html", Begins::APage),
        (b"<head", Begins::ItsHead),
    ] {
        let same = bytes.len().min(start.len());
        if !bytes[..same].eq_ignore_ascii_case(&start[..same]) {
            continue;
        }
        let Some(next) = bytes.get(start.len()) else {
            return Token::Unfinished;
        };
        // `<header>` is another.
        if !next.is_ascii_whitespace() && !matches!(next, b'>' | b'/') {
            continue;
        }
        return match end_of_tag(&bytes[start.len()..]) {
            Some(length) => passes(start.len() + length, begins),
            None => Token::Unfinished,
        };
    }
    Token::Content
}

/// How much of this is up to the end of a tag, whose values may have any sign between quotes.
fn end_of_tag(bytes: &[u8]) -> Option<usize> {
    let mut quote = None;
    for (at, byte) in bytes.iter().enumerate() {
        match (quote, byte) {
            (Some(open), byte) if open == *byte => quote = None,
            (Some(_), _) => {}
            (None, b'"' | b'\'') => quote = Some(*byte),
            (None, b'>') => return Some(at + 1),
            (None, _) => {}
        }
    }
    None
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;
    use proptest::prelude::*;

    fn spliced(mut splice: Splice, pieces: &[&[u8]]) -> String {
        let mut out = Vec::new();
        for (at, piece) in pieces.iter().enumerate() {
            out.extend(splice.pass(piece, at + 1 == pieces.len()));
        }
        String::from_utf8(out).unwrap()
    }

    /// `|` is where the script goes.
    const PAGES: [&str; 12] = [
        "<!doctype html><html lang=\"a>b\"><head>|<title>t</title></head><body>",
        "\u{feff}<!-- a > b --> <!DOCTYPE html>\n|<title>t</title>",
        "<!DOCTYPE html PUBLIC \"-//W3C//DTD > XHTML\" 'x'>\n<HTML>\n<HEAD profile='>'>|<title>t",
        "<html>|<body>b",
        "<html><!-- no --> |<header>",
        "<head>|</head>",
        "|<h1>Vec<T></h1>",
        "|text",
        "<!doctype html>|",
        "|<!-- never closed",
        "|<headline>",
        "<!doctype html>|<!doc",
    ];

    #[test]
    fn a_script_goes_before_all_content_and_leaves_the_rest_as_it_is() {
        for page in PAGES {
            let plain = page.replace('|', "");
            let out = spliced(Splice::into_any("|".to_owned()), &[plain.as_bytes()]);
            assert_eq!(out, page);
        }
    }

    #[test]
    fn a_page_of_wide_characters_is_left_as_it_is() {
        for page in [&b"\xff\xfe<\0h\0"[..], b"\xfe\xff\0<\0h"] {
            let mut splice = Splice::into_any("|".to_owned());
            let out = [
                splice.pass(&page[..2], false),
                splice.pass(&page[2..], true),
            ];
            assert_eq!(out.concat(), page);
        }
    }

    #[test]
    fn a_part_of_a_page_gets_none() {
        let page = "<!doctype html>|<p>";
        let out = spliced(Splice::into_whole("|".to_owned()), &[b"<!doctype html><p>"]);
        assert_eq!(out, page);
        for part in ["<p>one", "text", "", "<!-- c --><li>"] {
            let out = spliced(Splice::into_whole("|".to_owned()), &[part.as_bytes()]);
            assert_eq!(out, part);
        }
    }

    #[test]
    fn what_does_not_end_is_not_held_for_ever() {
        let mut splice = Splice::into_any("|".to_owned());
        let mut page = b"<!--".to_vec();
        page.resize(MOST + 1, b'x');
        assert_eq!(splice.pass(&page, false).len(), page.len() + 1);
        assert_eq!(splice.pass(b"more", false), &b"more"[..]);
    }

    proptest! {
        /// However a page is cut up.
        #[test]
        fn pieces_make_no_difference(page in 0..PAGES.len(), cuts in prop::collection::vec(0_usize..80, 0..6)) {
            let expected = PAGES[page];
            let plain = expected.replace('|', "");
            let bytes = plain.as_bytes();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|at| at.min(bytes.len())).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|it| &bytes[it[0]..it[1]]).collect();
            prop_assert_eq!(spliced(Splice::into_any("|".to_owned()), &pieces), expected);
        }
    }
}
