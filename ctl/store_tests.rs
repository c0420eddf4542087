#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
use proptest::prelude::*;

use super::*;

fn web() -> ServiceName {
    "web".parse().unwrap()
}

/// A folder in which two records have been written, of releases 6 and 7.
fn written() -> (tempfile::TempDir, StateFolder) {
    let temp = tempfile::tempdir().unwrap();
    let folder = StateFolder::open(temp.path()).unwrap();
    let mut ledger = Ledger::new(web());
    for number in [6, 7] {
        ledger.last.release = number;
        folder.save(&ledger).unwrap();
    }
    (temp, folder)
}

fn record(folder: &StateFolder) -> PathBuf {
    folder.service(&web()).join(RECORD)
}

fn last(folder: &StateFolder) -> PathBuf {
    sealed::last_of(&folder.service(&web()), RECORD)
}

#[test]
fn a_record_is_read_as_it_was_written_and_a_second_daemon_is_refused() {
    let (temp, folder) = written();
    let found = folder.load(&web()).unwrap();
    assert_eq!(found.ledger.last.release, 7);
    assert_eq!(found.source, Source::Record);
    let refused = StateFolder::open(temp.path()).unwrap_err();
    assert!(refused.text.contains("another hotctl"), "{refused}");
    drop(folder);
    StateFolder::open(temp.path()).unwrap();
}

#[test]
fn a_service_without_a_record_is_new() {
    let temp = tempfile::tempdir().unwrap();
    let folder = StateFolder::open(temp.path()).unwrap();
    let found = folder.load(&web()).unwrap();
    assert_eq!(found.source, Source::Nothing);
    assert_eq!(found.ledger, Ledger::new(web()));
}

#[test]
fn a_record_of_the_first_schema_is_read() {
    let temp = tempfile::tempdir().unwrap();
    let folder = StateFolder::open(temp.path()).unwrap();
    let old = r#"{"schema":1,"ledger":{"service":"web","releases":{},"live":null,"previous":null,
        "stopped":null,"deployment":null,"retiring":[],"last":{"release":3,"slot":4,"deployment":5}}}"#;
    fs::create_dir_all(folder.service(&web())).unwrap();
    fs::write(record(&folder), old).unwrap();
    let (ledger, told) = folder.take_up(&web()).unwrap();
    assert_eq!((ledger.last.release, told), (3, None));
    folder.save(&ledger).unwrap();
    assert_eq!(folder.load(&web()).unwrap().ledger, ledger);
    assert_eq!(fs::read_to_string(last(&folder)).unwrap(), old);
}

#[test]
fn a_record_of_a_later_hotctl_is_refused_and_not_replaced_by_an_older_copy() {
    let (_temp, folder) = written();
    let later = serde_json::json!({"schema": 99, "ledger": {"shape": "unheard of"}});
    sealed::write(&folder.service(&web()), RECORD, &later, Outlives::PowerCut).unwrap();
    let before = fs::read(record(&folder)).unwrap();
    let refused = folder.take_up(&web()).unwrap_err();
    assert!(
        refused.text.contains("later hotctl (schema 99"),
        "{refused}"
    );
    assert_eq!(fs::read(record(&folder)).unwrap(), before);
}

#[test]
fn the_last_good_copy_takes_the_place_of_what_cannot_be_read_which_is_kept() {
    let (_temp, folder) = written();
    fs::write(record(&folder), "garbage").unwrap();
    let found = folder.load(&web()).unwrap();
    assert!(matches!(&found.source, Source::LastGood(reason) if reason.contains("damaged")));
    let (ledger, told) = folder.take_up(&web()).unwrap();
    assert_eq!(ledger.last.release, 6);
    assert!(told.unwrap().contains("record.damaged-"));
    // From now on it is the record.
    let found = folder.load(&web()).unwrap();
    assert_eq!((found.ledger, found.source), (ledger, Source::Record));
    let names = fs::read_dir(folder.service(&web())).unwrap();
    let aside = names
        .map(|entry| entry.unwrap().path())
        .find(|path| path.display().to_string().contains("damaged"))
        .unwrap();
    assert_eq!(fs::read_to_string(aside).unwrap(), "garbage");
}

#[test]
fn a_record_that_somebody_removed_is_not_taken_for_a_new_service() {
    let (_temp, folder) = written();
    fs::remove_file(record(&folder)).unwrap();
    let (ledger, told) = folder.take_up(&web()).unwrap();
    assert_eq!(ledger.last.release, 6);
    assert!(told.unwrap().contains("is not there"));
}

#[test]
fn where_neither_can_be_read_nothing_is_touched_and_the_remedy_is_said() {
    let (_temp, folder) = written();
    for (now, before) in [
        ("", ""),
        ("{}", "{}"),
        ("garbage", r#"{"schema":2,"ledger":null}"#),
    ] {
        fs::write(record(&folder), now).unwrap();
        fs::write(last(&folder), before).unwrap();
        let refused = folder.take_up(&web()).unwrap_err();
        assert!(refused.text.contains("record.json"), "{refused}");
        assert!(refused.hint.unwrap().contains("hotctl reload"));
        assert_eq!(fs::read_to_string(record(&folder)).unwrap(), now);
        assert_eq!(fs::read_to_string(last(&folder)).unwrap(), before);
        // Nor where only one of them is there.
        fs::remove_file(last(&folder)).unwrap();
        folder.take_up(&web()).unwrap_err();
        fs::remove_file(record(&folder)).unwrap();
        fs::write(last(&folder), before).unwrap();
        folder.take_up(&web()).unwrap_err();
    }
}

#[test]
fn the_record_of_another_service_is_not_taken() {
    let (_temp, folder) = written();
    let other: ServiceName = "api".parse().unwrap();
    fs::create_dir_all(folder.service(&other)).unwrap();
    fs::copy(record(&folder), folder.service(&other).join(RECORD)).unwrap();
    let refused = folder.load(&other).unwrap_err();
    assert!(refused.text.contains("is the record of web"), "{refused}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn whatever_byte_of_a_record_is_changed_the_last_good_copy_is_used(at: prop::sample::Index, by in 1..=255u8) {
        let (_temp, folder) = written();
        let mut text = fs::read(record(&folder)).unwrap();
        let at = at.index(text.len());
        text[at] ^= by;
        fs::write(record(&folder), text).unwrap();
        let found = folder.load(&web()).unwrap();
        prop_assert!(matches!(found.source, Source::LastGood(_)), "{at}: {found:?}");
        prop_assert_eq!(found.ledger.last.release, 6);
    }

    #[test]
    fn wherever_a_record_is_cut_off_the_last_good_copy_is_used(at: prop::sample::Index) {
        let (_temp, folder) = written();
        let text = fs::read(record(&folder)).unwrap();
        fs::write(record(&folder), &text[..at.index(text.len())]).unwrap();
        let found = folder.load(&web()).unwrap();
        prop_assert!(matches!(found.source, Source::LastGood(_)), "{found:?}");
        prop_assert_eq!(found.ledger.last.release, 6);
    }
}
