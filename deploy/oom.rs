//! Whether a process that was killed was killed by the kernel, for lack of memory. Asks the kernel's
//! counters and its log.

use std::fs::{self, File};
use std::io::Read as _;

use rustix::fs::{Mode, OFlags};

use crate::cgroup::Leaf;

/// What the counters said when an app began.
#[derive(Debug)]
pub(crate) struct Memory {
    before: Option<u64>,
}

impl Memory {
    /// As it is now.
    pub(crate) fn now() -> Self {
        Self { before: kills() }
    }

    /// Whether SIGKILL to this process came from there: `Some(true)` if it is known, `Some(false)` if
    /// it may be, since the kernel has ended some process since.
    pub(crate) fn took(&self, pid: u32, leaf: Option<&Leaf>) -> Option<bool> {
        if let Some(count) = leaf.and_then(Leaf::out_of_memory) {
            return (count > 0).then_some(true);
        }
        if kills() <= self.before {
            return None;
        }
        Some(is_in_log(pid))
    }
}

/// How many processes the kernel has ended for lack of memory, on the whole machine, since its start.
fn kills() -> Option<u64> {
    let all = fs::read_to_string("/proc/vmstat").ok()?;
    let count = all
        .lines()
        .find_map(|line| line.strip_prefix("oom_kill "))?;
    count.trim().parse().ok()
}

/// Whether the kernel's log names it; readable by root as a rule.
fn is_in_log(pid: u32) -> bool {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let Ok(log) = rustix::fs::open("/dev/kmsg", flags, Mode::empty()) else {
        return false;
    };
    let mut log = File::from(log);
    let name = format!("Killed process {pid} (");
    // A read is a line. One that was overwritten meanwhile is an error, and the next one is not.
    let mut line = [0; 8192];
    let mut lost = 0;
    loop {
        match log.read(&mut line) {
            Ok(0) => return false,
            Ok(length) => {
                let line = line.get(..length).unwrap_or_default();
                if line.windows(name.len()).any(|part| part == name.as_bytes()) {
                    return true;
                }
            }
            Err(cause) if cause.raw_os_error() == Some(libc::EPIPE) && lost < 10 => lost += 1,
            Err(_) => return false,
        }
    }
}
