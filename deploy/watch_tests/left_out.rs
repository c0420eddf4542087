//! What is left out of what is watched, as files of patterns in many folders say, and say anew.

use std::fs;
use std::path::{Path, PathBuf};

use super::{Watch, begin, changed, plan, quiet, sources, temp, write};

#[tokio::test]
async fn what_is_left_out_costs_no_watch_and_says_nothing() {
    let (_temp, root) = temp();
    let out = root.join("out");
    write(&out.join("app"), "x");
    write(&out.join(".hotctlignore"), "/cache\n*.log\n");
    for n in 0..2000 {
        write(&out.join(format!("cache/{}/{n}", n % 200)), "x");
    }
    let mut asked = plan(&out);
    asked.ignore = vec!["node_modules".to_owned()];
    write(&out.join("sub/node_modules/lib/a.js"), "x");
    let (mut watch, _, folders) = begin(asked).await;
    // Where it lies, itself, and `sub`.
    assert_eq!(folders, 3);
    write(&out.join("cache/7/new"), "x");
    write(&out.join("sub/today.log"), "x");
    write(&out.join("sub/node_modules/lib/b.js"), "x");
    write(&out.join(".git/HEAD"), "x");
    quiet(&mut watch).await;
    // What is left out is read again.
    write(&out.join(".hotctlignore"), "*.log\n");
    let paths = changed(&mut watch).await;
    assert!(
        paths.contains(&PathBuf::from("cache/7/new")),
        "{}",
        paths.len()
    );
}

/// That each of these is a change, of this path alone.
async fn counts(watch: &mut Watch, root: &Path, files: &[&str]) {
    for file in files {
        write(
            &root.join(file),
            &format!("{:?}", std::time::Instant::now()),
        );
        assert_eq!(changed(watch).await, [PathBuf::from(file)]);
    }
}

/// That none of these is.
async fn counts_for_nothing(watch: &mut Watch, root: &Path, files: &[&str]) {
    for file in files {
        write(&root.join(file), "another");
    }
    quiet(watch).await;
}

/// Save a file of patterns, which is a source itself.
async fn says(watch: &mut Watch, path: &Path, lines: &str) -> Vec<PathBuf> {
    write(path, lines);
    changed(watch).await
}

#[tokio::test]
async fn sources_are_left_out_as_the_files_of_patterns_in_each_folder_say_and_say_anew() {
    let (_temp, root) = temp();
    write(&root.join(".gitignore"), "*.log\n/generated/\n");
    write(&root.join("web/.gitignore"), "/dist/\n!keep.log\n");
    write(&root.join("web/dist/a.js"), "x");
    write(&root.join("web/src/a.js"), "x");
    write(&root.join("generated/deep/a.go"), "x");
    let (mut watch, _, folders) = begin(sources(&root)).await;
    // Where it lies, itself, `web` and `web/src`.
    assert_eq!(folders, 4);
    let left_out = ["web/dist/a.js", "web/a.log", "generated/deep/a.go", "a.log"];
    counts_for_nothing(&mut watch, &root, &left_out).await;
    counts(
        &mut watch,
        &root,
        &["web/keep.log", "web/src/a.js", "dist/a.js"],
    )
    .await;
    // Said anew where it was said, where nothing was, and in a folder that comes with it.
    let paths = says(&mut watch, &root.join("web/.gitignore"), "/src/\n").await;
    let paths: Vec<_> = paths.iter().map(|path| path.to_str().unwrap()).collect();
    let all = [
        "web/.gitignore",
        "web/dist/a.js",
        "web/keep.log",
        "web/src/a.js",
    ];
    assert_eq!(paths, all);
    counts_for_nothing(&mut watch, &root, &["web/src/a.js", "web/keep.log"]).await;
    counts(&mut watch, &root, &["web/dist/a.js"]).await;
    says(&mut watch, &root.join("web/dist/.ignore"), "a.js\n").await;
    counts_for_nothing(&mut watch, &root, &["web/dist/a.js"]).await;
    counts(&mut watch, &root, &["web/dist/b.js"]).await;
    says(&mut watch, &root.join("new/er/.gitignore"), "*.o\n").await;
    counts_for_nothing(&mut watch, &root, &["new/er/a.o"]).await;
    counts(&mut watch, &root, &["new/a.o"]).await;
    // And said no more.
    fs::remove_file(root.join(".gitignore")).unwrap();
    changed(&mut watch).await;
    counts(&mut watch, &root, &["generated/deep/a.go", "a.log"]).await;
}

#[tokio::test]
async fn what_the_top_of_the_repository_says_counts_and_is_read_again() {
    let (_temp, top) = temp();
    write(&top.join("repo/.git/HEAD"), "ref: refs/heads/main\n");
    write(&top.join("repo/.gitignore"), "*.log\n/apps/web/dist\n");
    let root = top.join("repo/apps/web");
    write(&root.join("a.log"), "x");
    write(&root.join("dist/a.js"), "x");
    write(&root.join("a.js"), "x");
    let (mut watch, _, folders) = begin(sources(&root)).await;
    // The top of the repository, where it lies, and itself.
    assert_eq!(folders, 3);
    counts_for_nothing(&mut watch, &root, &["a.log", "dist/a.js"]).await;
    // Of the folders above only what says what is left out.
    counts_for_nothing(&mut watch, &root, &["../../readme", "../readme"]).await;
    let paths = says(&mut watch, &top.join("repo/.gitignore"), "*.js\n").await;
    let all = ["a.js", "a.log"].map(PathBuf::from);
    assert_eq!(paths, all);
    counts_for_nothing(&mut watch, &root, &["a.js", "dist/a.js"]).await;
    counts(&mut watch, &root, &["a.log"]).await;
    // Where nothing stood.
    let paths = says(&mut watch, &top.join("repo/apps/.ignore"), "!*.js\n").await;
    let all = ["a.js", "dist/a.js"].map(PathBuf::from);
    assert_eq!(paths, all);
}

#[tokio::test]
async fn what_hotctl_itself_writes_among_sources_is_none() {
    let (_temp, root) = temp();
    write(&root.join("a.js"), "x");
    write(&root.join(".ignore"), "!*\n");
    let mut plan = sources(&root);
    plan.never = vec![root.join("kept/state [1]")];
    let (mut watch, ..) = begin(plan).await;
    let own = [
        "out",
        "kept/state [1]/record",
        "kept/state [1]/logs/build.log",
    ];
    counts_for_nothing(&mut watch, &root, &own).await;
    counts(&mut watch, &root, &["a.js", "kept/a.js"]).await;
}
