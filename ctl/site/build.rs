//! What a site knows of the builds of its service: what they run as, where their output goes, and how the
//! last one went.

use std::path::{Path, PathBuf};
use std::sync::{MutexGuard, PoisonError};

use hotctl_deploy::confine::Confines;
use hotctl_deploy::env_file;
use hotctl_deploy::process::{Notify, Spec};
use hotctl_deploy::refused::Refused;
use hotctl_deploy::why::Why;

use super::Site;
use super::spec::{inherited, last_of_each, refused};
use crate::api::BuildStatus;
use crate::store::on_disk;

/// What of the sources has changed, as far as a page that is shown is concerned.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Touched {
    #[default]
    Nothing,
    /// Style sheets, which a page can have others of without being loaded anew.
    Styles,
    Anything,
}

impl Touched {
    /// What these are.
    pub fn of<P: AsRef<Path>>(paths: &[P]) -> Self {
        let is_style = |path: &P| {
            let end = path.as_ref().extension();
            end.is_some_and(|end| end.eq_ignore_ascii_case("css"))
        };
        match !paths.is_empty() && paths.iter().all(is_style) {
            true => Self::Styles,
            false => Self::Anything,
        }
    }
}

impl Site {
    /// These sources have changed.
    pub fn touch(&self, paths: &[PathBuf]) {
        let mut touched = self.touched.lock().unwrap_or_else(PoisonError::into_inner);
        *touched = match (*touched, Touched::of(paths)) {
            (Touched::Nothing | Touched::Styles, Touched::Styles) => Touched::Styles,
            _ => Touched::Anything,
        };
    }

    /// What has changed since this was asked.
    pub fn take_touched(&self) -> Touched {
        let mut touched = self.touched.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *touched)
    }

    /// A command of a build: as the daemon's user, in the folder of the sources.
    ///
    /// # Errors
    /// If its env file cannot be read.
    pub fn build_spec(&self, command: &[String]) -> Result<Spec, Why> {
        let config = self.config();
        let mut env = inherited();
        if let Some(path) = &config.build.env_file {
            // That of the service has the same name one table above.
            let read = on_disk(|| env_file::read(path)).map_err(|wrong| Refused {
                text: format!("build.{}", wrong.text),
                hint: wrong
                    .hint
                    .map(|hint| hint.replace("env_file", "build.env_file")),
            });
            env.extend(read.map_err(refused)?);
        }
        Ok(Spec {
            program: command.to_vec(),
            env: last_of_each(env),
            cwd: config.build.root.clone().unwrap_or_else(|| self.data()),
            log: self.build_log(),
            log_size: config.logs.file_size,
            log_files: 1,
            listener: None,
            ports: Vec::new(),
            notify: Notify::No,
            confines: Confines::default(),
            outlive: None,
        })
    }

    /// Where the output of the last build is kept.
    pub fn build_log(&self) -> PathBuf {
        self.logs().join("build.log")
    }

    /// Let it be built again, changed or not.
    pub fn want_build(&self) {
        self.build_again.notify_one();
    }

    /// Resolves when somebody wants that.
    pub async fn build_again(&self) {
        self.build_again.notified().await;
    }

    /// The number of the next build; they are counted since the daemon started.
    pub fn next_build(&self) -> u64 {
        self.build_status().map_or(1, |build| build.number + 1)
    }

    /// How the last build went, or goes.
    pub fn build_status(&self) -> Option<BuildStatus> {
        self.build().clone()
    }

    /// Another one has begun.
    pub fn show_build(&self, build: BuildStatus) {
        *self.build() = Some(build);
    }

    /// It goes on, or has ended.
    pub fn change_build(&self, change: impl FnOnce(&mut BuildStatus)) {
        if let Some(build) = &mut *self.build() {
            change(build);
        }
    }

    fn build(&self) -> MutexGuard<'_, Option<BuildStatus>> {
        self.build.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
