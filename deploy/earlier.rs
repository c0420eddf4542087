//! A folder as it was when a release was taken from it, for an app that runs from the files which somebody
//! edits: those of the release, and beside them links to all that is no part of it (packages, data, pictures).

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

/// Compiled for the files that are edited.
const COMPILED: &str = "__pycache__";

/// Kinds of files that people write, and apps do not.
const CODE: [&str; 21] = [
    "py", "js", "mjs", "cjs", "ts", "tsx", "jsx", "rb", "php", "pl", "lua", "go", "rs", "sh",
    "html", "css", "scss", "vue", "svelte", "ejs", "hbs",
];

/// Whether a file is such that only people change it.
pub fn is_code(path: &Path) -> bool {
    let kind = path.extension().and_then(|kind| kind.to_str());
    kind.is_some_and(|kind| CODE.contains(&kind))
}

/// Whether what was taken from `folder` is not there any more as it was, of the files that count. What came later
/// does not.
///
/// # Errors
/// If `content`, what was taken, cannot be read.
pub fn differs(content: &Path, folder: &Path, counts: fn(&Path) -> bool) -> io::Result<bool> {
    for entry in fs::read_dir(content)? {
        let entry = entry?;
        let (was, is) = (entry.path(), folder.join(entry.file_name()));
        let kind = entry.file_type()?;
        let differs = if kind.is_dir() {
            differs(&was, &is, counts)?
        } else if !counts(&was) {
            false
        } else if kind.is_symlink() {
            fs::read_link(&is).ok() != Some(fs::read_link(&was)?)
        } else {
            !is_same(&was, &is)?
        };
        if differs {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether a file has the content of another, which may be gone.
fn is_same(was: &Path, is: &Path) -> io::Result<bool> {
    let size = fs::metadata(was)?.len();
    if !fs::metadata(is).is_ok_and(|meta| meta.is_file() && meta.len() == size) {
        return Ok(false);
    }
    let Ok(is) = File::open(is) else {
        return Ok(false);
    };
    let (mut was, mut is) = (io::BufReader::new(File::open(was)?), io::BufReader::new(is));
    let (mut left, mut right) = ([0; 8192], [0; 8192]);
    loop {
        let n = was.read(&mut left)?;
        if n == 0 {
            return Ok(true);
        }
        if is.read_exact(&mut right[..n]).is_err() || left[..n] != right[..n] {
            return Ok(false);
        }
    }
}

/// Make `into` that folder; all of it or nothing. What is there already stays as it is: an app may run from
/// it.
///
/// # Errors
/// If it cannot be written.
pub fn lay(content: &Path, folder: &Path, into: &Path) -> io::Result<()> {
    if into.is_dir() {
        return Ok(());
    }
    let above = into.parent().unwrap_or(into);
    fs::create_dir_all(above)?;
    let making = tempfile::Builder::new()
        .prefix(".making-")
        .tempdir_in(above)?;
    let laying = Laying {
        content,
        folder,
        into: making.path(),
    };
    laying.lay(Path::new(""))?;
    fs::rename(making.path(), into)?;
    // It is not there any more, under that name.
    let _ = making.keep();
    Ok(())
}

struct Laying<'a> {
    content: &'a Path,
    folder: &'a Path,
    into: &'a Path,
}

impl Laying<'_> {
    fn lay(&self, inside: &Path) -> io::Result<()> {
        let own = names(&self.content.join(inside))?;
        for name in &own {
            self.take(&inside.join(name))?;
        }
        // Gone, perhaps: then there is nothing to link to.
        for name in names(&self.folder.join(inside)).unwrap_or_default() {
            let path = inside.join(&name);
            let there = self.folder.join(&path);
            // Not a way round in a circle.
            let is_above = self.into.starts_with(&there);
            if !own.contains(&name) && name != COMPILED && !is_above {
                symlink(there, self.into.join(path))?;
            }
        }
        Ok(())
    }

    /// What is of the release.
    fn take(&self, path: &Path) -> io::Result<()> {
        let (was, to) = (self.content.join(path), self.into.join(path));
        let kind = fs::symlink_metadata(&was)?.file_type();
        if kind.is_dir() {
            fs::create_dir(&to)?;
            return self.lay(path);
        }
        if kind.is_symlink() {
            // It leads where it led, also out of the folder.
            let leads = fs::read_link(&was)?;
            let from = self.folder.join(path);
            return symlink(from.parent().unwrap_or(self.folder).join(leads), to);
        }
        // No hard link: what an app writes must not come into the store.
        fs::copy(was, to).map(drop)
    }
}

fn names(folder: &Path) -> io::Result<BTreeSet<OsString>> {
    let entries = fs::read_dir(folder)?;
    entries
        .map(|entry| entry.map(|it| it.file_name()))
        .collect()
}

/// Remove those of releases that are not known any more, in the folder where they are laid, each by the number
/// of its release.
///
/// # Errors
/// The first that could not be removed.
pub fn sweep(all: &Path, is_known: impl Fn(u32) -> bool) -> io::Result<()> {
    let Ok(names) = names(all) else {
        return Ok(());
    };
    let numbers = names.iter().filter_map(|name| name.to_str()?.parse().ok());
    let gone: Vec<PathBuf> = numbers
        .filter(|number| !is_known(*number))
        .map(|number: u32| all.join(number.to_string()))
        .collect();
    gone.iter().try_for_each(fs::remove_dir_all)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn write(folder: &Path, files: &[(&str, &str)]) {
        for (name, text) in files {
            let path = folder.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
    }

    #[test]
    fn a_folder_is_as_it_was_with_what_is_no_part_of_the_release() {
        let house = tempfile::tempdir().unwrap();
        let (content, folder) = (house.path().join("content"), house.path().join("folder"));
        let files = [
            ("app.py", "good"),
            ("lib/a.py", "a"),
            ("lib/gone.py", "was"),
        ];
        write(&content, &files);
        write(&folder, &files);
        symlink("lib/a.py", content.join("link.py")).unwrap();
        symlink("lib/a.py", folder.join("link.py")).unwrap();
        write(
            &folder,
            &[
                (".hotctl/state", "own"),
                ("lib/data.bin", "1"),
                ("lib/__pycache__/a.pyc", "compiled"),
                ("node_modules/x/index.js", "x"),
            ],
        );
        let all = |_: &Path| true;
        assert!(!differs(&content, &folder, all).unwrap());
        write(&folder, &[("lib/a.py", "b")]);
        assert!(differs(&content, &folder, is_code).unwrap());
        assert!(!differs(&content, &folder, |path| path.ends_with("app.py")).unwrap());
        write(&folder, &[("lib/a.py", "a")]);
        write(&folder, &[("app.py", "evil")]);
        assert!(differs(&content, &folder, all).unwrap());
        fs::remove_file(folder.join("lib/gone.py")).unwrap();
        let into = folder.join(".hotctl/earlier/7");
        lay(&content, &folder, &into).unwrap();
        let read = |name: &str| fs::read_to_string(into.join(name)).unwrap();
        assert_eq!(read("app.py"), "good");
        assert_eq!(read("lib/gone.py"), "was");
        assert_eq!(read("link.py"), "a");
        assert_eq!(read("node_modules/x/index.js"), "x");
        assert!(!into.join(".hotctl").exists() && !into.join("lib/__pycache__").exists());
        // What it writes where it always has is kept, what it does to its own files is not.
        write(&into, &[("lib/data.bin", "2"), ("app.py", "own")]);
        assert_eq!(
            fs::read_to_string(folder.join("lib/data.bin")).unwrap(),
            "2"
        );
        assert_eq!(fs::read_to_string(content.join("app.py")).unwrap(), "good");
        // It runs from there.
        lay(&content, &folder, &into).unwrap();
        assert_eq!(read("app.py"), "own");
        let all = into.parent().unwrap();
        sweep(all, |number| number == 7).unwrap();
        assert!(into.exists());
        sweep(all, |_| false).unwrap();
        assert_eq!(names(all).unwrap().len(), 0);
    }
}
