//! Who steers the daemon: users and groups of the system, by number and by name. Knows the system's
//! lists of them; knows no socket and no order.

use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

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
        })
    }
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl Giver {
    /// Who may send the daemon a signal: it is not told who did.
    pub fn signal() -> Self {
        Self {
            who: Who::ourselves(),
            via: Via::Signal,
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
}
