//! Proving a started process healthy: probe it from the first moment, at growing distances, until it
//! is healthy, ends, or its time is over; and show that what answers is itself.

use std::fmt;
use std::time::{Duration, Instant};

use hotctl_config::Address;
use hotctl_config::file::{Health, HealthKind, Ownership};
use hotctl_config::units;
use serde::{Deserialize, Serialize};

use crate::probe::{Answer, Cause, Miss, Stage, attempt};
use crate::process::{Exit, Process, Spec};
use crate::sockets::{self, Owner};

/// The first distance between two probes.
const FIRST: Duration = Duration::from_millis(2);
/// While nobody listens, how often it is looked where the process listens instead.
const LOOK: Duration = Duration::from_secs(1);

/// How long answers of another process are not yet believed.
const MOMENT: Duration = Duration::from_secs(1);

/// A process that has proved itself healthy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Healthy {
    /// From the call until it was proved.
    pub took: Duration,
    /// From the process's exec to the first connection that it took.
    pub listening: Option<Duration>,
    /// How many probes it took.
    pub probes: u32,
    /// What is odd all the same: a foreign process seems to answer, and `health.ownership` is `warn`.
    pub warning: Option<String>,
}

/// A process that did not prove itself healthy. `Display` is the reason in one line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unhealthy {
    /// Its class.
    pub kind: UnhealthyKind,
    /// The reason in one line.
    pub text: String,
    /// What the last probe got.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<Miss>,
    /// How the process ended; only with the kind `exited`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit: Option<Exit>,
    /// What to do about it, if anything can be said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

/// The classes of [`Unhealthy`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UnhealthyKind {
    /// The process ended.
    Exited,
    /// `start_timeout` was over.
    Timeout,
    /// `start_timeout` was over, and it listens elsewhere.
    WrongPort,
    /// What answers is not the process, and `health.ownership` is `require`.
    NotOwned,
}

/// Probe until `health.rise` probes in a row succeeded. `progress` is told what came of each probe
/// that did not, once for each new answer. The distance between two probes begins at 2 ms and grows
/// up to `health.interval`: with a tenth of the time passed while nobody listens, which costs the app
/// nothing, and by half each time once it answers. One that says itself that it is ready is heard at
/// once. `spec` is what the process was started with.
///
/// # Errors
/// Why it is not healthy: at once when the process ends, at the latest after `start_timeout`.
pub async fn prove(
    process: &Process,
    address: &Address,
    spec: &Spec,
    health: &Health,
    start_timeout: Duration,
    mut progress: impl FnMut(&str),
) -> Result<Healthy, Unhealthy> {
    let mut proof = Proof {
        process,
        address,
        spec,
        health,
        began: Instant::now(),
        start_timeout,
        probes: 0,
        listening: None,
        last: None,
        elsewhere: Vec::new(),
        looked: None,
        foreign: None,
        was_foreign: false,
        said: String::new(),
    };
    let exited = process.exited();
    let exit = tokio::select! {
        // An exit first: the probe that failed because of it would tell less.
        biased;
        exit = exited => exit,
        done = proof.run(&mut progress) => return done,
    };
    Err(Unhealthy {
        kind: UnhealthyKind::Exited,
        text: format!("ended before it was healthy: {exit}"),
        last: proof.last,
        exit: Some(exit),
        hint: None,
    })
}

struct Proof<'a> {
    process: &'a Process,
    address: &'a Address,
    spec: &'a Spec,
    health: &'a Health,
    began: Instant,
    start_timeout: Duration,
    probes: u32,
    listening: Option<Duration>,
    last: Option<Miss>,
    /// Where the process listens, if not at its address.
    elsewhere: Vec<Address>,
    looked: Option<Instant>,
    /// Since when another process answers, or nobody knows which.
    foreign: Option<Instant>,
    /// Once it was another process that answered.
    was_foreign: bool,
    said: String,
}

/// What was shown of whose the answers are.
enum Shown {
    /// Enough, perhaps with a warning.
    Enough(Option<String>),
    /// Not enough, for this reason; it may change.
    NotYet(String),
    /// Not enough, and it must be.
    Never(String),
}

