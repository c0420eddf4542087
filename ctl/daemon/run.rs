//! Runs what was booted until a signal ends it: requests are answered first, apps end last.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use hotctl_config::file::OnExit;
use hotctl_proxy::{Proxy, Settings, Stage};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::task::AbortOnDropHandle;
use tracing::{info, warn};

use super::boot::Booted;
use super::listeners::{Listeners, local};
use super::recover;
use crate::admin;
use crate::api::Noted;
use crate::control;
use crate::fault::Fault;
use crate::house::{Address, House, Parting, Tasks};
use crate::metrics::Scraped;
use crate::reload::{Configured, Mode};
use crate::socket::Callers;
use crate::who::{Giver, Who};

/// Serve until a signal ends it.
///
/// # Errors
/// If signals or a listener cannot be had.
pub async fn run(booted: Booted) -> Result<(), Fault> {
    let Booted {
        origin,
        config,
        listeners: Listeners { http, admin },
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
    // Reads the configuration again; a closed terminal does not end a daemon.
    let mut hangup = signal(SignalKind::hangup()).map_err(failed)?;
    let mut reopen = signal(SignalKind::user_defined1()).map_err(failed)?;

    let tasks = Tasks::default();
    let mut lodgers = BTreeMap::new();
    for (name, service) in &config.services {
        let lodger = recover::lodge(name, service, &means, &tasks).await;
        lodgers.insert(name.clone(), lodger);
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
    for listener in http {
        listen.push(local(&listener)?);
        let listener = tokio::net::TcpListener::from_std(listener).map_err(failed)?;
        let (proxy, stages) = (proxy.clone(), stages.clone());
        accepting.spawn(async move { proxy.serve(listener, stages).await });
    }
    let address = Address {
        listen: listen.clone(),
        admin: admin.as_ref().map(local).transpose()?,
    };
    let house = Arc::new(House::new(
        lodgers,
        address,
        callers.clone(),
        Configured::new(origin, config),
        means.clone(),
        tasks.clone(),
    ));
    let shown = house.clone();
    means.metrics.releases_from(move || {
        let residents = shown.residents().into_iter();
        residents
            .map(|resident| Scraped {
                service: resident.site.name.clone(),
                releases: resident.site.release_infos(),
                instances: resident.site.instance_counts(),
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
    let controlled = house.clone();
    let control = AbortOnDropHandle::new(tokio::spawn(async move {
        let app =
            control::router(controlled).into_make_service_with_connect_info::<control::Caller>();
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
            _ = hangup.recv() => {
                let house = house.clone();
                // What comes of it is in the log. It ends with the daemon: its file may hang.
                let rest = tasks.rest.clone();
                tokio::spawn(async move {
                    let by = Giver::signal();
                    drop(rest.run_until_cancelled(house.reload(Mode::Apply, &by)).await);
                });
            }
        }
    }
    means.journal.note(None, Noted::DaemonStopping);
    // Requests first: what is in flight is answered while the apps still run.
    info!("ending: no new connections, finishing what is in flight (again to end at once)");
    let _ = stage.send(Stage::Closing);
    let config = house.configured.now();
    let finished = async { while accepting.join_next().await.is_some() {} };
    tokio::select! {
        () = finished => {}
        () = tokio::time::sleep(config.shutdown_timeout) => warn!("shutdown_timeout is over: connections are cut"),
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tasks.rest.cancel();
    tasks.part(match config.on_exit {
        OnExit::Stop => Parting::Stop,
        OnExit::Keep => Parting::Leave,
    });
    tasks.services.close();
    let at_once = tokio::select! {
        () = tasks.services.wait() => false,
        _ = terminate.recv() => true,
        _ = interrupt.recv() => true,
    };
    if at_once && config.on_exit == OnExit::Stop {
        warn!("ended at once: apps are killed");
        for resident in house.residents() {
            resident.site.kill_everything().await;
        }
        tasks.services.wait().await;
    }
    drop(control);
    drop(socket);
    means.journal.flush().await;
    info!("ended");
    Ok(())
}
