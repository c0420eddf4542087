//! Asking one process whether it is healthy: by one connection, one small request and one bounded
//! answer, by what it says of itself, or by a command. [`prove`] asks until it is.

use std::io::{self, ErrorKind};
use std::time::{Duration, Instant};

use hotctl_config::Address;
use hotctl_config::file::{Health, HealthKind};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout_at;

use crate::check::check;
use crate::dial::{self, Stream, dial};
use crate::ports::Listener;
use crate::process::{Process, Spec};

pub use crate::miss::{Cause, Miss, Refusal, Stage};
pub use crate::prove::{Healthy, Unhealthy, UnhealthyKind, prove};

/// How much of an answer is read.
const ANSWER: usize = 64 * 1024;
/// What a body in chunks ends with, and with it the room for a few bytes more.
const END: usize = 16;
/// How long the rest of a body that nobody needs is read, so that the app does not see its
/// connection broken.
const MANNERS: Duration = Duration::from_millis(20);
/// How much of a body is quoted, in characters.
const QUOTED: usize = 200;
/// Headers that say something about an answer that was not wanted.
const TELLING: [&str; 5] = [
    "location",
    "content-type",
    "retry-after",
    "www-authenticate",
    "server",
];

/// A probe that succeeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    /// Its status; `None` if nothing was requested.
    pub status: Option<u16>,
    /// From the beginning until the connection stood; 0 if there was none.
    pub connected: Duration,
    /// From the beginning until it was seen to be good.
    pub took: Duration,
}

/// Probe a process once, within `health.timeout`. `spec` is what it was started with. One that is to
/// say itself that it is ready is healthy from then on as long as it lives.
///
/// # Errors
/// What came instead of a healthy answer.
pub async fn probe(
    process: &Process,
    address: &Address,
    spec: &Spec,
    health: &Health,
) -> Result<Answer, Miss> {
    let (result, _) = attempt(process, address, spec, health, health.timeout).await;
    result
}

/// Probe once within a time, and tell when the connection stood, whatever came of it.
pub(crate) async fn attempt(
    process: &Process,
    address: &Address,
    spec: &Spec,
    health: &Health,
    within: Duration,
) -> (Result<Answer, Miss>, Option<Duration>) {
    let began = Instant::now();
    let result = match health.kind {
        HealthKind::Http | HealthKind::Tcp => {
            let (result, connected) = ask(address, health, within).await;
            return match (&spec.listener, &result) {
                (Some(listener), Ok(_)) if health.kind == HealthKind::Tcp => {
                    let left = within.saturating_sub(began.elapsed());
                    let taken = taken(listener, left).await;
                    let missed = |()| Miss {
                        request: request(address, health),
                        cause: Cause::NotAccepted(within),
                    };
                    (taken.map_err(missed).and(result), connected)
                }
                _ => (result, connected),
            };
        }
        HealthKind::Notify => said(process),
        HealthKind::Process => lives(process, health),
        HealthKind::Command => check(&health.command, spec, within).await,
    };
    let result = match result {
        Ok(()) => Ok(Answer {
            status: None,
            connected: Duration::ZERO,
            took: began.elapsed(),
        }),
        Err(cause) => Err(Miss {
            request: request(address, health),
            cause,
        }),
    };
    (result, None)
}

/// Wait until an app has taken what waits in its socket: a connection to one that was there before
/// the app proves nothing.
async fn taken(listener: &Listener, within: Duration) -> Result<(), ()> {
    let began = Instant::now();
    let mut pause = Duration::from_millis(1);
    while listener.waits() {
        if began.elapsed() >= within {
            return Err(());
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(MANNERS);
    }
    Ok(())
}

/// Whether a process has said that it is ready, and lives.
fn said(process: &Process) -> Result<(), Cause> {
    match (process.exit(), process.notice()) {
        (Some(exit), _) => Err(Cause::Ended(exit)),
        (None, notice) if notice.ready => Ok(()),
        (None, notice) => Err(Cause::NotReady(notice.status)),
    }
}

/// Whether a process lives, and has for long enough.
fn lives(process: &Process, health: &Health) -> Result<(), Cause> {
    let up = process.exec_at().elapsed();
    match process.exit() {
        Some(exit) => Err(Cause::Ended(exit)),
        // The news of an end may come later than the end.
        None if up >= health.min_uptime && process.runs() => Ok(()),
        None => Err(Cause::TooYoung(health.min_uptime)),
    }
}

/// Request the path of `health` and read the whole answer, whatever it is; its status.
///
/// # Errors
/// If there is none within that time.
pub(crate) async fn fetch(
    address: &Address,
    health: &Health,
    within: Duration,
) -> Result<u16, Miss> {
    let mut asking = Asking::new(address, health, within);
    asking.fetch().await.map_err(|cause| Miss {
        request: request(address, health),
        cause,
    })
}

/// Ask an address by a connection.
async fn ask(
    address: &Address,
    health: &Health,
    within: Duration,
) -> (Result<Answer, Miss>, Option<Duration>) {
    let mut asking = Asking::new(address, health, within);
    let result = asking.ask().await.map_err(|cause| Miss {
        request: request(address, health),
        cause,
    });
    (result, asking.connected)
}

/// What is asked, in words.
pub(crate) fn request(address: &Address, health: &Health) -> String {
    match health.kind {
        HealthKind::Tcp => format!("connect {address}"),
        HealthKind::Http => {
            format!("{} {}", health.method, dial::target(address, &health.path))
        }
        HealthKind::Notify => "NOTIFY_SOCKET".into(),
        HealthKind::Process => "process".into(),
        HealthKind::Command => health.command.join(" "),
    }
}

struct Asking<'a> {
    address: &'a Address,
    health: &'a Health,
    began: Instant,
    within: Duration,
    connected: Option<Duration>,
    stage: Stage,
    got: Vec<u8>,
}

