//! A client's connection, as pingora sees it.
//!
//! It knows where in the conversation it is (before a request, in its header, in the exchange),
//! and keeps the deadlines of the first two; what it is told about the third comes from
//! `request`. It gathers small writes until they are flushed, so that the header and the body of
//! an answer leave together, and has no read buffer, since pingora reads into its own. On a WebSocket
//! it follows the frames that go to the client, and says the last one when the line asks for it.

use std::fmt;
use std::future::Future;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use async_trait::async_trait;
use bytes::BytesMut;
use pingora::protocols::{Shutdown, UniqueID};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep};

use crate::delivery::quiet;
use crate::door::{Guest, Order};
use crate::frames::{self, Speech};
use crate::headers::Client;
use crate::kinds::Kind;
use crate::lines::Line;
use crate::outbox::{Follows, Outbox};
use crate::pass::{Passed, Past};
use crate::untold::untold;

/// A client's connection.
pub(crate) struct Conn {
    /// Only gone in `drop`.
    tcp: Option<TcpStream>,
    limits: Limits,
    stage: Stage,
    /// When the present stage must be over, once it has been waited for.
    until: Option<Instant>,
    /// The stage that `until` is meant for.
    waited: u8,
    timer: Option<Pin<Box<Sleep>>>,
    /// What was written and not yet sent.
    out: Outbox,
    ended: bool,
    /// Whether it leaves for another process, which is as if it ended here.
    passes: bool,
    /// What the release says to the client, once that is a WebSocket.
    speech: Option<Speech>,
    peer: SocketAddr,
    client: Client,
    line: Arc<Line>,
    guest: Guest,
}

/// How long to wait for a client.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// For the first byte of the first request, and then for the rest of any header.
    pub(crate) header: Duration,
    /// For the next request.
    pub(crate) idle: Duration,
}

/// How the end of a request shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    /// By its length, which may be none.
    Length,
    /// By its last chunk.
    Chunked,
}

/// Whether a message shows by its framing whether it is whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framed {
    Yes,
    No,
}

/// Where the conversation is. Atomic, since `request` only borrows the connection.
#[derive(Default)]
struct Stage {
    /// One of the constants below.
    now: AtomicU8,
    /// Whether the client may still be sending the body of a request that was answered.
    unread: AtomicBool,
    /// Whether the answer ended too soon, and only a reset can show it.
    broken: AtomicBool,
    /// Whether it ended too soon, and its framing shows it.
    short: AtomicBool,
    /// Bytes read that belong to no request so far, or [`UNKNOWN`].
    ahead: AtomicUsize,
}

/// Nobody can tell how much of the next request was read.
const UNKNOWN: usize = usize::MAX;

/// No request yet.
const NEW: u8 = 0;
/// In a request's header.
const HEADER: u8 = 1;
/// From the end of the header to the end of the answer.
const EXCHANGE: u8 = 2;
/// The answer is written; the rest of the request may still come.
const OVER: u8 = 3;
/// Between two requests.
const IDLE: u8 = 4;

/// How long the header of an answer may wait for the first of its body, to leave with it.
const HOLD: Duration = Duration::from_millis(5);

impl Conn {
    pub(crate) fn new(
        tcp: TcpStream,
        peer: SocketAddr,
        past: Past,
        limits: Limits,
        line: Arc<Line>,
        guest: Guest,
    ) -> Self {
        Self {
            tcp: Some(tcp),
            limits,
            stage: match past {
                Past::Fresh => Stage::default(),
                Past::Used => Stage {
                    now: AtomicU8::new(IDLE),
                    ..Stage::default()
                },
            },
            until: None,
            waited: NEW,
            timer: None,
            out: Outbox::default(),
            ended: false,
            passes: false,
            speech: None,
            peer,
            client: Client::at(peer.ip()),
            line,
            guest,
        }
    }

    /// The header of a request is complete. In chunks, nobody will know where exactly it ended.
    pub(crate) fn begin(&self, framing: Framing) {
        self.stage.now.store(EXCHANGE, Ordering::Relaxed);
        if framing == Framing::Chunked {
            self.stage.ahead.store(UNKNOWN, Ordering::Relaxed);
        }
    }

    /// The exchange is over, the next request may come.
    pub(crate) fn rest(&mut self) {
        self.stage.now.store(IDLE, Ordering::Relaxed);
        self.until = None;
        self.out.tidy();
    }

    /// The request was answered; `whole`: and all of its body was read. `length`: of what was read of
    /// it, in bytes, where it is not in chunks.
    pub(crate) fn over(&self, whole: bool, length: usize) {
        self.stage.now.store(OVER, Ordering::Relaxed);
        self.stage.unread.store(!whole, Ordering::Relaxed);
        let ahead = match self.stage.ahead.load(Ordering::Relaxed) {
            UNKNOWN => UNKNOWN,
            _ if !whole => UNKNOWN,
            ahead => ahead.checked_sub(length).unwrap_or(UNKNOWN),
        };
        self.stage.ahead.store(ahead, Ordering::Relaxed);
        self.line.end();
    }

