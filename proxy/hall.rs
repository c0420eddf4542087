//! Where clients' connections are taken in and served, until they are told to leave.
//!
//! Not by pingora's `Server`, whose signals, pauses and hand-over lose requests, but connection by
//! connection, on the runtime of the caller. What is done with a request is not known here.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::Poll;
use std::time::Duration;

use pingora::time::fast_timeout::set_fast_timeout_to_tokio_threshold;
use rustix::io::Errno;
use rustix::net::sockopt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};
use tokio::sync::watch;

use crate::conn::{Conn, Limits};
use crate::door::{Door, Order, Way};
use crate::drain::FAREWELL;
use crate::lines::{End, Line, Lines};
use crate::pass::{Passed, Past};
use crate::spare::Spare;
use crate::sys;

/// What a listener is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Take connections and serve them.
    Serving,
    /// Another process has the listener too, and takes what comes from now on: take no more, and pass
    /// on those that wait for a request as soon as they do, see [`crate::Proxy::passes_to`].
    Passing,
    /// Take no more, and let those that are there come to their end.
    Closing,
}

/// Whoever is led to a client's connection.
pub(crate) trait Serves: Send + Sync + 'static {
    /// Serves it, request after request.
    fn talk(self: Arc<Self>, conn: Conn) -> impl Future<Output = ()> + Send;
}

/// See the head of this file. A clone is another handle to the same.
pub(crate) struct Hall<S> {
    serves: Arc<S>,
    limits: Limits,
    lines: Arc<Lines>,
    way: Way,
}

impl<S: Serves> Hall<S> {
    /// One where connections are led to this.
    pub(crate) fn new(serves: S, lines: Arc<Lines>, limits: Limits) -> Self {
        // pingora's own timers have a thread that wakes up a hundred times a second for ever. They
        // pay where every read has a timeout; ours have none, and tokio's wake nobody.
        set_fast_timeout_to_tokio_threshold(Some(Duration::ZERO));
        Self {
            serves: Arc::new(serves),
            limits,
            lines,
            way: Arc::new(OnceLock::new()),
        }
    }

    /// See [`crate::Proxy::passes_to`].
    pub(crate) fn passes_to(&self, way: UnboundedSender<Passed>) {
        let _ = self.way.set(way);
    }

    /// See [`crate::Proxy::serve`].
    pub(crate) async fn serve(&self, listener: TcpListener, mut stage: watch::Receiver<Stage>) {
        prepare(&listener);
        let door = Door::new(self.way.clone());
        let spare = Spare::of_this_process();
        let next = loop {
            tokio::select! {
                biased;
                next = after(&mut stage, Stage::Serving) => break next,
                accepted = listener.accept() => match accepted {
                    Ok((tcp, peer)) => {
                        let is_last = spare.is_touched_by(&tcp);
                        self.welcome(tcp, peer, Past::Fresh, &door);
                        if is_last {
                            tokio::select! {
                                next = after(&mut stage, Stage::Serving) => break next,
                                () = spare.room(&listener) => {}
                            }
                        }
                    }
                    Err(error) => pause(&error).await,
                },
            }
        };
        if next == Stage::Passing {
            // Whoever waits at it is taken in by the other process.
            drop(listener);
            door.tell(Order::PassOn);
            tokio::select! {
                () = door.empty() => return,
                _ = after(&mut stage, Stage::Passing) => door.tell(Order::Finish),
            }
        } else {
            door.tell(Order::Finish);
            self.take_the_rest(listener, &door).await;
        }
        see_out(&door).await;
    }

    /// See [`crate::Proxy::serve_passed`].
    pub(crate) async fn serve_passed(
        &self,
        mut passed: UnboundedReceiver<Passed>,
        mut stage: watch::Receiver<Stage>,
    ) {
        let door = Door::new(self.way.clone());
        let mut told = Stage::Serving;
        loop {
            let next = tokio::select! {
                biased;
                next = after(&mut stage, told) => next,
                () = self.take_passed(&mut passed, &door) => return,
            };
            told = next;
            match next {
                Stage::Serving => {}
                Stage::Passing => door.tell(Order::PassOn),
                Stage::Closing => break,
            }
        }
        door.tell(Order::Finish);
        tokio::select! {
            biased;
            () = self.take_passed(&mut passed, &door) => {}
            () = see_out(&door) => {}
        }
    }

    /// Takes in all that are passed on, until none can come and none is there.
    async fn take_passed(&self, passed: &mut UnboundedReceiver<Passed>, door: &Door) {
        while let Some(Passed { socket, peer, past }) = passed.recv().await {
            match TcpStream::from_std(socket) {
                Ok(tcp) => self.welcome(tcp, peer, past, door),
                Err(error) => tracing::warn!(%peer, "a connection passed on is lost: {error}"),
            }
        }
        door.empty().await;
    }

