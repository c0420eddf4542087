//! pingora as it comes, behind its own `Service`: what the benches hold hotctl against. It adds what
//! hotctl adds to a request least of all, nothing, and keeps as many upstream connections as hotctl does.
//!
//! `bare LISTEN UPSTREAM [THREADS]`, where UPSTREAM is an address or the path of a unix socket.

use std::env;
use std::process::ExitCode;

use async_trait::async_trait;
use pingora::Result;
use pingora::proxy::{ProxyHttp, Session, http_proxy_service};
use pingora::server::Server;
use pingora::server::configuration::ServerConf;
use pingora::upstreams::peer::{H1UpgradePolicy, HttpPeer};

/// Idle upstream connections kept, a thread. pingora's own 128 are fewer than the load has at once.
const KEPT: usize = 2048;

struct Bare {
    upstream: String,
}

#[async_trait]
impl ProxyHttp for Bare {
    type CTX = ();

    fn new_ctx(&self) {}

    async fn upstream_peer(&self, _session: &mut Session, _ctx: &mut ()) -> Result<Box<HttpPeer>> {
        let mut peer = if self.upstream.starts_with('/') {
            HttpPeer::new_uds(&self.upstream, false, String::new())?
        } else {
            HttpPeer::new(self.upstream.as_str(), false, String::new())
        };
        peer.options.http_upstream_request_policy.h1_upgrade = H1UpgradePolicy::WebSocketOnly;
        Ok(Box::new(peer))
    }
}

fn main() -> ExitCode {
    let words: Vec<String> = env::args().skip(1).collect();
    let (Some(listen), Some(upstream)) = (words.first(), words.get(1)) else {
        eprintln!("usage: bare LISTEN UPSTREAM [THREADS]");
        return ExitCode::from(2);
    };
    let threads = words.get(2).and_then(|word| word.parse().ok());
    let conf = ServerConf {
        threads: threads.unwrap_or(1),
        upstream_keepalive_pool_size: KEPT,
        ..ServerConf::default()
    };
    let mut server = Server::new_with_opt_and_conf(None, conf);
    server.bootstrap();
    let bare = Bare {
        upstream: upstream.clone(),
    };
    let mut service = http_proxy_service(&server.configuration, bare);
    service.add_tcp(listen);
    server.add_service(service);
    server.run_forever()
}
