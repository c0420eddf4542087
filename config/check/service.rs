//! Rules of one `[service.NAME]` table. Pure.

use std::path::{Component, Path};
use std::time::Duration;

use crate::check::Rules;
use crate::file::{AddressKind, Drain, Health, HealthKind, Limits, Logs, Service};
use crate::port_name::PortName;
use crate::suggest::nearest;
use crate::tree::Place;
use crate::units::{show_bytes, show_duration};

/// The most processes of one release.
const MOST_INSTANCES: u32 = 64;

/// The most further ports of one process: each is a descriptor that its shim keeps.
const MOST_PORTS: usize = 8;

/// The most requests that may wait.
const MOST_PARKED: u32 = 1_000_000;

/// The smallest a log file may be, in bytes: below, it is put aside every few lines.
const LEAST_LOG: u64 = 64 << 10;

/// The fewest descriptors: three, and what a loader and a runtime open.
const LEAST_FILES: u64 = 16;

impl Rules {
    pub(super) fn service(&mut self, at: &Place, service: &Service) {
        if service.paths.is_empty() {
            let hint = "leave it out for every path";
            self.refuse(at.key("paths"), "without a path it gets no request", hint);
        }
        self.once(&at.key("hosts"), &service.hosts);
        self.once(&at.key("paths"), &service.paths);
        if service.instances.get() > MOST_INSTANCES {
            let reason = format!("above {MOST_INSTANCES}");
            let hint = "fewer processes, each with threads of its own";
            self.refuse(at.key("instances"), reason, hint);
        }
        if let AddressKind::Fixed(port) = service.address
            && service.instances.get() > 1
        {
            let reason = format!("{} processes cannot share port {port}", service.instances);
            let hint = "leave it out, or address = \"port\"";
            self.conflict(at.key("instances"), at.key("address"), reason, hint);
        }
        match service.http {
            true if !service.overlap => {
                let hint = "strategy = \"recreate\"";
                self.refuse(at.key("overlap"), "only for a worker, http = false", hint);
            }
            true => {}
            false => self.worker(at, service),
        }
        self.named_ports(at, service);
        self.commands(at, service);
        self.environment(at, service);
        self.path(at.key("env_file"), service.env_file.as_deref());
        self.path(at.key("workdir"), service.workdir.as_deref());
        self.persist(&at.key("persist"), &service.persist);
        for (index, pattern) in service.ignore.iter().enumerate() {
            if let Some((reason, hint)) = no_pattern(pattern) {
                self.refuse(at.key("ignore").index(index), reason, hint);
            }
        }
        for (index, path) in service.warmup.iter().enumerate() {
            self.request_path(at.key("warmup").index(index), path);
        }
        for (field, time) in [
            ("start_timeout", service.start_timeout),
            ("before_start_timeout", service.before_start_timeout),
            ("on_live_timeout", service.on_live_timeout),
            ("warmup_timeout", service.warmup_timeout),
        ] {
            self.above_zero(at.key(field), time);
        }
        self.drain(&at.key("drain"), &service.drain);
        self.above_zero(at.key("park").key("time"), service.park.time);
        if service.park.max > MOST_PARKED {
            let reason = format!("above {MOST_PARKED}");
            let hint = "each that waits holds a connection: such as 1000";
            self.refuse(at.key("park").key("max"), reason, hint);
        }
        self.above_zero(
            at.key("crash_loop").key("within"),
            service.crash_loop.within,
        );
        let watch = at.key("watch");
        self.path(watch.key("path"), service.watch.path.as_deref());
        self.above_zero(watch.key("settle"), service.watch.settle);
        self.above_zero(watch.key("max_wait"), service.watch.max_wait);
        self.build(at, service);
        self.logs(&at.key("logs"), &service.logs);
        self.log_level(at, service);
        self.limits(&at.key("limits"), &service.limits);
        for (field, name) in [("user", &service.user), ("group", &service.group)] {
            if name.as_deref() == Some("") {
                self.refuse(at.key(field), "empty", "a name, or leave it out");
            }
        }
        let kind = service.health_kind();
        let health = Health {
            kind,
            ..service.health.clone()
        };
        self.health(&at.key("health"), &health);
        let min_uptime = service.health.min_uptime;
        if service.health_kind() == HealthKind::Process && min_uptime >= service.start_timeout {
            let limit = show_duration(service.start_timeout);
            self.conflict(
                at.key("health").key("min_uptime"),
                at.key("start_timeout"),
                format!("not below start_timeout, {limit}"),
                "a shorter min_uptime or a longer start_timeout",
            );
        }
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

    fn build(&mut self, at: &Place, service: &Service) {
        let (place, build) = (at.key("build"), &service.build);
        for (field, words) in [
            ("command", &build.command),
            ("pre", &build.pre),
            ("post", &build.post),
        ] {
            self.command(&place.key(field), words);
        }
        for (field, path) in [
            ("output", &build.output),
            ("root", &build.root),
            ("env_file", &build.env_file),
        ] {
            self.path(place.key(field), path.as_deref());
        }
        for (field, patterns) in [
            ("watch", &build.watch),
            ("ignore", &build.ignore),
            ("assets", &build.assets),
        ] {
            for (index, pattern) in patterns.iter().enumerate() {
                if let Some((reason, hint)) = no_pattern(pattern) {
                    self.refuse(place.key(field).index(index), reason, hint);
                }
            }
        }
        self.above_zero(place.key("timeout"), build.timeout);
        if build.command.is_empty() {
            return;
        }
        if build.output.is_none() {
            let reason = "a build without what it leaves";
            let hint = "output = \"target/debug/app\", say: what is deployed";
            self.refuse(place.key("output"), reason, hint);
        }
        if service.watch.path.is_some() {
            let reason = "what the build leaves is deployed, and no other path";
            let hint = "leave one of the two out";
            self.conflict(
                at.key("watch").key("path"),
                place.key("command"),
                reason,
                hint,
            );
        }
    }

    fn named_ports(&mut self, at: &Place, service: &Service) {
        let (place, ports) = (at.key("ports"), &service.ports);
        self.once(&place, ports);
        if ports.len() > MOST_PORTS {
            let reason = format!("more than {MOST_PORTS}");
            self.refuse(place.clone(), reason, "leave out what can share one");
        }
        let names: Vec<&str> = ports.iter().map(PortName::as_str).collect();
        let commands = [
            (at.key("run"), &service.run),
            (at.key("health").key("command"), &service.health.command),
        ];
        let words = commands.into_iter().flat_map(|(place, command)| {
            let words = command.iter().enumerate();
            words.map(move |(index, word)| (place.index(index), word))
        });
        let values = service.env.iter();
        let values = values.map(|(name, value)| (at.key("env").key(name.as_str()), value));
        for (written, word) in words.chain(values) {
            let unknown = PortName::asked_for(word).find(|name| !names.contains(name));
            let Some(name) = unknown else { continue };
            let reason = format!("{{port.{name}}} stands for nothing: ports has no such name");
            let hint = match (nearest(name, &names), name.parse::<PortName>()) {
                (Some(meant), _) => format!("{{port.{meant}}}"),
                (None, Ok(name)) => format!("ports = [\"{name}\"] beside it"),
                (None, Err(invalid)) => invalid.hint.unwrap_or_default(),
            };
            self.conflict(written, place.clone(), reason, &hint);
        }
    }

    fn commands(&mut self, at: &Place, service: &Service) {
        self.command(&at.key("run"), &service.run);
        self.command(&at.key("before_start"), &service.before_start);
        self.command(&at.key("on_live"), &service.on_live);
        let (kind, stranger, hint) = match service.address {
            AddressKind::Port => ("port", "{socket}", "{port}, or address = \"unix\""),
            AddressKind::Fixed(_) => ("fixed", "{socket}", "{port}, or address = \"unix\""),
            AddressKind::Nowhere => return,
            AddressKind::Unix => ("unix", "{port}", "{socket}, or address = \"port\""),
            AddressKind::Socket => (
                "socket",
                "{port}",
                "descriptor 3 is the socket, or address = \"port\"",
            ),
        };
        let words = service.run.iter().enumerate();
        let words = words.map(|(index, word)| (at.key("run").index(index), word));
        let values = service.env.iter();
        let values = values.map(|(name, value)| (at.key("env").key(name.as_str()), value));
        for (place, word) in words.chain(values) {
            if word.contains(stranger) {
                let reason = format!("{stranger} stands for nothing when address is {kind:?}");
                self.conflict(place, at.key("address"), reason, hint);
            }
        }
    }

    /// What has no meaning for a service that takes no requests.
    fn worker(&mut self, at: &Place, service: &Service) {
        let plain = Service::default();
        let written = [
            ("hosts", service.hosts != plain.hosts),
            ("paths", service.paths != plain.paths),
            ("address", service.address != plain.address),
            ("warmup", service.warmup != plain.warmup),
        ];
        for (field, _) in written.iter().filter(|(_, written)| *written) {
            let reason = "a worker takes no requests";
            self.conflict(
                at.key(*field),
                at.key("http"),
                reason,
                "leave it out, or http = true",
            );
        }
        if service.health.kind == HealthKind::Tcp {
            let reason = "a worker has nothing to connect to";
            let hint = "\"process\", \"notify\" or \"command\"";
            self.conflict(at.key("health").key("kind"), at.key("http"), reason, hint);
        }
    }

    /// A program and its arguments.
    pub(super) fn command(&mut self, at: &Place, words: &[String]) {
        for (index, word) in words.iter().enumerate() {
            if word.is_empty() {
                let what = if index == 0 {
                    "the program is empty"
                } else {
                    "an empty argument"
                };
                self.refuse(at.index(index), what, "");
            } else if word.contains('\0') {
                self.refuse(at.index(index), "an argument cannot contain NUL", "");
            }
        }
    }

    /// Names that the system takes, and that hotctl does not set itself.
    fn environment(&mut self, at: &Place, service: &Service) {
        for (name, value) in &service.env {
            let place = at.key("env").key(name.as_str());
            if name.is_empty() || name.contains(['=', '\0']) {
                let reason = "a name is not empty, and has neither \"=\" nor NUL";
                self.refuse(place, reason, "NAME = \"value\"");
            } else if is_own_variable(name)
                || service.ports.iter().any(|port| port.variable() == *name)
            {
                let reason = "hotctl sets it for each process";
                self.refuse(place, reason, "leave it out");
            } else if value.contains('\0') {
                self.refuse(place, "a value cannot contain NUL", "");
            }
        }
    }

    /// Places within a release, none inside another.
    fn persist(&mut self, at: &Place, list: &[String]) {
        for (index, item) in list.iter().enumerate() {
            let (place, path) = (at.index(index), Path::new(item));
            let normal = |part: &Component<'_>| matches!(part, Component::Normal(_));
            if item.is_empty() || !path.components().all(|part| normal(&part)) {
                let inner: Vec<_> = path
                    .components()
                    .filter(normal)
                    .map(|part| part.as_os_str().to_string_lossy())
                    .collect();
                let hint = match inner.is_empty() {
                    true => "such as \"data\"".into(),
                    false => format!("{:?}", inner.join("/")),
                };
                self.refuse(place, "not a path within the release", &hint);
                continue;
            }
            if item.contains('\0') {
                self.refuse(place, "a path cannot contain NUL", "");
                continue;
            }
            // As paths, so that "data" and "data/" are one.
            let others = list.iter().map(Path::new).enumerate();
            for (other, with) in others.filter(|(other, _)| *other != index) {
                if path == with && other < index {
                    let reason = format!("the same as {}", at.index(other));
                    let hint = "leave one of them out";
                    self.conflict(place.clone(), at.index(other), reason, hint);
                    break;
                }
                if path != with && !with.as_os_str().is_empty() && path.starts_with(with) {
                    let reason = format!("within {}, which is kept whole", at.index(other));
                    let hint = "leave the inner one out";
                    self.conflict(place.clone(), at.index(other), reason, hint);
                    break;
                }
            }
        }
    }

    fn drain(&mut self, at: &Place, drain: &Drain) {
        if !matches!(drain.close_code, 1001 | 1012) {
            let reason = "not a code that says that the server goes";
            let hint = "1012 (service restart) or 1001 (going away)";
            self.refuse(at.key("close_code"), reason, hint);
        }
        // Only when it was written: who shortens a drain does not ask for a spread.
        let (field, shorter): (_, Duration) = match drain.websockets <= drain.streams {
            true => ("websockets", drain.websockets),
            false => ("streams", drain.streams),
        };
        if drain.spread > shorter && drain.spread != Drain::default().spread {
            self.conflict(
                at.key("spread"),
                at.key(field),
                format!("longer than {field}, {}", show_duration(shorter)),
                &format!("a shorter spread or a longer time for {field}"),
            );
        }
    }

    fn limits(&mut self, at: &Place, limits: &Limits) {
        if limits.open_files.is_some_and(|files| files < LEAST_FILES) {
            let reason = format!("below {LEAST_FILES}: no program could even begin");
            self.refuse(at.key("open_files"), reason, "such as 1024");
        }
        if limits.processes == Some(0) {
            let hint = "such as 512, or leave it out";
            self.refuse(at.key("processes"), "not even one", hint);
        }
    }

    fn logs(&mut self, at: &Place, logs: &Logs) {
        if logs.file_size < LEAST_LOG {
            let reason = format!("below {}", show_bytes(LEAST_LOG));
            self.refuse(at.key("file_size"), reason, "such as \"16MiB\"");
        }
        if logs.total_size < logs.file_size {
            // Told at the one that was written, or at the second of the two.
            let default = Logs::default().total_size;
            let (field, other, limit) = match logs.total_size == default {
                true => (
                    "file_size",
                    "total_size",
                    format!("above total_size, {}", show_bytes(default)),
                ),
                false => (
                    "total_size",
                    "file_size",
                    format!("below file_size, {}", show_bytes(logs.file_size)),
                ),
            };
            let hint = "a smaller file_size or a larger total_size";
            self.conflict(at.key(field), at.key(other), limit, hint);
        }
    }
}

/// Whether hotctl sets a variable of a process itself, or means something by it: `env` cannot have it.
pub fn is_own_variable(name: &str) -> bool {
    matches!(name, "PORT" | "HOST" | "SOCKET" | "NOTIFY_SOCKET")
        || name.starts_with("LISTEN_")
        || name.starts_with("HOTCTL_")
}

/// Why a line is no pattern of `.gitignore` that could leave anything out, and what to write instead.
fn no_pattern(pattern: &str) -> Option<(&'static str, &'static str)> {
    let bare = pattern.trim_end();
    if bare.is_empty() || matches!(bare, "/" | "!" | "!/") {
        return Some(("matches nothing", "a pattern such as \"*.log\""));
    }
    if pattern.contains(['\0', '\n']) {
        return Some(("a pattern is one line", "an element of the list for each"));
    }
    if bare.starts_with('#') {
        return Some((
            "a comment, which matches nothing",
            "\"\\\\#…\" for a name that begins with \"#\"",
        ));
    }
    let mut open = false;
    let mut letters = pattern.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '\\' if letters.next().is_none() => {
                return Some((
                    "ends in a backslash with nothing after it",
                    "\"\\\\\\\\\" for a backslash",
                ));
            }
            '[' => open = true,
            ']' => open = false,
            _ => {}
        }
    }
    open.then_some((
        "a \"[\" that is not closed",
        "\"\\\\[\" for the letter itself",
    ))
}

#[cfg(test)]
#[path = "service_tests.rs"]
mod tests;
