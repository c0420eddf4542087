//! Releases to deploy: copies of the sample app that differ by a line at their end, and folders.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The sample app, built. `cargo test` builds it with everything else; where only a part was asked
/// for, or the app has changed since, it is built here.
pub fn sample() -> &'static Path {
    static SAMPLE: OnceLock<PathBuf> = OnceLock::new();
    SAMPLE.get_or_init(|| {
        let beside = Path::new(env!("CARGO_BIN_EXE_hotctl"))
            .parent()
            .expect("a folder");
        let sample = beside.join("examples/sample");
        if is_older_than_its_source(&sample) {
            build(beside);
        }
        assert!(
            sample.exists(),
            "{}: not there, though built",
            sample.display()
        );
        sample
    })
}

fn is_older_than_its_source(sample: &Path) -> bool {
    let changed = |path: &Path| fs::metadata(path).and_then(|meta| meta.modified()).ok();
    let Some(built) = changed(sample) else {
        return true;
    };
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let mut source = super::leftovers::files(&examples.join("sample"));
    source.push(examples.join("sample.rs"));
    source
        .iter()
        .any(|path| changed(path).is_some_and(|changed| changed > built))
}

fn build(beside: &Path) {
    let profile = match beside.file_name().and_then(|name| name.to_str()) {
        Some("debug") | None => "dev",
        Some(name) => name,
    };
    let built = Command::new(env!("CARGO"))
        .args([
            "build",
            "--quiet",
            "--example",
            "sample",
            "--profile",
            profile,
        ])
        .arg("--manifest-path")
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml"))
        .status()
        .expect("cargo runs");
    assert!(built.success(), "cargo build --example sample: {built}");
}

/// A release that calls itself `version`, as `folder/app-VERSION`.
pub fn release(folder: &Path, version: &str) -> PathBuf {
    release_of_size(folder, version, 0)
}

/// The same of at least so many bytes.
pub fn release_of_size(folder: &Path, version: &str, size: u64) -> PathBuf {
    let path = folder.join(format!("app-{version}"));
    // A new file, as a build makes one: the old one may be running.
    let _ = fs::remove_file(&path);
    fs::copy(sample(), &path).expect("a copy of the sample app");
    let mut file = File::options().append(true).open(&path).expect("the copy");
    let mark = format!("\nsample-version:{version}\n");
    let now = file.metadata().expect("its size").len() + mark.len() as u64;
    let padding = usize::try_from(size.saturating_sub(now)).expect("a size that fits");
    file.write_all(&vec![b'.'; padding]).expect("the padding");
    file.write_all(mark.as_bytes()).expect("the mark");
    path
}
