//! A proxy that runs, with its backend and the folder of both; all of it ends with `Drop`.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use super::client::{Ask, Kind};
use super::peers::{Link, Peer, Place, Setting, Upstream};
use super::process::{self, Cores, Spent};
use super::{example, hotctl};

/// How long a proxy may take until it answers.
const PATIENCE: Duration = Duration::from_secs(30);

/// What runs.
pub struct Running {
    pub peer: Peer,
    pub listen: SocketAddr,
    /// What load asks for here: the host may be one of many.
    pub host: String,
    pub(super) admin: SocketAddr,
    pub(super) upstream: Upstream,
    pub(super) setting: Setting,
    pub(super) folder: TempDir,
    pub(super) proxy: Child,
    /// The backend, where it is not hotctl's own child.
    pub(super) backend: Option<Child>,
    /// The process of the backend.
    pub(super) app: u32,
}

/// What stands behind the proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum App {
    /// What costs least.
    Quick,
    /// The sample app, which can do more, and tells its version.
    Version(String),
}

impl Running {
    /// Start it and see that it answers. The error is what is to be told of it.
    pub fn start(peer: Peer, setting: &Setting, app: &App, cores: &Cores) -> Result<Self, String> {
        if peer.program().is_none() {
            return Err("not to be had here".to_string());
        }
        let folder = tempfile::Builder::new().prefix("hotctl-bench-").tempdir();
        let folder = folder.map_err(|e| format!("a folder: {e}"))?;
        let upstream = match setting.link {
            Link::Tcp => Upstream::Tcp(free()),
            Link::Unix => Upstream::Unix(folder.path().join("backend.sock")),
        };
        let place = Place {
            folder: folder.path(),
            listen: free(),
            admin: free(),
            upstream,
            setting,
        };
        // hotctl starts its app itself.
        let backend = match peer {
            Peer::Hotctl => None,
            _ => Some(
                app.start(&place.upstream)
                    .map_err(|e| format!("backend: {e}"))?,
            ),
        };
        let (name, text) = peer.configuration(&place);
        let file = folder.path().join(name);
        fs::write(&file, text).map_err(|e| format!("{name}: {e}"))?;
        let log = File::create(folder.path().join("log")).map_err(|e| format!("a log: {e}"))?;
        let mut command = peer.command(&place, &file).ok_or("no program")?;
        at_home(&mut command, folder.path());
        let err = log.try_clone().map_err(|e| format!("a log: {e}"))?;
        command.stdin(Stdio::null()).stdout(log).stderr(err);
        let proxy = command.spawn().map_err(|e| format!("taskset: {e}"))?;
        let host = match setting.routes {
            1 => "test".to_string(),
            routes => format!("h{}.test", routes / 2),
        };
        let mut running = Self {
            peer,
            listen: place.listen,
            host,
            admin: place.admin,
            upstream: place.upstream,
            setting: setting.clone(),
            proxy,
            app: backend.as_ref().map_or(0, Child::id),
            backend,
            folder,
        };
        if peer == Peer::Hotctl {
            running.begins()?;
            running.deploy(app)?;
            running.learn_app()?;
        }
        process::settle(running.app, &cores.load);
        running.answers()?;
        Ok(running)
    }

    /// What it asks of clients.
    pub fn ask(&self, kind: Kind) -> Ask {
        Ask {
            kind,
            host: self.host.clone(),
        }
    }

    /// The proxy's processes: all below it but the backend's.
    pub fn family(&self) -> Vec<u32> {
        process::family(self.proxy.id(), Some(self.app))
    }

    /// What they have used until now.
    pub fn spent(&self) -> Spent {
        process::spent(&self.family())
    }

    /// Their memory, in MiB.
    pub fn memory(&self) -> f64 {
        process::memory(&self.family())
    }

