//! Apps as people have them, unchanged: deployed as a folder, flipped, rolled back, under load.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use crate::support::load::Plan;
use crate::support::program;
use crate::support::{Class, Daemon};

const NODE: &str = r#"
const http = require('http');
const answer = (request, response) => response.end('VERSION\n');
http.createServer(answer).listen(process.env.PORT, process.env.HOST);
"#;

/// A folder of one file.
fn folder(daemon: &Daemon, version: &str, file: &str, content: &str) -> PathBuf {
    let folder = daemon.folder().join(version);
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join(file), content).unwrap();
    folder
}

/// Deploy the one, then the other, then go back, under load all the time.
fn there_and_back(daemon: &Daemon, first: &str, second: &str, deploy: impl Fn(&str)) {
    deploy(first);
    let load = Plan::to(daemon.listen())
        .clients(Class::KeepAlive, 4)
        .clients(Class::NewConnection, 4)
        .every(Duration::from_millis(10))
        .start();
    load.expect(&[first]);
    load.wait_for(100);
    load.flipping(first, second, || deploy(second));
    load.wait_for(100);
    load.flipping(second, first, || daemon.hotctl(["rollback"]).exits(0));
    load.wait_for(100);
    let outcomes = load.finish();
    outcomes.assert_none_failed();
    assert_eq!(outcomes.closed_idle(), 0, "{outcomes}");
}

#[test]
fn a_node_server_is_deployed_flipped_and_rolled_back() {
    let ran = Command::new("node").arg("--version").output();
    assert!(ran.is_ok(), "node is not installed, and this test needs it");
    for warm in ["1m", "0s"] {
        let daemon = Daemon::of_web(&format!("keep_warm = \"{warm}\""));
        there_and_back(&daemon, "one", "two", |version| {
            let content = NODE.replace("VERSION", version);
            let path = folder(&daemon, version, "server.js", &content);
            daemon.deploy_path(&path, &["node", "server.js"]);
        });
    }
}

#[test]
fn the_command_of_a_folder_may_stand_in_the_configuration() {
    let daemon = Daemon::of_web("run = [\"node\", \"server.js\"]");
    let path = folder(&daemon, "one", "server.js", &NODE.replace("VERSION", "one"));
    daemon.deploy_path(&path, &[]);
    assert_eq!(daemon.get("/").text(), "one\n");
}

#[test]
fn a_python_file_server_is_deployed_flipped_and_rolled_back() {
    let python = program::python();
    for warm in ["1m", "0s"] {
        let daemon = Daemon::of_web(&format!("keep_warm = \"{warm}\""));
        there_and_back(&daemon, "one", "two", |version| {
            let path = folder(&daemon, version, "index.html", &format!("{version}\n"));
            let bind = ["-m", "http.server", "{port}", "--bind", "127.0.0.1"];
            let args: Vec<&str> = [python.as_str()].into_iter().chain(bind).collect();
            daemon.deploy_path(&path, &args);
        });
    }
}
