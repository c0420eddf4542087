//! Reading the configuration again while the daemon runs: whole, or not at all. Routes change as one
//! publication, services that did not change are not touched, and what cannot change without a
//! restart is named. Knows how that is done; who asks for it is for others.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hotctl_config::file::{Admin, Config, Listen};
use hotctl_config::names::ServiceName;
use hotctl_proxy::{Route, Table};
use tracing::{info, warn};

use crate::api::{ConfigChange, Effect, Noted, Reloaded, What};
use crate::daemon;
use crate::dev;
use crate::difference;
use crate::fault::Fault;
use crate::house::{House, Lodger, Resident};
use crate::metrics::Read;
use crate::service::{IfBusy, Order, Which, Wish};
use crate::site::Manner;
use crate::who::Giver;

/// Where the configuration comes from, at the start and again.
#[derive(Debug, Clone)]
pub struct Origin {
    /// Its file; none where flags alone say what there is.
    pub file: Option<PathBuf>,
    /// Go before what the file says.
    pub listen: Vec<SocketAddr>,
    /// As well.
    pub admin: Option<Admin>,
    /// For what the daemon runs.
    pub manner: Manner,
    /// What there is where there is no file: a project, as it was found.
    pub found: Option<Config>,
    /// Of the services, only these; empty = all.
    pub only: Vec<ServiceName>,
}

/// The configuration in force.
#[derive(Debug)]
pub struct Configured {
    origin: Origin,
    /// Held while a reload goes on: they follow one another.
    turn: tokio::sync::Mutex<()>,
    in_force: Mutex<InForce>,
}

#[derive(Debug, Clone)]
struct InForce {
    config: Config,
    revision: u64,
}

/// Whether a reload is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// It is.
    Apply,
    /// Only say what it would do.
    DryRun,
}

/// The revision of the configuration that the daemon starts with.
pub const FIRST: u64 = 1;

impl Origin {
    /// Read it, and check it whole.
    ///
    /// # Errors
    /// All that is wrong with it; or that there is none.
    pub fn read(&self) -> Result<Config, Fault> {
        let refused = |problems: hotctl_config::Problems| Fault::config(problems.to_string());
        let mut config = match (&self.file, &self.found, self.listen.first()) {
            (Some(file), _, _) => {
                let read = hotctl_config::read_with(file, |config| self.goes_before(config));
                read.map_err(refused)?
            }
            (None, Some(found), _) => {
                let mut config = found.clone();
                self.goes_before(&mut config);
                config
            }
            (None, None, Some(listen)) => {
                let mut config = hotctl_config::single(*listen);
                self.goes_before(&mut config);
                config
            }
            (None, None, None) => {
                return Err(Fault::config(
                    "no configuration found: neither ./hotctl.toml nor /etc/hotctl/hotctl.toml is there",
                )
                .hint("`hotctl serve --listen 127.0.0.1:8080` for one service, or `hotctl init`"));
            }
        };
        self.pick(&mut config)?;
        Ok(config)
    }

    /// What flags say, and for what the daemon runs.
    fn goes_before(&self, config: &mut Config) {
        if !self.listen.is_empty() {
            let listen = self.listen.iter();
            config.listen = listen.map(|&address| Listen { address }).collect();
        }
        if let Some(admin) = self.admin {
            config.admin = admin;
        }
        if self.manner == Manner::Dev {
            let file = self.file.as_deref().and_then(Path::parent);
            let folder = file.filter(|it| !it.as_os_str().is_empty());
            let folder = std::path::absolute(folder.unwrap_or(Path::new(".")));
            dev::at_the_desk(config, &folder.unwrap_or_else(|_| ".".into()));
        }
    }

    /// Leave out the services that are not wanted.
    fn pick(&self, config: &mut Config) -> Result<(), Fault> {
        if let Some(unknown) = self
            .only
            .iter()
            .find(|name| !config.services.contains_key(*name))
        {
            let names: Vec<&str> = config.services.keys().map(ServiceName::as_str).collect();
            return Err(Fault::config(format!("no service named {unknown}"))
                .hint(format!("one of: {}", names.join(", "))));
        }
        if !self.only.is_empty() {
            config.services.retain(|name, _| self.only.contains(name));
        }
        Ok(())
    }
}

