//! Who has a socket open, as /proc tells it, and an end to that.

use std::fs;
use std::path::Path;
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal};

/// Kill every process but ours that has this socket open, until nobody has; says how many there were.
pub fn kill(socket: u64) -> usize {
    // What is killed may have started another one in that moment.
    const ROUNDS: usize = 20;
    let mut killed = 0;
    for _ in 0..ROUNDS {
        let found = holders(socket);
        if found.is_empty() {
            break;
        }
        for pid in found {
            let Ok(held) = rustix::process::pidfd_open(pid, PidfdFlags::empty()) else {
                continue;
            };
            // Looked at once it is held: its number may have been given again.
            if has(pid, socket) && rustix::process::pidfd_send_signal(&held, Signal::KILL).is_ok() {
                killed += 1;
            }
        }
        // Until the kernel has closed what they had.
        std::thread::sleep(Duration::from_millis(5));
    }
    killed
}

fn holders(socket: u64) -> Vec<Pid> {
    let own = rustix::process::getpid();
    let all = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = all.filter_map(|entry| Pid::from_raw(entry.file_name().to_str()?.parse().ok()?));
    pids.filter(|pid| *pid != own && has(*pid, socket))
        .collect()
}

fn has(pid: Pid, socket: u64) -> bool {
    let wanted = format!("socket:[{socket}]");
    let open = fs::read_dir(format!("/proc/{}/fd", pid.as_raw_nonzero()));
    let mut open = open.into_iter().flatten().flatten();
    open.any(|entry| fs::read_link(entry.path()).is_ok_and(|to| to == Path::new(&wanted)))
}
