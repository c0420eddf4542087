//! Tests of reading a whole file: what is accepted, and every way to be told that something is wrong.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;
use std::time::Duration;

use proptest::prelude::{any, prop_assert_eq, proptest};

use crate::source::Format::{self, Json, Toml};
use crate::{
    Admin, Config, EXAMPLE, HealthKind, Limits, Service, fields, find, parse, read, single,
};

/// The least that is complete.
pub(crate) const LEAST: &str = "listen = [{ address = \"127.0.0.1:8080\" }]\n[service.web]\n";

pub(crate) fn config(format: Format, text: &str) -> Result<Config, String> {
    let origin = match format {
        Toml => "hotctl.toml",
        Json => "hotctl.json",
    };
    parse(text, format, Path::new(origin)).map_err(|problems| problems.to_string())
}

/// What is wrong with a file, one line for each problem and its remedy.
#[track_caller]
pub(crate) fn wrong(format: Format, text: &str, expected: &[&str]) {
    let problems = config(format, text).expect_err("something is wrong with it");
    assert_eq!(
        problems
            .replace("\n  try: ", " -> ")
            .lines()
            .collect::<Vec<_>>(),
        expected,
        "in\n{text}"
    );
}

/// What is wrong with a service, `[service.web]` being line 2.
#[track_caller]
pub(crate) fn wrong_service(fields: &str, expected: &[&str]) {
    wrong(Toml, &format!("{LEAST}{fields}"), expected);
}

/// The command of a build, as it stands in the example.
const BUILD: &str = "command = [\"cargo\"";

/// The signal that changes a level, as it stands in the example.
const SIGNAL: &str = "signal = \"USR1\"";

/// The example with every field that is commented out taken in.
///
/// Not `include`: there is no such folder; nor the command of a build, which leaves no room for a watch;
/// nor the signal of a log level, which leaves none for a request.
fn whole_example() -> String {
    let taken_in = |line: &str| match line.strip_prefix('#') {
        Some(field)
            if ["include", BUILD, SIGNAL]
                .iter()
                .any(|begin| field.starts_with(begin)) =>
        {
            format!("{line}\n")
        }
        Some(field) if !field.starts_with([' ', '#']) => format!("{field}\n"),
        _ => format!("{line}\n"),
    };
    EXAMPLE.lines().map(taken_in).collect()
}

#[test]
fn the_example_is_clean_and_says_nothing_but_the_defaults() {
    let example = config(Toml, EXAMPLE).unwrap();
    assert_eq!(
        example.services.values().collect::<Vec<_>>(),
        [&Service::default()]
    );
    assert_eq!(
        Config {
            listen: vec![],
            services: Default::default(),
            ..example.clone()
        },
        Config::default()
    );

    let mut whole = config(Toml, &whole_example()).unwrap();
    // Those that have no default to show.
    assert!(whole.threads.take().is_some() && whole.control.group.take().is_some());
    for service in whole.services.values_mut() {
        assert!(service.env_file.take().is_some() && service.workdir.take().is_some());
        assert!(service.user.take().is_some() && service.group.take().is_some());
        assert!(service.watch.path.take().is_some());
        assert_ne!(
            std::mem::take(&mut service.build),
            crate::file::Build::default()
        );
        assert_ne!(std::mem::take(&mut service.limits), Limits::default());
        // One way in the place of the other; the file that has both is refused.
        let level = std::mem::take(&mut service.log_level);
        assert!(level.request.is_some() && level.signal.is_none());
        assert!(service.health.host.take().is_some() && service.health.body.take().is_some());
    }
    assert_eq!(whole, example);
}

#[test]
fn the_example_shows_every_field() {
    let whole = whole_example()
        .replace("\n#include", "\ninclude")
        .replace(&format!("\n#{BUILD}"), &format!("\n{BUILD}"))
        .replace(&format!("\n#{SIGNAL}"), &format!("\n{SIGNAL}"));
    let table: toml::Table = whole.parse().unwrap();
    for field in fields() {
        let mut at = &toml::Value::Table(table.clone());
        for key in field.replace("NAME", "web").split('.') {
            if let toml::Value::Array(list) = at {
                at = &list[0];
            }
            at = at
                .get(key)
                .unwrap_or_else(|| panic!("{field} is not in the example"));
        }
    }
}

#[test]
fn every_field_is_listed() {
    let fields = fields();
    for field in [
        "listen",
        "listen.address",
        "threads",
        "timeouts.retry",
        "service.NAME.run",
        "service.NAME.health.body",
    ] {
        assert!(
            fields.iter().any(|known| known == field),
            "{field} in {fields:?}"
        );
    }
    // Were a whole table overlooked, far more would be missing than those named above.
    assert!(fields.len() >= 60, "{fields:?}");
}

