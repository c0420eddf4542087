//! Each way of saving, for what is watched as a file, in a folder and among sources.

use std::fs;
use std::path::{Path, PathBuf};

use super::{Plan, begin, changed, plan, quiet, sources, temp, write};

#[path = "../../tests/support/saves.rs"]
mod saves;

type Watched = (&'static str, fn(&Path) -> Plan, &'static str);

const WATCHED: [Watched; 3] = [
    ("a file", |folder| plan(&folder.join("app")), ""),
    ("a folder", plan, "app"),
    ("sources", sources, "app"),
];

#[tokio::test(flavor = "multi_thread")]
async fn each_way_of_saving_is_told_once_with_the_final_content() {
    let all = WATCHED
        .into_iter()
        .flat_map(|watched| saves::WAYS.map(|way| (watched, way)));
    let all = all.map(|(watched, way)| tokio::spawn(is_told_once(watched, way)));
    // Side by side: each waits for most of its time.
    for one in futures_util::future::join_all(all).await {
        one.unwrap();
    }
}

async fn is_told_once((kind, plan, inside): Watched, (name, save): saves::Way) {
    let (_temp, root) = temp();
    let app = root.join("folder/app");
    write(&app, "before");
    let (mut watch, ..) = begin(plan(&root.join("folder"))).await;
    let saved = app.clone();
    let saving = tokio::task::spawn_blocking(move || save(&saved, "quite another content"));
    let paths = changed(&mut watch).await;
    let text = fs::read_to_string(&app).unwrap();
    assert_eq!(
        text, "quite another content",
        "{kind}, {name}: told too early"
    );
    assert_eq!(paths, [PathBuf::from(inside)], "{kind}, {name}");
    saving.await.unwrap();
    quiet(&mut watch).await;
}

#[tokio::test]
async fn a_checkout_of_many_files_is_one_change() {
    for plan in [plan, sources] {
        let (_temp, root) = temp();
        let top = root.join("tree");
        let files = |text: &'static str| {
            let top = top.clone();
            (0..500).map(move |n| (top.join(format!("{}/{n}", n % 20)), format!("{text} {n}")))
        };
        files("before").for_each(|(path, text)| write(&path, &text));
        let (mut watch, ..) = begin(plan(&top)).await;
        saves::checkout(&top, files("after"));
        assert_eq!(changed(&mut watch).await.len(), 500);
        quiet(&mut watch).await;
    }
}
