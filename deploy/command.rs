//! A command that is run to its end, such as a migration before a release or a message after it: under
//! a shim like an app, so that nothing it starts stays behind. Knows no release.

use std::fmt;
use std::path::Path;
use std::time::{Duration, Instant};

use hotctl_config::units;

use crate::logs;
use crate::process::{Exit, Launcher, Process, Spec};

/// How often it is looked what it says.
const LOOK: Duration = Duration::from_millis(250);
/// How many of its last lines a failure is told with.
const LAST_LINES: usize = 20;
/// How long it may take to end when its time is over, and what it left when it has ended.
const GRACE: Duration = Duration::from_secs(2);

/// A command that did what it should.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ran {
    /// From its start to its end.
    pub took: Duration,
}

/// A command that did not. `Display` is the reason in one line, the command first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandFailed {
    /// The reason in one line.
    pub text: String,
    /// What to do about it, if anything can be said.
    pub hint: Option<String>,
    /// The last 20 lines of its output.
    pub output: Vec<String>,
}

/// Run a command, with this very program as its shim. `progress` is told the last line of its output
/// whenever there is another. Its log should be its own: the output of a failure is the log's end. If
/// the future is dropped, the command is ended with all that it started.
///
/// # Errors
/// If it cannot be started, does not end with exit status 0, or not in time; nothing of it runs then.
pub async fn run(
    spec: Spec,
    within: Duration,
    progress: impl FnMut(&str),
) -> Result<Ran, CommandFailed> {
    run_by(&Launcher::own(), spec, within, progress).await
}

/// The same, for a command that is not needed any more once `stop` is: it is ended then, and `None` comes
/// when nothing of it runs.
///
/// # Errors
/// As [`run`].
pub async fn run_until(
    spec: Spec,
    within: Duration,
    stop: impl Future<Output = ()>,
) -> Result<Option<Ran>, CommandFailed> {
    let launcher = Launcher::own();
    let process = begin(&launcher, &spec).await?;
    let began = Instant::now();
    let exit = tokio::select! {
        exit = tokio::time::timeout(within, process.exited()) => Some(exit),
        () = stop => None,
    };
    let took = began.elapsed();
    let grace = match exit {
        Some(_) => GRACE,
        None => Duration::ZERO,
    };
    process.stop(grace).await;
    match exit {
        None => Ok(None),
        Some(exit) => judge(&spec, exit.ok(), took, within).map(Some),
    }
}

async fn begin(launcher: &Launcher, spec: &Spec) -> Result<Process, CommandFailed> {
    let started = launcher.start(spec.clone()).await;
    started.map_err(|cause| CommandFailed {
        text: cause.to_string(),
        hint: cause.hint().map(Into::into),
        output: Vec::new(),
    })
}

/// What a command came to; `exit` is none where its time was over.
fn judge(
    spec: &Spec,
    exit: Option<Exit>,
    took: Duration,
    within: Duration,
) -> Result<Ran, CommandFailed> {
    let name = spec.program.join(" ");
    let text = match exit {
        Some(Exit::Code(0)) => return Ok(Ran { took }),
        Some(exit) => format!("{name}: {exit}"),
        None => format!("{name}: not done within {}", units::show_duration(within)),
    };
    Err(CommandFailed {
        text,
        hint: None,
        output: logs::tail(&spec.log, LAST_LINES),
    })
}

pub(crate) async fn run_by(
    launcher: &Launcher,
    spec: Spec,
    within: Duration,
    mut progress: impl FnMut(&str),
) -> Result<Ran, CommandFailed> {
    let began = Instant::now();
    let process = begin(launcher, &spec).await?;
    let exit = tokio::time::timeout(within, ended(&process, &spec.log, &mut progress)).await;
    let took = began.elapsed();
    process.stop(GRACE).await;
    judge(&spec, exit.ok(), took, within)
}

/// Wait for its end, and tell what it says meanwhile.
async fn ended(process: &Process, log: &Path, progress: &mut impl FnMut(&str)) -> Exit {
    let mut said = None;
    let mut exited = std::pin::pin!(process.exited());
    loop {
        match tokio::time::timeout(LOOK, &mut exited).await {
            Ok(exit) => return exit,
            Err(_) => {
                let last = logs::tail(log, 1).pop();
                if let (true, Some(line)) = (last != said, &last) {
                    progress(line);
                }
                said = last;
            }
        }
    }
}

impl fmt::Display for CommandFailed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for CommandFailed {}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use crate::testing::{House, eventually, launcher};
    use crate::tree;

    const LONG: Duration = Duration::from_secs(20);

    async fn sh(
        house: &House,
        script: &str,
        within: Duration,
    ) -> (Result<Ran, CommandFailed>, Vec<String>) {
        let mut said = Vec::new();
        let spec = house.spec(&["sh", "-c", script]);
        let ran = run_by(&launcher(), spec, within, |line| said.push(line.to_owned())).await;
        (ran, said)
    }

    fn is_gone(pid: u32) -> bool {
        tree::stat(pid).is_none_or(|stat| stat.state == 'Z')
    }

    #[tokio::test]
    async fn a_command_is_waited_for_and_its_last_line_shown_meanwhile() {
        let house = House::new();
        let script = "echo table 1; sleep 0.7; echo table 2; sleep 0.7; echo done";
        let (ran, said) = sh(&house, script, LONG).await;
        assert!(ran.unwrap().took >= Duration::from_millis(1400));
        assert_eq!(said, ["table 1", "table 2"]);
        assert!(house.log().ends_with("done\n"));
    }

    #[tokio::test]
    async fn a_command_that_fails_is_told_with_its_output() {
        let house = House::new();
        let (ran, _) = sh(&house, "seq 1 30; echo no such table >&2; exit 3", LONG).await;
        let failed = ran.unwrap_err();
        assert!(failed.text.ends_with("exit 3: exit status 3"), "{failed}");
        assert_eq!(failed.output.len(), LAST_LINES);
        assert!(failed.output.contains(&"no such table".into()));

        let spec = house.spec(&["no-such-command"]);
        let ran = run_by(&launcher(), spec, LONG, |_| {}).await;
        let text = ran.unwrap_err().text;
        assert_eq!(text, "no-such-command: no such program in PATH");
    }

    #[tokio::test]
    async fn nothing_of_a_command_stays() {
        let house = House::new();
        let (ran, _) = sh(&house, "setsid sleep 60 & echo $! > left", LONG).await;
        ran.unwrap();
        assert!(is_gone(house.number("left").await));

        let house = House::new();
        let script = "trap '' TERM; setsid sleep 60 & echo $! > left; echo at it; wait; wait";
        let began = Instant::now();
        let (ran, _) = sh(&house, script, Duration::from_millis(300)).await;
        let failed = ran.unwrap_err();
        assert!(failed.text.ends_with("not done within 300ms"), "{failed}");
        assert_eq!(failed.output, ["at it"]);
        assert!(began.elapsed() < Duration::from_secs(10));
        assert!(is_gone(house.number("left").await));

        let house = House::new();
        let giving_up = sh(&house, "echo $$ > left; sleep 60", LONG);
        drop(tokio::time::timeout(Duration::from_millis(500), giving_up).await);
        let left = house.number("left").await;
        eventually(|| is_gone(left)).await;
    }
}
