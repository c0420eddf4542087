//! `hotctl serve`: boot and end of the daemon, each one straight function. The composition root:
//! everything is made here and handed down.

use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use hotctl_config::file::{Admin, Config, Listen};
use hotctl_config::names::ServiceName;
use hotctl_deploy::ports::Ports;
use hotctl_proxy::{AccessLog, Proxy, Route, Settings, Stage, Switch, Table};
use prometheus::Registry;
use tokio::net::UnixListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::{info, warn};

use crate::api::Noted;
use crate::cli::{Places, Serve};
use crate::control::{self, House, Resident};
use crate::fault::Fault;
use crate::history::History;
use crate::journal::Journal;
use crate::metrics::{Metrics, Scraped};
use crate::places::{self, Whereabouts};
use crate::service;
use crate::site::{Means, Site};
use crate::socket::{Callers, Named, Socket};
use crate::store::StateFolder;
use crate::who::Who;
use crate::{admin, log};

/// Where `serve` listens if neither file nor flag says so.
const NO_CONFIG: &str = "no configuration found";

/// Run the daemon until a signal ends it.
///
/// # Errors
/// If configuration, state or an address does not allow it; nothing has been started then.
pub fn serve(places: &Places, flags: &Serve) -> Result<(), Fault> {
    log::start(flags.log_format, &flags.log_level)?;
    let config = configuration(flags)?;
    let threads = config
        .threads
        .or_else(|| std::thread::available_parallelism().ok())
        .unwrap_or(NonZeroUsize::MIN);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads.get())
        .enable_all()
        .build()
        .map_err(|cause| Fault::failed(format!("cannot start the runtime: {cause}")))?;
    runtime.block_on(async {
        let booted = boot(places, config, threads)?;
        run(booted).await
    })
}

/// The configuration that the flags and files give, checked.
fn configuration(flags: &Serve) -> Result<Config, Fault> {
    let path = hotctl_config::find(flags.config.as_deref()).map_err(refused)?;
    let mut config = match (&path, flags.listen.first()) {
        (Some(path), _) => hotctl_config::read(path).map_err(refused)?,
        (None, Some(listen)) => hotctl_config::single(*listen),
        (None, None) => {
            return Err(Fault::config(format!(
                "{NO_CONFIG}: neither ./hotctl.toml nor /etc/hotctl/hotctl.toml is there"
            ))
            .hint("`hotctl serve --listen 127.0.0.1:8080` for one service, or `hotctl init`"));
        }
    };
    if !flags.listen.is_empty() {
        config.listen = flags
            .listen
            .iter()
            .map(|&address| Listen { address })
            .collect();
    }
    if let Some(admin) = flags.admin {
        config.admin = admin;
    }
    Ok(config)
}

/// Configuration problems as a fault: they bring their own remedies.
pub fn refused(problems: hotctl_config::Problems) -> Fault {
    Fault::config(problems.to_string())
}

/// A daemon that is ready to run.
struct Booted {
    config: Config,
    listeners: Vec<TcpListener>,
    admin: Option<TcpListener>,
    control: UnixListener,
    socket: Socket,
    callers: Callers,
    means: Arc<Means>,
    registry: Registry,
    access_log: AccessLog,
    threads: NonZeroUsize,
}

/// Take everything that can be refused, before anything is started.
fn boot(places: &Places, config: Config, threads: NonZeroUsize) -> Result<Booted, Fault> {
    let here = Whereabouts::here();
    let socket = places.socket.clone().unwrap_or_else(|| here.socket());
    let state = places.state.clone().unwrap_or_else(|| here.state());
    places::check_socket_path(&socket)?;
    let state = StateFolder::open(&absolute(&state, "state")?)?;
    let journal = Journal::open(state.root()).map_err(|cause| {
        Fault::config(format!(
            "state {}: events.ndjson: {cause}",
            state.root().display()
        ))
        .hint("mend its permissions, or move it away")
    })?;
    let listeners = config
        .listen
        .iter()
        .map(|listen| bind(listen.address, "listen"))
        .collect::<Result<Vec<_>, _>>()?;
    let admin = match config.admin {
        Admin::At(address) => Some(bind(address, "admin")?),
        Admin::Off => None,
    };
    let named = if places.socket.is_some() {
        Named::ByOperator
    } else {
        Named::ByDefault
    };
    let callers = Callers::of(&config.control)?;
    let (socket, control) = Socket::bind(&absolute(&socket, "socket")?, named, &callers)?;
    let access_log = AccessLog::start(&config.access_log).map_err(|cause| {
        Fault::config(format!(
            "access_log {}: {}",
            config.access_log,
            reason(&cause)
        ))
        .hint("choose a file that hotctl may write, \"stdout\" or \"off\"")
    })?;
    let registry = Registry::new();
    let metric = |cause: prometheus::Error| Fault::failed(format!("metrics: {cause}"));
    let switch = Arc::new(Switch::new(threads));
    let traffic = Arc::new(hotctl_proxy::Metrics::new(&registry).map_err(metric)?);
    let metrics = Arc::new(Metrics::new(&registry).map_err(metric)?);
    let routes = config.services.iter().map(|(name, service)| Route {
        service: name.clone(),
        hosts: service.hosts.clone(),
        paths: service.paths.clone(),
    });
    switch
        .publish(Table::new(routes), 1)
        .map_err(|stale| Fault::failed(stale.to_string()))?;
    let means = Arc::new(Means {
        switch,
        traffic,
        metrics,
        journal,
        ports: Ports::new(config.ports),
        state,
        shards: threads,
    });
    Ok(Booted {
        config,
        listeners,
        admin,
        control,
        socket,
        callers,
        means,
        registry,
        access_log,
        threads,
    })
}

