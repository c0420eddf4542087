//! The driver against scripted hands, in paused time: told to the end, spoken to in each phase, and
//! killed at every step and resumed from what was recorded.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::time::Duration;

use hotctl_config::file::Strategy;
use hotctl_config::names::{Digest, Percent};

use super::*;
use crate::ledger::{Ledger, Release, Traffic};
use crate::machine::{Ladder, Placement};

/// A world of values: what is written, what runs, who gets requests.
struct World {
    state: Mutex<State>,
    /// What the candidate does when it is started.
    candidate: Candidate,
    /// The disk refuses writes of this phase.
    disk_fails_at: Option<&'static str>,
}

struct State {
    written: Ledger,
    running: BTreeSet<Placement>,
    serving: Option<Placement>,
    told: Vec<String>,
    /// Steps until the world stands still for ever; none = never.
    left: Option<u32>,
}

#[derive(Clone, Copy, PartialEq)]
enum Candidate {
    Healthy,
    Sick,
    DiesAfterTheFlip,
}

impl World {
    fn new(candidate: Candidate, left: Option<u32>) -> Arc<Self> {
        let mut written = Ledger::new("web".parse().unwrap());
        let number = written.add(release());
        let mut first = written.begin(number, Ladder::blue_green(Duration::ZERO));
        first.phase = Phase::Done;
        written.record(&first);
        Arc::new(Self {
            state: Mutex::new(State {
                running: BTreeSet::from([first.to]),
                serving: Some(first.to),
                written,
                told: Vec::new(),
                left,
            }),
            candidate,
            disk_fails_at: None,
        })
    }

    fn begin(&self, hold: Duration) -> Deployment {
        self.begin_by(Strategy::BlueGreen, hold)
    }

    fn begin_by(&self, strategy: Strategy, hold: Duration) -> Deployment {
        let mut state = self.state.lock().unwrap();
        let release = state.written.add(release());
        let number = state.written.order();
        let ladder = Ladder::blue_green(hold);
        state
            .written
            .begin_ordered(number, release, ladder, strategy)
    }

    /// One moment at which everything may end.
    async fn moment(&self) {
        let dead = match &mut self.state.lock().unwrap().left {
            Some(0) => true,
            Some(left) => {
                *left -= 1;
                false
            }
            None => false,
        };
        if dead {
            std::future::pending::<()>().await;
        }
        tokio::task::yield_now().await;
    }

    fn told(&self) -> Vec<String> {
        self.state.lock().unwrap().told.clone()
    }
}

fn release() -> Release {
    Release {
        digest: "00".repeat(32).parse::<Digest>().unwrap(),
        args: Vec::new(),
        name: "app".into(),
        created_ms: 0,
        proved: false,
        environment: None,
    }
}

impl Hands for World {
    async fn record(&self, deployment: &Deployment) -> io::Result<()> {
        self.moment().await;
        if self.disk_fails_at == Some(deployment.phase.to_string().as_str()) {
            return Err(io::Error::other("no space left on device"));
        }
        {
            let mut state = self.state.lock().unwrap();
            state.written.record(deployment);
            let told = format!("record {}", deployment.phase);
            state.told.push(told);
        }
        self.moment().await;
        Ok(())
    }

    async fn perform(&self, duty: Duty) -> Option<Event> {
        self.moment().await;
        self.state.lock().unwrap().told.push(duty.to_string());
        let answer = match duty {
            Duty::Park => {
                self.state.lock().unwrap().serving = None;
                None
            }
            Duty::Stop(at) => {
                tokio::time::sleep(Duration::from_secs(1)).await;
                let mut state = self.state.lock().unwrap();
                assert_eq!(state.serving, None, "it is ended while it has traffic");
                state.running.remove(&at);
                Some(Event::Stopped)
            }
            Duty::Restore(at) => {
                // As the real one: whatever runs in its place goes first, and it may run still.
                self.state.lock().unwrap().running.clear();
                self.moment().await;
                tokio::time::sleep(Duration::from_secs(1)).await;
                self.state.lock().unwrap().running.insert(at);
                None
            }
            Duty::Start(at) => {
                {
                    let mut state = self.state.lock().unwrap();
                    let replaced = state.written.deployment.as_ref();
                    if let Some(old) = replaced.and_then(Deployment::replaced) {
                        assert!(!state.running.contains(&old), "both run");
                    }
                    state.running.insert(at);
                }
                tokio::time::sleep(Duration::from_secs(1)).await;
                Some(match self.candidate {
                    Candidate::Sick => Event::Failed(Why::new(Kind::NotHealthy, "sick")),
                    Candidate::Healthy | Candidate::DiesAfterTheFlip => Event::Ready,
                })
            }
            Duty::Split(_) | Duty::Revert => {
                let mut state = self.state.lock().unwrap();
                match state.written.traffic() {
                    Traffic::All(at) => {
                        assert!(state.running.contains(&at), "flipped to what does not run");
                        state.serving = Some(at);
                    }
                    other => panic!("emptied: {other:?}"),
                }
                (duty == Duty::Revert).then_some(Event::Reverted)
            }
            Duty::Judge(_) if self.candidate == Candidate::DiesAfterTheFlip => {
                Some(Event::Failed(Why::new(Kind::Exited, "exit status 1")))
            }
            Duty::Judge(hold) => {
                tokio::time::sleep(hold).await;
                Some(Event::Passed)
            }
        };
        self.moment().await;
        answer
    }
}