    /// Its folder.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Wait until hotctl's command line has an answer.
    fn begins(&self) -> Result<(), String> {
        let begun = Instant::now();
        while !self.hotctl(&["status"]).is_ok_and(|ran| ran.0) {
            if begun.elapsed() > PATIENCE {
                return Err(format!("does not begin\n{}", self.log()));
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// The app becomes hotctl's service.
    pub(super) fn deploy(&self, app: &App) -> Result<(), String> {
        let program = app.program().display().to_string();
        let mut words = vec![
            "deploy",
            &program,
            "--service",
            "web",
            "--wait",
            "live",
            "--",
        ];
        let args = app.words();
        words.extend(args.iter().map(String::as_str));
        let (good, said) = self.hotctl(&words)?;
        match good {
            true => Ok(()),
            false => Err(format!("deploy: {said}\n{}", self.log())),
        }
    }

    /// Which process its live release is.
    pub(super) fn learn_app(&mut self) -> Result<(), String> {
        let (_, said) = self.hotctl(&["status", "web", "--json"])?;
        let status: Value = serde_json::from_str(&said).map_err(|e| format!("status: {e}"))?;
        let services = status["services"].as_array();
        let web = services.and_then(|all| all.iter().find(|one| one["name"] == "web"));
        let pid = web.and_then(|web| web["live"]["pid"].as_u64());
        let pid = pid.and_then(|pid| u32::try_from(pid).ok());
        self.app = pid.ok_or("status: no pid")?;
        Ok(())
    }

    /// Its command line: whether it went well, and what it said.
    pub fn hotctl(&self, words: &[&str]) -> Result<(bool, String), String> {
        let mut command = Command::new(hotctl());
        at_home(&mut command, self.folder.path());
        let ran = command.args(words).output();
        let ran = ran.map_err(|e| format!("hotctl: {e}"))?;
        let said = String::from_utf8_lossy(&ran.stdout).into_owned();
        let wrong = String::from_utf8_lossy(&ran.stderr).into_owned();
        Ok((ran.status.success(), said + &wrong))
    }

    /// Wait for the first good answer.
    fn answers(&mut self) -> Result<(), String> {
        let begun = Instant::now();
        let ask = format!(
            "GET / HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n",
            self.host
        );
        loop {
            let answer = TcpStream::connect(self.listen).and_then(|mut stream| {
                stream.set_read_timeout(Some(Duration::from_secs(3)))?;
                stream.write_all(ask.as_bytes())?;
                let mut answer = String::new();
                stream.read_to_string(&mut answer)?;
                Ok(answer)
            });
            if answer
                .as_ref()
                .is_ok_and(|it| it.starts_with("HTTP/1.1 200"))
            {
                return Ok(());
            }
            if let Ok(Some(status)) = self.proxy.try_wait() {
                return Err(format!("{status}\n{}", self.log()));
            }
            if begun.elapsed() > PATIENCE {
                return Err(format!("no answer: {answer:?}\n{}", self.log()));
            }
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// What it has written, to its output and where else it writes.
    fn log(&self) -> String {
        let read = |name| fs::read_to_string(self.folder.path().join(name)).unwrap_or_default();
        let all = read("log") + &read("error.log");
        let lines: Vec<&str> = all.lines().rev().take(20).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }
}

impl Running {
    /// Ask it to end, and end it if it has not in time.
    pub fn stop(&mut self, patience: Duration) {
        let all = process::family(self.proxy.id(), None);
        let end = |pid: u32, signal| {
            let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
            if let Some(pid) = pid {
                let _ = kill_process(pid, signal);
            }
        };
        end(self.proxy.id(), self.peer.farewell());
        let begun = Instant::now();
        while let Ok(None) = self.proxy.try_wait() {
            if begun.elapsed() > patience {
                all.iter().for_each(|pid| end(*pid, Signal::KILL));
                let _ = self.proxy.wait();
                break;
            }
            thread::sleep(Duration::from_millis(10));
        }
        if let Some(backend) = &mut self.backend {
            let _ = backend.kill();
            let _ = backend.wait();
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop(Duration::from_secs(3));
    }
}

impl App {
    fn program(&self) -> PathBuf {
        match self {
            Self::Quick => example("backend"),
            Self::Version(_) => example("sample"),
        }
    }

    fn words(&self) -> Vec<String> {
        match self {
            Self::Quick => Vec::new(),
            Self::Version(version) => vec!["--version-text".to_string(), version.clone()],
        }
    }

    /// One that listens there.
    pub(super) fn start(&self, upstream: &Upstream) -> io::Result<Child> {
        let mut command = Command::new(self.program());
        match upstream {
            Upstream::Tcp(address) => command.env("PORT", address.port().to_string()),
            Upstream::Unix(path) => command.env("SOCKET", path),
        };
        command
            .args(self.words())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
    }
}

/// In an environment where everything it keeps is in this folder.
pub(super) fn at_home(command: &mut Command, folder: &Path) {
    let path = std::env::var_os("PATH").unwrap_or_default();
    command
        .env_clear()
        .env("PATH", path)
        .env("HOME", folder)
        .env("XDG_CONFIG_HOME", folder.join("config"))
        .env("XDG_DATA_HOME", folder.join("data"))
        .env("HOTCTL_SOCKET", folder.join("control.sock"))
        .env("HOTCTL_STATE", folder.join("state"))
        .current_dir(folder);
}

/// An address that nobody listens on now.
pub(super) fn free() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address")
}
