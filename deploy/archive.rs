//! Unpacking an archive that may be hostile: nothing is ever written outside its folder, whatever
//! the archive says. The digest covers paths, kinds, the executable bit, contents and links.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Read, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{OpenOptionsExt as _, symlink};
use std::path::{Component, Path, PathBuf};

use crate::refused::Refused;

/// No release has more files, folders and links.
const MOST_ENTRIES: usize = 500_000;
/// Nor more bytes.
const MOST_BYTES: u64 = 16 * 1024 * 1024 * 1024;

/// What was unpacked.
#[derive(Debug)]
pub struct Unpacked {
    /// Its digest.
    pub digest: blake3::Hash,
    /// Bytes of all files.
    pub size: u64,
}

/// Unpack a tar into an empty folder.
///
/// # Errors
/// If it is damaged, breaks off, or asks for anything but files, folders and links inside.
pub fn unpack(tar: impl Read, into: &Path) -> Result<Unpacked, Refused> {
    let mut archive = tar::Archive::new(tar);
    let mut work = Work {
        into,
        seen: BTreeMap::new(),
        links: BTreeSet::new(),
        folders: BTreeSet::from([PathBuf::new()]),
        size: 0,
        buffer: vec![0; 128 * 1024],
    };
    let broken = |cause: io::Error| Refused::new(format!("the archive cannot be read: {cause}"));
    for entry in archive.entries().map_err(broken)? {
        let mut entry = entry.map_err(broken)?;
        let path = inside(&entry.path().map_err(broken)?)?;
        if path.as_os_str().is_empty() {
            continue;
        }
        work.take(&mut entry, path)?;
    }
    // To the end of the stream: one that breaks off behind the archive's end is broken, too.
    io::copy(&mut archive.into_inner(), &mut io::sink()).map_err(broken)?;
    if work.seen.is_empty() {
        return Err(
            Refused::new("the folder is empty").hint("deploy the folder that your build has made")
        );
    }
    Ok(work.finish())
}

struct Work<'a> {
    into: &'a Path,
    /// What each path is, as it is hashed.
    seen: BTreeMap<PathBuf, Vec<u8>>,
    links: BTreeSet<PathBuf>,
    folders: BTreeSet<PathBuf>,
    size: u64,
    buffer: Vec<u8>,
}

impl Work<'_> {
    fn take(
        &mut self,
        entry: &mut tar::Entry<'_, impl Read>,
        path: PathBuf,
    ) -> Result<(), Refused> {
        let shown = path.display().to_string();
        let failed = |cause: io::Error| Refused::new(format!("{shown}: {cause}"));
        let kind = entry.header().entry_type();
        if kind == tar::EntryType::Directory && self.folders.contains(&path) {
            return Ok(());
        }
        if self.seen.len() >= MOST_ENTRIES {
            return Err(Refused::new(format!("more than {MOST_ENTRIES} files")));
        }
        if self.seen.contains_key(&path) {
            return Err(Refused::new(format!("{shown}: is in the archive twice")));
        }
        self.parents(&path)?;
        let target = self.into.join(&path);
        let what = match kind {
            tar::EntryType::Directory => {
                fs::create_dir(&target).map_err(failed)?;
                self.folders.insert(path.clone());
                vec![b'd']
            }
            tar::EntryType::Regular | tar::EntryType::Continuous => {
                self.file(entry, &target, &shown)?
            }
            tar::EntryType::Symlink => {
                let to = entry.link_name().map_err(failed)?;
                let to = to.ok_or_else(|| Refused::new(format!("{shown}: a link to nowhere")))?;
                stays_inside(&path, &to)?;
                symlink(&to, &target).map_err(failed)?;
                self.links.insert(path.clone());
                [b"l", to.as_os_str().as_bytes()].concat()
            }
            other => {
                let what = match other {
                    tar::EntryType::Link => "a hard link",
                    tar::EntryType::Char | tar::EntryType::Block => "a device",
                    tar::EntryType::Fifo => "a pipe",
                    _ => "neither file, folder nor symbolic link",
                };
                return Err(Refused::new(format!(
                    "{shown}: {what} is not taken into a release"
                )));
            }
        };
        self.seen.insert(path, what);
        Ok(())
    }

    fn file(
        &mut self,
        entry: &mut tar::Entry<'_, impl Read>,
        target: &Path,
        shown: &str,
    ) -> Result<Vec<u8>, Refused> {
        let failed = |cause: io::Error| Refused::new(format!("{shown}: {cause}"));
        let mode = entry.header().mode().map_err(failed)?;
        if mode & 0o7000 != 0 {
            return Err(Refused::new(format!(
                "{shown}: setuid, setgid and sticky bits are not taken"
            ))
            .hint(format!("chmod u-s,g-s,-t {shown}")));
        }
        let executable = mode & 0o111 != 0;
        let mut file = File::options()
            .write(true)
            .create_new(true)
            // Read only: a release is what it is.
            .mode(if executable { 0o555 } else { 0o444 })
            .open(target)
            .map_err(failed)?;
        let mut hasher = blake3::Hasher::new();
        loop {
            let n = match entry.read(&mut self.buffer) {
                Ok(0) => break,
                Ok(n) => n,
                Err(cause) if cause.kind() == io::ErrorKind::Interrupted => continue,
                Err(cause) => return Err(failed(cause)),
            };
            let bytes = &self.buffer[..n];
            self.size += n as u64;
            if self.size > MOST_BYTES {
                return Err(Refused::new(format!(
                    "more than {}",
                    hotctl_config::units::show_bytes(MOST_BYTES)
                )));
            }
            hasher.update(bytes);
            file.write_all(bytes).map_err(failed)?;
        }
        let kind: &[u8] = if executable { b"x" } else { b"f" };
        Ok([kind, hasher.finalize().as_bytes()].concat())
    }

    /// See that what a path is in are folders of this archive, and make those it does not name.
    fn parents(&mut self, path: &Path) -> Result<(), Refused> {
        let Some(parent) = path.parent() else {
            return Ok(());
        };
        if self.folders.contains(parent) {
            return Ok(());
        }
        if self.links.contains(parent) || self.seen.contains_key(parent) {
            return Err(Refused::new(format!(
                "{}: is in {}, which is no folder",
                path.display(),
                parent.display()
            )));
        }
        self.parents(parent)?;
        fs::create_dir(self.into.join(parent))
            .map_err(|cause| Refused::new(format!("{}: {cause}", parent.display())))?;
        self.folders.insert(parent.to_owned());
        self.seen.insert(parent.to_owned(), vec![b'd']);
        Ok(())
    }

    fn finish(self) -> Unpacked {
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"hotctl folder 1\0");
        for (path, what) in &self.seen {
            for part in [path.as_os_str().as_bytes(), what.as_slice()] {
                hasher.update(&(part.len() as u64).to_le_bytes());
                hasher.update(part);
            }
        }
        Unpacked {
            digest: hasher.finalize(),
            size: self.size,
        }
    }
}

