//! Reading what is to be deployed, where the caller stands: a file as it is, a folder as a tar. The
//! daemon never opens a path that a caller names.

use std::ffi::OsStr;
use std::fs::{self, File, Metadata};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::pieces::{PieceWriter, pieces};
use crate::refused::Refused;
use crate::release::Upload;
use crate::without::Without;
use crate::{elf, sys};

/// How long a file that is still being written is waited for.
const WRITER: Duration = Duration::from_secs(2);
/// How often it is looked whether it still is.
const LOOK: Duration = Duration::from_millis(20);

/// What is to be uploaded.
pub struct Packed {
    /// What the bytes are.
    pub upload: Upload,
    /// The name of the file or folder.
    pub name: String,
    /// The bytes. An error while reading says what is wrong: changed while it was read, for one.
    pub reader: Box<dyn Read + Send>,
}

/// Begin to read `path`. What is left out of a folder say `ignore`, then the lines of each
/// `.hotctlignore` in it, each a pattern as in a `.gitignore` there: the last that fits counts, and one
/// with `!` takes back in. `.git`, `.env`, `.hotctl` and `.hotctlignore` itself are always left out, and so is
/// `never`. A folder that is left out is not even opened.
///
/// # Errors
/// If it is not there, is neither file nor folder, cannot be run, or is still being written; if a
/// pattern is none.
pub fn pack(path: &Path, ignore: &[String], never: &[PathBuf]) -> Result<Packed, Refused> {
    let shown = path.display();
    // What it is called where it really is: `.` has no name.
    let real = fs::canonicalize(path).map_err(|cause| match cause.kind() {
        io::ErrorKind::NotFound => Refused::new(format!("{shown}: no such file or folder"))
            .hint("name what your build has made"),
        _ => Refused::new(format!("{shown}: {cause}")),
    })?;
    let name = path
        .file_name()
        .or_else(|| real.file_name())
        .unwrap_or_else(|| OsStr::new("app"))
        .to_string_lossy()
        .into_owned();
    let meta = fs::metadata(&real).map_err(|cause| Refused::new(format!("{shown}: {cause}")))?;
    if meta.is_dir() {
        let without = Without::of(&real, ignore, &shown.to_string())?;
        return Ok(folder(real, without.never(never), name));
    }
    if !meta.is_file() {
        return Err(
            Refused::new(format!("{shown}: neither a file nor a folder"))
                .hint("name the executable or the folder that your build leaves"),
        );
    }
    file(&real, &meta, name, &shown.to_string())
}

/// Begin to read a folder of sources: without what is none, as a watch of sources leaves it out, and
/// without `never`.
///
/// # Errors
/// As [`pack`].
pub fn pack_sources(
    root: &Path,
    ignore: &[String],
    only: &[String],
    never: &[PathBuf],
) -> Result<Packed, Refused> {
    let shown = root.display().to_string();
    let failed = |cause: io::Error| Refused::new(format!("{shown}: {cause}"));
    let real = fs::canonicalize(root).map_err(failed)?;
    let name = real.file_name().unwrap_or_else(|| OsStr::new("app"));
    let name = name.to_string_lossy().into_owned();
    let without = Without::of_sources(&real, ignore, only, &shown)?;
    Ok(folder(real, without.never(never), name))
}

fn file(path: &Path, meta: &Metadata, name: String, shown: &str) -> Result<Packed, Refused> {
    if meta.permissions().mode() & 0o111 == 0 {
        return Err(
            Refused::new(format!("{shown}: not executable")).hint(format!(
                "chmod +x {shown}; or deploy a folder with its command"
            )),
        );
    }
    let file = File::open(path).map_err(|cause| Refused::new(format!("{shown}: {cause}")))?;
    let deadline = Instant::now() + WRITER;
    while sys::writers(&file) == sys::Writers::Some {
        if Instant::now() >= deadline {
            return Err(
                Refused::new(format!("{shown}: somebody is still writing it"))
                    .hint("deploy when the build has ended"),
            );
        }
        std::thread::sleep(LOOK);
    }
    elf::check(&file, shown)?;
    let before = Stamp::of(&file).map_err(|cause| Refused::new(format!("{shown}: {cause}")))?;
    Ok(Packed {
        upload: Upload::File { name: name.clone() },
        name,
        reader: Box::new(Unchanged {
            file,
            before,
            read: 0,
            shown: shown.to_owned(),
        }),
    })
}