#[test]
fn without_a_file_one_service_takes_every_request() {
    let config = single("127.0.0.1:8080".parse().unwrap());
    let service = &config.services["app"];
    assert!(service.hosts.is_empty() && service.paths[0].as_str() == "/");
    // It is one that could have been written.
    assert_eq!(
        self::config(Toml, &toml::to_string(&config).unwrap()),
        Ok(config)
    );
}

#[test]
fn toml_and_json_say_the_same() {
    let toml = r#"
        admin = "off"
        trusted_proxies = ["10.0.0.0/8", "192.0.2.7", "::1"]
        ports = "30000-30010"
        threads = 2
        [[listen]]
        address = "[::]:80"
        [timeouts]
        retry = "0s"
        [service.web]
        hosts = ["*.Example.com"]
        run = ["node", "server.js", "--port={port}"]
        keep_warm = "1h30m"
        health = { kind = "tcp", interval = "250ms", rise = 2 }
    "#;
    let json = r#"{
        "admin": "off", "trusted_proxies": ["10.0.0.0/8", "192.0.2.7", "::1"], "ports": "30000-30010",
        "threads": 2, "listen": [{ "address": "[::]:80" }], "timeouts": { "retry": "0s", "idle": null },
        "service": { "web": {
            "hosts": ["*.Example.com"], "run": ["node", "server.js", "--port={port}"],
            "keep_warm": "1h30m",
            "health": { "kind": "tcp", "interval": "250ms", "rise": 2, "host": null, "body": null }
        } }
    }"#;
    let read = config(Toml, toml).unwrap();
    assert_eq!(config(Json, json).unwrap(), read);
    assert_eq!(read.admin, Admin::Off);
    assert_eq!(read.trusted_proxies[1].to_string(), "192.0.2.7/32");
    let web = &read.services["web"];
    assert_eq!(web.hosts[0].as_str(), "*.example.com");
    assert_eq!(web.keep_warm, Duration::from_secs(5400));
    assert_eq!((web.health.kind, web.health.fall), (HealthKind::Tcp, 3));
}

#[test]
fn everything_that_is_wrong_is_told_at_once_in_the_order_of_the_file() {
    wrong(
        Toml,
        r#"
admn = "off"
threads = 0
ports = "30000-20000"
[[listen]]
adress = "0.0.0.0:80"
[timeouts]
connect = 3
idle = "0s"
[service.web]
start_timeout = "30 parsecs"
hosts = "a.example"
run = "node server.js"
paths = ["/", "x", 5]
[service.web.health]
kind = "htpt"
fall = "3"
[service.Api]
"#,
        &[
            r#"hotctl.toml:2: admn: unknown field -> "admin""#,
            "hotctl.toml:3: threads: 0: must be at least 1",
            r#"hotctl.toml:4: ports: "30000-20000": 30000-20000 runs backwards -> such as "20000-29999""#,
            r#"hotctl.toml:6: listen[0].adress: unknown field -> "address""#,
            r#"hotctl.toml:8: timeouts.connect: 3: a number, where a time such as "30s" or "1m30s" is due -> "3s""#,
            r#"hotctl.toml:9: timeouts.idle: "0s": must be above 0 -> leave it out for the default"#,
            r#"hotctl.toml:11: service.web.start_timeout: "30 parsecs": unknown unit "parsecs" -> a time such as "30s" or "1m30s""#,
            r#"hotctl.toml:12: service.web.hosts: "a.example": a string, where a list is due -> ["a.example"]"#,
            r#"hotctl.toml:13: service.web.run: "node server.js": a string, where a list is due -> ["node", "server.js"]"#,
            r#"hotctl.toml:14: service.web.paths[1]: "x": a path begins with "/" -> "/x""#,
            r#"hotctl.toml:14: service.web.paths[2]: 5: a number, where a path such as "/api" is due"#,
            r#"hotctl.toml:16: service.web.health.kind: "htpt": not one of the values there are -> "http""#,
            r#"hotctl.toml:17: service.web.health.fall: "3": a string, where a whole number is due -> 3, without quotes"#,
            r#"hotctl.toml:18: service.Api: "Api": a service name cannot contain 'A' -> a name of a-z, 0-9 and "-", such as "web" or "api-2""#,
        ],
    );
}

