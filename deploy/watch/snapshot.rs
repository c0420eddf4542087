//! What lies at a path, well enough to tell whether it is something else than before. Decides what
//! has changed; events only say when to look.

use std::collections::BTreeMap;
use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use crate::sys;
use crate::without::Without;

/// What is there, by its path within the root; the root itself has the empty one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Snapshot {
    entries: BTreeMap<PathBuf, Stamp>,
}

/// What tells one content from another without reading it.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Stamp {
    Folder,
    File {
        size: u64,
        /// Seconds and nanoseconds.
        modified: (i64, i64),
        inode: (u64, u64),
        executable: bool,
    },
    Link(PathBuf),
}

impl Snapshot {
    /// Of a file or folder. `enter` is called for each folder before it is read.
    ///
    /// # Errors
    /// If something cannot be read; what is gone in that moment is no error.
    pub fn of(
        root: &Path,
        mut without: Option<&mut Without>,
        mut enter: impl FnMut(&Path),
    ) -> io::Result<Self> {
        let mut entries = BTreeMap::new();
        let mut folders = Vec::new();
        let mut note = |inside: PathBuf, path: &Path, meta: &Metadata| {
            let Some(stamp) = Stamp::of(path, meta) else {
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
            before.entries.get(*path) != Some(*stamp)
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
            matches!(self.entries.get(**inside), Some(Stamp::File { .. }))
                && File::open(within(root, inside))
                    .is_ok_and(|file| sys::writers(&file) == sys::Writers::Some)
        };
        among.iter().find(is_open).copied()
    }
}

impl Stamp {
    /// None for what is of this machine and not of a release: sockets, pipes, devices.
    fn of(path: &Path, meta: &Metadata) -> Option<Self> {
        if meta.is_dir() {
            return Some(Self::Folder);
        }
        if meta.is_symlink() {
            return Some(Self::Link(fs::read_link(path).unwrap_or_default()));
        }
        meta.is_file().then(|| Self::File {
            size: meta.size(),
            modified: (meta.mtime(), meta.mtime_nsec()),
            inode: (meta.dev(), meta.ino()),
            executable: meta.permissions().mode() & 0o111 != 0,
        })
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
