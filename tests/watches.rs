//! What is left out of what is watched costs nothing and does nothing, as files of patterns in it and
//! above it say.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use crate::support::daemon::web;
use crate::support::follower::{Follower, Kind};
use crate::support::{Daemon, eventually, eventually_some};

/// How many folders a process watches.
fn watches(pid: u32) -> usize {
    let all = fs::read_dir(format!("/proc/{pid}/fdinfo")).unwrap();
    // Some are closed meanwhile.
    let texts = all.filter_map(|entry| fs::read_to_string(entry.ok()?.path()).ok());
    let count = |text: String| {
        let lines = text.lines();
        lines.filter(|line| line.starts_with("inotify ")).count()
    };
    texts.map(count).sum()
}

/// So many files in so many folders.
fn many_files(folder: &Path, folders: usize, each: usize) {
    for n in 0..folders {
        let folder = folder.join(format!("{n}"));
        fs::create_dir_all(&folder).unwrap();
        let first = folder.join("first");
        fs::write(&first, "x").unwrap();
        // Quicker than files of their own.
        for n in 1..each {
            fs::hard_link(&first, folder.join(format!("{n}"))).unwrap();
        }
    }
}

#[test]
fn a_hundred_thousand_files_that_are_left_out_cost_no_watch() {
    const KEPT: usize = 12;
    let temp = tempfile::tempdir().unwrap();
    let many = temp.path().join("many");
    let began = Instant::now();
    many_files(&many, 1000, 100);
    println!(
        "100000 files in 1000 folders made in {:.1?}",
        began.elapsed()
    );
    for kind in [Kind::Output, Kind::Sources] {
        let follower = Follower::of_tree(kind, "tree");
        let count = || watches(follower.daemon.pid());
        // The folder that it will lie in; who answers may not have begun to watch.
        let before = 1;
        eventually("it is watched", || count() == before);
        // Beside the tree until it is whole: what is being made would be looked at.
        let tree = follower.daemon.folder().join("made");
        many_files(&tree.join("src"), KEPT - 3, 10);
        fs::create_dir(tree.join("web")).unwrap();
        fs::rename(&many, tree.join("web/cache")).unwrap();
        // A folder within says so itself.
        fs::write(tree.join("web/.hotctlignore"), "/cache/\n").unwrap();
        let began = Instant::now();
        fs::rename(&tree, follower.place()).unwrap();
        eventually("it is deployed", || {
            follower.daemon.status().service("web").live.is_some()
        });
        let took = began.elapsed();
        // The tree, `web`, `src` and what is in that.
        assert_eq!(count(), before + KEPT, "{kind:?}");
        // What is left out there wakes nobody; another folder that is kept costs one more.
        let done = follower.at_rest();
        follower.write("web/cache/7/new", "x");
        assert_eq!(follower.at_rest(), done);
        follower.write("src/another/a.go", "package a\n");
        eventually("it is watched", || count() == before + KEPT + 1);
        fs::remove_dir_all(follower.place().join("src")).unwrap();
        eventually("what is gone is watched no more", || count() == before + 2);
        println!(
            "{kind:?}: {} watches for {KEPT} kept folders and the one above them, live after {took:.1?}",
            before + KEPT
        );
        fs::rename(follower.place().join("web/cache"), &many).unwrap();
    }
}

#[test]
fn what_folders_in_and_above_the_sources_leave_out_builds_nothing_until_they_say_something_else() {
    let follower = Follower::of_tree(Kind::Sources, "repo/app");
    let repo = follower.place().parent().unwrap();
    fs::create_dir_all(repo.join(".git")).unwrap();
    fs::write(repo.join(".gitignore"), "*.log\n/app/generated/\n").unwrap();
    follower.write("main.go", "package main\n");
    follower.write("web/.gitignore", "*.js\n!keep.js\n");
    follower.is_live("at first");
    let before = follower.at_rest();
    let left_out = [
        "a.log",
        "web/a.log",
        "generated/a.go",
        "web/a.js",
        "web/deep/a.js",
    ];
    for file in left_out {
        follower.write(file, "left out");
    }
    assert_eq!(follower.at_rest(), before);
    let mut builds = before.builds;
    // Nothing is told until something counts.
    for file in ["web/keep.js", "a.js", "generated.go"] {
        follower.write(file, "counts");
        builds += 1;
        follower.is_live(file);
        assert_eq!(follower.at_rest().builds, builds, "{file}");
    }
    // The top of the repository says less, and a folder within says less.
    for (file, freed) in [("../.gitignore", "a.log"), ("web/.gitignore", "web/a.js")] {
        follower.write(file, "nothing.at.all\n");
        follower.is_live(file);
        let builds = follower.at_rest().builds;
        follower.write(freed, "counts now");
        follower.is_live(freed);
        assert_eq!(follower.at_rest().builds, builds + 1, "{freed}");
    }
}

#[test]
fn where_no_more_folders_may_be_watched_the_daemon_says_so_and_looks_by_the_clock() {
    let namespace = ["unshare", "--user", "--map-root-user"];
    let allowed = Command::new(namespace[0])
        .args(&namespace[1..])
        .arg("true")
        .status();
    if !allowed.is_ok_and(|status| status.success()) {
        println!("not tested: the system gives no user namespace, and so no limit of its own");
        return;
    }
    let limited = "echo 4 > /proc/sys/user/max_inotify_watches && exec \"$@\"";
    let through = [&namespace[..], &["sh", "-c", limited, "sh"]].concat();
    for kind in [Kind::Output, Kind::Sources] {
        let follower = Follower::of_tree_through(&through, kind, "tree");
        for n in 0..8 {
            follower.write(&format!("{n}/a.go"), "package a\n");
        }
        follower.is_live("at first");
        eventually("the sysctl is named", || {
            follower
                .daemon
                .log()
                .contains("fs.inotify.max_user_watches")
        });
        let before = follower.at_rest();
        assert_eq!(watches(follower.daemon.pid()), 4);
        // Where something is watched, and where nothing is.
        (0..8).for_each(|n| follower.write(&format!("{n}/a.go"), "package other\n"));
        follower.is_live("by the clock");
        assert_eq!(follower.at_rest(), before.and_one(kind), "{kind:?}");
    }
}

/// It would be built again by what comes of it.
#[test]
fn the_state_of_hotctl_among_the_sources_is_none() {
    let config = web(
        "keep_warm = \"0s\"\n[service.web.build]\ncommand = [\"sh\", \"build.sh\"]\n\
         root = \"$FOLDER\"\noutput = \"out/app\"\nwatch = [\"/main\", \"/state\"]\n",
    );
    let build = "set -e\necho . >> begun\ncat main\nmkdir -p out\ncp \"$(cat main)\" out/app\n";
    let daemon = Daemon::start_with(&config, &[("build.sh", build), ("main", "none\n")]);
    eventually("it has begun", || daemon.folder().join("begun").exists());
    for version in ["v1", "v2"] {
        let release = daemon.release(version);
        fs::write(
            daemon.folder().join("main"),
            format!("{}\n", release.display()),
        )
        .unwrap();
        eventually(&format!("{version} is live"), || {
            daemon.get("/").text().trim() == version
        });
    }
    let builds = eventually_some("nothing is built any more", || {
        let before = fs::read_to_string(daemon.folder().join("begun")).ok()?;
        let status = daemon.status();
        let rests = status.service("web").deployment.is_none();
        let after = fs::read_to_string(daemon.folder().join("begun")).ok()?;
        (rests && before == after).then(|| after.lines().count())
    });
    // One that failed, and one a version.
    assert_eq!(builds, 3);
}
