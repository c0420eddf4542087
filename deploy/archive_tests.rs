//! Archives as they should be, and as an enemy would make them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use super::*;

/// Path, kind, mode, and content or target.
type Entry = (&'static str, tar::EntryType, u32, &'static str);

/// An archive by hand: the tar crate refuses to write some of these.
fn tar_of(entries: &[(&str, tar::EntryType, u32, &str)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (path, kind, mode, content) in entries {
        let mut header = tar::Header::new_gnu();
        let raw = header.as_old_mut();
        raw.name[..path.len()].copy_from_slice(path.as_bytes());
        header.set_entry_type(*kind);
        header.set_mode(*mode);
        let body = match kind {
            tar::EntryType::Symlink | tar::EntryType::Link => {
                header.as_old_mut().linkname[..content.len()].copy_from_slice(content.as_bytes());
                ""
            }
            _ => content,
        };
        header.set_size(body.len() as u64);
        header.set_cksum();
        bytes.extend_from_slice(header.as_bytes());
        bytes.extend_from_slice(body.as_bytes());
        bytes.resize(bytes.len().next_multiple_of(512), 0);
    }
    bytes.resize(bytes.len() + 1024, 0);
    bytes
}

const FILE: tar::EntryType = tar::EntryType::Regular;
const LINK: tar::EntryType = tar::EntryType::Symlink;
const DIR: tar::EntryType = tar::EntryType::Directory;

fn unpacked(
    entries: &[(&str, tar::EntryType, u32, &str)],
) -> (tempfile::TempDir, Result<Unpacked, Refused>) {
    let outer = tempfile::tempdir().unwrap();
    let into = outer.path().join("into");
    fs::create_dir(&into).unwrap();
    let result = unpack(tar_of(entries).as_slice(), &into);
    let beside: Vec<_> = fs::read_dir(outer.path())
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    assert_eq!(beside, ["into"], "something was written outside");
    (outer, result)
}

#[test]
fn hostile_archives_are_refused_and_write_nothing_outside() {
    let cases: &[(&str, &[Entry])] = &[
        ("leads out", &[("../evil", FILE, 0o644, "x")]),
        ("leads out", &[("a/../../evil", FILE, 0o644, "x")]),
        ("leads out", &[("/tmp/evil", FILE, 0o644, "x")]),
        ("absolute", &[("out", LINK, 0o777, "/etc")]),
        ("leads out", &[("out", LINK, 0o777, "..")]),
        ("leads out", &[("a/out", LINK, 0o777, "../../..")]),
        (
            "leads out",
            &[("dot", LINK, 0o777, "."), ("out", LINK, 0o777, "dot/..")],
        ),
        (
            "no folder",
            &[("d", LINK, 0o777, "."), ("d/evil", FILE, 0o644, "x")],
        ),
        (
            "no folder",
            &[("f", FILE, 0o644, "x"), ("f/evil", FILE, 0o644, "x")],
        ),
        ("twice", &[("f", FILE, 0o644, "x"), ("f", FILE, 0o644, "y")]),
        ("twice", &[("l", LINK, 0o777, "f"), ("l", FILE, 0o644, "y")]),
        (
            "hard link",
            &[("h", tar::EntryType::Link, 0o644, "/etc/passwd")],
        ),
        ("device", &[("null", tar::EntryType::Char, 0o644, "")]),
        ("pipe", &[("p", tar::EntryType::Fifo, 0o644, "")]),
        ("setuid", &[("s", FILE, 0o4755, "x")]),
        ("empty", &[]),
    ];
    for (reason, entries) in cases {
        let (_folder, result) = unpacked(entries);
        let refused = result.expect_err(reason);
        assert!(refused.text.contains(reason), "{refused} (want {reason})");
    }
}

#[test]
fn an_environment_of_python_is_known_by_its_links() {
    for (path, link) in [
        ("venv", "venv/bin/python3"),
        (".venv", ".venv/bin/python3.13"),
    ] {
        let (_folder, result) = unpacked(&[(link, LINK, 0o777, "/usr/bin/python3")]);
        let refused = result.unwrap_err();
        let text = format!(
            "{link}: a link to /usr/bin/python3: the Python virtual environment {path} belongs to the place where it was made"
        );
        assert_eq!(refused.text, text);
        let hint = refused.hint.unwrap();
        assert!(hint.contains("before_start") && hint.contains(&format!("{path}/bin/python -m")));
    }
    let (_folder, result) = unpacked(&[("bin/tool", LINK, 0o777, "/usr/bin/tool")]);
    assert!(result.unwrap_err().text.contains("is absolute"));
}

#[test]
fn an_archive_that_breaks_off_is_refused() {
    let whole = tar_of(&[
        ("a", FILE, 0o644, &"x".repeat(2000)),
        ("b", FILE, 0o644, "y"),
    ]);
    for cut in [10, 512, 600, 1024, 2559, 3000] {
        let folder = tempfile::tempdir().unwrap();
        let result = unpack(&whole[..cut], folder.path());
        // At an entry's border it may look whole, but then it is another content.
        if let Ok(unpacked) = result {
            let other = tempfile::tempdir().unwrap();
            let full = unpack(whole.as_slice(), other.path()).unwrap();
            assert_ne!(unpacked.digest, full.digest, "{cut}");
        }
    }
}

#[test]
fn the_digest_covers_content_and_not_the_order() {
    let base = [
        ("a", FILE, 0o644, "x"),
        ("b", FILE, 0o755, "y"),
        ("l", LINK, 0o777, "a"),
    ];
    let mut turned = base;
    turned.reverse();
    let digest =
        |entries: &[(&str, tar::EntryType, u32, &str)]| unpacked(entries).1.unwrap().digest;
    assert_eq!(digest(&base), digest(&turned));
    let others = [
        [("a", FILE, 0o644, "X"), base[1], base[2]],
        [("a", FILE, 0o755, "x"), base[1], base[2]],
        [("c", FILE, 0o644, "x"), base[1], base[2]],
        [base[0], base[1], ("l", LINK, 0o777, "b")],
        [("a", DIR, 0o755, ""), base[1], base[2]],
    ];
    for other in others {
        assert_ne!(digest(&base), digest(&other), "{other:?}");
    }
}

#[test]
fn links_inside_and_folders_nobody_names_are_made() {
    let (folder, result) = unpacked(&[
        ("node_modules/.bin/tool", LINK, 0o777, "../pkg/tool.js"),
        ("node_modules/pkg/tool.js", FILE, 0o755, "run"),
    ]);
    result.unwrap();
    let through = folder.path().join("into/node_modules/.bin/tool");
    assert_eq!(fs::read_to_string(through).unwrap(), "run");
}
