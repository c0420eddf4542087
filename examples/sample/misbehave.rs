//! What goes wrong on purpose, before a request is there: crashes, silence, children left behind.

use std::io::{self, Write};
use std::net::TcpListener;
use std::process::{Command, ExitCode};
use std::thread;
use std::time::Duration;

use rustix::process::{Signal, getpid, kill_process, setsid};

use crate::flags::{Child, Flags, Start};

/// A line on standard output, also when nobody reads it any more.
pub fn say(line: &str) {
    let _ = writeln!(io::stdout().lock(), "sample: {line}");
}

/// What the flags ask for before the app listens. `Some` is the end of the process.
pub fn before_listening(flags: &Flags) -> Option<ExitCode> {
    if let Some(child) = flags.child {
        return Some(be(child));
    }
    if flags.fork_children {
        // The third is started by a process that ends, so that its parent is not ours.
        for kind in ["sleeper", "escapee", "parent"] {
            if let Err(e) = spawn(kind) {
                eprintln!("sample: {kind}: {e}");
            }
        }
    }
    if let Some(port) = flags.listen_also {
        match TcpListener::bind(("127.0.0.1", port)) {
            // Whoever connects finds a place in its backlog, as at a debugger.
            Ok(listener) => std::mem::forget(listener),
            Err(e) => {
                eprintln!("sample: port {port}: {e}");
                return Some(ExitCode::FAILURE);
            }
        }
    }
    if flags.flood_stdout {
        thread::spawn(flood);
    }
    if !flags.start_delay.is_zero() {
        say(&format!("waiting {} ms", flags.start_delay.as_millis()));
        thread::sleep(flags.start_delay);
    }
    match flags.start {
        Start::Listen => None,
        Start::Crash(code) => {
            eprintln!("sample: crashing at start, as asked");
            Some(ExitCode::from(code))
        }
        Start::Segv => {
            eprintln!("sample: a segmentation fault, as asked");
            // The first one only takes away the handler that the standard library has installed.
            loop {
                let _ = kill_process(getpid(), Signal::SEGV);
            }
        }
        Start::NeverListen => {
            say("never listening, as asked");
            sleep()
        }
    }
}

/// The end of the process, when it is time.
pub async fn exit(after: Duration) {
    tokio::time::sleep(after).await;
    eprintln!("sample: ending, as asked");
    std::process::exit(1);
}

fn be(child: Child) -> ExitCode {
    match child {
        Child::Sleeper => sleep(),
        Child::Escapee => {
            let _ = setsid();
            sleep()
        }
        Child::Parent => match spawn("escapee") {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        },
    }
}

fn spawn(kind: &str) -> io::Result<()> {
    let mut child = Command::new("/proc/self/exe")
        .args(["--child", kind])
        .env_remove("SAMPLE_ARGS")
        .spawn()?;
    if kind == "parent" {
        child.wait()?;
    }
    Ok(())
}

fn sleep() -> ! {
    loop {
        thread::sleep(Duration::from_secs(3600));
    }
}

fn flood() {
    let line = [
        b"sample: one line of a flood, of eighty bytes, as fast as somebody takes it away"
            .as_slice(),
        b"\n",
    ]
    .concat();
    let lines = line.repeat(100);
    let mut out = io::stdout();
    while out.write_all(&lines).is_ok() {}
}
