//! `hotctl watch`: each time what a build leaves has come to rest, it is deployed as by hand. A failure
//! is told, and the next change is waited for: what is live serves on.

use std::path::{Path, PathBuf};

use hotctl_deploy::watch::{Explain, Found, Plan, Told, Watch};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::orders::{self, Begun};
use super::{meant, path_of};
use crate::answers::{WatchLine, Watched};
use crate::cli::{self, Form, Wait};
use crate::client::Client;
use crate::fault::{Exit, Fault};
use crate::print;

/// How many changed paths are named.
const NAMED: usize = 3;

/// `hotctl watch`, until it is interrupted.
///
/// # Errors
/// If there is no daemon or no such service when it begins; nothing ends it later.
pub async fn watch(client: Client, asked: &cli::Watch, form: Form) -> Result<(), Fault> {
    let service = meant(&client, asked.service.as_ref()).await?;
    let absolute = std::path::absolute(&asked.path)
        .map_err(|cause| Fault::config(format!("{}: {cause}", asked.path.display())))?;
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

struct Watcher {
    client: Client,
    deploy: cli::Deploy,
    watch: Watch,
    interrupt: Signal,
    form: Form,
}

/// What follows.
enum Next {
    /// Something else is there.
    Deploy,
    /// It was interrupted.
    End,
}

impl Watcher {
    async fn run(&mut self) -> Result<(), Fault> {
        let mut next = self.change().await?;
        loop {
            next = match next {
                Next::End => return Ok(()),
                Next::Deploy => match self.bring_live().await? {
                    Some(next) => next,
                    None => self.change().await?,
                },
            };
        }
    }

    /// Wait for something to deploy.
    async fn change(&mut self) -> Result<Next, Fault> {
        loop {
            let told = tokio::select! {
                told = self.watch.next() => told,
                _ = self.interrupt.recv() => None,
            };
            let Some(told) = told else {
                return Ok(Next::End);
            };
            if self.tell(told)? == Due::Yes {
                return Ok(Next::Deploy);
            }
        }
    }

    /// Deploy what is there now. What follows, if that is known already: a change meanwhile takes its
    /// place.
    async fn bring_live(&mut self) -> Result<Option<Next>, Fault> {
        let begun = Begun::default();
        let told = {
            let mut deploying =
                std::pin::pin!(deploy(&self.client, &self.deploy, &begun, self.form));
            loop {
                tokio::select! {
                    done = &mut deploying => break Err(done),
                    Some(told) = self.watch.next() => match due(&told) {
                        Due::Yes => break Ok(told),
                        Due::No => say(self.form, &told, &self.deploy.path)?,
                    },
                }
            }
        };
        let interrupted = futures_util::FutureExt::now_or_never(self.interrupt.recv()).is_some();
        match told {
            // It was said how the order ended, which the interrupt has ended, too.
            Err(_) if interrupted => Ok(Some(Next::End)),
            Err(Ok(())) => Ok(None),
            Err(Err(fault)) => {
                print::fault(&fault, self.form);
                match fault.exit {
                    Exit::Unreachable => self.find_again().await.map(Some),
                    _ => Ok(None),
                }
            }
            Ok(told) => {
                say(self.form, &told, &self.deploy.path)?;
                self.give_up(&begun).await;
                Ok(Some(Next::Deploy))
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

    fn tell(&self, told: Told) -> Result<Due, Fault> {
        say(self.form, &told, &self.deploy.path)?;
        Ok(due(&told))
    }
}

/// Whether it is time to deploy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Due {
    Yes,
    No,
}

fn due(told: &Told) -> Due {
    match told {
        Told::Changed { .. }
        | Told::Begins {
            found: Found::Something,
            ..
        } => Due::Yes,
        _ => Due::No,
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

fn say(form: Form, told: &Told, path: &Path) -> Result<(), Fault> {
    let line = line(told, path);
    let text = match form {
        Form::Words => line.text,
        Form::Json => serde_json::to_string(&Watched::Watch(line))
            .map_err(|cause| Fault::failed(cause.to_string()))?,
    };
    print::line(&text)
        .map(drop)
        .map_err(|cause| Fault::failed(format!("standard output: {cause}")))
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
        Told::Changed { paths } => ("watch_changed", format!("changed: {}", named(paths, path))),
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
        Told::Changed { paths } => paths
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
