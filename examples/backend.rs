//! The backend of the benches of the data path: one thread, one `epoll`, and answers that lie ready, so
//! that it costs as little as can be beside what is measured. Behaves well, and knows four things: an
//! answer of 100 bytes, one of 1 MiB at `/big`, a request's body of any length, and a WebSocket at `/ws`
//! that echoes. Listens on the unix socket `SOCKET`, else on 127.0.0.1 at `PORT`.

#[path = "backend/conversation.rs"]
mod conversation;

use std::collections::HashMap;
use std::env;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::ExitCode;

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};

use conversation::{Conversation, Turn};

/// The token of the listener; connections count up from here.
const LISTENER: u64 = 0;
/// What one read takes at most.
const READ: usize = 64 * 1024;
const BACKLOG: i32 = 4096;

enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

struct Connection {
    stream: Stream,
    conversation: Conversation,
    /// Whether it waits until the client takes more.
    is_full: bool,
}

fn main() -> ExitCode {
    match serve() {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("backend: {e}");
            ExitCode::FAILURE
        }
    }
}

fn serve() -> io::Result<()> {
    let listener = Listener::open()?;
    let epoll = epoll::create(CreateFlags::CLOEXEC)?;
    epoll::add(
        &epoll,
        &listener,
        EventData::new_u64(LISTENER),
        EventFlags::IN,
    )?;
    let mut connections: HashMap<u64, Connection> = HashMap::new();
    let mut next = LISTENER;
    let mut events = Vec::with_capacity(1024);
    let mut buffer = vec![0; READ];
    loop {
        events.clear();
        match epoll::wait(&epoll, spare_capacity(&mut events), None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
        for event in &events {
            let token = event.data.u64();
            if token == LISTENER {
                while let Some(stream) = listener.accept() {
                    next += 1;
                    epoll::add(&epoll, &stream, EventData::new_u64(next), EventFlags::IN)?;
                    let connection = Connection {
                        stream,
                        conversation: Conversation::default(),
                        is_full: false,
                    };
                    connections.insert(next, connection);
                }
                continue;
            }
            let Some(connection) = connections.get_mut(&token) else {
                continue;
            };
            let was_full = connection.is_full;
            if connection.goes_on(&mut buffer).is_err() {
                // Closing it takes it out of the `epoll`, too.
                connections.remove(&token);
                continue;
            }
            if connection.is_full != was_full {
                let wanted = match connection.is_full {
                    true => EventFlags::OUT,
                    false => EventFlags::IN,
                };
                epoll::modify(
                    &epoll,
                    &connection.stream,
                    EventData::new_u64(token),
                    wanted,
                )?;
            }
        }
    }
}

impl Connection {
    /// Read what is there, once, and send what is to be answered. An error is the end of it.
    fn goes_on(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        if !self.is_full {
            let read = match self.stream.read(buffer) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(read) => read,
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(e) => return Err(e),
            };
            self.conversation
                .hears(buffer.get(..read).unwrap_or_default())?;
        }
        loop {
            let piece = self.conversation.says();
            if piece.is_empty() {
                self.is_full = false;
                break;
            }
            match self.stream.write(piece) {
                Ok(sent) => self.conversation.said(sent),
                Err(e) if e.kind() == ErrorKind::WouldBlock => {
                    self.is_full = true;
                    return Ok(());
                }
                Err(e) => return Err(e),
            }
        }
        match self.conversation.turn() {
            Turn::GoesOn => Ok(()),
            Turn::Over => Err(ErrorKind::ConnectionAborted.into()),
        }
    }
}

impl Listener {
    fn open() -> io::Result<Self> {
        let listener = if let Some(path) = env::var_os("SOCKET") {
            let listener = UnixListener::bind(path)?;
            listener.set_nonblocking(true)?;
            Self::Unix(listener)
        } else {
            let port = env::var("PORT").ok().and_then(|port| port.parse().ok());
            let listener = TcpListener::bind(("127.0.0.1", port.unwrap_or(8000)))?;
            listener.set_nonblocking(true)?;
            Self::Tcp(listener)
        };
        // The library's own backlog is short of a thousand connections at once.
        rustix::net::listen(&listener, BACKLOG)?;
        Ok(listener)
    }

    /// One that waits, if one does.
    fn accept(&self) -> Option<Stream> {
        match self {
            Self::Tcp(listener) => {
                let (stream, _) = listener.accept().ok()?;
                stream.set_nonblocking(true).ok()?;
                stream.set_nodelay(true).ok()?;
                Some(Stream::Tcp(stream))
            }
            Self::Unix(listener) => {
                let (stream, _) = listener.accept().ok()?;
                stream.set_nonblocking(true).ok()?;
                Some(Stream::Unix(stream))
            }
        }
    }
}

impl Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read(buffer),
            Self::Unix(stream) => stream.read(buffer),
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.write(bytes),
            Self::Unix(stream) => stream.write(bytes),
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(listener) => listener.as_fd(),
            Self::Unix(listener) => listener.as_fd(),
        }
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(stream) => stream.as_fd(),
            Self::Unix(stream) => stream.as_fd(),
        }
    }
}
