//! The field: hotctl and its peers, each started as its own documentation says, in front of the same
//! backend; and the loads they are put under.

// Each bench uses what it needs of it.
#![allow(dead_code)]

pub mod client;
pub mod peers;
pub mod process;
pub mod running;
pub mod seen;
pub mod switching;
pub mod wrk;

mod caddy;
mod envoy;
mod haproxy;
mod hotctl;
mod nginx;
mod sozu;

use std::env;
use std::path::{Path, PathBuf};

/// A word of the environment, or what stands for it when there is none.
pub fn word<T: std::str::FromStr>(name: &str, default: T) -> T {
    match env::var(name) {
        Err(_) => default,
        Ok(word) => match word.parse() {
            Ok(value) => value,
            Err(_) => panic!("{name}={word}: not understood"),
        },
    }
}

/// The words of a list in the environment, such as `PEERS=hotctl,nginx`. Empty: all.
pub fn wanted(name: &str, what: &str) -> bool {
    let list = env::var(name).unwrap_or_default();
    list.is_empty() || list.split(',').any(|word| word.trim() == what)
}

/// A program of `PATH`, of `./dev bench`'s own folder, or of the places of Debian's daemons.
pub fn find(name: &str) -> Option<PathBuf> {
    let peers = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/peers");
    let own = [peers.join("bin"), peers.join("python/bin")];
    let path = env::var_os("PATH").unwrap_or_default();
    let all = own
        .into_iter()
        .chain(env::split_paths(&path))
        .chain(["/usr/sbin".into(), "/sbin".into()]);
    all.map(|folder| folder.join(name)).find(|it| it.is_file())
}

/// An example of this package, built with the same profile as what is measured.
pub fn example(name: &str) -> PathBuf {
    let own = Path::new(env!("CARGO_BIN_EXE_hotctl"));
    let path = own.with_file_name("examples").join(name);
    assert!(
        path.is_file(),
        "{}: not built; ./dev bench builds it",
        path.display()
    );
    path
}

/// The hotctl that is measured: `HOTCTL`, as a profile-guided one, else the one that was built with this.
pub fn hotctl() -> PathBuf {
    match env::var_os("HOTCTL") {
        Some(path) => path.into(),
        None => env!("CARGO_BIN_EXE_hotctl").into(),
    }
}
