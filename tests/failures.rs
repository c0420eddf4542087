//! A release that fails says why, ends with exit 1, leaves nothing behind, and what is live does not
//! notice.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use rustix::process::Signal;

use crate::support::load::Plan;
use crate::support::program::Ran;
use crate::support::{Class, Daemon, eventually, eventually_some, http, leftovers};

/// Short enough for a test, long enough for a busy machine.
const QUICK: &str = "keep_warm = \"0s\"\nstart_timeout = \"3s\"\nstop_timeout = \"500ms\"\n";

/// A daemon with v1 live.
fn serving(lines: &str) -> Daemon {
    let daemon = Daemon::of_web(&format!("{QUICK}{lines}"));
    daemon.deploy("v1", &[]);
    daemon
}

fn pids(daemon: &Daemon) -> BTreeSet<u32> {
    leftovers::processes(daemon.folder())
        .into_iter()
        .map(|process| process.pid)
        .collect()
}

/// Do what fails, under load, and see that nothing has come of it.
fn without_consequence(daemon: &Daemon, deploy: impl FnOnce() -> Ran) -> Ran {
    let live = daemon.live();
    let before = pids(daemon);
    let load = Plan::to(daemon.listen())
        .clients(Class::KeepAlive, 2)
        .clients(Class::NewConnection, 1)
        .every(Duration::from_millis(10))
        .start();
    load.expect(&["v1"]);
    load.wait_for(10);
    let ran = deploy().exits(1);
    load.wait_for(10);
    load.finish().assert_none_failed();
    let now = daemon.live();
    assert_eq!(
        (now.release, now.pid, now.restarts),
        (live.release, live.pid, 0)
    );
    eventually("nothing of it runs any more", || pids(daemon) == before);
    if let Some(address) = candidate_address(&ran.stdout) {
        let refused = TcpStream::connect(address).is_err();
        assert!(refused, "somebody still listens on {address}");
    }
    let unfinished = unfinished(daemon);
    assert!(unfinished.is_empty(), "left behind: {unfinished:?}");
    ran
}

/// What the store has begun and not finished.
fn unfinished(daemon: &Daemon) -> Vec<PathBuf> {
    let mut files = leftovers::files(&daemon.folder().join("state"));
    files.retain(|path| {
        path.file_name()
            .is_some_and(|name| name.to_string_lossy().contains("tmp"))
    });
    files
}

/// From a line such as `web@2 started on 127.0.0.1:20017, pid 4711 (3 ms)`.
fn candidate_address(said: &str) -> Option<SocketAddr> {
    let (_, rest) = said.split_once("started on ")?;
    rest.split([',', ' ', '\n']).next()?.parse().ok()
}

