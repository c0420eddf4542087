//! The store of immutable releases: content by its digest, taken whole or not at all, never run
//! where it came from, never linked to it.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use hotctl_config::names::Digest;
use serde::{Deserialize, Serialize};
use tempfile::TempDir;
use tokio::sync::OnceCell;

use crate::pieces::{PieceReader, pieces};
use crate::refused::Refused;
use crate::tree;
use crate::{archive, elf};

/// Uploads are gathered in folders of this name; what a crash leaves of them is removed on open.
const UPLOAD: &str = ".upload-";
/// Content that nobody deployed is kept so long: the order may be on its way.
const UNUSED: Duration = Duration::from_secs(3600);

/// What is removed is renamed to this first, so that a half is never taken for a whole.
const GONE: &str = ".gone-";

/// A store in a folder of its own.
#[derive(Debug)]
pub struct Store {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    root: PathBuf,
    /// What was taken since this daemon started, and what was asked to be durable.
    known: Mutex<HashMap<Digest, Known>>,
}

#[derive(Debug, Clone)]
struct Known {
    /// When it was last uploaded.
    taken: Instant,
    /// Whether a deployment relies on it, or did: no order for it is on its way any more.
    deployed: bool,
    /// Set once it is on the disk; whoever wants it to be waits for the one that is at it.
    durable: Arc<OnceCell<()>>,
}

/// What is uploaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Upload {
    /// One executable file, as it is.
    File {
        /// Its name.
        name: String,
    },
    /// A tar of a folder.
    Folder,
}

/// Content in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// What it is known by.
    pub digest: Digest,
    /// File or folder.
    pub kind: Kind,
    /// The name of the file it came from; `folder` for folders.
    pub name: String,
    /// Bytes of all files.
    pub size: u64,
    /// The executable, or the folder.
    pub path: PathBuf,
}

/// What content is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// An executable.
    File,
    /// A folder.
    Folder,
}

/// What stands beside the content.
#[derive(Serialize, Deserialize)]
struct About {
    kind: Kind,
    name: String,
    size: u64,
}

impl Store {
    /// Open or make the store, and remove what a crash left half done.
    ///
    /// # Errors
    /// If the folder cannot be used.
    pub fn open(root: impl Into<PathBuf>) -> io::Result<Self> {
        let root = root.into();
        fs::create_dir_all(&root)?;
        for entry in fs::read_dir(&root)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let half = name.starts_with(UPLOAD) || name.starts_with(GONE);
            // Not marked as being on the disk: after a power cut it may be anything. That the daemon
            // died alone has harmed nothing.
            if half || !(entry.path().join("durable").exists() || is_of_this_boot(&entry.path())) {
                remove(&entry.path())?;
            }
        }
        let known = Mutex::default();
        Ok(Self {
            inner: Arc::new(Inner { root, known }),
        })
    }

    /// Take content. What is there already is not written again. Returns when it can be run; its way
    /// to the disk has then begun, and is waited for with [`Store::durable`].
    ///
    /// # Errors
    /// If it breaks off, cannot be stored, or is not what can be run.
    pub async fn put(
        &self,
        upload: Upload,
        body: impl Stream<Item = io::Result<Bytes>> + Send + Unpin,
    ) -> Result<Digest, Refused> {
        let (mut writer, reader) = pieces();
        let inner = self.inner.clone();
        let taking = tokio::task::spawn_blocking(move || take(&inner, upload, reader));
        let mut body = body;
        let fed = loop {
            match body.next().await {
                Some(Ok(bytes)) => {
                    // The disk is slower than the socket: waiting for it must not hold a thread
                    // that serves.
                    let written = tokio::task::block_in_place(|| writer.write_all(&bytes));
                    if written.is_err() {
                        break Ok(());
                    }
                }
                Some(Err(cause)) => break Err(cause),
                None => break Ok(()),
            }
        };
        match fed {
            // The taker has stopped reading, or has it all: its word counts.
            Ok(()) => drop(writer.finish()),
            Err(cause) => writer.fail(cause),
        }
        let (digest, rest) = taking.await.unwrap_or_else(|cause| {
            Err(Refused::new(format!("cannot store the release: {cause}")))
        })?;
        // Tens of thousands of files, perhaps, and nobody needs to wait for that.
        tokio::task::spawn_blocking(move || drop(rest));
        // While the app starts. It ends by itself, and whether it went well is asked later.
        let inner = self.inner.clone();
        tokio::spawn(async move { inner.sync(&digest).await });
        Ok(digest)
    }

    /// Wait until the content is on the disk, so that it survives a power cut. Await it before a
    /// record speaks of the release as live.
    ///
    /// # Errors
    /// If it cannot be written.
    pub async fn durable(&self, digest: &Digest) -> io::Result<()> {
        self.inner.know(digest, |known| known.deployed = true);
        self.inner.sync(digest).await
    }

    /// What is stored under a digest.
    pub fn get(&self, digest: &Digest) -> Option<Stored> {
        self.find(digest).ok().flatten()
    }

    /// What is stored under a digest; `None` if nothing whole is.
    ///
    /// # Errors
    /// If that cannot be told: out of descriptors, say.
    pub fn find(&self, digest: &Digest) -> io::Result<Option<Stored>> {
        let folder = self.inner.folder(digest);
        let text = match fs::read(folder.join("about.json")) {
            Ok(text) => text,
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(cause) => return Err(cause),
        };
        let Ok(about) = serde_json::from_slice::<About>(&text) else {
            return Ok(None);
        };
        let content = folder.join("content");
        let path = match about.kind {
            Kind::File => content.join(&about.name),
            Kind::Folder => content,
        };
        Ok(path.exists().then_some(Stored {
            digest: *digest,
            kind: about.kind,
            name: about.name,
            size: about.size,
            path,
        }))
    }

    /// Remove what is not among `used`. What was just uploaded stays for a while: an order for it may
    /// be on its way.
    ///
    /// # Errors
    /// The first that could not be removed.
    pub fn sweep(&self, used: &[Digest]) -> io::Result<()> {
        let mut result = Ok(());
        for entry in fs::read_dir(&self.inner.root)? {
            let entry = entry?;
            let name = entry.file_name();
            let Some(digest) = name.to_str().and_then(|name| name.parse::<Digest>().ok()) else {
                continue;
            };
            if used.contains(&digest) {
                continue;
            }
            let age = entry
                .metadata()
                .and_then(|meta| meta.modified())
                .map(|at| SystemTime::now().duration_since(at).unwrap_or_default());
            let gone = self.inner.root.join(format!("{GONE}{digest}"));
            {
                // Under the lock, so that an upload of the same finds it either there or not.
                let mut all = self.inner.known();
                let unused = match all.get(&digest) {
                    Some(known) => known.deployed || known.taken.elapsed() > UNUSED,
                    None => age.is_ok_and(|age| age > UNUSED),
                };
                if !unused {
                    continue;
                }
                if let Err(cause) = fs::rename(entry.path(), &gone) {
                    result = result.and(Err(cause));
                    continue;
                }
                all.remove(&digest);
            }
            result = result.and(remove(&gone));
        }
        result
    }
}

