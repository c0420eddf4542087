//! Log files that are full: put aside under numbers, the newest as it is, older ones compressed, so
//! many of them as may be kept. Knows no process.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use flate2::Compression;
use flate2::write::GzEncoder;
use rustix::fs::{AtFlags, CWD, Mode, OFlags};

/// Puts the files of one log aside.
#[derive(Debug)]
pub(crate) struct Rotation {
    log: PathBuf,
    /// How many files put aside are kept, 1 or more.
    kept: u32,
    /// The one that is being compressed.
    packing: Option<JoinHandle<()>>,
}

impl Rotation {
    pub(crate) fn new(log: &Path, kept: u32) -> Self {
        Self {
            log: log.into(),
            kept: kept.max(1),
            packing: None,
        }
    }

    /// Put the log aside: its name is free then. The oldest is removed if there are enough.
    ///
    /// # Errors
    /// If it cannot be renamed: it is still in its place then.
    pub(crate) fn put_aside(&mut self) -> io::Result<()> {
        if let Some(packing) = self.packing.take() {
            // Only where a whole file was filled while another was compressed. A panic there has
            // left the file as it was.
            let _ = packing.join();
        }
        let newest = aside(&self.log, 1);
        if self.kept > 1 && newest.exists() {
            self.pack_later(&newest);
        }
        fs::rename(&self.log, newest)
    }

    /// Make room for the one that was the newest, and compress it meanwhile.
    fn pack_later(&mut self, newest: &Path) {
        let plain = aside(&self.log, 2);
        if plain.exists() {
            // Whoever compressed it was killed.
            pack(&plain);
        }
        for number in (2..self.kept).rev() {
            // Not there, or a disk that cannot be written: then the older one goes.
            let _ = fs::rename(packed(&self.log, number), packed(&self.log, number + 1));
        }
        if fs::rename(newest, &plain).is_ok() {
            let packing = std::thread::Builder::new()
                .name("gzip".into())
                .stack_size(64 * 1024);
            self.packing = packing.spawn(move || pack(&plain)).ok();
        }
    }
}

/// The name of a file that was put aside as it is: `7.3.log.1`.
pub(crate) fn aside(log: &Path, number: u32) -> PathBuf {
    let mut name = log.as_os_str().to_owned();
    name.push(format!(".{number}"));
    name.into()
}

fn packed(log: &Path, number: u32) -> PathBuf {
    let mut name = aside(log, number).into_os_string();
    name.push(".gz");
    name.into()
}

/// The log that a file belongs to, by its name, and whether it is still as it was written.
pub(crate) fn log_of(file: &Path) -> Option<(PathBuf, Part)> {
    let name = file.to_str()?;
    let (name, part) = match name.strip_suffix(".gz") {
        Some(name) => (name, Part::Packed),
        None => (name, Part::Plain),
    };
    let log = match name.rsplit_once('.') {
        Some((log, number)) if number.parse::<u32>().is_ok() => log,
        _ if part == Part::Plain => name,
        _ => return None,
    };
    log.ends_with(".log").then(|| (log.into(), part))
}

/// Which part of a log a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// What is written, or was until a moment ago.
    Plain,
    /// What was put aside and compressed.
    Packed,
}

/// Compress a file, in place of which its compressed form is then. If that fails, or the shim ends
/// meanwhile, it stays as it is: what is half done has no name.
fn pack(plain: &Path) {
    let packed = || -> io::Result<()> {
        let mut name = plain.as_os_str().to_owned();
        name.push(".gz");
        let folder = plain.parent().unwrap_or(Path::new("/"));
        let flags = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
        let half = File::from(rustix::fs::open(folder, flags, Mode::RUSR | Mode::WUSR)?);
        let mut to = GzEncoder::new(half, Compression::fast());
        io::copy(&mut File::open(plain)?, &mut to)?;
        let half = to.finish()?;
        let through = format!("/proc/self/fd/{}", half.as_raw_fd());
        // Not there, unless no more than two are kept.
        let _ = fs::remove_file(&name);
        rustix::fs::linkat(CWD, through, CWD, &name, AtFlags::SYMLINK_FOLLOW)?;
        fs::remove_file(plain)
    };
    // A full disk, or a file system without nameless files: there is nobody to tell, and the next
    // rotation tries again.
    let _ = packed();
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use std::io::Read as _;

    use flate2::read::GzDecoder;

    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        let mut names: Vec<String> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn the_newest_stays_as_it_is_older_ones_are_compressed_and_the_oldest_goes() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("1.1.log");
        let mut rotation = Rotation::new(&log, 3);
        for n in 1..=5 {
            fs::write(&log, format!("file {n}\n")).unwrap();
            rotation.put_aside().unwrap();
        }
        rotation.packing.take().unwrap().join().unwrap();
        let kept = ["1.1.log.1", "1.1.log.2.gz", "1.1.log.3.gz"];
        assert_eq!(names(folder.path()), kept);
        let read = |name: &str| {
            let mut text = String::new();
            let file = File::open(folder.path().join(name)).unwrap();
            GzDecoder::new(file).read_to_string(&mut text).unwrap();
            text
        };
        let newest = fs::read_to_string(folder.path().join(kept[0])).unwrap();
        assert_eq!(newest, "file 5\n");
        assert_eq!(
            (read(kept[1]), read(kept[2])),
            ("file 4\n".into(), "file 3\n".into())
        );
    }

    #[test]
    fn where_one_is_kept_it_is_the_newest() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("1.1.log");
        let mut rotation = Rotation::new(&log, 1);
        for n in 1..=3 {
            fs::write(&log, format!("file {n}\n")).unwrap();
            rotation.put_aside().unwrap();
        }
        assert_eq!(names(folder.path()), ["1.1.log.1"]);
    }

    #[test]
    fn one_that_was_not_compressed_any_more_is_so_the_next_time() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("1.1.log");
        fs::write(aside(&log, 2), "left\n").unwrap();
        fs::write(aside(&log, 1), "newest\n").unwrap();
        fs::write(&log, "full\n").unwrap();
        let mut rotation = Rotation::new(&log, 9);
        rotation.put_aside().unwrap();
        rotation.packing.take().unwrap().join().unwrap();
        let kept = ["1.1.log.1", "1.1.log.2.gz", "1.1.log.3.gz"];
        assert_eq!(names(folder.path()), kept);
    }

    #[test]
    fn the_log_of_a_file_is_told_by_its_name() {
        let of = |name: &str| {
            log_of(Path::new(name)).map(|(log, part)| (log.display().to_string(), part))
        };
        let log = || "7.3.log".to_owned();
        assert_eq!(of("7.3.log"), Some((log(), Part::Plain)));
        assert_eq!(of("7.3.log.1"), Some((log(), Part::Plain)));
        assert_eq!(of("7.3.log.12.gz"), Some((log(), Part::Packed)));
        for other in ["7.3.log.gz", "notes.txt", "7.3.log.x", "a.1", "log"] {
            assert_eq!(of(other), None, "{other}");
        }
    }
}
