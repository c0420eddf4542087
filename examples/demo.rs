//! `./dev demo`: hotctl in front of a sample app, a steady load, and what can happen to a service in
//! a day: a deploy, a broken deploy, a rollback. Uses hotctl as anybody would, by its command line.

// The load is that of the tests, where a surprise is a panic.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)]

use std::error::Error;
use std::fs::{self, File};
use std::io::{IsTerminal, Write, stdout};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tokio::signal::unix::{SignalKind, signal};

#[allow(dead_code)]
#[path = "../tests/support/eventually.rs"]
mod eventually;
#[allow(dead_code)]
#[path = "../tests/support/http.rs"]
mod http;
#[allow(dead_code)]
#[path = "../tests/support/load/mod.rs"]
mod load;
#[allow(dead_code)]
#[path = "../tests/support/outcomes.rs"]
mod outcomes;
#[allow(dead_code)]
#[path = "../tests/support/websocket.rs"]
mod websocket;

use load::{Class, Plan};

/// How long the daemon may take to answer, and to end.
const PATIENCE: Duration = Duration::from_secs(30);

type Done<T> = Result<T, Box<dyn Error>>;

fn main() -> ExitCode {
    match demo() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(cause) => {
            eprintln!("demo: {cause}");
            ExitCode::FAILURE
        }
    }
}

/// The whole demo; whether no request failed.
fn demo() -> Done<bool> {
    let stopped = watch_signals()?;
    let folder = tempfile::Builder::new().prefix("hotctl-demo-").tempdir()?;
    let daemon = Daemon::start(folder.path())?;

    say("a first deploy: nothing is live yet");
    daemon.hotctl(&[
        "deploy",
        &daemon.release("v1")?,
        "--",
        "--version-text",
        "v1",
    ])?;

    let load = Plan::to(daemon.listen)
        .clients(Class::KeepAlive, 16)
        .clients(Class::NewConnection, 4)
        .clients(Class::Post, 4)
        .every(Duration::from_millis(5))
        .at_most(10_000_000, Duration::from_secs(3600))
        .start();
    load.wait_for(1000);

    say("version 2, under a steady load");
    daemon.hotctl(&[
        "deploy",
        &daemon.release("v2")?,
        "--",
        "--version-text",
        "v2",
    ])?;
    load.wait_for(1000);

    say("version 3 is broken: it never gets a request");
    let broken = daemon.hotctl(&[
        "deploy",
        &daemon.release("v3")?,
        "--",
        "--crash-at-start",
        "3",
    ])?;
    println!("(exit {})", broken.code().unwrap_or(-1));
    load.wait_for(1000);

    say("back to version 1");
    daemon.hotctl(&["rollback"])?;
    load.wait_for(1000);
    daemon.hotctl(&["status"])?;

    let wait = stdout().is_terminal() && stopped.try_recv().is_err();
    if wait {
        let at = folder.path().display();
        say("the load goes on; in another terminal:");
        println!("  curl http://{}/", daemon.listen);
        println!("  curl http://{}/metrics", daemon.admin);
        println!("  export HOTCTL_SOCKET={}", daemon.socket.display());
        println!("  {} status", daemon.program.display());
        println!(
            "  {} deploy {at}/app-v2 -- --version-text again",
            daemon.program.display()
        );
        println!("  {} logs -f", daemon.program.display());
        println!("Ctrl-C ends the demo.");
        stopped.recv()?;
    }
    let outcomes = load.finish();
    daemon.end()?;
    let (total, failed) = (outcomes.total(), outcomes.failed());
    println!();
    if failed > 0 {
        println!("{outcomes}");
    }
    println!("{total} requests, {failed} failed");
    if !wait {
        println!("next: README.md, \"Sixty seconds\", with an app of your own");
    }
    Ok(failed == 0)
}

fn say(text: &str) {
    println!("\n== {text}");
    // A pipe is read as it comes, too.
    let _ = stdout().flush();
}

