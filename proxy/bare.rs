//! pingora's own proxy with nothing added, led to connections as [`crate::Proxy`] is: what our own way of a
//! request is measured against. Not for service: it knows one address, and has neither routes nor tickets nor
//! retries.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;

use async_trait::async_trait;
use hotctl_config::Timeouts;
use pingora::apps::{HttpPersistentSettings, HttpServerApp};
use pingora::protocols::Stream;
use pingora::protocols::http::ServerSession;
use pingora::proxy::{HttpProxy, ProxyHttp, Session};
use pingora::server::configuration::ServerConf;
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, Result};
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::conn::{Conn, Framing, Limits};
use crate::hall::{Hall, Serves, Stage};
use crate::lines::Lines;

/// See the head of this file.
struct Bare {
    app: Arc<HttpProxy<To>>,
    /// What pingora watches for its own way of shutting down, which never comes.
    quiet: watch::Sender<bool>,
}

/// Where all requests go.
struct To(SocketAddr);

/// Send what comes in at `listener` to `upstream`, until `stage` says otherwise, on this runtime of so many
/// threads.
pub async fn serve_bare(
    listener: TcpListener,
    upstream: SocketAddr,
    threads: NonZeroUsize,
    stage: watch::Receiver<Stage>,
) {
    /// Idle upstream connections kept, a thread. Below the number of concurrent requests it
    /// would mean a new connection for many of them, which doubles the cost of a request.
    const KEPT: usize = 2048;

    let conf = ServerConf {
        threads: threads.get(),
        upstream_keepalive_pool_size: KEPT,
        ..ServerConf::default()
    };
    let mut app = HttpProxy::new(To(upstream), Arc::new(conf));
    app.handle_init_modules();
    let bare = Bare {
        app: Arc::new(app),
        quiet: watch::Sender::new(false),
    };
    let timeouts = Timeouts::default();
    let limits = Limits {
        header: timeouts.header,
        idle: timeouts.idle,
    };
    let hall = Hall::new(bare, Arc::<Lines>::default(), limits);
    hall.serve(listener, stage).await;
}

impl Serves for Bare {
    async fn talk(self: Arc<Self>, conn: Conn) {
        let quiet = self.quiet.subscribe();
        let mut stream: Stream = Box::new(conn);
        let mut settings: Option<HttpPersistentSettings> = None;
        loop {
            let mut session = ServerSession::new_http1(stream);
            if let Some(settings) = settings {
                settings.apply_to_session(&mut session);
            }
            session.set_keepalive(Some(0));
            let Some(reused) = self.app.process_new_http(session, &quiet).await else {
                return;
            };
            (stream, settings) = reused.consume();
            let Ok(mut conn) = stream.into_any().downcast::<Conn>() else {
                return;
            };
            conn.rest();
            stream = conn;
        }
    }
}

#[async_trait]
impl ProxyHttp for To {
    type CTX = ();

    fn new_ctx(&self) {}

    /// A connection wants to know where it is in the conversation.
    async fn early_request_filter(&self, session: &mut Session, _: &mut ()) -> Result<()> {
        if let Some(conn) = conn(session) {
            conn.begin(Framing::Length);
        }
        Ok(())
    }

    async fn upstream_peer(&self, _: &mut Session, _: &mut ()) -> Result<Box<HttpPeer>> {
        Ok(Box::new(HttpPeer::new(self.0, false, String::new())))
    }

    async fn logging(&self, session: &mut Session, _: Option<&Error>, _: &mut ()) {
        if let Some(conn) = conn(session) {
            conn.over(true, 0);
        }
    }
}

/// The connection that a session runs on.
fn conn(session: &Session) -> Option<&Conn> {
    session.stream()?.as_any().downcast_ref()
}
