//! However a program saves a file, what it has become goes live by one deploy, where that is watched as
//! it is and where it is built first; and who only reads causes none.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use crate::support::follower::{Follower, Kind, app};
use crate::support::saves::{self, WAYS};

#[test]
fn each_way_of_saving_what_is_watched_is_deployed_once() {
    each_way_of_saving(Kind::Output);
}

#[test]
fn each_way_of_saving_a_source_is_built_and_deployed_once() {
    each_way_of_saving(Kind::Sources);
}

fn each_way_of_saving(kind: Kind) {
    let follower = Follower::of_file(kind, "tree/app");
    fs::create_dir_all(follower.place().parent().unwrap()).unwrap();
    // Executable from the first moment on.
    let first = follower.daemon.folder().join("first");
    fs::write(&first, app("v0")).unwrap();
    fs::set_permissions(&first, fs::Permissions::from_mode(0o755)).unwrap();
    fs::rename(first, follower.place()).unwrap();
    follower.answers("at first", "v0");
    let mut done = follower.at_rest();
    for (n, (name, save)) in (1..).zip(WAYS) {
        let version = format!("v{n}");
        save(follower.place(), &app(&version));
        follower.answers(name, &version);
        let before = std::mem::replace(&mut done, follower.at_rest());
        assert_eq!(done, before.and_one(kind), "{name}");
    }
    println!("{kind:?}: {} ways, {done:?}", WAYS.len());
}

#[test]
fn a_checkout_of_500_files_is_one_deploy() {
    for kind in [Kind::Output, Kind::Sources] {
        let follower = Follower::of_tree(kind, "tree");
        let files = |text: &'static str| {
            let tree = follower.place().to_path_buf();
            (0..500).map(move |n| {
                (
                    tree.join(format!("{}/{n}.go", n % 20)),
                    format!("{text} {n}"),
                )
            })
        };
        for n in 0..20 {
            fs::create_dir_all(follower.place().join(format!("{n}"))).unwrap();
        }
        saves::checkout(follower.place(), files("main"));
        fs::remove_dir_all(follower.place().join(".git")).unwrap();
        follower.is_live("main");
        let before = follower.at_rest();
        saves::checkout(follower.place(), files("other"));
        fs::remove_dir_all(follower.place().join(".git")).unwrap();
        follower.is_live("other");
        assert_eq!(follower.at_rest(), before.and_one(kind), "{kind:?}");
    }
}

#[test]
fn reading_what_is_watched_ten_thousand_times_deploys_nothing() {
    reading(Kind::Output);
}

#[test]
fn reading_sources_ten_thousand_times_builds_nothing() {
    reading(Kind::Sources);
}

fn reading(kind: Kind) {
    const TIMES: usize = 10_000;
    let follower = Follower::of_tree(kind, "tree");
    let folders = ["", "a", "a/b"].map(|folder| follower.place().join(folder));
    for n in 0..9 {
        let folder = ["", "a", "a/b"][n % 3];
        follower.write(&format!("{folder}/{n}.go"), &format!("package p{n}\n"));
    }
    follower.is_live("at first");
    let before = follower.at_rest();
    let mut read = 0;
    for _ in 0..TIMES {
        for folder in &folders {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_file() {
                    read += fs::read(path).unwrap().len();
                }
            }
        }
    }
    assert_eq!(follower.at_rest(), before, "{read} bytes read");
    // And what is written afterwards is heard.
    follower.write("a/0.go", "package other\n");
    follower.is_live("afterwards");
    let after = follower.at_rest();
    assert_eq!(after, before.and_one(kind));
    println!(
        "{kind:?}: a tree read {TIMES} times, {read} bytes: {before:?}, and one save: {after:?}"
    );
}

#[test]
fn a_source_that_is_saved_as_it_was_builds_nothing() {
    let follower = Follower::of_tree(Kind::Sources, "tree");
    follower.write("main.go", "package main\n");
    follower.is_live("at first");
    let before = follower.at_rest();
    let path = follower.place().join("main.go");
    // The links at the end make something else of it.
    for (_, save) in &WAYS[..WAYS.len() - 2] {
        save(&path, "package main\n");
    }
    assert_eq!(follower.at_rest(), before);
    follower.write("main.go", "package other\n");
    follower.is_live("afterwards");
    assert_eq!(follower.at_rest(), before.and_one(Kind::Sources));
}