/// SIGINT and SIGTERM end the demo in order, not the process in the middle of it.
fn watch_signals() -> Done<mpsc::Receiver<()>> {
    let (tell, told) = mpsc::channel();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let (mut interrupt, mut terminate) = {
        let _within = runtime.enter();
        (
            signal(SignalKind::interrupt())?,
            signal(SignalKind::terminate())?,
        )
    };
    std::thread::spawn(move || {
        runtime.block_on(async {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
        });
        // The demo has ended already: nothing to tell.
        let _ = tell.send(());
    });
    Ok(told)
}

/// A daemon of our own; ended with everything it has started when it goes out of scope.
struct Daemon {
    program: PathBuf,
    folder: PathBuf,
    socket: PathBuf,
    listen: SocketAddr,
    admin: SocketAddr,
    child: Child,
}

impl Daemon {
    fn start(folder: &Path) -> Done<Self> {
        let program = built("hotctl")?;
        let socket = folder.join("run/control.sock");
        let log = File::create(folder.join("daemon.log"))?;
        let child = Command::new(&program)
            .args(["serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"])
            .current_dir(folder)
            .env("HOTCTL_SOCKET", &socket)
            .env("HOTCTL_STATE", folder.join("state"))
            .stdin(Stdio::null())
            .stderr(log)
            // A group of its own: Ctrl-C is for the demo, which then ends it.
            .process_group(0)
            .spawn()?;
        let mut daemon = Self {
            program,
            folder: folder.to_owned(),
            socket,
            listen: ([127, 0, 0, 1], 0).into(),
            admin: ([127, 0, 0, 1], 0).into(),
            child,
        };
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            let asked = daemon.command(&["status", "--json"]).output()?;
            if asked.status.success() {
                break serde_json::from_slice::<serde_json::Value>(&asked.stdout)?;
            }
            if daemon.child.try_wait()?.is_some() || Instant::now() > deadline {
                return Err(fs::read_to_string(folder.join("daemon.log"))?.into());
            }
        };
        let address = |value: &serde_json::Value| value.as_str().unwrap_or_default().parse();
        daemon.listen = address(&status["listen"][0])?;
        daemon.admin = address(&status["admin"])?;
        println!(
            "hotctl serves http://{}, metrics at http://{}/metrics",
            daemon.listen, daemon.admin
        );
        Ok(daemon)
    }

    /// A file that is another release: the sample app with a line at its end.
    fn release(&self, version: &str) -> Done<String> {
        let path = self.folder.join(format!("app-{version}"));
        fs::copy(built("examples/sample")?, &path)?;
        writeln!(File::options().append(true).open(&path)?, "\n{version}")?;
        Ok(path.display().to_string())
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(args)
            .env("HOTCTL_SOCKET", &self.socket)
            .stdin(Stdio::null());
        command
    }

    /// Show a command and run it; what it prints is part of the demo.
    fn hotctl(&self, args: &[&str]) -> Done<std::process::ExitStatus> {
        println!(
            "$ hotctl {}",
            args.join(" ")
                .replace(&format!("{}/", self.folder.display()), "./")
        );
        Ok(self.command(args).status()?)
    }

    fn end(mut self) -> Done<()> {
        self.terminate();
        let deadline = Instant::now() + PATIENCE;
        while self.child.try_wait()?.is_none() {
            if Instant::now() > deadline {
                return Err("the daemon does not end".into());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    fn terminate(&self) {
        if let Some(pid) = Pid::from_raw(self.child.id().cast_signed()) {
            // Gone already: all the better.
            let _ = kill_process(pid, Signal::TERM);
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            self.terminate();
            let _ = self.child.wait();
        }
    }
}

/// A program that was built beside this one.
fn built(name: &str) -> Done<PathBuf> {
    let here = std::env::current_exe()?;
    let path = here
        .parent()
        .and_then(Path::parent)
        .ok_or("no folder")?
        .join(name);
    if !path.exists() {
        return Err(format!("{}: not built; run ./dev demo", path.display()).into());
    }
    Ok(path)
}