/// The command of a deploy of that path, for people to read.
fn deploy_args<'a>(path: &'a Path, args: &[&'a str]) -> Vec<&'a str> {
    let mut all = vec!["deploy", path.to_str().unwrap(), "--"];
    all.extend(args);
    all
}

/// Deploy v2 so, and see that it fails without consequence and says why.
#[track_caller]
fn fails(lines: &str, args: &[&str], reasons: &[&str]) -> Daemon {
    let daemon = serving(lines);
    let path = daemon.release("v2");
    let mut ran = without_consequence(&daemon, || daemon.hotctl(deploy_args(&path, args)));
    for reason in reasons {
        ran = ran.says(reason);
    }
    daemon
}

#[test]
fn a_crash_at_start_is_told_with_exit_status_and_last_output() {
    let args = ["--crash-at-start", "3"];
    fails(
        "",
        &args,
        &[
            "exit status 3",
            "sample: crashing at start, as asked",
            "web@1 is live",
        ],
    );
}

#[test]
fn a_segmentation_fault_is_told_by_name() {
    fails(
        "",
        &["--segv"],
        &["SIGSEGV", "a segmentation fault, as asked"],
    );
}

#[test]
fn an_app_that_never_listens_is_given_up_with_the_last_probe() {
    let reasons = [
        "within 3s",
        "connection refused",
        "never listening, as asked",
    ];
    fails("", &["--never-listen"], &reasons);
}

#[test]
fn an_app_that_listens_elsewhere_is_told_where() {
    let elsewhere = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let elsewhere = elsewhere.to_string();
    let told = format!("listens on {elsewhere}");
    fails("", &["--listen-on", &elsewhere], &[&told, "not on PORT"]);
}

#[test]
fn an_app_that_answers_500_is_told_with_the_beginning_of_its_answer() {
    fails(
        "",
        &["--always-500"],
        &["status 500", "broken, as asked", "100-499"],
    );
}

#[test]
fn an_app_that_hangs_is_told_with_the_time_that_was_waited() {
    let reasons = ["GET 127.0.0.1:", "200 ms"];
    fails("health.timeout = \"200ms\"", &["--hang"], &reasons);
}

#[test]
fn a_redirect_is_explained_where_it_does_not_count_as_healthy() {
    let health = "health.path = \"/redirect\"\nhealth.status = \"200-299\"\n";
    let daemon = Daemon::of_web(&format!("{QUICK}{health}"));
    let path = daemon.release("v1");
    let ran = daemon.hotctl(deploy_args(&path, &[])).exits(1);
    ran.says("status 301")
        .says("https://example.test/")
        .says("health.path");
}

#[test]
fn a_body_without_the_wanted_text_is_not_healthy() {
    let lines = "health.path = \"/\"\nhealth.body = \"v1\"";
    fails(lines, &[], &["v1"]);
}

#[test]
fn a_failing_app_that_leaves_children_everywhere_leaves_none() {
    let args = ["--always-500", "--fork-children", "--ignore-term"];
    let daemon = fails("", &args, &["status 500"]);
    assert!(
        leftovers::processes(daemon.folder())
            .iter()
            .all(|p| !p.line.contains("--child"))
    );
}

#[test]
fn a_failing_app_that_fills_its_output_is_told_like_any_other() {
    let daemon = fails(
        "",
        &["--always-500", "--flood-stdout"],
        &["status 500", "one line of a flood"],
    );
    let logs = leftovers::files(&daemon.folder().join("state"));
    let size: u64 = logs
        .iter()
        .filter_map(|path| Some(path.metadata().ok()?.len()))
        .sum();
    // Two versions of the app, and logs that are cut at 16 MiB, with one older each.
    assert!(size < 200 << 20, "{size} bytes of state");
}

#[test]
fn a_live_app_that_fills_its_output_is_never_held_up_by_it() {
    let daemon = Daemon::of_web(QUICK);
    daemon.deploy("v1", &["--flood-stdout"]);
    let plan = Plan::to(daemon.listen()).clients(Class::KeepAlive, 2);
    let load = plan.every(Duration::from_millis(5)).start();
    load.expect(&["v1"]);
    load.wait_for(200);
    load.finish().assert_none_failed();
    daemon
        .hotctl(["logs", "-n", "3"])
        .exits(0)
        .says("one line of a flood");
}

#[test]
fn a_stranger_who_answers_on_the_candidates_port_is_not_taken_for_it() {
    let daemon = serving("health.ownership = \"require\"");
    let path = daemon.release("v2");
    let ran = without_consequence(&daemon, || {
        let deploy = daemon.alongside(deploy_args(&path, &["--never-listen"]));
        let address = eventually_some("the candidate's address", || {
            candidate_address(&deploy.stdout())
        });
        let stranger = TcpListener::bind(address).unwrap();
        let stop = stranger.try_clone().unwrap();
        thread::spawn(move || {
            for mut stream in stranger.incoming().map_while(Result::ok) {
                let _ = stream.read(&mut [0; 1024]);
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
            }
        });
        let ran = deploy.wait();
        rustix::net::shutdown(&stop, rustix::net::Shutdown::Both).unwrap();
        eventually("the stranger has left", || {
            TcpStream::connect(address).is_err()
        });
        ran
    });
    ran.says("answered by another process");
}

#[test]
fn without_a_free_port_nothing_is_started() {
    // Two ports side by side, one for what is live, the other taken by somebody else; below those that
    // the system gives to outgoing connections.
    let mut ports = (10_000..19_000)
        .step_by(2)
        .skip(std::process::id() as usize % 4_000);
    let (first, taken) = eventually_some("two ports side by side", || {
        let first: u16 = ports.next()?;
        TcpListener::bind(("127.0.0.1", first)).ok()?;
        let taken = TcpListener::bind(("127.0.0.1", first + 1)).ok()?;
        Some((first, taken))
    });
    let last = taken.local_addr().unwrap().port();
    let web = crate::support::daemon::web(QUICK);
    let daemon = Daemon::start(&format!("ports = \"{first}-{last}\"\n{web}"));
    daemon.deploy("v1", &[]);
    let path = daemon.release("v2");
    let ran = without_consequence(&daemon, || daemon.hotctl(deploy_args(&path, &[])));
    ran.says("port").says(&format!("{first}-{last}"));
}

/// What is no release by what it is.
fn refused(make: impl FnOnce(&Daemon) -> PathBuf, reasons: &[&str]) {
    let daemon = serving("");
    let path = make(&daemon);
    let mut ran = without_consequence(&daemon, || daemon.hotctl(deploy_args(&path, &[])));
    for reason in reasons {
        ran = ran.says(reason);
    }
}

#[test]
fn a_truncated_executable_is_refused() {
    let truncated = |daemon: &Daemon| {
        let path = daemon.release("v2");
        let half = path.metadata().unwrap().len() / 2;
        File::options()
            .write(true)
            .open(&path)
            .unwrap()
            .set_len(half)
            .unwrap();
        path
    };
    refused(truncated, &["truncated"]);
}

#[test]
fn a_file_that_is_no_program_is_refused() {
    let text = |daemon: &Daemon| {
        let path = daemon.folder().join("notes");
        fs::write(&path, "buy milk\n").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    };
    refused(text, &["notes", "#!"]);
}

#[test]
fn a_file_that_somebody_still_writes_is_refused() {
    let daemon = serving("");
    let path = daemon.release("v2");
    let writer = File::options().append(true).open(&path).unwrap();
    let ran = without_consequence(&daemon, || daemon.hotctl(deploy_args(&path, &[])));
    ran.says("writ");
    drop(writer);
    daemon.hotctl(deploy_args(&path, &[])).exits(0);
    assert_eq!(daemon.get("/").text(), "v2\n");
}

#[test]
fn overwriting_the_file_that_was_deployed_changes_nothing_that_runs() {
    let daemon = serving("");
    let path = daemon.folder().join("app-v1");
    fs::write(&path, "gone").unwrap();
    fs::remove_file(&path).unwrap();
    assert_eq!(daemon.get("/").text(), "v1\n");
    daemon.hotctl(["restart"]).exits(0);
    assert_eq!(daemon.get("/").text(), "v1\n");
}

#[test]
fn a_command_that_is_not_there_is_told_by_name() {
    let daemon = serving("");
    let folder = daemon.folder().join("site");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("index.html"), "hello").unwrap();
    let args = deploy_args(&folder, &["no-such-program-here", "--port", "{port}"]);
    let ran = without_consequence(&daemon, || daemon.hotctl(args));
    ran.says("no-such-program-here");
}

