//! What each command of the command line does: ask the daemon, print the answer. `serve` is in
//! `daemon`, `doctor` in a room of its own.

mod local;
mod log_level;
mod orders;
mod reload;
mod views;
mod watch;

use hotctl_config::names::ServiceName;
use hotctl_config::suggest::nearest;
use serde::Serialize;

use crate::api::{ServiceStatus, Status};
use crate::cli::{Cli, Command, Form};
use crate::client::Client;
use crate::fault::Fault;
use crate::{daemon, dev, doctor, init, print};
use orders::Begun;

/// Do what the command line says.
///
/// # Errors
/// If it cannot be done; what there is to say in that case is in the error.
pub fn run(cli: &Cli) -> Result<(), Fault> {
    let form = cli.answers.form();
    match &cli.command {
        Command::Serve(_) if form == Form::Json => {
            Err(Fault::config("serve: gives no answer that could be JSON")
                .hint("its own log as JSON: hotctl serve --log-format json"))
        }
        Command::Serve(serve) => daemon::serve(&cli.places, serve),
        Command::Dev(_) if form == Form::Json => {
            Err(Fault::config("dev: gives no answer that could be JSON")
                .hint("in another terminal: hotctl events -f --json"))
        }
        Command::Dev(asked) => dev::run(&cli.places, asked),
        Command::Check(check) => local::check(check, form),
        Command::Init(asked) => init::run(asked, form),
        Command::Systemd(asked) => local::systemd(asked),
        Command::Alerts => local::alerts(),
        Command::Completions(completions) => local::completions(completions),
        Command::Man(man) => local::man(man, form),
        Command::Openapi => local::openapi(),
        Command::Schema(schema) => local::schema(schema),
        Command::Doctor(asked) => waiting_for(doctor::run(&cli.places, asked, form)),
        _ => waiting_for(ask(cli, form)),
    }
}

fn waiting_for(done: impl Future<Output = Result<(), Fault>>) -> Result<(), Fault> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|cause| Fault::failed(format!("cannot start the runtime: {cause}")))?;
    let done = runtime.block_on(done);
    // A read of a pipe that never ends must not hold up the end of the command.
    runtime.shutdown_background();
    done
}

/// Every command that speaks with a daemon.
async fn ask(cli: &Cli, form: Form) -> Result<(), Fault> {
    // A path that cannot be deployed is said before anybody is asked.
    let packed = match &cli.command {
        Command::Deploy(deploy) => Some(orders::read(&deploy.path, &[])?),
        _ => None,
    };
    // Nor a level that is none.
    let level = match &cli.command {
        Command::LogLevel(asked) => Some(asked.meant()?),
        _ => None,
    };
    let client = match (Client::find(&cli.places).await, &cli.command) {
        (found, Command::Version) => return views::version(found.ok(), form).await,
        (found, _) => found?,
    };
    if let Some(level) = &level {
        return log_level::log_level(&client, level, form).await;
    }
    match (&cli.command, packed) {
        (Command::Deploy(asked), Some(packed)) => {
            orders::deploy(&client, asked, packed, &Begun::default(), form).await
        }
        (Command::Watch(asked), _) => watch::watch(client, asked, form).await,
        (Command::Rollback(asked), _) => orders::rollback(&client, asked, form).await,
        (Command::Stop(on), _) => orders::on_service(&client, on, "stop", form).await,
        (Command::Start(on), _) => orders::on_service(&client, on, "start", form).await,
        (Command::Restart(on), _) => orders::on_service(&client, on, "restart", form).await,
        (Command::Pause(on), _) => orders::on_service(&client, on, "pause", form).await,
        (Command::Resume(on), _) => orders::on_service(&client, on, "resume", form).await,
        (Command::Maintenance(asked), _) => orders::maintenance(&client, asked, form).await,
        (Command::Cancel(on), _) => orders::cancel(&client, on, form).await,
        (Command::Status(asked), _) => views::status(&client, asked, form).await,
        (Command::Releases(asked), _) => views::releases(&client, asked, form).await,
        (Command::History(asked), _) => views::history(&client, asked, form).await,
        (Command::Show(asked), _) => views::show(&client, asked, form).await,
        (Command::Logs(asked), _) => views::logs(&client, asked, form).await,
        (Command::Reload(asked), _) => reload::reload(&client, asked, form).await,
        (Command::Upgrade(asked), _) => reload::upgrade(&client, asked, form).await,
        (Command::Events(asked), _) => views::events(&client, asked, form).await,
        // The others need no daemon, and are answered before.
        _ => Ok(()),
    }
}

/// The service that is meant: the one named, or the only one.
async fn meant(client: &Client, named: Option<&ServiceName>) -> Result<ServiceStatus, Fault> {
    let mut status: Status = client.get("/v1/status").await?;
    let at = match named {
        Some(name) => status
            .services
            .iter()
            .position(|s| s.name == *name)
            .ok_or_else(|| unknown(name, &status))?,
        None if status.services.len() == 1 => 0,
        None => {
            let all = names(&status);
            let text = format!("which service? there are {}: {}", all.len(), all.join(", "));
            return Err(Fault::config(text).hint("name one of them (deploy: --service NAME)"));
        }
    };
    Ok(status.services.swap_remove(at))
}

/// The name of the service that is meant.
async fn service(client: &Client, named: Option<&ServiceName>) -> Result<ServiceName, Fault> {
    Ok(meant(client, named).await?.name)
}

/// The path of the service that is meant.
async fn service_path(client: &Client, named: Option<&ServiceName>) -> Result<String, Fault> {
    Ok(path_of(&service(client, named).await?))
}

fn path_of(service: &ServiceName) -> String {
    format!("/v1/services/{service}")
}

fn unknown(name: &ServiceName, status: &Status) -> Fault {
    let names = names(status);
    let meant = nearest(name.as_str(), &names)
        .map(|meant| format!("; did you mean {meant}?"))
        .unwrap_or_default();
    Fault::config(format!("no service named {name}{meant}"))
        .hint(format!("one of: {}", names.join(", ")))
}

fn names(status: &Status) -> Vec<&str> {
    status.services.iter().map(|s| s.name.as_str()).collect()
}

/// A path with its query; one without any field has none.
fn with_query(path: &str, query: &impl Serialize) -> Result<String, Fault> {
    let query =
        serde_urlencoded::to_string(query).map_err(|cause| Fault::failed(cause.to_string()))?;
    Ok(match query.as_str() {
        "" => path.to_owned(),
        query => format!("{path}?{query}"),
    })
}

/// Answer: as JSON, or in these words.
///
/// # Errors
/// If it cannot be printed.
pub fn answer(
    form: Form,
    value: &impl Serialize,
    words: impl FnOnce() -> String,
) -> Result<(), Fault> {
    match form {
        Form::Words => say(&words()),
        Form::Json => {
            let text = serde_json::to_string_pretty(value)
                .map_err(|cause| Fault::failed(cause.to_string()))?;
            say(&text)
        }
    }
}

/// Print to standard output; a reader that has left is no failure.
fn say(text: &str) -> Result<(), Fault> {
    print::line(text)
        .map(drop)
        .map_err(|cause| Fault::failed(format!("standard output: {cause}")))
}
