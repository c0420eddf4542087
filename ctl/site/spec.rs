//! What is run for a placement: program, folder, environment, log. Looks at the store and reads the
//! env file anew each time; starts nothing.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use hotctl_config::suggest::nearest;
use hotctl_config::{Address, AddressKind, Digest, Health, HealthKind, PortName};
use hotctl_deploy::fingerprint::fingerprint;
use hotctl_deploy::machine::Placement;
use hotctl_deploy::process::{Notify, Outlive, Spec, remedy};
use hotctl_deploy::refused::Refused;
use hotctl_deploy::release::{self, Stored};
use hotctl_deploy::why::{Kind, Why};
use hotctl_deploy::{env_file, persist};

use super::adopt::Label;
use super::named::PortMap;
use super::place::Place;
use super::{Manner, Site};
use crate::store::on_disk;

/// Files of instances are told apart by their number, the first has none.
fn log_name(at: Placement, instance: usize) -> String {
    match instance {
        0 => format!("{}.{}.log", at.release, at.slot.0),
        n => format!("{}.{}.{n}.log", at.release, at.slot.0),
    }
}

impl Site {
    /// What to run for an instance.
    pub(super) fn spec(&self, at: Placement, instance: usize, place: &Place) -> Result<Spec, Why> {
        let address = place.address();
        let (stored, args) = self.content(at)?;
        let (program, own) = stored
            .command(&self.config().run, &args, &self.data())
            .map_err(refused)?;
        let mut spec = self.in_environment(at, &instance.to_string(), program, own, &stored)?;
        if let Some(folder) = self.earlier(at, &stored)? {
            spec.cwd = folder;
        }
        let kind = self.config().address_kind();
        let has = match kind {
            AddressKind::Port | AddressKind::Fixed(_) => "{port}",
            AddressKind::Unix => "{socket}",
            AddressKind::Socket | AddressKind::Nowhere => "",
        };
        let foreign = ["{port}", "{socket}"].into_iter().find(|word| {
            *word != has && spec.program.iter().any(|argument| argument.contains(word))
        });
        if let Some(word) = foreign {
            let text = format!(
                "{word} in the command, and the address of {} is \"{kind}\"",
                self.name
            );
            return Err(Why::new(Kind::NotStarted, text)
                .hint("take it out of the command, or change `address` in the configuration"));
        }
        let ports = place.named().ports();
        if let Some(name) = unknown_port(&spec.program, &ports) {
            let text = format!(
                "{{port.{name}}} in the command, and {} has no port of that name",
                self.name
            );
            return Err(
                Why::new(Kind::NotStarted, text).hint(match nearest_port(&name, &ports) {
                    Some(meant) => format!("{} in the command", meant.placeholder()),
                    None => "name it in `ports` of the service, in the configuration".into(),
                }),
            );
        }
        spec.env
            .push(("HOTCTL_INSTANCE".into(), instance.to_string()));
        if kind != AddressKind::Nowhere {
            spec.env
                .push(("HOST".into(), Ipv4Addr::LOCALHOST.to_string()));
        }
        let named = ports.iter();
        let mut meant: Vec<(String, String)> = named
            .map(|(name, port)| (name.placeholder(), port.to_string()))
            .collect();
        match (kind, address) {
            (AddressKind::Port | AddressKind::Fixed(_), Address::Inet(address)) => {
                let port = address.port().to_string();
                meant.push(("{port}".into(), port.clone()));
                spec.env.push(("PORT".into(), port));
            }
            (_, Address::Unix(path)) => {
                let path = path.display().to_string();
                meant.push(("{socket}".into(), path.clone()));
                spec.env.push(("SOCKET".into(), path));
            }
            // It has its socket, or listens nowhere, and has no use for a number.
            (_, Address::Inet(_) | Address::Nowhere) => {}
        }
        let config = self.config();
        for (placeholder, value) in &meant {
            fill(&mut spec.program, placeholder, value);
            for (name, text) in &mut spec.env {
                if config.env.contains_key(name) {
                    fill(std::slice::from_mut(text), placeholder, value);
                }
            }
        }
        for (name, port) in &ports {
            let variable = name.variable();
            // Whatever else says so, an env file or the daemon's own environment, means another.
            spec.env.retain(|(other, _)| *other != variable);
            spec.env.push((variable, port.to_string()));
        }
        spec.ports = ports.values().copied().collect();
        spec.listener = place.listener();
        let label = Label {
            at,
            instance,
            address: address.clone(),
            ports,
        };
        spec.outlive = match self.means.manner {
            Manner::Serve => Some(Outlive {
                folder: self.run_folder(),
                name: format!("{}.{instance}", at.slot.0),
                note: label.note(),
                leases: place.leases(),
            }),
            // It ends with whoever edits.
            Manner::Dev => None,
        };
        spec.notify = match self.config().health_kind() {
            HealthKind::Notify => Notify::Yes,
            HealthKind::Http | HealthKind::Tcp | HealthKind::Command | HealthKind::Process => {
                Notify::No
            }
        };
        spec.log = self.log_path(at, instance);
        Ok(spec)
    }