#[test]
fn a_folder_with_a_link_out_of_it_is_refused() {
    let folder = |daemon: &Daemon| {
        let folder = daemon.folder().join("site");
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("run.sh"), "#!/bin/sh\n").unwrap();
        symlink("/etc/passwd", folder.join("users")).unwrap();
        folder
    };
    refused(folder, &["users"]);
}

#[test]
fn ctrl_c_in_the_command_cancels_the_deployment() {
    let daemon = serving("");
    let path = daemon.release("v2");
    let ran = without_consequence(&daemon, || {
        let mut deploy = daemon.alongside(deploy_args(&path, &["--never-listen"]));
        deploy.until_it_says("started on");
        deploy.signal(Signal::INT);
        deploy.wait()
    });
    ran.says("cancelled");
}

#[test]
fn losing_the_command_does_not_cancel_the_deployment() {
    let daemon = serving("");
    let path = daemon.release("v2");
    let mut deploy = daemon.alongside(deploy_args(&path, &["--start-delay-ms", "300"]));
    deploy.until_it_says("started on");
    deploy.signal(Signal::KILL);
    drop(deploy);
    eventually("it goes live all the same", || {
        daemon.live().release == "web@2"
    });
}

/// Entries of a tar archive by hand: names that the crate would refuse to write.
fn tar_of(entries: &[(&str, tar::EntryType, &str, u32, &[u8])]) -> Vec<u8> {
    let mut archive = Vec::new();
    for (name, kind, link, mode, content) in entries {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(*kind);
        header.set_size(content.len() as u64);
        header.set_mode(*mode);
        header.set_mtime(0);
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_cksum();
        archive.extend_from_slice(header.as_bytes());
        archive.extend_from_slice(content);
        archive.resize(archive.len().next_multiple_of(512), 0);
    }
    archive.resize(archive.len() + 1024, 0);
    archive
}