impl Proof<'_> {
    async fn run(&mut self, progress: &mut impl FnMut(&str)) -> Result<Healthy, Unhealthy> {
        let mut risen = 0;
        let mut answered = FIRST;
        loop {
            let left = self.left();
            if left.is_zero() {
                return Err(self.give_up());
            }
            let began = Instant::now();
            let within = self.health.timeout.min(left);
            let (result, connected) = self.attempt(within).await;
            self.probes += 1;
            if let (None, Some(connected)) = (self.listening, connected) {
                let at = began + connected;
                self.listening = Some(at.saturating_duration_since(self.process.exec_at()));
            }
            let refused = match result {
                Ok(_) => {
                    self.last = None;
                    risen += 1;
                    if risen >= self.health.rise {
                        match self.ownership() {
                            Shown::Enough(warning) => {
                                return Ok(Healthy {
                                    took: self.began.elapsed(),
                                    listening: self.listening,
                                    probes: self.probes,
                                    warning,
                                });
                            }
                            Shown::NotYet(text) => self.say(text, progress),
                            Shown::Never(text) => {
                                return Err(Unhealthy {
                                    kind: UnhealthyKind::NotOwned,
                                    text,
                                    last: None,
                                    exit: None,
                                    hint: Some(r#"health.ownership = "warn" lets it pass"#.into()),
                                });
                            }
                        }
                    }
                    false
                }
                Err(miss) => {
                    risen = 0;
                    let refused = miss.cause == Cause::Refused;
                    let nobody = refused || self.waits_in_vain(&miss.cause);
                    self.last = Some(miss);
                    self.look(nobody);
                    self.say(self.describe(), progress);
                    refused
                }
            };
            let waits = matches!(
                self.health.kind,
                HealthKind::Notify | HealthKind::Command | HealthKind::Process
            );
            // A command costs more than a connection that is refused.
            let pause = if refused && !waits {
                self.began.elapsed() / 10
            } else {
                answered = answered.mul_f64(1.5).min(self.health.interval);
                answered
            };
            let pause = pause.max(FIRST).min(self.health.interval).min(self.left());
            self.rest(pause).await;
        }
    }

    async fn attempt(&self, within: Duration) -> (Result<Answer, Miss>, Option<Duration>) {
        attempt(self.process, self.address, self.spec, self.health, within).await
    }

    /// Until the next probe: for a while, or until the process says something.
    async fn rest(&self, pause: Duration) {
        match self.health.kind {
            HealthKind::Notify => {
                let known = self.process.notice();
                // Had it said more meanwhile, `known` would have it, and the last probe not.
                let heard = match &self.last {
                    Some(miss) => miss.cause == Cause::NotReady(known.status.clone()),
                    None => true,
                };
                if heard && !known.ready {
                    let left = self.left();
                    drop(tokio::time::timeout(left, self.process.noticed(&known)).await);
                }
            }
            _ => tokio::time::sleep(pause).await,
        }
    }

    /// Whether it was not found out that nobody answers only because the socket was there before
    /// the process.
    fn waits_in_vain(&self, cause: &Cause) -> bool {
        let silent = matches!(
            cause,
            Cause::NotAccepted(_)
                | Cause::Timeout {
                    stage: Stage::Header,
                    ..
                }
        );
        self.spec.listener.is_some() && silent
    }

    fn left(&self) -> Duration {
        self.start_timeout.saturating_sub(self.began.elapsed())
    }

    /// Now and then, see whether it listens elsewhere, if nobody answers where it should.
    fn look(&mut self, nobody: bool) {
        if !nobody {
            self.elsewhere.clear();
            return;
        }
        let now = Instant::now();
        let last = *self.looked.get_or_insert(self.began);
        if now.duration_since(last) >= LOOK || self.left().is_zero() {
            self.looked = Some(now);
            self.elsewhere = sockets::listening(&self.process.pids());
            let here = self.address;
            let ports_only = here.port().is_some();
            // A unix socket beside a port is something of its own, as a rule; a debugger may be there
            // before the app is.
            self.elsewhere.retain(|there| match there.port() {
                Some(port) => there != here && !self.spec.ports.contains(&port),
                None => there != here && !ports_only,
            });
        }
    }

    /// Whether what answers is the process. If it is another, the process gets a moment: most
    /// likely its port was taken, and it is just about to say so and end.
    fn ownership(&mut self) -> Shown {
        let required = match self.health.ownership {
            _ if matches!(self.health.kind, HealthKind::Notify | HealthKind::Process)
                || *self.address == Address::Nowhere =>
            {
                return Shown::Enough(None);
            }
            Ownership::Off => return Shown::Enough(None),
            Ownership::Warn => false,
            Ownership::Require => true,
        };
        let owner = sockets::owner(&self.process.pids(), self.address);
        let text = match owner {
            Owner::Ours => return Shown::Enough(None),
            Owner::Foreign => format!("{} is answered by another process", self.address),
            Owner::Unknown => format!("it cannot be told who answers at {}", self.address),
        };
        self.was_foreign |= owner == Owner::Foreign;
        let since = *self.foreign.get_or_insert_with(Instant::now);
        let early = since.elapsed() < MOMENT.min(self.start_timeout / 2);
        match required {
            // Whoever was another is not trusted for being unknown a moment later.
            _ if early && (required || self.was_foreign) => Shown::NotYet(text),
            true => Shown::Never(text),
            false => Shown::Enough(Some(text)),
        }
    }

    fn say(&mut self, text: String, progress: &mut impl FnMut(&str)) {
        if text != self.said {
            progress(&text);
            self.said = text;
        }
    }

    fn describe(&self) -> String {
        let last = self.last.as_ref().map(ToString::to_string);
        match (last, self.wrong_port()) {
            (Some(last), Some(wrong)) => format!("{last}; {wrong}"),
            (last, wrong) => last.or(wrong).unwrap_or_default(),
        }
    }

    fn wrong_port(&self) -> Option<String> {
        let (port, there) = (self.address.port(), &self.elsewhere);
        let all = |show: &dyn Fn(&Address) -> String| {
            let mut shown: Vec<String> = there.iter().map(show).collect();
            shown.dedup();
            shown.join(", ")
        };
        let whole = all(&ToString::to_string);
        let here = self.address;
        match port {
            _ if there.is_empty() => None,
            _ if self.spec.listener.is_some() => Some(format!(
                "listens on {whole}, not on the socket that it inherits"
            )),
            None => Some(format!("listens on {whole}, not on SOCKET {}", path(here))),
            // At the right port, but not at an address of ours: as wrong, and another fault.
            Some(_) if there.iter().any(|at| at.port() == port) => {
                Some(format!("listens on {whole}, not on {here}"))
            }
            Some(port) => {
                let ports = all(&|at| at.port().map_or(String::new(), |port| port.to_string()));
                Some(format!("listens on {ports}, not on PORT {port}"))
            }
        }
    }

    fn wrong_port_hint(&self) -> String {
        let hint = match self.address {
            Address::Nowhere => "leave out http = false for what takes requests",
            _ if self.spec.listener.is_some() => {
                r#"let the app take the socket that is open as descriptor 3 (LISTEN_FDS, sd_listen_fds(3)), or set address = "port""#
            }
            Address::Inet(_) => {
                "let the app listen on the port in the environment variable PORT, or write {port} in its command"
            }
            Address::Unix(_) => {
                "let the app listen on the unix socket in the environment variable SOCKET, or write {socket} in its command"
            }
        };
        // What listens at one port of its own may never have heard of PORT.
        let mut ports: Vec<u16> = self.elsewhere.iter().filter_map(Address::port).collect();
        ports.dedup();
        match (ports.as_slice(), self.address.port()) {
            ([port], Some(ours)) if *port != ours && self.spec.listener.is_none() => {
                format!("{hint}; if it ignores both\n  try: address = \"fixed:{port}\"")
            }
            _ => hint.to_owned(),
        }
    }

    fn give_up(&mut self) -> Unhealthy {
        let nobody = self
            .last
            .as_ref()
            .is_some_and(|miss| miss.cause == Cause::Refused || self.waits_in_vain(&miss.cause));
        self.look(nobody);
        let wrong = self.wrong_port();
        let hint = match &wrong {
            Some(_) => Some(self.wrong_port_hint()),
            None => self.last.as_ref().and_then(Miss::hint),
        };
        let why = match self.describe() {
            why if why.is_empty() => "too few probes in a row succeeded".into(),
            why => why,
        };
        Unhealthy {
            kind: match wrong {
                Some(_) => UnhealthyKind::WrongPort,
                None => UnhealthyKind::Timeout,
            },
            text: format!(
                "not healthy within {}: {why}",
                units::show_duration(self.start_timeout)
            ),
            last: self.last.clone(),
            exit: None,
            hint,
        }
    }
}

fn path(address: &Address) -> String {
    match address {
        Address::Inet(address) => address.to_string(),
        Address::Unix(path) => path.display().to_string(),
        Address::Nowhere => address.to_string(),
    }
}

impl fmt::Display for Unhealthy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Unhealthy {}

#[cfg(test)]
#[path = "prove_tests.rs"]
mod tests;
