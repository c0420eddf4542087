//! The log level of an app: whom of a service it concerns, and how each of them is told. What a process
//! was started with is not changed by it, so that the next one begins as before.

use futures_util::future::join_all;
use hotctl_config::Address;
use hotctl_config::file::LevelSignal;
use hotctl_config::names::ReleaseId;
use hotctl_deploy::heed::Heed;
use hotctl_deploy::process::Process;
use tracing::info;

use super::Site;
use super::slot::State;
use crate::api::{LevelChanged, Noted, ToldProcess};
use crate::fault::Fault;
use crate::level_request::LevelRequest;
use crate::who::Giver;

/// Why the level of an app stays what it is, in each process or in some.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LevelStays {
    /// The configuration does not say how.
    NoWay(Fault),
    /// Nothing is there to be told, or it could not be without harm. Nothing was sent.
    NotNow(Fault),
    /// Not every process took it.
    NotTaken(Fault),
}

/// A process that is to be told.
#[derive(Debug)]
struct Hearer {
    release: ReleaseId,
    instance: usize,
    process: Process,
    address: Address,
}

impl Site {
    /// Let what is live, and a candidate that is up, write as much as this level says.
    ///
    /// # Errors
    /// Why not.
    pub async fn change_level(&self, level: &str, by: &Giver) -> Result<LevelChanged, LevelStays> {
        let change = &self.config().log_level;
        let way = match (change.signal, LevelRequest::of(change, level)) {
            (Some(signal), _) => Way::Signal(signal),
            (None, Some(request)) => Way::Request(request),
            (None, None) => {
                let text = format!(
                    "{}: how its log level is changed is not configured",
                    self.name
                );
                let hint = format!(
                    "[service.{}.log_level] in the configuration, with signal = \"USR1\" or request = \"PUT /loglevel?level={{level}}\"; then hotctl reload",
                    self.name
                );
                return Err(LevelStays::NoWay(Fault::failed(text).hint(hint)));
            }
        };
        let hearers = self.hearers();
        if hearers.is_empty() {
            let text = format!("{}: no process of it is up", self.name);
            let hint = format!("hotctl status {}", self.name);
            return Err(LevelStays::NotNow(Fault::failed(text).hint(hint)));
        }
        if let Way::Signal(signal) = way {
            // All of them first: half a service at another level helps nobody.
            for hearer in &hearers {
                hearer.would_stand(signal)?;
            }
        }
        let told = join_all(hearers.iter().map(|hearer| hearer.tell(&way, self))).await;
        let (mut processes, mut failed) = (Vec::new(), Vec::new());
        for outcome in told {
            match outcome {
                Ok(process) => processes.push(process),
                Err(text) => failed.push(text),
            }
        }
        let error = (!failed.is_empty()).then(|| failed.join("; "));
        info!(service = %self.name, level, by = %by.who, how = way.shown(), processes = processes.len(),
            error, "log level of the app");
        self.journal(Noted::LogLevelChanged {
            by: by.clone(),
            level: level.to_owned(),
            how: way.shown(),
            pids: processes.iter().map(|one| one.pid).collect(),
            error: error.clone(),
        });
        let Some(error) = error else {
            return Ok(LevelChanged {
                service: self.name.clone(),
                level: level.to_owned(),
                signal: match way {
                    Way::Signal(signal) => Some(signal.to_string()),
                    Way::Request(_) => None,
                },
                request: match &way {
                    Way::Signal(_) => None,
                    Way::Request(request) => Some(request.shown()),
                },
                processes,
            });
        };
        let others = match processes.len() {
            0 => String::new(),
            1 => "; one other process has taken it".to_owned(),
            n => format!("; {n} other processes have taken it"),
        };
        let fault = Fault::failed(format!("{error}{others}"));
        Err(LevelStays::NotTaken(
            fault.hint(format!("hotctl logs {}", self.name)),
        ))
    }

    /// Those that serve, or are about to; what is kept warm or drains is on its way out.
    fn hearers(&self) -> Vec<Hearer> {
        let inner = self.inner();
        let concerned = inner
            .slots
            .values()
            .filter(|r| matches!(inner.role(r.at), "live" | "candidate"));
        concerned
            .flat_map(|r| {
                let release = r.at.release_of(&self.name);
                let up = r.instances.iter().enumerate();
                up.filter(|(_, one)| one.state == State::Up)
                    .map(move |(instance, one)| Hearer {
                        release: release.clone(),
                        instance,
                        process: one.process.clone(),
                        address: one.place.address().clone(),
                    })
            })
            .collect()
    }
}

/// How a process is told.
#[derive(Debug)]
enum Way {
    Signal(LevelSignal),
    Request(LevelRequest),
}

impl Way {
    /// Without what may be a secret.
    fn shown(&self) -> String {
        match self {
            Self::Signal(signal) => signal.to_string(),
            Self::Request(request) => request.shown(),
        }
    }
}

impl Hearer {
    /// That the signal would change a level at all, and not end the process.
    fn would_stand(&self, signal: LevelSignal) -> Result<(), LevelStays> {
        let does = match (self.process.heeds(&signal.to_string()), signal) {
            (Some(Heed::Handles) | None, _) => return Ok(()),
            (Some(Heed::Ignores), _) | (Some(Heed::Default), LevelSignal::Winch) => "ignores it",
            (Some(Heed::Default), LevelSignal::Ttin | LevelSignal::Ttou) => {
                "has no handler for it, and would be stopped"
            }
            (Some(Heed::Default), _) => "has no handler for it, and would be ended by it",
        };
        let text = format!(
            "{}: {signal} not sent: process {} {does}",
            self.release,
            self.process.pid()
        );
        let hint = "the signal that the app changes its level by, or request = \"PUT …\", in log_level of the service";
        Err(LevelStays::NotNow(Fault::failed(text).hint(hint)))
    }

    async fn tell(&self, way: &Way, site: &Site) -> Result<ToldProcess, String> {
        let pid = self.process.pid();
        let told = match way {
            Way::Signal(signal) => {
                let sent = self.process.signal_app(&signal.to_string()).await;
                sent.map(|()| None)
                    .map_err(|cause| format!("{signal} not sent: {cause}"))
            }
            Way::Request(request) => {
                let host = site.config().health.host.clone();
                request.send(&self.address, host.as_deref()).await.map(Some)
            }
        };
        let status = told.map_err(|why| format!("{}: process {pid}: {why}", self.release))?;
        Ok(ToldProcess {
            release: self.release.clone(),
            instance: self.instance,
            pid,
            status,
        })
    }
}