/// Put a folder straight to the control API, as a hostile client would.
fn put(daemon: &Daemon, archive: &[u8]) -> String {
    let mut stream = UnixStream::connect(daemon.folder().join("control.sock")).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    let head = format!(
        "PUT /v1/services/web/releases?kind=folder&name=site HTTP/1.1\r\nhost: hotctl\r\n\
         connection: close\r\ncontent-length: {}\r\n\r\n",
        archive.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    // A refusal may come before all of it has been read.
    let _ = stream.write_all(archive);
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn a_hostile_archive_cannot_leave_its_folder() {
    use tar::EntryType::{Block, Char, Fifo, Link, Regular, Symlink};
    let daemon = serving("");
    let outside = daemon.folder().join("outside");
    fs::create_dir(&outside).unwrap();
    let out = outside.to_str().unwrap();
    let evil = format!("{out}/evil");
    let program = ("run.sh", Regular, "", 0o755, &b"#!/bin/sh\n"[..]);
    let hostile: [(&str, Vec<_>); 9] = [
        (
            "a path upwards",
            vec![program, ("../evil", Regular, "", 0o644, b"x")],
        ),
        (
            "a path upwards within",
            vec![program, ("a/../../evil", Regular, "", 0o644, b"x")],
        ),
        (
            "an absolute path",
            vec![program, (&evil, Regular, "", 0o644, b"x")],
        ),
        ("a link out", vec![program, ("l", Symlink, out, 0o777, b"")]),
        (
            "a link upwards and a file through it",
            vec![
                program,
                ("l", Symlink, "../..", 0o777, b""),
                ("l/evil", Regular, "", 0o644, b"x"),
            ],
        ),
        (
            "a hard link out",
            vec![program, ("h", Link, "/etc/passwd", 0o644, b"")],
        ),
        (
            "a character device",
            vec![program, ("d", Char, "", 0o666, b"")],
        ),
        (
            "a block device",
            vec![program, ("b", Block, "", 0o666, b"")],
        ),
        ("a pipe", vec![program, ("p", Fifo, "", 0o666, b"")]),
    ];
    for (what, entries) in hostile {
        let answer = put(&daemon, &tar_of(&entries));
        assert!(
            answer.starts_with("HTTP/1.1 4"),
            "{what} was taken: {answer}"
        );
        assert!(answer.contains("\"error\""), "{what}: {answer}");
    }
    let setuid = [program, ("s", Regular, "", 0o4755, &b"x"[..])];
    let answer = put(&daemon, &tar_of(&setuid));
    if answer.starts_with("HTTP/1.1 200") {
        let state = leftovers::files(&daemon.folder().join("state"));
        let mode = |path: &PathBuf| fs::metadata(path).map_or(0, |meta| meta.permissions().mode());
        assert!(
            state.iter().all(|path| mode(path) & 0o6000 == 0),
            "kept its setuid bit"
        );
    }
    assert!(
        fs::read_dir(&outside).unwrap().next().is_none(),
        "something got out"
    );
    let all = leftovers::files(daemon.folder());
    assert!(
        !all.iter().any(|path| path.ends_with("evil")),
        "something got out"
    );
    assert!(
        put(&daemon, &tar_of(&[program])).starts_with("HTTP/1.1 200"),
        "a good one is taken"
    );
    assert_eq!(http::get(daemon.listen(), "/").text(), "v1\n");
}

#[test]
fn an_upload_that_breaks_off_leaves_nothing() {
    let daemon = serving("");
    let mut stream = UnixStream::connect(daemon.folder().join("control.sock")).unwrap();
    let head = "PUT /v1/services/web/releases?kind=file&name=app HTTP/1.1\r\nhost: hotctl\r\n\
                content-length: 1000000\r\n\r\n\x7fELF";
    stream.write_all(head.as_bytes()).unwrap();
    drop(stream);
    eventually("the broken upload is gone", || {
        unfinished(&daemon).is_empty()
    });
    daemon.deploy("v2", &[]);
}
