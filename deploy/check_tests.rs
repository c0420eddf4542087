//! Real commands.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::time::{Duration, Instant};

use super::check;
use crate::miss::{Cause, Miss};
use crate::testing::{House, eventually};
use crate::tree;

const LONG: Duration = Duration::from_secs(20);

async fn said(house: &House, words: &[&str], within: Duration) -> Result<(), String> {
    let words: Vec<String> = words.iter().map(|word| (*word).into()).collect();
    let mut spec = house.spec(&["app"]);
    spec.env.push(("PORT".into(), "4711".into()));
    let told = |cause: Cause| {
        let miss = Miss {
            request: "check".into(),
            cause,
        };
        miss.to_string()
    };
    check(&words, &spec, within).await.map_err(told)
}

#[tokio::test]
async fn a_check_runs_where_the_process_runs() {
    let house = House::new();
    let script = format!(
        r#"test "$PWD" = {} && test "$PORT" = 4711 && test -z "$HOME""#,
        house.folder.path().display()
    );
    said(&house, &["sh", "-c", &script], LONG).await.unwrap();
    let own = house.path("own");
    fs::write(&own, "#!/bin/sh\nexit 0\n").unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(&own, mode).unwrap();
    said(&house, &["./own"], LONG).await.unwrap();
}

#[tokio::test]
async fn a_check_that_fails_says_how_and_what_it_wrote() {
    let house = House::new();
    for (script, text) in [
        (
            "echo no database >&2; exit 3",
            r#"check: exit status 3: "no database""#,
        ),
        ("exit 1", "check: exit status 1"),
        ("kill -9 $$", "check: killed by SIGKILL (9)"),
    ] {
        let error = said(&house, &["sh", "-c", script], LONG).await.unwrap_err();
        assert_eq!(error, text);
    }
    let error = said(&house, &["no-such-check"], LONG).await.unwrap_err();
    assert_eq!(error, "check: cannot be run: no such program in PATH");
    let flood = "yes 2>/dev/null | head -c 9000000; echo the end; exit 1";
    let error = said(&house, &["sh", "-c", flood], LONG).await.unwrap_err();
    assert!(
        error.contains("…") && error.ends_with("the end\""),
        "{error}"
    );
}

#[tokio::test]
async fn a_check_that_does_not_end_is_ended_with_its_children() {
    let house = House::new();
    let script = "sleep 60 & echo $! > child; echo asking; wait";
    let began = Instant::now();
    let error = said(&house, &["sh", "-c", script], Duration::from_millis(500))
        .await
        .unwrap_err();
    assert_eq!(error, r#"check: not done within 500 ms: "asking""#);
    assert!(began.elapsed() < Duration::from_secs(5));
    let child = house.number("child").await;
    eventually(|| tree::stat(child).is_none_or(|stat| stat.state == 'Z')).await;
}

#[tokio::test]
async fn a_helper_that_a_check_leaves_does_not_hold_it_up_and_does_not_stay() {
    let house = House::new();
    let began = Instant::now();
    said(&house, &["sh", "-c", "sleep 60 & echo $! > child"], LONG)
        .await
        .unwrap();
    assert!(began.elapsed() < Duration::from_secs(5));
    let child = house.number("child").await;
    eventually(|| tree::stat(child).is_none_or(|stat| stat.state == 'Z')).await;
}
