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
        let config = self.config();
        let (Some(root), Some(workdir), None) =
            (&config.build.root, &config.workdir, &config.build.output)
        else {
            return Ok(None);
        };
        let Ok(inside) = workdir.strip_prefix(root) else {
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
            if !earlier::differs(&stored.path, root)? {
                return Ok(None);
            }
            earlier::lay(&stored.path, root, &into)?;
            Ok(Some(into.join(inside)))
        })
        .inspect(|folder| {
            if folder.is_some() {
                info!(service = %self.name, release = at.release, "runs from a copy: what it runs from is newer");
            }
        })
        .map_err(failed)
    }
}
