//! Whether an environment is the one a release was deployed with, without keeping it: a keyed digest.
//! The key belongs to one service and stays in its folder, so that nobody who reads a record can try
//! out what a secret may be.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use hotctl_config::names::Digest;

/// The key of one service. `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct Key([u8; blake3::KEY_LEN]);

impl Key {
    /// The key in a file that only its owner can read; made when it is not there.
    ///
    /// # Errors
    /// If it cannot be read or made, or is not a key.
    pub fn open(path: &Path) -> io::Result<Self> {
        match File::open(path) {
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => make(path),
            file => Self::read(file?),
        }
    }

    fn read(file: File) -> io::Result<Self> {
        let mut bytes = Vec::new();
        file.take(100).read_to_end(&mut bytes)?;
        let key = bytes.try_into().map(Self);
        key.map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "not a key of 32 bytes"))
    }
}

/// The digest of an environment: of its names and values, in whatever order they stand; of a name
/// that stands there twice the last counts.
pub fn fingerprint(key: &Key, env: &[(String, String)]) -> Digest {
    let mut hasher = blake3::Hasher::new_keyed(&key.0);
    let sorted: BTreeMap<&String, &String> =
        env.iter().map(|(name, value)| (name, value)).collect();
    for part in sorted.into_iter().flat_map(|(name, value)| [name, value]) {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part.as_bytes());
    }
    Digest::from_bytes(*hasher.finalize().as_bytes())
}

fn make(path: &Path) -> io::Result<Key> {
    let mut key = [0; blake3::KEY_LEN];
    File::open("/dev/urandom")?.read_exact(&mut key)?;
    let mut half = path.as_os_str().to_owned();
    half.push(".new");
    // What a crash left of it.
    if let Err(cause) = fs::remove_file(&half)
        && cause.kind() != io::ErrorKind::NotFound
    {
        return Err(cause);
    }
    let mut file = File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&half)?;
    file.write_all(&key)?;
    file.sync_all()?;
    fs::rename(&half, path)?;
    Ok(Key(key))
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    fn env(words: &[&str]) -> Vec<(String, String)> {
        let pairs = words.iter().filter_map(|word| word.split_once('='));
        pairs
            .map(|(name, value)| (name.into(), value.into()))
            .collect()
    }

    #[test]
    fn a_fingerprint_changes_with_every_name_and_value_and_with_nothing_else() {
        let key = Key([7; 32]);
        let print = |words: &[&str]| fingerprint(&key, &env(words));
        let plain = print(&["A=1", "B=2"]);
        assert_eq!(plain, print(&["B=2", "A=1"]));
        assert_eq!(plain, print(&["A=0", "B=2", "A=1"]));
        for other in [
            &["A=1"][..],
            &["A=1", "B=3"],
            &["A=1", "C=2"],
            &["A=1B=2"],
            &[],
        ] {
            assert_ne!(plain, print(other), "{other:?}");
        }
        assert_ne!(plain, fingerprint(&Key([8; 32]), &env(&["A=1", "B=2"])));
    }

    #[test]
    fn a_key_is_made_once_and_is_its_owners_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        let made = Key::open(&path).unwrap();
        assert_eq!(Key::open(&path).unwrap(), made);
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_ne!(Key::open(&folder.path().join("other")).unwrap(), made);
        assert!(!format!("{made:?}").contains(&made.0[0].to_string()));
        fs::write(&path, "short").unwrap();
        assert!(Key::open(&path).is_err());
    }
}
