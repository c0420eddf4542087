#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Note {
    schema: u32,
    text: String,
}

fn note(text: &str) -> Note {
    Note {
        schema: 2,
        text: text.to_owned(),
    }
}

fn read(path: &Path) -> Result<Note, Unreadable> {
    let text = fs::read(path).map_err(|cause| Unreadable::Damaged(cause.to_string()))?;
    understand(&text, 2)
}

#[test]
fn what_is_written_is_one_document_of_json_that_anybody_can_read() {
    let text = sealed(&note("a")).unwrap();
    let value: serde_json::Value = serde_json::from_slice(&text).unwrap();
    assert_eq!(value["text"], "a");
    assert_eq!(understand::<Note>(&text, 2).unwrap(), note("a"));
}

#[test]
fn an_earlier_schema_is_read_and_a_later_one_is_named() {
    let bare = br#"{"schema":1,"text":"a"}"#;
    assert_eq!(understand::<Note>(bare, 2).unwrap().text, "a");
    let later = sealed(&Note {
        schema: 7,
        ..note("a")
    });
    let refused = understand::<Note>(&later.unwrap(), 2).unwrap_err();
    assert_eq!(
        refused,
        Unreadable::Later {
            schema: 7,
            newest: 2
        }
    );
}

#[test]
fn a_checksum_cannot_be_left_out() {
    let bare = br#"{"schema":2,"text":"a"}"#;
    let refused = understand::<Note>(bare, 2).unwrap_err();
    assert!(refused.to_string().contains("no checksum"), "{refused}");
}

/// A writer that is killed between any two of its steps, done by hand here.
#[test]
fn at_every_step_of_a_write_a_whole_file_is_in_its_place_and_a_whole_one_beside_it() {
    let temp = tempfile::tempdir().unwrap();
    let (folder, name) = (temp.path(), "note.json");
    let (path, last) = (folder.join(name), last_of(folder, name));
    let holds = |now: &str, before: &str, step: &str| {
        assert_eq!(read(&path).unwrap(), note(now), "{step}");
        assert_eq!(read(&last).unwrap(), note(before), "{step}");
    };
    write(folder, name, &note("one"), Outlives::PowerCut).unwrap();
    write(folder, name, &note("two"), Outlives::PowerCut).unwrap();
    holds("two", "one", "two writes");
    // Killed while it was written, and before it was on the disk.
    for part in [0, 1, 30] {
        let (_, half) = stage(folder, &note("three")).unwrap().keep().unwrap();
        let text = fs::read(&half).unwrap();
        fs::write(&half, &text[..part]).unwrap();
        holds("two", "one", "half written");
    }
    let _ = stage(folder, &note("three")).unwrap().keep().unwrap();
    holds("two", "one", "staged");
    // Killed between the two halves of keeping the last one.
    fs::hard_link(&path, folder.join(format!("{HALF}{name}"))).unwrap();
    holds("two", "one", "linked");
    keep_last(folder, name).unwrap();
    holds("two", "two", "kept");
    // Begun anew by the next daemon, at the same place.
    keep_last(folder, name).unwrap();
    holds("two", "two", "kept again");
    let staged = stage(folder, &note("three")).unwrap();
    staged.persist(&path).unwrap();
    holds("three", "two", "in its place");
    sweep(folder).unwrap();
    let left = fs::read_dir(folder).unwrap().count();
    assert_eq!(left, 2, "what was half done is gone");
    write(folder, name, &note("four"), Outlives::PowerCut).unwrap();
    holds("four", "three", "and on");
}

#[test]
fn a_write_that_fails_leaves_both_as_they_were() {
    let temp = tempfile::tempdir().unwrap();
    let (folder, name) = (temp.path(), "note.json");
    write(folder, name, &note("one"), Outlives::PowerCut).unwrap();
    write(folder, name, &note("two"), Outlives::PowerCut).unwrap();
    write(folder, name, &"not an object", Outlives::PowerCut).unwrap_err();
    assert_eq!(read(&folder.join(name)).unwrap(), note("two"));
    assert_eq!(read(&last_of(folder, name)).unwrap(), note("one"));
    assert_eq!(fs::read_dir(folder).unwrap().count(), 2);
}

proptest! {
    #[test]
    fn any_byte_that_is_changed_is_noticed(text in ".{0,80}", at: prop::sample::Index, by in 1..=255u8) {
        let mut sealed = sealed(&note(&text)).unwrap();
        let at = at.index(sealed.len());
        sealed[at] ^= by;
        let read = understand::<Note>(&sealed, 2);
        prop_assert!(matches!(read, Err(Unreadable::Damaged(_))), "{at}: {read:?}");
    }

    #[test]
    fn wherever_it_is_cut_off_is_noticed(text in ".{0,80}", at: prop::sample::Index) {
        let sealed = sealed(&note(&text)).unwrap();
        let cut = &sealed[..at.index(sealed.len())];
        let read = understand::<Note>(cut, 2);
        prop_assert!(matches!(read, Err(Unreadable::Damaged(_))), "{read:?}");
    }
}
