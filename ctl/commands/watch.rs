//! `hotctl watch`: each time what a build leaves has come to rest, it is deployed as by hand. A failure
//! is told, and the next change is waited for: what is live serves on.

use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};

use hotctl_deploy::watch::{Explain, Found, Kind, Plan, Told, Watch};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::orders::{self, Begun};
use super::{meant, path_of};
use crate::answers::{WatchLine, Watched};
use crate::cli::{self, Form, Wait};
use crate::client::Client;
use crate::fault::{Exit, Fault};
use crate::print::{self, Reader};

/// How many changed paths are named.
const NAMED: usize = 3;

/// `hotctl watch`, until it is interrupted.
///
/// # Errors
/// If there is no such service when it begins, or standard output is broken.
pub async fn watch(client: Client, asked: &cli::Watch, form: Form) -> Result<(), Fault> {
    let service = meant(&client, asked.service.as_ref()).await?;
    let absolute = std::path::absolute(&asked.path)
        .map_err(|cause| Fault::config(format!("{}: {cause}", asked.path.display())))?;
    can_be_deployed(&asked.path)?;
    let failed = |cause| Fault::failed(format!("signals: {cause}"));
    let mut watcher = Watcher {
        client,
        deploy: cli::Deploy {
            path: asked.path.clone(),
            service: Some(service.name.clone()),
            force: false,
            no_wait: false,
            wait: Wait::Live,
            args: asked.args.clone(),
        },
        watch: Watch::begin(Plan {
            path: absolute,
            ignore: service.ignore.clone(),
            // Not known here, and no part of what a build leaves.
            never: Vec::new(),
            kind: Kind::Output,
            settle: asked.settle,
            max_wait: asked.max_wait,
            explain: match asked.explain {
                true => Explain::Events,
                false => Explain::Nothing,
            },
        }),
        interrupt: signal(SignalKind::interrupt()).map_err(failed)?,
        form,
    };
    watcher.run().await
}

/// What is there now can be a release one day: a pipe or a device never is, and never changes. What is not
/// there yet may come.
fn can_be_deployed(path: &Path) -> Result<(), Fault> {
    let Ok(meta) = std::fs::metadata(path) else {
        return Ok(());
    };
    let kind = meta.file_type();
    let what = match kind {
        _ if kind.is_file() || kind.is_dir() => return Ok(()),
        _ if kind.is_fifo() => "a named pipe",
        _ if kind.is_socket() => "a socket",
        _ => "a device",
    };
    Err(Fault::config(format!(
        "{}: {what}: only a file or a folder can be watched and deployed",
        path.display()
    ))
    .hint("name the executable or the folder that your build leaves: hotctl watch ./build"))
}

struct Watcher {
    client: Client,
    deploy: cli::Deploy,
    watch: Watch,
    interrupt: Signal,
    form: Form,
}

/// What follows.
enum Next {
    /// A change is waited for.
    Wait,
    /// Something else is there.
    Deploy,
    /// It was interrupted, or nobody reads any more.
    End,
}

/// What came first.
enum First {
    /// The end of the deployment.
    Done(Result<(), Fault>),
    /// Something that was told of what is watched.
    Told(Told),
}

impl Watcher {
    async fn run(&mut self) -> Result<(), Fault> {
        let mut next = Next::Wait;
        loop {
            next = match next {
                Next::Wait => self.wait().await?,
                Next::Deploy => self.bring_live().await?,
                Next::End => return Ok(()),
            };
        }
    }

    /// Wait for something to be told.
    async fn wait(&mut self) -> Result<Next, Fault> {
        let told = tokio::select! {
            told = self.watch.next() => told,
            _ = self.interrupt.recv() => None,
        };
        match told {
            Some(told) => self.tell(&told),
            None => Ok(Next::End),
        }
    }

