//! `hotctl dev`: the daemon, the watch and the builds of one project in a command at the desk. Says what
//! is run and how that differs from serving; everything else is the daemon's.

mod browser;
mod console;
mod escapes;
mod project;
mod reading;

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::time::Duration;

use hotctl_config::file::{AddressKind, Admin, Config, Drain, Listen, OnExit, Service};

use crate::cli::{self, LogFormat, Places};
use crate::daemon::{self, Setup};
use crate::fault::Fault;
use crate::log::Log;
use crate::places::{self, PROJECT, SOCKET};
use crate::reload::Origin;
use crate::site::Manner;

pub use browser::Editor;
pub use console::Console;
pub use project::{fixed_port, is_usual, sources};

/// The file of a configuration that is looked for.
const CONFIG: &str = "hotctl.toml";
/// Where requests are taken, where nothing else is configured.
const USUAL: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 8080));
/// What has begun may go on for so long after the flip, where nothing else is configured.
const DRAIN: Duration = Duration::from_secs(1);
/// The same of what somebody holds open: a page that loads itself anew lets go of it by itself.
const HELD_OPEN: Duration = Duration::from_secs(10);

/// How much longer requests wait than a version may take to start, where nothing else is configured.
const PATIENCE: Duration = Duration::from_secs(15);

/// Run the project until Ctrl-C.
///
/// # Errors
/// If it cannot be told what the project is, and as for `hotctl serve`.
pub fn run(asked_places: &Places, asked: &cli::Dev) -> Result<(), Fault> {
    let here = std::env::current_dir()
        .map_err(|cause| Fault::config(format!("the folder one stands in: {cause}")))?;
    let mut said = Vec::new();
    let file = configuration(&here, asked);
    let found = match &file {
        Some(_) => None,
        None => {
            let project = project::of(&here, &asked.command)?;
            if let AddressKind::Fixed(own) = project.service.address
                && let Some(same) = asked.listen.iter().find(|it| it.port() == own.get())
            {
                return Err(Fault::config(format!(
                    "--listen {same}: the app itself listens at port {own}, as its source says"
                ))
                .hint(format!(
                    "another port, or leave --listen out: {}:{}",
                    Ipv4Addr::LOCALHOST,
                    project.port
                )));
            }
            said.extend(project.said);
            Some(single(&project.service, project.port))
        }
    };
    let places = own_places(&here, asked_places)?;
    let origin = Origin {
        file,
        listen: asked.listen.clone(),
        admin: None,
        manner: Manner::Dev,
        found,
        only: asked.services.clone(),
    };
    daemon::run_as(&places, || {
        Ok(Setup {
            log: Log::start(LogFormat::Text, asked.log_level)?,
            origin,
            console: Some(Console::new(here, said, asked.editor.clone())),
        })
    })
}

fn configuration(here: &Path, asked: &cli::Dev) -> Option<PathBuf> {
    let beside = here.join(CONFIG);
    match &asked.config {
        Some(named) => Some(named.clone()),
        None => (asked.command.is_empty() && beside.exists()).then_some(beside),
    }
}

fn single(service: &Service, port: u16) -> Config {
    let mut config = hotctl_config::single((Ipv4Addr::LOCALHOST, port).into());
    for only in config.services.values_mut() {
        *only = service.clone();
    }
    config
}

/// State and socket of a project are its own, and no part of what is kept of it.
fn own_places(here: &Path, asked: &Places) -> Result<Places, Fault> {
    let folder = here.join(PROJECT);
    let mut own = asked.clone();
    if own.socket.is_none() || own.state.is_none() {
        places::private_folder(&folder, "state")?;
        let ignore = folder.join(".gitignore");
        match fs::File::create_new(&ignore) {
            Ok(mut file) => io::Write::write_all(&mut file, b"*\n"),
            Err(cause) if cause.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            Err(cause) => Err(cause),
        }
        .map_err(|cause| Fault::config(format!("{}: {cause}", ignore.display())))?;
    }
    own.socket.get_or_insert_with(|| folder.join(SOCKET));
    own.state.get_or_insert_with(|| folder.join("state"));
    Ok(own)
}

/// What differs at the desk, where nothing else is configured: nobody is to wait for what was.
/// `folder`: of the file that it is written in.
pub fn at_the_desk(config: &mut Config, folder: &Path) {
    let plain = Service::default();
    if config.listen.is_empty() {
        config.listen.push(Listen { address: USUAL });
    }
    config.admin = Admin::Off;
    config.on_exit = OnExit::Stop;
    if config.shutdown_timeout == Config::default().shutdown_timeout {
        config.shutdown_timeout = DRAIN;
    }
    for service in config.services.values_mut() {
        let is_for_deploys = service.build.root.is_none() && service.watch.path.is_none();
        if is_for_deploys && !service.run.is_empty() {
            // As `hotctl dev -- COMMAND` has it.
            service.build.root = Some(folder.to_owned());
            service.workdir.get_or_insert_with(|| folder.to_owned());
        }
        if service.park.time == plain.park.time {
            // So that what hangs at the only port has failed, and the version before is back, in time.
            service.park.time = service.start_timeout + PATIENCE;
        }
        if service.keep_warm == plain.keep_warm {
            service.keep_warm = Duration::ZERO;
        }
        if service.drain == plain.drain {
            service.drain = Drain {
                requests: DRAIN,
                websockets: HELD_OPEN,
                streams: HELD_OPEN,
                spread: Duration::ZERO,
                ..plain.drain.clone()
            };
        }
        if service.stop_timeout == plain.stop_timeout {
            service.stop_timeout = 2 * DRAIN;
        }
    }
}
