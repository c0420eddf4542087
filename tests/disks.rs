//! A disk under hotctl's state that is full, or became read-only: what serves goes on, what must be
//! written fails with the reason, and is made up for.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::Signal;

use crate::support::daemon::web;
use crate::support::program::{self, Ran, send};
use crate::support::{Daemon, Load, eventually};

/// A daemon whose state is on a disk of its own, a few MiB in a mount namespace; none where the system
/// does not let us have one.
fn on_a_small_disk(config: &str) -> Option<(Daemon, Disk)> {
    let allowed = Command::new("unshare")
        .args(["-rm", "sh", "-c", "mount -t tmpfs tmpfs /mnt"])
        .status()
        .is_ok_and(|status| status.success());
    if !allowed {
        eprintln!("not tested: no mount namespace of our own is allowed here");
        return None;
    }
    eprintln!("tested on a tmpfs of 48 MiB in a mount namespace");
    let through = [
        "unshare",
        "-rm",
        "sh",
        "-c",
        "mkdir -m 700 state && mount -t tmpfs -o size=48m,mode=700 tmpfs state && exec \"$@\"",
        "sh",
    ];
    let daemon = Daemon::start_through(&through, config, &[]);
    let state = daemon.folder().join("state");
    let seen = Path::new("/proc")
        .join(daemon.pid().to_string())
        .join("root");
    let fill = seen.join(state.strip_prefix("/").unwrap()).join("fill");
    let disk = Disk {
        pid: daemon.pid().to_string(),
        state,
        fill,
    };
    Some((daemon, disk))
}

/// The disk of a daemon's state.
struct Disk {
    pid: String,
    state: PathBuf,
    /// What takes its room, seen from outside of the daemon's namespace.
    fill: PathBuf,
}

#[derive(Clone, Copy)]
enum Turns {
    ReadOnly,
    Writable,
}

impl Disk {
    /// Leave so much room.
    fn leave(&self, kib: u64) {
        let mut fill = File::create(&self.fill).unwrap();
        let zeros = vec![0; 4096];
        while fill.write_all(&zeros).is_ok() {}
        let full = fill.metadata().unwrap().len();
        fill.set_len(full - (kib * 1024).min(full)).unwrap();
    }

    /// Leave as much as there is.
    fn clear(&self) {
        fs::remove_file(&self.fill).unwrap();
    }

    /// From now on.
    #[track_caller]
    fn turns(&self, to: Turns) {
        // Files that are open for writing keep a disk from becoming read-only; a view of it that lies
        // over it does not ask them.
        let script = match to {
            Turns::ReadOnly => "mount --bind \"$0\" \"$0\" && mount -o remount,bind,ro \"$0\"",
            Turns::Writable => "umount \"$0\"",
        };
        let mut nsenter = Command::new("nsenter");
        nsenter
            .args(["-t", &self.pid, "-U", "-m", "--preserve-credentials"])
            .args(["sh", "-c", script])
            .arg(&self.state);
        program::run(&mut nsenter).exits(0);
    }
}

/// Restart `web`; it goes well, or fails for want of the disk.
#[track_caller]
fn restarts_or_says(daemon: &Daemon, wants: &str) -> Ran {
    let ran = daemon.hotctl(["restart", "web"]);
    match ran.status.code() {
        Some(0) => ran,
        _ => ran.exits(1).says(wants),
    }
}

#[test]
fn a_full_disk_fails_what_must_be_written_and_nothing_else() {
    let Some((daemon, disk)) = on_a_small_disk(&web("keep_warm = \"0s\"")) else {
        return;
    };
    daemon.deploy("v1", &[]);
    let load = Load::of_everything(daemon.listen());
    load.expect(&["v1"]);
    disk.leave(0);
    let before = daemon.live().pid;
    let v2 = daemon.release("v2");
    let ran = daemon.try_deploy(&v2, &[]).exits(1);
    ran.says("No space left").says("\"hint\"");
    daemon
        .hotctl(["restart", "web"])
        .exits(1)
        .says("No space left")
        .says("try: ");
    daemon
        .hotctl(["stop", "web"])
        .exits(1)
        .says("No space left")
        .says("try: ");
    assert_eq!(daemon.live().pid, before);
    assert!(daemon.metric("hotctl_state_write_errors_total", &[]) >= 1.0);
    // With room for one write more each time, another one is the first that fails.
    let mut went = Vec::new();
    for kib in (0..=16).step_by(4) {
        disk.leave(kib);
        let ran = restarts_or_says(&daemon, "No space left");
        went.push((kib, ran.status.code()));
        let status = daemon.status();
        let web = status.service("web");
        assert_eq!(web.count("live"), 1, "{status:#?}");
        daemon.get("/").has_status(200);
    }
    eprintln!("KiB left, and how a restart ended: {went:?}");
    assert!(went.iter().any(|(_, code)| *code == Some(0)), "{went:?}");
    disk.clear();
    load.flipping("v1", "v2", || daemon.deploy_path(&v2, &[]));
    load.wait_for(50);
    load.finish().assert_none_failed();
}