async fn run(booted: Booted) -> Result<(), Fault> {
    let Booted {
        config,
        listeners,
        admin,
        control,
        socket,
        callers,
        means,
        registry,
        access_log,
        threads,
    } = booted;
    // Before anything is started, so that no signal finds us without an answer.
    let failed = |cause: io::Error| Fault::failed(format!("signals: {cause}"));
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    // A closed terminal does not end a daemon.
    let mut hangup = signal(SignalKind::hangup()).map_err(failed)?;
    let mut reopen = signal(SignalKind::user_defined1()).map_err(failed)?;

    let stop_services = CancellationToken::new();
    let mut services = JoinSet::new();
    let mut probers = JoinSet::new();
    let mut residents = BTreeMap::new();
    for (name, service) in &config.services {
        let (tell_exits, exits) = mpsc::channel(16);
        let (site, interrupted) = Site::open(name, service, &means, tell_exits)?;
        if let Some(deployment) = &interrupted {
            info!(service = %name, deployment = deployment.number, became = %deployment.phase,
                "a deployment was under way when hotctl ended");
        }
        let history = history_of(&means, name)?;
        history.end_interrupted(interrupted.as_ref());
        start_live(&site).await;
        let (orders, mailbox) = mpsc::channel(8);
        services.spawn(service::run(
            site.clone(),
            history.clone(),
            mailbox,
            exits,
            stop_services.clone(),
        ));
        probers.spawn(site.clone().keep_probing());
        probers.spawn(site.clone().watch_requests());
        let resident = Resident {
            site,
            history,
            orders,
        };
        residents.insert(name.clone(), resident);
    }

    let (stage, stages) = watch::channel(Stage::Serving);
    let proxy = Proxy::new(
        means.switch.clone(),
        means.traffic.clone(),
        Settings {
            trusted_proxies: config.trusted_proxies.clone(),
            timeouts: config.timeouts.clone(),
            threads,
            access_log: access_log.clone(),
        },
    );
    let mut accepting = JoinSet::new();
    let mut listen = Vec::new();
    for listener in listeners {
        listen.push(local(&listener)?);
        let listener = tokio::net::TcpListener::from_std(listener).map_err(failed)?;
        let (proxy, stages) = (proxy.clone(), stages.clone());
        accepting.spawn(async move { proxy.serve(listener, stages).await });
    }
    let house = Arc::new(House {
        services: residents,
        listen: listen.clone(),
        admin: admin.as_ref().map(local).transpose()?,
        state: means.state.root().to_owned(),
        callers: callers.clone(),
        since: Instant::now(),
        journal: means.journal.clone(),
    });
    let shown = house.clone();
    means.metrics.releases_from(move || {
        let services = shown.services.iter();
        services
            .map(|(name, r)| Scraped {
                service: name.clone(),
                releases: r.site.release_infos(),
                instances: r.site.instance_counts(),
            })
            .collect()
    });
    let _admin = match admin {
        Some(listener) => {
            let listener = tokio::net::TcpListener::from_std(listener).map_err(failed)?;
            Some(AbortOnDropHandle::new(tokio::spawn(admin::serve(
                listener,
                registry,
                house.clone(),
                stages.clone(),
            ))))
        }
        None => None,
    };
    let control = AbortOnDropHandle::new(tokio::spawn(async move {
        let app = control::router(house).into_make_service_with_connect_info::<control::Caller>();
        // axum's loop only ends with its task.
        let _ = axum::serve(control, app).await;
    }));
    let shown: Vec<String> = listen.iter().map(ToString::to_string).collect();
    info!(listen = %shown.join(" "), control = %socket.path().display(), state = %means.state.root().display(),
        "hotctl {} serves", env!("CARGO_PKG_VERSION"));
    if let Callers::Group { name, .. } = &callers {
        info!(
            "members of group {name} may steer this hotctl, and with it run code as user {}",
            Who::ourselves()
        );
    }
    means.journal.note(
        None,
        Noted::DaemonStarted {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
        },
    );

    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = reopen.recv() => {
                info!("opening the access log anew");
                access_log.reopen();
            }
            _ = hangup.recv() => info!("hangup ignored: the configuration is read at the start"),
        }
    }
    means.journal.note(None, Noted::DaemonStopping);
    // Requests first: what is in flight is answered while the apps still run.
    info!("ending: no new connections, finishing what is in flight (again to end at once)");
    let _ = stage.send(Stage::Closing);
    let finished = async { while accepting.join_next().await.is_some() {} };
    tokio::select! {
        () = finished => {}
        () = tokio::time::sleep(config.shutdown_timeout) => warn!("shutdown_timeout is over: connections are cut"),
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    drop(probers);
    stop_services.cancel();
    tokio::select! {
        () = async { while services.join_next().await.is_some() {} } => {}
        _ = terminate.recv() => warn!("ended at once: apps are killed"),
        _ = interrupt.recv() => warn!("ended at once: apps are killed"),
    }
    drop(control);
    drop(socket);
    means.journal.flush().await;
    info!("ended");
    Ok(())
}

