//! What a record says after all that can become of a deployment, and what the next daemon reads.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::time::Duration;

use hotctl_deploy::ledger::{Ledger, Release};
use hotctl_deploy::machine::Ladder;

use super::*;

fn counter() -> IntCounter {
    IntCounter::new("errors", "errors").unwrap()
}

fn web() -> ServiceName {
    "web".parse().unwrap()
}

fn deployment() -> Deployment {
    let mut ledger = Ledger::new(web());
    let release = ledger.add(Release {
        digest: "00".repeat(32).parse().unwrap(),
        args: Vec::new(),
        name: "app".into(),
        created_ms: 0,
        proved: false,
        environment: None,
    });
    ledger.begin(release, Ladder::blue_green(Duration::from_secs(60)))
}

fn ordered(history: &Arc<History>, number: u32) -> Scribe {
    let to = "web@1".parse().unwrap();
    Scribe::new(history, record(number, Verb::Deploy, &Giver::daemon(), to))
}

fn climbed(scribe: &Scribe) {
    let mut deployment = deployment();
    scribe.begins(&deployment);
    scribe.phase(&deployment);
    deployment.phase = Phase::Step(0);
    scribe.phase(&deployment);
    scribe.live();
}

#[tokio::test]
async fn the_next_daemon_reads_what_this_one_wrote() {
    let temp = tempfile::tempdir().unwrap();
    let history = Arc::new(History::open(temp.path(), &web(), counter()).unwrap());
    for number in 1..=KEPT as u32 + 5 {
        ordered(&history, number).ends(Some(&Why::new(Kind::Superseded, "superseded by web@9")));
    }
    history.write().await;
    let next = History::open(temp.path(), &web(), counter()).unwrap();
    assert_eq!(next.newest(usize::MAX), history.newest(usize::MAX));
    let newest = next.newest(2);
    assert_eq!((newest[0].number, newest[1].number), (205, 204));
    assert_eq!(newest[0].result, Outcome::Superseded);
    assert_eq!(next.newest(usize::MAX).len(), KEPT);
    assert_eq!(next.get(5), None);
}

#[test]
fn a_failure_is_shown_until_a_later_deployment_is_live_also_while_its_hold_goes_on() {
    let temp = tempfile::tempdir().unwrap();
    let history = Arc::new(History::open(temp.path(), &web(), counter()).unwrap());
    ordered(&history, 1).ends(Some(&Why::new(Kind::Exited, "exit status 9")));
    assert_eq!(history.last_failure().map(|last| last.deployment), Some(1));
    let next = ordered(&history, 2);
    assert_eq!(history.last_failure().map(|last| last.deployment), Some(1));
    climbed(&next);
    assert!(history.last_failure().is_none());
    next.ends(Some(&Why::new(Kind::Exited, "exit status 3")));
    assert_eq!(history.last_failure().map(|last| last.deployment), Some(2));
}

#[test]
fn what_cannot_be_understood_is_put_aside_and_not_lost() {
    let temp = tempfile::tempdir().unwrap();
    fs::write(temp.path().join(FILE), "{\"schema\":99,\"deployments\":[]}").unwrap();
    let history = History::open(temp.path(), &web(), counter()).unwrap();
    assert_eq!(history.newest(9), []);
    let mut names = fs::read_dir(temp.path()).unwrap();
    let name = names.next().unwrap().unwrap().file_name();
    assert!(
        name.to_string_lossy().starts_with("history.damaged-"),
        "{name:?}"
    );
}

#[test]
fn a_damaged_history_is_put_aside_and_its_last_good_copy_goes_on() {
    let temp = tempfile::tempdir().unwrap();
    let kept = |numbers: &[u32]| Kept {
        schema: SCHEMA,
        deployments: numbers
            .iter()
            .map(|number| {
                record(
                    *number,
                    Verb::Deploy,
                    &Giver::daemon(),
                    "web@1".parse().unwrap(),
                )
            })
            .collect(),
    };
    sealed::write(temp.path(), FILE, &kept(&[1]), Outlives::PowerCut).unwrap();
    sealed::write(temp.path(), FILE, &kept(&[1, 2]), Outlives::PowerCut).unwrap();
    fs::write(temp.path().join(FILE), "{\"schema\":2").unwrap();
    let history = History::open(temp.path(), &web(), counter()).unwrap();
    assert_eq!(history.newest(9).len(), 1);
    let entries = fs::read_dir(temp.path()).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert!(
        names
            .into_iter()
            .any(|name| name.starts_with("history.damaged-"))
    );
}

#[test]
fn a_deployment_that_flips_back_was_live_and_says_why_it_is_not() {
    let temp = tempfile::tempdir().unwrap();
    let history = Arc::new(History::open(temp.path(), &web(), counter()).unwrap());
    let scribe = ordered(&history, 1);
    climbed(&scribe);
    assert_eq!(history.get(1).unwrap().result, Outcome::Live);
    let why = Why::new(Kind::Exited, "web@1: ended after the flip");
    let mut deployment = deployment();
    deployment.phase = Phase::Reverting(why.clone());
    scribe.phase(&deployment);
    deployment.phase = Phase::Failed(why.clone());
    scribe.phase(&deployment);
    scribe.ends(Some(&why));
    let record = history.get(1).unwrap();
    assert_eq!(record.result, Outcome::FlippedBack);
    assert_eq!(record.why, Some(why));
    let phases: Vec<&str> = record.phases.iter().map(|p| p.phase.as_str()).collect();
    assert_eq!(phases, ["starting", "warm", "reverting"]);
    assert!(record.phases.iter().all(|phase| phase.took_ms.is_some()));
    assert!(record.ended_ms >= record.started_ms && record.started_ms.is_some());
}

#[test]
fn what_was_under_way_when_the_daemon_ended_goes_on_and_the_rest_has_ended() {
    let temp = tempfile::tempdir().unwrap();
    let history = Arc::new(History::open(temp.path(), &web(), counter()).unwrap());
    climbed(&ordered(&history, 1));
    // Written down by the ledger, and not any more here.
    ordered(&history, 2).begins(&deployment());
    let mut ledger = Ledger::new(web());
    let mut done = deployment();
    done.phase = Phase::Done;
    ledger.record(&done);
    history.take_up(&ledger);
    let results = history.newest(9).into_iter().map(|record| record.result);
    assert_eq!(results.collect::<Vec<_>>(), [Outcome::Live, Outcome::Live]);

    ordered(&history, 3).begins(&deployment());
    ordered(&history, 4).begins(&deployment());
    ordered(&history, 5);
    ledger.live = None;
    ledger.waiting = Some(1);
    let mut goes_on = deployment();
    goes_on.number = 4;
    ledger.deployment = Some(goes_on);
    history.take_up(&ledger);
    let open = history
        .newest(9)
        .into_iter()
        .filter(|it| it.ended_ms.is_none());
    assert_eq!(open.map(|it| it.number).collect::<Vec<_>>(), [5, 4]);
    assert_eq!(history.get(3).unwrap().result, Outcome::Interrupted);
    assert_eq!(history.waiting(&ledger).unwrap().number, 5);
}

#[test]
fn a_deployment_under_way_without_a_record_gets_one() {
    let temp = tempfile::tempdir().unwrap();
    let history = Arc::new(History::open(temp.path(), &web(), counter()).unwrap());
    let mut ledger = Ledger::new(web());
    ledger.deployment = Some(deployment());
    history.take_up(&ledger);
    assert_eq!(history.get(1).unwrap().ended_ms, None);
}
