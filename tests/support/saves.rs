//! The ways in which programs save a file, call by call. Knows the file system and nothing else.

// Each of the programs that include this uses a part of it.
#![allow(dead_code)]

use std::fs::{self, File, FileTimes, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, SystemTime};

/// A way of saving a text as a file that is there, which keeps its mode.
pub type Way = (&'static str, fn(&Path, &str));

/// Longer than what settles in any test: only that the file is open tells that it is not whole.
const PAUSE: Duration = Duration::from_millis(300);

/// Each leaves nothing else behind. Those that make a link come last: what is written through one is
/// written elsewhere.
pub const WAYS: [Way; 19] = [
    ("in place", |app, text| put(app, text)),
    ("in place, in pieces", |app, text| {
        let mut file = File::create(app).unwrap();
        for piece in text.as_bytes().chunks(9) {
            file.write_all(piece).unwrap();
            // Slower than it could be looked between two.
            thread::sleep(Duration::from_millis(5));
        }
    }),
    ("as vim: the old one becomes a backup", |app, text| {
        let swap = hidden(app, "swp");
        put(&swap, "b0VIM 9.1");
        // Whether the folder can be written.
        let probe = app.with_file_name("4913");
        put(&probe, "");
        fs::remove_file(probe).unwrap();
        let backup = beside(app, "~");
        fs::rename(app, &backup).unwrap();
        let mut file = create_new(app);
        file.write_all(text.as_bytes()).unwrap();
        file.sync_all().unwrap();
        drop(file);
        like(app, &backup);
        fs::remove_file(backup).unwrap();
        fs::remove_file(swap).unwrap();
    }),
    (
        "as vim with backupcopy: the backup is a copy",
        |app, text| {
            let backup = beside(app, "~");
            fs::copy(app, &backup).unwrap();
            put(app, text);
            fs::remove_file(backup).unwrap();
        },
    ),
    ("as emacs: a lock, an auto-save, a backup", |app, text| {
        let name = app.file_name().unwrap().to_str().unwrap();
        let lock = app.with_file_name(format!(".#{name}"));
        symlink("me@here.4711:1700000000", &lock).unwrap();
        let auto = app.with_file_name(format!("#{name}#"));
        put(&auto, text);
        let backup = beside(app, "~");
        fs::rename(app, &backup).unwrap();
        drop(create_new(app));
        put(app, text);
        like(app, &backup);
        fs::remove_file(auto).unwrap();
        fs::remove_file(lock).unwrap();
        fs::remove_file(backup).unwrap();
    }),
    ("as VS Code: truncated, and written", |app, text| {
        drop(File::create(app).unwrap());
        put(app, text);
    }),
    (
        "as JetBrains: a temporary file, two renames",
        |app, text| {
            let (new, old) = (beside(app, "___jb_tmp___"), beside(app, "___jb_old___"));
            put(&new, text);
            like(&new, app);
            fs::rename(app, &old).unwrap();
            fs::rename(&new, app).unwrap();
            fs::remove_file(old).unwrap();
        },
    ),
    (
        "as GNOME: a temporary file, a backup by a link",
        |app, text| {
            let new = app.with_file_name(".goutputstream-0A1B2C");
            put(&new, text);
            like(&new, app);
            let backup = beside(app, "~");
            fs::hard_link(app, &backup).unwrap();
            fs::rename(&new, app).unwrap();
            fs::remove_file(backup).unwrap();
        },
    ),
    ("as sed -i: a temporary file, one rename", |app, text| {
        let new = app.with_file_name("sedXyZ12");
        put(&new, text);
        like(&new, app);
        fs::rename(new, app).unwrap();
    }),
    ("as cp over it", |app, text| {
        let from = elsewhere(app, text);
        let mut into = OpenOptions::new()
            .write(true)
            .truncate(true)
            .open(app)
            .unwrap();
        into.write_all(&fs::read(from).unwrap()).unwrap();
    }),
    (
        "as cp -p over it: with the times of the other",
        |app, text| {
            put(app, text);
            long_ago(app);
        },
    ),
    ("as mv over it", |app, text| {
        let from = elsewhere(app, text);
        like(&from, app);
        fs::rename(from, app).unwrap();
    }),
    ("as mv from another disk: removed, copied", |app, text| {
        let from = elsewhere(app, "");
        like(&from, app);
        fs::remove_file(app).unwrap();
        drop(create_new(app));
        put(app, text);
        like(app, &from);
        long_ago(app);
    }),
    (
        "as rsync: a hidden file, its times, one rename",
        |app, text| {
            let new = hidden(app, "Ab3Cd4");
            put(&new, text);
            long_ago(&new);
            like(&new, app);
            fs::rename(new, app).unwrap();
        },
    ),
    ("as rsync --inplace", |app, text| {
        let mut file = OpenOptions::new().write(true).open(app).unwrap();
        file.write_all(text.as_bytes()).unwrap();
        file.set_len(text.len() as u64).unwrap();
        drop(file);
        long_ago(app);
    }),
    (
        "as a linker: removed, made again a moment later",
        |app, text| {
            let mode = fs::metadata(app).unwrap().permissions();
            fs::remove_file(app).unwrap();
            // Less than what settles.
            thread::sleep(Duration::from_millis(10));
            put(app, text);
            fs::set_permissions(app, mode).unwrap();
        },
    ),
    (
        "as docker cp: slowly, held open, with pauses",
        |app, text| {
            let mut file = File::create(app).unwrap();
            for piece in text.as_bytes().chunks(text.len() / 3 + 1) {
                file.write_all(piece).unwrap();
                file.flush().unwrap();
                thread::sleep(PAUSE);
            }
        },
    ),
    ("as ln -sf", link),
    ("as ln -sfn again", link),
];

/// As `git checkout` writes many files: each removed, and made anew.
pub fn checkout(top: &Path, files: impl Iterator<Item = (PathBuf, String)>) {
    let git = top.join(".git");
    fs::create_dir_all(&git).unwrap();
    let lock = git.join("index.lock");
    let mut index = create_new(&lock);
    for (path, text) in files {
        let _ = fs::remove_file(&path);
        create_new(&path).write_all(text.as_bytes()).unwrap();
    }
    index.write_all(b"DIRC").unwrap();
    drop(index);
    fs::rename(lock, git.join("index")).unwrap();
    put(&git.join("HEAD.lock"), "ref: refs/heads/other\n");
    fs::rename(git.join("HEAD.lock"), git.join("HEAD")).unwrap();
}

fn link(app: &Path, text: &str) {
    let target = elsewhere(app, text);
    like(&target, app);
    let new = app.with_file_name("CuXyZ123");
    symlink(target, &new).unwrap();
    fs::rename(new, app).unwrap();
}

fn put(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
}

fn create_new(path: &Path) -> File {
    File::create_new(path).unwrap()
}

fn like(path: &Path, other: &Path) {
    fs::set_permissions(path, fs::metadata(other).unwrap().permissions()).unwrap();
}

fn long_ago(path: &Path) {
    let times = FileTimes::new().set_modified(SystemTime::UNIX_EPOCH);
    File::open(path).unwrap().set_times(times).unwrap();
}

fn beside(app: &Path, end: &str) -> PathBuf {
    let name = app.file_name().unwrap().to_str().unwrap();
    app.with_file_name(format!("{name}{end}"))
}

fn hidden(app: &Path, end: &str) -> PathBuf {
    let name = app.file_name().unwrap().to_str().unwrap();
    app.with_file_name(format!(".{name}.{end}"))
}

/// A file of this text, not in the folder that is watched but above it.
fn elsewhere(app: &Path, text: &str) -> PathBuf {
    let above = app.parent().and_then(Path::parent).unwrap();
    let mut all = (0..).map(|n| above.join(format!("from-{n}")));
    let path = all.find(|path| !path.exists()).unwrap();
    put(&path, text);
    path
}
