//! A hotctl daemon in a folder of its own: started with a configuration, asked through its command
//! line, and taken away by `Drop` with everything that belongs to it, also when the test panics.

use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, SystemTime};

use command_fds::{CommandFdExt as _, FdMapping};
use rustix::process::Signal;
use tempfile::TempDir;

use super::eventually::{eventually_some, within};
use super::http::{self, Answer};
use super::leftovers;
use super::program::{self, Ran, Running, send};
use super::sample;
use super::status::{Deployed, Running as Release, Status};

/// Longer than `shutdown_timeout` and `stop_timeout` of any configuration here.
const PATIENCE: Duration = Duration::from_secs(30);

/// The daemon and its folder.
pub struct Daemon {
    folder: TempDir,
    child: Child,
    /// The process that has taken its place, if one has.
    successor: Option<u32>,
    /// What it is started by, if not directly.
    through: Vec<String>,
    /// The socket that it listens on where it is not its own, as descriptor 3.
    held: Option<TcpListener>,
    places: Vec<(PathBuf, Option<SystemTime>)>,
    listen: SocketAddr,
}

impl Daemon {
    /// Start one with this configuration and wait until it answers its command line. Listeners take
    /// port 0; `$FOLDER` becomes its folder.
    #[track_caller]
    pub fn start(config: &str) -> Self {
        Self::start_with(config, &[])
    }

    /// The same, with these files in its folder, which only their owner can read.
    #[track_caller]
    pub fn start_with(config: &str, files: &[(&str, &str)]) -> Self {
        Self::start_through(&[], config, files)
    }

    /// The same by these words, which execute what follows them in a place of their own making.
    #[track_caller]
    pub fn start_through(through: &[&str], config: &str, files: &[(&str, &str)]) -> Self {
        Self::start_on(None, through, config, files)
    }

    /// The same on a socket that stays open when the daemon ends, as systemd would hold it. `$HELD`
    /// becomes its address.
    #[track_caller]
    pub fn start_activated(config: &str) -> Self {
        let held = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = held.local_addr().expect("an address").to_string();
        // Its number is only known to itself.
        let text = "LISTEN_FDS=1 LISTEN_PID=$$ exec \"$@\"";
        let through = ["sh", "-c", text, "sh"];
        Self::start_on(
            Some(held),
            &through,
            &config.replace("$HELD", &address),
            &[],
        )
    }

    #[track_caller]
    fn start_on(
        held: Option<TcpListener>,
        through: &[&str],
        config: &str,
        files: &[(&str, &str)],
    ) -> Self {
        // Without links in its path, as the system shows it elsewhere.
        let temp = fs::canonicalize(std::env::temp_dir()).expect("a temp folder");
        let folder = tempfile::Builder::new()
            .prefix("hotctl-test-")
            .tempdir_in(temp);
        let folder = folder.expect("a folder");
        let config = config.replace("$FOLDER", &folder.path().display().to_string());
        fs::create_dir(folder.path().join("tmp")).expect("a folder");
        fs::write(folder.path().join("hotctl.toml"), config).expect("a configuration");
        for (name, text) in files {
            secret(&folder.path().join(name), text);
        }
        let places = leftovers::default_places();
        let through: Vec<String> = through.iter().map(|word| (*word).to_string()).collect();
        let child = serve(folder.path(), &through, held.as_ref());
        let mut daemon = Self {
            folder,
            child,
            successor: None,
            through,
            held,
            places,
            listen: ([127, 0, 0, 1], 0).into(),
        };
        daemon.answers();
        daemon
    }

    /// Start one with the service `web`, which takes every request; `lines` are lines of its table.
    #[track_caller]
    pub fn of_web(lines: &str) -> Self {
        Self::start(&web(lines))
    }

    /// Wait until it answers, and learn where it listens.
    #[track_caller]
    fn answers(&mut self) {
        let status = eventually_some("the daemon answers `hotctl status`", || {
            if let Some(status) = self.child.try_wait().expect("a child") {
                panic!("hotctl serve: {status}\n{}", self.log());
            }
            let ran = self.hotctl(["status", "--json"]);
            ran.status.success().then(|| ran.json::<Status>())
        });
        self.listen = *status.listen.first().expect("a listener");
    }