fn no_orders() -> mpsc::Receiver<Event> {
    mpsc::channel(1).1
}

#[tokio::test(start_paused = true)]
async fn each_phase_is_written_before_its_duties_are_done() {
    let world = World::new(Candidate::Healthy, None);
    let deployment = world.begin(Duration::from_secs(60));
    let ended = drive(deployment, world.clone(), no_orders()).await;
    assert_eq!(ended.phase, Phase::Done);
    assert_eq!(
        world.told(),
        [
            "record starting",
            "start release 2 in slot 2",
            "record step 0",
            "split 100%",
            "judge 1m",
            "record done"
        ]
    );
    assert_eq!(world.state.lock().unwrap().serving, Some(ended.to));
}

#[tokio::test(start_paused = true)]
async fn a_sick_candidate_never_gets_a_request() {
    let world = World::new(Candidate::Sick, None);
    let deployment = world.begin(Duration::ZERO);
    let from = deployment.from;
    let ended = drive(deployment, world.clone(), no_orders()).await;
    assert!(matches!(ended.phase, Phase::Failed(why) if why.kind == Kind::NotHealthy));
    assert_eq!(world.state.lock().unwrap().serving, from);
    assert!(!world.told().iter().any(|line| line.starts_with("split")));
}

#[tokio::test(start_paused = true)]
async fn a_candidate_that_dies_while_the_old_one_is_warm_is_flipped_back() {
    let world = World::new(Candidate::DiesAfterTheFlip, None);
    let deployment = world.begin(Duration::from_secs(60));
    let from = deployment.from;
    let ended = drive(deployment, world.clone(), no_orders()).await;
    assert!(matches!(ended.phase, Phase::Failed(_)));
    assert_eq!(world.state.lock().unwrap().serving, from);
}

#[tokio::test(start_paused = true)]
async fn an_order_ends_the_phase_and_drops_its_duties() {
    let world = World::new(Candidate::Healthy, None);
    let deployment = world.begin(Duration::from_secs(3600));
    let (tell, orders) = mpsc::channel(1);
    let began = tokio::time::Instant::now();
    let driver = tokio::spawn(drive(deployment, world.clone(), orders));
    while !world.told().iter().any(|line| line.starts_with("judge")) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    tell.send(Event::Promote).await.unwrap();
    assert_eq!(driver.await.unwrap().phase, Phase::Done);
    assert!(began.elapsed() < Duration::from_secs(10));
}

