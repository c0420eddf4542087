//! The store with real files: what goes in comes out the same, and what should not go in does not.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

use futures_util::stream;

use super::*;
use crate::pack;

fn store() -> (tempfile::TempDir, Store) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path().join("releases")).unwrap();
    (folder, store)
}

async fn put(store: &Store, path: &Path) -> Result<Digest, Refused> {
    put_without(store, path, &[]).await
}

async fn put_without(store: &Store, path: &Path, ignore: &[&str]) -> Result<Digest, Refused> {
    let ignore: Vec<String> = ignore.iter().map(ToString::to_string).collect();
    let mut packed = pack::pack(path, &ignore, &[])?;
    let mut bytes = Vec::new();
    packed
        .reader
        .read_to_end(&mut bytes)
        .map_err(|cause| Refused::new(cause.to_string()))?;
    let pieces: Vec<_> = bytes
        .chunks(1000)
        .map(|c| Ok(Bytes::copy_from_slice(c)))
        .collect();
    store.put(packed.upload, stream::iter(pieces)).await
}

fn script(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_copied_never_linked_and_known_by_its_content() {
    let (folder, store) = store();
    let (one, two) = (folder.path().join("one"), folder.path().join("two"));
    script(&one, "#!/bin/sh\necho 1\n");
    script(&two, "#!/bin/sh\necho 1\n");
    let digest = put(&store, &one).await.unwrap();
    assert_eq!(put(&store, &two).await.unwrap(), digest);
    let stored = store.get(&digest).unwrap();
    assert_eq!(stored.kind, Kind::File);
    assert_ne!(
        fs::metadata(&stored.path).unwrap().ino(),
        fs::metadata(&one).unwrap().ino()
    );
    script(&one, "#!/bin/sh\necho 2\n");
    assert_eq!(
        fs::read_to_string(&stored.path).unwrap(),
        "#!/bin/sh\necho 1\n"
    );
    assert_ne!(put(&store, &one).await.unwrap(), digest);
    let (program, cwd) = stored
        .command(&[], &["--x".into()], Path::new("/data"))
        .unwrap();
    assert_eq!(program, [stored.path.display().to_string(), "--x".into()]);
    assert_eq!(cwd, Path::new("/data"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_comes_without_git_and_env_and_runs_where_it_is() {
    let (folder, store) = store();
    let web = folder.path().join("web");
    fs::create_dir_all(web.join(".git")).unwrap();
    fs::create_dir_all(web.join("lib")).unwrap();
    fs::create_dir_all(web.join(".hotctl/state")).unwrap();
    fs::write(web.join(".env"), "SECRET=1").unwrap();
    fs::write(web.join(".git/config"), "").unwrap();
    fs::write(web.join("lib/a.js"), "a").unwrap();
    script(&web.join("start"), "#!/bin/sh\n");
    let digest = put(&store, &web).await.unwrap();
    let stored = store.get(&digest).unwrap();
    assert!(stored.path.join("lib/a.js").exists());
    assert!(!stored.path.join(".git").exists());
    assert!(!stored.path.join(".env").exists());
    // Each release would be twice as large as the one before.
    assert!(!stored.path.join(".hotctl").exists());
    let run = |args: &[&str]| {
        let args: Vec<String> = args.iter().map(ToString::to_string).collect();
        stored
            .command(&["node".into(), "run.js".into()], &args, Path::new("/"))
            .unwrap()
            .0
    };
    assert_eq!(run(&[]), ["node", "run.js"]);
    assert_eq!(
        run(&["./start"]),
        [stored.path.join("./start").display().to_string()]
    );
    assert_eq!(
        run(&["start"]),
        [stored.path.join("start").display().to_string()]
    );
    assert_eq!(run(&["python3", "-m", "x"]), ["python3", "-m", "x"]);
    assert!(stored.command(&[], &[], Path::new("/")).is_err());
    // The same content again, under another name, is the same release.
    let copy = folder.path().join("copy");
    fs::rename(&web, &copy).unwrap();
    fs::remove_file(copy.join(".env")).unwrap();
    assert_eq!(put(&store, &copy).await.unwrap(), digest);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_patterns_name_is_left_out_of_a_folder() {
    let (folder, store) = store();
    let web = folder.path().join("web");
    for path in [
        "target/big",
        "app.log",
        "logs/a.log",
        "logs/keep.log",
        "src/target/x",
        "src/main.js",
        "node_modules/x/y.js",
    ] {
        let path = web.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "x").unwrap();
    }
    fs::write(web.join(".env"), "SECRET=1").unwrap();
    let lines = "# not these\n\n*.log\n!keep.log\n!.env\n!.git\n";
    fs::write(web.join(".hotctlignore"), lines).unwrap();
    // Not even opened: it could not be read.
    std::os::unix::fs::symlink("/nowhere", web.join("target/absolute")).unwrap();
    let digest = put_without(
        &store,
        &web,
        &["/target", "node_modules/", "*.js", "!main.js"],
    )
    .await
    .unwrap();
    let there = |path: &str| store.get(&digest).unwrap().path.join(path).exists();
    for path in ["logs/keep.log", "src/target/x", "src/main.js"] {
        assert!(there(path), "{path}");
    }
    for path in [
        "target",
        "app.log",
        "logs/a.log",
        "node_modules",
        ".env",
        ".hotctlignore",
    ] {
        assert!(!there(path), "{path}");
    }
    // The file has the last word.
    fs::write(web.join(".hotctlignore"), "!*.js\n").unwrap();
    let other = put_without(&store, &web, &["/target", "*.js"])
        .await
        .unwrap();
    let more = store.get(&other).unwrap().path;
    assert!(more.join("node_modules/x/y.js").exists());

    let refused = put_without(&store, &web, &["a{b"]).await.unwrap_err();
    assert!(refused.text.starts_with("ignore \"a{b\": "), "{refused}");
    fs::write(web.join(".hotctlignore"), "ok\n[z-a]\n").unwrap();
    let refused = put(&store, &web).await.unwrap_err();
    assert!(refused.text.contains("web/.hotctlignore:2: "), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_breaks_off_leaves_nothing() {
    let (_folder, store) = store();
    let parts = vec![
        Ok(Bytes::from_static(b"#!/bin/sh\n")),
        Err(io::Error::other("the line is cut")),
    ];
    let upload = Upload::File { name: "app".into() };
    let refused = store.put(upload, stream::iter(parts)).await.unwrap_err();
    assert!(refused.text.contains("the line is cut"), "{refused}");
    assert_eq!(fs::read_dir(&store.inner.root).unwrap().count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_leads_elsewhere_is_refused() {
    let (_folder, store) = store();
    for name in ["", "..", ".", "a/b", "/etc/passwd"] {
        let body = stream::iter(vec![Ok(Bytes::from_static(b"#!/bin/sh\n"))]);
        let upload = Upload::File { name: name.into() };
        assert!(store.put(upload, body).await.is_err(), "{name:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_known_to_be_on_the_disk_is_gone_after_a_restart() {
    let (folder, store) = store();
    let path = folder.path().join("app");
    script(&path, "#!/bin/sh\necho 1\n");
    let kept = put(&store, &path).await.unwrap();
    store.durable(&kept).await.unwrap();
    script(&path, "#!/bin/sh\necho 2\n");
    let lost = put(&store, &path).await.unwrap();
    store.durable(&lost).await.unwrap();
    // As after a power cut that came before.
    fs::remove_file(store.inner.folder(&lost).join("durable")).unwrap();
    fs::write(store.inner.folder(&lost).join("boot"), "another").unwrap();
    fs::create_dir(store.inner.root.join(".upload-half")).unwrap();
    let again = Store::open(&store.inner.root).unwrap();
    assert!(again.get(&kept).is_some());
    assert!(again.get(&lost).is_none());
    assert_eq!(fs::read_dir(&store.inner.root).unwrap().count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_used_is_swept_and_a_fresh_upload_is_not() {
    let (folder, store) = store();
    let path = folder.path().join("app");
    let mut digests = Vec::new();
    for n in 0..3 {
        script(&path, &format!("#!/bin/sh\necho {n}\n"));
        digests.push(put(&store, &path).await.unwrap());
    }
    store.durable(&digests[0]).await.unwrap();
    store.durable(&digests[1]).await.unwrap();
    store.sweep(&digests[1..2]).unwrap();
    assert!(store.get(&digests[0]).is_none());
    assert!(store.get(&digests[1]).is_some());
    assert!(
        store.get(&digests[2]).is_some(),
        "its order may be on its way"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_swept_and_comes_again_is_brought_to_the_disk_again() {
    let (folder, store) = store();
    let path = folder.path().join("app");
    script(&path, "#!/bin/sh\n");
    let digest = put(&store, &path).await.unwrap();
    let marker = store.inner.folder(&digest).join("durable");
    store.durable(&digest).await.unwrap();
    assert!(marker.exists());
    store.sweep(&[]).unwrap();
    assert!(!marker.exists());
    assert_eq!(put(&store, &path).await.unwrap(), digest);
    // Uploaded again, so that an order for it may be on its way, though it was deployed before.
    store.sweep(&[]).unwrap();
    let (one, two) = tokio::join!(store.durable(&digest), store.durable(&digest));
    assert!(one.is_ok() && two.is_ok() && marker.exists());
    assert!(store.durable(&Digest::from_bytes([7; 32])).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_content_uploaded_twice_at_once_is_stored_once() {
    let (folder, store) = store();
    let path = folder.path().join("app");
    script(&path, "#!/bin/sh\n");
    let (one, two) = tokio::join!(put(&store, &path), put(&store, &path));
    assert_eq!(one.unwrap(), two.unwrap());
    let count = || fs::read_dir(&store.inner.root).unwrap().count();
    crate::testing::eventually(|| count() == 1).await;
}

/// Not a promise but a measure; run it alone, in a release build.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement"]
async fn how_long_a_big_folder_takes() {
    let (folder, store) = store();
    let web = folder.path().join("web");
    for group in 0..400 {
        let group = web.join(format!("node_modules/package-{group}"));
        fs::create_dir_all(&group).unwrap();
        for file in 0..100 {
            fs::write(group.join(format!("{file}.js")), [b'x'; 2000]).unwrap();
        }
    }
    for round in ["new", "there already"] {
        let began = Instant::now();
        let mut packed = pack::pack(&web, &[], &[]).unwrap();
        let pieces = std::iter::from_fn(|| {
            let mut piece = vec![0; 64 * 1024];
            let length = packed.reader.read(&mut piece).unwrap();
            piece.truncate(length);
            (length > 0).then(|| Ok(Bytes::from(piece)))
        });
        let upload = Upload::Folder;
        let digest = store.put(upload, stream::iter(pieces)).await.unwrap();
        let put = began.elapsed();
        store.durable(&digest).await.unwrap();
        println!("{round}: put {put:?}, durable after {:?}", began.elapsed());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_still_being_written_or_cannot_be_run_is_refused() {
    let (folder, store) = store();
    let path = folder.path().join("app");
    let writer = File::create(&path).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    let refused = put(&store, &path).await.unwrap_err();
    assert!(refused.text.contains("still writing"), "{refused}");
    drop(writer);
    assert!(put(&store, &path).await.unwrap_err().text.contains("empty"));
    fs::write(&path, "#!/bin/sh\n").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    assert!(
        put(&store, &path)
            .await
            .unwrap_err()
            .text
            .contains("not executable")
    );
    let missing = put(&store, &folder.path().join("none")).await.unwrap_err();
    assert!(missing.text.contains("no such file or folder"), "{missing}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_changes_while_it_is_read_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app");
    script(&path, "#!/bin/sh\n");
    let mut packed = pack::pack(&path, &[], &[]).unwrap();
    let mut first = [0; 4];
    packed.reader.read_exact(&mut first).unwrap();
    fs::OpenOptions::new()
        .append(true)
        .open(&path)
        .unwrap()
        .write_all(b"more")
        .unwrap();
    let broken = packed.reader.read_to_end(&mut Vec::new()).unwrap_err();
    assert!(
        broken.to_string().contains("changed while it was read"),
        "{broken}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_removed_by_hand_and_taken_again_is_there_after_a_restart() {
    let (folder, store) = store();
    let path = folder.path().join("app");
    script(&path, "#!/bin/sh\necho 1\n");
    let digest = put(&store, &path).await.unwrap();
    store.durable(&digest).await.unwrap();
    let root = folder.path().join("releases");
    fs::remove_dir_all(root.join(digest.to_string())).unwrap();
    assert_eq!(put(&store, &path).await.unwrap(), digest);
    store.durable(&digest).await.unwrap();
    drop(store);
    assert!(Store::open(&root).unwrap().get(&digest).is_some());
}
