//! A project in a folder of its own, and `hotctl dev` in it.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use tempfile::TempDir;

use super::daemon::hotctl;
use super::eventually::eventually;
use super::load::Plan;
use super::program::{self, Running, lives};
use super::{Class, Load, http, leftovers};

/// See the head of this file.
pub struct Desk {
    pub folder: TempDir,
    pub listen: SocketAddr,
    pub dev: Running,
    args: Vec<String>,
}

impl Desk {
    pub fn open(files: &[(&str, &str)], args: &[&str]) -> Self {
        let folder = tempfile::Builder::new()
            .prefix("hotctl-test-")
            .tempdir()
            .unwrap();
        for (name, text) in files {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        fs::create_dir(folder.path().join("tmp")).unwrap();
        // A free one: `hotctl dev` says where it listens only as a person reads it.
        let listen = TcpListener::bind("127.0.0.1:0")
            .and_then(|it| it.local_addr())
            .unwrap();
        let args: Vec<String> = args.iter().map(|&arg| arg.to_owned()).collect();
        let dev = program::start(&mut dev(folder.path(), listen, &args));
        Self {
            folder,
            listen,
            dev,
            args,
        }
    }

    /// Ctrl-C, and the same once more, with what is done in between.
    pub fn again(self, between: impl FnOnce(&Path)) -> Self {
        self.dev.signal(Signal::INT);
        self.dev.wait().exits(0);
        between(self.folder.path());
        let dev = program::start(&mut dev(self.folder.path(), self.listen, &self.args));
        Self { dev, ..self }
    }

    /// What `/` says; nothing where there is no answer.
    pub fn answer(&self) -> String {
        match http::try_ask(
            self.listen,
            "GET / HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n",
        ) {
            Ok(answer) => answer.text(),
            Err(_) => String::new(),
        }
    }

    pub fn answers(&self, text: &str) {
        eventually(
            &format!("it answers {text:?}:\n{}", self.dev.both()),
            || self.answer() == text,
        );
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Save a file as an editor does: beside it, then in its place.
    pub fn save(&self, name: &str, text: &str) {
        let beside = self.path(&format!("{name}~"));
        fs::write(&beside, text).unwrap();
        fs::rename(beside, self.path(name)).unwrap();
    }

    pub fn says(&self, words: &str) {
        eventually(&format!("it says {words:?}:\n{}", self.dev.both()), || {
            self.dev.stdout().contains(words)
        });
    }

    /// Requests from now on, which v1 answers.
    pub fn load(&self) -> Load {
        let load = Plan::to(self.listen)
            .clients(Class::NewConnection, 2)
            .every(Duration::from_millis(10))
            .start();
        load.expect(&["v1"]);
        load.wait_for(10);
        load
    }

    /// Ctrl-C; nothing of it is left.
    pub fn close(self) -> String {
        let all = leftovers::descendants(self.dev.pid());
        self.dev.signal(Signal::INT);
        let ran = self.dev.wait().exits(0);
        eventually("nothing of it runs any more", || {
            !all.iter().any(|pid| lives(*pid))
        });
        ran.stdout
    }
}

fn dev(folder: &Path, listen: SocketAddr, args: &[String]) -> Command {
    let mut command = hotctl(folder);
    command
        .env_remove("HOTCTL_SOCKET")
        .env_remove("HOTCTL_STATE");
    command.current_dir(folder);
    // Where cargo finds its compiler, whose home is not that of the test.
    let home = std::env::var_os("HOME").unwrap_or_default();
    for (name, usual) in [("RUSTUP_HOME", ".rustup"), ("CARGO_HOME", ".cargo")] {
        let own = std::env::var_os(name).map(PathBuf::from);
        command.env(name, own.unwrap_or_else(|| Path::new(&home).join(usual)));
    }
    command
        .args(["dev", "--listen", &listen.to_string()])
        .args(args);
    command
}
