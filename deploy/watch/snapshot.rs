//! What lies at a path, well enough to tell whether it is something else than before. Decides what
//! has changed; events only say when to look.

use std::collections::BTreeMap;
use std::fs::{self, File, Metadata};
use std::io;
use std::path::{Path, PathBuf};

use super::stamp::{Look, Reads, Stamp};
use crate::sys;
use crate::without::Without;

/// What is there, by its path within the root; the root itself has the empty one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Snapshot {
    entries: BTreeMap<PathBuf, Stamp>,
}

impl Snapshot {
    /// Of a file or folder, where `before` was there when it was looked last. `enter` is called for each
    /// folder before it is read.
    ///
    /// # Errors
    /// If something cannot be read; what is gone in that moment is no error.
    pub fn of(
        root: &Path,
        mut without: Option<&mut Without>,
        reads: Reads,
        before: &Self,
        mut enter: impl FnMut(&Path),
    ) -> io::Result<Self> {
        let look = Look::now(reads);
        let mut entries = BTreeMap::new();
        let mut folders = Vec::new();
        let mut note = |inside: PathBuf, path: &Path, meta: &Metadata| {
            let Some(stamp) = look.stamp(path, meta, before.entries.get(&inside)) else {
                return false;
            };
            let is_folder = stamp == Stamp::Folder;
            entries.insert(inside, stamp);
            is_folder
        };
        let Some(meta) = there(fs::symlink_metadata(root))? else {
            return Ok(Self::default());
        };
        if note(PathBuf::new(), root, &meta) {
            folders.push(PathBuf::new());
        }
        while let Some(inside) = folders.pop() {
            let folder = root.join(&inside);
            enter(&folder);
            let Some(listed) = there(fs::read_dir(&folder))? else {
                continue;
            };
            let mut found = Vec::new();
            for entry in listed {
                let Some(entry) = there(entry)? else { continue };
                if let Some(meta) = there(entry.metadata())? {
                    found.push((entry.file_name(), meta));
                }
            }
            if let Some(without) = &mut without {
                without.enter(&folder, found.iter().map(|(name, _)| name))?;
            }
            for (name, meta) in found {
                let path = folder.join(&name);
                let left_out = |it: &&mut Without| it.leaves_out(&path, meta.is_dir());
                if without.as_ref().is_some_and(left_out) {
                    continue;
                }
                let inside = inside.join(name);
                if note(inside.clone(), &path, &meta) {
                    folders.push(inside);
                }
            }
        }
        Ok(Self { entries })
    }

    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Where it is not the same as `before`, by path.
    pub fn since<'a>(&'a self, before: &'a Self) -> Vec<&'a Path> {
        let other = self.entries.iter().filter(|(path, stamp)| {
            // A folder is its content.
            let before = before.entries.get(*path);
            !before.is_some_and(|before| before.is_as(stamp))
        });
        let gone = before.entries.keys();
        let gone = gone.filter(|path| !self.entries.contains_key(*path));
        let mut all: Vec<&Path> = other
            .map(|(path, _)| path)
            .chain(gone)
            .map(PathBuf::as_path)
            .collect();
        all.sort_unstable();
        all
    }

    /// Take what is open for writing, and is not what it was before, for what it was. A folder counts
    /// for nothing.
    pub fn leave_open(&mut self, root: &Path, before: &Self) {
        self.entries
            .retain(|path, stamp| path.as_os_str().is_empty() || *stamp != Stamp::Folder);
        loop {
            let changed = self.since(before);
            let Some(open) = self.first_open(root, &changed).map(Path::to_path_buf) else {
                return;
            };
            match before.entries.get(&open) {
                Some(stamp) => drop(self.entries.insert(open, stamp.clone())),
                None => drop(self.entries.remove(&open)),
            }
        }
    }

    /// The first of these files that somebody has open for writing.
    pub fn first_open<'a>(&self, root: &Path, among: &[&'a Path]) -> Option<&'a Path> {
        let is_open = |inside: &&&Path| {
            matches!(self.entries.get(**inside), Some(Stamp::File(_)))
                && File::open(within(root, inside))
                    .is_ok_and(|file| sys::writers(&file) == sys::Writers::Some)
        };
        among.iter().find(is_open).copied()
    }
}

/// The place of what is within a root; the root itself is no folder where it is a file.
pub fn within(root: &Path, inside: &Path) -> PathBuf {
    match inside.as_os_str().is_empty() {
        true => root.to_path_buf(),
        false => root.join(inside),
    }
}

/// What has gone in this moment is none.
fn there<T>(found: io::Result<T>) -> io::Result<Option<T>> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(cause)
            if matches!(
                cause.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) =>
        {
            Ok(None)
        }
        Err(cause) => Err(cause),
    }
}