    /// Its folder.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.successor.unwrap_or(self.child.id())
    }

    /// Let another hotctl take its place, by `args`; it must. How long it took, in milliseconds.
    #[track_caller]
    pub fn upgrade(&mut self, args: &[&str]) -> u64 {
        let mut all = vec!["upgrade", "--json"];
        all.extend(args);
        let before = self.pid();
        let answer = self.hotctl(all).exits(0).json::<serde_json::Value>();
        let pid = answer["pid"]
            .as_u64()
            .and_then(|pid| u32::try_from(pid).ok());
        let pid = pid.expect("a pid");
        assert_ne!(pid, before, "it is the same process");
        self.successor = Some(pid);
        answer["took_ms"].as_u64().expect("a time")
    }

    /// Another has taken its place that was not asked for by [`Daemon::upgrade`].
    #[track_caller]
    pub fn finds_successor(&mut self) {
        let pid = self.status().pid;
        assert_ne!(pid, self.pid(), "it is the same process");
        self.successor = Some(pid);
    }

    /// This process is it now.
    pub fn is_now(&mut self, pid: u32) {
        self.successor = (pid != self.child.id()).then_some(pid);
    }

    /// Whether its process is there no more.
    fn is_gone(&mut self) -> bool {
        match self.successor {
            None => self.child.try_wait().expect("a child").is_some(),
            Some(pid) => !program::lives(pid),
        }
    }

    /// Its first listener.
    pub fn listen(&self) -> SocketAddr {
        self.listen
    }

    /// What it has written itself.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder().join("daemon.log")).unwrap_or_default()
    }

    /// The command line, told where this daemon is.
    pub fn command<'a>(&self, args: impl IntoIterator<Item = &'a str>) -> Command {
        let mut command = hotctl(self.folder());
        command.args(args);
        command
    }

    /// Run a command to its end.
    #[track_caller]
    pub fn hotctl<'a>(&self, args: impl IntoIterator<Item = &'a str>) -> Ran {
        program::run(&mut self.command(args))
    }

    /// Let a command run alongside.
    #[track_caller]
    pub fn alongside<'a>(&self, args: impl IntoIterator<Item = &'a str>) -> Running {
        program::start(&mut self.command(args))
    }

    /// A release that calls itself so.
    pub fn release(&self, version: &str) -> PathBuf {
        sample::release(self.folder(), version)
    }

    /// Deploy `web` to the sample app of this version, started with `args`; it must go live.
    #[track_caller]
    pub fn deploy(&self, version: &str, args: &[&str]) -> Deployed {
        self.deploy_path(&self.release(version), args)
    }

    /// The same for something else.
    #[track_caller]
    pub fn deploy_path(&self, path: &Path, args: &[&str]) -> Deployed {
        let ran = self.try_deploy(path, args).exits(0);
        Deployed::of(&ran.events()).unwrap_or_else(|| panic!("it has not flipped\n{ran}"))
    }

    /// Deploy to `web`, until traffic has flipped, with events as JSON.
    #[track_caller]
    pub fn try_deploy(&self, path: &Path, args: &[&str]) -> Ran {
        let path = path.to_str().expect("a path of UTF-8");
        let mut all = vec![
            "deploy",
            path,
            "--service",
            "web",
            "--wait",
            "live",
            "--json",
            "--",
        ];
        all.extend(args);
        self.hotctl(all)
    }

    /// `hotctl status --json`.
    #[track_caller]
    pub fn status(&self) -> Status {
        self.hotctl(["status", "--json"]).exits(0).json()
    }

    /// What of `web` gets new requests.
    #[track_caller]
    pub fn live(&self) -> Release {
        let status = self.status();
        let live = status.service("web").live.clone();
        live.unwrap_or_else(|| panic!("nothing is live: {status:#?}"))
    }

    /// `GET` a path through its first listener, on a connection of its own.
    #[track_caller]
    pub fn get(&self, path: &str) -> Answer {
        http::get(self.listen, path)
    }

    /// `/metrics`.
    #[track_caller]
    pub fn metrics(&self) -> String {
        let admin = self.status().admin.expect("an admin address");
        http::get(admin, "/metrics").has_status(200).text()
    }

    /// The sum of a metric over all series whose name and labels contain each of these words.
    #[track_caller]
    pub fn metric(&self, name: &str, words: &[&str]) -> f64 {
        let metrics = self.metrics();
        let of_name = |line: &&str| {
            let rest = line.strip_prefix(name);
            rest.is_some_and(|rest| rest.starts_with(['{', ' ']))
        };
        let lines = metrics.lines().filter(of_name);
        let lines = lines.filter(|line| words.iter().all(|word| line.contains(word)));
        lines
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum()
    }

    /// SIGTERM, and wait for its end.
    #[track_caller]
    pub fn stop(&mut self) -> ExitStatus {
        send(self.pid(), Signal::TERM);
        self.ends()
    }

    /// Wait for its end.
    #[track_caller]
    pub fn ends(&mut self) -> ExitStatus {
        let ended = within(PATIENCE, || self.child.try_wait().expect("a child"));
        ended.unwrap_or_else(|| panic!("hotctl serve: not ended within {PATIENCE:?}"))
    }

    /// SIGKILL, and wait for its end.
    pub fn kill(&mut self) {
        if let Some(pid) = self.successor.filter(|pid| program::lives(*pid)) {
            send(pid, Signal::KILL);
            within(PATIENCE, || (!program::lives(pid)).then_some(()));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("a child").is_some()
    }

    /// Start it again in the same folder after it has ended.
    #[track_caller]
    pub fn start_again(&mut self) {
        assert!(
            self.child.try_wait().expect("a child").is_some(),
            "it still runs"
        );
        self.child = serve(self.folder.path(), &self.through, self.held.as_ref());
        self.successor = None;
        self.answers();
    }

    /// What should not be there after the daemon has ended.
    fn left_behind(&self) -> Vec<String> {
        let mut left: Vec<String> = leftovers::processes(self.folder())
            .into_iter()
            .map(|process| format!("process {} {}", process.pid, process.line))
            .collect();
        left.extend(
            leftovers::files(self.folder())
                .into_iter()
                .filter_map(|path| {
                    let name = path.file_name()?.to_string_lossy().into_owned();
                    let temporary = name.starts_with(".tmp") || name.ends_with(".tmp");
                    let bad =
                        temporary || name.ends_with(".sock") || path.parent()?.ends_with("tmp");
                    bad.then(|| format!("file {}", path.display()))
                }),
        );
        left
    }

    fn inspect(&mut self) -> Vec<String> {
        let mut wrong = Vec::new();
        if !self.is_gone() {
            wrong.extend(leftovers::written_elsewhere(self.folder()));
            send(self.pid(), Signal::TERM);
            if within(PATIENCE, || self.is_gone().then_some(())).is_none() {
                wrong.push(format!(
                    "hotctl serve: not ended within {PATIENCE:?} of SIGTERM"
                ));
                self.kill();
            }
        }
        // After a SIGKILL of the daemon its apps end by themselves, a moment later.
        within(Duration::from_secs(5), || {
            self.left_behind().is_empty().then_some(())
        });
        wrong.extend(self.left_behind());
        if leftovers::default_places() != self.places {
            wrong.push(format!("changed: one of {:?}", self.places));
        }
        wrong
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let wrong = if thread::panicking() {
            eprintln!("--- the daemon's log\n{}---", self.log());
            Vec::new()
        } else {
            self.inspect()
        };
        self.kill();
        leftovers::kill(&leftovers::processes(self.folder()));
        assert!(
            wrong.is_empty(),
            "left behind:\n  {}\n{}",
            wrong.join("\n  "),
            self.log()
        );
    }
}

