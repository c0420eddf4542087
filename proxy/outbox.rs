//! What is written to a client and not sent yet.
//!
//! Small writes are gathered until they are flushed, so that the header and the body of an answer leave
//! together. What is large goes out as it is, behind them.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use rustix::net::SendFlags;
use tokio::io::{AsyncWrite, Interest};
use tokio::net::TcpStream;

/// See the head of this file.
#[derive(Default)]
pub(crate) struct Outbox {
    bytes: BytesMut,
    /// Writes gathered since the last flush.
    writes: usize,
    /// Whether the kernel may keep back what does not fill a packet.
    corked: bool,
}

/// What comes after some of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Follows {
    /// More of it, or else a flush.
    More,
    /// A flush.
    Flush,
}

/// Writes are gathered up to this, in bytes.
const GATHER: usize = 16 * 1024;

/// What of the room is kept between requests, in bytes.
const KEEP: usize = 4 * 1024;

impl Outbox {
    /// Whether nothing waits for a flush.
    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty() && !self.corked
    }

    /// Whether there was one write since the last flush: so far the header of an answer alone.
    pub(crate) fn is_head(&self) -> bool {
        self.writes == 1
    }

    /// Gives back the room that a large answer has taken.
    pub(crate) fn tidy(&mut self) {
        if self.bytes.is_empty() && self.bytes.capacity() > KEEP {
            self.bytes = BytesMut::new();
        }
    }

    /// For what is said behind all the rest, and is not the head of an answer that waits for its body.
    pub(crate) fn last(&mut self) -> &mut BytesMut {
        self.writes = 2;
        &mut self.bytes
    }

    /// All that was gathered.
    pub(crate) fn take(&mut self) -> BytesMut {
        std::mem::take(&mut self.bytes)
    }

    /// Keeps these for the next flush, or sends them if they are many; says how much of them is taken.
    pub(crate) fn put(
        &mut self,
        tcp: &mut TcpStream,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
        follows: Follows,
    ) -> Poll<io::Result<usize>> {
        let len: usize = bufs.iter().map(|buf| buf.len()).sum();
        if self.bytes.len() + len > GATHER {
            return match bufs {
                [body] if self.bytes.is_empty() && follows == Follows::More => {
                    self.send_some(tcp, cx, body)
                }
                _ => self.send_with(tcp, cx, bufs),
            };
        }
        bufs.iter()
            .for_each(|buf| self.bytes.extend_from_slice(buf));
        self.writes += 1;
        Poll::Ready(Ok(len))
    }

    /// Sends what was gathered, and what the kernel has kept back.
    pub(crate) fn flush(
        &mut self,
        tcp: &mut TcpStream,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        while !self.bytes.is_empty() {
            let sent = ready!(Pin::new(&mut *tcp).poll_write(cx, &self.bytes))?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.bytes.advance(sent);
        }
        self.bytes.clear();
        self.writes = 0;
        if std::mem::take(&mut self.corked) {
            // Said again, it sends what was kept back.
            tcp.set_nodelay(true)?;
        }
        Poll::Ready(Ok(()))
    }

    /// Sends some of a large body, and tells the kernel to fill its packets: each piece would else end with
    /// a small one.
    fn send_some(
        &mut self,
        tcp: &TcpStream,
        cx: &mut Context<'_>,
        body: &[u8],
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(tcp.poll_write_ready(cx))?;
            let flags = SendFlags::MORE | SendFlags::NOSIGNAL;
            let send = || Ok(rustix::net::send(tcp, body, flags)?);
            match tcp.try_io(Interest::WRITABLE, send) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                sent => {
                    self.corked = true;
                    return Poll::Ready(sent);
                }
            }
        }
    }

    /// Sends what was gathered and these behind it, in one go; says how much of these went.
    fn send_with(
        &mut self,
        tcp: &mut TcpStream,
        cx: &mut Context<'_>,
        more: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        /// Slices a call: pingora hands over at most three.
        const SLICES: usize = 8;
        loop {
            let mut slices = [IoSlice::new(&[]); SLICES];
            slices[0] = IoSlice::new(&self.bytes);
            let count = more.len().min(SLICES - 1);
            slices[1..=count].copy_from_slice(&more[..count]);
            let sent = ready!(Pin::new(&mut *tcp).poll_write_vectored(cx, &slices[..=count]))?;
            let ahead = self.bytes.len();
            if sent >= ahead {
                self.bytes.clear();
                self.writes = 0;
            } else {
                self.bytes.advance(sent);
            }
            match sent.checked_sub(ahead) {
                // Only of what was gathered: nothing of these was taken yet.
                None | Some(0) if ahead > 0 && sent > 0 => {}
                Some(taken) => return Poll::Ready(Ok(taken)),
                None => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
            }
        }
    }
}
