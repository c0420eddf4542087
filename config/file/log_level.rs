//! How a service's own log level is changed: its `[service.NAME.log_level]` table.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::Invalid;
use crate::form;
use crate::suggest::listed;

/// How the log level of what runs of a service is changed, by `hotctl log-level SERVICE LEVEL`: the
/// `[service.NAME.log_level]` table. One of `signal` and `request`; by default none, and the command is
/// refused. It goes to each process of the live release, and of a candidate that is up. Processes that
/// are started later begin with what they begin with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LevelChange {
    /// A signal to the app's own process: `"USR1"`, `"USR2"`, `"HUP"`, `"WINCH"`, `"TTIN"` or
    /// `"TTOU"`. It names no level: what it does is the app's own. Not sent to a process that does
    /// nothing about it, which most signals would end. Default none.
    pub signal: Option<LevelSignal>,
    /// Method and path of a request to the process's own address, in which `{level}` becomes the level:
    /// `"PUT /loglevel?level={level}"`. An answer of 200 to 299 is good. Default none.
    pub request: Option<String>,
    /// Body of the request, in which `{level}` becomes the level. Default: it has none.
    pub body: Option<String>,
    /// `Content-Type` of the body, such as `"application/json"`. Default: it has none.
    pub content_type: Option<String>,
    /// How long the request to one process may take, its answer included. Above 0. Default `"5s"`.
    #[serde(with = "form::duration")]
    pub timeout: Duration,
}

impl Default for LevelChange {
    fn default() -> Self {
        Self {
            signal: None,
            request: None,
            body: None,
            content_type: None,
            timeout: Duration::from_secs(5),
        }
    }
}

/// A signal that can change the log level of an app. None of those that end a process for good, or that
/// hotctl sends itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LevelSignal {
    /// SIGHUP.
    Hup,
    /// SIGUSR1.
    Usr1,
    /// SIGUSR2.
    Usr2,
    /// SIGWINCH.
    Winch,
    /// SIGTTIN.
    Ttin,
    /// SIGTTOU.
    Ttou,
}

impl LevelSignal {
    const ALL: [(Self, &str); 6] = [
        (Self::Usr1, "USR1"),
        (Self::Usr2, "USR2"),
        (Self::Hup, "HUP"),
        (Self::Winch, "WINCH"),
        (Self::Ttin, "TTIN"),
        (Self::Ttou, "TTOU"),
    ];
}

impl FromStr for LevelSignal {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let known = |name: &str| Self::ALL.into_iter().find(|(_, it)| *it == name);
        if let Some((signal, _)) = known(text) {
            return Ok(signal);
        }
        let upper = text.to_ascii_uppercase();
        let bare = upper.strip_prefix("SIG").unwrap_or(&upper);
        if let Some((_, name)) = known(bare) {
            return Err(Invalid::new(
                "the name of a signal is written without SIG, in capitals",
                format!("{name:?}"),
            ));
        }
        let all: Vec<&str> = Self::ALL.iter().map(|(_, name)| *name).collect();
        let reason = match bare {
            "TERM" | "KILL" | "STOP" | "CONT" | "INT" | "QUIT" | "ABRT" => {
                "ends or stops a process, or lets it go on"
            }
            _ => "not a signal that can change a level",
        };
        Err(Invalid::new(reason, listed(&all)))
    }
}

impl fmt::Display for LevelSignal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = Self::ALL.iter().find(|(signal, _)| signal == self);
        f.write_str(name.map_or("", |(_, name)| name))
    }
}

form::as_text!(LevelSignal, "the name of a signal, such as \"USR1\"");
