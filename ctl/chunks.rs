//! What is read by a thread that may wait, as a stream for one that may not.

use std::io::{self, Read};

use axum::body::Bytes;
use futures_util::{Stream, stream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// How much is read at a time.
const CHUNK: usize = 256 * 1024;

/// The reading, which ends with the reason if it fails, and what is read. Ends when nobody listens.
pub fn of(
    reader: impl Read + Send + 'static,
) -> (
    JoinHandle<io::Result<()>>,
    impl Stream<Item = io::Result<Bytes>> + Send + 'static,
) {
    // Two chunks ahead; the reading waits for whoever takes them.
    let (send, receive) = mpsc::channel(2);
    let reading = tokio::task::spawn_blocking(move || read_all(reader, &send));
    let chunks = stream::unfold(receive, |mut receive| async move {
        receive.recv().await.map(|chunk| (chunk, receive))
    });
    (reading, chunks)
}

fn read_all(mut reader: impl Read, send: &mpsc::Sender<io::Result<Bytes>>) -> io::Result<()> {
    loop {
        let mut chunk = vec![0; CHUNK];
        match reader.read(&mut chunk) {
            Ok(0) => return Ok(()),
            Ok(n) => {
                chunk.truncate(n);
                // Closed: whoever takes it knows enough, a daemon that has answered already for one.
                if send.blocking_send(Ok(chunk.into())).is_err() {
                    return Ok(());
                }
            }
            Err(cause) if cause.kind() == io::ErrorKind::Interrupted => {}
            Err(cause) => {
                // The upload must break, not end: else it would look complete.
                let broken = io::Error::new(cause.kind(), cause.to_string());
                let _ = send.blocking_send(Err(broken));
                return Err(cause);
            }
        }
    }
}
