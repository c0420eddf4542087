//! The commands that give an order, and follow what becomes of it.

use std::cell::Cell;
use std::io::{self, Read as _};
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::Path;
use std::time::Duration;

use hotctl_deploy::pack::{self, Packed};
use hotctl_deploy::release::Upload;
use reqwest::Method;
use tokio::signal::unix::{SignalKind, signal};

use super::{meant, path_of, service_path, with_query};
use crate::api::{
    CancelQuery, DeployRequest, MaintenanceRequest, Progress, Put, PutQuery, RollbackRequest,
    UploadKind,
};
use crate::cli::{self, Form, OnOff, ReleaseRef, Wait};
use crate::client::{Client, Lines};
use crate::fault::Fault;
use crate::print::{self, Paper};

/// How often a line that shows time is drawn again.
const TICK: Duration = Duration::from_millis(100);

/// The longest page that is shown in maintenance, in bytes, as the daemon has it.
const MOST_OF_A_PAGE: u64 = 256 << 10;

/// Pack what is to be deployed, of a folder without what these patterns name.
///
/// # Errors
/// If it cannot be deployed.
pub fn read(path: &Path, ignore: &[String]) -> Result<Packed, Fault> {
    pack::pack(path, ignore, &[]).map_err(|refused| {
        // A path that cannot be run at all is a slip of the hand; what is no release has failed.
        let slip = std::fs::metadata(path).map_or(true, |meta| {
            meta.is_file() && meta.permissions().mode() & 0o111 == 0
        });
        let fault = if slip {
            Fault::config(refused.text)
        } else {
            Fault::failed(refused.text)
        };
        Fault {
            hint: refused.hint,
            ..fault
        }
    })
}

/// The number of the deployment that was ordered, as soon as it is known.
#[derive(Debug, Default)]
pub struct Begun(Cell<Option<u32>>);

impl Begun {
    /// None as long as nothing is.
    pub fn number(&self) -> Option<u32> {
        self.0.get()
    }
}

/// `hotctl deploy`.
pub async fn deploy(
    client: &Client,
    asked: &cli::Deploy,
    packed: Packed,
    begun: &Begun,
    form: Form,
) -> Result<(), Fault> {
    let service = meant(client, asked.service.as_ref()).await?;
    // Said before anything is uploaded.
    if let Some(damage) = service.damage {
        let fault = Fault::failed(format!("{}: {}", service.name, damage.error));
        return Err(Fault {
            hint: damage.hint,
            ..fault
        });
    }
    let packed = match packed.upload {
        // What was packed to see that it can be deployed did not know what the service leaves out.
        Upload::Folder if !service.ignore.is_empty() => read(&asked.path, &service.ignore)?,
        Upload::Folder | Upload::File { .. } => packed,
    };
    let service = path_of(&service.name);
    let query = PutQuery {
        kind: match packed.upload {
            Upload::File { .. } => UploadKind::File,
            Upload::Folder => UploadKind::Folder,
        },
        name: packed.name.clone(),
    };
    let path = with_query(&format!("{service}/releases"), &query)?;
    let put: Put = client.upload(&path, packed.reader).await?;
    let request = DeployRequest {
        digest: put.digest,
        args: asked.args.clone(),
        name: Some(packed.name),
        force: asked.force,
        no_wait: asked.no_wait,
    };
    let deployments = format!("{service}/deployments");
    let answer = client.order(Method::POST, &deployments, &request).await?;
    follow(
        client,
        answer,
        Paper::new(form),
        asked.wait,
        Some((&deployments, begun)),
    )
    .await
}

/// `hotctl rollback`.
pub async fn rollback(client: &Client, asked: &cli::Rollback, form: Form) -> Result<(), Fault> {
    let (named, to) = match (&asked.service, &asked.to) {
        (Some(named), Some(ReleaseRef::Id(id))) if *named != id.service => {
            return Err(Fault::config(format!("{id} is no release of {named}"))
                .hint(format!("hotctl releases {named}")));
        }
        (_, Some(ReleaseRef::Id(id))) => (Some(&id.service), Some(id.number)),
        (named, Some(ReleaseRef::Number(number))) => (named.as_ref(), Some(*number)),
        (named, None) => (named.as_ref(), None),
    };
    let request = RollbackRequest {
        to,
        no_wait: asked.no_wait,
    };
    let path = format!("{}/rollback", service_path(client, named).await?);
    let answer = client.order(Method::POST, &path, &request).await?;
    follow(client, answer, Paper::new(form), Wait::Drained, None).await
}

/// `hotctl stop`, `start`, `restart`.
pub async fn on_service(
    client: &Client,
    on: &cli::OnService,
    verb: &str,
    form: Form,
) -> Result<(), Fault> {
    let path = format!(
        "{}/{verb}",
        service_path(client, on.service.as_ref()).await?
    );
    let answer = client.order(Method::POST, &path, &()).await?;
    follow(client, answer, Paper::new(form), Wait::Drained, None).await
}

