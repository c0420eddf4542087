//! Further ports by name: each process has its own, for as long as it runs, whatever becomes of the
//! daemon meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::TcpListener;
use std::path::PathBuf;

use rustix::process::Signal;

use crate::support::daemon::web;
use crate::support::program::send;
use crate::support::status::Running;
use crate::support::{Daemon, eventually, eventually_some};

type Ports = BTreeMap<String, u16>;

/// Whether a hotctl, or the shim of an app, has leased a port.
fn is_leased(port: u16) -> bool {
    let held = fs::read_to_string("/proc/net/unix").unwrap();
    let name = format!("@hotctl-port-{port}");
    held.split_whitespace().any(|word| word == name)
}

#[track_caller]
fn are_leased(ports: &Ports) {
    for (name, port) in ports {
        assert!(is_leased(*port), "{name} {port}");
    }
}

/// What runs of `web` in that role, once it does.
fn in_role(daemon: &Daemon, role: &str) -> Running {
    eventually_some(role, || {
        let status = daemon.status();
        let mut all = status.service("web").running.iter();
        all.find(|one| one.role == role).cloned()
    })
}

#[test]
fn two_releases_side_by_side_have_ports_of_their_own() {
    let daemon = Daemon::of_web("ports = [\"debug\", \"metrics\"]\nkeep_warm = \"0s\"");
    daemon.deploy("v1", &["--marker", "{port.debug}:{port.metrics}"]);
    let live = daemon.live();
    let first = live.ports.clone();
    assert_eq!(first.keys().collect::<Vec<_>>(), ["debug", "metrics"]);
    let all: BTreeSet<u16> = first.values().copied().collect();
    assert_eq!(all.len(), 2);
    assert!(!all.contains(&live.address.inet().port()));
    are_leased(&first);
    for (name, variable) in [("debug", "PORT_DEBUG"), ("metrics", "PORT_METRICS")] {
        let told = daemon.get(&format!("/env?name={variable}")).text();
        assert_eq!(told, first[name].to_string());
    }
    let line = fs::read_to_string(format!("/proc/{}/cmdline", live.pid.unwrap())).unwrap();
    let words = format!("{}:{}", first["debug"], first["metrics"]);
    assert!(line.contains(&words), "{line:?}");
    let shown = format!("debug {}, metrics {}", first["debug"], first["metrics"]);
    daemon.hotctl(["status"]).exits(0).says(&shown);
    daemon.hotctl(["events"]).exits(0).says(&shown);

    // A debugger listens before the app does, and is not taken for it.
    let path = daemon.release("v2");
    let words =
        "deploy --service web --wait live PATH -- --listen-also PORT_DEBUG --start-delay-ms 2500";
    let words = words.replace("PATH", path.to_str().unwrap());
    let deploy = daemon.alongside(words.split(' '));
    let candidate = in_role(&daemon, "candidate");
    let second = candidate.ports;
    are_leased(&first);
    are_leased(&second);
    assert!(second.values().all(|port| !all.contains(port)));
    deploy
        .wait()
        .exits(0)
        .says(&format!("debug {}", second["debug"]));
    assert_eq!(daemon.live().ports, second);
    eventually("those of the old release are free", || {
        !first.values().any(|port| is_leased(*port))
    });
    are_leased(&second);
    daemon.hotctl(["stop"]).exits(0);
    eventually("nothing is leased any more", || {
        !second.values().any(|port| is_leased(*port))
    });
}

#[test]
fn a_port_stays_with_its_process_when_the_daemon_is_killed_or_replaced() {
    let mut daemon = Daemon::of_web("ports = [\"debug\"]\ninstances = 2\nkeep_warm = \"0s\"");
    daemon.deploy("v1", &[]);
    let before = daemon.live();
    let ports = |running: &Running| -> Vec<Ports> {
        let instances = running.instances.iter();
        instances.map(|one| one.ports.clone()).collect()
    };
    let first = ports(&before);
    let flat: BTreeSet<u16> = first.iter().flat_map(|all| all.values().copied()).collect();
    assert_eq!(flat.len(), 2, "each instance has its own: {first:?}");
    daemon.kill();
    // Held by the shims, so that no other daemon of the machine gives them.
    first.iter().for_each(are_leased);
    daemon.start_again();
    assert_eq!(daemon.live().pid, before.pid);
    assert_eq!(ports(&daemon.live()), first);
    daemon.hotctl(["upgrade"]).exits(0);
    daemon.finds_successor();
    assert_eq!(daemon.live().pid, before.pid);
    assert_eq!(ports(&daemon.live()), first);
    // What is started again in its place has the same.
    send(before.pid.unwrap(), Signal::KILL);
    eventually("it is started again", || {
        let live = daemon.live();
        live.pid.is_some_and(|pid| Some(pid) != before.pid)
            && live.instances.iter().all(|one| one.state == "up")
    });
    assert_eq!(ports(&daemon.live()), first);
    let environment = fs::read(format!("/proc/{}/environ", daemon.live().pid.unwrap())).unwrap();
    let environment = String::from_utf8_lossy(&environment).into_owned();
    let told = format!("PORT_DEBUG={}", first[0]["debug"]);
    assert!(environment.split('\0').any(|line| line == told), "{told}");
    daemon.deploy("v2", &[]);
    let second = ports(&daemon.live());
    assert!(
        second
            .iter()
            .flat_map(Ports::values)
            .all(|port| !flat.contains(port))
    );
    eventually("those of the old release are free", || {
        !flat.iter().any(|port| is_leased(*port))
    });
    second.iter().for_each(are_leased);
}

