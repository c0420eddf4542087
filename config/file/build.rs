//! How the releases of a service are built from sources: its `[service.NAME.build]` table.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::form;

/// How a release is built each time its sources have changed and come to rest: the
/// `[service.NAME.build]` table. What the build leaves is deployed; where it fails, what is live stays.
/// `settle` and `max_wait` are those of `watch`. What `.gitignore`, `.ignore` and `.hotctlignore` name,
/// in any folder of `root` and above it up to the top of its repository, does not count as source, nor do
/// `target`, `node_modules`, `__pycache__`, `.hotctl`, what editors put beside a file, `output`, and the
/// state of hotctl.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Build {
    /// The command, such as `["cargo", "build"]`; it runs in `root`, as the user of hotctl. Default
    /// `[]`: nothing is built.
    pub command: Vec<String>,
    /// What it leaves, which is deployed: an executable, or a folder with its command in `run`. A
    /// relative path begins at `root`. It is to be named where there is a command.
    pub output: Option<PathBuf>,
    /// The folder of the sources. A relative path begins at the folder of this file. Without a
    /// `command` the sources are deployed as they are. Default: that folder, where there is a
    /// `command`.
    pub root: Option<PathBuf>,
    /// What counts as source, as patterns of `.gitignore` such as `"/src"` or `"*.go"`. Default `[]`:
    /// all that is not left out.
    pub watch: Vec<String>,
    /// What does not, as such patterns. Default `[]`.
    pub ignore: Vec<String>,
    /// What pages load from the folder of the sources as it is, such as style sheets and pictures, as
    /// such patterns: where nothing else has changed, nothing is built or deployed, and at the desk the
    /// browser loads it anew. Default `[]`: none.
    pub assets: Vec<String>,
    /// A file of `NAME=value` lines for the environment of the build, in the way of `env_file` of the
    /// service. A relative path begins at the folder of this file. Default none.
    pub env_file: Option<PathBuf>,
    /// What becomes of a build when a source changes meanwhile: `"cancel"` ends it with all that it
    /// has started, and the newest is built; `"finish"` lets it come to its end first. Default
    /// `"cancel"`.
    pub on_change: OnChange,
    /// How long `command`, `pre` and `post` may take, each. Above 0. Default `"10m"`.
    #[serde(with = "form::duration")]
    pub timeout: Duration,
    /// Command that runs before each build, such as one that generates sources. Default `[]`: none.
    pub pre: Vec<String>,
    /// Command that runs after each build that was good, before it is deployed. Default `[]`: none.
    pub post: Vec<String>,
}

/// What becomes of a build when a source changes meanwhile.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnChange {
    /// It is ended, and the newest is built.
    #[default]
    Cancel,
    /// It comes to its end first.
    Finish,
}

impl Default for Build {
    fn default() -> Self {
        Self {
            command: Vec::new(),
            output: None,
            root: None,
            watch: Vec::new(),
            ignore: Vec::new(),
            assets: Vec::new(),
            env_file: None,
            on_change: OnChange::default(),
            timeout: Duration::from_secs(600),
            pre: Vec::new(),
            post: Vec::new(),
        }
    }
}
