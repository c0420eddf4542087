//! Apps that live on without whoever started them, and are found again.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::PathBuf;
use std::time::Duration;

use rustix::process::Signal;

use super::{Adopted, Gone, adopt, found, sweep_marked};
use crate::ports::{self, Lease, Ports};
use crate::process::{Exit, Notify, Outlive, Process, Spec};
use crate::testing::{House, eventually, launcher, test_app};
use crate::tree;

const LONG: Duration = Duration::from_secs(30);

fn lives(pid: u32) -> bool {
    tree::stat(pid).is_some_and(|stat| stat.state != 'Z')
}

fn spec(house: &House, script: &str) -> Spec {
    let mut spec = house.spec(&["sh", "-c", script]);
    spec.outlive = Some(Outlive {
        folder: house.folder.path().into(),
        name: "7.0".into(),
        note: "a note".into(),
        leases: Vec::new(),
    });
    spec
}

async fn started(house: &House, script: &str) -> Process {
    launcher().start(spec(house, script)).await.unwrap()
}

fn socket(house: &House) -> PathBuf {
    let mut all = found(house.folder.path()).unwrap();
    assert_eq!(all.len(), 1, "{all:?}");
    all.remove(0)
}

async fn adopted(house: &House) -> Adopted {
    adopt(&socket(house)).await.unwrap()
}

/// An app, and a child of it that has left its session.
async fn with_a_child_elsewhere(house: &House) -> (Process, u32) {
    let script = "setsid sh -c 'echo $$ > child; exec sleep 30' & wait";
    let app = started(house, script).await;
    let child = house.number("child").await;
    (app, child)
}

fn nothing_is_left(house: &House) {
    assert_eq!(found(house.folder.path()).unwrap(), Vec::<PathBuf>::new());
}

#[tokio::test]
async fn an_app_that_is_let_go_of_is_the_same_for_the_next_daemon() {
    let house = House::new();
    let app = started(&house, "echo 1 > ready; sleep 30").await;
    house.number("ready").await;
    let (pid, shim) = (app.pid(), app.shim_pid());
    app.leave().await;
    drop(app);
    let next = adopted(&house).await;
    assert_eq!((next.process.pid(), next.process.shim_pid()), (pid, shim));
    assert_eq!(next.note, "a note");
    assert_eq!(next.process.exit(), None);
    let stopped = next.process.stop(LONG).await;
    assert_eq!((stopped.exit, stopped.left), (Exit::Signal(15), 0));
    assert!(!lives(pid));
    // It is a child of this process, which nobody waits for any more.
    eventually(|| !lives(shim)).await;
    nothing_is_left(&house);
}

#[tokio::test]
async fn how_it_ended_while_nobody_was_there_is_told_to_the_next() {
    let house = House::new();
    let script = "while [ ! -e go ]; do sleep 0.01; done; echo last words; exit 3";
    let app = started(&house, script).await;
    let shim = app.shim_pid();
    app.leave().await;
    std::fs::write(house.path("go"), "").unwrap();
    eventually(|| !lives(app.pid())).await;
    assert!(lives(shim));
    let next = adopted(&house).await;
    assert_eq!(next.process.exited().await, Exit::Code(3));
    let stopped = next.process.stop(LONG).await;
    assert_eq!((stopped.exit, stopped.killed), (Exit::Code(3), false));
    assert_eq!(house.log(), "last words\n");
    eventually(|| !lives(shim)).await;
    nothing_is_left(&house);
}

#[tokio::test]
async fn two_daemons_hear_the_same() {
    let house = House::new();
    let old = started(
        &house,
        "trap 'exit 4' TERM; echo 1 > ready; while :; do sleep 0.01; done",
    )
    .await;
    house.number("ready").await;
    let new = adopted(&house).await;
    let stopped = new.process.stop(LONG).await;
    assert_eq!(stopped.exit, Exit::Code(4));
    assert_eq!(old.exited().await, Exit::Code(4));
    assert_eq!(old.stop(LONG).await.left, 0);
    nothing_is_left(&house);
}

#[tokio::test]
async fn a_daemon_too_many_is_told_so_and_the_app_is_not_taken_for_gone() {
    let house = House::new();
    let app = started(&house, "echo 1 > ready; sleep 30").await;
    house.number("ready").await;
    let mut attending = vec![app];
    while attending.len() < 4 {
        attending.push(adopted(&house).await.process);
    }
    let refused = adopt(&socket(&house)).await;
    assert!(matches!(refused, Err(Gone::Strange(_))), "{refused:?}");
    assert!(lives(attending[0].pid()));
    attending[0].stop(Duration::ZERO).await;
}

