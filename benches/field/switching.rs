//! Each proxy's own way to a new version of what is behind it, as its documentation says.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::peers::{Peer, Place, Upstream};
use super::process::{self, Cores};
use super::running::{App, Running, at_home, free};
use super::{envoy, sozu};

/// How a proxy is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// `hotctl deploy`.
    Deploy,
    /// A new configuration, and a signal or command to take it.
    Reload,
    /// A change at the running configuration.
    Runtime,
}

/// When it was told so, and when it said that it was done.
#[derive(Clone, Copy, Debug)]
pub struct Switched {
    pub ordered: Instant,
    pub done: Instant,
}

/// How long a new backend, or a proxy's word, is waited for.
const PATIENCE: Duration = Duration::from_secs(10);

/// The ways of a peer, with the words that they are known by. None: it cannot.
pub fn ways(peer: Peer) -> &'static [(Way, &'static str)] {
    match peer {
        Peer::Hotctl => &[(Way::Deploy, "hotctl deploy")],
        Peer::Bare | Peer::Datapath | Peer::Hall => &[],
        Peer::Nginx => &[(Way::Reload, "nginx -s reload")],
        Peer::Haproxy => &[
            (Way::Runtime, "haproxy set server"),
            (Way::Reload, "haproxy reload"),
        ],
        Peer::Sozu => &[(Way::Runtime, "sozu backend add, remove")],
        Peer::Envoy => &[(Way::Runtime, "envoy endpoints file")],
        Peer::Caddy => &[(Way::Reload, "caddy POST /load")],
    }
}

impl Running {
    /// To the next version. The old backend is killed as soon as the proxy says that it is done; hotctl
    /// ends it itself.
    pub fn switch(&mut self, version: &str, way: Way, cores: &Cores) -> Result<Switched, String> {
        let app = App::Version(version.to_string());
        if way == Way::Deploy {
            let ordered = Instant::now();
            self.deploy(&app)?;
            let done = Instant::now();
            self.learn_app()?;
            process::settle(self.app, &cores.load);
            return Ok(Switched { ordered, done });
        }
        let upstream = Upstream::Tcp(free());
        let mut new = app.start(&upstream).map_err(|e| format!("backend: {e}"))?;
        if !listens(&upstream) {
            let _ = new.kill();
            return Err("the new backend does not listen".to_string());
        }
        let old = std::mem::replace(&mut self.upstream, upstream);
        let ordered = Instant::now();
        self.tell(way, &old)?;
        let done = Instant::now();
        self.app = new.id();
        if let Some(mut old) = self.backend.replace(new) {
            let _ = old.kill();
            let _ = old.wait();
        }
        Ok(Switched { ordered, done })
    }

    /// Say that the backend is another, and wait for the word that it is so.
    fn tell(&self, way: Way, old: &Upstream) -> Result<(), String> {
        let folder = self.folder.path();
        let place = Place {
            folder,
            listen: self.listen,
            admin: self.admin,
            upstream: self.upstream.clone(),
            setting: &self.setting,
        };
        let (name, text) = self.peer.configuration(&place);
        let file = folder.join(name);
        let rewrite = || fs::write(&file, &text).map_err(|e| format!("{name}: {e}"));
        let file = file.display().to_string();
        match (self.peer, way) {
            (Peer::Nginx, _) => {
                rewrite()?;
                self.run(&["-e", "stderr", "-c", &file, "-s", "reload"])
            }
            (Peer::Haproxy, Way::Runtime) => {
                let Upstream::Tcp(address) = self.upstream else {
                    return Err("only by TCP".to_string());
                };
                let (ip, port) = (address.ip(), address.port());
                let order = format!("set server web/s addr {ip} port {port}\n");
                self.ask_haproxy(&order).map(|_| ())
            }
            (Peer::Haproxy, _) => {
                rewrite()?;
                self.reload_haproxy()
            }
            (Peer::Sozu, _) => {
                let (new, old) = (self.upstream.path_or_address(), old.path_or_address());
                for (verb, address) in [("add", &new), ("remove", &old)] {
                    let id = sozu::name(address);
                    let words = [
                        "--config",
                        &file,
                        "backend",
                        verb,
                        "--id",
                        "web",
                        "--backend-id",
                        &id,
                        "--address",
                        address,
                    ];
                    self.run(&words)?;
                }
                Ok(())
            }
            // `configuration` has written the endpoints; it watches for what is moved there.
            (Peer::Envoy, _) => {
                let beside = folder.join("endpoints.new");
                let endpoints = envoy::endpoints(&self.upstream);
                fs::write(&beside, endpoints).map_err(|e| format!("endpoints: {e}"))?;
                fs::rename(beside, folder.join("endpoints.json"))
                    .map_err(|e| format!("endpoints: {e}"))?;
                let address = self.upstream.path_or_address();
                eventually("envoy: the new endpoint", || {
                    http(self.admin, "GET", "/clusters", "")
                        .is_ok_and(|said| said.contains(&address))
                })
            }
            (Peer::Caddy, _) => {
                let said = http(self.admin, "POST", "/load", &text)?;
                match said.starts_with("HTTP/1.1 200") {
                    true => Ok(()),
                    false => Err(format!("caddy: {said}")),
                }
            }
            (Peer::Hotctl | Peer::Datapath | Peer::Hall | Peer::Bare, _) => {
                Err("no such way".to_string())
            }
        }
    }

