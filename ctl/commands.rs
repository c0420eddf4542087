//! What each command of the command line does: ask the daemon, print the answer. `serve` is in
//! `daemon`.

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use hotctl_config::names::ServiceName;
use hotctl_deploy::pack::{self, Packed};
use hotctl_deploy::release::Upload;
use reqwest::Method;
use serde::Serialize;
use tokio::signal::unix::{SignalKind, signal};

use crate::api::{
    CancelQuery, DeployRequest, LogsQuery, Progress, Put, PutQuery, ReleaseLine, Status, UploadKind,
};
use crate::cli::{self, Command, LogsOf, Places, Wait};
use crate::client::{self, Client, Lines};
use crate::fault::Fault;
use crate::print::{self, Paper};

/// How often a line that shows time is drawn again.
const TICK: std::time::Duration = std::time::Duration::from_millis(100);

/// `hotctl check`.
pub fn check(check: &cli::Check) -> Result<(), Fault> {
    let found = hotctl_config::find(check.config.as_deref()).map_err(crate::daemon::refused)?;
    let path = found.ok_or_else(|| {
        Fault::config(
            "no configuration found: neither ./hotctl.toml nor /etc/hotctl/hotctl.toml is there",
        )
        .hint("`hotctl init` writes one")
    })?;
    let config = hotctl_config::read(&path).map_err(crate::daemon::refused)?;
    let services: Vec<&str> = config.services.keys().map(ServiceName::as_str).collect();
    say(&format!(
        "{}: good; services: {}",
        path.display(),
        services.join(", ")
    ))
}

/// `hotctl init`.
pub fn init(init: &cli::Init) -> Result<(), Fault> {
    let written = std::fs::File::create_new(&init.path)
        .and_then(|mut file| file.write_all(hotctl_config::EXAMPLE.as_bytes()));
    match written {
        Ok(()) => say(&format!(
            "wrote {}; read it, then `hotctl serve`",
            init.path.display()
        )),
        Err(cause) if cause.kind() == std::io::ErrorKind::AlreadyExists => {
            Err(Fault::config(format!(
                "{}: is there already, and is not overwritten",
                init.path.display()
            ))
            .hint("name another file: hotctl init FILE"))
        }
        Err(cause) => Err(Fault::config(format!("{}: {cause}", init.path.display()))),
    }
}

/// Every command that speaks with a daemon.
pub fn ask(places: &Places, command: &Command) -> Result<(), Fault> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|cause| Fault::failed(format!("cannot start the runtime: {cause}")))?;
    let done = runtime.block_on(answer(places, command));
    // A read of a pipe that never ends must not hold up the end of the command.
    runtime.shutdown_background();
    done
}

async fn answer(places: &Places, command: &Command) -> Result<(), Fault> {
    // A path that cannot be deployed is said before anybody is asked.
    let packed = match command {
        Command::Deploy(deploy) => Some(read(&deploy.path)?),
        _ => None,
    };
    let client = Client::find(places).await?;
    match (command, packed) {
        (Command::Deploy(asked), Some(packed)) => deploy(&client, asked, packed).await,
        (Command::Rollback(on), _) => on_service(&client, on, "rollback").await,
        (Command::Stop(on), _) => on_service(&client, on, "stop").await,
        (Command::Start(on), _) => on_service(&client, on, "start").await,
        (Command::Restart(on), _) => on_service(&client, on, "restart").await,
        (Command::Cancel(on), _) => {
            let path = format!(
                "{}/deployments",
                service_path(&client, on.service.as_ref()).await?
            );
            let answer = client.order(Method::DELETE, &path, &()).await?;
            follow(&client, answer, Paper::new(on.json), Wait::Drained, None).await
        }
        (Command::Status(asked), _) => status(&client, asked).await,
        (Command::Releases(asked), _) => releases(&client, asked).await,
        (Command::Logs(asked), _) => logs(&client, asked).await,
        // Those need no daemon, and are answered before.
        (Command::Serve(_) | Command::Check(_) | Command::Init(_) | Command::Deploy(_), _) => {
            Ok(())
        }
    }
}