    /// What runs once before a release is started.
    ///
    /// # Errors
    /// If the release is not in the store, or its environment cannot be read.
    pub fn before_start(&self, at: Placement) -> Result<Spec, Why> {
        self.persist(at)?;
        self.hook(at, &self.config().before_start)
    }

    /// What runs once after a release went live.
    ///
    /// # Errors
    /// As [`Site::before_start`].
    pub fn on_live(&self, at: Placement) -> Result<Spec, Why> {
        self.hook(at, &self.config().on_live)
    }

    /// A command around the start of a release, in its folder and environment. Its output goes to
    /// the log of the release.
    fn hook(&self, at: Placement, command: &[String]) -> Result<Spec, Why> {
        let (stored, _) = self.content(at)?;
        let (program, own) = match stored.kind {
            release::Kind::Folder => stored
                .command(command, &[], &self.data())
                .map_err(refused)?,
            release::Kind::File => (command.to_vec(), self.data()),
        };
        let mut spec = self.in_environment(at, "hook", program, own, &stored)?;
        // It has no address: what speaks of one would mislead it.
        let config = self.config();
        spec.env
            .retain(|(name, value)| !config.env.contains_key(name) || !speaks_of_address(value));
        spec.log = self.log_path(at, 0);
        Ok(spec)
    }

    /// How an instance at this address, with these further ports, is asked whether it is healthy.
    pub fn health(&self, address: &Address, ports: &PortMap) -> Health {
        let mut health = self.config().health.clone();
        health.kind = self.config().health_kind();
        match address {
            Address::Inet(address) => {
                fill(&mut health.command, "{port}", &address.port().to_string());
            }
            Address::Unix(path) => {
                fill(&mut health.command, "{socket}", &path.display().to_string());
            }
            Address::Nowhere => {}
        }
        fill_ports(&mut health.command, ports);
        fill(
            &mut health.command,
            "{data}",
            &self.data().display().to_string(),
        );
        health
    }

    /// Let a folder release find what outlives it: see `persist` in the configuration.
    ///
    /// # Errors
    /// If it cannot be linked.
    pub(super) fn persist(&self, at: Placement) -> Result<(), Why> {
        let (stored, _) = self.content(at)?;
        if stored.kind == release::Kind::File || self.config().persist.is_empty() {
            return Ok(());
        }
        on_disk(|| persist::link(&stored.path, &self.data(), &self.config().persist))
            .map_err(refused)
    }

    /// What a start now would be given beside content and arguments, without telling what it is.
    ///
    /// # Errors
    /// If the env file cannot be read.
    pub fn environment(&self) -> Result<Digest, Why> {
        let config = &self.config();
        let mut all = self.configured().map_err(refused)?;
        // Under names that no variable can have.
        all.push(("=run".into(), shell_words::join(&config.run)));
        all.push(("=address".into(), config.address_kind().to_string()));
        all.push(("=instances".into(), config.instances.to_string()));
        all.push((
            "=workdir".into(),
            config
                .workdir
                .as_ref()
                .map_or_else(String::new, |path| path.display().to_string()),
        ));
        // Left out where there are none, so that what was deployed before there could be is unchanged.
        if !config.ports.is_empty() {
            let mut names: Vec<&str> = config.ports.iter().map(PortName::as_str).collect();
            names.sort_unstable();
            all.push(("=ports".into(), names.join(",")));
        }
        Ok(fingerprint(&self.key, &all))
    }

