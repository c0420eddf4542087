//! The output of a service as a stream of bytes: the last lines, then what is written from now on,
//! from release to release. Reads files only; no app ever waits for a reader.

use std::convert::Infallible;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use futures_util::{Stream, stream};
use hotctl_deploy::logs;
use tokio::sync::mpsc;

use crate::api::LogsQuery;
use crate::site::Site;

/// How often a followed file is looked at. Files written by another process give no cheaper sign
/// that works on every file system.
const LOOK: Duration = Duration::from_millis(100);
/// How much is read at a time.
const CHUNK: u64 = 64 * 1024;
/// How many lines are given when none are asked for.
const LINES: usize = 100;

/// What `query` asks for; what is followed ends with `over`.
pub fn lines(
    site: Arc<Site>,
    query: LogsQuery,
    over: impl Future<Output = ()> + Send + 'static,
) -> impl Stream<Item = Result<Bytes, Infallible>> + Send + 'static {
    // Four chunks may lie unread; the reading waits, the app does not notice.
    let (send, receive) = mpsc::channel(4);
    tokio::spawn(feed(site, query, over, send));
    stream::unfold(receive, |mut receive| async move {
        receive.recv().await.map(|chunk| (Ok(chunk), receive))
    })
}

/// A place in the file of one instance.
struct Place {
    path: PathBuf,
    at: u64,
    /// What its lines begin with, where several instances speak.
    prefix: String,
    /// The beginning of a line whose end has not come; only where lines have a prefix.
    held: Vec<u8>,
}

impl Place {
    /// With the lines as they are told.
    fn told(&mut self, bytes: Vec<u8>) -> Vec<u8> {
        if self.prefix.is_empty() {
            return bytes;
        }
        self.held.extend(bytes);
        let Some(end) = self.held.iter().rposition(|byte| *byte == b'\n') else {
            return Vec::new();
        };
        let rest = self.held.split_off(end + 1);
        let whole = std::mem::replace(&mut self.held, rest);
        let mut told = Vec::with_capacity(whole.len() + 64);
        for line in whole.split_inclusive(|byte| *byte == b'\n') {
            told.extend_from_slice(self.prefix.as_bytes());
            told.extend_from_slice(line);
        }
        told
    }
}

/// Places at the beginning of these files.
fn places(paths: &[PathBuf]) -> Vec<Place> {
    let several = paths.len() > 1;
    let place = |(n, path): (usize, &PathBuf)| Place {
        path: path.clone(),
        at: 0,
        prefix: match several {
            true => format!("[{n}] "),
            false => String::new(),
        },
        held: Vec::new(),
    };
    paths.iter().enumerate().map(place).collect()
}

async fn feed(
    site: Arc<Site>,
    query: LogsQuery,
    over: impl Future<Output = ()>,
    send: mpsc::Sender<Bytes>,
) {
    let wanted = query.lines.unwrap_or(LINES);
    let mut now = current(&site, query.release);
    let mut open = places(&now);
    for place in &mut open {
        let (path, first) = (place.path.clone(), wanted);
        let read = tokio::task::spawn_blocking(move || last(&path, first)).await;
        if let Ok((text, end)) = read {
            place.at = end;
            let text = place.told(text.into_bytes());
            if !text.is_empty() && send.send(text.into()).await.is_err() {
                return;
            }
        }
    }
    if !query.follow {
        return;
    }
    let mut over = std::pin::pin!(over);
    loop {
        let is_over = tokio::select! {
            () = send.closed() => return,
            () = &mut over => true,
            () = tokio::time::sleep(LOOK) => false,
        };
        let newest = current(&site, query.release);
        for place in &mut open {
            if drain(place, &send).await.is_err() {
                return;
            }
        }
        if is_over {
            return;
        }
        if newest != now && !newest.is_empty() {
            let known = std::mem::replace(&mut open, places(&newest));
            for old in known {
                if let Some(same) = open.iter_mut().find(|place| place.path == old.path) {
                    same.at = old.at;
                    same.held = old.held;
                }
            }
            now = newest;
        }
    }
}

/// The files that are being written: of one release, or of what is live.
fn current(site: &Site, release: Option<u32>) -> Vec<PathBuf> {
    let number = release.or_else(|| {
        let ledger = site.ledger();
        let running = site.slots();
        running
            .iter()
            .find(|slot| slot.role == "live")
            .map(|slot| slot.at.release)
            .or(ledger.stopped)
            .or_else(|| ledger.releases.keys().next_back().copied())
    });
    number.map_or_else(Vec::new, |number| site.newest_logs_of(number))
}

/// Send all that has been written since.
async fn drain(place: &mut Place, send: &mpsc::Sender<Bytes>) -> Result<(), ()> {
    loop {
        let (path, at) = (place.path.clone(), place.at);
        let read = tokio::task::spawn_blocking(move || chunk(&path, at)).await;
        match read {
            Ok(Ok((bytes, next))) => {
                place.at = next;
                if bytes.is_empty() {
                    return Ok(());
                }
                let told = place.told(bytes);
                if !told.is_empty() {
                    send.send(told.into()).await.map_err(|_| ())?;
                }
            }
            // Rotated or removed this instant: the next look sees what is there then.
            _ => return Ok(()),
        }
    }
}

/// What follows in a file from there on, at most 64 KiB, and where that ends.
///
/// # Errors
/// If it is not there, or cannot be read.
pub fn chunk(path: &Path, at: u64) -> io::Result<(Vec<u8>, u64)> {
    let mut file = std::fs::File::open(path)?;
    // Shorter than where we were: it was rotated, and is read from its beginning.
    let at = if file.metadata()?.len() < at { 0 } else { at };
    file.seek(SeekFrom::Start(at))?;
    let mut bytes = Vec::new();
    file.take(CHUNK).read_to_end(&mut bytes)?;
    let next = at + u64::try_from(bytes.len()).unwrap_or(0);
    Ok((bytes, next))
}

/// The last lines of a file, and where it ends.
fn last(path: &Path, lines: usize) -> (String, u64) {
    let end = std::fs::metadata(path).map_or(0, |meta| meta.len());
    let mut text = logs::tail(path, lines).join("\n");
    if !text.is_empty() {
        text.push('\n');
    }
    (text, end)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn lines_of_several_instances_are_told_whole_and_with_their_number() {
        let mut both = places(&["a.log".into(), "b.log".into()]);
        assert_eq!(both[1].told(b"one\ntw".to_vec()), b"[1] one\n");
        assert_eq!(both[1].told(b"o".to_vec()), b"");
        assert_eq!(both[1].told(b"\nthree\n".to_vec()), b"[1] two\n[1] three\n");
        let mut only = places(&["a.log".into()]);
        assert_eq!(only[0].told(b"as it com".to_vec()), b"as it com");
    }
}
