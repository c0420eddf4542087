//! What the system says of a file and of changes, where it does not say enough.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Plan, begin, changed, plan, quiet, temp, write};

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
