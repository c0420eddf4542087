//! A WebSocket by the same client: the handshake by hand, then frames.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

use super::http::{Client, Head};
use super::outcomes::{Failed, Failure};

const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

/// A WebSocket that is open.
pub struct WebSocket {
    stream: WebSocketStream<TcpStream>,
    /// Which version of the sample app is at the other end.
    pub version: String,
}

/// How the other side ended a WebSocket.
#[derive(Debug)]
pub struct Farewell {
    pub code: u16,
    pub reason: String,
    /// Messages that were answered before.
    pub answered: u64,
    /// When it came.
    pub at: Instant,
}

/// Why no WebSocket was opened.
pub enum NotOpen {
    /// There was no whole answer.
    Failed(Failed),
    /// There was another one.
    Refused(Head, Client),
}

impl WebSocket {
    /// Open `/ws` on a connection that is ready for a request.
    pub async fn open(mut client: Client, host: &str) -> Result<Self, NotOpen> {
        let request = format!(
            "GET /ws HTTP/1.1\r\nhost: {host}\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
             sec-websocket-version: 13\r\nsec-websocket-key: {KEY}\r\n\r\n"
        );
        client.send(request.as_bytes()).await?;
        let head = client.any_head().await?;
        let accepted = head.header("sec-websocket-accept");
        if head.status != 101 || accepted != Some(&derive_accept_key(KEY.as_bytes())) {
            return Err(NotOpen::Refused(head, client));
        }
        let (stream, read) = client.into_stream();
        let stream =
            WebSocketStream::from_partially_read(stream, read.to_vec(), Role::Client, None).await;
        Ok(Self {
            stream,
            version: head.version().to_string(),
        })
    }

    /// Open `/ws` on a connection of its own; panics if it does not open.
    pub async fn connect(to: SocketAddr) -> Self {
        let client = Client::connect(to).await.expect("a connection");
        match Self::open(client, "test").await {
            Ok(socket) => socket,
            Err(NotOpen::Failed(failed)) => panic!("no WebSocket: {failed:?}"),
            Err(NotOpen::Refused(head, _)) => panic!("no WebSocket: {head:?}"),
        }
    }

    /// Send a message and see that the same comes back.
    pub async fn echo(&mut self, text: &str) -> Result<(), Failed> {
        let message = Message::text(text);
        let about = |what: String| format!("{text:?} to {}: {what}", self.version);
        let got = match self.stream.send(message.clone()).await {
            Ok(()) => self.stream.next().await,
            Err(e) => Some(Err(e)),
        };
        match got {
            Some(Ok(got)) if got == message => Ok(()),
            Some(Ok(got)) => Err(Failed(Failure::WrongBody, about(format!("{got:?}")))),
            Some(Err(e)) => Err(Failed(Failure::Reset, about(e.to_string()))),
            None => Err(Failed(Failure::ClosedEarly, about("the end".to_string()))),
        }
    }

    /// Talk, a message each `beat`, until the other side says farewell: its code and reason, and how
    /// many messages were answered. The farewell is answered, and the end of the connection awaited.
    pub async fn talk_until_farewell(mut self, beat: Duration) -> Result<Farewell, Failed> {
        let failed = |what: String| Failed(Failure::ClosedEarly, what);
        let mut answered = 0_u64;
        loop {
            let text = format!("message {answered}");
            self.stream
                .send(Message::text(text.as_str()))
                .await
                .map_err(|e| failed(format!("sending {text:?}: {e}")))?;
            match self.stream.next().await {
                Some(Ok(Message::Text(got))) if got.as_str() == text => answered += 1,
                Some(Ok(Message::Close(Some(frame)))) => {
                    let at = Instant::now();
                    // The library answers it while it is read on; then comes the end.
                    while let Some(Ok(_)) = self.stream.next().await {}
                    return Ok(Farewell {
                        code: frame.code.into(),
                        reason: frame.reason.as_str().to_owned(),
                        answered,
                        at,
                    });
                }
                other => return Err(failed(format!("after {answered} answers: {other:?}"))),
            }
            // The pace of a client; nothing is waited for.
            tokio::time::sleep(beat).await;
        }
    }

    /// Say farewell, and wait until the other side has.
    pub async fn close(mut self) {
        let _ = self.stream.close(None).await;
        while let Some(Ok(_)) = self.stream.next().await {}
    }
}

impl From<super::http::Trouble> for NotOpen {
    fn from(trouble: super::http::Trouble) -> Self {
        Self::Failed(trouble.into())
    }
}
