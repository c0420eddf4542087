//! Where in a page of HTML a script can be put in that is to run whatever else is there, and putting it
//! there as the page passes, piece by piece. Reads no more of it than what stands before its content:
//! byte order mark, comments, doctype, and the start tags of `html` and `head` (HTML, 13.2.6.4.1 to
//! 13.2.6.4.3). Also undoes what a page is compressed with.

use std::io::Write as _;

use brotli_decompressor::DecompressorWriter;
use bytes::{Bytes, BytesMut};
use flate2::write::GzDecoder;
use pingora::{ErrorType, OrErr, Result};
use zstd::stream::write::Decoder as Zstd;

/// What stands before the content of a page is not looked at further than this, in bytes.
const MOST: usize = 64 * 1024;

/// The byte order marks of UTF-16, into which no script of ASCII can be put.
const WIDE: [&[u8]; 2] = [b"\xff\xfe", b"\xfe\xff"];

const UNREADABLE: ErrorType = ErrorType::new("Unreadable");

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

/// Undoes one content coding.
pub(crate) enum Decoder {
    Gzip(Box<GzDecoder<Vec<u8>>>),
    Brotli(Box<DecompressorWriter<Vec<u8>>>),
    Zstd(Box<Zstd<'static, Vec<u8>>>),
}

impl Decoder {
    /// None for one that is not known.
    pub(crate) fn of(coding: &[u8]) -> Option<Self> {
        /// Of what it reads, in bytes.
        const BUFFER: usize = 4096;
        match coding.trim_ascii().to_ascii_lowercase().as_slice() {
            b"gzip" | b"x-gzip" => Some(Self::Gzip(Box::new(GzDecoder::new(Vec::new())))),
            b"br" => Some(Self::Brotli(Box::new(DecompressorWriter::new(
                Vec::new(),
                BUFFER,
            )))),
            b"zstd" => {
                let decoder = Zstd::new(Vec::new()).ok()?;
                Some(Self::Zstd(Box::new(decoder)))
            }
            _ => None,
        }
    }

    /// Some of it passes; what it was before.
    pub(crate) fn pass(&mut self, bytes: &[u8], end: bool) -> Result<Bytes> {
        let passed = match self {
            Self::Gzip(decoder) => {
                let written = decoder.write_all(bytes);
                written.and_then(|()| match end {
                    true => decoder.try_finish(),
                    false => decoder.flush(),
                })
            }
            Self::Brotli(decoder) => {
                let written = decoder.write_all(bytes);
                if end {
                    // What is very small may still hold much. Some never say where it ends.
                    let _ = decoder.close();
                }
                written
            }
            Self::Zstd(decoder) => {
                let written = decoder.write_all(bytes);
                written.and_then(|()| decoder.flush())
            }
        };
        passed.or_err(UNREADABLE, "its content coding")?;
        let out = match self {
            Self::Gzip(decoder) => decoder.get_mut(),
            Self::Brotli(decoder) => decoder.get_mut(),
            Self::Zstd(decoder) => decoder.get_mut(),
        };
        Ok(Bytes::from(std::mem::take(out)))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;
    use pingora::protocols::http::compression::Algorithm;
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

    /// The page of the test below, by node's `zlib.brotliCompressSync`.
    const BROTLI: &str = "1bbb34f8a55f787ce0e426c29c9618a8904ce11ddf6201900b";

    #[test]
    fn what_is_compressed_is_read() {
        let page = b"<!doctype html><p>hello</p>".repeat(500);
        let by_pingora = |algorithm: Algorithm| {
            let mut compressor = algorithm.compressor(5).unwrap();
            compressor.encode(&page, true).unwrap().to_vec()
        };
        // pingora's own does not end its stream.
        let by_node: Vec<u8> = (0..BROTLI.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&BROTLI[at..at + 2], 16).unwrap())
            .collect();
        for (coding, packed) in [
            ("gzip", by_pingora(Algorithm::Gzip)),
            ("zstd", by_pingora(Algorithm::Zstd)),
            ("BR", by_node),
        ] {
            let mut decoder = Decoder::of(coding.as_bytes()).unwrap();
            let mut out = Vec::new();
            for piece in packed.chunks(7) {
                out.extend(decoder.pass(piece, false).unwrap());
            }
            out.extend(decoder.pass(b"", true).unwrap());
            assert!(out == page, "{coding}: {} of {}", out.len(), page.len());
        }
        assert!(Decoder::of(b"deflate, gzip").is_none());
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
