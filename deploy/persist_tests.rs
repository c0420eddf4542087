//! Real folders, and every way they may be found.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::link;

/// A data folder, and releases beside it.
struct World {
    folder: TempDir,
}

impl World {
    fn new() -> Self {
        let folder = TempDir::new().unwrap();
        fs::create_dir(folder.path().join("data")).unwrap();
        Self { folder }
    }

    fn data(&self, path: &str) -> PathBuf {
        self.folder.path().join("data").join(path)
    }

    /// The content of a release with these files, read only as in the store.
    fn release(&self, name: &str, files: &[(&str, &str)]) -> PathBuf {
        let content = self.folder.path().join(name).join("content");
        fs::create_dir_all(&content).unwrap();
        for (path, text) in files {
            let path = content.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o444)).unwrap();
        }
        content
    }

    fn link(&self, content: &Path, paths: &[&str]) -> Result<(), String> {
        let paths: Vec<String> = paths.iter().map(|path| (*path).into()).collect();
        link(content, &self.data(""), &paths).map_err(|refused| refused.text)
    }
}

fn text(path: impl AsRef<Path>) -> String {
    fs::read_to_string(path).unwrap()
}

#[test]
fn the_first_release_gives_and_the_next_ones_find() {
    let world = World::new();
    let paths = ["db", "var/up loads", "settings.ini"];
    let first = world.release(
        "1",
        &[("db/rows", "seed"), ("settings.ini", "a=1"), ("app", "x")],
    );
    world.link(&first, &paths).unwrap();
    assert_eq!(text(world.data("db/rows")), "seed");
    assert_eq!(fs::read_link(first.join("db")).unwrap(), world.data("db"));
    assert!(world.data("var/up loads").is_dir());
    for path in ["db/rows", "settings.ini"] {
        assert_ne!(fs::metadata(world.data(path)).unwrap().mode() & 0o200, 0);
    }
    fs::write(first.join("db/rows"), "written").unwrap();
    fs::write(first.join("var/up loads/new"), "up").unwrap();

    let second = world.release("2", &[("db/rows", "new seed"), ("settings.ini", "a=2")]);
    world.link(&second, &paths).unwrap();
    assert_eq!(text(second.join("db/rows")), "written");
    assert_eq!(text(second.join("settings.ini")), "a=1");
    assert_eq!(text(second.join("var/up loads/new")), "up");
    // What it brought is not lost.
    let brought = second.with_file_name("brought");
    assert_eq!(text(brought.join("db/rows")), "new seed");
    assert_eq!(text(brought.join("settings.ini")), "a=2");
    assert_eq!(fs::metadata(second.join("db")).unwrap().ino(), {
        fs::metadata(first.join("db")).unwrap().ino()
    });
}

#[test]
fn it_may_be_repeated_and_the_data_may_be_gone() {
    let world = World::new();
    let content = world.release("1", &[("db/rows", "seed")]);
    for _ in 0..3 {
        world.link(&content, &["db"]).unwrap();
        assert_eq!(text(content.join("db/rows")), "seed");
    }
    fs::remove_dir_all(world.data("db")).unwrap();
    world.link(&content, &["db"]).unwrap();
    assert!(content.join("db").is_dir());
    assert!(!content.with_file_name("brought").exists());
}

#[test]
fn a_crash_at_any_step_is_made_good() {
    for step in 0..4 {
        let world = World::new();
        let content = world.release("1", &[("db/rows", "seed")]);
        let (here, there) = (content.join("db"), world.data("db"));
        let mut kept = "seed";
        match step {
            // The mode was changed.
            0 => fs::set_permissions(here.join("rows"), fs::Permissions::from_mode(0o644)).unwrap(),
            // It was moved.
            1 => fs::rename(&here, &there).unwrap(),
            // It was half copied to another file system.
            2 => fs::write(world.data("db.hotctl-half"), "").unwrap(),
            // Something was there, and what was brought is set aside.
            _ => {
                fs::create_dir(&there).unwrap();
                fs::write(there.join("rows"), "old").unwrap();
                let aside = content.with_file_name("brought");
                fs::create_dir(&aside).unwrap();
                fs::rename(&here, aside.join("db")).unwrap();
                kept = "old";
            }
        }
        world.link(&content, &["db"]).unwrap();
        assert_eq!(text(here.join("rows")), kept, "step {step}");
        assert_eq!(fs::read_link(&here).unwrap(), there);
        fs::write(there.join("rows"), "writable").unwrap();
    }
}

#[test]
fn what_was_brought_twice_is_kept_twice() {
    let world = World::new();
    let content = world.release("1", &[("db/rows", "one")]);
    fs::create_dir(world.data("db")).unwrap();
    world.link(&content, &["db"]).unwrap();
    fs::remove_file(content.join("db")).unwrap();
    world.release("1", &[("db/rows", "two")]);
    world.link(&content, &["db"]).unwrap();
    let brought = content.with_file_name("brought");
    assert_eq!(text(brought.join("db/rows")), "one");
    assert_eq!(text(brought.join("db.2/rows")), "two");
}

#[test]
fn links_of_the_release_itself_are_brought_too() {
    let world = World::new();
    let content = world.release("1", &[("seed/rows", "seed")]);
    symlink("seed", content.join("db")).unwrap();
    symlink("nowhere", content.join("other")).unwrap();
    world.link(&content, &["db", "other"]).unwrap();
    assert_eq!(fs::read_link(content.join("db")).unwrap(), world.data("db"));
    assert_eq!(text(world.data("db/rows")), "seed");
    fs::write(content.join("db/rows"), "written").unwrap();
    assert_eq!(text(content.join("seed/rows")), "seed");
    assert!(world.data("other").is_dir());
}

#[test]
fn what_does_not_lie_within_the_release_is_refused() {
    let world = World::new();
    let content = world.release("1", &[("file", "x"), ("real/x", "")]);
    symlink("..", content.join("out")).unwrap();
    symlink("real", content.join("in")).unwrap();
    symlink("nowhere", content.join("dangling")).unwrap();
    for (path, said) in [
        ("../db", "not a path within the release"),
        ("/db", "not a path within the release"),
        (".", "not a path within the release"),
        ("", "not a path within the release"),
        ("file/db", "file in the release is a file"),
        ("out/db", "out in the release leads out of it"),
        ("dangling/db", "dangling in the release leads nowhere"),
    ] {
        let refused = world.link(&content, &[path]).unwrap_err();
        assert_eq!(refused, format!("persist {path:?}: {said}"));
    }
    world.link(&content, &["in/db", "./deep/er/db"]).unwrap();
    assert!(content.join("real/db").is_dir());
    assert!(world.data("deep/er/db").is_dir());
    // Within what is persistent already.
    world.link(&content, &["deep"]).unwrap();
    let refused = world.link(&content, &["deep/x"]).unwrap_err();
    assert!(refused.ends_with("deep in the release leads out of it"));
}
