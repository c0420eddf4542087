//! A small web app, the backend of the demo, the tests and the benches: well-behaved unless a flag
//! says otherwise. Knows nothing about hotctl, only how it is told where to listen.
//!
//! `GET /` answers the version: `--version-text`, else `SAMPLE_VERSION`, else what stands at the end
//! of this program's own file after `sample-version:`. So a copy with a line appended is another
//! release. `sample --help` lists the rest.

#[path = "sample/flags.rs"]
mod flags;
#[path = "sample/http.rs"]
mod http;
#[path = "sample/listen.rs"]
mod listen;
#[path = "sample/misbehave.rs"]
mod misbehave;
#[path = "sample/notify.rs"]
mod notify;
#[path = "sample/routes.rs"]
mod routes;

use std::io;
use std::process::ExitCode;
use std::sync::Arc;

use futures_util::FutureExt;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio_util::task::TaskTracker;

use flags::{Flags, OnTerm};
use http::Connection;
use listen::{Listener, Stream};
use routes::App;

fn main() -> ExitCode {
    let flags = match Flags::read() {
        Ok(flags) => flags,
        Err(text) => {
            eprintln!("sample: {text}");
            return ExitCode::from(2);
        }
    };
    if let Some(code) = misbehave::before_listening(&flags) {
        return code;
    }
    // One thread: the app is to cost little beside what is measured.
    let served = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .and_then(|runtime| runtime.block_on(serve(flags)));
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("sample: {e}");
            ExitCode::FAILURE
        }
    }
}

/// Answer until SIGTERM or SIGINT; then let what is in flight finish, and return.
async fn serve(flags: Flags) -> io::Result<()> {
    let mut term = signal(SignalKind::terminate())?;
    let mut int = signal(SignalKind::interrupt())?;
    let toggle = match flags.level_by_signal {
        true => Some(signal(SignalKind::user_defined1())?),
        false => None,
    };
    let listener = Listener::open(flags.place()).await?;
    misbehave::say(&format!("listening on {}", listener.name()?));
    if let Some(after) = flags.notify_after {
        tokio::spawn(notify::ready(after));
    }
    if let Some(after) = flags.exit_after {
        tokio::spawn(misbehave::exit(after));
    }

    let (stop, stopping) = watch::channel(false);
    let app = Arc::new(App::new(flags, stopping));
    if let Some(mut toggle) = toggle {
        let app = app.clone();
        tokio::spawn(async move {
            while toggle.recv().await.is_some() {
                app.toggle_level();
            }
        });
    }
    let connections = TaskTracker::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok(stream) => { connections.spawn(converse(stream, app.clone())); }
                // Out of file descriptors, or a client that is gone already: the next may do.
                Err(_) => tokio::task::yield_now().await,
            },
            _ = int.recv() => break,
            _ = term.recv() => match app.flags.on_term {
                OnTerm::Stop => break,
                OnTerm::Ignore => misbehave::say("SIGTERM ignored, as asked"),
            },
        }
    }
    misbehave::say("stopping");
    let _ = stop.send(true);
    // Who is in the backlog has a connection as far as they can tell, and gets an answer.
    while let Some(Ok(stream)) = listener.accept().now_or_never() {
        connections.spawn(converse(stream, app.clone()));
    }
    drop(listener);
    connections.close();
    connections.wait().await;
    Ok(())
}

/// Answer the requests of one connection, one after the other.
async fn converse(stream: Stream, app: Arc<App>) {
    let mut connection = Connection::new(stream);
    loop {
        // A client that goes away is not this app's trouble.
        let Ok(Some(head)) = connection.head(&app).await else {
            return;
        };
        match routes::answer(connection, &head, &app).await {
            Ok(Some(next)) => connection = next,
            _ => return,
        }
    }
}