    /// Its own program, beside the one that runs.
    fn run(&self, words: &[&str]) -> Result<(), String> {
        let program = self.peer.program().ok_or("no program")?;
        let mut command = Command::new(program);
        at_home(&mut command, self.folder.path());
        let ran = command.args(words).output().map_err(|e| e.to_string())?;
        match ran.status.success() {
            true => Ok(()),
            false => Err(format!(
                "{}: {}{}",
                ran.status,
                String::from_utf8_lossy(&ran.stdout),
                String::from_utf8_lossy(&ran.stderr)
            )),
        }
    }

    fn ask_haproxy(&self, order: &str) -> Result<String, String> {
        let path = self.folder.path().join("haproxy.sock");
        let asked = UnixStream::connect(path).and_then(|mut socket| {
            socket.write_all(order.as_bytes())?;
            let mut said = String::new();
            socket.read_to_string(&mut said)?;
            Ok(said)
        });
        asked.map_err(|e| format!("haproxy's socket: {e}"))
    }

    /// SIGUSR2 to the master; done when another worker answers at the socket, which the old one passes on.
    fn reload_haproxy(&self) -> Result<(), String> {
        let worker = || {
            let said = self.ask_haproxy("show info\n").ok()?;
            let pid = said.lines().find_map(|line| line.strip_prefix("Pid: "))?;
            Some(pid.to_string())
        };
        let before = worker();
        let pid = i32::try_from(self.proxy.id()).ok().and_then(Pid::from_raw);
        pid.map(|pid| kill_process(pid, Signal::USR2));
        eventually("haproxy: a new worker", || {
            worker().is_some_and(|now| Some(now) != before)
        })
    }

    /// When hotctl ordered the flip of each deployment, by its own record, to the millisecond: when the
    /// deployment was ordered, and what the record says it took from there. Those that still drain have
    /// no figures yet.
    pub fn flips(&self) -> Result<Vec<(String, SystemTime)>, String> {
        let (_, said) = self.hotctl(&["history", "web", "--json"])?;
        let wrong = |e| format!("history: {e}: {said}");
        let all: Value = serde_json::from_str(&said).map_err(wrong)?;
        let all = all.as_array().or(all["deployments"].as_array());
        let flip = |one: &Value| {
            let summary = &one["summary"];
            let since = summary["live_ms"].as_f64()? / 1e3 - summary["flip_us"].as_f64()? / 1e6;
            let ordered = Duration::from_millis(one["ordered_ms"].as_u64()?);
            let number = one["number"].as_u64()?;
            let flip = SystemTime::UNIX_EPOCH + ordered + Duration::from_secs_f64(since.max(0.0));
            // The first deployment was v0.
            Some((format!("v{}", number - 1), flip))
        };
        Ok(all.into_iter().flatten().filter_map(flip).collect())
    }
}

fn listens(upstream: &Upstream) -> bool {
    let Upstream::Tcp(address) = upstream else {
        return false;
    };
    eventually("", || TcpStream::connect(address).is_ok()).is_ok()
}

fn eventually(what: &str, mut is_so: impl FnMut() -> bool) -> Result<(), String> {
    let begun = Instant::now();
    while begun.elapsed() < PATIENCE {
        if is_so() {
            return Ok(());
        }
        thread::sleep(Duration::from_millis(1));
    }
    Err(format!("{what}: not within {PATIENCE:?}"))
}

/// One request to an admin API.
fn http(to: SocketAddr, method: &str, path: &str, body: &str) -> Result<String, String> {
    let ask = format!(
        "{method} {path} HTTP/1.1\r\nhost: {to}\r\nconnection: close\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let asked = TcpStream::connect(to).and_then(|mut stream| {
        stream.write_all(ask.as_bytes())?;
        let mut said = String::new();
        stream.read_to_string(&mut said)?;
        Ok(said)
    });
    asked.map_err(|e| format!("{to}: {e}"))
}