#[tokio::test(start_paused = true)]
async fn an_order_that_means_nothing_does_not_disturb_the_duties() {
    let world = World::new(Candidate::Healthy, None);
    let deployment = world.begin(Duration::ZERO);
    let (tell, orders) = mpsc::channel(4);
    tell.send(Event::Promote).await.unwrap();
    tell.send(Event::Reverted).await.unwrap();
    let ended = drive(deployment, world.clone(), orders).await;
    assert_eq!(ended.phase, Phase::Done);
    let starts = world
        .told()
        .iter()
        .filter(|l| l.starts_with("start"))
        .count();
    assert_eq!(starts, 1);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_written_does_not_go_forward_but_goes_back() {
    for (phase, flips) in [("starting", false), ("step 0", false), ("done", true)] {
        let mut world = World::new(Candidate::Healthy, None);
        Arc::get_mut(&mut world).unwrap().disk_fails_at = Some(phase);
        let deployment = world.begin(Duration::ZERO);
        let (from, to) = (deployment.from, deployment.to);
        let ended = drive(deployment, world.clone(), no_orders()).await;
        let serving = world.state.lock().unwrap().serving;
        if flips {
            assert_eq!(ended.phase, Phase::Done);
            assert_eq!(serving, Some(to));
        } else {
            assert!(matches!(ended.phase, Phase::Failed(why) if why.kind == Kind::NotRecorded));
            assert_eq!(serving, from);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn killed_at_every_step_and_resumed_it_still_ends_well() {
    let candidates = [
        Candidate::Healthy,
        Candidate::Sick,
        Candidate::DiesAfterTheFlip,
    ];
    let both = [Strategy::BlueGreen, Strategy::Recreate];
    let all = both.map(|strategy| candidates.map(|candidate| (strategy, candidate)));
    for (strategy, candidate) in all.into_iter().flatten() {
        let mut killed = 0;
        for step in 0.. {
            let world = World::new(candidate, Some(step));
            let deployment = world.begin_by(strategy, Duration::from_secs(60));
            let (from, to) = (deployment.from.unwrap(), deployment.to);
            let first = drive(deployment.clone(), world.clone(), no_orders());
            let ended = match tokio::time::timeout(Duration::from_secs(3600), first).await {
                Ok(ended) => ended,
                Err(_) => {
                    killed += 1;
                    world.state.lock().unwrap().left = None;
                    // What the ledger says is where it goes on; before the first record there is
                    // nothing to resume.
                    let recorded = world.state.lock().unwrap().written.deployment.clone();
                    match recorded {
                        Some(recorded) => drive(recorded, world.clone(), no_orders()).await,
                        None => {
                            let state = world.state.lock().unwrap();
                            let live = state.written.live.unwrap();
                            assert_eq!(state.serving, Some(live), "step {step}");
                            continue;
                        }
                    }
                }
            };
            let state = world.state.lock().unwrap();
            let expected = if candidate == Candidate::Healthy {
                to
            } else {
                from
            };
            assert!(ended.phase.is_end());
            assert!(state.running.contains(&expected), "step {step}");
            assert_eq!(
                state.serving,
                Some(expected),
                "step {step}: {:?}",
                state.told
            );
            assert_eq!(state.written.live, Some(expected), "step {step}");
            assert_eq!(state.written.traffic(), Traffic::All(expected));
            if state.left.is_some() {
                break;
            }
        }
        assert!(killed >= 10, "only {killed} points");
    }
}

#[tokio::test(start_paused = true)]
async fn where_the_old_one_goes_first_each_step_is_written_before_it_is_done() {
    let told = |candidate| async move {
        let world = World::new(candidate, None);
        let deployment = world.begin_by(Strategy::Recreate, Duration::ZERO);
        let ended = drive(deployment, world.clone(), no_orders()).await;
        let state = world.state.lock().unwrap();
        let expected = match candidate {
            Candidate::Healthy => ended.to,
            _ => ended.from.unwrap(),
        };
        assert_eq!(state.serving, Some(expected));
        state.told.clone()
    };
    assert_eq!(
        told(Candidate::Healthy).await,
        [
            "record stopping",
            "park",
            "stop release 1 in slot 1",
            "record starting",
            "start release 2 in slot 2",
            "record step 0",
            "split 100%",
            "judge 0s",
            "record done"
        ]
    );
    assert_eq!(
        told(Candidate::Sick).await[4..],
        [
            "start release 2 in slot 2",
            "record reverting (not_healthy)",
            "restore release 1 in slot 1",
            "revert",
            "record failed (not_healthy)"
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn a_cancel_at_any_moment_of_a_recreation_brings_the_old_one_back() {
    for wait in (0..25).map(|tenths| Duration::from_millis(100 * tenths)) {
        let world = World::new(Candidate::Healthy, None);
        let deployment = world.begin_by(Strategy::Recreate, Duration::from_secs(60));
        let from = deployment.from;
        let (tell, orders) = mpsc::channel(1);
        let driver = tokio::spawn(drive(deployment, world.clone(), orders));
        tokio::time::sleep(wait).await;
        let why = Why::new(Kind::Cancelled, "cancelled");
        tell.send(Event::Failed(why)).await.unwrap();
        let ended = driver.await.unwrap();
        assert!(matches!(ended.phase, Phase::Failed(_)), "{wait:?}");
        let state = world.state.lock().unwrap();
        assert_eq!(
            (state.serving, state.written.live),
            (from, from),
            "{wait:?}"
        );
    }
}

#[test]
fn the_weight_of_a_phase_is_what_its_duties_publish() {
    let ladder = Ladder::blue_green(Duration::ZERO);
    let deployment = World::new(Candidate::Healthy, None).begin(Duration::ZERO);
    assert_eq!(deployment.weight(), Percent::ZERO);
    let flipped = Deployment {
        phase: Phase::Step(0),
        ladder,
        ..deployment
    };
    assert_eq!(flipped.weight(), Percent::ALL);
}
