//! A daemon that deploys by itself what becomes of a tree, as it is or built first, and says what is
//! live by a hash of it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use super::daemon::web;
use super::{Daemon, eventually, sample};

/// Longer than the default: whoever saves may have to wait for a processor between two calls.
const SETTLE: Duration = Duration::from_millis(150);
/// That nothing follows can only be seen by waiting: several times as long as it would take.
const QUIET: Duration = Duration::from_millis(400);

/// All that is in the folder it runs in and is no folder, as one word; less what a tool makes, and a
/// cache.
const HASH: &str = "kept() { find . '(' -path ./target -o -name cache ')' -prune -o \"$@\"; }
{ kept ! -type d -printf '%y %p %l\\n'
kept -type f -perm /111 -printf 'x %p\\n'
kept -type f -exec sha256sum {} +
} | sort | sha256sum | cut -c1-16
";

/// How the tree is followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It is what a build leaves: `watch`.
    Output,
    /// It is sources: `build`.
    Sources,
}

/// The daemon. Its service is `web`.
pub struct Follower {
    pub daemon: Daemon,
    kind: Kind,
    place: PathBuf,
}

/// What was done so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Done {
    pub builds: usize,
    pub deployments: usize,
}

impl Done {
    /// After one change more.
    pub fn and_one(self, kind: Kind) -> Self {
        Self {
            builds: self.builds + usize::from(kind == Kind::Sources),
            deployments: self.deployments + 1,
        }
    }
}

impl Follower {
    /// Of the folder at `place`, within that of the daemon; what is live answers its hash.
    #[track_caller]
    pub fn of_tree(kind: Kind, place: &str) -> Self {
        Self::of_tree_through(&[], kind, place)
    }

    /// The same, the daemon started by these words.
    #[track_caller]
    pub fn of_tree_through(through: &[&str], kind: Kind, place: &str) -> Self {
        let start = format!("exec {} --version-text", sample::sample().display());
        let make = format!(
            "printf '#!/bin/sh\\n{start} %s\\n' \"$(sh \"$here/hash.sh\")\" > \"$here/new\""
        );
        let run = format!("{start} \"$(sh \"$(dirname \"$0\")/hash.sh\")\"\n");
        Self::start(through, kind, place, &make, &[("start.sh", &run)])
    }

    /// Of the one file at `place`, an executable as [`app`] says.
    #[track_caller]
    pub fn of_file(kind: Kind, place: &str) -> Self {
        let make = "cp \"$file\" \"$here/new\"";
        Self::start(&[], kind, place, make, &[])
    }

    fn start(
        through: &[&str],
        kind: Kind,
        place: &str,
        make: &str,
        files: &[(&str, &str)],
    ) -> Self {
        let settle = SETTLE.as_millis();
        let is_file = files.is_empty();
        let config = match kind {
            Kind::Output => {
                let run = match is_file {
                    true => "",
                    false => "run = [\"sh\", \"$FOLDER/start.sh\"]\n",
                };
                format!("{run}watch = {{ path = \"$FOLDER/{place}\", settle = \"{settle}ms\" }}")
            }
            Kind::Sources => {
                let root = match is_file {
                    true => Path::new(place).parent().unwrap().to_str().unwrap(),
                    false => place,
                };
                format!(
                    "watch = {{ settle = \"{settle}ms\" }}\n[service.web.build]\n\
                     command = [\"sh\", \"$FOLDER/build.sh\"]\nroot = \"$FOLDER/{root}\"\n\
                     output = \"$FOLDER/out/app\"\n"
                )
            }
        };
        let build = format!(
            "set -e\nhere=$(dirname \"$0\")\nfile=\"$here/{place}\"\necho . >> \"$here/begun\"\n\
             {make}\nchmod 755 \"$here/new\"\nmkdir -p \"$here/out\"\nmv \"$here/new\" \"$here/out/app\"\n"
        );
        let mut all = vec![("build.sh", build.as_str()), ("hash.sh", HASH)];
        all.extend(files);
        let config = web(&format!("keep_warm = \"0s\"\n{config}"));
        let daemon = Daemon::start_through(through, &config, &all);
        let place = daemon.folder().join(place);
        Self {
            daemon,
            kind,
            place,
        }
    }

    /// How it is followed.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Where what is followed lies.
    pub fn place(&self) -> &Path {
        &self.place
    }

    /// Write a file of the tree, and the folders above it.
    #[track_caller]
    pub fn write(&self, file: &str, text: &str) {
        let path = self.place.join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// The hash of the tree as it is now.
    #[track_caller]
    pub fn hash(&self) -> String {
        let mut sh = Command::new("sh");
        sh.arg(self.daemon.folder().join("hash.sh"));
        let ran = sh.current_dir(&self.place).output().unwrap();
        assert!(ran.stderr.is_empty(), "{ran:?}");
        String::from_utf8(ran.stdout).unwrap().trim().to_owned()
    }

    /// Wait until this is what is answered.
    #[track_caller]
    pub fn answers(&self, what: &str, version: &str) {
        eventually(&format!("{version} is live: {what}"), || {
            self.daemon.get("/").text().trim() == version
        });
    }

    /// Wait until the tree as it is now is live.
    #[track_caller]
    pub fn is_live(&self, what: &str) {
        self.answers(what, &self.hash());
    }

    /// What was done, when nothing follows any more.
    pub fn at_rest(&self) -> Done {
        thread::sleep(QUIET);
        let builds = fs::read_to_string(self.daemon.folder().join("begun"));
        let history = self.daemon.hotctl(["history", "web", "--json"]).exits(0);
        Done {
            builds: builds.map_or(0, |text| text.lines().count()),
            deployments: history.json::<Vec<serde_json::Value>>().len(),
        }
    }
}

/// An executable that answers `version`, as a text.
pub fn app(version: &str) -> String {
    let sample = sample::sample().display();
    format!("#!/bin/sh\nexec {sample} --version-text {version}\n")
}
