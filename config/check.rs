//! Rules across fields, and those of a single field that its type does not hold. Pure.
//!
//! Every rule runs, so that all that is wrong is told at once.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use crate::file::{AccessLog, AddressKind, Admin, Config, Service};
use crate::names::ServiceName;
use crate::tree::Place;

mod health;
mod log_level;
mod service;

pub use service::is_own_variable;

/// A rule that is broken.
#[derive(Debug)]
pub(crate) struct Finding {
    /// The field that is refused.
    pub place: Place,
    pub reason: String,
    pub hint: Option<String>,
    /// The field that it is in conflict with. Its line is told as well.
    pub with: Option<Place>,
}

/// All rules that a configuration breaks.
pub(crate) fn check(config: &Config) -> Vec<Finding> {
    let mut rules = Rules(Vec::new());
    let top = Place::default();
    rules.listeners(config);
    rules.ports(config);
    if config.threads.is_some_and(|threads| threads.get() > 1024) {
        rules.refuse(
            top.key("threads"),
            "above 1024",
            "leave it out for one for each core",
        );
    }
    let timeouts = &config.timeouts;
    for (field, time) in [
        ("connect", timeouts.connect),
        ("header", timeouts.header),
        ("idle", timeouts.idle),
    ] {
        rules.above_zero(top.key("timeouts").key(field), time);
    }
    if config.services.is_empty() {
        rules.refuse(
            top.key("service"),
            "no service",
            "a table such as [service.web]",
        );
    }
    rules.places(config);
    for (name, service) in &config.services {
        rules.service(&top.key("service").key(name.as_str()), service);
    }
    rules.routes(config);
    rules.0
}

struct Rules(Vec<Finding>);

impl Rules {
    fn refuse(&mut self, place: Place, reason: impl Into<String>, hint: &str) {
        let hint = (!hint.is_empty()).then(|| hint.into());
        self.0.push(Finding {
            place,
            reason: reason.into(),
            hint,
            with: None,
        });
    }

    fn conflict(&mut self, place: Place, with: Place, reason: impl Into<String>, hint: &str) {
        self.refuse(place, reason, hint);
        if let Some(finding) = self.0.last_mut() {
            finding.with = Some(with);
        }
    }

    fn above_zero(&mut self, place: Place, time: Duration) {
        if time.is_zero() {
            self.refuse(place, "must be above 0", "leave it out for the default");
        }
    }

    /// Each element of a list once.
    fn once<T: PartialEq>(&mut self, at: &Place, list: &[T]) {
        for (index, item) in list.iter().enumerate() {
            if let Some(first) = list.iter().take(index).position(|other| other == item) {
                let first = at.index(first);
                let reason = format!("the same as {first}");
                self.conflict(at.index(index), first, reason, "leave one of them out");
            }
        }
    }

    fn path(&mut self, place: Place, path: Option<&Path>) {
        if path.is_some_and(|path| path.as_os_str().is_empty()) {
            self.refuse(place, "not a path", "leave it out for none");
        }
    }

    /// There is one, and each address is bound once.
    fn listeners(&mut self, config: &Config) {
        let listen = Place::default().key("listen");
        if config.listen.is_empty() {
            let hint = "a table [[listen]] with an address, such as \"0.0.0.0:80\"";
            self.refuse(listen.clone(), "no listener", hint);
        }
        let mut taken: Vec<(Place, SocketAddr)> = Vec::new();
        let listeners = config
            .listen
            .iter()
            .enumerate()
            .map(|(index, listener)| (listen.index(index).key("address"), listener.address));
        let admin = match config.admin {
            Admin::At(address) => Some((Place::default().key("admin"), address)),
            Admin::Off => None,
        };
        for (place, address) in admin.into_iter().chain(listeners) {
            match taken.iter().find(|(_, other)| collide(address, *other)) {
                Some((other, same)) if *same == address => {
                    let reason = format!("the same address as {other}");
                    self.conflict(place, other.clone(), reason, "another address or port");
                }
                Some((other, wider)) => {
                    let reason = format!("cannot be bound beside {other}, {wider}");
                    self.conflict(
                        place,
                        other.clone(),
                        reason,
                        "one of the two, or another port",
                    );
                }
                None => taken.push((place, address)),
            }
        }
        let ports = Place::default().key("ports");
        for (name, service) in &config.services {
            let AddressKind::Fixed(port) = service.address else {
                continue;
            };
            let place = Place::default()
                .key("service")
                .key(name.as_str())
                .key("address");
            let address = SocketAddr::from(([127, 0, 0, 1], port.get()));
            match taken.iter().find(|(_, other)| collide(address, *other)) {
                Some((other, _)) => {
                    let reason = format!("port {port} is taken by {other}");
                    self.conflict(
                        place,
                        other.clone(),
                        reason,
                        "another port for one of the two",
                    );
                }
                None => taken.push((place, address)),
            }
        }
        for (place, address) in taken {
            if config.ports.contains(address.port()) {
                let reason = format!("port {} is one of ports, {}", address.port(), config.ports);
                let hint = "a port that services are not started on";
                self.conflict(place, ports.clone(), reason, hint);
            }
        }
    }