/// What tells that a file is still the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    size: u64,
    changed: (i64, i64),
    inode: u64,
}

impl Stamp {
    fn of(file: &File) -> io::Result<Self> {
        let meta = file.metadata()?;
        Ok(Self {
            size: meta.size(),
            changed: (meta.mtime(), meta.mtime_nsec()),
            inode: meta.ino(),
        })
    }
}

/// A file that must be the same at its end as at its beginning.
struct Unchanged {
    file: File,
    before: Stamp,
    read: u64,
    shown: String,
}

impl Read for Unchanged {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let n = self.file.read(into)?;
        self.read += n as u64;
        if n == 0
            && !into.is_empty()
            && (Stamp::of(&self.file)? != self.before || self.read != self.before.size)
        {
            return Err(changed(&self.shown));
        }
        Ok(n)
    }
}

fn changed(shown: &str) -> io::Error {
    io::Error::other(format!(
        "{shown}: changed while it was read; deploy again when the build has ended"
    ))
}

fn folder(root: PathBuf, without: Without, name: String) -> Packed {
    let (writer, reader) = pieces();
    // Ends when the folder is read, or the reader is gone.
    std::thread::spawn(move || tar(&mut Source { root, without }, writer));
    Packed {
        upload: Upload::Folder,
        name,
        reader: Box::new(reader),
    }
}

/// A folder, less what is left out of it.
struct Source {
    root: PathBuf,
    without: Without,
}

fn tar(source: &mut Source, writer: PieceWriter) {
    let mut builder = tar::Builder::new(writer);
    builder.sparse(false);
    match append(&mut builder, source, Path::new("")) {
        Ok(()) => {
            // A reader that is gone has its own reason.
            let _ = builder.into_inner().and_then(PieceWriter::finish);
        }
        Err(cause) => {
            if let Ok(writer) = builder.into_inner() {
                writer.fail(cause);
            }
        }
    }
}

/// Append what is in a folder, by name, so that the same content is the same bytes.
fn append(
    builder: &mut tar::Builder<impl Write>,
    source: &mut Source,
    inside: &Path,
) -> io::Result<()> {
    let named = |path: &Path, cause: io::Error| {
        io::Error::new(cause.kind(), format!("{}: {cause}", path.display()))
    };
    let folder = source.root.join(inside);
    let mut names: Vec<_> = fs::read_dir(&folder)
        .and_then(|entries| {
            entries
                .map(|entry| entry.map(|e| e.file_name()))
                .collect::<Result<_, _>>()
        })
        .map_err(|cause| named(&folder, cause))?;
    names.sort();
    source.without.enter(&folder, names.iter())?;
    for name in names {
        let inside = inside.join(&name);
        let path = source.root.join(&inside);
        let meta = fs::symlink_metadata(&path).map_err(|cause| named(&path, cause))?;
        if source.without.leaves_out(&path, meta.is_dir()) {
            continue;
        }
        let mut header = tar::Header::new_gnu();
        header.set_mtime(0);
        header.set_uid(0);
        header.set_gid(0);
        if meta.is_dir() {
            header.set_entry_type(tar::EntryType::Directory);
            header.set_mode(0o755);
            header.set_size(0);
            builder.append_data(&mut header, &inside, io::empty())?;
            append(builder, source, &inside)?;
        } else if meta.is_symlink() {
            let target = fs::read_link(&path).map_err(|cause| named(&path, cause))?;
            header.set_entry_type(tar::EntryType::Symlink);
            header.set_mode(0o777);
            header.set_size(0);
            builder.append_link(&mut header, &inside, target)?;
        } else if meta.is_file() {
            let file = File::open(&path).map_err(|cause| named(&path, cause))?;
            let before = Stamp::of(&file)?;
            header.set_entry_type(tar::EntryType::Regular);
            header.set_mode(if meta.permissions().mode() & 0o111 == 0 {
                0o644
            } else {
                0o755
            });
            header.set_size(before.size);
            let mut same = Unchanged {
                file,
                before,
                read: 0,
                shown: path.display().to_string(),
            };
            // Never more than the header says: the archive stays readable whatever happens.
            builder.append_data(&mut header, &inside, (&mut same).take(before.size))?;
            if Stamp::of(&same.file)? != before || same.read != before.size {
                return Err(changed(&same.shown));
            }
        }
        // Sockets, pipes and devices are of this machine, not of the release.
    }
    Ok(())
}