fn read(path: &Path) -> Result<Packed, Fault> {
    pack::pack(path).map_err(|refused| {
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

async fn deploy(client: &Client, asked: &cli::Deploy, packed: Packed) -> Result<(), Fault> {
    let service = service_path(client, asked.service.as_ref()).await?;
    let query = PutQuery {
        kind: match packed.upload {
            Upload::File { .. } => UploadKind::File,
            Upload::Folder => UploadKind::Folder,
        },
        name: packed.name.clone(),
    };
    let path = format!("{service}/releases?{}", urlencoded(&query)?);
    let put: Put = client.upload(&path, packed.reader).await?;
    let request = DeployRequest {
        digest: put.digest,
        args: asked.args.clone(),
        name: Some(packed.name),
        force: asked.force,
    };
    let deployments = format!("{service}/deployments");
    let answer = client.order(Method::POST, &deployments, &request).await?;
    follow(
        client,
        answer,
        Paper::new(asked.json),
        asked.wait,
        Some(&deployments),
    )
    .await
}

async fn on_service(client: &Client, on: &cli::OnService, verb: &str) -> Result<(), Fault> {
    let path = format!(
        "{}/{verb}",
        service_path(client, on.service.as_ref()).await?
    );
    let answer = client.order(Method::POST, &path, &()).await?;
    follow(client, answer, Paper::new(on.json), Wait::Drained, None).await
}

/// Print an order's events to its end. `cancel` is where Ctrl-C cancels it, as long as it can
/// still be cancelled.
async fn follow(
    client: &Client,
    answer: reqwest::Response,
    mut paper: Paper,
    wait: Wait,
    cancel: Option<&str>,
) -> Result<(), Fault> {
    let mut interrupt = signal(SignalKind::interrupt())
        .map_err(|cause| Fault::failed(format!("signals: {cause}")))?;
    let mut lines = Lines::of(answer);
    let mut flipped = false;
    let mut number = None;
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
                    Some(path) if !flipped => {
                        paper.note("cancelling");
                        // Only what is ours: what another began goes on.
                        let ours = CancelQuery {
                            number,
                            waiting: number.is_none(),
                        };
                        let path = format!("{path}?{}", urlencoded(&ours)?);
                        // Its end comes with the events of the order itself.
                        drop(client.order(Method::DELETE, &path, &()).await?);
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
            Progress::Starting { deployment, .. } => number = Some(*deployment),
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

async fn status(client: &Client, asked: &cli::Status) -> Result<(), Fault> {
    let mut status: Status = client.get("/v1/status").await?;
    if let Some(wanted) = &asked.service {
        if !status.services.iter().any(|s| s.name == *wanted) {
            return Err(unknown(wanted, &status));
        }
        status.services.retain(|s| s.name == *wanted);
    }
    if asked.json {
        return json(&status);
    }
    say(&print::status(&status))
}

async fn releases(client: &Client, asked: &cli::Releases) -> Result<(), Fault> {
    let service = service_path(client, asked.service.as_ref()).await?;
    let lines: Vec<ReleaseLine> = client.get(&format!("{service}/releases")).await?;
    if asked.json {
        return json(&lines);
    }
    say(&print::releases(&lines))
}

async fn logs(client: &Client, asked: &cli::Logs) -> Result<(), Fault> {
    let (service, release) = match &asked.of {
        None => (None, None),
        Some(LogsOf::Service(name)) => (Some(name), None),
        Some(LogsOf::Release(id)) => (Some(&id.service), Some(id.number)),
    };
    let query = LogsQuery {
        lines: Some(asked.lines),
        follow: asked.follow,
        release,
    };
    let service = service_path(client, service).await?;
    let answer = client
        .stream(&format!("{service}/logs?{}", urlencoded(&query)?))
        .await?;
    client::copy_to_stdout(client, answer).await
}

/// The path of the service that is meant: the one named, or the only one.
async fn service_path(client: &Client, named: Option<&ServiceName>) -> Result<String, Fault> {
    let status: Status = client.get("/v1/status").await?;
    let name = match named {
        Some(name) if status.services.iter().any(|s| s.name == *name) => name.clone(),
        Some(name) => return Err(unknown(name, &status)),
        None => match status.services.as_slice() {
            [only] => only.name.clone(),
            several => {
                return Err(Fault::config(format!(
                    "which service? there are {}: {}",
                    several.len(),
                    names(&status)
                ))
                .hint("name one of them (deploy: --service NAME)"));
            }
        },
    };
    Ok(format!("/v1/services/{name}"))
}

fn unknown(name: &ServiceName, status: &Status) -> Fault {
    Fault::config(format!("no service named {name}")).hint(format!("one of: {}", names(status)))
}

fn names(status: &Status) -> String {
    let names: Vec<&str> = status.services.iter().map(|s| s.name.as_str()).collect();
    names.join(", ")
}

fn urlencoded(query: &impl Serialize) -> Result<String, Fault> {
    serde_urlencoded::to_string(query).map_err(|cause| Fault::failed(cause.to_string()))
}

fn json(value: &impl Serialize) -> Result<(), Fault> {
    let text =
        serde_json::to_string_pretty(value).map_err(|cause| Fault::failed(cause.to_string()))?;
    say(&text)
}

/// Print to standard output; a reader that has left is no failure.
fn say(text: &str) -> Result<(), Fault> {
    print::line(text).map_err(|cause| Fault::failed(format!("standard output: {cause}")))
}