    /// The answer ended too soon, and the client must see that. By a reset it loses what is on its way, so
    /// only where it could not tell otherwise.
    pub(crate) fn break_off(&self, framed: Framed) {
        let how = match framed {
            Framed::Yes => &self.stage.short,
            Framed::No => &self.stage.broken,
        };
        how.store(true, Ordering::Relaxed);
    }

    /// Who is at its other end.
    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// What can be seen of it from outside.
    pub(crate) fn line(&self) -> &Arc<Line> {
        &self.line
    }

    /// Resolves when the client has gone away, or has closed its sending side, which counts as the
    /// same. Reads nothing: what the client has sent stays where it is. An end that lies behind more
    /// than the kernel takes unread cannot be seen.
    pub(crate) async fn left(&self) {
        /// How soon it is noticed where something unread lies before the end.
        const LOOK: Duration = Duration::from_millis(100);
        let Some(tcp) = &self.tcp else {
            return;
        };
        // With nothing unread this waits for the end itself.
        if !matches!(tcp.peek(&mut [0]).await, Ok(1..)) {
            return;
        }
        loop {
            // With something unread this is ready at once, and knows of the end from the kernel.
            match tcp.ready(Interest::READABLE).await {
                Ok(ready) if !ready.is_read_closed() => tokio::time::sleep(LOOK).await,
                _ => return,
            }
        }
    }

    /// Whether clients are being sent away.
    pub(crate) fn closing(&self) -> bool {
        match self.guest.order() {
            Order::Serve => false,
            Order::PassOn => {
                !self.guest.goes_on() || self.stage.ahead.load(Ordering::Relaxed) == UNKNOWN
            }
            Order::Finish | Order::CloseIdle | Order::CloseNew => true,
        }
    }

    /// Whether another process can go on with it: nothing lies here that the next request, or the
    /// client, is to have.
    fn can_pass(&self) -> bool {
        self.guest.goes_on() && self.out.is_empty() && self.stage.ahead.load(Ordering::Relaxed) == 0
    }

    /// Nothing to read: is there a reason to stop waiting?
    fn wait(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let stage = self.stage.now.load(Ordering::Relaxed);
        if stage != self.waited {
            self.waited = stage;
            self.until = None;
        }
        match stage {
            EXCHANGE | OVER => self.wait_in_exchange(cx),
            HEADER => {
                ready!(self.expire(cx, self.limits.header));
                Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
            }
            _ => {
                let (patience, limit) = match stage {
                    NEW => (Order::CloseNew, self.limits.header),
                    _ => (Order::CloseIdle, self.limits.idle),
                };
                if self.can_pass() {
                    // Read as the end of the stream, and passed on when it is dropped. What comes from
                    // now on stays in the socket.
                    self.passes = true;
                    return Poll::Ready(Ok(()));
                }
                if self.guest.order() >= patience && self.tcp.as_ref().is_some_and(quiet) {
                    return Poll::Ready(Ok(()));
                }
                // Both are read as the end of the stream: the connection closes.
                self.expire(cx, limit).map(Ok)
            }
        }
    }

    /// What was gathered must not wait for ever for more. pingora flushes at the end of an answer,
    /// but not within one of known length, and such an answer may take its time.
    fn wait_in_exchange(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.out.is_empty() {
            if self.out.is_head() {
                // So far the header alone: its body most likely follows at once.
                ready!(self.expire(cx, HOLD));
            }
            self.until = None;
            // An error shows again at the next write.
            let _ = self.send(cx);
        }
        Poll::Pending
    }

