//! The command line's end of the control socket: finds the daemon, sends a request, reads events.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::StreamExt as _;
use reqwest::{Body, Method, Response};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::api::{Refusal, Status};
use crate::chunks;
use crate::cli::Places;
use crate::fault::Fault;
use crate::places::{self, Whereabouts};

/// What the command line calls itself, before its version.
pub const AGENT: &str = "hotctl/";

/// How long who follows something waits for the next daemon.
const NEXT: Duration = Duration::from_secs(10);

/// The header by which a daemon says that another has taken its place.
pub const REPLACED: &str = "x-hotctl-replaced";

/// A connection to a daemon.
#[derive(Debug)]
pub struct Client {
    http: reqwest::Client,
    socket: PathBuf,
}

impl Client {
    /// Find the daemon: where `--socket` says, else the user's own, else the system's.
    ///
    /// # Errors
    /// If nobody answers; the text names every place that was tried.
    pub async fn find(places: &Places) -> Result<Self, Fault> {
        let tried = match &places.socket {
            Some(socket) => vec![socket.clone()],
            None => Whereabouts::here().sockets(),
        };
        let own = rustix::process::geteuid().as_raw();
        let mut causes = Vec::new();
        for socket in &tried {
            places::check_socket_path(socket)?;
            match tokio::net::UnixStream::connect(socket).await {
                // A socket of somebody else, in a place that anybody could have taken, would be
                // given what we upload.
                Ok(stream) => match stream.peer_cred().map(|peer| peer.uid()) {
                    Ok(uid) if uid == own || uid == 0 || own == 0 => return Self::at(socket),
                    // A daemon of another user, in a place where only that one, or root, could put
                    // its socket: a group may be let in there.
                    Ok(uid) if places::is_kept_by(socket, uid) => return Self::at(socket),
                    Ok(uid) => causes.push(format!(
                        "{}: belongs to user {uid}, in a place that others can write to",
                        socket.display()
                    )),
                    Err(cause) => causes.push(format!("{}: {cause}", socket.display())),
                },
                Err(cause) => causes.push(format!("{}: {}", socket.display(), brief(&cause))),
            }
        }
        let denied = causes
            .iter()
            .any(|cause| cause.ends_with("permission denied"));
        Err(
            Fault::unreachable(format!("no daemon answers at {}", causes.join(", nor at "))).hint(
                if denied {
                    "run the command as the user that runs the daemon, or as root"
                } else {
                    "start one with `hotctl serve`, or name its socket with --socket"
                },
            ),
        )
    }

