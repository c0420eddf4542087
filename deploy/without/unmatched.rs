//! Patterns that no file has: a slip of the pen, or one that is left out before it is asked for.

use std::fs;
use std::path::{Path, PathBuf};

use super::{Only, Without};

/// Those of `patterns` that no file of a folder of sources has, as a watch of it leaves out the rest. Empty
/// where the folder cannot be looked at, which the watch itself tells.
pub fn unmatched(
    root: &Path,
    ignore: &[String],
    never: &[PathBuf],
    patterns: &[String],
) -> Vec<String> {
    let Ok(root) = fs::canonicalize(root) else {
        return Vec::new();
    };
    let without = Without::of_sources(&root, ignore, &[], &root.display().to_string());
    let Ok(without) = without else {
        return Vec::new();
    };
    let mut without = without.never(never);
    // What takes back in, and a comment, is none of its own.
    let patterns = patterns
        .iter()
        .filter(|pattern| !pattern.starts_with(['!', '#']));
    let mut left: Vec<(&String, Only)> = patterns
        .filter_map(|pattern| Some((pattern, Only::of(&root, std::slice::from_ref(pattern))?)))
        .collect();
    let mut folders = vec![root];
    while !left.is_empty()
        && let Some(folder) = folders.pop()
    {
        let entries: Vec<_> = fs::read_dir(&folder)
            .into_iter()
            .flatten()
            .flatten()
            .collect();
        let names: Vec<_> = entries.iter().map(fs::DirEntry::file_name).collect();
        if without.enter(&folder, names.iter()).is_err() {
            continue;
        }
        for entry in entries {
            let path = entry.path();
            let is_dir = entry.file_type().is_ok_and(|kind| kind.is_dir());
            if without.leaves_out(&path, is_dir) {
                continue;
            }
            match is_dir {
                true => folders.push(path),
                false => left.retain(|(_, only)| !only.has(&path)),
            }
        }
    }
    left.into_iter()
        .map(|(pattern, _)| pattern.clone())
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn a_pattern_that_no_source_has_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        for (path, text) in [
            ("src/a/main.go", ""),
            ("web/style.css", ""),
            ("out/made.txt", ""),
            (".hotctlignore", "/out\n"),
        ] {
            fs::create_dir_all(root.join(path).parent().unwrap()).unwrap();
            fs::write(root.join(path), text).unwrap();
        }
        let patterns = [
            "*.go",
            "/web",
            "src/**",
            "!*.md",
            "nothing/**",
            "/main.go",
            "*.txt",
        ];
        let patterns = patterns.map(ToOwned::to_owned);
        let found = unmatched(root, &[], &[], &patterns);
        assert_eq!(found, ["nothing/**", "/main.go", "*.txt"]);
        let never = [root.join("web")];
        assert_eq!(unmatched(root, &[], &never, &patterns[..2]), ["/web"]);
        assert!(unmatched(&root.join("none"), &[], &[], &patterns).is_empty());
    }
}