impl<'a> Asking<'a> {
    fn new(address: &'a Address, health: &'a Health, within: Duration) -> Self {
        Self {
            address,
            health,
            began: Instant::now(),
            within,
            connected: None,
            stage: Stage::Connect,
            // Reserved only when something comes.
            got: Vec::new(),
        }
    }

    async fn ask(&mut self) -> Result<Answer, Cause> {
        let mut stream = self.connect().await?;
        let connected = self.began.elapsed();
        self.connected = Some(connected);
        let answer = |began: Instant, status| Answer {
            status,
            connected,
            took: began.elapsed(),
        };
        if self.health.kind == HealthKind::Tcp {
            return Ok(answer(self.began, None));
        }
        let head = self.head(&mut stream).await?;
        if !self.health.status.contains(head.status) {
            self.rest(&mut stream, &head).await;
            return Err(Cause::Status(self.refusal(&head)));
        }
        self.stage = Stage::Body;
        if let Some(wanted) = &self.health.body {
            while !contains(self.body(&head), wanted) {
                if head.is_whole(&self.got) || self.read(&mut stream).await? == 0 {
                    return Err(Cause::Body {
                        wanted: wanted.clone(),
                        got: self.refusal(&head),
                    });
                }
            }
        }
        let answer = answer(self.began, Some(head.status));
        self.rest(&mut stream, &head).await;
        Ok(answer)
    }

    async fn fetch(&mut self) -> Result<u16, Cause> {
        let mut stream = self.connect().await?;
        let head = self.head(&mut stream).await?;
        self.stage = Stage::Body;
        let mut left = match head.body {
            Body::Sized(length) => length,
            Body::Chunked | Body::UntilClose => usize::MAX,
        };
        left = left.saturating_sub(self.body(&head).len());
        while left > 0 && !head.is_whole(&self.got) {
            // Only its end is looked at, and it may be longer than is kept.
            let surplus = self.body(&head).len().saturating_sub(END);
            self.got.drain(head.length..head.length + surplus);
            match self.read(&mut stream).await? {
                0 => break,
                length => left = left.saturating_sub(length),
            }
        }
        Ok(head.status)
    }

    async fn connect(&mut self) -> Result<Box<dyn Stream>, Cause> {
        let address = self.address;
        self.in_time(dial(address)).await?.map_err(broken)
    }

    /// Send the request, and read until the header of the answer is there.
    async fn head(&mut self, stream: &mut Box<dyn Stream>) -> Result<Head, Cause> {
        self.stage = Stage::Header;
        let request = self.request();
        self.in_time(stream.write_all(request.as_bytes()))
            .await?
            .map_err(broken)?;
        loop {
            match head(&self.got)? {
                // 100 and 103 announce the answer; 101 is one.
                Some(head) if head.status < 200 && head.status != 101 => {
                    self.got.drain(..head.length);
                }
                Some(head) => return Ok(head),
                None if self.got.len() >= ANSWER => return Err(Cause::TooLong),
                None => {
                    if self.read(stream).await? == 0 {
                        return Err(Cause::Closed(self.got.len()));
                    }
                }
            }
        }
    }

    fn request(&self) -> String {
        let Health { method, path, .. } = self.health;
        let host = match &self.health.host {
            Some(host) => host.clone(),
            None => dial::host(self.address),
        };
        format!(
            "{method} {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: hotctl-probe\r\nAccept: */*\r\nConnection: close\r\n\r\n"
        )
    }

    /// Read some more; 0 at the end, which is also where no more is wanted.
    async fn read(&mut self, stream: &mut Box<dyn Stream>) -> Result<usize, Cause> {
        let room = ANSWER.saturating_sub(self.got.len());
        if room == 0 {
            return Ok(0);
        }
        let deadline = self.deadline();
        self.got.reserve(room.min(4096));
        let reading = (&mut *stream).take(room.try_into().unwrap_or(u64::MAX));
        let mut reading = std::pin::pin!(reading);
        match timeout_at(deadline, reading.read_buf(&mut self.got)).await {
            Ok(Ok(length)) => Ok(length),
            // An app that closes with our bytes unread; what it had sent before is with us.
            Ok(Err(e)) if e.kind() == ErrorKind::ConnectionReset && !self.got.is_empty() => Ok(0),
            Ok(Err(e)) => Err(broken(e)),
            Err(_) => Err(self.late()),
        }
    }

