//! What the machine can do to hotctl, by real means: damaged state, a full disk, no descriptors. What
//! serves goes on, and what cannot be done is said.

use std::fs;
use std::path::{Path, PathBuf};

use crate::support::http::{self, Answer};
use crate::support::{Daemon, eventually};

const TWO: &str = r#"
admin = "127.0.0.1:0"

[[listen]]
address = "127.0.0.1:0"

[service.web]
keep_warm = "0s"
[service.api]
paths = ["/api"]
"#;

#[track_caller]
fn deploy(daemon: &Daemon, service: &str, version: &str) {
    let path = daemon.release(version);
    daemon
        .hotctl(["deploy", path.to_str().unwrap(), "--service", service])
        .exits(0);
}

/// A file of a service's state.
fn state(daemon: &Daemon, service: &str, file: &str) -> PathBuf {
    let folder = daemon.folder().join("state/services").join(service);
    folder.join(file)
}

/// Change one byte in the middle.
fn flip_a_byte(path: &Path) {
    let mut text = fs::read(path).unwrap();
    let middle = text.len() / 2;
    text[middle] ^= 1;
    fs::write(path, text).unwrap();
}

#[track_caller]
fn refused_for(answer: Answer, reason: &str) {
    let answer = answer.has_status(503);
    assert_eq!(answer.header("x-hotctl-error"), reason, "{answer}");
}

#[test]
fn a_damaged_record_gives_way_to_its_last_good_copy_and_that_is_told() {
    let mut daemon = Daemon::start(TWO);
    deploy(&daemon, "web", "v1");
    deploy(&daemon, "web", "v2");
    // What is written last is that the old release has ended.
    eventually("v1 has ended", || {
        daemon.status().service("web").running.len() == 1
    });
    daemon.stop();
    flip_a_byte(&state(&daemon, "web", "record.json"));
    daemon.start_again();
    assert_eq!(daemon.get("/").has_status(200).text(), "v2\n");
    let log = daemon.log();
    assert!(log.contains("going on with the last good copy"), "{log}");
    daemon
        .hotctl(["events", "web"])
        .exits(0)
        .says("state restored");
    daemon.stop();
    daemon.start_again();
    assert_eq!(daemon.get("/").has_status(200).text(), "v2\n");
    let restored = daemon.hotctl(["events", "web"]).exits(0).stdout;
    assert_eq!(restored.matches("state restored").count(), 1, "{restored}");
}

#[test]
fn a_service_whose_state_cannot_be_read_is_left_alone_and_the_others_serve() {
    let mut daemon = Daemon::start(TWO);
    deploy(&daemon, "web", "v1");
    deploy(&daemon, "api", "a1");
    daemon.stop();
    for file in ["record.json", "record.json.last"] {
        flip_a_byte(&state(&daemon, "web", file));
    }
    let folder = state(&daemon, "web", "");
    let files = || {
        let folder = fs::read_dir(&folder).unwrap();
        let mut files: Vec<_> = folder
            .map(|entry| {
                let path = entry.unwrap().path();
                let text = path.is_file().then(|| fs::read(&path).unwrap());
                (path, text)
            })
            .collect();
        files.sort();
        files
    };
    let before = files();
    daemon.start_again();
    let api = || http::get(daemon.listen(), "/api");
    assert_eq!(api().header("x-version"), "a1");
    refused_for(daemon.get("/"), "state_damaged");
    let status = daemon.status();
    assert_eq!(status.service("web").state, "damaged");
    assert_eq!(status.service("api").state, "serving");
    for words in [
        "damaged",
        "its checksum is not that of its content",
        "try: restore record.json from a copy",
    ] {
        daemon.hotctl(["status"]).exits(0).says(words);
    }
    let path = daemon.release("v2");
    let path = path.to_str().unwrap();
    for order in [
        &["deploy", path, "--service", "web"][..],
        &["rollback", "web"],
        &["stop", "web"],
        &["restart", "web"],
        &["releases", "web"],
        &["logs", "web"],
    ] {
        let ran = daemon.hotctl(order.iter().copied()).exits(1);
        ran.says("record.json").says("try: restore");
    }
    let events = daemon.hotctl(["events", "web"]).exits(0);
    events.says("state damaged");
    assert_eq!(files(), before, "nothing of it was touched");
    let admin = status.admin.unwrap();
    http::get(admin, "/readyz").has_status(503);
    assert_eq!(api().header("x-version"), "a1");
}