impl Configured {
    /// Wait until nothing else changes what is in force, or who steers.
    pub async fn turn(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.turn.lock().await
    }

    /// The one that the daemon starts with.
    pub fn new(origin: Origin, config: Config) -> Self {
        Self {
            origin,
            turn: tokio::sync::Mutex::default(),
            in_force: Mutex::new(InForce {
                config,
                revision: FIRST,
            }),
        }
    }

    /// The file that it is read from, where there is one.
    pub fn file(&self) -> Option<PathBuf> {
        self.origin.file.clone()
    }

    /// What is in force now. A reload that goes on is not waited for: it may hang at its file.
    pub fn now(&self) -> Config {
        self.in_force().config.clone()
    }

    fn in_force(&self) -> MutexGuard<'_, InForce> {
        self.in_force.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The routes of a configuration.
pub fn table(config: &Config) -> Table {
    // A worker takes no requests.
    let services = config.services.iter().filter(|(_, service)| service.http);
    Table::new(services.map(|(name, service)| Route {
        service: name.clone(),
        hosts: service.hosts.clone(),
        paths: service.paths.clone(),
    }))
}

impl House {
    /// Read the configuration again and let it be in force; see the head of this file.
    ///
    /// # Errors
    /// If it is wrong, or cannot be in force yet. Nothing has changed then.
    pub async fn reload(self: &Arc<Self>, mode: Mode, by: &Giver) -> Result<Reloaded, Fault> {
        let _turn = self.configured.turn().await;
        if self.is_replaced() {
            let text = "this hotctl has been replaced by another";
            return Err(Fault::failed(text).hint("hotctl reload"));
        }
        if mode == Mode::Apply {
            self.starter.reloading();
        }
        let reloaded = self.read_again(mode, by).await;
        if mode == Mode::Apply {
            self.starter.ready(match &reloaded {
                Ok(_) => "serves, with the configuration as it is now",
                Err(_) => "serves; the configuration is wrong, and stays as it was",
            });
            let outcome = match reloaded {
                Ok(_) => Read::InForce,
                Err(_) => Read::Refused,
            };
            let revision = self.configured.in_force().revision;
            self.means.metrics.config_read(revision, outcome);
            if let Err(fault) = &reloaded {
                warn!(by = %by.who, "the configuration stays as it was: {}", fault.text);
                self.means.journal.note(
                    None,
                    Noted::ConfigRefused {
                        by: by.clone(),
                        error: fault.text.clone(),
                    },
                );
            }
        }
        reloaded
    }

    async fn read_again(self: &Arc<Self>, mode: Mode, by: &Giver) -> Result<Reloaded, Fault> {
        let origin = self.configured.origin.clone();
        let Some(file) = origin.file.clone() else {
            return Err(Fault::config(
                "there is no configuration file: hotctl was started with --listen",
            )
            .hint("`hotctl init` writes one; then start hotctl again"));
        };
        let read = tokio::task::spawn_blocking(move || origin.read()).await;
        let new = read.unwrap_or_else(|join| Err(Fault::failed(join.to_string())))?;
        let InForce { config, revision } = self.configured.in_force().clone();
        let changes = difference::between(&config, &new);
        let mut reloaded = Reloaded {
            file: file.display().to_string(),
            revision,
            dry_run: mode == Mode::DryRun,
            changes,
            notes: Vec::new(),
        };
        self.can_come(&reloaded.changes)?;
        if mode == Mode::DryRun {
            return Ok(reloaded);
        }
        let new = difference::without_restart(&config, new);
        let counts = |change: &ConfigChange| change.effect != Effect::Restart;
        if reloaded.changes.iter().any(counts) {
            reloaded.revision = revision + 1;
            let published = self.means.switch.publish(table(&new), reloaded.revision);
            published.map_err(|stale| Fault::failed(stale.to_string()))?;
        }
        *self.configured.in_force() = InForce {
            config: new.clone(),
            revision: reloaded.revision,
        };
        reloaded.notes = self.rearrange(&new, &reloaded.changes).await;
        for change in &reloaded.changes {
            info!(revision = reloaded.revision, "{change}");
        }
        info!(file = reloaded.file, revision = reloaded.revision, by = %by.who, changes = reloaded.changes.len(),
            "the configuration was read again");
        let names = reloaded.changes.iter().map(name_of).collect();
        self.means.journal.note(
            None,
            Noted::ConfigReloaded {
                by: by.clone(),
                revision: reloaded.revision,
                changes: names,
            },
        );
        Ok(reloaded)
    }