    fn ports(&mut self, config: &Config) {
        let (place, ports) = (Place::default().key("ports"), config.ports);
        if ports.first < 1024 {
            let reason = "ports below 1024 are for the system";
            self.refuse(place.clone(), reason, "such as \"20000-29999\"");
        }
        // A deploy needs its ports beside those of all the live releases, which is all that is sure:
        // those that drain have theirs too, and a deploy waits for one of them if it must.
        let needs =
            |(name, service): (&ServiceName, &Service)| (service.leased_ports(), name.to_string());
        let live = config.services.iter().map(|it| needs(it).0);
        let live = live.fold(0, u32::saturating_add);
        let most = config.services.iter().map(needs).max();
        if let Some((more, name)) = most
            && ports.count() < live.saturating_add(more)
        {
            let reason = format!(
                "{} ports, and what is live takes {live}: a deploy of {name} needs {more} more",
                ports.count()
            );
            let services = Place::default().key("service");
            let hint = "a wider range, such as \"20000-29999\"";
            self.conflict(place, services, reason, hint);
        }
    }

    /// Files and names of the whole daemon.
    fn places(&mut self, config: &Config) {
        let top = Place::default();
        if let AccessLog::File(path) = &config.access_log
            && path.as_os_str().as_encoded_bytes().ends_with(b"/")
        {
            let hint = format!("{:?}", path.join("access.log"));
            self.refuse(top.key("access_log"), "a folder, not a file", &hint);
        }
        self.path(top.key("include"), config.include.as_deref());
        if let Some(group) = &config.control.group {
            let letter = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '$');
            let named = group.chars().any(|c| !c.is_ascii_digit());
            if !named || group.starts_with('-') || !group.chars().all(letter) {
                let hint = "its name, such as \"deploy\"";
                self.refuse(
                    top.key("control").key("group"),
                    "not the name of a group",
                    hint,
                );
            }
        }
    }

    /// No request is for two services.
    fn routes(&mut self, config: &Config) {
        let mut taken: HashMap<(&str, &str), (&ServiceName, Place)> = HashMap::new();
        for (name, service) in config.services.iter().filter(|(_, it)| it.http) {
            let at = Place::default().key("service").key(name.as_str());
            let hosts: Vec<(&str, Option<usize>)> = match service.hosts.as_slice() {
                [] => vec![("", None)],
                hosts => hosts
                    .iter()
                    .enumerate()
                    .map(|(n, host)| (host.as_str(), Some(n)))
                    .collect(),
            };
            // One finding for each other service says enough.
            let mut told: Vec<&ServiceName> = Vec::new();
            for (host, index) in hosts {
                for (number, path) in service.paths.iter().map(|path| path.as_str()).enumerate() {
                    let place = match index {
                        Some(index) => at.key("hosts").index(index),
                        None => at.key("paths").index(number),
                    };
                    match taken.get(&(host, path)) {
                        None => _ = taken.insert((host, path), (name, place)),
                        Some((other, with)) if *other != name && !told.contains(other) => {
                            let host = if host.is_empty() { "every host" } else { host };
                            let reason = format!(
                                "path {path:?} of {host} belongs to service {other} already"
                            );
                            let hint = "other hosts or paths for one of the two";
                            told.push(other);
                            self.conflict(place, with.clone(), reason, hint);
                        }
                        Some(_) => {}
                    }
                }
            }
        }
    }
}

/// Whether the system refuses to bind both. An unspecified address takes all of its family.
fn collide(a: SocketAddr, b: SocketAddr) -> bool {
    let ip = |a: IpAddr, b: IpAddr| {
        a == b || a.is_ipv4() == b.is_ipv4() && (a.is_unspecified() || b.is_unspecified())
    };
    a.port() == b.port() && a.port() != 0 && ip(a.ip(), b.ip())
}

#[cfg(test)]
#[path = "check_tests.rs"]
mod tests;
