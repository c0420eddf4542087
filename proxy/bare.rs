//! pingora with nothing added, taken in as [`crate::Proxy`] takes in its connections: what our own hooks are
//! measured against. Not for service: it knows one address, and has neither routes nor tickets nor retries.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;

use async_trait::async_trait;
use hotctl_config::Timeouts;
use pingora::proxy::{ProxyHttp, Session};
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, Result};
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::conn::{Framing, Limits};
use crate::hall::{Hall, Stage};
use crate::lines::Lines;
use crate::request::conn;

/// See the head of this file.
struct Bare {
    upstream: SocketAddr,
}

/// Send what comes in at `listener` to `upstream`, until `stage` says otherwise, on this runtime of so many
/// threads.
pub async fn serve_bare(
    listener: TcpListener,
    upstream: SocketAddr,
    threads: NonZeroUsize,
    stage: watch::Receiver<Stage>,
) {
    let timeouts = Timeouts::default();
    let limits = Limits {
        header: timeouts.header,
        idle: timeouts.idle,
    };
    let hall = Hall::new(Bare { upstream }, Arc::<Lines>::default(), limits, threads);
    hall.serve(listener, stage).await;
}

#[async_trait]
impl ProxyHttp for Bare {
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
        Ok(Box::new(HttpPeer::new(self.upstream, false, String::new())))
    }

    async fn logging(&self, session: &mut Session, _: Option<&Error>, _: &mut ()) {
        if let Some(conn) = conn(session) {
            conn.over(true, 0);
        }
    }
}
