//! Rules of the `[service.NAME.health]` table. Pure.

use crate::check::Rules;
use crate::file::{Health, HealthKind};
use crate::tree::Place;

impl Rules {
    pub(super) fn health(&mut self, at: &Place, health: &Health) {
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
        self.request_path(at.key("path"), &health.path);
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
        self.command(&at.key("command"), &health.command);
        self.kind(at, health);
    }

    /// The path of a request, as it is sent.
    pub(super) fn request_path(&mut self, place: Place, path: &str) {
        if !path.starts_with('/') {
            let hint = format!("{:?}", format!("/{path}"));
            self.refuse(place, "a path begins with \"/\"", &hint);
        } else if !visible(path) || path.contains('#') {
            let reason = "a path has no space, \"#\" or other such character";
            let hint = "percent-encoding, as it is sent: \"%20\" for a space";
            self.refuse(place, reason, hint);
        }
    }

    /// A probe has no use for what only another kind looks at.
    fn kind(&mut self, at: &Place, health: &Health) {
        let default = Health::default();
        let kind = match health.kind {
            HealthKind::Http => "http",
            HealthKind::Tcp => "tcp",
            HealthKind::Notify => "notify",
            HealthKind::Command => "command",
            HealthKind::Process => "process",
        };
        for (field, owner, written) in [
            ("path", "http", health.path != default.path),
            ("host", "http", health.host != default.host),
            ("method", "http", health.method != default.method),
            ("status", "http", health.status != default.status),
            ("body", "http", health.body != default.body),
            ("command", "command", health.command != default.command),
            (
                "min_uptime",
                "process",
                health.min_uptime != default.min_uptime,
            ),
        ] {
            if written && kind != owner {
                let reason = format!("means nothing when kind is {kind:?}");
                let hint = format!("kind = {owner:?}, or leave it out");
                self.conflict(at.key(field), at.key("kind"), reason, &hint);
            }
        }
        if health.kind == HealthKind::Command && health.command.is_empty() {
            let hint = "command = [\"./healthy\"] beside it, or another kind";
            self.refuse(at.key("kind"), "no command to run", hint);
        }
    }
}

fn visible(text: &str) -> bool {
    text.chars().all(|c| c.is_ascii_graphic())
}
