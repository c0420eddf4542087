//! Real processes under real shims.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::{Exit, Notify};
use crate::heed::Heed;
use crate::logs::tail;
use crate::ports::{self, Ports};
use crate::testing::{House, eventually, launcher, test_app};
use crate::tree;

fn lives(pid: u32) -> bool {
    tree::stat(pid).is_some_and(|stat| stat.state != 'Z')
}

const SHORT: Duration = Duration::from_millis(200);
const LONG: Duration = Duration::from_secs(30);

#[tokio::test]
async fn a_crash_at_start_tells_its_status_and_its_last_words() {
    let house = House::new();
    let app = house.sh("echo one; echo two >&2; exit 3").await;
    assert_eq!(app.exited().await.to_string(), "exit status 3");
    assert_eq!(app.exit(), Some(Exit::Code(3)));
    let mut last = tail(&house.path("log"), 20);
    last.sort();
    assert_eq!(last, ["one", "two"]);
    let stopped = app.stop(LONG).await;
    assert_eq!((stopped.exit, stopped.left), (Exit::Code(3), 0));
    assert!(!lives(app.shim_pid()));
}

#[tokio::test]
async fn signals_are_told_by_name() {
    for (signal, text) in [
        ("SEGV", "killed by SIGSEGV (11)"),
        ("KILL", "killed by SIGKILL (9)"),
        ("ABRT", "killed by SIGABRT (6)"),
    ] {
        let house = House::new();
        let app = house.sh(&format!("kill -{signal} $$")).await;
        assert_eq!(app.exited().await.to_string(), text);
    }
}

#[tokio::test]
async fn what_cannot_be_started_says_why() {
    let house = House::new();
    let plain = house.path("plain");
    fs::write(&plain, "hello").unwrap();
    let garbage = house.path("garbage");
    fs::write(&garbage, [0x7f, 1, 2, 3]).unwrap();
    let script = house.path("script");
    fs::write(&script, "#!/nowhere/sh\n").unwrap();
    for path in [&garbage, &script] {
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(path, mode).unwrap();
    }
    let path = |path: &PathBuf| path.display().to_string();
    for (program, reason) in [
        ("no-such-program".into(), "no such program in PATH"),
        ("/no/such/program".into(), "no such file"),
        (
            path(&plain),
            "not executable, or on a file system without exec",
        ),
        (
            path(&garbage),
            "not a program of this machine, and without a #! line",
        ),
        (
            path(&script),
            "its interpreter /nowhere/sh is not on this machine",
        ),
    ] {
        let error = house.start(&[&program]).await.unwrap_err().to_string();
        assert_eq!(error, format!("{program}: {reason}"));
    }
    let mut spec = house.spec(&["true"]);
    spec.cwd = "/no/such/folder".into();
    let error = launcher().start(spec).await.unwrap_err().to_string();
    assert_eq!(error, "true: its folder /no/such/folder is not there");
}

#[tokio::test]
async fn an_app_is_started_clean() {
    let house = House::new();
    let app = house
        .sh(
            "ls /proc/self/fd | tr '\\n' ' '; echo; env | grep -v -e PWD -e _= -e SHLVL; pwd; \
             grep -e SigBlk -e SigIgn -e SigCgt /proc/self/status | tr '\\n' ' '; \
             cat; ps -o sid= -p $$ 2>/dev/null | tr -d ' '",
        )
        .await;
    app.exited().await;
    let log = house.log();
    // 3 is the folder that `ls` reads.
    assert!(log.starts_with("0 1 2 3 \nPATH=/usr/bin:/bin\n"), "{log}");
    assert!(log.contains(house.folder.path().to_str().unwrap()), "{log}");
    let set = |name: &str| {
        let hex = log
            .split(name)
            .nth(1)
            .unwrap()
            .split_whitespace()
            .next()
            .unwrap();
        // 32 and 33 belong to the C library, which does not let them be reset.
        u64::from_str_radix(hex, 16).unwrap() & !(0b11 << 31)
    };
    assert_eq!((set("SigBlk:"), set("SigIgn:")), (0, 0), "{log}");
}

