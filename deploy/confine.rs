//! As whom an app runs, and how much it may take of the machine. Plain data, and the calls that make it
//! true between `fork` and `exec`; knows no configuration.

use std::fs::File;
use std::io;
use std::path::PathBuf;

use rustix::process::{Gid, Resource, Rlimit, Uid};
use serde::{Deserialize, Serialize};

use crate::cgroup::Leaf;
use crate::refused::Refused;

/// What holds for an app and for all that it starts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Confines {
    /// As whom it runs; `None`: as the daemon does.
    pub user: Option<User>,
    /// How much each of its processes may take.
    pub limits: Limits,
    /// What the path of its cgroup begins with, within a folder of [`crate::cgroup::apps`]: a dot and
    /// the number of its shim follow. `None`: it stays in the daemon's.
    pub cgroup: Option<PathBuf>,
}

/// A user of the system, by number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// The user id.
    pub uid: u32,
    /// The group id.
    pub gid: u32,
    /// Further groups.
    pub groups: Vec<u32>,
}

/// Limits of resources (setrlimit(2)), soft and hard alike. `None`: as the daemon's.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Limits {
    /// Descriptors of a process.
    pub open_files: Option<u64>,
    /// Processes and threads of the user that it runs as.
    pub processes: Option<u64>,
    /// Bytes of a core dump.
    pub core_size: Option<u64>,
    /// Bytes that a process may keep from being swapped out.
    pub locked_memory: Option<u64>,
}

/// All of it, so far prepared that only system calls are left.
#[derive(Debug)]
pub(crate) struct Prepared {
    leaf: Option<File>,
    limits: Vec<(Resource, Rlimit)>,
    user: Option<(Uid, Gid, Vec<Gid>)>,
}

impl Confines {
    /// # Errors
    /// If the system would not let us, in words that it does not have.
    pub(crate) fn prepare(&self, leaf: Option<&Leaf>) -> Result<Prepared, Refused> {
        let may_all = rustix::process::geteuid().is_root();
        if self.user.is_some() && !may_all {
            return Err(
                Refused::new("only root can start a process as another user")
                    .hint("start hotctl as root, or leave `user` and `group` out"),
            );
        }
        let mut limits = Vec::new();
        for (name, resource, value) in self.limits.all() {
            let Some(value) = value else { continue };
            let most = rustix::process::getrlimit(resource).maximum;
            if let Some(most) = most.filter(|most| value > *most && !may_all) {
                return Err(Refused::new(format!(
                    "limits.{name}: {value} is above what hotctl itself may have, {most}"
                ))
                .hint("a smaller one, or raise the hard limit of hotctl (ulimit -H, or Limit… in its unit)"));
            }
            limits.push((
                resource,
                Rlimit {
                    current: Some(value),
                    maximum: Some(value),
                },
            ));
        }
        let user = self.user.as_ref().map(|user| {
            let groups = user.groups.iter().map(|gid| Gid::from_raw(*gid));
            (
                Uid::from_raw(user.uid),
                Gid::from_raw(user.gid),
                groups.collect(),
            )
        });
        let leaf = leaf
            .map(Leaf::entry)
            .transpose()
            .map_err(|cause| Refused::new(format!("its cgroup cannot be entered: {cause}")))?;
        Ok(Prepared { leaf, limits, user })
    }
}

impl Limits {
    fn all(&self) -> [(&'static str, Resource, Option<u64>); 4] {
        [
            ("open_files", Resource::Nofile, self.open_files),
            ("processes", Resource::Nproc, self.processes),
            ("core_size", Resource::Core, self.core_size),
            ("locked_memory", Resource::Memlock, self.locked_memory),
        ]
    }
}

impl Prepared {
    /// Make it true for the calling process, which has one thread. Makes system calls only. Groups
    /// and limits go first: who has become another user may not any more.
    pub(crate) fn apply(&self) -> io::Result<()> {
        if let Some(leaf) = &self.leaf {
            // 0 is whoever writes (cgroups(7)).
            rustix::io::write(leaf, b"0")?;
        }
        for (resource, limit) in &self.limits {
            rustix::process::setrlimit(*resource, *limit)?;
        }
        if let Some((uid, gid, groups)) = &self.user {
            rustix::thread::set_thread_groups(groups)?;
            rustix::thread::set_thread_gid(*gid)?;
            rustix::thread::set_thread_uid(*uid)?;
        }
        Ok(())
    }
}
