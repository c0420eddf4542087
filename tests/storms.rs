//! Edits of any kind in any order: what is there in the end goes live.

use std::env;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::follower::{Follower, Kind};
use crate::support::program::send;

const ROUNDS: usize = 6;
/// The tree is the one of these that a link leads to.
const TREES: [&str; 2] = ["tree-a", "tree-b"];

#[test]
fn whatever_happens_to_what_is_watched_the_end_of_it_goes_live() {
    storms(Kind::Output);
}

#[test]
fn whatever_happens_to_sources_the_end_of_it_goes_live() {
    storms(Kind::Sources);
}

fn storms(kind: Kind) {
    let seed = env::var("HOTCTL_TEST_SEED").ok();
    let seed = seed.map_or_else(|| fastrand::u64(..), |seed| seed.parse().unwrap());
    println!("{kind:?}: HOTCTL_TEST_SEED={seed}");
    let mut rng = fastrand::Rng::with_seed(seed);
    let follower = Follower::of_tree(kind, "current");
    let mut storm = Storm {
        above: follower.daemon.folder().to_path_buf(),
        tree: follower.place().to_path_buf(),
        held: None,
    };
    for tree in TREES {
        fs::create_dir(storm.above.join(tree)).unwrap();
    }
    symlink(TREES[0], &storm.tree).unwrap();
    let began = Instant::now();
    let mut edits = 0;
    for round in 0..ROUNDS {
        let steps = rng.usize(20..150);
        for _ in 0..steps {
            storm.edit(&mut rng);
            // As long as an editor takes between two calls, or a person between two saves.
            match rng.u8(..20) {
                0 => thread::sleep(Duration::from_millis(rng.u64(..300))),
                1..=4 => thread::sleep(Duration::from_millis(rng.u64(..10))),
                _ => {}
            }
        }
        edits += steps;
        storm.calm();
        // Never the same as before.
        follower.write("end", &format!("of round {round}"));
        follower.is_live(&format!("round {round}, seed {seed}"));
    }
    println!(
        "{kind:?}: {ROUNDS} rounds, {edits} edits in {:.1?}; {:?}",
        began.elapsed(),
        follower.at_rest()
    );
}

/// The system forgets what it has to tell when there is too much of it, and says no more than that.
#[test]
fn what_happens_while_nobody_can_hear_of_it_goes_live() {
    let most = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap();
    let most: usize = most.trim().parse().unwrap();
    for kind in [Kind::Output, Kind::Sources] {
        let follower = Follower::of_tree(kind, "tree");
        follower.write("a/a.go", "package a\n");
        follower.is_live("at first");
        let before = follower.at_rest();
        send(follower.daemon.pid(), Signal::STOP);
        // Two at least a save, and of two files in turn, or they were taken for one.
        for n in 0..=most / 4 {
            follower.write("a/b.go", &format!("package b{n}\n"));
            follower.write("a/c.go", &format!("package c{n}\n"));
        }
        follower.write("new/er/a.go", "package a\n");
        fs::rename(follower.place().join("a"), follower.place().join("b")).unwrap();
        send(follower.daemon.pid(), Signal::CONT);
        follower.is_live("more than can be heard");
        assert_eq!(follower.at_rest(), before.and_one(kind), "{kind:?}");
        // And it hears on, where it could not know that there is something.
        for file in ["new/er/a.go", "b/b.go"] {
            follower.write(file, "package other\n");
            follower.is_live(file);
        }
    }
}

struct Storm {
    above: PathBuf,
    tree: PathBuf,
    /// A file that stays open for a while.
    held: Option<File>,
}

impl Storm {
    /// A path in the tree, as often as not one that is there.
    fn path(&self, rng: &mut fastrand::Rng) -> PathBuf {
        let depth = rng.usize(1..4);
        (0..depth).fold(self.tree.clone(), |at, _| {
            at.join(format!("n{}", rng.u8(..3)))
        })
    }

    /// Whatever cannot be done is left.
    fn edit(&mut self, rng: &mut fastrand::Rng) {
        let at = self.path(rng);
        let text = format!("{}", rng.u64(..));
        let folder = at.parent().unwrap();
        match rng.u8(..26) {
            0..=7 => {
                let _ = fs::create_dir_all(folder);
                let _ = fs::write(&at, text);
            }
            8..=10 => {
                let new = folder.join("new");
                let _ = fs::write(&new, text);
                let _ = fs::rename(&new, &at);
                let _ = fs::remove_file(new);
            }
            11 | 12 => drop(fs::remove_file(&at)),
            13 => drop(fs::remove_dir_all(&at)),
            14..=16 => drop(fs::rename(&at, self.path(rng))),
            17 => drop(symlink("n0", &at)),
            18 => {
                let mode = [0o644, 0o755][rng.usize(..2)];
                let _ = fs::set_permissions(&at, fs::Permissions::from_mode(mode));
            }
            19 => {
                // What tools make is no source.
                let _ = fs::create_dir_all(self.tree.join("target"));
                let _ = fs::write(self.tree.join("target/app"), text);
            }
            20 => self.held = File::create(&at).ok(),
            21 => {
                if let Some(held) = &mut self.held {
                    let _ = held.write_all(text.as_bytes());
                }
            }
            22 => self.swap(TREES[rng.usize(..2)]),
            23 => {
                // There, and back.
                let (tree, aside) = (self.real(), self.above.join("aside"));
                let _ = fs::rename(&tree, &aside);
                let _ = fs::rename(&aside, &tree);
            }
            24 => {
                let tree = self.real();
                let _ = fs::remove_dir_all(&tree);
                let _ = fs::create_dir(&tree);
            }
            _ => {
                // A folder with files in it, from elsewhere.
                let made = self.above.join("made");
                let _ = fs::create_dir_all(made.join("n1"));
                let _ = fs::write(made.join("n1/n2"), &text);
                let _ = fs::write(made.join("n0"), text);
                let _ = fs::rename(&made, &at);
                let _ = fs::remove_dir_all(made);
            }
        }
    }

    /// Where the tree really lies.
    fn real(&self) -> PathBuf {
        self.above.join(fs::read_link(&self.tree).unwrap())
    }

    /// As `ln -sfn` does.
    fn swap(&self, tree: impl AsRef<Path>) {
        let new = self.above.join("current.new");
        symlink(tree.as_ref(), &new).unwrap();
        fs::rename(new, &self.tree).unwrap();
    }

    /// Nothing stays open.
    fn calm(&mut self) {
        if let Some(mut held) = self.held.take() {
            let _ = held.write_all(b"the end");
        }
    }
}
