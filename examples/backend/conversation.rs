//! What is said on one connection: bytes come in, bytes go out. Pure.

use std::io::{self, ErrorKind};
use std::sync::LazyLock;

use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

/// Longest header that is believed.
const HEADER: usize = 64 * 1024;

static SMALL: LazyLock<Vec<u8>> = LazyLock::new(|| answer(100));
static BIG: LazyLock<Vec<u8>> = LazyLock::new(|| answer(1024 * 1024));

/// One connection.
#[derive(Default)]
pub struct Conversation {
    /// Of a header, or of a frame, that is not whole yet.
    heard: Vec<u8>,
    stage: Stage,
    answer: Answer,
    /// How much of the answer is out.
    said: usize,
    closes: bool,
}

/// Whether the connection is needed any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    GoesOn,
    Over,
}

#[derive(Default)]
enum Stage {
    #[default]
    Header,
    /// So much of a request's body is to come.
    Body(u64),
    WebSocket,
}

#[derive(Default)]
enum Answer {
    #[default]
    None,
    Ready(&'static [u8]),
    Made(Vec<u8>),
}

impl Conversation {
    /// What the other side says. One request at a time: what comes with it is its body.
    pub fn hears(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self.stage {
            Stage::Body(left) => {
                self.body(left, bytes.len() as u64);
                Ok(())
            }
            // The common case, without a copy.
            Stage::Header if self.heard.is_empty() => {
                if self.header(bytes).is_none() {
                    self.heard.extend_from_slice(bytes);
                }
                Ok(())
            }
            Stage::Header => {
                let mut heard = std::mem::take(&mut self.heard);
                heard.extend_from_slice(bytes);
                if self.header(&heard).is_none() {
                    self.heard = heard;
                }
                match self.heard.len() > HEADER {
                    true => Err(ErrorKind::InvalidData.into()),
                    false => Ok(()),
                }
            }
            Stage::WebSocket => {
                self.heard.extend_from_slice(bytes);
                self.frames();
                Ok(())
            }
        }
    }

    /// What is still to be sent.
    pub fn says(&self) -> &[u8] {
        let all = match &self.answer {
            Answer::None => &[][..],
            Answer::Ready(bytes) => bytes,
            Answer::Made(bytes) => bytes,
        };
        all.get(self.said..).unwrap_or_default()
    }

    /// So much of it has been sent.
    pub fn said(&mut self, count: usize) {
        self.said += count;
        if self.says().is_empty() {
            self.answer = Answer::None;
            self.said = 0;
        }
    }

    /// To be asked when all is sent.
    pub fn turn(&self) -> Turn {
        match (self.closes, &self.stage) {
            (true, Stage::Header) => Turn::Over,
            _ => Turn::GoesOn,
        }
    }

    /// A request's header, and what came of its body. None: it is not whole.
    fn header(&mut self, bytes: &[u8]) -> Option<()> {
        let end = bytes.windows(4).position(|at| at == b"\r\n\r\n")? + 4;
        let header = bytes.get(..end)?;
        let rest = bytes.len() - end;
        let mut length = 0;
        let mut key = None;
        self.closes = false;
        for line in header.split(|byte| *byte == b'\n') {
            match line.first() {
                Some(b'C' | b'c') => {
                    if let Some(value) = value(line, "content-length") {
                        length = value.parse().ok()?;
                    }
                    if let Some(value) = value(line, "connection") {
                        self.closes = value.eq_ignore_ascii_case("close");
                    }
                }
                Some(b'S' | b's') => key = key.or(value(line, "sec-websocket-key")),
                _ => {}
            }
        }
        if let Some(key) = key {
            let accept = derive_accept_key(key.as_bytes());
            self.answer = Answer::Made(
                format!(
                    "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\n\
                     connection: upgrade\r\nsec-websocket-accept: {accept}\r\n\r\n"
                )
                .into_bytes(),
            );
            self.stage = Stage::WebSocket;
            self.closes = false;
        } else if length > 0 {
            self.body(length, rest as u64);
        } else {
            let is_big = header.starts_with(b"GET /big");
            self.answer = Answer::Ready(if is_big { &BIG } else { &SMALL });
        }
        Some(())
    }

    fn body(&mut self, left: u64, came: u64) {
        self.stage = match left.saturating_sub(came) {
            0 => {
                self.answer = Answer::Ready(&SMALL);
                Stage::Header
            }
            left => Stage::Body(left),
        };
    }

    /// Sends back every whole frame, unmasked as a server's are. Short ones only: the benches have no
    /// others.
    fn frames(&mut self) {
        let mut made = match std::mem::take(&mut self.answer) {
            Answer::Made(made) => made,
            _ => Vec::new(),
        };
        let mut at = 0;
        while let Some([first, second, mask @ ..]) = self.heard.get(at..at + 6) {
            let length = usize::from(second & 0x7f);
            let Some(payload) = self.heard.get(at + 6..at + 6 + length) else {
                break;
            };
            made.extend_from_slice(&[*first, second & 0x7f]);
            let unmasked = payload.iter().zip(mask.iter().cycle());
            made.extend(unmasked.map(|(byte, mask)| byte ^ mask));
            at += 6 + length;
        }
        self.heard.drain(..at);
        self.answer = Answer::Made(made);
    }
}

/// The value of a header line of this name.
fn value<'a>(line: &'a [u8], name: &str) -> Option<&'a str> {
    let (start, rest) = line.split_at_checked(name.len())?;
    let value = rest.strip_prefix(b":")?;
    if !start.eq_ignore_ascii_case(name.as_bytes()) {
        return None;
    }
    Some(std::str::from_utf8(value).ok()?.trim())
}

fn answer(length: usize) -> Vec<u8> {
    let mut bytes =
        format!("HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: {length}\r\n\r\n")
            .into_bytes();
    bytes.resize(bytes.len() + length, b'x');
    bytes
}