/// A path of an entry, if it names something inside.
fn inside(path: &Path) -> Result<PathBuf, Refused> {
    path.components()
        .filter(|part| *part != Component::CurDir)
        .map(|part| match part {
            Component::Normal(name) => Ok(name),
            _ => Err(Refused::new(format!(
                "{}: leads out of the folder",
                path.display()
            ))),
        })
        .collect()
}

/// A link may go up as far as its own folder is deep, and then down. Its own folder is a real one,
/// so that whatever other links it passes, each of them stays inside by the same rule.
fn stays_inside(link: &Path, to: &Path) -> Result<(), Refused> {
    let out = |why: &str| {
        Refused::new(format!(
            "{}: a link to {} {why}",
            link.display(),
            to.display()
        ))
    };
    if to.is_absolute() {
        return Err(absolute(link, to));
    }
    let mut depth = link.components().count().saturating_sub(1);
    let mut down = false;
    for part in to.components() {
        match part {
            Component::ParentDir if down || depth == 0 => {
                return Err(out("leads out of the folder"));
            }
            Component::ParentDir => depth -= 1,
            Component::Normal(_) => down = true,
            _ => {}
        }
    }
    Ok(())
}

fn absolute(link: &Path, to: &Path) -> Refused {
    let (shown, to) = (link.display(), to.display());
    let in_bin = link.parent().and_then(Path::file_name) == Some("bin".as_ref());
    let python = link
        .file_name()
        .is_some_and(|name| name.as_bytes().starts_with(b"python"));
    match link.parent().and_then(Path::parent) {
        Some(environment) if in_bin && python => Refused::new(format!(
            "{shown}: a link to {to}: the Python virtual environment {} belongs to the place where it was made",
            environment.display()
        ))
        .hint(format!(
            "leave it out (a line `{0}/` in .hotctlignore) and make it in before_start: `python3 -m venv`, or \
             `python3 -m pip install --target`; or make it with `python3 -m venv --copies` and run \
             `{0}/bin/python -m NAME`",
            environment.display()
        )),
        _ => Refused::new(format!(
            "{shown}: a link to {to} is absolute: it would mean something else, or nothing, elsewhere"
        ))
        .hint("make it relative, or leave it out with a line in .hotctlignore"),
    }
}

#[cfg(test)]
#[path = "archive_tests.rs"]
mod tests;
