//! The control socket, the daemon behind it, and the state folder.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use hotctl_config::units::show_bytes;

use crate::answers::Finding;
use crate::api::Status;
use crate::cli::Places;
use crate::places::{Whereabouts, check_socket_path};
use crate::socket;

/// Below this a release may not fit any more.
const LITTLE_SPACE: u64 = 128 * 1024 * 1024;
/// A clock may be set back by so much without anything being wrong.
const CLOCK_SLACK: Duration = Duration::from_secs(60);

/// All of them.
pub async fn check(places: &Places, daemon: Option<&Status>) -> Vec<Finding> {
    let socket = places
        .socket
        .clone()
        .unwrap_or_else(|| Whereabouts::here().socket());
    let mut found = vec![socket_folder(&socket), control(&socket, daemon).await];
    found.extend(daemon.map(version));
    let state = daemon.map_or_else(|| state(places), |daemon| PathBuf::from(&daemon.state));
    found.push(folder(&state));
    found.push(space(&state));
    found.push(clock(&state));
    found
}

/// Where a daemon started by this user keeps its state.
pub fn state(places: &Places) -> PathBuf {
    places
        .state
        .clone()
        .unwrap_or_else(|| Whereabouts::here().state())
}

fn socket_folder(socket: &Path) -> Finding {
    const CHECK: &str = "socket folder";
    if let Err(fault) = check_socket_path(socket) {
        return Finding::of_fault(CHECK, fault);
    }
    let Some(folder) = socket.parent().filter(|folder| folder.exists()) else {
        return Finding::good(
            CHECK,
            format!("{}: made when it is needed", socket.display()),
        );
    };
    match socket::check_private(folder) {
        Ok(()) => Finding::good(CHECK, folder.display().to_string()),
        Err(fault) => Finding::wrong(
            CHECK,
            fault.text,
            format!("chmod go-w {}", folder.display()),
        ),
    }
}

async fn control(socket: &Path, daemon: Option<&Status>) -> Finding {
    const CHECK: &str = "control socket";
    let shown = socket.display();
    if let Some(daemon) = daemon {
        return Finding::good(CHECK, format!("a daemon answers, pid {}", daemon.pid));
    }
    let meta = match fs::symlink_metadata(socket) {
        Ok(meta) => meta,
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => {
            return Finding::note(CHECK, format!("{shown}: no daemon runs"));
        }
        Err(cause) => {
            let hint = "run doctor as the user that runs the daemon";
            return Finding::wrong(CHECK, format!("{shown}: {cause}"), hint);
        }
    };
    if !meta.file_type().is_socket() {
        let hint = format!("mv {shown} {shown}.aside");
        return Finding::wrong(CHECK, format!("{shown}: a file that is no socket"), hint);
    }
    let own = rustix::process::geteuid().as_raw();
    if meta.uid() != own && meta.uid() != 0 && own != 0 {
        return Finding::wrong(
            CHECK,
            format!("{shown}: belongs to user {}, not to user {own}", meta.uid()),
            "run the command as that user, or name another socket with --socket",
        );
    }
    match tokio::net::UnixStream::connect(socket).await {
        Ok(_) => Finding::wrong(
            CHECK,
            format!("{shown}: somebody listens, and does not answer as hotctl"),
            format!("`ss -lxp src {shown}` shows who; stop that"),
        ),
        Err(cause) if cause.kind() == io::ErrorKind::ConnectionRefused => Finding::wrong(
            CHECK,
            format!("{shown}: stale: its daemon was killed"),
            format!("rm {shown}"),
        ),
        Err(cause) => Finding::wrong(
            CHECK,
            format!("{shown}: {cause}"),
            "run doctor as the user that runs the daemon",
        ),
    }
}

fn version(daemon: &Status) -> Finding {
    const CHECK: &str = "version";
    let own = env!("CARGO_PKG_VERSION");
    if daemon.version == own {
        return Finding::good(CHECK, format!("{own}, as the daemon"));
    }
    Finding::wrong(
        CHECK,
        format!("this program is {own}, the daemon {}", daemon.version),
        "stop the daemon and start it with this program",
    )
}

fn folder(state: &Path) -> Finding {
    const CHECK: &str = "state";
    let shown = state.display();
    let wrong =
        |text: String| Finding::wrong(CHECK, text, "choose a folder of your own with --state");
    let there = match fs::metadata(state) {
        Ok(meta) if !meta.is_dir() => {
            let hint = format!("mv {shown} {shown}.aside");
            return Finding::wrong(CHECK, format!("{shown}: not a folder"), hint);
        }
        Ok(meta) => {
            let own = rustix::process::geteuid().as_raw();
            if meta.uid() != own && own != 0 {
                return wrong(format!(
                    "{shown}: belongs to user {}, not to user {own}",
                    meta.uid()
                ));
            }
            if meta.mode() & 0o066 != 0 {
                return Finding::wrong(
                    CHECK,
                    format!(
                        "{shown}: others can look into it (mode {:o})",
                        meta.mode() & 0o777
                    ),
                    format!("chmod 700 {shown}"),
                );
            }
            state.to_owned()
        }
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => existing(state),
        Err(cause) => return wrong(format!("{shown}: {cause}")),
    };
    // Only trying tells: permissions, a file system mounted read-only, quotas.
    match tempfile::tempfile_in(&there) {
        Err(cause) => wrong(format!("{shown}: cannot be written: {cause}")),
        Ok(_) if there == state => Finding::good(CHECK, shown.to_string()),
        Ok(_) => Finding::good(CHECK, format!("{shown}: made when it is needed")),
    }
}

fn space(state: &Path) -> Finding {
    const CHECK: &str = "disk";
    let there = existing(state);
    let Ok(stat) = rustix::fs::statvfs(&there) else {
        return Finding::note(CHECK, format!("{}: cannot be asked", there.display()));
    };
    let free = stat.f_bavail.saturating_mul(stat.f_frsize);
    let text = format!("{}: {} MiB free", there.display(), free >> 20);
    if free < LITTLE_SPACE || (stat.f_files > 0 && stat.f_favail == 0) {
        let hint = format!(
            "make room: {} or more, and inodes; `keep_releases` and `logs.total_size` say how much hotctl keeps",
            show_bytes(LITTLE_SPACE)
        );
        return Finding::wrong(CHECK, text, hint);
    }
    Finding::good(CHECK, text)
}

/// Ages and the order of events are told by the clock.
fn clock(state: &Path) -> Finding {
    const CHECK: &str = "clock";
    let now = SystemTime::now();
    let services = fs::read_dir(state.join("services")).into_iter().flatten();
    let newest = services
        .filter_map(|entry| entry.ok()?.metadata().ok()?.modified().ok())
        .chain(
            fs::metadata(state)
                .ok()
                .and_then(|meta| meta.modified().ok()),
        )
        .max();
    match newest.and_then(|newest| newest.duration_since(now).ok()) {
        Some(ahead) if ahead > CLOCK_SLACK => Finding::wrong(
            CHECK,
            format!(
                "the state was written {} s in the future: the clock is wrong, or was",
                ahead.as_secs()
            ),
            format!(
                "set the clock (`timedatectl`); if it is right now: find {} -newermt now -exec touch {{}} +",
                state.display()
            ),
        ),
        _ => Finding::good(CHECK, "not behind what was written before"),
    }
}

/// The nearest folder above that is there.
fn existing(path: &Path) -> PathBuf {
    let above = path.ancestors().find(|folder| folder.is_dir());
    above.unwrap_or(Path::new("/")).to_owned()
}
