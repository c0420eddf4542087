//! HTTP/1.1 by hand, for both ends of a test: every byte is seen, nothing is retried.

use std::io;

use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

/// One end of a connection.
pub struct Wire(BufReader<Box<dyn Stream>>);

/// What a wire can run on.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// The head of a message.
#[derive(Clone, Debug, Default)]
pub struct Head {
    /// The first line.
    pub line: String,
    pub fields: Vec<(String, String)>,
}

impl Head {
    pub fn get(&self, name: &str) -> Option<&str> {
        let mut fields = self.fields.iter();
        let found = fields.find(|(key, _)| key.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    pub fn all(&self, name: &str) -> Vec<&str> {
        let fields = self.fields.iter();
        let found = fields.filter(|(key, _)| key.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str()).collect()
    }

    /// The second word of the first line: the path of a request, the status of an answer.
    pub fn second(&self) -> &str {
        self.line.split(' ').nth(1).unwrap_or_default()
    }

    pub fn status(&self) -> u16 {
        self.second().parse().unwrap_or(0)
    }

    pub fn closes(&self) -> bool {
        self.get("connection")
            .is_some_and(|value| value.eq_ignore_ascii_case("close"))
    }

    fn is_chunked(&self) -> bool {
        self.get("transfer-encoding").is_some()
    }

    fn length(&self) -> Option<usize> {
        self.get("content-length")?.parse().ok()
    }
}

/// An answer and its whole body.
#[derive(Clone, Debug)]
pub struct Answer {
    pub head: Head,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn status(&self) -> u16 {
        self.head.status()
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

impl Wire {
    pub fn new(stream: TcpStream) -> Self {
        stream.set_nodelay(true).unwrap();
        Self::on(stream)
    }

    pub fn on(stream: impl Stream + 'static) -> Self {
        Self(BufReader::new(Box::new(stream)))
    }

    /// Ends this side of the conversation.
    pub async fn shut(&mut self) -> io::Result<()> {
        self.0.get_mut().shutdown().await
    }

    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.0.get_mut().write_all(bytes.as_ref()).await
    }

    /// `None` where the other side closed before the first byte.
    pub async fn head(&mut self) -> io::Result<Option<Head>> {
        let mut head = Head::default();
        loop {
            let mut line = String::new();
            if self.0.read_line(&mut line).await? == 0 {
                return match head.line.is_empty() {
                    true => Ok(None),
                    false => Err(io::ErrorKind::UnexpectedEof.into()),
                };
            }
            let line = line.trim_end();
            if line.is_empty() {
                return Ok(Some(head));
            }
            match line.split_once(": ") {
                Some((name, value)) if !head.line.is_empty() => {
                    head.fields.push((name.into(), value.into()));
                }
                _ => head.line = line.into(),
            }
        }
    }

    /// The body that a head announces; `until_end`: where it announces none.
    pub async fn body(&mut self, head: &Head, until_end: bool) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        if head.is_chunked() {
            while let Some(chunk) = self.chunk().await? {
                body.extend(chunk);
            }
        } else if let Some(length) = head.length() {
            body.resize(length, 0);
            self.0.read_exact(&mut body).await?;
        } else if until_end {
            self.0.read_to_end(&mut body).await?;
        }
        Ok(body)
    }

    /// The next chunk; `None` for the last.
    pub async fn chunk(&mut self) -> io::Result<Option<Vec<u8>>> {
        let mut line = String::new();
        if self.0.read_line(&mut line).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let size = usize::from_str_radix(line.trim(), 16).map_err(io::Error::other)?;
        let mut chunk = vec![0; size + 2];
        self.0.read_exact(&mut chunk).await?;
        chunk.truncate(size);
        Ok((size > 0).then_some(chunk))
    }

    pub async fn exactly(&mut self, length: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; length];
        self.0.read_exact(&mut bytes).await?;
        Ok(bytes)
    }

    /// Everything up to the end.
    pub async fn rest(&mut self) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.0.read_to_end(&mut bytes).await?;
        Ok(bytes)
    }

    pub async fn answer(&mut self, to: &str) -> io::Result<Answer> {
        loop {
            let head = self.head().await?.ok_or(io::ErrorKind::UnexpectedEof)?;
            if (100..200).contains(&head.status()) && head.status() != 101 {
                continue;
            }
            let bodyless = to.starts_with("HEAD ") || [101, 204, 304].contains(&head.status());
            let body = match bodyless {
                true => Vec::new(),
                false => self.body(&head, true).await?,
            };
            return Ok(Answer { head, body });
        }
    }

    /// A request, as it stands, and its answer.
    pub async fn ask(&mut self, request: &str) -> io::Result<Answer> {
        self.send(request).await?;
        self.answer(request).await
    }
}

/// `GET` of a path.
pub fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n")
}

/// `POST` of a body.
pub fn post(path: &str, body: &str) -> String {
    let length = body.len();
    format!("POST {path} HTTP/1.1\r\nHost: test\r\nContent-Length: {length}\r\n\r\n{body}")
}
