//! The request by which one process is told another log level: made as the configuration says, and sent
//! straight to the process's own address. Knows no service.

use std::fmt::Write as _;
use std::time::Duration;

use hotctl_config::file::LevelChange;
use hotctl_config::{Address, show_duration};
use reqwest::redirect::Policy;
use reqwest::{Client, Method, Response};

/// What stands for the level.
const LEVEL: &str = "{level}";
/// How much of an answer that is not good is read, in bytes,
const READ: usize = 4096;
/// and how much of its first line is quoted, in characters.
const QUOTED: usize = 200;
/// The longest level, in characters.
const LONGEST: usize = 64;

/// See the head of this file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LevelRequest {
    method: String,
    path: String,
    body: Option<String>,
    content_type: Option<String>,
    timeout: Duration,
}

/// Whether a word can be sent as a level, in a path or a body, without meaning anything else there.
pub fn is_level(word: &str) -> bool {
    let good =
        |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | ':' | '=' | ',');
    (1..=LONGEST).contains(&word.len()) && word.chars().all(good)
}

impl LevelRequest {
    /// With this level; none where the configuration names no request.
    pub fn of(change: &LevelChange, level: &str) -> Option<Self> {
        let (method, path) = change.request.as_ref()?.split_once(' ')?;
        let is_form = |kind: &String| kind.starts_with("application/x-www-form-urlencoded");
        let in_body = match change.content_type.as_ref().is_some_and(is_form) {
            true => encoded(level),
            false => level.to_owned(),
        };
        Some(Self {
            method: method.to_owned(),
            path: path.replace(LEVEL, &encoded(level)),
            body: change.body.as_ref().map(|it| it.replace(LEVEL, &in_body)),
            content_type: change.content_type.clone(),
            timeout: change.timeout,
        })
    }

    /// Method and path. Without the query, which may hold a secret.
    pub fn shown(&self) -> String {
        format!("{} {}", self.method, self.bare_path())
    }

    fn bare_path(&self) -> &str {
        self.path.split('?').next().unwrap_or_default()
    }

    /// Send it; the status of a good answer. `host` is the `Host` header; default: the address.
    ///
    /// # Errors
    /// What came instead, the request first.
    pub async fn send(&self, address: &Address, host: Option<&str>) -> Result<u16, String> {
        let told = self.ask(address, host).await;
        let to = match address {
            Address::Unix(_) => format!("{address}:{}", self.bare_path()),
            Address::Inet(_) | Address::Nowhere => format!("{address}{}", self.bare_path()),
        };
        told.map_err(|why| format!("{} {to}: {why}", self.method))
    }

    async fn ask(&self, address: &Address, host: Option<&str>) -> Result<u16, String> {
        // Its own address and nobody else: neither a proxy of the environment, nor where it sends one.
        let client = Client::builder().no_proxy().redirect(Policy::none());
        let client = client.timeout(self.timeout);
        let (client, authority) = match address {
            Address::Inet(address) => (client, address.to_string()),
            Address::Unix(path) => (client.unix_socket(path.as_ref()), "localhost".to_owned()),
            Address::Nowhere => return Err("it has no address".to_owned()),
        };
        let client = client.build().map_err(|cause| self.text(&cause))?;
        let method = Method::from_bytes(self.method.as_bytes()).map_err(|e| e.to_string())?;
        let mut request = client
            .request(method, format!("http://{authority}{}", self.path))
            .header("user-agent", "hotctl");
        if let Some(host) = host {
            request = request.header("host", host);
        }
        if let Some(kind) = &self.content_type {
            request = request.header("content-type", kind);
        }
        if let Some(body) = &self.body {
            request = request.body(body.clone());
        }
        let mut answer = request.send().await.map_err(|cause| self.text(&cause))?;
        let status = answer.status();
        match status.is_success() {
            true => Ok(status.as_u16()),
            false => Err(match first_line(&mut answer).await {
                Some(line) => format!("answered {}: {line}", status.as_u16()),
                None => format!("answered {}", status.as_u16()),
            }),
        }
    }

    /// The innermost cause says most.
    fn text(&self, cause: &reqwest::Error) -> String {
        if cause.is_timeout() {
            return format!("no answer within {}", show_duration(self.timeout));
        }
        let mut last: &dyn std::error::Error = cause;
        while let Some(deeper) = last.source() {
            last = deeper;
        }
        match last.downcast_ref::<std::io::Error>() {
            Some(cause) if cause.kind() == std::io::ErrorKind::ConnectionRefused => {
                "connection refused".to_owned()
            }
            _ => last.to_string(),
        }
    }
}

/// The first line of a body that says anything.
async fn first_line(answer: &mut Response) -> Option<String> {
    let mut got = Vec::new();
    // What cannot be read any more is left out: its status is told in any case.
    while let Ok(Some(piece)) = answer.chunk().await {
        got.extend_from_slice(&piece);
        if got.len() >= READ || got.trim_ascii_start().contains(&b'\n') {
            break;
        }
    }
    let text = String::from_utf8_lossy(&got);
    let line = text.trim().lines().next()?;
    let mut quoted: String = line.chars().filter(|c| !c.is_control()).collect();
    if let Some((end, _)) = quoted.char_indices().nth(QUOTED) {
        quoted.truncate(end);
        quoted.push('…');
    }
    Some(quoted)
}

/// As it stands in a path, a query or a form (RFC 3986, 2.3).
fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                out.push(char::from(byte));
            }
            // Writing to a string cannot fail.
            _ => _ = write!(out, "%{byte:02X}"),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn a_level_is_put_where_it_belongs() {
        let change = LevelChange {
            request: Some("PUT /log/{level}?to={level}&key=secret".into()),
            body: Some(r#"{"level":"{level}"}"#.into()),
            content_type: Some("application/json".into()),
            ..LevelChange::default()
        };
        let request = LevelRequest::of(&change, "a=b,c").unwrap();
        assert_eq!(request.path, "/log/a%3Db%2Cc?to=a%3Db%2Cc&key=secret");
        assert_eq!(request.body.as_deref(), Some(r#"{"level":"a=b,c"}"#));
        assert_eq!(request.shown(), "PUT /log/a%3Db%2Cc");
        let form = LevelChange {
            body: Some("level={level}".into()),
            content_type: Some("application/x-www-form-urlencoded; charset=utf-8".into()),
            ..change
        };
        let request = LevelRequest::of(&form, "a=b").unwrap();
        assert_eq!(request.body.as_deref(), Some("level=a%3Db"));
        assert_eq!(LevelRequest::of(&LevelChange::default(), "debug"), None);
    }

    #[test]
    fn a_level_is_a_word_that_means_nothing_else() {
        for good in ["debug", "DEBUG", "5", "info,my::mod=debug", "my-level_2.x"] {
            assert!(is_level(good), "{good:?}");
        }
        let long = "a".repeat(LONGEST + 1);
        for bad in [
            "", "a b", "a\"b", "a\\b", "a\r\nb", "a&b", "{level}", "é", &long,
        ] {
            assert!(!is_level(bad), "{bad:?}");
        }
    }
}
