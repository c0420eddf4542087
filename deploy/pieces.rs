//! Bytes from one thread to another as `Read` and `Write`. A failure of the writing side is an
//! error for the reader, never an early end that looks like a whole file.

use std::io::{self, Read, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

/// Pieces that may lie unread; the writer waits then.
const UNREAD: usize = 4;
/// Smaller writes are put together up to this.
const PIECE: usize = 256 * 1024;

/// The reading end.
#[derive(Debug)]
pub struct PieceReader {
    from: Receiver<io::Result<Option<Vec<u8>>>>,
    piece: Vec<u8>,
    at: usize,
    over: bool,
}

/// The writing end. What is dropped without [`PieceWriter::finish`] or [`PieceWriter::fail`] is an
/// error for the reader.
#[derive(Debug)]
pub struct PieceWriter {
    to: SyncSender<io::Result<Option<Vec<u8>>>>,
    piece: Vec<u8>,
}

/// The two ends.
pub fn pieces() -> (PieceWriter, PieceReader) {
    let (to, from) = sync_channel(UNREAD);
    let reader = PieceReader {
        from,
        piece: Vec::new(),
        at: 0,
        over: false,
    };
    let piece = Vec::new();
    (PieceWriter { to, piece }, reader)
}

impl PieceWriter {
    /// Say that this was all.
    ///
    /// # Errors
    /// If the reader is gone.
    pub fn finish(mut self) -> io::Result<()> {
        self.flush()?;
        self.send(Ok(None))
    }

    /// Say that it broke.
    pub fn fail(self, cause: io::Error) {
        // A reader that is gone does not need to know.
        let _ = self.send(Err(cause));
    }

    fn send(&self, item: io::Result<Option<Vec<u8>>>) -> io::Result<()> {
        self.to
            .send(item)
            .map_err(|_| io::Error::new(io::ErrorKind::BrokenPipe, "nobody reads any more"))
    }
}

impl Write for PieceWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.piece.extend_from_slice(bytes);
        if self.piece.len() >= PIECE {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.piece.is_empty() {
            return Ok(());
        }
        let piece = std::mem::take(&mut self.piece);
        self.send(Ok(Some(piece)))
    }
}

impl Read for PieceReader {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.at == self.piece.len() && !self.over {
            match self.from.recv() {
                Ok(Ok(Some(piece))) => {
                    self.piece = piece;
                    self.at = 0;
                }
                Ok(Ok(None)) => self.over = true,
                Ok(Err(cause)) => return Err(cause),
                Err(_) => {
                    let broke = io::ErrorKind::UnexpectedEof;
                    return Err(io::Error::new(broke, "broke off in the middle"));
                }
            }
        }
        let rest = &self.piece[self.at..];
        let n = rest.len().min(into.len());
        into[..n].copy_from_slice(&rest[..n]);
        self.at += n;
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn what_is_finished_is_read_whole_and_what_breaks_off_is_an_error() {
        let (mut writer, mut reader) = pieces();
        writer.write_all(b"whole").unwrap();
        writer.finish().unwrap();
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "whole");

        let (mut writer, mut reader) = pieces();
        writer.write_all(b"half").unwrap();
        writer.flush().unwrap();
        drop(writer);
        assert!(reader.read_to_string(&mut String::new()).is_err());
    }
}
