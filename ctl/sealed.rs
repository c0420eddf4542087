//! Files of the state that say themselves whether they are whole: JSON whose last field is the
//! checksum of all before it, written so that at every instant a whole one is there. Beside each lies
//! the one before it. Knows bytes and files; what they mean is for others.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tempfile::NamedTempFile;

use crate::{failpoint, places};

/// The schema of the files from before there were checksums.
const BARE: u32 = 1;
/// Between what a file holds and its checksum.
const MARK: &[u8] = br#","blake3":""#;
const END: &[u8] = b"\"}\n";
/// Of the checksum, in hexadecimal digits.
const DIGITS: usize = 64;
/// What is being written begins so.
const HALF: &str = ".half-";

/// Why a file cannot be understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unreadable {
    /// It cannot be read, or is not what was written.
    Damaged(String),
    /// It is whole, and of a later hotctl.
    Later {
        /// The schema it has.
        schema: u32,
        /// The latest that this hotctl reads.
        newest: u32,
    },
}

impl std::fmt::Display for Unreadable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Damaged(reason) => f.write_str(reason),
            Self::Later { schema, newest } => write!(
                f,
                "written by a later hotctl (schema {schema}, this one reads up to {newest})"
            ),
        }
    }
}

#[derive(Deserialize)]
struct Head {
    schema: u32,
}

/// What a text of `write` says, as the shape of schema `newest`, which has a field of that name; or,
/// of the very first schema, one without a checksum.
///
/// # Errors
/// If it is not exactly what was written, or is of a later schema.
pub fn understand<T: DeserializeOwned>(text: &[u8], newest: u32) -> Result<T, Unreadable> {
    let damaged = |reason: String| Unreadable::Damaged(format!("damaged: {reason}"));
    let is_sealed = is_sealed(text).map_err(damaged)?;
    let json = |cause: serde_json::Error| damaged(cause.to_string());
    let Head { schema } = serde_json::from_slice(text).map_err(json)?;
    match is_sealed {
        true if schema > newest => return Err(Unreadable::Later { schema, newest }),
        // What has a checksum now had one from schema 2 on; without it, it was cut off or edited.
        true => {}
        false if schema == BARE => {}
        false => return Err(damaged("it has no checksum".to_owned())),
    }
    serde_json::from_slice(text).map_err(json)
}

/// What a file that is written must be whole after.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outlives {
    /// A power cut: it is waited for until it is on the disk.
    PowerCut,
    /// The end of every process, which is for the system to see to.
    Kill,
}

/// Write an object with a field `schema`: beside the file and to the disk; then let the file that is
/// there become the last good one; then put it in its place by rename, and that to the disk.
///
/// # Errors
/// If any of it fails; what was there before is whole then, and still in its place.
pub fn write(
    folder: &Path,
    name: &str,
    value: &impl Serialize,
    outlives: Outlives,
) -> io::Result<()> {
    let staged = stage(folder, value)?;
    if outlives == Outlives::PowerCut {
        staged.as_file().sync_all()?;
    }
    keep_last(folder, name)?;
    failpoint::pass("before-rename");
    staged.persist(folder.join(name))?;
    failpoint::pass("after-rename");
    match outlives {
        Outlives::PowerCut => File::open(folder)?.sync_all(),
        Outlives::Kill => Ok(()),
    }
}

/// Where the one before the file of this name is kept.
pub fn last_of(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("{name}.last"))
}

/// Remove what a writer that was killed has left half done. Nobody may be writing there.
pub fn sweep(folder: &Path) -> io::Result<()> {
    for entry in folder.read_dir()? {
        let entry = entry?;
        if entry
            .file_name()
            .to_str()
            .is_some_and(|name| name.starts_with(HALF))
        {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Whole, under a name that nobody reads.
fn stage(folder: &Path, value: &impl Serialize) -> io::Result<NamedTempFile> {
    places::may_be_made(folder)?;
    fs::create_dir_all(folder)?;
    let mut file = tempfile::Builder::new().prefix(HALF).tempfile_in(folder)?;
    // Whole first: the writer of JSON would make a system call for each word.
    file.write_all(&sealed(value)?)?;
    Ok(file)
}

/// Give what is there a second name. It is on the disk already, so this costs no write of data.
fn keep_last(folder: &Path, name: &str) -> io::Result<()> {
    let (now, last) = (folder.join(name), last_of(folder, name));
    let half = folder.join(format!("{HALF}{name}"));
    remove(&half)?;
    match fs::hard_link(&now, &half) {
        Ok(()) => {}
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(()),
        // A file system without hard links, or with a limit to them.
        Err(_) => {
            fs::copy(&now, &half)?;
            File::open(&half)?.sync_all()?;
        }
    }
    fs::rename(&half, &last)?;
    // Where both were names of one file already, the rename has done nothing.
    remove(&half)
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(cause) if cause.kind() != io::ErrorKind::NotFound => Err(cause),
        _ => Ok(()),
    }
}

fn sealed(value: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut text = serde_json::to_vec(value)?;
    if text.pop() != Some(b'}') {
        return Err(io::Error::other("only an object can be sealed"));
    }
    let checksum = blake3::hash(&text).to_hex();
    text.extend_from_slice(MARK);
    text.extend_from_slice(checksum.as_bytes());
    text.extend_from_slice(END);
    Ok(text)
}

/// Whether it has a checksum where one belongs.
///
/// # Errors
/// If it has one, and that is not of what stands before it.
fn is_sealed(text: &[u8]) -> Result<bool, String> {
    let at = text.len().saturating_sub(MARK.len() + DIGITS + END.len());
    let (body, seal) = text.split_at(at);
    let checksum = seal
        .strip_prefix(MARK)
        .and_then(|rest| rest.strip_suffix(END));
    match checksum {
        None => Ok(false),
        Some(checksum) if blake3::hash(body).to_hex().as_bytes() == checksum => Ok(true),
        Some(_) => Err("its checksum is not that of its content".to_owned()),
    }
}

#[cfg(test)]
#[path = "sealed_tests.rs"]
mod tests;
