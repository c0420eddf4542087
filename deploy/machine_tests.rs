//! The machine told as stories: a transcript holds commands, dashes and what must be true then.
//! `HOTCTL_REWRITE=1 cargo test -p hotctl-deploy transcripts` writes the states anew.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use hotctl_config::names::Percent;

use super::*;
use crate::ledger::{Ledger, Release};
use crate::why::Kind;

/// One story under way.
struct Story {
    ledger: Ledger,
    deployment: Option<Deployment>,
}

impl Story {
    fn new() -> Self {
        Self {
            ledger: Ledger::new("web".parse().unwrap()),
            deployment: None,
        }
    }

    fn obey(&mut self, line: &str) -> String {
        let mut words = line.split_whitespace();
        let word = words.next().unwrap();
        match word {
            "deploy" => {
                let mut strategy = Strategy::BlueGreen;
                let ladder = match words.next() {
                    Some("recreate") => {
                        strategy = Strategy::Recreate;
                        Ladder::blue_green(Duration::ZERO)
                    }
                    Some("canary") => Ladder(
                        [5, 25, 100]
                            .map(|weight| Step {
                                weight: Percent::try_from(weight).unwrap(),
                                hold: Duration::from_secs(10),
                            })
                            .to_vec(),
                    ),
                    Some(hold) => {
                        Ladder::blue_green(hotctl_config::units::parse_duration(hold).unwrap())
                    }
                    None => Ladder::blue_green(Duration::ZERO),
                };
                let number = self.ledger.add(Release {
                    digest: "ab".repeat(32).parse().unwrap(),
                    args: Vec::new(),
                    name: "app".into(),
                    created_ms: 0,
                    proved: false,
                    environment: None,
                });
                let order = self.ledger.order();
                let deployment = self.ledger.begin_ordered(order, number, ladder, strategy);
                self.ledger.record(&deployment);
                self.deployment = Some(deployment);
            }
            "stop" => {
                self.ledger.stop();
            }
            "retired" => {
                let first = self.ledger.retiring[0];
                self.ledger.retired(first.slot);
            }
            "crash" => {
                self.ledger.interrupted();
                self.deployment = None;
            }
            _ => {
                let event = match word {
                    "stopped" => Event::Stopped,
                    "ready" => Event::Ready,
                    "passed" => Event::Passed,
                    "promote" => Event::Promote,
                    "reverted" => Event::Reverted,
                    "exited" => Event::Failed(Why::new(Kind::Exited, "gone")),
                    "unhealthy" => Event::Failed(Why::new(Kind::NotHealthy, "sick")),
                    "cancel" => Event::Failed(Why::new(Kind::Cancelled, "cancelled")),
                    "rollback" => Event::Failed(Why::new(Kind::RolledBack, "rolled back")),
                    other => panic!("no such command: {other}"),
                };
                let deployment = self.deployment.as_mut().expect("a deployment");
                match deployment.next(event) {
                    Ok(phase) => {
                        deployment.phase = phase;
                        self.ledger.record(deployment);
                    }
                    Err(unexpected) => return format!("refused: {unexpected}\n"),
                }
            }
        }
        self.state()
    }

    fn state(&self) -> String {
        let mut out = String::new();
        if let Some(deployment) = &self.deployment {
            writeln!(out, "phase: {}", deployment.phase).unwrap();
            let duties: Vec<_> = deployment.duties().iter().map(Duty::to_string).collect();
            if !duties.is_empty() {
                writeln!(out, "duties: {}", duties.join(", ")).unwrap();
            }
        }
        writeln!(out, "traffic: {:?}", self.ledger.traffic()).unwrap();
        if !self.ledger.retiring.is_empty() {
            let names: Vec<_> = self
                .ledger
                .retiring
                .iter()
                .map(|p| format!("release {} in {}", p.release, p.slot))
                .collect();
            writeln!(out, "retiring: {}", names.join(", ")).unwrap();
        }
        out
    }
}

/// Tell the story of one transcript anew: its commands, each with the state that follows.
fn retell(text: &str) -> String {
    let mut story = Story::new();
    let mut out = String::new();
    for block in text.split("\n\n").filter(|b| !b.trim().is_empty()) {
        let (commands, _) = block.split_once("----").unwrap_or((block, ""));
        let mut said = String::new();
        for line in commands.lines().filter(|l| !l.trim().is_empty()) {
            out.push_str(line);
            out.push('\n');
            if !line.starts_with('#') {
                said = story.obey(line);
            }
        }
        if !said.is_empty() {
            write!(out, "----\n{said}").unwrap();
        }
        out.push('\n');
    }
    out
}

#[test]
fn transcripts() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata");
    let rewrite = std::env::var_os("HOTCTL_REWRITE").is_some();
    let mut count = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        let retold = retell(&text);
        count += 1;
        if rewrite {
            std::fs::write(&path, retold).unwrap();
        } else {
            assert_eq!(text, retold, "{}", path.display());
        }
    }
    assert!(count >= 5, "only {count} transcripts");
}
