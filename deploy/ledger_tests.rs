//! A search over every order of events: whatever happens, a deployment ends, and it never leaves a
//! service that had a live release without one.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use hotctl_config::names::{Digest, Percent};

use super::*;
use crate::machine::{Duty, Event, Ladder};

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

fn with_live() -> Ledger {
    let mut ledger = Ledger::new("web".parse().unwrap());
    let number = ledger.add(release());
    let mut first = ledger.begin(number, Ladder::blue_green(Duration::ZERO));
    first.phase = Phase::Done;
    ledger.record(&first);
    ledger
}

fn begin(ledger: &mut Ledger, release: u32, ladder: Ladder, strategy: Strategy) -> Deployment {
    let number = ledger.order();
    ledger.begin_ordered(number, release, ladder, strategy)
}

fn canary() -> Ladder {
    let steps = [5, 25, 100]
        .map(|weight| format!(r#"{{"weight":{weight},"hold":{{"secs":1,"nanos":0}}}}"#));
    serde_json::from_str(&format!("[{}]", steps.join(","))).unwrap()
}

fn every_event() -> Vec<Event> {
    vec![
        Event::Stopped,
        Event::Ready,
        Event::Passed,
        Event::Failed(Why::new(Kind::Exited, "gone")),
        Event::Failed(Why::new(Kind::Cancelled, "cancelled")),
        Event::Failed(Why::new(Kind::RolledBack, "rolled back")),
        Event::Promote,
        Event::Reverted,
    ]
}

/// What the duties of a phase may answer.
fn answers(deployment: &Deployment) -> Vec<Event> {
    deployment
        .duties()
        .iter()
        .flat_map(|duty| match duty {
            Duty::Park | Duty::Restore(_) => vec![],
            Duty::Stop(_) => vec![
                Event::Stopped,
                Event::Failed(Why::new(Kind::NoRelease, "its files are gone")),
            ],
            Duty::Start(_) => vec![
                Event::Ready,
                Event::Failed(Why::new(Kind::NotHealthy, "sick")),
            ],
            Duty::Split(_) => vec![],
            Duty::Judge(_) => vec![Event::Passed, Event::Failed(Why::new(Kind::Exited, "gone"))],
            Duty::Revert => vec![Event::Reverted],
        })
        .collect()
}

/// The longest way to an end from here, by any event; panics on a circle.
fn longest(
    deployment: &Deployment,
    seen: &mut BTreeMap<String, usize>,
    path: &mut BTreeSet<String>,
) -> usize {
    let key = deployment.phase.to_string();
    if deployment.phase.is_end() {
        return 0;
    }
    if let Some(known) = seen.get(&key) {
        return *known;
    }
    assert!(path.insert(key.clone()), "a circle through {key}");
    let mut length = 0;
    for event in every_event() {
        if let Ok(phase) = deployment.next(event) {
            let next = Deployment {
                phase,
                ..deployment.clone()
            };
            length = length.max(1 + longest(&next, seen, path));
        }
    }
    path.remove(&key);
    seen.insert(key, length);
    length
}

#[test]
fn every_path_of_events_ends() {
    let plain = Ladder::blue_green(Duration::from_secs(60));
    for (ladder, strategy, more) in [
        (plain.clone(), Strategy::BlueGreen, 2),
        (canary(), Strategy::BlueGreen, 2),
        (plain, Strategy::Recreate, 3),
    ] {
        let deployment = begin(&mut with_live(), 1, ladder.clone(), strategy);
        let steps = longest(&deployment, &mut BTreeMap::new(), &mut BTreeSet::new());
        assert_eq!(steps, more + ladder.steps().len(), "{ladder:?}");
    }
}

#[test]
fn every_phase_that_is_no_end_has_a_duty_whose_every_answer_it_understands() {
    let recreate = Ladder::blue_green(Duration::ZERO);
    let mut open = VecDeque::from([
        with_live().begin(1, canary()),
        begin(&mut with_live(), 1, recreate.clone(), Strategy::Recreate),
        // With nobody to replace.
        begin(
            &mut Ledger::new("web".parse().unwrap()),
            1,
            recreate,
            Strategy::Recreate,
        ),
    ]);
    let mut seen = BTreeSet::new();
    while let Some(deployment) = open.pop_front() {
        let key = format!("{} {:?}", deployment.phase, deployment.replaced());
        if deployment.phase.is_end() || !seen.insert(key) {
            continue;
        }
        let answers = answers(&deployment);
        assert!(!answers.is_empty(), "nothing ends {}", deployment.phase);
        for event in answers {
            let phase = deployment.next(event).unwrap();
            open.push_back(Deployment {
                phase,
                ..deployment.clone()
            });
        }
    }
    assert!(seen.len() >= 9, "{seen:?}");
}

/// Follow every order of events from `ledger`, and look at the traffic at each point.
fn walk(ledger: &Ledger, ladder: Ladder, strategy: Strategy, look: impl Fn(&Ledger)) -> usize {
    let mut ledger = ledger.clone();
    let number = ledger.add(release());
    let deployment = begin(&mut ledger, number, ladder, strategy);
    let mut open = vec![(ledger, deployment)];
    let mut points = 0;
    while let Some((mut ledger, deployment)) = open.pop() {
        ledger.record(&deployment);
        points += 1;
        look(&ledger);
        let mut after_crash = ledger.clone();
        after_crash.interrupted();
        look(&after_crash);
        for event in every_event() {
            if let Ok(phase) = deployment.next(event) {
                open.push((
                    ledger.clone(),
                    Deployment {
                        phase,
                        ..deployment.clone()
                    },
                ));
            }
        }
    }
    points
}

#[test]
fn no_deploy_empties_a_live_pool() {
    for ladder in [Ladder::blue_green(Duration::ZERO), canary()] {
        let strategy = Strategy::BlueGreen;
        let points = walk(&with_live(), ladder, strategy, |ledger| {
            match ledger.traffic() {
                Traffic::All(at) => assert!(!ledger.retiring.contains(&at), "{ledger:?}"),
                Traffic::Shared {
                    live,
                    candidate,
                    weight,
                } => {
                    assert!(!ledger.retiring.contains(&live), "{ledger:?}");
                    assert!(!ledger.retiring.contains(&candidate), "{ledger:?}");
                    assert!(weight > Percent::ZERO && weight < Percent::ALL);
                }
                Traffic::Parked(_) | Traffic::Stopped | Traffic::NothingDeployed => {
                    panic!("emptied: {ledger:?}")
                }
            }
        });
        assert!(points >= 12, "{points}");
    }
}

#[test]
fn where_the_old_one_must_go_first_its_requests_wait_and_it_is_what_comes_back() {
    let old = with_live().live.unwrap();
    let ladder = Ladder::blue_green(Duration::ZERO);
    let points = walk(&with_live(), ladder, Strategy::Recreate, |ledger| {
        assert!(ledger.live.is_some());
        let between = ledger.deployment.as_ref().map(Deployment::is_between);
        match (ledger.traffic(), between) {
            (Traffic::Parked(at), Some(true)) => assert_eq!(at, old, "{ledger:?}"),
            // On the way back as well: whoever publishes sees that it does not run yet.
            (Traffic::All(at), Some(true)) => assert_eq!(at, old, "{ledger:?}"),
            (Traffic::All(at), _) => assert!(!ledger.retiring.contains(&at), "{ledger:?}"),
            other => panic!("{other:?}: {ledger:?}"),
        }
    });
    assert!(points >= 12, "{points}");
}

#[test]
fn a_release_that_serves_or_may_serve_again_is_never_pruned() {
    walk(&with_live(), canary(), Strategy::BlueGreen, |ledger| {
        let mut pruned = ledger.clone();
        pruned.prune(1);
        for number in ledger.needed() {
            assert!(pruned.releases.contains_key(&number), "{ledger:?}");
        }
    });
}

#[test]
fn after_a_flip_the_old_release_is_retired_and_remembered_as_the_previous_one() {
    let mut ledger = with_live();
    let number = ledger.add(release());
    let mut second = ledger.begin(number, Ladder::blue_green(Duration::ZERO));
    let old = second.from.unwrap();
    second.phase = Phase::Done;
    ledger.record(&second);
    assert_eq!(ledger.live, Some(second.to));
    assert_eq!(ledger.previous, Some(1));
    assert_eq!(ledger.retiring, [old]);
    ledger.retired(old.slot);
    assert!(ledger.retiring.is_empty());
}

#[test]
fn a_stopped_service_remembers_what_to_start() {
    let mut ledger = with_live();
    let live = ledger.live.unwrap();
    assert_eq!(ledger.stop(), Some(live));
    assert_eq!(ledger.traffic(), Traffic::Stopped);
    assert_eq!(ledger.stopped, Some(1));
    assert_eq!(ledger.stop(), None);
    let mut again = ledger.begin(1, Ladder::blue_green(Duration::ZERO));
    again.phase = Phase::Done;
    ledger.record(&again);
    assert_eq!(ledger.stopped, None);
    assert_eq!(ledger.traffic(), Traffic::All(again.to));
}

#[test]
fn a_crash_before_the_flip_goes_back_and_one_after_it_goes_on() {
    for (phase, expected) in [(Phase::Starting, 1), (Phase::Step(0), 2)] {
        let mut ledger = with_live();
        let number = ledger.add(release());
        let mut deployment = ledger.begin(number, Ladder::blue_green(Duration::from_secs(60)));
        deployment.phase = phase;
        ledger.record(&deployment);
        let text = serde_json::to_string(&ledger).unwrap();
        let mut ledger: Ledger = serde_json::from_str(&text).unwrap();
        assert!(ledger.interrupted().unwrap().phase.is_end());
        assert_eq!(ledger.live.unwrap().release, expected);
        assert!(ledger.retiring.is_empty());
    }
}

#[test]
fn each_rollback_leads_further_back_and_never_to_what_was_left() {
    let mut ledger = with_live();
    let done = |ledger: &mut Ledger, number: u32| {
        let mut deployment = ledger.begin(number, Ladder::blue_green(Duration::ZERO));
        deployment.phase = Phase::Done;
        ledger.record(&deployment);
    };
    for _ in 0..3 {
        let number = ledger.add(release());
        done(&mut ledger, number);
    }
    // One that never went live is no step on the way back.
    let broken = ledger.add(release());
    assert_eq!((broken, ledger.back()), (5, Some(3)));
    for expected in [Some(2), Some(1), None] {
        let back = ledger.back().unwrap();
        done(&mut ledger, back);
        assert_eq!(ledger.back(), expected);
    }
    // A new one leads back to what was live before it, not to what was left.
    let number = ledger.add(release());
    done(&mut ledger, number);
    assert_eq!(ledger.back(), Some(1));
}

#[test]
fn an_order_that_waited_leaves_the_ledger_again_and_its_numbers_are_not_given_twice() {
    let mut ledger = with_live();
    let number = ledger.add(release());
    let deployment = ledger.order();
    ledger.waiting = Some(number);
    assert!(ledger.prune(1).is_empty(), "what waits is kept");
    ledger.withdraw(number);
    assert_eq!((ledger.waiting, ledger.releases.len()), (None, 1));
    assert_eq!(ledger.add(release()), number + 1);
    assert_eq!(ledger.order(), deployment + 1);
    ledger.waiting = Some(1);
    ledger.withdraw(1);
    assert!(
        ledger.releases.contains_key(&1),
        "what was live stays stored"
    );
}

#[test]
fn an_order_that_waited_ends_with_the_daemon() {
    let mut ledger = with_live();
    let number = ledger.add(release());
    ledger.waiting = Some(number);
    assert_eq!(ledger.interrupted(), None);
    assert_eq!(
        (ledger.waiting, ledger.releases.contains_key(&number)),
        (None, false)
    );
}

#[test]
fn one_goes_back_only_to_what_has_been_live_and_is_told_to_what() {
    let mut ledger = with_live();
    let broken = ledger.add(release());
    assert_eq!(ledger.back_to(Some(1)), Ok(1));
    let never = ledger.back_to(Some(broken)).unwrap_err();
    assert_eq!(never.text, "web@2: has never been live until it settled");
    assert_eq!(never.hint.as_deref(), Some("one of: web@1"));
    let gone = ledger.back_to(Some(9)).unwrap_err();
    assert_eq!(gone.text, "web@9: is not stored");
    assert_eq!(ledger.back_to(None).unwrap_err().kind, Kind::NoRelease);
}

#[test]
fn releases_that_never_went_live_are_pruned_before_those_that_did() {
    let mut ledger = with_live();
    let proved = Release {
        proved: true,
        ..release()
    };
    let good = [ledger.add(proved.clone()), ledger.add(proved)];
    let bad: Vec<u32> = (0..4).map(|_| ledger.add(release())).collect();
    assert_eq!(ledger.prune(4), bad[..3]);
    for number in good {
        assert!(ledger.releases.contains_key(&number), "{ledger:?}");
    }
}

#[test]
fn an_order_waits_until_it_is_recorded_that_it_has_begun() {
    for strategy in [Strategy::BlueGreen, Strategy::Recreate] {
        let mut ledger = with_live();
        let number = ledger.add(release());
        ledger.waiting = Some(number);
        let mut deployment = begin(
            &mut ledger,
            number,
            Ladder::blue_green(Duration::ZERO),
            strategy,
        );
        assert_eq!(ledger.waiting, Some(number));
        ledger.record(&deployment);
        assert_eq!((ledger.waiting, ledger.deployment.is_some()), (None, true));
        // Another one waits for the same release: what goes on is not it.
        ledger.waiting = Some(number);
        deployment.phase = Phase::Starting;
        ledger.record(&deployment);
        assert_eq!(ledger.waiting, Some(number));
    }
}
