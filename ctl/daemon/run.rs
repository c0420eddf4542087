//! Runs what was booted until a signal ends it: requests are answered first, apps end last.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use hotctl_config::file::OnExit;
use hotctl_proxy::{Desk, Proxy, Settings, Stage};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::task::AbortOnDropHandle;
use tracing::{info, warn};

use super::boot::Booted;
use super::door::Door;
use super::listeners::{Listeners, local};
use super::recover;
use super::signals::{Heard, Signals};
use crate::admin;
use crate::api::Noted;
use crate::dev::Console;
use crate::failpoint;
use crate::fault::Fault;
use crate::house::{Address, House, Parting, Tasks};
use crate::metrics::{Scraped, Upgrade};
use crate::notify::Watchdog;
use crate::reload::{Configured, Mode};
use crate::site::Manner;
use crate::socket::Callers;
use crate::upgrade::{self, Held, Order, Predecessor};
use crate::who::{Giver, Who};

/// How long the last answers to the command line may take once another hotctl serves.
const LAST_ANSWERS: Duration = Duration::from_secs(2);

/// Serve until a signal ends it.
///
/// # Errors
/// If signals or a listener cannot be had.
pub async fn run(
    booted: Booted,
    predecessor: &mut Option<Predecessor>,
    console: Option<Console>,
) -> Result<(), Fault> {
    let Booted {
        origin,
        config,
        listeners: Listeners { http, admin },
        control,
        mut socket,
        callers,
        means,
        registry,
        access_log,
        threads,
    } = booted;
    let failed = |cause: io::Error| Fault::failed(format!("signals: {cause}"));
    // Before anything is started, so that no signal finds us without an answer.
    let mut signals = Signals::new().map_err(failed)?;
    let held = Held::of(&http, admin.as_ref(), &control, &socket, &means.state);
    let mut held = held.map_err(|cause| Fault::failed(format!("descriptors: {cause}")))?;

    // What happens from here on is told at the desk.
    let since = means.journal.newest();
    let tasks = Tasks::default();
    let mut lodgers = BTreeMap::new();
    for (name, service) in &config.services {
        let lodger = recover::lodge(name, service, &means, &tasks).await;
        lodgers.insert(name.clone(), lodger);
        if let Some(predecessor) = predecessor {
            predecessor.busy();
        }
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
            desk: console
                .as_ref()
                .map(|it| it.browser.clone() as Arc<dyn Desk>),
        },
    );
    let mut accepting = JoinSet::new();
    let replaces = predecessor.as_ref().map(Predecessor::pid);
    if let Some(predecessor) = predecessor.take() {
        failpoint::pass("before-ready");
        socket.keep();
        // It accepts until it reads this, and we do from now on.
        let arrivals = predecessor.ready();
        let (arrive, arriving) = mpsc::unbounded_channel();
        let (proxy, stages, means) = (proxy.clone(), stages.clone(), means.clone());
        accepting.spawn(async move { proxy.serve_passed(arriving, stages).await });
        // Ends with the predecessor, or with us.
        let serving = means.serving.subscribe();
        tokio::spawn(async move {
            arrivals.receive(arrive, &means.predecessor, serving).await;
        });
    }
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
    let (wish, mut upgrades) = mpsc::channel(1);
    let house = Arc::new(House::new(
        lodgers,
        address,
        callers.clone(),
        Configured::new(origin, config),
        means.clone(),
        tasks,
        wish,
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
    let admin = match admin {
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
    let mut door = Door::open(house.clone(), callers.clone(), socket, control);
    let shown: Vec<String> = listen.iter().map(ToString::to_string).collect();
    info!(listen = %shown.join(" "), control = %door.socket().path().display(), state = %means.state.root().display(),
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
            replaces,
        },
    );
    if replaces.is_some() {
        means.metrics.upgrade(Upgrade::Replaced);
    }
    let starter = house.starter.clone();
    starter.ready(&format!("serves {}", shown.join(" ")));
    // Ends with us.
    let mut console = console.map(|console| {
        AbortOnDropHandle::new(tokio::spawn(console.run(
            house.clone(),
            shown.join(" "),
            since,
        )))
    });
    let mut fault = None;
    let mut watchdog = Watchdog::of_environment();

    let successor = loop {
        let heard = tokio::select! {
            () = watchdog.due() => {
                starter.alive();
                continue;
            }
            () = door.due() => {
                door.keep(&mut held);
                continue;
            }
            wrong = ended(&mut console) => {
                fault = Some(wrong);
                break None;
            }
            Some(order) = upgrades.recv() => Err(order),
            heard = signals.next() => Ok(heard),
        };
        let order = match heard {
            Err(order) => order,
            Ok(Heard::Upgrade) => Order::of_signal(),
            Ok(Heard::End) => break None,
            Ok(Heard::Reopen) => {
                info!("opening the access log anew");
                access_log.reopen();
                continue;
            }
            // Its terminal is closed: nobody is left who could see or end it.
            Ok(Heard::Reload) if house.means.manner == Manner::Dev => {
                if signals.is_hangup_ignored() {
                    continue;
                }
                break None;
            }
            Ok(Heard::Reload) => {
                let house = house.clone();
                // What comes of it is in the log. It ends with the daemon: its file may hang.
                let rest = house.tasks().rest;
                tokio::spawn(async move {
                    let by = Giver::signal();
                    drop(
                        rest.run_until_cancelled(house.reload(Mode::Apply, &by))
                            .await,
                    );
                });
                continue;
            }
        };
        // Who takes over gets what is there.
        door.keep(&mut held);
        let mut ends = false;
        let replaced = {
            let end = async {
                signals.end().await;
                ends = true;
            };
            let mut replaced = std::pin::pin!(upgrade::replace(&house, &held, &order, end));
            loop {
                tokio::select! {
                    replaced = &mut replaced => break replaced,
                    () = watchdog.due() => starter.alive(),
                }
            }
        };
        match replaced {
            Ok((successor, upgraded)) => {
                let _ = order.tell.send(Ok(upgraded));
                break Some(successor);
            }
            Err(fault) => drop(order.tell.send(Err(fault))),
        }
        if ends {
            break None;
        }
    };
    // Nobody is to be taken in by a socket that nobody accepts from.
    drop(held);
    // Whoever still asks for an upgrade is told that it is too late.
    drop(upgrades);
    if let Some(mut successor) = successor {
        door.close();
        drop(admin);
        door.socket().leave();
        means.state.let_go();
        if let Some(signal) = signals.unheard_end() {
            // It was meant for whoever serves.
            successor.signal(signal);
        }
        let (way, leaving) = mpsc::unbounded_channel();
        proxy.passes_to(way);
        let _ = stage.send(Stage::Passing);
        let within = house.configured.now().shutdown_timeout;
        let follow = |serving| upgrade::follow(&house, serving);
        let finished = successor.see_off(all_of(&mut accepting), leaving, follow);
        if finish(finished, within, &mut signals).await == Finished::OutOfTime {
            cut_what_is_left(&house, &mut signals).await;
        }
        // Answers to the command line are short; who follows something follows the other now.
        let _ = tokio::time::timeout(LAST_ANSWERS, door.closed()).await;
        info!("ended: another hotctl serves");
        return Ok(());
    }
    means.journal.note(None, Noted::DaemonStopping);
    // Requests first: what is in flight is answered while the apps still run.
    info!("ending: no new connections, finishing what is in flight (again to end at once)");
    let _ = stage.send(Stage::Closing);
    let config = house.configured.now();
    let stop_timeouts = config.services.values().map(|service| service.stop_timeout);
    let within = config.shutdown_timeout + stop_timeouts.max().unwrap_or_default();
    let stopping = starter.stopping("ends: finishing what is in flight", within);
    let finished = finish(
        all_of(&mut accepting),
        config.shutdown_timeout,
        &mut signals,
    );
    if finished.await == Finished::OutOfTime {
        cut_what_is_left(&house, &mut signals).await;
    }
    let tasks = house.tasks();
    tasks.rest.cancel();
    tasks.part(match config.on_exit {
        OnExit::Stop => Parting::Stop,
        OnExit::Keep => Parting::Leave,
    });
    tasks.services.close();
    let at_once = tokio::select! {
        () = tasks.services.wait() => false,
        () = signals.end() => true,
    };
    if at_once && config.on_exit == OnExit::Stop {
        warn!("ended at once: apps are killed");
        for resident in house.residents() {
            resident.site.kill_everything().await;
        }
        tasks.services.wait().await;
    }
    drop(door);
    means.journal.flush().await;
    drop(stopping);
    info!("ended");
    fault.map_or(Ok(()), Err)
}

/// What a console ends for, before it is told to.
async fn ended(console: &mut Option<AbortOnDropHandle<Fault>>) -> Fault {
    let Some(console) = console else {
        return std::future::pending().await;
    };
    let ended = console.await;
    // A panic, which the runtime has logged.
    ended.unwrap_or_else(|cause| Fault::failed(cause.to_string()))
}

/// The end of all of these.
async fn all_of(tasks: &mut JoinSet<()>) {
    while tasks.join_next().await.is_some() {}
}

/// The time is over: WebSockets are told so, and the rest is cut.
async fn cut_what_is_left(house: &House, signals: &mut Signals) {
    let residents = house.residents();
    let cuts = residents
        .iter()
        .map(|resident| resident.site.cut_everything());
    tokio::select! {
        _ = futures_util::future::join_all(cuts) => {}
        () = signals.end() => {}
    }
}

/// Why what is in flight is not waited for any longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Finished {
    /// There is nothing.
    All,
    /// The time for it is over.
    OutOfTime,
    /// Somebody does not want to wait.
    Hurried,
}

/// Wait until what is in flight has ended, or is not waited for any longer.
async fn finish(
    finished: impl Future<Output = ()>,
    within: Duration,
    signals: &mut Signals,
) -> Finished {
    tokio::select! {
        () = finished => Finished::All,
        () = tokio::time::sleep(within) => {
            warn!("shutdown_timeout is over: connections are cut");
            Finished::OutOfTime
        }
        () = signals.end() => Finished::Hurried,
    }
}
