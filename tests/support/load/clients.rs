//! One client of each class: what it sends, and what must come back.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::super::http::{Answer, Client, Head, Trouble};
use super::super::outcomes::Timed;
use super::super::websocket::{NotOpen, WebSocket};
use super::{Class, Failed, Failure, Shared, Tally, Times};

/// How long the slow ones take.
const LONG: Duration = Duration::from_secs(2);
/// Time between two events, or two messages.
const BEAT: Duration = Duration::from_millis(50);
/// How many of them make `LONG`.
const BEATS: u64 = 40;
/// Bodies of posts.
const SIZES: [usize; 5] = [1, 100, 4096, 20_000, 64 * 1024];
const UPLOAD: usize = 2 * 1024 * 1024;
const UPLOAD_PIECE: usize = 64 * 1024;
/// 32 pieces: about half a second.
const UPLOAD_PAUSE: Duration = Duration::from_millis(15);

/// One client's life.
struct Worker {
    class: Class,
    shared: Arc<Shared>,
    /// Counts its requests, across clients.
    turn: u64,
}

/// Ask again and again until the load is over.
pub async fn run(class: Class, number: u64, shared: Arc<Shared>) -> Tally {
    let mut tally = Tally::default();
    let mut worker = Worker {
        class,
        shared,
        turn: number << 32,
    };
    let shared = Arc::clone(&worker.shared);
    let every = shared.plan.every;
    let mut kept = None;
    // Spread over the first interval, so that they do not all come at once.
    let mut due = Instant::now() + every.mul_f64((number % 16) as f64 / 16.0);
    while !shared.is_over() {
        let now = Instant::now();
        let begun = if now < due {
            tokio::time::sleep_until(due.into()).await;
            Instant::now()
        } else if every.is_zero() {
            now
        } else {
            due
        };
        due = begun.max(due) + every;

        let patience = shared.plan.patience + LONG;
        let exchange = worker.exchange(kept.take(), &mut tally);
        let outcome = tokio::time::timeout(patience, exchange).await;
        let outcome = outcome.unwrap_or_else(|_| {
            Err(Failed(
                Failure::Timeout,
                format!("no whole answer within {patience:?}"),
            ))
        });
        shared.answered.fetch_add(1, Ordering::Relaxed);
        match outcome {
            Ok(client) => {
                kept = client;
                tally.ok += 1;
                if shared.plan.times == Times::Kept {
                    tally.times.push(Timed {
                        at: micros(begun.saturating_duration_since(shared.begun)),
                        took: micros(begun.elapsed()),
                    });
                }
            }
            Err(Failed(failure, about)) => {
                let at = shared.begun.elapsed();
                tally.fail(Failed(failure, format!("at {at:.3?}: {about}")));
                // What fails at once would otherwise fail a million times.
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }
    tally
}

fn micros(time: Duration) -> u32 {
    u32::try_from(time.as_micros()).unwrap_or(u32::MAX)
}

impl Worker {
    /// One request and its answer. The connection comes back if it goes on.
    async fn exchange(
        &mut self,
        kept: Option<Client>,
        tally: &mut Tally,
    ) -> Result<Option<Client>, Failed> {
        self.turn += 1;
        let said = self.shared.said();
        let mut reused = kept;
        if reused.as_mut().is_some_and(Client::is_over) {
            reused = None;
            tally.closed_idle += 1;
        }
        let mut client = match reused {
            Some(client) => client,
            None => Client::connect(self.shared.plan.to).await?,
        };
        match self.class {
            Class::KeepAlive => self.home(&mut client, said).await?,
            Class::NewConnection => {
                self.home(&mut client, said).await?;
                client.closed().await?;
                return Ok(None);
            }
            Class::Post => self.post(&mut client, said).await?,
            Class::Slow => self.slow(&mut client, said).await?,
            Class::EventStream => self.events(&mut client, said).await?,
            Class::Upload => self.upload(&mut client, said).await?,
            Class::WebSocket => {
                self.messages(client, said).await?;
                return Ok(None);
            }
        }
        if client.goes_on() {
            return Ok(Some(client));
        }
        tally.announced += 1;
        Ok(None)
    }

    async fn home(&self, client: &mut Client, said: usize) -> Result<(), Failed> {
        let more = match self.class {
            Class::NewConnection => "connection: close\r\n",
            _ => "",
        };
        client.send(self.request("GET / ", more).as_bytes()).await?;
        let head = client.head().await?;
        let body = client.body().await?;
        if head.status != 200 {
            return Err(unexpected(&head, &body));
        }
        // An app that is not the sample tells its version in the body alone.
        let told = String::from_utf8_lossy(&body).trim_end().to_string();
        let version = head.header("x-version").unwrap_or(&told).to_string();
        self.shared.check(&version, said)?;
        expect_body(&Answer { head, body }, format!("{version}\n").as_bytes())
    }

    async fn slow(&self, client: &mut Client, said: usize) -> Result<(), Failed> {
        let target = format!("GET /slow?ms={} ", LONG.as_millis());
        client.send(self.request(&target, "").as_bytes()).await?;
        let answer = self.answer(client, said).await?;
        expect_body(&answer, b"slow\n")
    }

    async fn post(&self, client: &mut Client, said: usize) -> Result<(), Failed> {
        let body = noise(SIZES[self.turn as usize % SIZES.len()], self.turn);
        let sent = if self.turn.is_multiple_of(2) {
            let more = format!("content-length: {}\r\n", body.len());
            let request = self.request("POST /echo ", &more);
            client.send(&[request.as_bytes(), &body].concat()).await
        } else {
            let request = self.request("POST /echo ", "transfer-encoding: chunked\r\n");
            let mut bytes = request.into_bytes();
            for piece in body.chunks(10_000) {
                bytes.extend_from_slice(&chunk(piece));
            }
            bytes.extend_from_slice(&chunk(b""));
            client.send(&bytes).await
        };
        let answer = self.after_sending(sent, client, said).await?;
        expect_body(&answer, &body)
    }

    async fn upload(&self, client: &mut Client, said: usize) -> Result<(), Failed> {
        let body = noise(UPLOAD, self.turn);
        let request = self.request("POST /digest ", &format!("content-length: {UPLOAD}\r\n"));
        let mut sent = client.send(request.as_bytes()).await;
        for piece in body.chunks(UPLOAD_PIECE) {
            if sent.is_err() {
                break;
            }
            sent = client.send(piece).await;
            // A slow client: so that uploads are under way whenever something happens.
            tokio::time::sleep(UPLOAD_PAUSE).await;
        }
        let answer = self.after_sending(sent, client, said).await?;
        let expected = format!("{UPLOAD} {}\n", blake3::hash(&body).to_hex());
        expect_body(&answer, expected.as_bytes())
    }

    async fn events(&self, client: &mut Client, said: usize) -> Result<(), Failed> {
        let target = format!("GET /sse?every={}&count={BEATS} ", BEAT.as_millis());
        client
            .send(
                self.request(&target, "accept: text/event-stream\r\n")
                    .as_bytes(),
            )
            .await?;
        let head = client.head().await?;
        self.judge(&head, &Bytes::new(), said)?;
        let version = head.version();
        let expected: String = (0..BEATS)
            .map(|id| format!("id: {id}\ndata: {version}\n\n"))
            .collect();
        let mut seen = 0;
        while let Some(piece) = client.piece().await? {
            let rest = expected.as_bytes().get(seen..).unwrap_or_default();
            if !rest.starts_with(&piece) {
                let about = format!("after {seen} bytes of events: {piece:?}");
                return Err(Failed(Failure::WrongBody, about));
            }
            seen += piece.len();
        }
        if seen < expected.len() {
            let about = format!("the stream of {version} ended after {seen} bytes of events");
            return Err(Failed(Failure::ClosedEarly, about));
        }
        Ok(())
    }

    async fn messages(&self, client: Client, said: usize) -> Result<(), Failed> {
        let mut socket = match WebSocket::open(client, &self.shared.plan.host).await {
            Ok(socket) => socket,
            Err(NotOpen::Failed(failed)) => return Err(failed),
            Err(NotOpen::Refused(head, mut client)) => {
                return Err(unexpected(&head, &client.body().await.unwrap_or_default()));
            }
        };
        self.shared.check(&socket.version, said)?;
        let mut beat = tokio::time::interval(BEAT);
        for number in 0..BEATS {
            beat.tick().await;
            socket.echo(&format!("message {number}")).await?;
        }
        // What was said has been answered; the farewell is not part of it.
        socket.close().await;
        Ok(())
    }

    fn request(&self, start: &str, more: &str) -> String {
        format!(
            "{start}HTTP/1.1\r\nhost: {}\r\n{more}\r\n",
            self.shared.plan.host
        )
    }

    /// Read a whole answer and see that it is one of a release that may answer.
    async fn answer(&self, client: &mut Client, said: usize) -> Result<Answer, Failed> {
        let head = client.head().await?;
        let body = client.body().await?;
        self.judge(&head, &body, said)?;
        Ok(Answer { head, body })
    }

    /// The same after a request with a body. Who cannot be sent the rest of a body may have said why.
    async fn after_sending(
        &self,
        sent: Result<(), Trouble>,
        client: &mut Client,
        said: usize,
    ) -> Result<Answer, Failed> {
        let answer = self.answer(client, said).await;
        match (sent, answer) {
            (Ok(()), answer) => answer,
            (Err(_), Err(failed @ Failed(Failure::Status, _))) => Err(failed),
            (Err(trouble), _) => Err(trouble.into()),
        }
    }

    fn judge(&self, head: &Head, body: &Bytes, said: usize) -> Result<(), Failed> {
        match head.status {
            200 => self.shared.check(head.version(), said),
            _ => Err(unexpected(head, body)),
        }
    }
}

fn unexpected(head: &Head, body: &Bytes) -> Failed {
    let reason = head.header("x-hotctl-error").unwrap_or("none");
    let body = String::from_utf8_lossy(&body[..body.len().min(300)]).into_owned();
    let about = format!(
        "status {}, x-hotctl-error: {reason}, version {:?}: {body}",
        head.status,
        head.version()
    );
    Failed(Failure::Status, about)
}

fn expect_body(answer: &Answer, expected: &[u8]) -> Result<(), Failed> {
    if answer.body == expected {
        return Ok(());
    }
    let same = answer
        .body
        .iter()
        .zip(expected)
        .take_while(|(a, b)| a == b)
        .count();
    let about = format!(
        "{} bytes from {:?}, expected {}, the same up to byte {same}",
        answer.body.len(),
        answer.head.version(),
        expected.len()
    );
    Err(Failed(Failure::WrongBody, about))
}

fn chunk(bytes: &[u8]) -> Vec<u8> {
    let mut chunk = format!("{:x}\r\n", bytes.len()).into_bytes();
    chunk.extend_from_slice(bytes);
    chunk.extend_from_slice(b"\r\n");
    chunk
}

/// Bytes that differ from one request to the next.
fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; length];
    let mut hasher = blake3::Hasher::new();
    hasher.update(&seed.to_le_bytes());
    hasher.finalize_xof().fill(&mut bytes);
    bytes
}
