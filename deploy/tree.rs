//! The processes below one process, as /proc shows them, and signals to them. Knows process numbers
//! only.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use rustix::process::{Pid, PidfdFlags, Signal};

/// Every process below `root`, without it: children, their children and so on, those that were
/// adopted because their parent died included. A picture of one instant: what is born while it is
/// taken may be missing.
pub(crate) fn descendants(root: u32) -> Vec<u32> {
    let all = match children(root) {
        Some(_) => None,
        // A kernel without `children` files, or a process that is gone.
        None if fs::exists(format!("/proc/{root}")).unwrap_or(false) => Some(parents()),
        None => return Vec::new(),
    };
    let below = |pid: u32| match &all {
        None => children(pid).unwrap_or_default(),
        Some(all) => all.get(&pid).cloned().unwrap_or_default(),
    };
    let mut found = Vec::new();
    let mut seen = BTreeSet::from([root]);
    let mut next = vec![root];
    while let Some(pid) = next.pop() {
        for child in below(pid) {
            if seen.insert(child) {
                found.push(child);
                next.push(child);
            }
        }
    }
    found
}

/// Every process of a session, its leader included.
pub(crate) fn session(leader: u32) -> Vec<u32> {
    everybody()
        .filter(|pid| stat(*pid).is_some_and(|stat| stat.session == leader))
        .collect()
}

/// Every process whose environment had this variable when its program began. Those of other users
/// are not seen, save by root.
pub(crate) fn marked(name: &str, value: &str) -> Vec<u32> {
    let line = format!("{name}={value}");
    let has = |pid: &u32| {
        fs::read(format!("/proc/{pid}/environ")).is_ok_and(|all| {
            all.split(|byte| *byte == 0)
                .any(|one| one == line.as_bytes())
        })
    };
    everybody().filter(has).collect()
}

/// Every process whose environment had this variable when its program began with a value that begins so,
/// and that value. Those of other users are not seen, save by root.
pub(crate) fn marked_like(name: &str, beginning: &str) -> Vec<(u32, String)> {
    let line = format!("{name}={beginning}");
    let value = |pid: u32| {
        let all = fs::read(format!("/proc/{pid}/environ")).ok()?;
        let mut lines = all.split(|byte| *byte == 0);
        let found = lines.find(|one| one.starts_with(line.as_bytes()))?;
        let value = String::from_utf8_lossy(found.get(name.len() + 1..)?).into_owned();
        Some((pid, value))
    };
    everybody().filter_map(value).collect()
}

/// Which run of the system this is; process numbers mean something within one only.
pub(crate) fn boot() -> String {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id");
    text.unwrap_or_default().trim().to_owned()
}

/// The memory that these hold, in bytes; what several share is counted for each.
pub(crate) fn resident(pids: &[u32]) -> u64 {
    let page = u64::try_from(rustix::param::page_size()).unwrap_or(4096);
    let pages = |pid: &u32| -> Option<u64> {
        let text = fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
        text.split(' ').nth(1)?.parse().ok()
    };
    pids.iter().filter_map(pages).sum::<u64>() * page
}

/// The same, where what is shared is divided among those that share it (proc_pid_smaps(5)).
pub(crate) fn shares(pids: &[u32]) -> u64 {
    let kib = |pid: &u32| -> Option<u64> {
        let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix("Pss:"))?;
        line.trim().strip_suffix("kB")?.trim().parse().ok()
    };
    let share = |pid: &u32| kib(pid).map_or_else(|| resident(&[*pid]), |kib| kib << 10);
    pids.iter().map(share).sum()
}

/// Send a signal to each process below `root` for which `wanted` says so, and return whom it was
/// sent to. A number that was given to another process meanwhile is not hit.
pub(crate) fn signal(root: u32, signal: Signal, wanted: impl Fn(u32) -> bool) -> Vec<u32> {
    let below = descendants(root);
    let family: BTreeSet<u32> = below.iter().copied().chain([root]).collect();
    below
        .into_iter()
        .filter(|pid| wanted(*pid) && send(*pid, signal, |stat| family.contains(&stat.parent)))
        .collect()
}

/// Send a signal to one process, if it still is whom we mean.
pub(crate) fn send(pid: u32, signal: Signal, is_meant: impl Fn(&Stat) -> bool) -> bool {
    let Some(number) = i32::try_from(pid).ok().and_then(Pid::from_raw) else {
        return false;
    };
    // Hold the process first, look at it then: so its number cannot change hands in between.
    let held = rustix::process::pidfd_open(number, PidfdFlags::empty());
    if !stat(pid).is_some_and(|stat| is_meant(&stat)) {
        return false;
    }
    match held {
        Ok(held) => rustix::process::pidfd_send_signal(held, signal).is_ok(),
        Err(rustix::io::Errno::SRCH) => false,
        // A sandbox that forbids pidfds.
        Err(_) => rustix::process::kill_process(number, signal).is_ok(),
    }
}

/// What /proc/PID/stat says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stat {
    /// `R`, `S`, `Z` and so on.
    pub(crate) state: char,
    pub(crate) parent: u32,
    pub(crate) session: u32,
    /// When it began, in ticks of the clock since the boot.
    pub(crate) began: u64,
}

/// What /proc says of a process, if it is there.
pub(crate) fn stat(pid: u32) -> Option<Stat> {
    parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

fn parse(text: &str) -> Option<Stat> {
    // The name stands in brackets, and may itself hold spaces and brackets.
    let (_, rest) = text.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    let parent = fields.next()?.parse().ok()?;
    let session = fields.nth(1)?.parse().ok()?;
    // Field 22; the session is field 6.
    let began = fields.nth(15)?.parse().ok()?;
    Some(Stat {
        state,
        parent,
        session,
        began,
    })
}

fn children(pid: u32) -> Option<Vec<u32>> {
    let mut found = Vec::new();
    // Each thread has the children that it started itself.
    for thread in fs::read_dir(format!("/proc/{pid}/task")).ok()?.flatten() {
        match fs::read_to_string(thread.path().join("children")) {
            Ok(text) => found.extend(
                text.split_ascii_whitespace()
                    .filter_map(|pid| pid.parse::<u32>().ok()),
            ),
            // The thread ended meanwhile.
            Err(_) if !fs::exists(thread.path()).unwrap_or(false) => {}
            Err(_) => return None,
        }
    }
    Some(found)
}

fn parents() -> BTreeMap<u32, Vec<u32>> {
    let mut all: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for pid in everybody() {
        if let Some(stat) = stat(pid) {
            all.entry(stat.parent).or_default().push(pid);
        }
    }
    all
}

fn everybody() -> impl Iterator<Item = u32> {
    fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use std::process::Command;

    use super::{Stat, descendants, parents, parse};

    #[test]
    fn a_name_with_brackets_and_spaces_does_not_confuse() {
        let stat =
            parse("42 (a) b) (c)) S 7 42 40 0 -1 4194560 0 0 0 0 1 2 3 4 20 0 1 0 777 4096 9")
                .unwrap();
        let expected = Stat {
            state: 'S',
            parent: 7,
            session: 40,
            began: 777,
        };
        assert_eq!(stat, expected);
    }

    #[test]
    fn a_child_is_found_in_both_ways() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let own = std::process::id();
        let found = descendants(own).contains(&child.id());
        let scanned = parents()[&own].contains(&child.id());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(found && scanned);
    }

    #[test]
    fn a_process_that_is_not_there_has_nobody_below() {
        assert!(descendants(u32::MAX).is_empty());
    }
}
