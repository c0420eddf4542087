//! Where a release is started that runs from files which somebody edits, once these are newer than it.

use std::path::PathBuf;

use hotctl_deploy::earlier;
use hotctl_deploy::machine::Placement;
use hotctl_deploy::release::{self, Stored};
use hotctl_deploy::why::{Kind, Why};
use tracing::{info, warn};

use super::Site;
use crate::store::on_disk;

impl Site {
    /// Its folder as it was, for a release that is not the newest and whose files have changed since; none where
    /// it runs in its usual folder.
    ///
    /// # Errors
    /// If the copy cannot be made.
    pub(super) fn earlier(&self, at: Placement, stored: &Stored) -> Result<Option<PathBuf>, Why> {
        let Some(Edited { root, inside }) = self.edited() else {
            return Ok(None);
        };
        let is_newest = self.ledger().last.release == at.release;
        if is_newest || stored.kind == release::Kind::File {
            return Ok(None);
        }
        let failed = |cause: std::io::Error| {
            let text = format!(
                "{}: its files, as they were, cannot be laid beside those that are edited: {cause}",
                at.release_of(&self.name)
            );
            Why::new(Kind::NotStarted, text)
                .hint("free space, or mend the permissions of the state folder")
        };
        let all = self.folder().join("earlier");
        let into = all.join(at.release.to_string());
        on_disk(|| {
            let swept = {
                let ledger = self.ledger();
                earlier::sweep(&all, |number| ledger.releases.contains_key(&number))
            };
            if let Err(cause) = swept {
                warn!(service = %self.name, "earlier folders are not removed: {cause}");
            }
            if !earlier::differs(&stored.path, &root, |_| true)? {
                return Ok(None);
            }
            earlier::lay(&stored.path, &root, &into)?;
            Ok(Some(into.join(&inside)))
        })
        .inspect(|folder| {
            if folder.is_some() {
                info!(service = %self.name, release = at.release, "runs from a copy: what it runs from is newer");
            }
        })
        .map_err(failed)
    }

    /// Whether a candidate that runs from files which somebody edits has read others than those it is known by:
    /// somebody has saved while it started. What it writes itself does not count.
    pub fn has_read_others(&self, at: Placement) -> bool {
        let Some(Edited { root, .. }) = self.edited() else {
            return false;
        };
        let is_newest = self.ledger().last.release == at.release;
        let Ok((stored, _)) = self.content(at) else {
            return false;
        };
        let is_folder = stored.kind == release::Kind::Folder;
        let differs = || earlier::differs(&stored.path, &root, earlier::is_code);
        is_newest && is_folder && on_disk(differs).unwrap_or(false)
    }

    /// The folder that the service runs from while somebody edits it; none where it has its own.
    fn edited(&self) -> Option<Edited> {
        let config = self.config();
        let (Some(root), Some(workdir), None) =
            (&config.build.root, &config.workdir, &config.build.output)
        else {
            return None;
        };
        Some(Edited {
            root: root.clone(),
            inside: workdir.strip_prefix(root).ok()?.to_owned(),
        })
    }
}

/// Sources that are run as they are.
struct Edited {
    root: PathBuf,
    /// Where in them it runs.
    inside: PathBuf,
}
