//! Who steers the daemon: users and groups of the system, by number and by name. Knows the system's
//! lists of them; knows no socket and no order.

use std::fmt;

use hotctl_deploy::confine::User;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uzers::os::unix::UserExt as _;

use crate::fault::Fault;

/// A user of the system, as the kernel named them at the other end of the control socket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Who {
    /// The user id.
    pub uid: u32,
    /// The user name; the number as text where the system knows none.
    pub name: String,
}

/// By which way an order came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Via {
    /// The command line.
    Cli,
    /// Another client of the control API.
    Api,
    /// A signal to the daemon; whose is not known.
    Signal,
    /// The daemon by itself.
    Daemon,
    /// The `watch` of a service: what is watched has changed.
    Watch,
}

/// Who gave an order, and by which way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Giver {
    /// Who.
    pub who: Who,
    /// How.
    pub via: Via,
}

impl Who {
    /// The user of this number. Asks the system's list, which may be a server far away.
    pub async fn of(uid: u32) -> Self {
        let name = tokio::task::spawn_blocking(move || name_of(uid)).await;
        Self {
            uid,
            name: name.unwrap_or_else(|_| uid.to_string()),
        }
    }

    /// The user that this process runs as.
    pub fn ourselves() -> Self {
        let uid = rustix::process::geteuid().as_raw();
        Self {
            uid,
            name: name_of(uid),
        }
    }
}

impl fmt::Display for Via {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cli => "command line",
            Self::Api => "control API",
            Self::Signal => "signal",
            Self::Daemon => "by itself",
            Self::Watch => "watch",
        })
    }
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl Giver {
    /// For people: hotctl itself has no user of its own.
    pub fn said(&self) -> String {
        match self.via {
            Via::Daemon => "hotctl itself".to_owned(),
            _ => self.who.to_string(),
        }
    }

    /// Who may send the daemon a signal: it is not told who did.
    pub fn signal() -> Self {
        Self {
            who: Who::ourselves(),
            via: Via::Signal,
        }
    }

    /// The `watch` of a service.
    pub fn watch() -> Self {
        Self {
            who: Who::ourselves(),
            via: Via::Watch,
        }
    }

    /// The daemon itself.
    pub fn daemon() -> Self {
        Self {
            who: Who::ourselves(),
            via: Via::Daemon,
        }
    }
}

/// Somebody whom a process can run as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// By number.
    pub user: User,
    /// By name.
    pub name: String,
    home: String,
    shell: String,
}

impl Account {
    /// The variables that tell a program who it is.
    pub fn variables(&self) -> Vec<(String, String)> {
        let Self {
            name, home, shell, ..
        } = self;
        [
            ("USER", name),
            ("LOGNAME", name),
            ("HOME", home),
            ("SHELL", shell),
        ]
        .map(|(variable, value)| (variable.to_owned(), value.clone()))
        .into()
    }
}

/// The account of a user, in the group of that name if one is named; of our own user in that group
/// if no user is. `None` if that is who we are.
///
/// # Errors
/// If the system knows no such user or group, or we may not run anything as somebody else.
pub fn account(user: Option<&str>, group: Option<&str>) -> Result<Option<Account>, Fault> {
    if user.is_none() && group.is_none() {
        return Ok(None);
    }
    let own = rustix::process::geteuid();
    let found = match user {
        Some(name) => uzers::get_user_by_name(name).ok_or_else(|| {
            Fault::config(format!("user {name:?}: the system has no such user"))
                .hint(format!("useradd --system {name}"))
        })?,
        None => uzers::get_user_by_uid(own.as_raw()).ok_or_else(|| {
            Fault::config("group: the user that hotctl runs as has no name")
                .hint("name a `user`, too")
        })?,
    };
    let gid = match group {
        Some(name) => self::group(name).ok_or_else(|| {
            Fault::config(format!("group {name:?}: the system has no such group"))
                .hint(format!("groupadd --system {name}"))
        })?,
        None => found.primary_group_id(),
    };
    if (found.uid(), gid) == (own.as_raw(), rustix::process::getegid().as_raw()) {
        return Ok(None);
    }
    let name = found.name().to_string_lossy().into_owned();
    if !own.is_root() {
        let us = name_of(own.as_raw());
        return Err(Fault::config(format!(
            "user {name:?}: hotctl runs as {us}, and only root can start a process as another user"
        ))
        .hint("start hotctl as root, or leave `user` and `group` out"));
    }
    let groups = found.groups().unwrap_or_default();
    let mut groups: Vec<u32> = groups.iter().map(uzers::Group::gid).chain([gid]).collect();
    groups.sort_unstable();
    groups.dedup();
    Ok(Some(Account {
        user: User {
            uid: found.uid(),
            gid,
            groups,
        },
        name,
        home: found.home_dir().display().to_string(),
        shell: found.shell().display().to_string(),
    }))
}

/// The id of a group by its name; none where the system knows no such group.
pub fn group(name: &str) -> Option<u32> {
    uzers::get_group_by_name(name).map(|group| group.gid())
}

fn name_of(uid: u32) -> String {
    uzers::get_user_by_uid(uid).map_or_else(
        || uid.to_string(),
        |user| user.name().to_string_lossy().into_owned(),
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[tokio::test]
    async fn a_user_has_a_name_and_one_that_nobody_knows_has_a_number() {
        assert_eq!(Who::of(0).await.to_string(), "root");
        assert_eq!(Who::of(4_123_456_789).await.to_string(), "4123456789");
        assert_eq!(group("root"), Some(0));
        assert_eq!(group("no such group here"), None);
    }

    #[test]
    fn an_account_is_that_of_somebody_else() {
        let nobody = account(Some("no such user here"), None).unwrap_err();
        assert!(nobody.hint.is_some(), "{nobody}");
        let us = Who::ourselves().name;
        assert_eq!(account(None, None).unwrap(), None);
        let own = rustix::process::getegid().as_raw();
        let own = uzers::get_group_by_gid(own).unwrap();
        let own = own.name().to_str().unwrap();
        assert_eq!(account(Some(&us), Some(own)).unwrap(), None);
        let other = account(Some("daemon"), None);
        match rustix::process::geteuid().is_root() {
            true => assert_eq!(other.unwrap().unwrap().name, "daemon"),
            false => assert!(other.unwrap_err().to_string().contains("only root")),
        }
    }
}