    /// Deploy what is there now. A change meanwhile takes its place.
    async fn bring_live(&mut self) -> Result<Next, Fault> {
        let begun = Begun::default();
        let ended = {
            let deploying = deploy(&self.client, &self.deploy, &begun, self.form);
            let mut deploying = std::pin::pin!(deploying);
            loop {
                let first = tokio::select! {
                    done = &mut deploying => First::Done(done),
                    Some(told) = self.watch.next() => First::Told(told),
                };
                match first {
                    First::Done(done) => break Some(done),
                    First::Told(told) => match self.tell(&told)? {
                        Next::Wait => {}
                        Next::Deploy => break None,
                        Next::End => return Ok(Next::End),
                    },
                }
            }
        };
        let interrupted = futures_util::FutureExt::now_or_never(self.interrupt.recv()).is_some();
        match ended {
            None => {
                self.give_up(&begun).await;
                Ok(Next::Deploy)
            }
            // The order was cancelled by that, too, and has said so.
            Some(_) if interrupted => Ok(Next::End),
            Some(Ok(())) => Ok(Next::Wait),
            Some(Err(fault)) => {
                print::fault(&fault, self.form);
                match fault.exit {
                    Exit::Unreachable => self.find_again().await,
                    _ => Ok(Next::Wait),
                }
            }
        }
    }

    /// What was begun is not wanted any more. Where it is live already it stays, until the next is.
    async fn give_up(&self, begun: &Begun) {
        let (Some(number), Some(service)) = (begun.number(), &self.deploy.service) else {
            return;
        };
        let path = format!("{}/deployments", path_of(service));
        // Refused where it has ended meanwhile.
        let _ = orders::cancel_ours(&self.client, &path, number).await;
    }

    /// The daemon has ended or was replaced: what is there goes to the next one, whenever it comes.
    async fn find_again(&mut self) -> Result<Next, Fault> {
        loop {
            tokio::select! {
                next = self.client.next_daemon() => if let Some(next) = next {
                    self.client = next;
                    return Ok(Next::Deploy);
                },
                _ = self.interrupt.recv() => return Ok(Next::End),
            }
        }
    }

    /// Say it; what follows of it.
    fn tell(&self, told: &Told) -> Result<Next, Fault> {
        let line = line(told, &self.deploy.path);
        let text = match self.form {
            Form::Words => line.text,
            Form::Json => serde_json::to_string(&Watched::Watch(line))
                .map_err(|cause| Fault::failed(cause.to_string()))?,
        };
        let reader = print::line(&text)
            .map_err(|cause| Fault::failed(format!("standard output: {cause}")))?;
        Ok(match (reader, told) {
            (Reader::Gone, _) => Next::End,
            (
                Reader::There,
                Told::Changed { .. }
                | Told::Begins {
                    found: Found::Something,
                    ..
                },
            ) => Next::Deploy,
            (Reader::There, _) => Next::Wait,
        })
    }
}

async fn deploy(
    client: &Client,
    asked: &cli::Deploy,
    begun: &Begun,
    form: Form,
) -> Result<(), Fault> {
    let packed = orders::read(&asked.path, &[])?;
    orders::deploy(client, asked, packed, begun, form).await
}

fn line(told: &Told, path: &Path) -> WatchLine {
    let shown = path.display();
    let (event, text) = match told {
        Told::Begins {
            found: Found::Something,
            folders,
        } => {
            let folders = match folders {
                1 => "1 folder is".to_owned(),
                n => format!("{n} folders are"),
            };
            (
                "watch_begins",
                format!("watching {shown}: {folders} watched"),
            )
        }
        Told::Begins { .. } => (
            "watch_begins",
            format!("watching {shown}: not there yet, waiting for it"),
        ),
        Told::Changed { paths, .. } => {
            ("watch_changed", format!("changed: {}", named(paths, path)))
        }
        Told::Gone => (
            "watch_gone",
            format!("{shown} is gone: what is live stays, waiting for it"),
        ),
        Told::Polls(why) => ("watch_polls", why.to_string()),
        Told::Waits(file) => (
            "watch_waits",
            format!("{}: somebody still writes it, waiting", file.display()),
        ),
        Told::Cannot(why) => ("watch_cannot", format!("{why}: trying again")),
        Told::Explained(why) => ("watch_explained", why.clone()),
    };
    let paths = match told {
        Told::Changed { paths, .. } => paths
            .iter()
            .map(|path| path.display().to_string())
            .collect(),
        _ => Vec::new(),
    };
    WatchLine { event, text, paths }
}

/// The first few of what has changed, and how many more.
fn named(paths: &[PathBuf], root: &Path) -> String {
    let shown = paths
        .iter()
        .take(NAMED)
        .map(|path| match path.as_os_str().is_empty() {
            true => root.display().to_string(),
            false => path.display().to_string(),
        });
    let shown: Vec<String> = shown.collect();
    match paths.len().saturating_sub(NAMED) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}