#[test]
fn json_is_told_its_lines_too() {
    wrong(
        Json,
        r#"{
  "listen": [
    { "address": "localhost:80" },
    {}
  ],
  "service": {
    "web": { "run": "node server.js", "start_timeout": 30,
      "health": { "kind": "ftp", "path": "up" } }
  }
}"#,
        &[
            r#"hotctl.json:3: listen[0].address: "localhost:80": a name instead of an address -> "127.0.0.1:80" or "[::1]:80""#,
            r#"hotctl.json:4: listen[1]: address is missing -> an address such as "0.0.0.0:80""#,
            r#"hotctl.json:7: service.web.run: "node server.js": a string, where a list is due -> ["node", "server.js"]"#,
            r#"hotctl.json:7: service.web.start_timeout: 30: a number, where a time such as "30s" or "1m30s" is due -> "30s""#,
            r#"hotctl.json:8: service.web.health.kind: "ftp": not one of the values there are -> "http", "tcp", "notify", "command" or "process""#,
            r#"hotctl.json:8: service.web.health.path: "up": a path begins with "/" -> "/up""#,
        ],
    );
}

#[test]
fn a_field_in_the_wrong_table_is_told_the_right_one() {
    wrong_service(
        "interval = \"1s\"\nfoo = 1\nhealth = \"tcp\"\n",
        &[
            "hotctl.toml:3: service.web.interval: unknown field -> interval in [service.web.health]",
            r#"hotctl.toml:4: service.web.foo: unknown field -> one of "hosts", "paths", "http", "overlap", "run", "strategy", "address", "ports", "instances", "env", "env_file", "workdir", "persist", "ignore", "before_start", "before_start_timeout", "on_live", "on_live_timeout", "health", "warmup", "warmup_timeout", "start_timeout", "drain", "stop_timeout", "keep_warm", "max_failures", "park", "crash_loop", "on_crash_loop", "recycle", "memory_max", "user", "group", "limits", "logs", "log_level", "keep_releases", "watch" or "build""#,
            r#"hotctl.toml:5: service.web.health: "tcp": a string, where a table is due -> health.kind = "tcp""#,
        ],
    );
    wrong(
        Toml,
        "[listen]\naddress = \"127.0.0.1:80\"\n[[service]]\nhosts = []\n",
        &[
            "hotctl.toml:1: listen: a table, where a list is due -> [[listen]], with two brackets",
            "hotctl.toml:3: service: a list, where a table is due -> [service.NAME], with its name and single brackets",
        ],
    );
}

#[test]
fn tls_is_refused_as_not_yet_supported() {
    wrong(
        Toml,
        "[[listen]]\naddress = \"0.0.0.0:443\"\ntls = { cert = \"x\" }\n[service.web]\n",
        &[
            "hotctl.toml:3: listen[0].tls: not yet supported -> leave it out, and end TLS in a proxy in front of hotctl",
        ],
    );
}

#[test]
fn what_is_no_toml_is_told_with_its_line() {
    wrong(
        Toml,
        "threads = 5\nthreads = 6\n[timeouts]\nidle = 5s # short\n[service.web]\n[timeouts]\n",
        &[
            "hotctl.toml:2: threads = 6: duplicate key",
            "hotctl.toml:4: idle = 5s # short: text must be in quotes -> idle = \"5s\"",
            "hotctl.toml:6: [timeouts]: duplicate key",
        ],
    );
    let open = config(
        Toml,
        "[service.web]\nrun = [\"a\",\nkeep_warm = \"1m\"\nstop_timeout = \"1s\"\n",
    );
    let open = open.unwrap_err();
    assert!(
        open.starts_with("hotctl.toml:3: keep_warm = \"1m\": "),
        "{open}"
    );
    assert!(
        open.ends_with("\n  try: closing the list before it with \"]\""),
        "{open}"
    );
    assert!(!open.contains(":4:"), "what follows is not told: {open}");
}

#[test]
fn what_is_no_json_is_told_with_its_line() {
    for (text, expected) in [
        ("", "hotctl.json:1: EOF while parsing a value"),
        ("[]", "hotctl.json:1: []: a list, where a table is due"),
        ("{\n\"a\": 1,\n}", "hotctl.json:3: trailing comma"),
        (
            "{\"admin\": \"off\",\n\"admin\":\n\"off\"}",
            "hotctl.json:3: admin: stands twice, first in line 1",
        ),
        (
            "{\"service\": {\"a\\u002e\": {}}, \"listen\": 1e3}",
            "hotctl.json:1: service.\"a.\": \"a.\": a service name cannot contain '.'",
        ),
    ] {
        let problems = config(Json, text).unwrap_err();
        assert!(problems.starts_with(expected), "{problems}");
    }
}

