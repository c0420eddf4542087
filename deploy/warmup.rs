//! Requesting some paths of a process before it gets traffic, so that its caches are warm. What it
//! answers is told and judged by nobody.

use std::time::{Duration, Instant};

use hotctl_config::Address;
use hotctl_config::file::Health;

use crate::probe;

/// A path that was requested.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warmed {
    /// The path, with its query.
    pub path: String,
    /// The status that its whole answer had, or what came of it instead.
    pub outcome: Result<u16, String>,
    /// From the request to the end of the answer.
    pub took: Duration,
}

/// Request each path in turn, to the end of its answer, all within that time; what is left then is
/// told as not requested. `host` is the `Host` header; default: the address. `progress` is told each.
pub async fn warm(
    address: &Address,
    host: Option<&str>,
    paths: &[String],
    within: Duration,
    mut progress: impl FnMut(&Warmed),
) -> Vec<Warmed> {
    let began = Instant::now();
    let mut all = Vec::with_capacity(paths.len());
    for path in paths {
        let left = within.saturating_sub(began.elapsed());
        let asked = Instant::now();
        let request = Health {
            path: path.clone(),
            host: host.map(Into::into),
            ..Health::default()
        };
        let outcome = match left.is_zero() {
            true => Err("not requested: warmup_timeout was over".into()),
            false => probe::fetch(address, &request, left)
                .await
                .map_err(|miss| miss.to_string()),
        };
        let warmed = Warmed {
            path: path.clone(),
            outcome,
            took: asked.elapsed(),
        };
        progress(&warmed);
        all.push(warmed);
    }
    all
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    /// Answers by the path that is asked for.
    async fn server() -> Address {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().into();
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                tokio::spawn(async move {
                    let mut got = vec![0; 1000];
                    let length = stream.read(&mut got).await.unwrap();
                    let got = String::from_utf8_lossy(&got[..length]).into_owned();
                    let answer = match got.split(' ').nth(1).unwrap() {
                        "/big" => {
                            let size = 300_000;
                            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n");
                            head + &"x".repeat(size)
                        }
                        "/chunked" => "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n".into(),
                        "/host" if got.contains("Host: example.com") => "HTTP/1.1 204 \r\n\r\n".into(),
                        "/never" => "HTTP/1.1 200 OK\r\n\r\n".into(),
                        _ => "HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n".into(),
                    };
                    // A path at a time: the last part comes late, and the connection stays open.
                    let (begin, end) = answer.split_at(answer.len() - 1);
                    stream.write_all(begin.as_bytes()).await.unwrap();
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    let _ = stream.write_all(end.as_bytes()).await;
                    tokio::time::sleep(Duration::from_secs(60)).await;
                });
            }
        });
        address
    }

    #[tokio::test]
    async fn each_path_is_requested_to_the_end_of_its_answer() {
        let address = server().await;
        let paths = ["/big", "/chunked", "/host", "/other?a=b"].map(Into::into);
        let mut told = Vec::new();
        let within = Duration::from_secs(20);
        let all = warm(&address, Some("example.com"), &paths, within, |warmed| {
            told.push(warmed.clone());
        })
        .await;
        assert_eq!(all, told);
        let statuses: Vec<_> = all.iter().map(|warmed| warmed.outcome.clone()).collect();
        assert_eq!(statuses, [Ok(200), Ok(200), Ok(204), Ok(500)]);
        for warmed in &all {
            let took = warmed.took;
            assert!((50..5000).contains(&took.as_millis()), "{warmed:?}");
        }
    }

    #[tokio::test]
    async fn a_page_that_never_ends_takes_no_more_than_all_may_take() {
        let address = server().await;
        let paths = ["/never", "/big"].map(Into::into);
        let within = Duration::from_millis(300);
        let all = warm(&address, None, &paths, within, |_| {}).await;
        let first = all[0].outcome.clone().unwrap_err();
        assert!(
            first.contains("/never: answered, body not complete within"),
            "{first}"
        );
        let second = all[1].outcome.clone().unwrap_err();
        assert_eq!(second, "not requested: warmup_timeout was over");
    }
}
