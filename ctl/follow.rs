//! The output of a service as a stream of bytes: the last lines, then what is written from now on,
//! from release to release. Reads files only; no app ever waits for a reader.

use std::convert::Infallible;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use futures_util::{Stream, stream};
use hotctl_deploy::process;
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

/// What `query` asks for.
pub fn lines(
    site: Arc<Site>,
    query: LogsQuery,
) -> impl Stream<Item = Result<Bytes, Infallible>> + Send + 'static {
    // Four chunks may lie unread; the reading waits, the app does not notice.
    let (send, receive) = mpsc::channel(4);
    tokio::spawn(feed(site, query, send));
    stream::unfold(receive, |mut receive| async move {
        receive.recv().await.map(|chunk| (Ok(chunk), receive))
    })
}

/// A place in a file.
struct Place {
    path: PathBuf,
    at: u64,
}

async fn feed(site: Arc<Site>, query: LogsQuery, send: mpsc::Sender<Bytes>) {
    let wanted = query.lines.unwrap_or(LINES);
    let mut place = current(&site, query.release).map(|path| Place { path, at: 0 });
    if let Some(place) = &mut place {
        let (path, first) = (place.path.clone(), wanted);
        let read = tokio::task::spawn_blocking(move || last(&path, first)).await;
        if let Ok((text, end)) = read {
            place.at = end;
            if !text.is_empty() && send.send(text.into()).await.is_err() {
                return;
            }
        }
    }
    if !query.follow {
        return;
    }
    loop {
        tokio::select! {
            () = send.closed() => return,
            () = tokio::time::sleep(LOOK) => {}
        }
        let newest = current(&site, query.release);
        let turned = newest.as_ref() != place.as_ref().map(|p| &p.path);
        if let Some(old) = &mut place
            && drain(old, &send).await.is_err()
        {
            return;
        }
        if let (true, Some(path)) = (turned, newest) {
            place = Some(Place { path, at: 0 });
        }
    }
}

/// The file that is being written: of one release, or of what is live.
fn current(site: &Site, release: Option<u32>) -> Option<PathBuf> {
    let number = release.or_else(|| {
        let ledger = site.ledger();
        let running = site.slots();
        running
            .iter()
            .find(|slot| slot.role == "live")
            .map(|slot| slot.at.release)
            .or(ledger.stopped)
            .or_else(|| ledger.releases.keys().next_back().copied())
    })?;
    site.logs_of(number).pop()
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
                send.send(bytes.into()).await.map_err(|_| ())?;
            }
            // Rotated or removed this instant: the next look sees what is there then.
            _ => return Ok(()),
        }
    }
}

fn chunk(path: &Path, at: u64) -> io::Result<(Vec<u8>, u64)> {
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
    let mut text = process::tail(path, lines).join("\n");
    if !text.is_empty() {
        text.push('\n');
    }
    (text, end)
}