#[tokio::test]
async fn a_handle_that_is_dropped_ends_it_and_a_start_that_is_given_up_leaves_nothing() {
    let house = House::new();
    let app = started(&house, "sleep 30").await;
    let (pid, shim) = (app.pid(), app.shim_pid());
    drop(app);
    eventually(|| !lives(pid) && !lives(shim)).await;
    nothing_is_left(&house);
    for patience in 0..20 {
        let house = House::new();
        let mark = house.path("mark");
        let script = format!("echo $$ > {}; exec sleep 30", mark.display());
        let starting = launcher();
        let starting = starting.start(spec(&house, &script));
        drop(tokio::time::timeout(Duration::from_micros(patience * 300), starting).await);
        let folder = house.folder.path().to_owned();
        eventually(|| found(&folder).unwrap().is_empty()).await;
        if let Ok(pid) = std::fs::read_to_string(&mark)
            .unwrap_or_default()
            .trim()
            .parse()
        {
            eventually(|| !lives(pid)).await;
        }
    }
}

#[tokio::test]
async fn the_leases_of_its_ports_and_its_socket_last_as_long_as_the_app() {
    let house = House::new();
    let ports = Ports::new("17150-17158".parse().unwrap());
    // As many as it can have: its own, and 8 by name.
    let leases: Vec<Lease> = std::iter::from_fn(|| ports.lease().ok()).collect();
    let given: Vec<u16> = leases.iter().map(Lease::port).collect();
    assert_eq!(given.len(), 9);
    let listener = ports::listen(&leases[0]).unwrap();
    let program = test_app();
    let mut spec = spec(&house, "");
    spec.program = vec![
        program.display().to_string(),
        "inherit".into(),
        "200".into(),
    ];
    spec.listener = Some(listener);
    if let Some(outlive) = &mut spec.outlive {
        outlive.leases = leases;
    }
    let app = launcher().start(spec).await.unwrap();
    app.leave().await;
    drop(app);
    assert!(ports.lease().is_err());
    let next = adopted(&house).await;
    let kept: Vec<u16> = next.leases.iter().map(Lease::port).collect();
    assert_eq!(kept, given);
    assert!(next.listener.is_some());
    next.process.stop(Duration::ZERO).await;
    drop(next);
    assert!(ports.lease().is_ok());
}

#[tokio::test]
async fn what_an_app_said_of_itself_is_told_again() {
    let house = House::new();
    let program = test_app().display().to_string();
    let mut spec = spec(&house, "");
    spec.program = vec![program, "notify".into(), "READY=1".into()];
    spec.notify = Notify::Yes;
    let app = launcher().start(spec).await.unwrap();
    assert!(app.noticed(&app.notice()).await.ready);
    app.leave().await;
    let next = adopted(&house).await;
    assert!(next.process.notice().ready);
    next.process.stop(Duration::ZERO).await;
}

#[tokio::test]
async fn what_is_left_of_an_app_whose_shim_was_killed_is_found_by_its_mark() {
    let house = House::new();
    let (app, child) = with_a_child_elsewhere(&house).await;
    let (pid, shim) = (app.pid(), app.shim_pid());
    app.leave().await;
    drop(app);
    assert!(tree::send(shim, Signal::KILL, |_| true));
    eventually(|| !lives(pid)).await;
    assert!(lives(child));
    let socket = socket(&house);
    let gone = adopt(&socket).await;
    assert!(matches!(gone, Err(Gone::Nobody)), "{gone:?}");
    assert_eq!(sweep_marked(socket).await, 0);
    assert!(!lives(child));
    nothing_is_left(&house);
}

#[tokio::test]
async fn a_shim_that_is_killed_while_it_is_attended_to_leaves_nothing_either() {
    let house = House::new();
    let (app, child) = with_a_child_elsewhere(&house).await;
    app.leave().await;
    let next = adopted(&house).await;
    assert!(tree::send(next.process.shim_pid(), Signal::KILL, |_| true));
    assert_eq!(next.process.exited().await, Exit::Lost);
    assert_eq!(next.process.stop(LONG).await.left, 0);
    assert!(!lives(child));
    nothing_is_left(&house);
}

#[tokio::test]
async fn a_shim_without_a_folder_to_be_found_in_goes_with_its_app() {
    let house = House::new();
    let app = started(&house, "echo 1 > ready; sleep 30").await;
    house.number("ready").await;
    let shim = app.shim_pid();
    app.leave().await;
    std::fs::remove_file(socket(&house)).unwrap();
    assert!(tree::send(app.pid(), Signal::KILL, |_| true));
    eventually(|| !lives(shim)).await;
}

#[tokio::test]
async fn a_shim_is_small() {
    let house = House::new();
    let app = started(&house, "echo 1 > ready; sleep 30").await;
    house.number("ready").await;
    let rollup = std::fs::read_to_string(format!("/proc/{}/smaps_rollup", app.shim_pid()));
    let rollup = rollup.unwrap();
    let dirty = rollup
        .lines()
        .find_map(|line| line.strip_prefix("Private_Dirty:"));
    let kib: u32 = dirty
        .unwrap()
        .trim()
        .trim_end_matches(" kB")
        .parse()
        .unwrap();
    assert!(kib <= 3 * 1024, "{kib} KiB");
    app.stop(Duration::ZERO).await;
}
