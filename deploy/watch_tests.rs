//! Real files, saved in the ways in which programs save them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Explain, Found, Kind, Plan, Told, Watch};

#[path = "watch_tests/doubts.rs"]
mod doubts;
#[path = "watch_tests/left_out.rs"]
mod left_out;
#[path = "watch_tests/ways.rs"]
mod ways;

const SETTLE: Duration = Duration::from_millis(50);
/// Longer than the machine takes for anything here.
const PATIENCE: Duration = Duration::from_secs(20);
/// That nothing is told can only be seen by waiting: several times as long as it would take here.
const QUIET: Duration = Duration::from_millis(400);

fn temp() -> (tempfile::TempDir, PathBuf) {
    let temp = tempfile::tempdir().unwrap();
    let root = fs::canonicalize(temp.path()).unwrap();
    (temp, root)
}

fn plan(path: &Path) -> Plan {
    Plan {
        path: path.to_path_buf(),
        ignore: Vec::new(),
        never: Vec::new(),
        kind: Kind::Output,
        settle: SETTLE,
        max_wait: Duration::from_secs(1),
        explain: Explain::Nothing,
    }
}

/// Of sources, of which `out` is made.
fn sources(root: &Path) -> Plan {
    Plan {
        kind: Kind::Sources {
            only: Vec::new(),
            output: Some(root.join("out")),
        },
        ..plan(root)
    }
}

async fn begin(plan: Plan) -> (Watch, Found, usize) {
    let mut watch = Watch::begin(plan);
    let told = tokio::time::timeout(PATIENCE, watch.next()).await.unwrap();
    let Some(Told::Begins { found, folders }) = told else {
        panic!("{told:?}");
    };
    (watch, found, folders)
}

/// The next change.
async fn changed(watch: &mut Watch) -> Vec<PathBuf> {
    loop {
        let told = tokio::time::timeout(PATIENCE, watch.next()).await;
        match told.expect("it is told").unwrap() {
            Told::Changed { paths, .. } => return paths,
            Told::Gone => return vec![PathBuf::from("gone")],
            _ => {}
        }
    }
}

/// That no other follows.
async fn quiet(watch: &mut Watch) {
    let told = tokio::time::timeout(QUIET, watch.next()).await;
    assert!(told.is_err(), "{told:?}");
}