/// A page of HTML. Of one without end no more is read than shows that it is too long.
fn page(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    // A pipe would be waited for.
    if std::fs::metadata(path)?.file_type().is_fifo() {
        return Err(io::Error::other("a pipe, and no file"));
    }
    let file = std::fs::File::open(path)?;
    file.take(MOST_OF_A_PAGE + 1).read_to_string(&mut text)?;
    Ok(text)
}

/// `hotctl maintenance`.
pub async fn maintenance(
    client: &Client,
    asked: &cli::Maintenance,
    form: Form,
) -> Result<(), Fault> {
    if asked.switch == OnOff::Off && (asked.message.is_some() || asked.page.is_some()) {
        let text = "maintenance off: nothing is shown any more, so there is nothing to say";
        return Err(Fault::config(text).hint("leave out --message and --page"));
    }
    let page = match &asked.page {
        Some(path) => Some(page(path).map_err(|cause| {
            Fault::config(format!("{}: {cause}", path.display())).hint("a file of HTML in UTF-8")
        })?),
        None => None,
    };
    let service = service_path(client, asked.service.as_ref()).await?;
    let path = format!("{service}/maintenance");
    let answer = match asked.switch {
        OnOff::On => {
            let request = MaintenanceRequest {
                message: asked.message.clone(),
                page,
            };
            client.order(Method::POST, &path, &request).await?
        }
        OnOff::Off => client.order(Method::DELETE, &path, &()).await?,
    };
    follow(client, answer, Paper::new(form), Wait::Drained, None).await
}

/// `hotctl cancel`.
pub async fn cancel(client: &Client, on: &cli::OnService, form: Form) -> Result<(), Fault> {
    let path = format!(
        "{}/deployments",
        service_path(client, on.service.as_ref()).await?
    );
    let answer = client.order(Method::DELETE, &path, &()).await?;
    follow(client, answer, Paper::new(form), Wait::Drained, None).await
}

/// Print an order's events to its end. `cancel` is where Ctrl-C cancels it, as long as it can
/// still be cancelled.
async fn follow(
    client: &Client,
    answer: reqwest::Response,
    mut paper: Paper,
    wait: Wait,
    cancel: Option<(&str, &Begun)>,
) -> Result<(), Fault> {
    let mut interrupt = signal(SignalKind::interrupt())
        .map_err(|cause| Fault::failed(format!("signals: {cause}")))?;
    let mut lines = Lines::of(answer);
    let mut flipped = false;
    let mut interrupted = false;
    let mut tick = tokio::time::interval(TICK);
    loop {
        let line = tokio::select! {
            _ = tick.tick() => {
                paper.tick()?;
                continue;
            }
            line = lines.next() => line.map_err(|cause| client.lost(&cause))?,
            _ = interrupt.recv() => {
                match cancel {
                    Some((path, begun)) if !flipped => {
                        paper.note("cancelling");
                        interrupted = true;
                        if let Some(number) = begun.number() {
                            cancel_ours(client, path, number).await?;
                        }
                    }
                    _ => {
                        paper.note("the order goes on; `hotctl status` shows it");
                        return Ok(());
                    }
                }
                continue;
            }
        };
        let Some(line) = line else {
            return Err(Fault::unreachable("the daemon ended before the order did")
                .hint("`hotctl status` shows what became of it"));
        };
        let progress: Progress = serde_json::from_str(&line).map_err(|cause| {
            Fault::failed(format!(
                "the daemon says what this hotctl cannot read: {cause}"
            ))
            .hint("use the same version of hotctl for both")
        })?;
        paper.print(&progress, &line)?;
        match &progress {
            Progress::Ordered { deployment, .. } => {
                if let Some((path, begun)) = cancel {
                    begun.0.set(Some(*deployment));
                    if interrupted {
                        cancel_ours(client, path, *deployment).await?;
                    }
                }
            }
            Progress::Flipped { .. } => {
                flipped = true;
                if wait == Wait::Live {
                    return Ok(());
                }
            }
            Progress::Failed { why, .. } => return Err(print::failure(why)),
            Progress::Summary(_) if wait == Wait::Drained => return Ok(()),
            progress if progress.is_last() => return Ok(()),
            _ => {}
        }
    }
}

/// Only what is ours: what another began goes on. Its end comes with the events of the order itself.
pub async fn cancel_ours(client: &Client, path: &str, number: u32) -> Result<(), Fault> {
    let ours = CancelQuery {
        number: Some(number),
        waiting: false,
    };
    let path = with_query(path, &ours)?;
    drop(client.order(Method::DELETE, &path, &()).await?);
    Ok(())
}
