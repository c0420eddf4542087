//! What differs between two configurations, field by field, and from when on each difference counts.
//! Pure; applies nothing.

use std::collections::BTreeMap;

use hotctl_config::file::Config;
use hotctl_config::names::ServiceName;
use serde_json::Value;

use crate::api::{ConfigChange, Effect, What};

/// Values are shown up to so many characters.
const SHOWN: usize = 60;

/// Fields at the top that can only be read when hotctl itself starts.
const OF_THE_DAEMON: [&str; 7] = [
    "access_log",
    "admin",
    "control",
    "listen",
    "ports",
    "threads",
    "timeouts",
];
/// Also one of them; apart from the others, for their order.
const TRUSTED: &str = "trusted_proxies";
/// Fields of a service that count at once.
const AT_ONCE: [&str; 18] = [
    "build",
    "crash_loop",
    "drain",
    "health",
    "hosts",
    "ignore",
    "keep_releases",
    "log_level",
    "logs.total_size",
    "max_failures",
    "memory_max",
    "on_crash_loop",
    "park",
    "paths",
    "recycle",
    "start_timeout",
    "stop_timeout",
    "watch",
];
/// Fields of a service that only a deployment looks at.
const OF_A_DEPLOYMENT: [&str; 9] = [
    "before_start",
    "before_start_timeout",
    "keep_warm",
    "on_live",
    "on_live_timeout",
    "overlap",
    "strategy",
    "warmup",
    "warmup_timeout",
];
/// Never shown: it may hold secrets.
const SECRET: &str = "env";

/// All differences: those of the daemon, then by service.
pub fn between(old: &Config, new: &Config) -> Vec<ConfigChange> {
    let mut found = Vec::new();
    let [before, after] = [old, new].map(|config| {
        let mut top = config.clone();
        top.services.clear();
        flat(&top)
    });
    fields(&before, &after, &mut |field, from, to| {
        found.push(ConfigChange {
            what: What::Changed,
            service: None,
            effect: effect_at_top(&field),
            from: Some(from),
            to: Some(to),
            field: Some(field),
        });
    });
    let mut names: Vec<&ServiceName> = old.services.keys().chain(new.services.keys()).collect();
    names.sort();
    names.dedup();
    for name in names {
        let whole = |what| ConfigChange {
            what,
            service: Some(name.clone()),
            field: None,
            from: None,
            to: None,
            effect: Effect::Now,
        };
        match (old.services.get(name), new.services.get(name)) {
            (Some(before), Some(after)) => {
                fields(&flat(before), &flat(after), &mut |field, from, to| {
                    let is_secret = field.split('.').next() == Some(SECRET);
                    let shown = |value| (!is_secret).then_some(value);
                    found.push(ConfigChange {
                        what: What::Changed,
                        service: Some(name.clone()),
                        effect: effect_of_service(&field),
                        from: shown(from),
                        to: shown(to),
                        field: Some(field),
                    });
                });
            }
            (None, Some(_)) => found.push(whole(What::Added)),
            (Some(_), None) => found.push(whole(What::Removed)),
            (None, None) => {}
        }
    }
    found
}

/// `new`, with what only counts when hotctl starts as it is in `old`.
pub fn without_restart(old: &Config, new: Config) -> Config {
    Config {
        listen: old.listen.clone(),
        admin: old.admin,
        trusted_proxies: old.trusted_proxies.clone(),
        ports: old.ports,
        threads: old.threads,
        timeouts: old.timeouts.clone(),
        access_log: old.access_log.clone(),
        control: old.control.clone(),
        ..new
    }
}

fn effect_at_top(field: &str) -> Effect {
    match is_of(field, &OF_THE_DAEMON) || is_of(field, &[TRUSTED]) {
        true => Effect::Restart,
        false => Effect::Now,
    }
}

fn effect_of_service(field: &str) -> Effect {
    match () {
        // A process is told at its start that it is to say when it is ready.
        () if field == "health.kind" => Effect::NextStart,
        () if is_of(field, &AT_ONCE) => Effect::Now,
        () if is_of(field, &OF_A_DEPLOYMENT) => Effect::NextDeploy,
        // What processes are started with; and what nobody has sorted yet counts then at the latest.
        () => Effect::NextStart,
    }
}

