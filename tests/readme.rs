//! The README is true: its configuration is good, its commands exist, its apps run, its metrics are
//! there.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::support::daemon::hotctl;
use crate::support::program;
use crate::support::{Daemon, eventually_some, sample};

fn readme() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    fs::read_to_string(path).expect("a README")
}

/// The blocks of code of one language, and what stands in front of each.
fn blocks(language: &str) -> Vec<(String, String)> {
    let readme = readme();
    let mut found = Vec::new();
    let mut before = String::new();
    let mut lines = readme.lines();
    while let Some(line) = lines.next() {
        let Some(name) = line.strip_prefix("```") else {
            before.push_str(line);
            before.push('\n');
            continue;
        };
        let block: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
        if name == language {
            found.push((std::mem::take(&mut before), block.join("\n")));
        }
        before.clear();
    }
    found
}

/// The words of each command line in blocks of shell that calls hotctl.
fn commands() -> Vec<Vec<String>> {
    let blocks = blocks("sh");
    let lines = blocks.iter().flat_map(|(_, block)| block.lines());
    let lines = lines.map(|line| line.split('#').next().unwrap_or_default().trim());
    let lines = lines.map(|line| line.trim_end_matches('&').trim());
    let hotctl = lines.filter(|line| line.starts_with("hotctl "));
    hotctl
        .map(|line| {
            line.split_whitespace()
                .skip(1)
                .map(str::to_string)
                .collect()
        })
        .collect()
}

#[test]
fn its_configuration_is_good() {
    let blocks = blocks("toml");
    assert!(!blocks.is_empty(), "no configuration");
    for (_, block) in blocks {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("hotctl.toml"), &block).unwrap();
        program::run(hotctl(folder.path()).arg("check")).exits(0);
    }
}

#[test]
fn its_first_commands_run_as_they_stand() {
    let commands = commands();
    let serve = commands
        .iter()
        .find(|words| words[0] == "serve")
        .expect("a `hotctl serve`");
    let deploy = commands
        .iter()
        .find(|words| words[0] == "deploy")
        .expect("a `hotctl deploy`");
    let folder = tempfile::Builder::new()
        .prefix("hotctl-test-")
        .tempdir()
        .unwrap();
    // Whatever else runs on this machine: only the ports are others.
    let serve: Vec<String> = serve
        .iter()
        .map(|word| word.replace("127.0.0.1:8080", "127.0.0.1:0"))
        .collect();
    let mut command = hotctl(folder.path());
    let daemon = program::start(command.args(&serve).args(["--admin", "127.0.0.1:0"]));
    let status = eventually_some("it answers", || {
        let ran = program::run(hotctl(folder.path()).args(["status", "--json"]));
        ran.status
            .success()
            .then(|| ran.json::<crate::support::status::Status>())
    });
    let app = sample::release(folder.path(), "v2");
    fs::rename(app, folder.path().join(&deploy[1])).unwrap();
    program::run(hotctl(folder.path()).args(deploy)).exits(0);
    let answer = crate::support::http::get(status.listen[0], "/").has_status(200);
    assert_eq!(answer.text(), "v2\n");
    daemon.signal(rustix::process::Signal::TERM);
    daemon.wait().exits(0);
}

#[test]
fn its_requests_by_curl_are_answered() {
    // An answer to an order ends when nothing more can become of it.
    let daemon = Daemon::of_web("keep_warm = \"0s\"");
    daemon.deploy("v1", &[]);
    let blocks = blocks("sh");
    let lines = blocks.iter().flat_map(|(_, block)| block.lines());
    let requests: Vec<&str> = lines
        .filter(|line| line.contains("--unix-socket"))
        .collect();
    assert_eq!(requests.len(), 3, "{requests:?}");
    for request in requests {
        let ran = program::run(
            std::process::Command::new("sh")
                .args(["-c", &request.replacen("curl", "curl -sf", 1)])
                .env("HOTCTL_SOCKET", daemon.folder().join("control.sock")),
        );
        let ran = ran.exits(0);
        assert!(ran.stdout.contains("web"), "{request}\n{ran}");
    }
}

#[test]
fn every_command_it_shows_is_one() {
    let folder = tempfile::tempdir().unwrap();
    let help = program::run(hotctl(folder.path()).arg("--help")).exits(0);
    let (_, rest) = help
        .stdout
        .split_once("Commands:\n")
        .expect("a list of commands");
    let (list, _) = rest.split_once("\n\n").expect("its end");
    let known: BTreeSet<&str> = list
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    let readme = readme();
    let mut shown = BTreeSet::new();
    // After each `hotctl ` in code: what looks like a command must be one.
    for (at, _) in readme.match_indices("`hotctl ") {
        let word = readme[at + 8..]
            .split([' ', '`', ',', '\n'])
            .next()
            .unwrap_or_default();
        shown.insert(word.to_string());
    }
    shown.extend(commands().into_iter().map(|words| words[0].clone()));
    for word in &shown {
        assert!(
            known.contains(word.as_str()),
            "`hotctl {word}` is shown, but is no command"
        );
    }
    for word in known.iter().filter(|word| **word != "help") {
        assert!(
            readme.contains(&format!("`{word}`")) || shown.contains(*word),
            "{word} is missing"
        );
    }
}

#[test]
fn the_metrics_it_lists_are_the_metrics_there_are() {
    let daemon = Daemon::of_web("");
    daemon.deploy("v1", &[]);
    daemon.deploy("v2", &[]);
    daemon.get("/").has_status(200);
    let metrics = daemon.metrics();
    let there: BTreeSet<&str> = metrics
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next())
        .filter(|name| name.starts_with("hotctl_"))
        .collect();
    let readme = readme();
    let listed: BTreeSet<&str> = readme
        .lines()
        .filter_map(|line| line.strip_prefix("| `hotctl_"))
        .filter_map(|rest| rest.split(['{', '`']).next())
        .collect();
    let listed: BTreeSet<String> = listed.iter().map(|name| format!("hotctl_{name}")).collect();
    let listed: BTreeSet<&str> = listed.iter().map(String::as_str).collect();
    assert_eq!(
        there, listed,
        "on the left what there is, on the right what the README lists"
    );
}

#[test]
fn its_node_app_runs_as_it_stands() {
    let (_, code) = blocks("js").into_iter().next().expect("an app for node");
    let daemon = Daemon::of_web("");
    let web = daemon.folder().join("web");
    fs::create_dir(&web).unwrap();
    fs::write(web.join("server.js"), code).unwrap();
    daemon
        .hotctl(["deploy", "./web", "--", "node", "server.js"])
        .exits(0);
    assert_eq!(daemon.get("/").has_status(200).text(), "hello from node\n");
}

#[test]
fn its_python_app_runs_as_it_stands() {
    let (_, code) = blocks("python")
        .into_iter()
        .next()
        .expect("an app for python");
    let python = program::python();
    let daemon = Daemon::of_web("");
    let site = daemon.folder().join("site");
    fs::create_dir(&site).unwrap();
    fs::write(site.join("app.py"), code).unwrap();
    fs::write(site.join("index.html"), "hello\n").unwrap();
    daemon
        .hotctl(["deploy", "./site", "--", &python, "app.py"])
        .exits(0);
    assert_eq!(daemon.get("/").has_status(200).text(), "hello\n");
}