#[test]
fn every_kind_of_address_can_have_a_port_beside_it() {
    let fixed = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let fixed = format!("fixed:{}", fixed.port());
    for address in ["port", "unix", "socket", &fixed] {
        let daemon = Daemon::start_with(
            &web(&format!(
                "address = \"{address}\"\nports = [\"debug\"]\nkeep_warm = \"0s\"\nenv_file = \"web.env\"\n\
                 [service.web.health]\nkind = \"command\"\n\
                 command = [\"sh\", \"-c\", \"test $0 = $PORT_DEBUG\", \"{{port.debug}}\"]"
            )),
            // Not this one.
            &[("web.env", "PORT_DEBUG=1\n")],
        );
        let listens: &[&str] = match address.strip_prefix("fixed:") {
            Some(port) => &["--listen-on", port],
            None => &[],
        };
        for version in ["v1", "v2"] {
            daemon.deploy(version, listens);
            let port = daemon.live().ports["debug"];
            let told = eventually_some("it answers", || {
                let answer = daemon.get("/env?name=PORT_DEBUG");
                (answer.head.status == 200).then(|| answer.text())
            });
            assert_eq!(told, port.to_string(), "{address}");
            assert!(is_leased(port), "{address}");
        }
    }
}

fn worker(daemon: &Daemon) -> PathBuf {
    let folder = daemon.folder().join("worker");
    fs::create_dir_all(&folder).unwrap();
    let work = "echo $PORT_DEBUG $1 > $HOTCTL_DATA/ports; sleep 1000";
    fs::write(folder.join("work"), work).unwrap();
    folder
}

#[test]
fn a_worker_has_no_address_and_can_have_ports() {
    let daemon = Daemon::of_web(
        "http = false\nports = [\"debug\"]\n[service.web.health]\nmin_uptime = \"100ms\"",
    );
    let folder = worker(&daemon);
    let words = ["deploy", folder.to_str().unwrap(), "--", "sh", "work"];
    daemon
        .hotctl(words.into_iter().chain(["{port.debug}"]))
        .exits(0);
    let port = daemon.live().ports["debug"];
    let told = fs::read_to_string(daemon.folder().join("state/services/web/data/ports")).unwrap();
    assert_eq!(told, format!("{port} {port}\n"));
    daemon
        .hotctl(["status"])
        .exits(0)
        .says(&format!("nowhere, debug {port}"));
}

#[test]
fn a_port_without_a_name_is_told_before_anything_is_touched() {
    let daemon = Daemon::of_web("ports = [\"debug\"]");
    let first = daemon.deploy("v1", &[]);
    let path = daemon.release("v2");
    for (word, hint) in [
        ("{port.debgu}", "{port.debug} in the command"),
        ("{port.metrics}", "name it in `ports`"),
    ] {
        let told = daemon.try_deploy(&path, &["--marker", word]).exits(1);
        told.says(word).says(hint);
    }
    assert_eq!(daemon.live().pid, Some(first.pid));
}

#[test]
fn a_port_that_is_named_later_comes_with_the_next_start() {
    let daemon = Daemon::of_web("ports = [\"debug\"]");
    daemon.deploy("v1", &[]);
    let before = daemon.live();
    let file = daemon.folder().join("hotctl.toml");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(
        &file,
        text.replace("[\"debug\"]", "[\"debug\", \"metrics\"]"),
    )
    .unwrap();
    let effect = "takes effect with the next deploy or restart of web";
    daemon.hotctl(["reload"]).exits(0).says(effect);
    assert_eq!(daemon.live().ports, before.ports);
    send(before.pid.unwrap(), Signal::KILL);
    eventually("it is started again", || {
        let live = daemon.live();
        live.pid.is_some_and(|pid| Some(pid) != before.pid) && live.instances[0].state == "up"
    });
    let now = daemon.live().ports;
    assert_eq!(now["debug"], before.ports["debug"]);
    let told = daemon.get("/env?name=PORT_METRICS").text();
    assert_eq!(told, now["metrics"].to_string());
    // Content, command and environment are the same: the ports are not.
    let path = daemon.release("v1");
    let again = daemon.try_deploy(&path, &[]).exits(0);
    assert!(
        again
            .events()
            .iter()
            .any(|event| event["event"] == "flipped"),
        "{again}"
    );
}