/// Whether a field is one of these, or within one of them.
fn is_of(field: &str, names: &[&str]) -> bool {
    names.iter().any(|name| {
        let rest = field.strip_prefix(name);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    })
}

/// Call `tell` with each field that differs, and its values.
fn fields(
    before: &BTreeMap<String, Value>,
    after: &BTreeMap<String, Value>,
    tell: &mut impl FnMut(String, String, String),
) {
    let mut names: Vec<&String> = before.keys().chain(after.keys()).collect();
    names.sort();
    names.dedup();
    for name in names {
        let (from, to) = (before.get(name), after.get(name));
        if from != to {
            tell(name.clone(), shown(from), shown(to));
        }
    }
}

/// Each field by its full name, tables taken apart.
fn flat(value: &impl serde::Serialize) -> BTreeMap<String, Value> {
    let mut found = BTreeMap::new();
    if let Ok(value) = serde_json::to_value(value) {
        take_apart(value, String::new(), &mut found);
    }
    found
}

fn take_apart(value: Value, at: String, found: &mut BTreeMap<String, Value>) {
    match value {
        Value::Object(table) => {
            for (key, value) in table {
                let at = match at.is_empty() {
                    true => key,
                    false => format!("{at}.{key}"),
                };
                take_apart(value, at, found);
            }
        }
        value => {
            found.insert(at, value);
        }
    }
}

fn shown(value: Option<&Value>) -> String {
    let text = match value {
        None | Some(Value::Null) => return "none".to_owned(),
        Some(value) => value.to_string(),
    };
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use std::path::Path;

    use hotctl_config::{Format, parse};

    use super::*;

    fn config(text: &str) -> Config {
        let text = format!("[[listen]]\naddress = \"127.0.0.1:1\"\n{text}");
        parse(&text, Format::Toml, Path::new("hotctl.toml")).unwrap()
    }

    fn told(old: &str, new: &str) -> Vec<String> {
        let changes = between(&config(old), &config(new));
        changes.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_configuration_does_not_differ_from_itself() {
        let text = "[service.web]\nenv = { A = \"1\" }\n[service.api]\npaths = [\"/api\"]";
        assert!(told(text, text).is_empty());
    }

    #[test]
    fn each_field_that_differs_is_told_with_what_it_was_and_from_when_on_it_counts() {
        let found = told(
            "[service.web]\nrun = [\"a\"]\nkeep_warm = \"1m\"\n[service.old]\npaths = [\"/old\"]",
            "[service.web]\nrun = [\"b\"]\nkeep_warm = \"2m\"\nhealth.path = \"/up\"\n[service.api]\npaths = [\"/api\"]",
        );
        assert_eq!(
            found,
            [
                "api: added",
                "old: removed: what it has begun is finished, then it is stopped; its state is kept",
                "web.health.path: \"/\" -> \"/up\"",
                "web.keep_warm: \"1m\" -> \"2m\"; takes effect with the next deploy of web",
                "web.run: [\"a\"] -> [\"b\"]; takes effect with the next deploy or restart of web",
            ]
        );
    }

    #[test]
    fn what_may_be_a_secret_is_not_told() {
        let found = told(
            "[service.web]\nenv = { PASSWORD = \"one\" }",
            "[service.web]\nenv = { PASSWORD = \"two\" }",
        );
        assert_eq!(
            found,
            ["web.env.PASSWORD: changed; takes effect with the next deploy or restart of web"]
        );
    }

    #[test]
    fn what_cannot_change_while_hotctl_runs_is_named_and_stays() {
        let (old, new) = (
            config("[service.web]"),
            config("[timeouts]\nidle = \"5s\"\n[service.web]"),
        );
        let changes = between(&old, &new);
        assert_eq!(
            changes[0].to_string(),
            "timeouts.idle: \"75s\" -> \"5s\"; takes effect when hotctl is upgraded or started again"
        );
        assert_eq!(without_restart(&old, new).timeouts, old.timeouts);
    }
}