fn write(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

/// Nobody says anything of it that could be heard but that it was closed.
#[tokio::test]
async fn what_is_still_being_written_when_the_watch_begins_is_told_when_it_is_whole() {
    let (_temp, root) = temp();
    let app = root.join("app");
    let mut file = File::create(&app).unwrap();
    file.write_all(b"whole, but open").unwrap();
    let (mut watch, found, _) = begin(plan(&app)).await;
    assert_eq!(found, Found::Nothing);
    let told = tokio::time::timeout(PATIENCE, watch.next()).await.unwrap();
    assert!(matches!(told, Some(Told::Waits(_))), "{told:?}");
    // Said once, however often it is looked.
    quiet(&mut watch).await;
    drop(file);
    assert_eq!(changed(&mut watch).await, [PathBuf::new()]);
    quiet(&mut watch).await;
}

#[tokio::test]
async fn what_stays_open_in_a_folder_holds_up_no_change_of_the_rest() {
    let (_temp, root) = temp();
    let out = root.join("out");
    write(&out.join("app"), "one");
    let mut kept = File::create(out.join("kept.db")).unwrap();
    kept.write_all(b"rows").unwrap();
    let (mut watch, found, _) = begin(plan(&out)).await;
    assert_eq!(found, Found::Something);
    write(&out.join("app"), "another");
    assert_eq!(changed(&mut watch).await, [PathBuf::from("app")]);
    quiet(&mut watch).await;
}

#[tokio::test]
async fn a_source_that_stays_open_holds_up_no_other_and_counts_when_it_is_closed() {
    let (_temp, root) = temp();
    write(&root.join("main.go"), "one");
    let mut log = File::create(root.join("app.log")).unwrap();
    log.write_all(b"begins").unwrap();
    let (mut watch, found, _) = begin(sources(&root)).await;
    assert_eq!(found, Found::Something);
    log.write_all(b"goes on").unwrap();
    write(&root.join("main.go"), "another");
    assert_eq!(changed(&mut watch).await, [PathBuf::from("main.go")]);
    write(&root.join("out"), "what is made of it");
    fs::create_dir(root.join("uploads")).unwrap();
    quiet(&mut watch).await;
    drop(log);
    assert_eq!(changed(&mut watch).await, [PathBuf::from("app.log")]);
}

#[tokio::test]
async fn who_only_reads_changes_nothing() {
    let (_temp, root) = temp();
    for n in 0..100 {
        write(&root.join(format!("out/{n}")), "text");
    }
    let (mut watch, ..) = begin(plan(&root.join("out"))).await;
    for _ in 0..100 {
        for n in 0..100 {
            let mut text = String::new();
            let mut file = File::open(root.join(format!("out/{n}"))).unwrap();
            file.read_to_string(&mut text).unwrap();
        }
        fs::read_dir(root.join("out")).unwrap().for_each(drop);
    }
    quiet(&mut watch).await;
    // What is as before is no change either, and what can be run now is one.
    write(&root.join("out/new"), "x");
    fs::remove_file(root.join("out/new")).unwrap();
    quiet(&mut watch).await;
    fs::set_permissions(root.join("out/7"), fs::Permissions::from_mode(0o755)).unwrap();
    assert_eq!(changed(&mut watch).await, [PathBuf::from("7")]);
}

#[tokio::test]
async fn a_link_that_is_swapped_leads_to_another_content() {
    let (_temp, root) = temp();
    for n in 1..4 {
        write(&root.join(format!("releases/{n}/app")), &format!("{n}"));
    }
    let current = root.join("current");
    symlink("releases/1", &current).unwrap();
    let (mut watch, ..) = begin(plan(&current)).await;
    for n in 2..4 {
        // As `ln -sfn` does, and `mv -T`.
        let new = root.join("current.tmp");
        symlink(format!("releases/{n}"), &new).unwrap();
        fs::rename(&new, &current).unwrap();
        assert_eq!(changed(&mut watch).await, [PathBuf::from("app")]);
        // Where it leads now is watched, and where it led is not.
        write(&root.join(format!("releases/{n}/app")), "other");
        assert_eq!(changed(&mut watch).await, [PathBuf::from("app")]);
        write(&root.join("releases/1/app"), &format!("nobody runs it {n}"));
        quiet(&mut watch).await;
    }
}

#[tokio::test]
async fn what_is_removed_and_made_again_is_watched_again() {
    let (_temp, root) = temp();
    let out = root.join("build/out");
    let (mut watch, found, _) = begin(plan(&out)).await;
    assert_eq!(found, Found::Nothing);
    for round in 0..3 {
        // Folders with files in them before anybody can watch them.
        write(&out.join("a/b/c/app"), &format!("{round}"));
        assert!(
            changed(&mut watch)
                .await
                .contains(&PathBuf::from("a/b/c/app"))
        );
        write(&out.join("a/b/c/app"), &format!("{round} again"));
        assert_eq!(changed(&mut watch).await, [PathBuf::from("a/b/c/app")]);
        fs::remove_dir_all(root.join("build")).unwrap();
        assert_eq!(changed(&mut watch).await, [PathBuf::from("gone")]);
    }
    // In one moment: what is there now counts.
    write(&out.join("app"), "one");
    changed(&mut watch).await;
    fs::remove_dir_all(&out).unwrap();
    write(&out.join("app"), "another");
    assert_eq!(changed(&mut watch).await, [PathBuf::from("app")]);
    write(&out.join("app"), "and another");
    assert_eq!(changed(&mut watch).await, [PathBuf::from("app")]);
}

#[tokio::test]
async fn where_changes_go_on_and_on_it_is_told_after_a_while() {
    let (_temp, root) = temp();
    let out = root.join("out");
    write(&out.join("app"), "x");
    let (mut watch, ..) = begin(plan(&out)).await;
    let busy = tokio::spawn(async move {
        for n in 0.. {
            write(&out.join("app"), &format!("{n}"));
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    changed(&mut watch).await;
    changed(&mut watch).await;
    busy.abort();
}

/// Any order of edits: in the end, what was told last is what is there.
#[tokio::test]
async fn whatever_happens_to_files_the_end_of_it_is_told() {
    let seed = std::env::var("HOTCTL_TEST_SEED").ok();
    let seed = seed.map_or_else(|| fastrand::u64(..), |seed| seed.parse().unwrap());
    println!("HOTCTL_TEST_SEED={seed}");
    let mut rng = fastrand::Rng::with_seed(seed);
    let (_temp, root) = temp();
    let out = root.join("out");
    write(&out.join("app"), "x");
    let (mut watch, ..) = begin(plan(&out)).await;
    for round in 0..20 {
        for step in 0..rng.usize(1..40) {
            edit(&mut rng, &root, &out);
            if rng.u8(..10) == 0 {
                tokio::time::sleep(Duration::from_millis(rng.u64(..60))).await;
            }
            // Nobody listens meanwhile, at times.
            if step % 3 == 0 {
                while watch.ready().is_some() {}
            }
        }
        let text = format!("the end of round {round}");
        write(&out.join("end"), &text);
        loop {
            let paths = changed(&mut watch).await;
            if paths.contains(&PathBuf::from("end")) {
                break;
            }
        }
        assert_eq!(fs::read_to_string(out.join("end")).unwrap(), text);
        // And it hears on.
        while tokio::time::timeout(QUIET, watch.next()).await.is_ok() {}
    }
}

fn edit(rng: &mut fastrand::Rng, root: &Path, out: &Path) {
    let path = |rng: &mut fastrand::Rng| {
        let depth = rng.usize(1..4);
        (0..depth).fold(out.to_path_buf(), |at, _| {
            at.join(format!("n{}", rng.u8(..3)))
        })
    };
    let at = path(rng);
    // Whatever cannot be done is left.
    match rng.u8(..8) {
        0..=2 => {
            let _ = fs::create_dir_all(at.parent().unwrap());
            let _ = fs::write(&at, format!("{}", rng.u64(..)));
        }
        3 => drop(fs::remove_file(&at)),
        4 => drop(fs::remove_dir_all(&at)),
        5 => drop(fs::rename(&at, path(rng))),
        6 => {
            let aside = root.join("aside");
            let _ = fs::remove_dir_all(&aside);
            let _ = fs::rename(out, &aside);
            let _ = fs::create_dir(out);
        }
        _ => drop(symlink("n0", &at)),
    }
}