    /// Read the rest of the answer as far as it comes at once: to quote it, and out of manners.
    async fn rest(&mut self, stream: &mut Box<dyn Stream>, head: &Head) {
        self.within = (self.began.elapsed() + MANNERS).min(self.within);
        while !head.is_whole(&self.got) && matches!(self.read(stream).await, Ok(1..)) {}
    }

    fn body(&self, head: &Head) -> &[u8] {
        self.got.get(head.length..).unwrap_or_default()
    }

    fn refusal(&self, head: &Head) -> Refusal {
        let text = String::from_utf8_lossy(self.body(head));
        let mut body: String = text.trim().chars().take(QUOTED).collect();
        if body.len() < text.trim().len() {
            body.push('…');
        }
        Refusal {
            status: head.status,
            want: self.health.status.to_string(),
            headers: head.telling.clone(),
            body,
        }
    }

    async fn in_time<T>(&self, work: impl Future<Output = T>) -> Result<T, Cause> {
        timeout_at(self.deadline(), work)
            .await
            .map_err(|_| self.late())
    }

    fn deadline(&self) -> tokio::time::Instant {
        let end = self.began.checked_add(self.within);
        // More than anybody configures.
        end.unwrap_or_else(|| self.began + Duration::from_secs(86_400))
            .into()
    }

    fn late(&self) -> Cause {
        Cause::Timeout {
            after: self.within,
            stage: self.stage,
        }
    }
}

fn broken(cause: io::Error) -> Cause {
    match cause.kind() {
        ErrorKind::ConnectionRefused => Cause::Refused,
        ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => {
            Cause::Broken("connection reset without an answer".into())
        }
        _ => Cause::Broken(cause.to_string()),
    }
}

/// The head of an answer.
#[derive(Debug)]
struct Head {
    status: u16,
    /// How many bytes it takes, the empty line included.
    length: usize,
    /// How long the body is, if the head says so.
    body: Body,
    telling: Vec<(String, String)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Body {
    Sized(usize),
    Chunked,
    UntilClose,
}

impl Head {
    fn is_whole(&self, got: &[u8]) -> bool {
        let body = got.get(self.length..).unwrap_or_default();
        match self.body {
            Body::Sized(length) => body.len() >= length,
            Body::Chunked => body.ends_with(b"0\r\n\r\n"),
            Body::UntilClose => false,
        }
    }
}

/// The head that these bytes begin with; `None` as long as it is not whole.
fn head(bytes: &[u8]) -> Result<Option<Head>, Cause> {
    let not_http = || {
        let text = String::from_utf8_lossy(bytes);
        Cause::NotHttp(text.chars().take(60).collect())
    };
    let begin = b"HTTP/1.";
    if !bytes.iter().zip(begin).all(|(is, want)| is == want) {
        return Err(not_http());
    }
    let Some(end) = end_of_head(bytes) else {
        return Ok(None);
    };
    let text = String::from_utf8_lossy(bytes.get(..end).unwrap_or_default());
    let mut lines = text.lines();
    let status = lines.next().and_then(|line| line.split(' ').nth(1));
    let status = status
        .filter(|code| code.len() == 3)
        .and_then(|code| code.parse().ok())
        .filter(|code| *code >= 100)
        .ok_or_else(not_http)?;
    let mut head = Head {
        status,
        length: end,
        body: match status {
            ..200 | 204 | 304 => Body::Sized(0),
            _ => Body::UntilClose,
        },
        telling: Vec::new(),
    };
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        let (name, value) = (name.trim().to_ascii_lowercase(), value.trim());
        match name.as_str() {
            "content-length" if head.body == Body::UntilClose => {
                head.body = value.parse().map_or(Body::UntilClose, Body::Sized);
            }
            "transfer-encoding" if value.eq_ignore_ascii_case("chunked") => {
                head.body = Body::Chunked;
            }
            known if TELLING.contains(&known) => {
                let value = value.chars().take(QUOTED).collect();
                head.telling.push((name, value));
            }
            _ => {}
        }
    }
    Ok(Some(head))
}

/// Where the empty line ends, written with or without `\r`.
fn end_of_head(bytes: &[u8]) -> Option<usize> {
    bytes.iter().enumerate().find_map(|(at, byte)| {
        let rest = bytes.get(at + 1..)?;
        match (byte, rest) {
            (b'\n', [b'\n', ..]) => Some(at + 2),
            (b'\n', [b'\r', b'\n', ..]) => Some(at + 3),
            _ => None,
        }
    })
}

fn contains(text: &[u8], wanted: &str) -> bool {
    let wanted = wanted.as_bytes();
    wanted.is_empty() || text.windows(wanted.len()).any(|window| window == wanted)
}

#[cfg(test)]
#[path = "probe_tests.rs"]
mod tests;