#[test]
fn depth_is_no_way_to_harm() {
    let deep = 100_000;
    let (open, close) = ("[".repeat(deep), "]".repeat(deep));
    for (format, text) in [
        (Toml, format!("a = {open}{close}")),
        (Toml, format!("a = {open}")),
        (Toml, vec!["a"; deep].join(".") + " = 1"),
        (Json, format!("{open}{close}")),
        (Json, open.clone()),
        (
            Json,
            format!("{}1{}", "{\"a\":".repeat(deep), "}".repeat(deep)),
        ),
    ] {
        assert!(config(format, &text).is_err());
    }
}

#[test]
fn a_flood_of_problems_is_cut() {
    let text = format!(
        "{LEAST}{}",
        (0..1000).map(|n| format!("x{n} = 1\n")).collect::<String>()
    );
    assert_eq!(
        config(Toml, &text)
            .unwrap_err()
            .lines()
            .filter(|line| !line.starts_with("  try"))
            .count(),
        100
    );
}

#[test]
fn a_file_that_cannot_be_read_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("hotctl.toml");
    let problem = read(&path).unwrap_err().to_string();
    assert!(
        problem.starts_with(&format!("{}: cannot be read: ", path.display())),
        "{problem}"
    );
    assert!(
        problem.ends_with("\n  try: hotctl init writes one"),
        "{problem}"
    );

    std::fs::write(&path, b"# \xc3\xa9\n# \xff\n").unwrap();
    assert!(
        read(&path)
            .unwrap_err()
            .to_string()
            .ends_with("hotctl.toml:2: not UTF-8 text")
    );
    assert!(read(folder.path()).is_err());

    std::fs::write(
        &path,
        "\u{feff}".to_owned() + &EXAMPLE.replace('\n', "\r\n"),
    )
    .unwrap();
    assert_eq!(read(&path).unwrap(), config(Toml, EXAMPLE).unwrap());

    let json = folder.path().join("hotctl.JSON");
    std::fs::write(&json, serde_json::to_string(&read(&path).unwrap()).unwrap()).unwrap();
    assert_eq!(read(&json).unwrap(), read(&path).unwrap());
}

#[test]
fn a_file_that_was_named_is_the_one() {
    let named = Path::new("no/such/file.toml");
    assert_eq!(find(Some(named)), Ok(Some(named.into())));
    // Where the tests run there is neither of the two.
    assert_eq!(find(None), Ok(None));
}

proptest! {
    #[test]
    fn what_is_written_is_read_again(
        times in proptest::collection::vec(1u64..3_000_000_000, 7), hosts in proptest::collection::btree_set("[a-z]{1,5}", 0..4),
        run in proptest::collection::vec("[^\0]{1,8}", 0..4), body in "\\PC{1,9}", threads in 1usize..1024,
    ) {
        let mut config = single("127.0.0.1:8080".parse().unwrap());
        let time = |n: usize| Duration::from_millis(times[n]);
        config.threads = std::num::NonZeroUsize::new(threads);
        (config.shutdown_timeout, config.timeouts.connect, config.timeouts.retry) = (time(0), time(1), time(2));
        for service in config.services.values_mut() {
            (service.start_timeout, service.keep_warm, service.health.timeout) = (time(3) + time(4), time(5), time(6));
            service.health.interval = time(4);
            service.hosts = hosts.iter().map(|host| format!("*.{host}").parse().unwrap()).collect();
            service.run.clone_from(&run);
            service.health.body = Some(body.clone());
        }
        prop_assert_eq!(self::config(Toml, &toml::to_string(&config).unwrap()), Ok(config.clone()));
        prop_assert_eq!(self::config(Json, &serde_json::to_string_pretty(&config).unwrap()), Ok(config));
    }

    #[test]
    fn no_file_is_too_broken_to_be_answered(
        at in any::<proptest::sample::Index>(), end in any::<proptest::sample::Index>(), put in "[\"\\[\\]{}=.,#\n0-9a-z]{0,4}"
    ) {
        let whole = whole_example();
        let json = serde_json::to_string_pretty(&self::config(Toml, &whole).unwrap()).unwrap();
        for (format, text) in [(Toml, whole), (Json, json)] {
            let (at, end) = (at.index(text.len()), end.index(40));
            let mut broken = text.clone();
            broken.replace_range(at..(at + end).min(text.len()), &put);
            if let Err(problems) = parse(&broken, format, Path::new("x")) {
                assert!(!problems.0.is_empty());
                let lines = broken.lines().count() + 1;
                for problem in problems.0 {
                    assert!(problem.line.is_some_and(|line| (1..=lines).contains(&line)), "{problem}\n{broken}");
                }
            }
        }
    }
}
