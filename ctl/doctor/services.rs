//! What the services of the configuration need: files, programs, a group, room for their output.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use hotctl_config::file::{AccessLog, Config, Ownership, Service};
use hotctl_config::names::ServiceName;
use hotctl_config::units::show_bytes;

use crate::answers::Finding;
use crate::who;

/// All of it; what is not configured is not mentioned.
pub fn check(config: &Config, state: &Path) -> Vec<Finding> {
    let mut found = Vec::new();
    found.extend(access_log(config));
    found.extend(group(config));
    found.extend(ownership(config));
    for (name, service) in &config.services {
        found.extend(env_file(name, service));
        found.extend(workdir(name, service));
        found.extend(account(name, service));
        found.extend(programs(name, service));
        found.push(logs(name, service, state));
    }
    found
}

fn access_log(config: &Config) -> Option<Finding> {
    const CHECK: &str = "access log";
    let AccessLog::File(path) = &config.access_log else {
        return None;
    };
    let shown = path.display();
    let folder = path.parent()?;
    if !folder.is_dir() {
        return Some(Finding::wrong(
            CHECK,
            format!("{shown}: its folder is not there"),
            format!("mkdir -p {}", folder.display()),
        ));
    }
    let opened = fs::File::options().append(true).open(path);
    Some(match opened {
        Ok(_) => Finding::good(CHECK, shown.to_string()),
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => {
            match tempfile::tempfile_in(folder) {
                Ok(_) => Finding::good(CHECK, format!("{shown}: made when it is needed")),
                Err(cause) => Finding::wrong(
                    CHECK,
                    format!("{shown}: cannot be written: {cause}"),
                    format!("let this user write to {}", folder.display()),
                ),
            }
        }
        Err(cause) => Finding::wrong(
            CHECK,
            format!("{shown}: cannot be written: {cause}"),
            "name a file that this user can write as `access_log`",
        ),
    })
}

fn group(config: &Config) -> Option<Finding> {
    const CHECK: &str = "control group";
    let name = config.control.group.as_ref()?;
    Some(match who::group(name) {
        Some(gid) => Finding::good(
            CHECK,
            format!("{name} ({gid}): its members may run code as the user that services run as"),
        ),
        None => Finding::wrong(
            CHECK,
            format!("{name}: the system has no such group"),
            format!("groupadd {name}"),
        ),
    })
}

/// Whose a socket is stands in /proc, which may be hidden from other users than root.
fn ownership(config: &Config) -> Option<Finding> {
    const CHECK: &str = "ownership";
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let hidden = mounts.lines().any(|line| {
        let mut words = line.split(' ').skip(1);
        words.next() == Some("/proc")
            && words.nth(1).is_some_and(|options| {
                options
                    .split(',')
                    .any(|o| o.starts_with("hidepid=") && !matches!(o, "hidepid=0" | "hidepid=off"))
            })
    });
    if !hidden || rustix::process::geteuid().is_root() {
        return None;
    }
    let text = "/proc is mounted with hidepid: whose a socket is may not be seen";
    let required = config
        .services
        .values()
        .any(|service| service.health.ownership == Ownership::Require);
    Some(if required {
        let hint = "mount -o remount,hidepid=0 /proc, or health.ownership = \"warn\"";
        Finding::wrong(CHECK, text, hint)
    } else {
        Finding::note(CHECK, text)
    })
}

fn env_file(name: &ServiceName, service: &Service) -> Option<Finding> {
    let path = service.env_file.as_ref()?;
    let check = format!("{name}: env_file");
    let shown = path.display();
    Some(match fs::metadata(path) {
        Err(cause) => Finding::wrong(
            &check,
            format!("{shown}: {cause}"),
            format!("install -m 600 /dev/null {shown}"),
        ),
        Ok(meta) if meta.mode() & 0o007 != 0 => Finding::wrong(
            &check,
            format!(
                "{shown}: everybody can read it (mode {:o})",
                meta.mode() & 0o777
            ),
            format!("chmod o= {shown}"),
        ),
        Ok(_) => match fs::File::open(path) {
            Ok(_) => Finding::good(&check, shown.to_string()),
            Err(cause) => Finding::wrong(
                &check,
                format!("{shown}: {cause}"),
                format!("let the user that runs hotctl read {shown}"),
            ),
        },
    })
}

fn workdir(name: &ServiceName, service: &Service) -> Option<Finding> {
    let path = service.workdir.as_ref()?;
    let check = format!("{name}: workdir");
    Some(if path.is_dir() {
        Finding::good(&check, path.display().to_string())
    } else {
        Finding::wrong(
            &check,
            format!("{}: no such folder", path.display()),
            format!("mkdir -p {}", path.display()),
        )
    })
}

fn account(name: &ServiceName, service: &Service) -> Option<Finding> {
    let who = service.user.as_ref().or(service.group.as_ref())?;
    let check = format!("{name}: user");
    Some(
        match who::account(service.user.as_deref(), service.group.as_deref()) {
            Ok(Some(account)) => Finding::good(
                &check,
                format!(
                    "{} ({}:{})",
                    account.name, account.user.uid, account.user.gid
                ),
            ),
            Ok(None) => Finding::good(&check, format!("{who}: hotctl itself")),
            Err(fault) => Finding::wrong(&check, fault.text, fault.hint.unwrap_or_default()),
        },
    )
}

/// Programs that are looked for in PATH, or named by their whole path. Others come with a release.
fn programs(name: &ServiceName, service: &Service) -> Vec<Finding> {
    let commands = [
        ("run", &service.run),
        ("before_start", &service.before_start),
        ("on_live", &service.on_live),
        ("health.command", &service.health.command),
    ];
    let programs = commands
        .into_iter()
        .filter_map(|(field, command)| Some((field, command.first()?)))
        .filter(|(_, program)| program.starts_with('/') || !program.contains('/'));
    programs
        .map(|(field, program)| {
            let check = format!("{name}: {field}");
            match which::which(program) {
                Ok(path) => Finding::good(&check, path.display().to_string()),
                Err(_) if program.starts_with('/') => Finding::wrong(
                    &check,
                    format!("{program}: no such program"),
                    format!("install it, or name another in `{field}`"),
                ),
                Err(_) => Finding::wrong(
                    &check,
                    format!("{program}: no such program in PATH"),
                    format!(
                        "install it, or name its whole path in `{field}`; the daemon looks in its own PATH"
                    ),
                ),
            }
        })
        .collect()
}

fn logs(name: &ServiceName, service: &Service, state: &Path) -> Finding {
    let check = format!("{name}: logs");
    let folder = state.join("services").join(name.as_str()).join("logs");
    let files = fs::read_dir(&folder).into_iter().flatten();
    let size: u64 = files
        .filter_map(|entry| Some(entry.ok()?.metadata().ok()?.len()))
        .sum();
    let cap = service.logs.total_size;
    let text = format!(
        "{} KiB kept, at most {} (logs.total_size)",
        size >> 10,
        show_bytes(cap)
    );
    // What is being written may stand above the cap until it is put aside.
    if size > cap.saturating_add(service.logs.file_size) {
        let hint = format!("ls -t {}/* | tail -n +2 | xargs rm --", folder.display());
        return Finding::wrong(&check, text, hint);
    }
    Finding::good(&check, text)
}