/// From its second start on.
#[test]
fn a_daemon_whose_state_is_read_only_serves_what_is_live() {
    let script = "if [ -e state/lock ]; then mount --bind state state && mount -o remount,bind,ro state; \
                  fi && exec \"$@\"";
    let through = ["unshare", "-rm", "sh", "-c", script, "sh"];
    if on_a_small_disk(&web("")).is_none() {
        return;
    }
    let mut daemon = Daemon::start_through(&through, &web(""), &[]);
    daemon.deploy("v1", &[]);
    let app = daemon.live().pid;
    daemon.kill();
    daemon.start_again();
    assert_eq!(daemon.live().pid, app);
    assert_eq!(daemon.get("/").has_status(200).text(), "v1\n");
    let v2 = daemon.release("v2");
    daemon
        .try_deploy(&v2, &[])
        .exits(1)
        .says("Read-only file system");
    assert_eq!(daemon.live().pid, app);
}

/// What is written already need not be written again.
#[test]
fn a_release_that_is_live_stays_so_over_an_upgrade_with_a_full_disk() {
    let Some((mut daemon, disk)) = on_a_small_disk(&web("keep_warm = \"60s\"")) else {
        return;
    };
    daemon.deploy("v1", &[]);
    let v2 = daemon.deploy("v2", &[]);
    disk.leave(0);
    daemon.upgrade(&[]);
    assert_eq!(daemon.status().service("web").count("warm"), 1);
    assert_eq!(daemon.live().pid, Some(v2.pid));
    assert_eq!(daemon.get("/").has_status(200).text(), "v2\n");
}

#[test]
fn what_could_not_be_recorded_is_when_the_disk_has_room_again() {
    let Some((daemon, disk)) = on_a_small_disk(&web("keep_warm = \"60s\"")) else {
        return;
    };
    daemon.deploy("v1", &[]);
    let v2 = daemon.deploy("v2", &[]);
    disk.leave(0);
    send(v2.pid, Signal::KILL);
    eventually("traffic is back", || daemon.get("/").text() == "v1\n");
    let record = disk.fill.with_file_name("services/web/record.json");
    let speaks_of_it = || {
        let text = fs::read_to_string(&record).unwrap();
        let record: serde_json::Value = serde_json::from_str(&text).unwrap();
        !record["content"]["ledger"]["deployment"].is_null() || text.contains("\"deployment\":{")
    };
    eventually("it has ended", || {
        daemon.status().service("web").running.len() == 1
    });
    assert!(speaks_of_it(), "it could be written");
    disk.clear();
    eventually("the record is true again", || !speaks_of_it());
    assert_eq!(daemon.get("/").has_status(200).text(), "v1\n");
}

#[test]
fn a_disk_that_became_read_only_fails_what_must_be_written_and_nothing_else() {
    let Some((daemon, disk)) = on_a_small_disk(&web("keep_warm = \"0s\"")) else {
        return;
    };
    let v1 = daemon.deploy("v1", &[]);
    let load = Load::of_everything(daemon.listen());
    load.expect(&["v1"]);
    disk.turns(Turns::ReadOnly);
    let v2 = daemon.release("v2");
    let ran = daemon.try_deploy(&v2, &[]).exits(1);
    ran.says("Read-only file system").says("\"hint\"");
    for order in ["restart", "stop"] {
        daemon
            .hotctl([order, "web"])
            .exits(1)
            .says("Read-only file system");
    }
    assert_eq!(daemon.live().pid, Some(v1.pid));
    assert!(daemon.metric("hotctl_state_write_errors_total", &[]) >= 2.0);
    disk.turns(Turns::Writable);
    load.flipping("v1", "v2", || daemon.deploy_path(&v2, &[]));
    load.wait_for(50);
    load.finish().assert_none_failed();
}
