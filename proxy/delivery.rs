//! Whether a request that failed on a kept-alive connection ever reached the release.
//!
//! A release may close an idle connection at any moment. A request that is sent in that moment is
//! lost without an answer, and whether it may be sent again depends on what became of its bytes.
//! A `GET` may be sent again in any case; a `POST` only if nobody has received it. The kernel
//! knows, and this asks it: the request was not received if the release's side had ended before
//! any of its bytes were acknowledged, and the bytes were then answered by a reset. Of a unix socket
//! the kernel tells nothing of the kind, so there a request that was sent counts as received. It is
//! rarely in doubt: the other side's end is seen there at once, before anything is sent.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::Duration;

use pingora::protocols::l4::ext::{TCP_INFO, get_tcp_info};
use rustix::net::{AddressFamily, RecvFlags};

/// The state of a kept-alive connection before a request is sent on it.
pub(crate) struct Delivery {
    /// A second descriptor: the connection is closed when its request has failed.
    socket: OwnedFd,
    before: Before,
}

/// What was known of the connection before.
enum Before {
    Tcp(Counts),
    Unix,
}

/// The connection cannot be used: the release has closed it, or the kernel does not tell enough.
#[derive(Debug)]
pub(crate) struct Unusable;

impl Delivery {
    /// To be called before the first byte is sent.
    pub(crate) fn begin(socket: impl AsFd) -> Result<Self, Unusable> {
        if !quiet(&socket) {
            return Err(Unusable);
        }
        let socket = rustix::io::fcntl_dupfd_cloexec(socket, 0).map_err(|_| Unusable)?;
        let before = match Counts::of(&socket) {
            Some(counts) => Before::Tcp(counts),
            None if is_unix(&socket) => Before::Unix,
            None => return Err(Unusable),
        };
        Ok(Self { socket, before })
    }

    /// Whether it is certain that nobody received the request. To be called when it has failed.
    ///
    /// The reset that proves it is on its way for a moment, so this waits for it, a few ms.
    pub(crate) async fn failed(self) -> bool {
        const LOOKS: u32 = 8;
        let Before::Tcp(before) = self.before else {
            return false;
        };
        for look in 0..LOOKS {
            match Counts::of(&self.socket).map(|now| now.since(&before)) {
                Some(Fate::Unknown) if look + 1 < LOOKS => {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                Some(Fate::NotReceived) => return true,
                _ => return false,
            }
        }
        false
    }
}

/// Is there nothing to read, not even the end? Asked of the kernel itself: what the runtime knows
/// of a socket is as old as its last look.
pub(crate) fn quiet(socket: impl AsFd) -> bool {
    peek(socket).is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
}

/// What there is to read, without taking it or waiting for it: nothing is an error, the end is `Ok`.
pub(crate) fn peek(socket: impl AsFd) -> io::Result<()> {
    let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
    rustix::net::recv(socket, &mut [0; 1], flags)?;
    Ok(())
}

fn is_unix(socket: &OwnedFd) -> bool {
    rustix::net::sockopt::socket_domain(socket) == Ok(AddressFamily::UNIX)
}

/// What the kernel has counted on a connection.
struct Counts {
    closed: bool,
    /// Bytes that the other side has acknowledged.
    acked: u64,
    /// Sequence numbers received: bytes, and one for the end of the stream.
    received: u64,
    /// Segments with data received.
    segments: u32,
}

#[derive(Debug, PartialEq, Eq)]
enum Fate {
    NotReceived,
    /// It was, or it cannot be excluded.
    MaybeReceived,
    /// Nothing has happened yet.
    Unknown,
}

impl Counts {
    fn of(socket: &OwnedFd) -> Option<Self> {
        /// `TCP_CLOSE` of the kernel's `tcp_states.h`: after a reset.
        const CLOSE: u8 = 7;
        let info: TCP_INFO = get_tcp_info(socket.as_raw_fd()).ok()?;
        Some(Self {
            closed: info.tcpi_state == CLOSE,
            acked: info.tcpi_bytes_acked,
            received: info.tcpi_bytes_received,
            segments: info.tcpi_data_segs_in,
        })
    }

    fn since(&self, before: &Self) -> Fate {
        if self.acked != before.acked || self.segments != before.segments {
            return Fate::MaybeReceived;
        }
        // An end that came with no acknowledgement of ours was sent before our bytes arrived.
        // Without it a reset proves nothing: a process that dies with unread bytes sends one too.
        match (self.received.wrapping_sub(before.received), self.closed) {
            (1, true) => Fate::NotReceived,
            (0 | 1, false) => Fate::Unknown,
            _ => Fate::MaybeReceived,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;
    use std::io::{Read, Write};
    use std::net::{Shutdown, TcpListener, TcpStream};
    use std::os::unix::net::UnixStream;

    fn connected() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let ours = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (theirs, _) = listener.accept().unwrap();
        (ours, theirs)
    }

    #[tokio::test]
    async fn a_request_sent_after_the_other_side_closed_was_not_received() {
        let (mut ours, mut theirs) = connected();
        ours.write_all(b"first").unwrap();
        theirs.read_exact(&mut [0; 5]).unwrap();
        theirs.write_all(b"answer").unwrap();
        ours.read_exact(&mut [0; 6]).unwrap();
        let delivery = Delivery::begin(&ours).unwrap();
        drop(theirs);
        ours.write_all(b"second").unwrap();
        drop(ours);
        assert!(delivery.failed().await);
    }

    #[tokio::test]
    async fn a_request_that_was_read_was_received() {
        let (mut ours, mut theirs) = connected();
        let delivery = Delivery::begin(&ours).unwrap();
        ours.write_all(b"request").unwrap();
        theirs.read_exact(&mut [0; 7]).unwrap();
        drop(theirs);
        drop(ours);
        assert!(!delivery.failed().await);
    }

    #[tokio::test]
    async fn a_request_that_was_read_in_part_by_a_process_that_died_counts_as_received() {
        let (mut ours, mut theirs) = connected();
        let delivery = Delivery::begin(&ours).unwrap();
        ours.write_all(b"request").unwrap();
        theirs.read_exact(&mut [0; 3]).unwrap();
        drop(theirs);
        drop(ours);
        assert!(!delivery.failed().await);
    }

    #[tokio::test]
    async fn a_request_to_a_side_that_only_stopped_sending_counts_as_received() {
        let (mut ours, theirs) = connected();
        let delivery = Delivery::begin(&ours).unwrap();
        theirs.shutdown(Shutdown::Write).unwrap();
        ours.write_all(b"request").unwrap();
        assert!(!delivery.failed().await);
        drop(theirs);
    }

    #[tokio::test]
    async fn what_was_sent_to_a_unix_socket_counts_as_received() {
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        let delivery = Delivery::begin(&ours).unwrap();
        ours.write_all(b"request").unwrap();
        drop(theirs);
        assert!(!delivery.failed().await);
    }

    #[test]
    fn a_unix_socket_that_was_closed_is_not_begun_with() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        drop(theirs);
        assert!(Delivery::begin(&ours).is_err());
    }

    #[test]
    fn a_connection_that_was_closed_is_not_begun_with() {
        let (ours, theirs) = connected();
        drop(theirs);
        assert!(Delivery::begin(&ours).is_err());
    }

    #[test]
    fn an_answer_without_a_request_makes_a_connection_unusable() {
        let (ours, mut theirs) = connected();
        theirs.write_all(b"HTTP/1.1 408 \r\n\r\n").unwrap();
        assert!(Delivery::begin(&ours).is_err());
    }
}