#[tokio::test]
async fn a_graceful_end_is_waited_for_and_an_ignored_one_is_not() {
    let house = House::new();
    let polite = house
        .sh("trap 'echo bye; exit 0' TERM; echo 1 > ready; while :; do sleep 0.01; done")
        .await;
    house.number("ready").await;
    let stopped = polite.stop(LONG).await;
    assert_eq!((&stopped.exit, stopped.killed), (&Exit::Code(0), false));
    assert!(house.log().contains("bye"));

    let house = House::new();
    let stubborn = house
        .sh("trap '' TERM; echo 1 > ready; while :; do sleep 0.01; done")
        .await;
    house.number("ready").await;
    let began = Instant::now();
    let stopped = stubborn.stop(SHORT).await;
    assert_eq!(
        (&stopped.exit, stopped.killed, stopped.left),
        (&Exit::Signal(9), true, 0)
    );
    assert!((SHORT..Duration::from_secs(3)).contains(&began.elapsed()));
}

#[tokio::test]
async fn a_second_stop_shortens_the_grace() {
    let house = House::new();
    let app = house
        .sh("trap '' TERM; echo 1 > ready; while :; do sleep 0.01; done")
        .await;
    house.number("ready").await;
    let began = Instant::now();
    let (first, second) = tokio::join!(app.stop(LONG), app.stop(Duration::ZERO));
    assert_eq!(first, second);
    assert!(began.elapsed() < Duration::from_secs(3));
}

#[tokio::test]
async fn a_stopped_process_still_hears_that_it_is_to_end() {
    let house = House::new();
    let app = house.sh("echo 1 > ready; kill -STOP $$").await;
    house.number("ready").await;
    let pid = app.pid();
    eventually(|| tree::stat(pid).is_some_and(|stat| stat.state == 'T')).await;
    let stopped = app.stop(LONG).await;
    assert_eq!((stopped.exit, stopped.killed), (Exit::Signal(15), false));
}

#[tokio::test]
async fn whoever_leaves_the_session_or_forks_twice_is_ended_too() {
    let house = House::new();
    let app = house
        .sh("setsid sh -c 'trap \"\" TERM; echo $$ > away; while :; do sleep 1; done' & \
             (setsid sh -c '(trap \"\" TERM HUP; sh -c \"echo \\$PPID > twice\"; while :; do sleep 1; done) & ' &) ; \
             trap '' TERM; while :; do sleep 1; done")
        .await;
    let away = house.number("away").await;
    let twice = house.number("twice").await;
    assert!(lives(away) && lives(twice));
    let all = app.pids();
    for pid in [away, twice, app.pid()] {
        assert!(all.contains(&pid), "{pid} is not in {all:?}");
    }
    let stopped = app.stop(SHORT).await;
    assert_eq!((stopped.killed, stopped.left), (true, 0));
    for pid in all.into_iter().chain([app.shim_pid()]) {
        assert!(!lives(pid), "{pid} is still there");
    }
    assert!(app.pids().is_empty());
}

#[tokio::test]
async fn what_multiplies_is_ended_too() {
    let house = House::new();
    let app = house
        .sh(
            "echo 1 > ready; f() { (sleep 0.01; f) & (sleep 0.02; f) & }; trap '' TERM; \
             f; n=0; while [ $n -lt 200 ]; do setsid sleep 30 & n=$((n+1)); done; wait",
        )
        .await;
    house.number("ready").await;
    eventually(|| app.pids().len() > 50).await;
    let stopped = app.stop(Duration::from_millis(50)).await;
    assert_eq!((stopped.killed, stopped.left), (true, 0));
    assert!(tree::session(app.pid()).iter().all(|pid| !lives(*pid)));
}

