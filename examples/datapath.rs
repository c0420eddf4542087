//! hotctl's way of a request without its daemon: one service that is always live, at one address. For tools
//! that cannot follow a daemon which starts and holds other processes, as valgrind cannot.
//!
//! `datapath [--bare] LISTEN UPSTREAM`, both addresses of TCP. SIGTERM ends it. `--bare`: pingora's own proxy with
//! nothing added, on the same loop that takes connections in, to see what hotctl's own way of a request costs.

// As hotctl has it.
#[path = "../ctl/memory.rs"]
mod memory;

use std::env;
use std::error::Error;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::process::ExitCode;
use std::sync::Arc;

use hotctl_config::{Address, ReleaseId, ServiceName, Slot, Timeouts};
use hotctl_proxy::{
    AccessLog, Metrics, Pool, Proxy, Route, Settings, Split, Stage, Switch, Table, serve_bare,
};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// As one core has it.
const THREADS: NonZeroUsize = NonZeroUsize::MIN;

fn main() -> ExitCode {
    let words: Vec<SocketAddr> = env::args()
        .skip(1)
        .filter_map(|it| it.parse().ok())
        .collect();
    let &[listen, upstream] = words.as_slice() else {
        eprintln!("usage: datapath [--bare] LISTEN UPSTREAM");
        return ExitCode::from(2);
    };
    memory::give_back();
    let is_bare = env::args().any(|word| word == "--bare");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(THREADS.get())
        .global_queue_interval(8)
        .enable_all()
        .build();
    let served = match runtime {
        Ok(runtime) => runtime.block_on(serve(listen, upstream, is_bare)),
        Err(e) => Err(e.into()),
    };
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("datapath: {e}");
            ExitCode::FAILURE
        }
    }
}

async fn serve(
    listen: SocketAddr,
    upstream: SocketAddr,
    is_bare: bool,
) -> Result<(), Box<dyn Error>> {
    let listener = TcpListener::bind(listen).await?;
    let (_stage, watched) = watch::channel(Stage::Serving);
    let mut term = signal(SignalKind::terminate())?;
    let proxy = match is_bare {
        true => None,
        false => Some(proxy(upstream)?),
    };
    // In a task, as in the daemon: what runs in `block_on` itself is not on a worker thread.
    let serving = tokio::spawn(async move {
        match proxy {
            Some(proxy) => proxy.serve(listener, watched).await,
            None => serve_bare(listener, upstream, THREADS, watched).await,
        }
    });
    tokio::select! {
        served = serving => served?,
        _ = term.recv() => {}
    }
    Ok(())
}

/// With one service, which is live.
fn proxy(upstream: SocketAddr) -> Result<Proxy, Box<dyn Error>> {
    let service: ServiceName = "web".parse()?;
    let switch = Arc::new(Switch::new(THREADS));
    let route = Route {
        service: service.clone(),
        hosts: Vec::new(),
        paths: Vec::new(),
    };
    switch.publish(Table::new([route]), 1)?;
    let release = ReleaseId {
        service: service.clone(),
        number: 1,
    };
    let pool = Pool::new(release, Slot(1), Address::from(upstream), &[], THREADS);
    switch.split(&service, Split::all(pool))?;
    let metrics = Arc::new(Metrics::new(&prometheus::Registry::new(), THREADS)?);
    let settings = Settings {
        trusted_proxies: Vec::new(),
        timeouts: Timeouts::default(),
        threads: THREADS,
        access_log: AccessLog::default(),
        desk: None,
    };
    Ok(Proxy::new(switch, metrics, settings))
}
