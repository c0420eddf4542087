//! What readers of the journal are told: everything once, in order, and honestly what is missing.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;

use serde_json::Value;

use super::*;
use crate::api::Progress;

fn done(text: impl Into<String>) -> Noted {
    Noted::Progress(Progress::Done { text: text.into() })
}

fn counter() -> IntCounter {
    IntCounter::new("errors", "errors").unwrap()
}

fn web() -> ServiceName {
    "web".parse().unwrap()
}

async fn all(journal: &Journal, after: u64) -> Vec<Value> {
    let mut reader = journal.after(after, None);
    let mut found = Vec::new();
    while let Some(text) = reader.next().await {
        let lines = text.split(|b| *b == b'\n').filter(|line| !line.is_empty());
        found.extend(lines.map(|line| serde_json::from_slice::<Value>(line).unwrap()));
    }
    found
}

fn numbers(lines: &[Value]) -> Vec<u64> {
    lines
        .iter()
        .filter_map(|line| line["number"].as_u64())
        .collect()
}

#[tokio::test]
async fn numbers_go_on_over_a_restart_and_a_reader_takes_up_where_it_left_off() {
    let temp = tempfile::tempdir().unwrap();
    let journal = Journal::open(temp.path(), counter()).unwrap();
    journal.note(None, Noted::DaemonStopping);
    journal.note(Some(&web()), done("one"));
    journal.flush().await;
    let journal = Journal::open(temp.path(), counter()).unwrap();
    journal.note(Some(&web()), done("two"));
    let lines = all(&journal, 1).await;
    assert_eq!(numbers(&lines), [2, 3]);
    assert_eq!(lines[0]["service"], "web");
    assert_eq!(lines[1]["event"], "done");
    assert_eq!(lines[1]["text"], "two");
    assert!(lines[1]["at_ms"].as_u64().unwrap() > 1_600_000_000_000);
    assert!(all(&journal, 3).await.is_empty());
    assert!(all(&journal, 99).await.is_empty());
}

#[tokio::test]
async fn what_memory_no_longer_holds_is_read_from_the_file() {
    let temp = tempfile::tempdir().unwrap();
    let journal = Journal::open(temp.path(), counter()).unwrap();
    let count = 3 * KEPT;
    for n in 0..count {
        journal.note(Some(&web()), done(n.to_string()));
        if n % UNWRITTEN == 0 {
            journal.flush().await;
        }
    }
    journal.flush().await;
    let lines = all(&journal, 0).await;
    assert_eq!(numbers(&lines), (1..=count as u64).collect::<Vec<_>>());
    let mut of_others = journal.after(0, Some("shop".parse().unwrap()));
    assert_eq!(of_others.next().await, None);
}

#[tokio::test]
async fn a_reader_is_told_how_much_is_not_kept_any_more() {
    let temp = tempfile::tempdir().unwrap();
    let line = |n: u64| format!("{{\"number\":{n},\"event\":\"daemon_stopping\"}}\n");
    fs::write(temp.path().join("events.ndjson.1"), line(7)).unwrap();
    let text = line(8) + "{\"number\":9,\"ev\n" + &line(10);
    fs::write(temp.path().join("events.ndjson"), text).unwrap();
    let journal = Journal::open(temp.path(), counter()).unwrap();
    let lines = all(&journal, 2).await;
    assert_eq!(lines[0]["event"], "gap");
    assert_eq!(
        (&lines[0]["missed"], &lines[0]["after"]),
        (&4.into(), &2.into())
    );
    assert_eq!(lines[3]["event"], "gap");
    assert_eq!(lines[3]["missed"], 1);
    assert_eq!(numbers(&lines), [7, 8, 10]);
}

#[tokio::test]
async fn a_follower_hears_what_is_noted_later() {
    let temp = tempfile::tempdir().unwrap();
    let journal = Journal::open(temp.path(), counter()).unwrap();
    let mut reader = journal.after(0, None);
    let following = tokio::spawn(async move { reader.follow().await });
    journal.note(None, Noted::DaemonStopping);
    let text = following.await.unwrap().unwrap();
    assert!(
        text.ends_with(b"\"event\":\"daemon_stopping\"}\n"),
        "{text:?}"
    );
}

#[test]
fn a_full_file_is_put_aside_and_one_such_is_kept() {
    let temp = tempfile::tempdir().unwrap();
    let files = Files::of_size(temp.path(), 100, counter());
    for n in 1..=20 {
        files.append(format!("{{\"number\":{n},\"pad\":\"{}\"}}\n", "x".repeat(20)).as_bytes());
    }
    let kept: Vec<u64> = files
        .between(0, 99, 99)
        .iter()
        .map(|line| line.number)
        .collect();
    assert_eq!(kept.last(), Some(&20));
    assert!(kept.len() >= 2 && kept.len() <= 4, "{kept:?}");
    assert!(
        fs::metadata(temp.path().join("events.ndjson"))
            .unwrap()
            .len()
            <= 100
    );
}

#[test]
fn a_write_that_fails_loses_lines_and_nothing_else() {
    let temp = tempfile::tempdir().unwrap();
    let folder = temp.path().join("gone");
    let files = Files::of_size(&folder, 1000, counter());
    files.append(b"{\"number\":1}\n");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("events.ndjson"), "{\"number\":2}\n{\"numb").unwrap();
    files.append(b"{\"number\":3}\n");
    let kept: Vec<u64> = files
        .between(0, 99, 99)
        .iter()
        .map(|line| line.number)
        .collect();
    assert_eq!(kept, [2, 3]);
}

#[tokio::test]
async fn lines_that_are_damaged_are_missing_and_said_to_be_and_the_others_are_not() {
    let temp = tempfile::tempdir().unwrap();
    let journal = Journal::open(temp.path(), counter()).unwrap();
    for text in ["one", "two", "three"] {
        journal.note(None, done(text));
    }
    journal.flush().await;
    drop(journal);
    let path = temp.path().join("events.ndjson");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replacen("\"number\":2", "\"numb", 1)).unwrap();
    let journal = Journal::open(temp.path(), counter()).unwrap();
    journal.note(None, done("four"));
    let lines = all(&journal, 0).await;
    assert_eq!(numbers(&lines), [1, 3, 4]);
    assert_eq!(lines[1]["event"], "gap");
}

#[tokio::test]
async fn a_journal_that_cannot_be_read_is_put_aside_and_a_new_one_begins() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("events.ndjson");
    fs::create_dir(&path).unwrap();
    let journal = Journal::open(temp.path(), counter()).unwrap();
    journal.note(None, done("one"));
    journal.flush().await;
    assert!(path.is_file());
    assert_eq!(numbers(&all(&journal, 0).await), [1]);
}
