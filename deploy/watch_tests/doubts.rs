//! What the system says of a file and of changes, where it does not say enough.

use std::fs::{self, File, FileTimes};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Plan, begin, changed, plan, quiet, sources, temp, write};

/// In place, of the same size, with the times that it had.
fn put_secretly(path: &Path, text: &str) {
    let meta = fs::metadata(path).unwrap();
    assert_eq!(meta.len(), text.len() as u64);
    let mut file = File::options().write(true).open(path).unwrap();
    file.write_all(text.as_bytes()).unwrap();
    let modified = meta.modified().unwrap();
    file.set_times(FileTimes::new().set_modified(modified))
        .unwrap();
}

#[tokio::test]
async fn a_file_of_the_same_size_and_time_with_another_content_is_a_change() {
    for plan in [plan, sources] {
        let (_temp, root) = temp();
        write(&root.join("app"), "one");
        let (mut watch, ..) = begin(plan(&root)).await;
        quiet(&mut watch).await;
        put_secretly(&root.join("app"), "two");
        assert_eq!(changed(&mut watch).await, [PathBuf::from("app")]);
        quiet(&mut watch).await;
    }
}

/// The system's clock for the times of files stands still for some milliseconds: what is written again
/// meanwhile bears the same.
#[tokio::test]
async fn a_file_that_is_written_again_in_the_moment_of_the_look_is_a_change() {
    for plan in [plan, sources] {
        let (_temp, root) = temp();
        let app = root.join("app");
        for round in 0..20 {
            write(&app, &format!("{round:03}"));
            let (mut watch, ..) = begin(plan(&root)).await;
            put_secretly(&app, &format!("{:03}", round + 100));
            assert_eq!(changed(&mut watch).await, [PathBuf::from("app")]);
        }
    }
}

#[tokio::test]
async fn a_source_that_is_saved_as_it_was_is_no_change() {
    let (_temp, root) = temp();
    let files = ["a.go", "deep/b.go"].map(|name| root.join(name));
    files.iter().for_each(|path| write(path, "package main"));
    let (mut watch, ..) = begin(sources(&root)).await;
    for path in &files {
        write(path, "package main");
        // As git does, there and back.
        fs::remove_file(path).unwrap();
        write(path, "package other");
        fs::remove_file(path).unwrap();
        write(path, "package main");
        File::open(path)
            .unwrap()
            .set_modified(std::time::SystemTime::UNIX_EPOCH)
            .unwrap();
    }
    fs::rename(root.join("deep"), root.join("deeper")).unwrap();
    fs::rename(root.join("deeper"), root.join("deep")).unwrap();
    quiet(&mut watch).await;
    write(&files[1], "package other");
    assert_eq!(changed(&mut watch).await, [PathBuf::from("deep/b.go")]);
    write(&files[1], "package main");
    assert_eq!(changed(&mut watch).await, [PathBuf::from("deep/b.go")]);
}

/// Much that counts for nothing.
type Storm = (&'static str, fn(&Path));

/// More is told at once than may lie unread, and most of it counts for nothing.
#[tokio::test]
async fn a_change_among_many_events_that_count_for_nothing_is_not_lost() {
    let storms: [Storm; 2] = [
        ("read", |root| {
            for _ in 0..2000 {
                fs::read(root.join("a")).unwrap();
                fs::read(root.join("b")).unwrap();
            }
        }),
        ("left out", |root| {
            for n in 0..2000 {
                write(&root.join("a.log"), &format!("{n}"));
                write(&root.join("b.log"), &format!("{n}"));
            }
        }),
    ];
    for (name, storm) in storms {
        let (_temp, root) = temp();
        for file in ["a", "b", "app"] {
            write(&root.join(file), "x");
        }
        let plan = Plan {
            ignore: vec!["*.log".to_owned()],
            ..plan(&root)
        };
        let (mut watch, ..) = begin(plan).await;
        quiet(&mut watch).await;
        // Nobody hears meanwhile: this is the only thread, but for that of the system's watcher.
        storm(&root);
        write(&root.join("app"), "another");
        // Until that has told all it can: what comes afterwards would be heard in any case.
        std::thread::sleep(Duration::from_millis(300));
        println!("{name}");
        assert_eq!(changed(&mut watch).await, [PathBuf::from("app")]);
        quiet(&mut watch).await;
    }
}
