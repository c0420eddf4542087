//! What belongs to a folder: its processes, and what these write elsewhere. From `/proc`.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustix::fs::OFlags;
use rustix::process::Signal;

use super::program::send;

/// A process that has to do with a folder.
#[derive(Clone, Debug)]
pub struct Process {
    pub pid: u32,
    /// Its command line, for people.
    pub line: String,
}

/// Processes that run a program of the folder, work in it, or have been told of it by environment or
/// arguments. Zombies have none of these and are not found.
pub fn processes(folder: &Path) -> Vec<Process> {
    let this = std::process::id();
    pids()
        .filter(|pid| *pid != this)
        .filter(|pid| belongs(*pid, folder))
        .map(|pid| Process {
            pid,
            line: command_line(pid),
        })
        .collect()
}

/// Processes that have this one among their ancestors.
pub fn descendants(of: u32) -> Vec<u32> {
    let parents: Vec<(u32, u32)> = pids().filter_map(|pid| Some((pid, parent(pid)?))).collect();
    let mut found = vec![of];
    let mut at = 0;
    while let Some(parent) = found.get(at).copied() {
        at += 1;
        found.extend(
            parents
                .iter()
                .filter(|(_, p)| *p == parent)
                .map(|(pid, _)| *pid),
        );
    }
    found.split_off(1)
}

/// End them all, at once.
pub fn kill(processes: &[Process]) {
    for process in processes {
        send(process.pid, Signal::KILL);
    }
}

/// Files outside of the folder that its processes have open for writing.
pub fn written_elsewhere(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for process in processes(folder) {
        let fds = format!("/proc/{}/fd", process.pid);
        for entry in fs::read_dir(fds).into_iter().flatten().flatten() {
            let Ok(file) = fs::read_link(entry.path()) else {
                continue;
            };
            // A shim moves what it starts into a cgroup.
            let inside = file.starts_with(folder)
                || file.starts_with("/dev")
                || file.starts_with("/sys/fs/cgroup");
            // Pipes, sockets and the like have names without a slash in front; memory files have one.
            let no_file = !file.is_absolute() || file.starts_with("/memfd:");
            if !inside && !no_file && writable(process.pid, &entry.file_name()) {
                found.push(format!(
                    "{} ({}) writes {}",
                    process.pid,
                    process.line,
                    file.display()
                ));
            }
        }
    }
    found
}

/// When each of the places was changed last that hotctl has by default, if it is there.
pub fn default_places() -> Vec<(PathBuf, Option<SystemTime>)> {
    let uid = rustix::process::geteuid().as_raw();
    let own = std::env::temp_dir().join(format!("hotctl-{uid}"));
    [
        PathBuf::from("/run/hotctl"),
        PathBuf::from("/var/lib/hotctl"),
        own,
    ]
    .into_iter()
    .map(|place| {
        let changed = fs::metadata(&place).and_then(|meta| meta.modified());
        (place, changed.ok())
    })
    .collect()
}

/// Everything below a folder.
pub fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.extend(files(&entry.path()));
        }
        found.push(entry.path());
    }
    found
}

fn pids() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

fn belongs(pid: u32, folder: &Path) -> bool {
    let at = |name: &str| PathBuf::from(format!("/proc/{pid}/{name}"));
    let within = |name: &str| fs::read_link(at(name)).is_ok_and(|path| path.starts_with(folder));
    let told = |name: &str| {
        let needle = folder.as_os_str().as_bytes();
        fs::read(at(name)).is_ok_and(|all| all.windows(needle.len()).any(|some| some == needle))
    };
    within("exe") || within("cwd") || told("cmdline") || told("environ")
}

/// Its command line, for people.
pub fn command_line(pid: u32) -> String {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&line)
        .replace('\0', " ")
        .trim()
        .to_string()
}

/// Its parent, if it is there.
pub fn parent(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name before it may hold anything, parentheses too.
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(1)?.parse().ok()
}

fn writable(pid: u32, fd: &std::ffi::OsStr) -> bool {
    let info = format!("/proc/{pid}/fdinfo/{}", fd.to_string_lossy());
    let info = fs::read_to_string(info).unwrap_or_default();
    let flags = info.lines().find_map(|line| line.strip_prefix("flags:"));
    let flags = flags
        .and_then(|text| u32::from_str_radix(text.trim(), 8).ok())
        .unwrap_or(0);
    OFlags::from_bits_retain(flags).intersects(OFlags::WRONLY | OFlags::RDWR)
}
