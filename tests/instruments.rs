//! The instruments themselves: a load that could not fail would prove nothing. Without hotctl.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::process::Command;
use std::thread;
use std::time::Duration;

use rustix::process::Signal;

use crate::support::eventually::{eventually, eventually_some};
use crate::support::http::{self, Upload};
use crate::support::load::{Class, Failure, Load, Plan};
use crate::support::outcomes::Outcomes;
use crate::support::program::{self, Running};
use crate::support::{leftovers, sample};

struct App {
    process: Running,
    address: SocketAddr,
}

fn app(args: &[&str]) -> App {
    let mut command = Command::new(sample::sample());
    command
        .args(["--version-text", "v1"])
        .args(args)
        .env("PORT", "0");
    let process = program::start(&mut command);
    let address = eventually_some("the sample app listens", || {
        let said = process.stdout();
        said.lines()
            .find_map(|line| line.strip_prefix("sample: listening on ")?.parse().ok())
    });
    App { process, address }
}

/// What a small load sees of somebody who answers like this, whatever is asked.
fn load_on(answer: &'static [u8]) -> Outcomes {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut request = [0; 4096];
            let _ = stream.read(&mut request);
            let _ = stream.write_all(answer);
        }
    });
    few(address, Duration::from_secs(1))
}

fn few(address: SocketAddr, patience: Duration) -> Outcomes {
    let plan = Plan::to(address)
        .clients(Class::KeepAlive, 1)
        .clients(Class::NewConnection, 1);
    let load = plan.patience(patience).start();
    load.wait_for(4);
    load.finish()
}

#[test]
fn every_class_of_traffic_goes_through_to_a_sound_app_and_the_app_ends_in_peace() {
    let app = app(&[]);
    let load = Load::of_everything(app.address);
    load.expect(&["v1"]);
    load.wait_for(500);
    // Streams and slow requests are under way, and it lets them finish.
    let outcomes = load.finish();
    outcomes.assert_none_failed();
    assert_eq!(outcomes.closed_idle(), 0, "{outcomes}");
    app.process.signal(Signal::TERM);
    app.process.wait().exits(0);
}

#[test]
fn a_request_in_flight_is_answered_after_sigterm_and_a_new_connection_refused() {
    let app = app(&[]);
    let upload = Upload::begin(app.address, "test");
    app.process.signal(Signal::TERM);
    eventually("new connections are refused", || {
        http::try_ask(app.address, "GET / HTTP/1.1\r\n\r\n").is_err()
    });
    upload.end().has_status(200);
    app.process.wait().exits(0);
}

#[test]
fn the_load_notices_when_nobody_listens() {
    let free = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let outcomes = few(free, Duration::from_secs(1));
    assert_eq!(
        outcomes.count(Failure::Refused),
        outcomes.total(),
        "{outcomes}"
    );
}

#[test]
fn the_load_notices_errors_and_shows_hotctls_reason() {
    let outcomes = load_on(
        b"HTTP/1.1 503 Service Unavailable\r\nx-hotctl-error: stopped\r\ncontent-length: 5\r\n\r\nsorry",
    );
    assert!(outcomes.count(Failure::Status) >= 1, "{outcomes}");
    assert!(
        outcomes.to_string().contains("x-hotctl-error: stopped"),
        "{outcomes}"
    );
}

#[test]
fn the_load_notices_answers_cut_off_wrong_bodies_and_nonsense() {
    let cut = load_on(b"HTTP/1.1 200 OK\r\nx-version: v1\r\ncontent-length: 30\r\n\r\nv1");
    let early = cut.count(Failure::ClosedEarly) + cut.count(Failure::Reset);
    assert_eq!(early, cut.total(), "{cut}");
    let wrong = load_on(b"HTTP/1.1 200 OK\r\nx-version: v1\r\ncontent-length: 3\r\n\r\nv2\n");
    assert!(wrong.count(Failure::WrongBody) >= 1, "{wrong}");
    let nonsense = load_on(b"hello, hello\r\n\r\n");
    assert!(nonsense.count(Failure::Garbled) >= 1, "{nonsense}");
}

#[test]
fn the_load_notices_silence() {
    let app = app(&["--hang"]);
    let plan = Plan::to(app.address).clients(Class::KeepAlive, 1);
    let load = plan.patience(Duration::from_millis(100)).start();
    load.wait_for(1);
    let outcomes = load.finish();
    assert_eq!(
        outcomes.count(Failure::Timeout),
        outcomes.total(),
        "{outcomes}"
    );
}

#[test]
fn the_load_notices_a_version_that_should_not_answer_any_more() {
    let app = app(&[]);
    let load = Plan::to(app.address).clients(Class::KeepAlive, 1).start();
    load.expect(&["v1"]);
    load.wait_for(5);
    load.flipping("v1", "v2", || load.wait_for(5));
    load.wait_for(5);
    let outcomes = load.finish();
    assert!(outcomes.of_class(Class::KeepAlive).ok >= 10, "{outcomes}");
    assert!(outcomes.count(Failure::WrongVersion) >= 4, "{outcomes}");
    assert_eq!(
        outcomes.count(Failure::WrongVersion),
        outcomes.failed(),
        "{outcomes}"
    );
}

#[test]
fn a_connection_closed_while_idle_is_told_from_a_lost_request() {
    let app = app(&["--drop-idle-after", "20"]);
    let plan = Plan::to(app.address).clients(Class::KeepAlive, 1);
    let load = plan.every(Duration::from_millis(200)).start();
    load.wait_for(3);
    let outcomes = load.finish();
    outcomes.assert_none_failed();
    assert!(outcomes.closed_idle() >= 1, "{outcomes}");
}

#[test]
fn children_that_hide_from_their_parent_are_found_by_the_folder_they_belong_to() {
    let folder = tempfile::tempdir().unwrap();
    let release = sample::release(folder.path(), "v9");
    let mut command = Command::new(&release);
    let app = program::start(command.arg("--fork-children").env("PORT", "0"));
    // The app, a child, one in its own session, and one whose parent is gone.
    eventually("all four are found", || {
        let found = leftovers::processes(folder.path());
        found
            .iter()
            .filter(|process| !process.line.contains("--child parent"))
            .count()
            == 4
    });
    assert!(leftovers::descendants(app.pid()).len() >= 2);
    leftovers::kill(&leftovers::processes(folder.path()));
    eventually("none is left", || {
        leftovers::processes(folder.path()).is_empty()
    });
}

#[test]
fn a_copy_with_a_line_appended_is_another_version() {
    let folder = tempfile::tempdir().unwrap();
    let release = sample::release_of_size(folder.path(), "v42", 20_000_000);
    assert_eq!(release.metadata().unwrap().len(), 20_000_000);
    let mut command = Command::new(&release);
    let app = program::start(command.env("PORT", "0"));
    let address = eventually_some("it listens", || {
        let said = app.stdout();
        said.lines()
            .find_map(|line| line.strip_prefix("sample: listening on ")?.parse().ok())
    });
    assert_eq!(http::get(address, "/").text(), "v42\n");
}