/// The deployments of a service so far.
fn history_of(means: &Means, service: &ServiceName) -> Result<Arc<History>, Fault> {
    let folder = means.state.service(service);
    let history = History::open(&folder, service).map_err(|cause| {
        Fault::config(format!("state {}: history.json: {cause}", folder.display()))
            .hint("mend its permissions, or move it away")
    })?;
    Ok(Arc::new(history))
}

/// Start again what was live when the last daemon ended. Traffic goes there at once: until the app
/// listens, connects are refused, and the proxy tries again.
async fn start_live(site: &Arc<Site>) {
    let Some(live) = site.ledger().live else {
        return;
    };
    let release = live.release_of(&site.name);
    match site.launch(live).await {
        Ok(launched) => {
            site.publish();
            for (instance, one) in launched.instances.into_iter().enumerate() {
                info!(%release, instance, address = %one.address, pid = one.process.pid(), "started again");
                site.bring_up(live.slot, instance, one);
            }
        }
        Err(why) => {
            let hint = why.hint.as_deref().unwrap_or_default();
            warn!(%release, %why, hint, "cannot start the live release again");
            site.publish();
        }
    }
}

/// Listen; what stands in the way is told with its remedy.
pub fn bind(address: SocketAddr, what: &str) -> Result<TcpListener, Fault> {
    let listener = TcpListener::bind(address).and_then(|listener| {
        listener.set_nonblocking(true)?;
        Ok(listener)
    });
    listener.map_err(|cause| {
        let fault = Fault::config(format!("{what} {address}: {}", reason(&cause)));
        match cause.kind() {
            io::ErrorKind::AddrInUse => {
                let other = if what == "admin" {
                    "choose another with --admin ADDRESS, or none with --admin off"
                } else {
                    "choose another address"
                };
                let port = address.port();
                fault.hint(format!(
                    "`ss -ltnp 'sport = :{port}'` shows who has it; stop that, or {other}"
                ))
            }
            io::ErrorKind::PermissionDenied => fault
                .hint("ports below 1024 need root or CAP_NET_BIND_SERVICE; choose a higher one"),
            io::ErrorKind::AddrNotAvailable => {
                fault.hint("this machine has no such address; `ip addr` lists what it has")
            }
            _ => fault,
        }
    })
}

/// The text of an I/O error without its number.
fn reason(cause: &io::Error) -> String {
    match cause.kind() {
        io::ErrorKind::AddrInUse => "address in use".to_owned(),
        io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        io::ErrorKind::AddrNotAvailable => "no such address on this machine".to_owned(),
        _ => cause.to_string(),
    }
}

fn local(listener: &TcpListener) -> Result<SocketAddr, Fault> {
    listener
        .local_addr()
        .map_err(|cause| Fault::failed(format!("listener: {cause}")))
}

fn absolute(path: &Path, what: &str) -> Result<PathBuf, Fault> {
    std::path::absolute(path)
        .map_err(|cause| Fault::config(format!("{what} {}: {cause}", path.display())))
}