/// A configuration with the service `web`, which takes every request; `lines` are lines of its table.
pub fn web(lines: &str) -> String {
    format!(
        "admin = \"127.0.0.1:0\"\n\n[[listen]]\naddress = \"127.0.0.1:0\"\n\n[service.web]\n{lines}\n"
    )
}

/// Write a file that only its owner can read, and the folders above it.
#[track_caller]
pub fn secret(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
    fs::write(path, text).expect("a file");
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("its owner");
}

/// The command line with the places of a folder, in an environment without any other.
pub fn hotctl(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hotctl"));
    command
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("HOME", folder.join("tmp"))
        .env("TMPDIR", folder.join("tmp"))
        .env("HOTCTL_SOCKET", folder.join("control.sock"))
        .env("HOTCTL_STATE", folder.join("state"))
        .current_dir(folder);
    command
}

fn serve(folder: &Path, through: &[String], held: Option<&TcpListener>) -> Child {
    let log = File::options()
        .create(true)
        .append(true)
        .open(folder.join("daemon.log"));
    let log = log.expect("a log");
    let mut direct = hotctl(folder);
    direct
        .args(["serve", "--config"])
        .arg(folder.join("hotctl.toml"));
    let mut command = program::through(through, direct);
    // Of use only where a test makes the folder.
    command.env("HOTCTL_FAILPOINTS", folder.join("failpoints"));
    if let Some(held) = held {
        let held = held.try_clone().expect("a descriptor").into();
        let mapping = FdMapping {
            parent_fd: held,
            child_fd: 3,
        };
        command.fd_mappings(vec![mapping]).expect("one descriptor");
    }
    let stderr = log.try_clone().expect("a file");
    let started = command
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(stderr)
        .spawn();
    started.expect("hotctl starts")
}