impl Inner {
    async fn sync(&self, digest: &Digest) -> io::Result<()> {
        let durable = self.know(digest, |known| known.durable.clone());
        let work = || async {
            let (root, folder) = (self.root.clone(), self.folder(digest));
            tokio::task::spawn_blocking(move || make_durable(&root, &folder))
                .await
                .unwrap_or_else(|cause| Err(io::Error::other(cause)))
        };
        durable.get_or_try_init(work).await.copied()
    }

    fn know<T>(&self, digest: &Digest, act: impl FnOnce(&mut Known) -> T) -> T {
        let mut all = self.known();
        act(all.entry(*digest).or_insert_with(|| Known {
            taken: Instant::now(),
            deployed: false,
            durable: Arc::default(),
        }))
    }

    fn known(&self) -> MutexGuard<'_, HashMap<Digest, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn folder(&self, digest: &Digest) -> PathBuf {
        self.root.join(digest.to_string())
    }
}

impl Stored {
    /// What to run, and where: a file with its arguments in `cwd`; in a folder the command given as
    /// `args`, else `run`.
    ///
    /// # Errors
    /// If a folder comes without a command.
    pub fn command(
        &self,
        run: &[String],
        args: &[String],
        cwd: &Path,
    ) -> Result<(Vec<String>, PathBuf), Refused> {
        let own = self.path.to_string_lossy().into_owned();
        match self.kind {
            Kind::File => {
                let program = std::iter::once(own).chain(args.iter().cloned());
                Ok((program.collect(), cwd.to_owned()))
            }
            Kind::Folder => {
                let command = if args.is_empty() { run } else { args };
                let (program, rest) = command.split_first().ok_or_else(|| {
                    Refused::new("a folder needs a command to run in it").hint(
                        "hotctl deploy ./folder -- node server.js, or `run` in the configuration",
                    )
                })?;
                // A path is one of the folder's own; a bare name too, if the folder has it.
                let inside = self.path.join(program);
                let relative = Path::new(program).is_relative();
                let program = if relative && (program.contains('/') || inside.is_file()) {
                    inside.to_string_lossy().into_owned()
                } else {
                    program.clone()
                };
                let words = std::iter::once(program).chain(rest.iter().cloned());
                Ok((words.collect(), self.path.clone()))
            }
        }
    }
}