    fn at(socket: &Path) -> Result<Self, Fault> {
        let http = reqwest::Client::builder()
            .unix_socket(socket)
            .user_agent(format!("{AGENT}{}", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|cause| Fault::failed(format!("http client: {cause}")))?;
        Ok(Self {
            http,
            socket: socket.to_owned(),
        })
    }

    /// The next daemon at the same socket, when this one has ended or was replaced; none within 10 s.
    pub async fn next_daemon(&self) -> Option<Self> {
        let answers = async {
            loop {
                // A daemon that is being replaced accepts on, but only to say so.
                if let Ok(next) = Self::at(&self.socket)
                    && next.get::<Status>("/v1/status").await.is_ok()
                {
                    return next;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(NEXT, answers).await.ok()
    }

    /// Ask for a value.
    ///
    /// # Errors
    /// If the daemon refuses, or does not answer.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Fault> {
        let answer = self.send(self.request(Method::GET, path)).await?;
        answer.json().await.map_err(|cause| self.lost(&cause))
    }

    /// Ask for a stream of bytes.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub async fn stream(&self, path: &str) -> Result<Response, Fault> {
        self.send(self.request(Method::GET, path)).await
    }

    /// Give an order; its events are read from the answer.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub async fn order(
        &self,
        method: Method,
        path: &str,
        body: &impl Serialize,
    ) -> Result<Response, Fault> {
        self.send(self.request(method, path).json(body)).await
    }

    /// Send what `reader` gives, and read the answer.
    ///
    /// # Errors
    /// As [`Client::get`]; and what reading failed with.
    pub async fn upload<T: DeserializeOwned>(
        &self,
        path: &str,
        reader: impl Read + Send + 'static,
    ) -> Result<T, Fault> {
        let (reading, body) = chunks::of(reader);
        let request = self
            .request(Method::PUT, path)
            .body(Body::wrap_stream(body));
        let answer = self.send(request).await;
        // What the reader found wrong is the better reason.
        if let Ok(Err(cause)) = reading.await {
            return Err(Fault::failed(cause.to_string()));
        }
        answer?.json().await.map_err(|cause| self.lost(&cause))
    }

    fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        // The host is not looked up: the socket is where it goes.
        self.http.request(method, format!("http://hotctl{path}"))
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Result<Response, Fault> {
        let again = request.try_clone();
        let mut answer = request.send().await.map_err(|cause| self.lost(&cause))?;
        if answer.headers().contains_key(REPLACED)
            && let Some(again) = again
        {
            // Nothing was done of it. Closed, so that the next one reaches whoever accepts now.
            drop(answer);
            let other = Self::at(&self.socket)?.http;
            let again = again.build().map_err(|cause| self.lost(&cause))?;
            answer = other
                .execute(again)
                .await
                .map_err(|cause| self.lost(&cause))?;
        }
        let status = answer.status();
        if status.is_success() {
            return Ok(answer);
        }
        let replaced = answer.headers().contains_key(REPLACED);
        let refusal = answer.json::<Refusal>().await.unwrap_or_else(|_| Refusal {
            error: format!("the daemon answers {status}"),
            hint: None,
        });
        let fault = match status.as_u16() {
            400 | 403 | 404 => Fault::config(refusal.error),
            // An upload, which cannot be sent twice: whoever asks again reaches the other one.
            _ if replaced => Fault::unreachable(refusal.error),
            _ => Fault::failed(refusal.error),
        };
        Err(Fault {
            hint: refusal.hint,
            ..fault
        })
    }

    /// The connection broke in the middle.
    pub fn lost(&self, cause: &reqwest::Error) -> Fault {
        let mut last: &dyn std::error::Error = cause;
        while let Some(deeper) = last.source() {
            last = deeper;
        }
        Fault::unreachable(format!(
            "the connection to the daemon at {} broke: {last}",
            self.socket.display()
        ))
        .hint("`hotctl status` shows what became of it")
    }
}

/// The lines of a streamed answer, as they come.
pub struct Lines {
    answer: Response,
    unread: Vec<u8>,
}

impl Lines {
    /// Of `answer`.
    pub fn of(answer: Response) -> Self {
        Self {
            answer,
            unread: Vec::new(),
        }
    }

    /// The next line, without its end; none when the answer is over. May be dropped and called
    /// again: nothing is lost.
    ///
    /// # Errors
    /// If the connection broke.
    pub async fn next(&mut self) -> Result<Option<String>, reqwest::Error> {
        loop {
            if let Some(end) = self.unread.iter().position(|&b| b == b'\n') {
                let line: Vec<u8> = self.unread.drain(..=end).take(end).collect();
                return Ok(Some(String::from_utf8_lossy(&line).into_owned()));
            }
            match self.answer.chunk().await? {
                Some(chunk) => self.unread.extend_from_slice(&chunk),
                None => return Ok(None),
            }
        }
    }
}

fn brief(cause: &std::io::Error) -> String {
    match cause.kind() {
        std::io::ErrorKind::NotFound => "no socket there".to_owned(),
        std::io::ErrorKind::ConnectionRefused => "nobody listens".to_owned(),
        std::io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        _ => cause.to_string(),
    }
}

/// Print a stream as it comes.
///
/// # Errors
/// If the connection or standard output broke.
pub async fn copy_to_stdout(client: &Client, answer: Response) -> Result<(), Fault> {
    use tokio::io::AsyncWriteExt as _;
    let mut out = tokio::io::stdout();
    let mut bytes = answer.bytes_stream();
    while let Some(chunk) = bytes.next().await {
        let chunk = chunk.map_err(|cause| client.lost(&cause))?;
        let written = match out.write_all(&chunk).await {
            Ok(()) => out.flush().await,
            broken => broken,
        };
        match written {
            Ok(()) => {}
            // `hotctl logs | head` is no failure.
            Err(cause) if cause.kind() == std::io::ErrorKind::BrokenPipe => return Ok(()),
            Err(cause) => return Err(Fault::failed(format!("standard output: {cause}"))),
        }
    }
    Ok(())
}