    /// Takes in what the kernel accepted in our name: closing the listener would reset it.
    async fn take_the_rest(&self, listener: TcpListener, door: &Door) {
        /// For connections that are just being opened: a round trip of most clients.
        const OPENING: Duration = Duration::from_millis(50);

        if let Err(error) = sys::take_no_more(&listener) {
            // Not all systems allow it: then a client may be reset in the moment of the close.
            tracing::debug!("listener: no filter: {error}");
        }
        let opening = async {
            while let Ok((tcp, peer)) = listener.accept().await {
                self.welcome(tcp, peer, Past::Fresh, door);
            }
        };
        let _ = tokio::time::timeout(OPENING, opening).await;
        let Ok(listener) = listener.into_std() else {
            return;
        };
        // Straight from the kernel: the runtime may not have heard of them yet.
        while let Ok((tcp, peer)) = listener.accept() {
            let tcp = tcp
                .set_nonblocking(true)
                .and_then(|()| TcpStream::from_std(tcp));
            if let Ok(tcp) = tcp {
                self.welcome(tcp, peer, Past::Fresh, door);
            }
        }
    }

    /// Serves a connection in a task of its own, which ends with the door at the latest.
    fn welcome(&self, tcp: TcpStream, peer: SocketAddr, past: Past, door: &Door) {
        let (guest, mut bell) = door.enter();
        // Inside until the task is over: a request returns its ticket after its connection.
        let inside = guest.clone();
        let line = self.lines.add();
        let conn = Conn::new(tcp, peer, past, self.limits, line.clone(), guest);
        let talk = self.serves.clone().talk(conn);
        tokio::spawn(async move {
            let _inside = inside;
            let mut talk = std::pin::pin!(talk);
            let end = loop {
                tokio::select! {
                    biased;
                    () = &mut talk => return,
                    // An order: the connection looks at it when it is polled, which is now.
                    rung = bell.changed() => if rung.is_err() {
                        return;
                    },
                    end = line.told() => break end,
                }
            };
            tokio::select! {
                () = finish(talk, &line, end) => {}
                () = async { while bell.changed().await.is_ok() {} } => {}
            }
        });
    }
}

impl<S> Clone for Hall<S> {
    fn clone(&self) -> Self {
        Self {
            serves: self.serves.clone(),
            limits: self.limits,
            lines: self.lines.clone(),
            way: self.way.clone(),
        }
    }
}

/// The stage that follows this one. One whose sender is gone is over.
async fn after(stage: &mut watch::Receiver<Stage>, this: Stage) -> Stage {
    // Nothing but the value leaves here: its guard may not be held while another thread goes on.
    let next = stage.wait_for(|stage| *stage != this).await;
    next.map_or(Stage::Closing, |stage| *stage)
}

/// Waits for the last connection to leave; those that ask nothing are closed after a while.
async fn see_out(door: &Door) {
    /// How long a connection may still bring a request after the close began: one that had
    /// requests before, and one that had none yet.
    const LAST_REQUEST: Duration = Duration::from_millis(250);
    const FIRST_REQUEST: Duration = Duration::from_secs(1);
    let closing = async {
        tokio::time::sleep(LAST_REQUEST).await;
        door.tell(Order::CloseIdle);
        tokio::time::sleep(FIRST_REQUEST - LAST_REQUEST).await;
        door.tell(Order::CloseNew);
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = closing => {}
        () = door.empty() => {}
    }
}

/// Lets a connection come to the end that it was told to: it looks at that when it is polled. What
/// is still in the way then (it connects to a release, or waits for a client to read) goes with it.
async fn finish(mut talk: Pin<&mut impl Future<Output = ()>>, line: &Line, end: End) {
    /// Whether the connection is still there when both sides have said farewell.
    enum Parted {
        Gone,
        Here,
    }
    /// For what needs nobody else.
    const AT_ONCE: Duration = Duration::from_millis(100);
    if let End::Close(_) = end {
        let parted = std::future::poll_fn(|cx| match talk.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(Parted::Gone),
            Poll::Pending if line.is_parted() => Poll::Ready(Parted::Here),
            Poll::Pending => Poll::Pending,
        });
        if let Ok(Parted::Gone) = tokio::time::timeout(FAREWELL, parted).await {
            return;
        }
        line.hang_up();
    }
    let _ = tokio::time::timeout(AT_ONCE, talk).await;
}

/// Options that the accepted sockets inherit, so that they cost nothing for each.
fn prepare(listener: &TcpListener) {
    /// A client that is gone without a word is noticed after about two minutes.
    const SILENT: Duration = Duration::from_secs(60);
    const BETWEEN: Duration = Duration::from_secs(15);
    const PROBES: u32 = 4;
    let set = || -> rustix::io::Result<()> {
        sockopt::set_tcp_nodelay(listener, true)?;
        sockopt::set_socket_keepalive(listener, true)?;
        sockopt::set_tcp_keepidle(listener, SILENT)?;
        sockopt::set_tcp_keepintvl(listener, BETWEEN)?;
        sockopt::set_tcp_keepcnt(listener, PROBES)
    };
    if let Err(error) = set() {
        tracing::debug!("listener: socket options: {error}");
    }
}

/// After an error of `accept`. One connection that failed is none of our business; where the
/// system is out of something, it must not be asked in a circle.
async fn pause(error: &io::Error) {
    const PAUSE: Duration = Duration::from_millis(50);
    let out_of = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM];
    match Errno::from_io_error(error) {
        Some(errno) if !out_of.contains(&errno) => tracing::debug!("accept: {error}"),
        _ => {
            tracing::warn!("accept: {error}");
            tokio::time::sleep(PAUSE).await;
        }
    }
}
