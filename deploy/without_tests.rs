//! Trees with files of patterns in many folders, beside what git says of them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::Without;

/// A folder with these files in it; what stands in none is written as its own name.
fn tree(files: &[(&str, &str)]) -> (tempfile::TempDir, PathBuf) {
    let temp = tempfile::tempdir().unwrap();
    let root = fs::canonicalize(temp.path()).unwrap();
    for (name, text) in files {
        let path = root.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    (temp, root)
}

/// The files that are kept, by their paths within the root, sorted.
fn kept(root: &Path, mut without: Without) -> Vec<String> {
    let mut all = Vec::new();
    let mut folders = vec![root.to_path_buf()];
    while let Some(folder) = folders.pop() {
        let listed = fs::read_dir(&folder).unwrap();
        let names: Vec<_> = listed.map(|entry| entry.unwrap().file_name()).collect();
        without.enter(&folder, names.iter()).unwrap();
        for name in names {
            let path = folder.join(name);
            match path.is_dir() {
                is_dir if without.leaves_out(&path, is_dir) => {
                    assert!(without.leaves_out_all(&path))
                }
                true => folders.push(path),
                false => {
                    assert!(!without.leaves_out_all(&path));
                    all.push(path.strip_prefix(root).unwrap().display().to_string());
                }
            }
        }
    }
    all.sort_unstable();
    all
}

fn sources(root: &Path) -> Without {
    Without::of_sources(root, &[], &[], "src").unwrap()
}

/// A repository with what people write into files of patterns, the project in a folder of it.
const REPOSITORY: [(&str, &str); 27] = [
    (".git/HEAD", ""),
    (
        ".gitignore",
        "\u{feff}*.tmp\n/project/generated/\n*.pem\n!/project/kept.pem\n",
    ),
    (
        "project/.gitignore",
        "*.log\r\n!keep.log\nbuild/\n/top.txt\n# a comment\n[z-a]\n\\#odd\n",
    ),
    ("project/main.go", ""),
    ("project/a.tmp", ""),
    ("project/a.pem", ""),
    ("project/kept.pem", ""),
    ("project/generated/x.go", ""),
    ("project/deep/generated/x.go", ""),
    ("project/top.txt", ""),
    ("project/#odd", ""),
    ("project/deep/top.txt", ""),
    ("project/deep/build/out", ""),
    ("project/deep/a.log", ""),
    ("project/deep/keep.log", ""),
    // It takes back in what is left out above it, and leaves out what is taken in.
    (
        "project/sub/.gitignore",
        "!*.log\n/keep.log\n!*.tmp\n*.dat\n!er/**/yes.dat\n",
    ),
    ("project/sub/a.log", ""),
    ("project/sub/a.tmp", ""),
    ("project/sub/keep.log", ""),
    ("project/sub/er/keep.log", ""),
    ("project/sub/er/no.dat", ""),
    ("project/sub/er/yes.dat", ""),
    ("project/sub/er/.gitignore", "b.log\n"),
    ("project/sub/er/b.log", ""),
    // Only what is asked for, as in a list of what is allowed.
    ("project/vendor/.gitignore", "*\n!*/\n!*.c\n!.gitignore\n"),
    ("project/vendor/lib/a.c", ""),
    ("project/vendor/lib/a.o", ""),
];

#[test]
fn each_folder_says_what_is_left_out_below_it_and_the_deepest_has_the_first_word() {
    let (_temp, top) = tree(&REPOSITORY);
    let root = top.join("project");
    let kept = kept(&root, sources(&root));
    let wanted = [
        ".gitignore",
        "deep/generated/x.go",
        "deep/keep.log",
        "deep/top.txt",
        "kept.pem",
        "main.go",
        "sub/.gitignore",
        "sub/a.log",
        "sub/a.tmp",
        "sub/er/.gitignore",
        "sub/er/keep.log",
        "sub/er/yes.dat",
        "vendor/.gitignore",
        "vendor/lib/a.c",
    ];
    assert_eq!(kept, wanted);

    let git = |args: &[&str]| {
        let mut git = Command::new("git");
        git.args(args)
            .current_dir(&root)
            .env("GIT_CONFIG_GLOBAL", "/dev/null");
        git.output().ok().filter(|out| out.status.success())
    };
    fs::remove_dir_all(top.join(".git")).unwrap();
    if git(&["init", "--quiet", ".."]).is_none() {
        println!("not compared: there is no git");
        return;
    }
    let listed = git(&["ls-files", "--others", "--exclude-standard"]).unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    let mut listed: Vec<_> = listed.lines().collect();
    listed.sort_unstable();
    assert_eq!(listed, wanted, "git says something else");
    println!("git says the same of {} files", listed.len());
}

#[test]
fn what_is_said_above_counts_up_to_the_top_of_the_repository_only() {
    let files = [
        (".gitignore", "main.go\n"),
        ("repo/.gitignore", "*.log\nsrc\n"),
        ("repo/.ignore", "*.a\n"),
        ("repo/.hotctlignore", "*.b\n!*.c\n"),
        ("repo/src/.ignore", "*.c\n"),
        ("repo/src/main.go", ""),
        ("repo/src/a.log", ""),
        ("repo/src/a.a", ""),
        ("repo/src/a.b", ""),
        ("repo/src/a.c", ""),
    ];
    let (_temp, top) = tree(&files);
    let (repo, root) = (top.join("repo"), top.join("repo/src"));
    let all = [".ignore", "a.a", "a.b", "a.log", "main.go"];
    assert_eq!(kept(&root, sources(&root)), all, "no repository");
    assert!(Without::files_above(&root).is_empty());
    // As in a worktree: a file. The root itself was named, so that it is left out counts for nothing.
    fs::write(repo.join(".git"), "gitdir: elsewhere\n").unwrap();
    assert_eq!(kept(&root, sources(&root)), [".ignore", "main.go"]);
    let above = [".gitignore", ".ignore", ".hotctlignore"].map(|file| repo.join(file));
    assert_eq!(Without::files_above(&root), above);
    fs::create_dir(root.join(".git")).unwrap();
    assert_eq!(kept(&root, sources(&root)), all, "a repository in it");
}

#[test]
fn what_is_configured_counts_least_and_what_hotctl_writes_in_any_case() {
    let files = [
        (".hotctlignore", "!a.log\n!state\n"),
        ("a.log", ""),
        ("b.log", ""),
        ("state/record", ""),
        ("target/app", ""),
        ("sub/target/app", ""),
    ];
    let (_temp, root) = tree(&files);
    let ignore = ["*.log".to_owned()];
    let never = [root.join("state"), root.clone()];
    let without = Without::of_sources(&root, &ignore, &[], "src").unwrap();
    assert_eq!(kept(&root, without.never(&never)), ["a.log"]);
    let without = Without::of(&root, &ignore, "out").unwrap();
    let all = ["a.log", "sub/target/app", "target/app"];
    assert_eq!(kept(&root, without.never(&never)), all);
}

/// Somebody else's file that is no list of patterns leaves out nothing; ours is told.
#[test]
fn only_what_is_written_for_hotctl_must_be_patterns() {
    let (_temp, root) = tree(&[("sub/.hotctlignore", "ok\n[z-a]\n"), ("sub/a", "")]);
    fs::create_dir(root.join(".gitignore")).unwrap();
    fs::write(root.join(".ignore"), b"\xff\xfe\n*.log\n").unwrap();
    fs::write(root.join("a.log"), "").unwrap();
    let mut without = sources(&root);
    assert!(without.leaves_out(&root.join("a.log"), false));
    let names = ["a".into(), ".hotctlignore".into()];
    let wrong = without.enter(&root.join("sub"), names.iter()).unwrap_err();
    let text = wrong.to_string();
    assert!(text.starts_with("sub/.hotctlignore:2: "), "{text}");
}