    /// Why something was not started, in the words of whoever edits: what runs from sources as they are is a
    /// copy in the store, and is mended where it was edited.
    pub(super) fn as_edited(&self, at: Placement, why: Why) -> Why {
        let config = self.config();
        let (Some(root), true) = (&config.build.root, config.build.command.is_empty()) else {
            return why;
        };
        let Ok((stored, _)) = self.content(at) else {
            return why;
        };
        let (copy, own) = (
            stored.path.display().to_string(),
            root.display().to_string(),
        );
        let text = why.text.replace(&copy, &own);
        let remedy = why.hint.as_ref().map(|hint| hint.replace(&copy, &own));
        let no_program = text.split_once(": not executable");
        Why {
            hint: remedy.or(no_program.map(|(path, _)| format!("chmod +x {path}"))),
            text: text.clone(),
            ..why
        }
    }

    /// Where the output of an instance is kept.
    pub(super) fn log_path(&self, at: Placement, instance: usize) -> PathBuf {
        self.logs().join(log_name(at, instance))
    }

    /// The folder of all logs.
    pub(super) fn logs(&self) -> PathBuf {
        self.folder().join("logs")
    }

    /// What outlives every release.
    pub fn data(&self) -> PathBuf {
        self.folder().join("data")
    }

    /// Sockets of shims.
    pub(super) fn run_folder(&self) -> PathBuf {
        self.folder().join("run")
    }

    /// Unix sockets of apps. Who is not the daemon's user has a folder of its own for that: it must not
    /// come to those of shims.
    pub(super) fn socket_folder(&self) -> PathBuf {
        let config = self.config();
        match (&config.user, &config.group) {
            (None, None) => self.run_folder(),
            _ => self.folder().join("sock"),
        }
    }

    pub(super) fn folder(&self) -> PathBuf {
        self.means.state.service(&self.name)
    }

    /// The stored content of a release, and the arguments it was deployed with.
    pub(super) fn content(&self, at: Placement) -> Result<(Stored, Vec<String>), Why> {
        let release = at.release_of(&self.name);
        let gone = || {
            Why::new(
                Kind::NoRelease,
                format!("{release}: its files are not in the store"),
            )
            .hint("deploy it again from its source")
        };
        let ledger = self.ledger();
        let record = ledger.releases.get(&at.release).ok_or_else(gone)?;
        let found = on_disk(|| self.store.find(&record.digest)).map_err(|cause| {
            let text = format!("{release}: its files cannot be read: {cause}");
            let why = Why::new(Kind::NotStarted, text);
            match remedy(&cause) {
                Some(remedy) => why.hint(remedy),
                None => why,
            }
        })?;
        Ok((found.ok_or_else(gone)?, record.args.clone()))
    }

    /// A program in the folder and the environment of a release. `what` tells it from others of the same
    /// placement.
    fn in_environment(
        &self,
        at: Placement,
        what: &str,
        mut program: Vec<String>,
        own: PathBuf,
        stored: &Stored,
    ) -> Result<Spec, Why> {
        let mut env = inherited();
        let data = self.data().display().to_string();
        let (confines, variables) = self.confines(at, what)?;
        env.extend(variables);
        env.extend(self.configured().map_err(refused)?);
        env.extend([
            ("HOTCTL_SERVICE".into(), self.name.to_string()),
            (
                "HOTCTL_RELEASE".into(),
                at.release_of(&self.name).to_string(),
            ),
            ("HOTCTL_DATA".into(), data.clone()),
        ]);
        fill(&mut program, "{data}", &data);
        fill(&mut program, "{release}", &folder_of(stored));
        Ok(Spec {
            program,
            env: last_of_each(env),
            cwd: self.config().workdir.clone().unwrap_or(own),
            log: PathBuf::new(),
            log_size: self.config().logs.file_size,
            log_files: self.config().logs.files.get(),
            listener: None,
            ports: Vec::new(),
            notify: Notify::No,
            confines,
            outlive: None,
        })
    }

    /// The variables of the configuration: those of the file, then those beside it.
    fn configured(&self) -> Result<Vec<(String, String)>, Refused> {
        let config = self.config();
        let mut all = match &config.env_file {
            Some(path) => on_disk(|| env_file::read(path))?,
            None => Vec::new(),
        };
        let written = config.env.iter();
        all.extend(written.map(|(name, value)| (name.clone(), value.clone())));
        Ok(last_of_each(all))
    }
}