    /// Ready when the stage has lasted for `limit` since it was first waited for.
    fn expire(&mut self, cx: &mut Context<'_>, limit: Duration) -> Poll<()> {
        let until = *self.until.get_or_insert_with(|| Instant::now() + limit);
        let timer = self
            .timer
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(until)));
        // Setting a timer costs more than being woken by an old one now and then, so one that is
        // set for an earlier time stays as it is.
        if timer.deadline() > until {
            timer.as_mut().reset(until);
        }
        loop {
            ready!(timer.as_mut().poll(cx));
            if Instant::now() >= until {
                self.until = None;
                return Poll::Ready(());
            }
            timer.as_mut().reset(until);
        }
    }

    /// Takes what the release says on a WebSocket.
    fn speak(&mut self, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let said = match self.line.farewell() {
            None => {
                let said = ready!(self.gather(cx, bufs))?;
                let speech = self.speech.get_or_insert_default();
                let mut left = said;
                for buf in bufs {
                    let part = left.min(buf.len());
                    speech.pass(&buf[..part]);
                    left -= part;
                }
                said
            }
            Some(code) => {
                self.take_leave(code, bufs);
                bufs.iter().map(|buf| buf.len()).sum()
            }
        };
        if self.speech.as_ref().is_some_and(Speech::is_closed) {
            self.line.release_closed();
        }
        Poll::Ready(Ok(said))
    }

    /// Says the Close frame as soon as that is possible, which may be within these bytes, and nothing
    /// after it.
    fn take_leave(&mut self, code: u16, bufs: &[IoSlice<'_>]) {
        let speech = self.speech.get_or_insert_default();
        let close = || frames::close(code, None);
        let out = self.out.last();
        speech.end(&[], close, out);
        for buf in bufs {
            speech.end(buf, close, out);
        }
    }

    /// Sends what was gathered.
    fn send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.tcp {
            Some(tcp) => self.out.flush(tcp, cx),
            None => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }

    /// Takes some of an answer.
    fn gather(&mut self, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let follows = match self.line.kind() {
            Kind::Request => Follows::More,
            // Each piece of these is flushed, since the next may be far away.
            Kind::Long | Kind::Stream | Kind::WebSocket => Follows::Flush,
        };
        match &mut self.tcp {
            Some(tcp) => self.out.put(tcp, cx, bufs, follows),
            None => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }
}

impl AsyncRead for Conn {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.line.is_cut() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        if this.passes {
            return Poll::Ready(Ok(()));
        }
        if let Some(code) = this.line.farewell() {
            if this.line.is_over() {
                return Poll::Ready(Ok(()));
            }
            this.take_leave(code, &[]);
            // An error shows again at the next write.
            let _ = this.send(cx);
        }
        let Some(tcp) = &mut this.tcp else {
            return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
        };
        let before = buf.filled().len();
        match Pin::new(tcp).poll_read(cx, buf) {
            Poll::Pending => this.wait(cx),
            Poll::Ready(result) => {
                let read = buf.filled().len() - before;
                // Never near the one that means it is not known, and that one stays.
                let ahead = this.stage.ahead.get_mut();
                *ahead = ahead.saturating_add(read);
                if result.is_err() || read == 0 {
                    this.ended = true;
                } else if matches!(this.stage.now.load(Ordering::Relaxed), NEW | IDLE) {
                    this.stage.now.store(HEADER, Ordering::Relaxed);
                    this.until = None;
                }
                Poll::Ready(result)
            }
        }
    }
}

impl AsyncWrite for Conn {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.line.is_cut() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        match this.line.kind() {
            Kind::WebSocket => this.speak(cx, bufs),
            Kind::Request | Kind::Long | Kind::Stream => this.gather(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().send(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.send(cx))?;
        match &mut this.tcp {
            // It is open elsewhere.
            Some(_) if this.passes => Poll::Ready(Ok(())),
            Some(tcp) => Pin::new(tcp).poll_shutdown(cx),
            None => Poll::Ready(Ok(())),
        }
    }
}

#[async_trait]
impl Shutdown for Conn {
    async fn shutdown(&mut self) {
        // One try: whoever wanted the rest to arrive has flushed it, and a client that does not
        // read must not hold up the end. It is dropped next, which closes it.
        std::future::poll_fn(|cx| {
            let _ = self.send(cx);
            Poll::Ready(())
        })
        .await;
    }
}

impl UniqueID for Conn {
    fn id(&self) -> i32 {
        self.tcp.as_ref().map_or(-1, TcpStream::as_raw_fd)
    }
}

untold!(Conn);

impl fmt::Debug for Conn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "connection of {}", self.peer)
    }
}

impl Drop for Conn {
    fn drop(&mut self) {
        let cut = self.line.is_cut() || self.stage.broken.load(Ordering::Relaxed);
        let farewell = self.line.farewell().filter(|_| !cut);
        if let Some(code) = farewell {
            self.take_leave(code, &[]);
        }
        let Some(tcp) = self.tcp.take() else {
            return;
        };
        if self.passes && !cut {
            let past = match self.stage.now.load(Ordering::Relaxed) {
                NEW => Past::Fresh,
                _ => Past::Used,
            };
            // One that fails here has been reset by its client.
            if let Ok(peer) = tcp.peer_addr()
                && let Ok(socket) = tcp.into_std()
            {
                self.guest.pass(Passed { socket, peer, past });
            }
            return;
        }
        let in_exchange = self.stage.now.load(Ordering::Relaxed) == EXCHANGE;
        if cut || (in_exchange && farewell.is_none()) {
            // A reset: an answer that ends with the connection would else look complete.
            let now = Some(Duration::ZERO);
            let _ = rustix::net::sockopt::set_socket_linger(tcp.as_fd(), now);
        } else if (farewell.is_some()
            || self.stage.unread.load(Ordering::Relaxed)
            || self.stage.short.load(Ordering::Relaxed))
            && !self.ended
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            let last = self.out.take();
            runtime.spawn(see_off(tcp, last, self.guest.clone()));
        }
    }
}

/// Closes a connection whose client may still be sending. Closed at once, the kernel would answer
/// what arrives with a reset, and that can take the answer from a client that has not read it yet.
async fn see_off(mut tcp: TcpStream, last: BytesMut, _until_then: Guest) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    const PATIENCE: Duration = Duration::from_secs(2);
    let read_all = async {
        tcp.write_all(&last).await?;
        tcp.shutdown().await?;
        let mut waste = vec![0; 16 * 1024];
        while tcp.read(&mut waste).await? > 0 {}
        io::Result::Ok(())
    };
    let _ = tokio::time::timeout(PATIENCE, read_all).await;
}
