//! What the tests with real processes share.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::confine::Confines;
use crate::process::{Launcher, Notify, Process, Spec, StartError};

/// A folder for one test, and processes that live in it.
pub(crate) struct House {
    pub(crate) folder: TempDir,
}

impl House {
    pub(crate) fn new() -> Self {
        Self {
            folder: TempDir::new().unwrap(),
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn spec(&self, program: &[&str]) -> Spec {
        Spec {
            program: program.iter().map(|word| (*word).into()).collect(),
            env: vec![("PATH".into(), "/usr/bin:/bin".into())],
            cwd: self.folder.path().into(),
            log: self.path("log"),
            log_size: 16 << 20,
            log_files: 1,
            listener: None,
            ports: Vec::new(),
            notify: Notify::No,
            confines: Confines::default(),
            outlive: None,
        }
    }

    pub(crate) async fn start(&self, program: &[&str]) -> Result<Process, StartError> {
        launcher().start(self.spec(program)).await
    }

    pub(crate) async fn sh(&self, script: &str) -> Process {
        self.start(&["sh", "-c", script]).await.unwrap()
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap()
    }

    /// Wait for a file that the app makes, and read a number in it.
    pub(crate) async fn number(&self, name: &str) -> u32 {
        let path = self.path(name);
        eventually(|| fs::read_to_string(&path).is_ok_and(|text| text.ends_with('\n'))).await;
        fs::read_to_string(&path).unwrap().trim().parse().unwrap()
    }
}

/// The program of test_app.rs. `cargo test` builds it with the tests; `cargo test --lib` does not, and
/// would run an old one.
pub(crate) fn test_app() -> PathBuf {
    let own = std::env::current_exe().unwrap();
    let built = own.parent().and_then(Path::parent).unwrap();
    built.join("examples/deploy-test")
}

pub(crate) fn launcher() -> Launcher {
    Launcher::at(test_app())
}

pub(crate) async fn eventually(is: impl Fn() -> bool) {
    let began = Instant::now();
    while !is() {
        assert!(began.elapsed() < Duration::from_secs(10), "it never came");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
