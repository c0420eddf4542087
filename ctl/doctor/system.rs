//! What the system allows: descriptors, control groups.

use hotctl_config::file::Config;
use hotctl_deploy::cgroup;
use rustix::fs::{Access, access};
use rustix::process::{Resource, getrlimit};

use crate::answers::{Finding, Verdict};

/// Fewer than this are used up by a handful of clients.
const FEW: u64 = 1024;
/// Every request that is proxied needs two descriptors.
const PLENTY: u64 = 8192;

/// All of it.
pub fn check(config: Option<&Config>) -> Vec<Finding> {
    vec![descriptors(config), control_groups()]
}

fn descriptors(config: Option<&Config>) -> Finding {
    const CHECK: &str = "open files";
    let limit = getrlimit(Resource::Nofile);
    // None is no limit.
    let current = limit.current.unwrap_or(u64::MAX);
    let services = config.map_or(0, |config| config.services.len());
    let text = format!(
        "at most {current}: about {} requests at a time",
        current / 2
    );
    let few = FEW + 16 * u64::try_from(services).unwrap_or(0);
    let hint = format!("ulimit -n {PLENTY}; in a unit of systemd: LimitNOFILE={PLENTY}");
    match current {
        n if n < few => Finding::wrong(CHECK, text, hint),
        n if n < PLENTY => Finding {
            hint: Some(hint),
            ..Finding::new(CHECK, Verdict::Note, text)
        },
        _ => Finding::good(CHECK, text),
    }
}

/// Nothing depends on them yet beyond ending what escaped its parent, which is done without too.
fn control_groups() -> Finding {
    const CHECK: &str = "control groups";
    let Some(folder) = cgroup::own() else {
        return Finding::note(CHECK, "no cgroup v2: processes are found by /proc");
    };
    match access(folder.join("cgroup.procs"), Access::WRITE_OK) {
        Ok(()) => Finding::good(CHECK, format!("{}: ours to divide", folder.display())),
        Err(_) => Finding::note(
            CHECK,
            format!(
                "{}: not delegated: processes are found by /proc",
                folder.display()
            ),
        ),
    }
}
