//! Files and folders of a folder release that outlive it: in each release they are links into the
//! service's data folder. Whatever a release brings in their place is moved there the first time, and
//! set aside afterwards; nothing is ever lost. Knows no service.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Component, Path, PathBuf};

use crate::refused::Refused;

/// Beside the content of a release: what it brought in the place of what was there already.
const ASIDE: &str = "brought";
/// What the end of a copy makes a whole.
const HALF: &str = ".hotctl-half";

/// Make each of `paths` in `content`, the folder of a release, a link to the same path in `data`, an
/// absolute folder. What is not in `data` yet is moved there from the release and made writable, or is
/// an empty folder where the release has nothing either. What is there stays; what the release brings
/// is then kept beside `content`, in `brought`. May be repeated, also after a crash in the middle.
///
/// # Errors
/// If a path does not lie within the release, or it cannot be done.
pub fn link(content: &Path, data: &Path, paths: &[String]) -> Result<(), Refused> {
    paths.iter().try_for_each(|path| {
        let inside = plain(path)?;
        parents(content, &inside, path)?;
        one(content, data, &inside).map_err(|cause| {
            Refused::new(format!("persist {path:?}: {cause}")).hint(format!(
                "free space, or mend the permissions, of {}",
                data.display()
            ))
        })
    })
}

fn plain(path: &str) -> Result<PathBuf, Refused> {
    let parts: Option<PathBuf> = Path::new(path)
        .components()
        .filter(|part| *part != Component::CurDir)
        .map(|part| match part {
            Component::Normal(name) => Some(name),
            _ => None,
        })
        .collect();
    match parts {
        Some(parts) if !parts.as_os_str().is_empty() => Ok(parts),
        _ => Err(
            Refused::new(format!("persist {path:?}: not a path within the release"))
                .hint(r#"such as "data" or "var/uploads""#),
        ),
    }
}

/// See that what it lies in are folders of the release, and make those it does not have.
fn parents(content: &Path, inside: &Path, path: &str) -> Result<(), Refused> {
    let failed = |cause: io::Error| Refused::new(format!("persist {path:?}: {cause}"));
    let whole = fs::canonicalize(content).map_err(failed)?;
    let mut at = PathBuf::new();
    for part in inside.parent().into_iter().flat_map(Path::components) {
        at.push(part);
        let here = content.join(&at);
        let what = match fs::symlink_metadata(&here) {
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => {
                fs::create_dir(&here).map_err(failed)?;
                continue;
            }
            meta => meta.map_err(failed)?,
        };
        let leads = match fs::canonicalize(&here) {
            _ if what.is_dir() => continue,
            Ok(leads) if !leads.starts_with(&whole) => "leads out of it",
            Ok(leads) if leads.is_dir() => continue,
            Ok(_) => "is a file",
            Err(_) => "leads nowhere",
        };
        return Err(Refused::new(format!(
            "persist {path:?}: {} in the release {leads}",
            at.display()
        ))
        .hint(format!(
            "persist {:?} instead, or let the release have a folder there",
            at.display().to_string()
        )));
    }
    Ok(())
}

fn one(content: &Path, data: &Path, inside: &Path) -> io::Result<()> {
    let (here, there) = (content.join(inside), data.join(inside));
    if let Some(folder) = there.parent() {
        fs::create_dir_all(folder)?;
    }
    let brings = match fs::symlink_metadata(&here) {
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => false,
        Err(cause) => return Err(cause),
        Ok(_) => !fs::read_link(&here).is_ok_and(|to| to == there),
    };
    match fs::symlink_metadata(&there) {
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => {
            if brings {
                carry(&here, &there)?;
            } else {
                fs::create_dir(&there)?;
            }
        }
        Err(cause) => return Err(cause),
        Ok(_) => {}
    }
    // What is still here was copied, or is not the first.
    if brings && fs::symlink_metadata(&here).is_ok() {
        set_aside(content, &here, inside)?;
    }
    match symlink(&there, &here) {
        Err(cause) if cause.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        done => done,
    }
}

/// Move it, so that it is either here or there: whole, and writable.
fn carry(here: &Path, there: &Path) -> io::Result<()> {
    if fs::symlink_metadata(here)?.is_symlink() {
        // A link would lead elsewhere from there: what it leads to is what was meant.
        return match fs::canonicalize(here) {
            Ok(real) => carry_copy(&real, there),
            Err(_) => fs::create_dir(there),
        };
    }
    // Before it is moved: after a crash in between, nobody would look at it again.
    make_writable(here)?;
    match fs::rename(here, there) {
        Err(cause) if cause.kind() == io::ErrorKind::CrossesDevices => carry_copy(here, there),
        done => done.and_then(|()| sync_folder_of(there)),
    }
}

/// For what cannot be moved. What is here stays, to be set aside.
fn carry_copy(here: &Path, there: &Path) -> io::Result<()> {
    let mut half = there.as_os_str().to_owned();
    half.push(HALF);
    let half = PathBuf::from(half);
    remove(&half)?;
    copy(here, &half)?;
    make_writable(&half)?;
    fs::rename(&half, there)?;
    sync_folder_of(there)
}

fn sync_folder_of(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(folder) => File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}

fn make_writable(path: &Path) -> io::Result<()> {
    let meta = fs::symlink_metadata(path)?;
    let more = match () {
        () if meta.is_dir() => 0o700,
        () if meta.is_file() => 0o600,
        // A link is as writable as what it leads to.
        () => return Ok(()),
    };
    let mode = meta.permissions().mode();
    if mode & more != more {
        fs::set_permissions(path, Permissions::from_mode(mode | more))?;
    }
    if meta.is_dir() {
        for entry in fs::read_dir(path)? {
            make_writable(&entry?.path())?;
        }
    }
    Ok(())
}

/// To another file system, and to its disk.
fn copy(from: &Path, to: &Path) -> io::Result<()> {
    let meta = fs::symlink_metadata(from)?;
    if meta.is_symlink() {
        return symlink(fs::read_link(from)?, to);
    }
    if meta.is_dir() {
        fs::create_dir(to)?;
        for entry in fs::read_dir(from)? {
            let entry = entry?;
            copy(&entry.path(), &to.join(entry.file_name()))?;
        }
        fs::set_permissions(to, meta.permissions())?;
    } else {
        fs::copy(from, to)?;
    }
    File::open(to)?.sync_all()
}

fn remove(path: &Path) -> io::Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(cause) => Err(cause),
    };
    match removed {
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

fn set_aside(content: &Path, here: &Path, inside: &Path) -> io::Result<()> {
    let folder = content.with_file_name(ASIDE);
    let mut place = folder.join(inside);
    let mut number = 1;
    // Something else may have been brought there before, by a release that was mended by hand.
    while fs::symlink_metadata(&place).is_ok() {
        number += 1;
        let mut name = inside.as_os_str().to_owned();
        name.push(format!(".{number}"));
        place = folder.join(name);
    }
    if let Some(parent) = place.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::rename(here, place)
}

#[cfg(test)]
#[path = "persist_tests.rs"]
mod tests;
