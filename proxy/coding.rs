//! Undoing what a page is compressed with, as it passes, piece by piece. Knows no HTML.

use std::io::{self, Write as _};

use brotli_decompressor::DecompressorWriter;
use bytes::{Bytes, BytesMut};
use flate2::write::GzDecoder;
use tracing::warn;
use zstd::stream::write::Decoder as Zstd;

/// So much is held while nothing comes of it, in bytes.
const MOST: usize = 64 * 1024;

/// Undoes the content coding of a page. What is damaged comes as far as it can be read, and what is not
/// coded at all as it is: a browser shows more of that than of nothing.
pub(crate) struct Decoder {
    coding: Coding,
    state: State,
}

enum Coding {
    Gzip(Box<GzDecoder<Vec<u8>>>),
    Brotli(Box<DecompressorWriter<Vec<u8>>>),
    Zstd(Box<Zstd<'static, Vec<u8>>>),
}

/// What is known of the bytes that pass.
enum State {
    /// Nothing came of them yet, which are these.
    Unproved(BytesMut),
    /// They are what they are said to be.
    Coded,
    /// They are not, from the beginning.
    Plain,
    /// They were, and are not any more.
    Damaged,
}

impl Decoder {
    /// None for a coding that is not known.
    pub(crate) fn of(coding: &[u8]) -> Option<Self> {
        /// Of what it reads, in bytes.
        const BUFFER: usize = 4096;
        let coding = match coding.trim_ascii().to_ascii_lowercase().as_slice() {
            b"gzip" | b"x-gzip" => Coding::Gzip(Box::new(GzDecoder::new(Vec::new()))),
            b"br" => Coding::Brotli(Box::new(DecompressorWriter::new(Vec::new(), BUFFER))),
            b"zstd" => Coding::Zstd(Box::new(Zstd::new(Vec::new()).ok()?)),
            _ => return None,
        };
        Some(Self {
            coding,
            state: State::Unproved(BytesMut::new()),
        })
    }

    /// Some of it passes; what it was before.
    pub(crate) fn pass(&mut self, bytes: &[u8], end: bool) -> Bytes {
        match &self.state {
            State::Plain => return Bytes::copy_from_slice(bytes),
            State::Damaged => return Bytes::new(),
            State::Unproved(_) | State::Coded => {}
        }
        let read = self.coding.read(bytes, end);
        let out = Bytes::from(std::mem::take(self.coding.out()));
        let State::Unproved(held) = &mut self.state else {
            if let Err(cause) = read {
                warn!("a page is damaged, and is sent as far as it can be read: {cause}");
                self.state = State::Damaged;
            }
            return out;
        };
        held.extend_from_slice(bytes);
        match read {
            Err(cause) if out.is_empty() => {
                warn!(
                    "a page is not coded as its Content-Encoding says, and is sent as it came: {cause}"
                );
                let plain = held.split().freeze();
                self.state = State::Plain;
                plain
            }
            Err(cause) => {
                warn!("a page is damaged, and is sent as far as it can be read: {cause}");
                self.state = State::Damaged;
                out
            }
            Ok(()) => {
                if !out.is_empty() || held.len() > MOST {
                    self.state = State::Coded;
                }
                out
            }
        }
    }
}

impl Coding {
    /// In small pieces: what comes of each is there, whatever the next is.
    fn read(&mut self, bytes: &[u8], end: bool) -> io::Result<()> {
        /// In bytes.
        const PIECE: usize = 512;
        for piece in bytes.chunks(PIECE) {
            match self {
                Self::Gzip(decoder) => {
                    decoder.write_all(piece)?;
                    decoder.flush()?;
                }
                // All that comes of it is there.
                Self::Brotli(decoder) => decoder.write_all(piece)?,
                Self::Zstd(decoder) => {
                    decoder.write_all(piece)?;
                    decoder.flush()?;
                }
            }
        }
        match self {
            Self::Gzip(decoder) if end => decoder.try_finish(),
            Self::Brotli(decoder) if end => {
                // What is very small may still hold much. Some never say where it ends.
                let _ = decoder.close();
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn out(&mut self) -> &mut Vec<u8> {
        match self {
            Self::Gzip(decoder) => decoder.get_mut(),
            Self::Brotli(decoder) => decoder.get_mut(),
            Self::Zstd(decoder) => decoder.get_mut(),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;
    use pingora::protocols::http::compression::Algorithm;

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
                out.extend(decoder.pass(piece, false));
            }
            out.extend(decoder.pass(b"", true));
            assert!(out == page, "{coding}: {} of {}", out.len(), page.len());
        }
        assert!(Decoder::of(b"deflate, gzip").is_none());
    }

    #[test]
    fn what_is_damaged_comes_as_far_as_it_can_be_read() {
        // Hard to compress, so that much of it lies before any damage.
        let mut seed = 7_u32;
        let mut next = || {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            char::from(b'a' + u8::try_from(seed >> 28).unwrap())
        };
        let page: String = (0..600_000).map(|_| next()).collect();
        for (coding, algorithm) in [("gzip", Algorithm::Gzip), ("zstd", Algorithm::Zstd)] {
            let mut compressor = algorithm.compressor(5).unwrap();
            let packed = compressor.encode(page.as_bytes(), true).unwrap().to_vec();
            let half = packed.len() / 2;
            let mut torn = packed.clone();
            torn[half..].fill(0xff);
            for (what, sent) in [("cut off", &packed[..half]), ("torn", &torn)] {
                let mut decoder = Decoder::of(coding.as_bytes()).unwrap();
                let mut out = Vec::new();
                for piece in sent.chunks(1000) {
                    out.extend(decoder.pass(piece, false));
                }
                out.extend(decoder.pass(b"", true));
                let same = out.iter().zip(page.as_bytes()).take_while(|(a, b)| a == b);
                let (same, all) = (same.count(), out.len());
                assert!(same >= page.len() / 3, "{coding} {what}: {same} of {all}");
            }
            // It says that it is coded, and is not.
            let mut decoder = Decoder::of(coding.as_bytes()).unwrap();
            let plain = b"<!doctype html><p>hello</p>";
            let mut out = decoder.pass(&plain[..9], false).to_vec();
            out.extend(decoder.pass(&plain[9..], false));
            out.extend(decoder.pass(b"", true));
            assert_eq!(out, plain, "{coding}");
        }
    }
}
