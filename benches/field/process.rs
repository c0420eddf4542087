//! What the system says of processes: who belongs to whom, what they have used, and where they may run.

use std::fs;

use rustix::process::{Pid, Resource, getrlimit, setrlimit};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Who runs where.
#[derive(Clone, Debug)]
pub struct Cores {
    /// The one of the proxy.
    pub proxy: Vec<usize>,
    /// Those of load and backend.
    pub load: Vec<usize>,
    pub all: Vec<usize>,
}

/// Processor time, in seconds.
#[derive(Clone, Copy, Debug, Default)]
pub struct Spent {
    pub user: f64,
    pub system: f64,
}

/// What a core has done since the machine started, in seconds.
#[derive(Clone, Copy, Debug, Default)]
pub struct CoreTime {
    /// Used by programs, and by the kernel for them.
    pub used: f64,
    /// Given to other machines meanwhile.
    pub stolen: f64,
}

impl Cores {
    /// The last of the cores is the proxy's: interrupts are mostly for the first. None: there is only one.
    pub fn of_this_machine() -> Option<Self> {
        let set = sched_getaffinity(None).ok()?;
        let all: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|at| set.is_set(*at)).collect();
        let (proxy, load) = all.split_last()?;
        (!load.is_empty()).then(|| Self {
            proxy: vec![*proxy],
            load: load.to_vec(),
            all: all.clone(),
        })
    }
}

/// As many descriptors as this user may have: a thousand connections need two thousand.
pub fn raise_descriptors() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    let _ = setrlimit(Resource::Nofile, limit);
}

/// This thread, and what it starts from now on, runs on these cores.
pub fn settle_self(cores: &[usize]) {
    let _ = sched_setaffinity(None, &set(cores));
}

/// Every thread of a process runs on these cores.
pub fn settle(pid: u32, cores: &[usize]) {
    let tasks = fs::read_dir(format!("/proc/{pid}/task"));
    for task in tasks.into_iter().flatten().flatten() {
        let tid = task.file_name().to_string_lossy().parse().ok();
        if let Some(tid) = tid.and_then(Pid::from_raw) {
            let _ = sched_setaffinity(Some(tid), &set(cores));
        }
    }
}

/// For `taskset -c`.
pub fn words(cores: &[usize]) -> String {
    let words: Vec<String> = cores.iter().map(usize::to_string).collect();
    words.join(",")
}

/// A process and all below it, but for one with all below that.
pub fn family(root: u32, without: Option<u32>) -> Vec<u32> {
    let mut all = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let pid = entry.file_name().to_string_lossy().parse::<u32>();
        if let (Ok(pid), Some(fields)) = (pid, stat(&entry.path().join("stat").to_string_lossy())) {
            all.push((pid, fields.get(1).copied().unwrap_or(0)));
        }
    }
    let mut family = vec![root];
    let mut at = 0;
    while let Some(parent) = family.get(at).copied() {
        at += 1;
        let children = all.iter().filter(|(_, of)| *of == u64::from(parent));
        let wanted = children.filter(|(pid, _)| Some(*pid) != without);
        family.extend(wanted.map(|(pid, _)| *pid));
    }
    family
}

/// What they have used, threads that have ended included; told in hundredths of a second.
pub fn spent(pids: &[u32]) -> Spent {
    let mut sum = Spent::default();
    for pid in pids {
        let Some(fields) = stat(&format!("/proc/{pid}/stat")) else {
            continue;
        };
        let ticks = |at: usize| fields.get(at).copied().unwrap_or(0) as f64 / 100.0;
        sum.user += ticks(11);
        sum.system += ticks(12);
    }
    sum
}

/// What this process has used, with all below it, also with those that have ended and been waited for.
pub fn spent_by_us() -> f64 {
    let own = std::process::id();
    let Spent { user, system } = spent(&family(own, None));
    let ended = stat(&format!("/proc/{own}/stat")).unwrap_or_default();
    let ended = ended.iter().skip(13).take(2).sum::<u64>() as f64 / 100.0;
    user + system + ended
}

/// Their memory in MiB, what is shared divided among those who share it (PSS).
pub fn memory(pids: &[u32]) -> f64 {
    let kib = pids.iter().filter_map(|pid| {
        let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
        let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"))?;
        line.split_whitespace().next()?.parse::<f64>().ok()
    });
    kib.sum::<f64>() / 1024.0
}

/// These cores together.
pub fn core_time(cores: &[usize]) -> CoreTime {
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    let mut sum = CoreTime::default();
    for core in cores {
        let name = format!("cpu{core} ");
        let line = stat.lines().find_map(|line| line.strip_prefix(&name));
        let fields: Vec<f64> = line
            .unwrap_or_default()
            .split_whitespace()
            .filter_map(|field| field.parse().ok())
            .collect();
        let at = |at: usize| fields.get(at).copied().unwrap_or(0.0) / 100.0;
        // user, nice, system; irq and softirq; steal.
        sum.used += at(0) + at(1) + at(2) + at(5) + at(6);
        sum.stolen += at(7);
    }
    sum
}

/// The fields of a `stat` file after the name, from the state on (which is no number, and so 0).
fn stat(path: &str) -> Option<Vec<u64>> {
    let text = fs::read_to_string(path).ok()?;
    // The name may hold anything, parentheses too.
    let (_, rest) = text.rsplit_once(')')?;
    let fields = rest.split_whitespace();
    Some(fields.map(|field| field.parse().unwrap_or(0)).collect())
}

fn set(cores: &[usize]) -> CpuSet {
    let mut set = CpuSet::new();
    cores.iter().for_each(|core| set.set(*core));
    set
}