#[tokio::test]
async fn a_helper_that_keeps_the_pipe_does_not_delay_the_news_and_does_not_stay() {
    let house = House::new();
    let app = house
        .sh("setsid sh -c 'echo $$ > helper; sleep 30' & sleep 0.05; echo last; exit 4")
        .await;
    let helper = house.number("helper").await;
    let began = Instant::now();
    assert_eq!(app.exited().await, Exit::Code(4));
    assert!(began.elapsed() < Duration::from_secs(1));
    assert_eq!(house.log(), "last\n");
    // Nobody stops it: its shim ends what is left by itself.
    eventually(|| !lives(helper) && !lives(app.shim_pid())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_never_blocks_the_app_nor_fills_the_disk() {
    let house = House::new();
    let began = Instant::now();
    let app = house
        .sh("yes 0123456789abcdef | head -c 500000000; echo; echo the end")
        .await;
    let exit = tokio::time::timeout(LONG, app.exited())
        .await
        .expect("the flood blocks");
    assert_eq!(exit, Exit::Code(0));
    println!("500 MB in {:?}", began.elapsed());
    assert_eq!(tail(&house.path("log"), 1), ["the end"]);
    let size = |name| fs::metadata(house.path(name)).map_or(0, |meta| meta.len());
    assert!(size("log") <= 18 << 20 && size("log.1") <= 18 << 20);
}

#[tokio::test]
async fn a_disk_that_takes_nothing_does_not_stop_the_app() {
    let house = House::new();
    let mut spec = house.spec(&["sh", "-c", "yes | head -c 5000000; exit 5"]);
    spec.log = "/dev/full".into();
    let app = launcher().start(spec).await.unwrap();
    let exit = tokio::time::timeout(LONG, app.exited()).await;
    assert_eq!(exit.unwrap(), Exit::Code(5));

    let mut spec = house.spec(&["sh", "-c", "echo hello; exit 6"]);
    spec.log = "/no/such/folder/log".into();
    let app = launcher().start(spec).await.unwrap();
    assert_eq!(app.exited().await, Exit::Code(6));
}

#[tokio::test]
async fn lines_of_both_pipes_are_kept_whole_and_a_prompt_comes_through() {
    let house = House::new();
    let app = house
        .sh("printf 'out '; echo err >&2; echo put; printf 'prompt> '; sleep 30")
        .await;
    eventually(|| house.log().ends_with("prompt> ")).await;
    let log = house.log();
    assert!(
        ["err\nout put\nprompt> ", "out put\nerr\nprompt> "].contains(&log.as_str()),
        "{log}"
    );
    app.stop(Duration::ZERO).await;
}

#[tokio::test]
async fn when_the_last_handle_is_gone_so_is_the_app() {
    let house = House::new();
    let app = house
        .sh("trap '' TERM; setsid sleep 30 & while :; do sleep 1; done")
        .await;
    eventually(|| app.pids().len() >= 2).await;
    let mut all = app.pids();
    all.push(app.shim_pid());
    drop(app);
    eventually(|| !all.iter().any(|pid| lives(*pid))).await;
}

#[tokio::test]
async fn a_start_that_is_given_up_leaves_nothing() {
    let house = House::new();
    let mark = house.path("mark");
    let script = format!("echo $$ > {}; exec sleep 30", mark.display());
    for patience in 0..20 {
        let words = ["sh", "-c", script.as_str()];
        let starting = house.start(&words);
        let patience = Duration::from_micros(patience * 300);
        drop(tokio::time::timeout(patience, starting).await);
        if let Ok(pid) = fs::read_to_string(&mark).unwrap_or_default().trim().parse() {
            eventually(|| !lives(pid)).await;
        }
    }
}

#[tokio::test]
async fn a_shim_that_is_killed_takes_the_app_with_it() {
    let house = House::new();
    let app = house.sh("sleep 30 & echo $! > child; wait").await;
    let child = house.number("child").await;
    let shim = app.shim_pid();
    assert!(tree::send(shim, rustix::process::Signal::KILL, |_| true));
    assert_eq!(app.exited().await, Exit::Lost);
    let stopped = app.stop(LONG).await;
    assert_eq!((stopped.exit, stopped.left), (Exit::Lost, 0));
    assert!(!lives(app.pid()) && !lives(child));
}

#[tokio::test]
async fn a_shim_that_somebody_has_stopped_stops_its_app_and_tells_of_its_end() {
    let house = House::new();
    let killed = Exit::Signal(9);
    let app = house.sh("sleep 30").await;
    let stop_shim = |app: &crate::process::Process| {
        let stop = rustix::process::Signal::STOP;
        assert!(tree::send(app.shim_pid(), stop, |_| true));
    };
    stop_shim(&app);
    let stopped = app.stop(Duration::ZERO).await;
    assert_eq!((stopped.exit, stopped.left), (killed.clone(), 0));
    assert!(!lives(app.pid()));
    let app = house.sh("sleep 30").await;
    stop_shim(&app);
    assert!(tree::send(app.pid(), rustix::process::Signal::KILL, |_| {
        true
    }));
    assert_eq!(app.exited().await, killed);
}

#[tokio::test]
async fn a_program_that_is_being_written_is_tried_again() {
    let house = House::new();
    let program = house.path("sleep");
    fs::copy("/bin/sleep", &program).unwrap();
    let writer = fs::File::options().append(true).open(&program).unwrap();
    let began = Instant::now();
    tokio::spawn(async move {
        tokio::time::sleep(SHORT).await;
        drop(writer);
    });
    let app = house
        .start(&[program.to_str().unwrap(), "30"])
        .await
        .unwrap();
    assert!(began.elapsed() >= SHORT);
    app.stop(Duration::ZERO).await;

    let _writer = fs::File::options().append(true).open(&program).unwrap();
    let error = house
        .start(&[program.to_str().unwrap(), "30"])
        .await
        .unwrap_err();
    assert!(
        error
            .to_string()
            .ends_with("still being written by another process")
    );
}

#[tokio::test]
async fn signals_reach_the_app() {
    let house = House::new();
    let app = house
        .sh("trap 'echo 1 > got' USR1; echo 1 > ready; while :; do sleep 0.01; done")
        .await;
    house.number("ready").await;
    app.signal("NONSENSE").await;
    app.signal("USR1").await;
    house.number("got").await;
    app.stop(Duration::ZERO).await;
}

#[tokio::test]
async fn a_signal_for_the_app_alone_does_not_reach_what_it_has_started() {
    let house = House::new();
    // The child says nothing of the signal, and would be ended by it.
    let app = house
        .sh("sleep 30 & echo $! > child; trap 'echo 1 > got' USR1; trap '' USR2; echo 1 > ready; while :; do wait; done")
        .await;
    let child = house.number("child").await;
    house.number("ready").await;
    assert_eq!(app.heeds("USR1"), Some(Heed::Handles));
    assert_eq!(app.heeds("USR2"), Some(Heed::Ignores));
    assert_eq!(app.heeds("HUP"), Some(Heed::Default));
    assert_eq!(app.heeds("NONSENSE"), None);
    app.signal_app("USR1").await.unwrap();
    house.number("got").await;
    assert!(lives(child));
    assert!(app.signal_app("NONSENSE").await.is_err());
    app.stop(Duration::ZERO).await;
    assert_eq!(app.heeds("USR1"), None);
    assert!(app.signal_app("USR1").await.is_err());
}

#[tokio::test]
async fn what_a_terminal_sends_does_not_reach_apps() {
    let house = House::new();
    let app = house.sh("echo 1 > ready; sleep 30").await;
    house.number("ready").await;
    let shim = app.shim_pid();
    let own = tree::stat(std::process::id()).unwrap().session;
    for pid in [shim, app.pid()] {
        assert_ne!(tree::stat(pid).unwrap().session, own);
    }
    for signal in [rustix::process::Signal::INT, rustix::process::Signal::TERM] {
        assert!(tree::send(shim, signal, |_| true));
    }
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(lives(shim) && lives(app.pid()));
    app.stop(Duration::ZERO).await;
}

#[tokio::test]
async fn an_inherited_socket_is_there_before_the_app_and_after_it() {
    let house = House::new();
    let lease = Ports::new("17110-17119".parse().unwrap()).lease().unwrap();
    let listener = ports::listen(&lease).unwrap();
    let address = ("127.0.0.1", lease.port());
    // Nobody runs yet: the connection waits.
    let mut early = std::net::TcpStream::connect(address).unwrap();
    let program = test_app();
    let mut spec = house.spec(&[program.to_str().unwrap(), "inherit", "200"]);
    spec.listener = Some(listener.clone());
    spec.env.push(("LISTEN_FDS".into(), "9".into()));
    let app = launcher().start(spec.clone()).await.unwrap();
    assert_eq!(status_of(&mut early), "200");
    app.stop(Duration::ZERO).await;

    let mut between = std::net::TcpStream::connect(address).unwrap();
    let app = launcher().start(spec).await.unwrap();
    assert_eq!(status_of(&mut between), "200");
    app.stop(Duration::ZERO).await;
    drop(listener);
    let gone = std::net::TcpStream::connect(address).unwrap_err();
    assert_eq!(gone.kind(), std::io::ErrorKind::ConnectionRefused);
}

/// Ask, and read the status of the answer.
fn status_of(stream: &mut std::net::TcpStream) -> String {
    use std::io::{Read as _, Write as _};
    stream.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text.split(' ').nth(1).unwrap().to_owned()
}

#[tokio::test]
async fn a_program_that_cannot_be_started_says_so_with_a_socket_too() {
    let house = House::new();
    let lease = Ports::new("17120-17129".parse().unwrap()).lease().unwrap();
    let mut spec = house.spec(&["/no/such/program"]);
    spec.listener = Some(ports::listen(&lease).unwrap());
    let error = launcher().start(spec).await.unwrap_err().to_string();
    assert_eq!(error, "/no/such/program: no such file");
}

#[tokio::test]
async fn what_an_app_says_of_itself_is_heard() {
    let house = House::new();
    let program = test_app();
    let app = |words: &[&str]| {
        let words: Vec<&str> = [program.to_str().unwrap(), "notify"]
            .into_iter()
            .chain(words.iter().copied())
            .collect();
        let mut spec = house.spec(&words);
        spec.notify = Notify::Yes;
        spec.env.push(("NOTIFY_SOCKET".into(), "/nowhere".into()));
        spec
    };
    let app = launcher()
        .start(app(&[
            "STATUS=reading",
            "200",
            "READY=1\nSTATUS=serving\nMAINPID=1",
        ]))
        .await
        .unwrap();
    let none = super::Notice::default();
    let first = app.noticed(&none).await;
    assert_eq!(
        (first.ready, first.status.as_deref()),
        (false, Some("reading"))
    );
    let second = app.noticed(&first).await;
    assert_eq!(
        (second.ready, second.status.as_deref()),
        (true, Some("serving"))
    );
    assert_eq!(app.notice(), second);
    app.stop(Duration::ZERO).await;
    // Nothing more will come, and nobody waits for it.
    assert_eq!(app.noticed(&second).await, second);

    let quiet = house.sh("test -z \"$NOTIFY_SOCKET\"").await;
    assert_eq!(quiet.exited().await, Exit::Code(0));
}

#[tokio::test]
async fn a_log_is_put_aside_at_its_size() {
    let house = House::new();
    let mut spec = house.spec(&[
        "sh",
        "-c",
        "for n in 1 2 3 4 5; do head -c 1500 /dev/zero | tr '\\0' x; echo; sleep 0.05; done; echo last",
    ]);
    spec.log_size = 2000;
    let app = launcher().start(spec).await.unwrap();
    assert_eq!(app.exited().await, Exit::Code(0));
    app.stop(Duration::ZERO).await;
    let size = |name| fs::metadata(house.path(name)).unwrap().len();
    assert!(size("log") <= 2000 && size("log.1") <= 2000);
    assert_eq!(tail(&house.path("log"), 1), ["last"]);
}

#[test]
fn a_spec_does_not_show_the_values_of_its_environment() {
    let mut spec = House::new().spec(&["true"]);
    spec.env.push(("KEY".into(), "secret".into()));
    let shown = format!("{spec:?}");
    assert!(
        shown.contains("KEY") && !shown.contains("secret"),
        "{shown}"
    );
}

/// Not a promise but a measure; run it alone, in a release build.
#[tokio::test]
#[ignore = "a measurement"]
async fn how_long_a_start_takes() {
    let house = House::new();
    let mut times = Vec::new();
    for _ in 0..50 {
        let began = Instant::now();
        let app = house.start(&["/bin/sleep", "30"]).await.unwrap();
        let told = began.elapsed();
        times.push((told, app.exec_at().saturating_duration_since(began)));
        app.stop(Duration::ZERO).await;
    }
    times.sort();
    println!(
        "start: min {:?} median {:?} max {:?}",
        times[0], times[25], times[49]
    );
    let app = house.start(&["/bin/sleep", "30"]).await.unwrap();
    let shim = app.shim_pid();
    let rollup = fs::read_to_string(format!("/proc/{shim}/smaps_rollup")).unwrap();
    println!("{rollup}");
    app.stop(Duration::ZERO).await;
}