    /// Whether every service that comes can have its folder.
    fn can_come(&self, changes: &[ConfigChange]) -> Result<(), Fault> {
        let added = changes.iter().filter(|change| change.what == What::Added);
        for name in added.filter_map(|change| change.service.as_ref()) {
            if self.is_leaving(name) {
                return Err(Fault::failed(format!(
                    "{name}: was removed, and what it had begun is still being finished"
                ))
                .hint("again in a moment; `drain` says how long that may take"));
            }
        }
        Ok(())
    }

    /// Services come, change and go as the configuration says. What else there is to know.
    async fn rearrange(self: &Arc<Self>, config: &Config, changes: &[ConfigChange]) -> Vec<String> {
        let is_changed = |name: &ServiceName| {
            changes
                .iter()
                .any(|change| change.service.as_ref() == Some(name))
        };
        let mut notes = Vec::new();
        for (name, lodger) in self.lodgers() {
            match (config.services.get(&name), lodger) {
                (None, lodger) => self.send_away(&name, lodger),
                (Some(service), Lodger::Well(resident)) if is_changed(&name) => {
                    resident.site.configure(service.clone());
                }
                (Some(_), Lodger::Well(_)) => {}
                // Its state may have been mended.
                (Some(_), Lodger::Damaged(_)) => self.forget(&name),
            }
        }
        let here = self.lodgers();
        for (name, service) in &config.services {
            if here.contains_key(name) {
                continue;
            }
            let lodger = daemon::lodge(name, service, &self.means, &self.tasks()).await;
            if let Lodger::Damaged(damaged) = &lodger {
                notes.push(format!("{name}: {}", damaged.why));
            }
            self.let_in(name, lodger);
        }
        notes
    }

    /// A service is not in the routes any more: finish what it has begun, and end it, in the
    /// background.
    fn send_away(self: &Arc<Self>, name: &ServiceName, lodger: Lodger) {
        let Lodger::Well(resident) = lodger else {
            return self.forget(name);
        };
        self.leaves(name);
        let house = self.clone();
        let name = name.clone();
        self.tasks().services.spawn(async move {
            // Ends with the daemon, too: then nothing is waited for.
            let stop = resident.stop.clone();
            let _ = stop.run_until_cancelled(finish(&resident)).await;
            resident.stop.cancel();
            resident.rest.cancel();
            // Closed once its task has ended, and with that nothing of it runs.
            resident.orders.closed().await;
            house.has_left(&name);
            info!(service = %name, "removed from the configuration, and ended; its state is kept");
        });
    }
}

/// Let what it has begun come to its end, but for a deployment.
async fn finish(resident: &Resident) {
    let site = &resident.site;
    if site.ledger().deployment.is_some() {
        let wish = Wish::Cancel(Which::Any);
        let (order, mut progress) = Order::of(site, wish, Giver::daemon(), IfBusy::Wait);
        if resident.orders.send(order).await.is_ok() {
            while progress.recv().await.is_some() {}
        }
    }
    site.finish().await;
}

fn name_of(change: &ConfigChange) -> String {
    match (&change.service, &change.field) {
        (Some(service), Some(field)) => format!("{service}.{field}"),
        (Some(service), None) => match change.what {
            What::Removed => format!("-{service}"),
            What::Added | What::Changed => format!("+{service}"),
        },
        (None, field) => field.clone().unwrap_or_default(),
    }
}