/// The folder of a folder release; of a file, the one that it lies in.
fn folder_of(stored: &Stored) -> String {
    let folder = match stored.kind {
        release::Kind::Folder => Some(stored.path.as_path()),
        release::Kind::File => stored.path.parent(),
    };
    folder.unwrap_or(Path::new("/")).display().to_string()
}

fn fill(words: &mut [String], placeholder: &str, value: &str) {
    for word in words {
        if word.contains(placeholder) {
            *word = word.replace(placeholder, value);
        }
    }
}

fn fill_ports(words: &mut [String], ports: &PortMap) {
    for (name, port) in ports {
        fill(words, &name.placeholder(), &port.to_string());
    }
}

/// Whether what is written asks for where an instance listens.
fn speaks_of_address(value: &str) -> bool {
    let named = PortName::asked_for(value).next().is_some();
    named || value.contains("{port}") || value.contains("{socket}")
}

/// A port that a command asks for, and that there is not.
fn unknown_port(words: &[String], ports: &PortMap) -> Option<String> {
    let mut names = words.iter().flat_map(|word| PortName::asked_for(word));
    names
        .find(|name| !ports.contains_key(*name))
        .map(Into::into)
}

fn nearest_port<'a>(name: &str, ports: &'a PortMap) -> Option<&'a PortName> {
    let names: Vec<&str> = ports.keys().map(PortName::as_str).collect();
    let meant = nearest(name, &names)?;
    ports.get_key_value(meant).map(|(name, _)| name)
}

/// What is inherited of the daemon's own environment. What is no UTF-8 is left out: it could not be told
/// to a shim.
pub(super) fn inherited() -> Vec<(String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .filter(|(name, _)| !is_ours(name))
        .collect()
}

/// Of variables that are there twice, what was said last.
pub(super) fn last_of_each(env: Vec<(String, String)>) -> Vec<(String, String)> {
    let all: std::collections::BTreeMap<String, String> = env.into_iter().collect();
    all.into_iter().collect()
}

pub(super) fn refused(refused: Refused) -> Why {
    Why {
        hint: refused.hint,
        ..Why::new(Kind::NotStarted, refused.text)
    }
}

/// Variables that speak to the daemon and would mislead an app that inherits them.
fn is_ours(name: &str) -> bool {
    name.starts_with("HOTCTL_")
        || name.starts_with("LISTEN_")
        || name.starts_with("WATCHDOG_")
        || matches!(
            name,
            "NOTIFY_SOCKET"
                | "INVOCATION_ID"
                | "JOURNAL_STREAM"
                | "RUNTIME_DIRECTORY"
                | "STATE_DIRECTORY"
                | "PORT"
                | "HOST"
                | "SOCKET"
        )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn what_is_said_last_counts_and_each_variable_is_there_once() {
        let env = [("A", "1"), ("B", "2"), ("A", "3")];
        let env = env.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let kept = last_of_each(env.to_vec());
        let kept: Vec<_> = kept.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        assert_eq!(kept, [("A", "3"), ("B", "2")]);
    }

    #[test]
    fn each_port_stands_for_itself_in_a_command() {
        let ports: PortMap = [("debug", 1), ("debug_2", 2)]
            .map(|(name, port)| (name.parse().unwrap(), port))
            .into();
        let mut words = ["--inspect={port.debug}", "{port.debug_2}:{port}"].map(String::from);
        assert_eq!(unknown_port(&words, &ports), None);
        fill_ports(&mut words, &ports);
        assert_eq!(words, ["--inspect=1", "2:{port}"]);
        let unknown = unknown_port(&["{port.debgu}".into()], &ports).unwrap();
        let meant = nearest_port(&unknown, &ports).unwrap();
        assert_eq!((unknown.as_str(), meant.as_str()), ("debgu", "debug"));
    }

    #[test]
    fn the_first_instance_keeps_the_name_that_logs_always_had() {
        let at = Placement {
            release: 7,
            slot: hotctl_config::Slot(3),
        };
        assert_eq!(log_name(at, 0), "7.3.log");
        assert_eq!(log_name(at, 2), "7.3.2.log");
    }
}
