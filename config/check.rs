//! Rules across fields, and those of a single field that its type does not hold. Pure.
//!
//! Every rule runs, so that all that is wrong is told at once.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::file::{Admin, Config, Health, HealthKind, Service};
use crate::names::ServiceName;
use crate::tree::Place;
use crate::units::show_duration;

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
        // A deploy needs a port beside those of all the live releases.
        let (count, services) = (ports.count() as usize, config.services.len());
        if count <= services {
            let reason = format!("{count} ports for {services} services: a deploy needs one more");
            let services = Place::default().key("service");
            self.conflict(
                place,
                services,
                reason,
                "a wider range, such as \"20000-29999\"",
            );
        }
    }

    fn service(&mut self, at: &Place, service: &Service) {
        for (index, argument) in service.run.iter().enumerate() {
            if argument.is_empty() {
                let what = if index == 0 {
                    "the program is empty"
                } else {
                    "an empty argument"
                };
                self.refuse(at.key("run").index(index), what, "");
            } else if argument.contains('\0') {
                self.refuse(
                    at.key("run").index(index),
                    "an argument cannot contain NUL",
                    "",
                );
            }
        }
        if service.paths.is_empty() {
            let hint = "leave it out for every path";
            self.refuse(at.key("paths"), "without a path it gets no request", hint);
        }
        self.once(&at.key("hosts"), &service.hosts);
        self.once(&at.key("paths"), &service.paths);
        self.above_zero(at.key("start_timeout"), service.start_timeout);
        self.health(&at.key("health"), &service.health);
        // Only when it was written: a short start_timeout alone does not ask for a short interval,
        // since a release that starts is probed at growing distances from 2 ms on.
        let interval = service.health.interval;
        if interval > service.start_timeout && interval != Health::default().interval {
            let limit = show_duration(service.start_timeout);
            self.conflict(
                at.key("health").key("interval"),
                at.key("start_timeout"),
                format!("longer than start_timeout, {limit}"),
                "a shorter interval or a longer start_timeout",
            );
        }
    }

    fn health(&mut self, at: &Place, health: &Health) {
        let visible = |text: &str| text.chars().all(|c| c.is_ascii_graphic());
        self.above_zero(at.key("timeout"), health.timeout);
        self.above_zero(at.key("interval"), health.interval);
        for (field, count) in [("rise", health.rise), ("fall", health.fall)] {
            if count == 0 {
                self.refuse(
                    at.key(field),
                    "must be at least 1",
                    "leave it out for the default",
                );
            }
        }
        if !health.path.starts_with('/') {
            let hint = format!("{:?}", format!("/{}", health.path));
            self.refuse(at.key("path"), "a path begins with \"/\"", &hint);
        } else if !visible(&health.path) || health.path.contains('#') {
            let hint = "percent-encoding, as it is sent: \"%20\" for a space";
            self.refuse(
                at.key("path"),
                "a path has no space, \"#\" or other such character",
                hint,
            );
        }
        if health.method.is_empty() || !health.method.chars().all(|c| c.is_ascii_uppercase()) {
            let hint = "\"GET\" or \"HEAD\"";
            self.refuse(at.key("method"), "a method is a word in capitals", hint);
        }
        if let Some(host) = &health.host
            && (host.is_empty() || !visible(host) || host.contains('/'))
        {
            let hint = "a host such as \"example.com\"";
            self.refuse(at.key("host"), "not a host, with or without a port", hint);
        }
        if health.body.as_deref() == Some("") {
            self.refuse(
                at.key("body"),
                "empty text occurs everywhere",
                "leave it out",
            );
        }
        if health.body.is_some() && health.method == "HEAD" {
            let reason = "an answer to HEAD has no body";
            self.conflict(at.key("body"), at.key("method"), reason, "method = \"GET\"");
        }
        if health.kind == HealthKind::Tcp {
            self.tcp(at, health);
        }
    }

    /// A probe that only connects has no use for what is asked of an answer.
    fn tcp(&mut self, at: &Place, health: &Health) {
        let default = Health::default();
        for (field, written) in [
            ("path", health.path != default.path),
            ("host", health.host != default.host),
            ("method", health.method != default.method),
            ("status", health.status != default.status),
            ("body", health.body != default.body),
        ] {
            if written {
                let reason = "means nothing when kind is \"tcp\"";
                let hint = "kind = \"http\", or leave it out";
                self.conflict(at.key(field), at.key("kind"), reason, hint);
            }
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

    /// No request is for two services.
    fn routes(&mut self, config: &Config) {
        let mut taken: HashMap<(&str, &str), (&ServiceName, Place)> = HashMap::new();
        for (name, service) in &config.services {
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