/// Take an upload. What it was gathered in comes back if it is not needed, to be removed.
fn take(
    store: &Inner,
    upload: Upload,
    mut reader: PieceReader,
) -> Result<(Digest, Option<TempDir>), Refused> {
    let failed = |cause: io::Error| not_stored(&cause);
    let temp = tempfile::Builder::new()
        .prefix(UPLOAD)
        .tempdir_in(&store.root)
        .map_err(failed)?;
    let content = temp.path().join("content");
    fs::create_dir(&content).map_err(failed)?;
    let (digest, about) = match upload {
        Upload::File { name } => take_file(&content, name, &mut reader)?,
        Upload::Folder => {
            let unpacked = archive::unpack(reader, &content)?;
            let about = About {
                kind: Kind::Folder,
                name: "folder".to_owned(),
                size: unpacked.size,
            };
            (Digest::from_bytes(*unpacked.digest.as_bytes()), about)
        }
    };
    let place = store.folder(&digest);
    // A sweep sees that it was just taken, or was here before; then it is not there any more.
    let there = store.know(&digest, |known| {
        known.taken = Instant::now();
        known.deployed = false;
        let there = place.exists();
        if !there {
            // Removed by hand, perhaps: what was on the disk then is not now.
            known.durable = Arc::default();
        }
        there
    });
    if there {
        return Ok((digest, Some(temp)));
    }
    let text = serde_json::to_vec(&about).map_err(|cause| failed(cause.into()))?;
    fs::write(temp.path().join("about.json"), text).map_err(failed)?;
    fs::write(temp.path().join("boot"), tree::boot()).map_err(failed)?;
    match fs::rename(temp.path(), &place) {
        Ok(()) => {
            // It is in its place: nothing to clean up.
            let _ = temp.keep();
            Ok((digest, None))
        }
        // Another upload of the same content was quicker.
        Err(_) if place.exists() => Ok((digest, Some(temp))),
        Err(cause) => Err(failed(cause)),
    }
}

fn not_stored(cause: &io::Error) -> Refused {
    Refused::new(format!("the daemon cannot store the release: {cause}"))
        .hint("free space, or mend the permissions, of the daemon's state folder: `hotctl status --json` names it")
}

fn take_file(
    content: &Path,
    name: String,
    reader: &mut impl Read,
) -> Result<(Digest, About), Refused> {
    let plain = Path::new(&name)
        .file_name()
        .is_some_and(|file| file == name.as_str());
    if !plain {
        return Err(Refused::new(format!("{name:?}: not the name of a file")));
    }
    let failed = |cause: io::Error| not_stored(&cause);
    let mut file = File::options()
        .write(true)
        .read(true)
        .create_new(true)
        .mode(0o555)
        .open(content.join(&name))
        .map_err(failed)?;
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"hotctl file 1\0");
    let mut buffer = vec![0; 256 * 1024];
    let mut size = 0;
    loop {
        let n = match reader.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => n,
            Err(cause) if cause.kind() == io::ErrorKind::Interrupted => continue,
            Err(cause) => return Err(failed(cause)),
        };
        hasher.update(&buffer[..n]);
        file.write_all(&buffer[..n]).map_err(failed)?;
        size += n as u64;
    }
    elf::check(&file, &name)?;
    let about = About {
        kind: Kind::File,
        name,
        size,
    };
    Ok((Digest::from_bytes(*hasher.finalize().as_bytes()), about))
}

/// Whether content was written since the system began to run.
fn is_of_this_boot(folder: &Path) -> bool {
    let boot = tree::boot();
    !boot.is_empty() && fs::read_to_string(folder.join("boot")).is_ok_and(|text| text == boot)
}

/// One sync of the file system is far cheaper than one for each of many files.
fn make_durable(root: &Path, folder: &Path) -> io::Result<()> {
    let marker = folder.join("durable");
    if marker.exists() {
        return Ok(());
    }
    let about: About = serde_json::from_slice(&fs::read(folder.join("about.json"))?)?;
    match about.kind {
        Kind::File => {
            let content = folder.join("content");
            for path in [
                &content.join(&about.name),
                &folder.join("about.json"),
                &content,
            ] {
                File::open(path)?.sync_all()?;
            }
        }
        Kind::Folder => rustix::fs::syncfs(File::open(folder)?)?,
    }
    File::create(&marker)?.sync_all()?;
    File::open(folder)?.sync_all()?;
    File::open(root)?.sync_all()
}

fn remove(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        fs::remove_dir_all(path)
    } else {
        fs::remove_file(path)
    }
}

#[cfg(test)]
#[path = "release_tests.rs"]
mod tests;
