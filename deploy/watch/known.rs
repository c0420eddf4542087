//! What a look finds at a path, and which events are a reason for another.

use std::path::{Path, PathBuf};

use super::ears::{Ears, Heard};
use super::route::Route;
use super::snapshot::{self, Snapshot};
use super::stamp::Reads;
use super::{Kind, Plan};
use crate::refused::Refused;
use crate::without::Without;

/// What is known of the path.
pub(super) struct Known {
    pub(super) route: Route,
    without: Option<Without>,
    pub(super) snapshot: Snapshot,
}

impl Known {
    /// Look, where `before` was there when it was looked last, and watch every folder that is kept.
    ///
    /// # Errors
    /// If it cannot be looked at, or a pattern is none.
    pub(super) fn look(plan: &Plan, before: &Snapshot, ears: &mut Ears) -> Result<Self, Refused> {
        let mut route = Route::to(&plan.path);
        let shown = plan.path.display().to_string();
        let folder = route.end.clone().filter(|end| end.is_dir());
        for file in folder.iter().flat_map(|folder| plan.files_above(folder)) {
            route.look(file.parent().unwrap_or(&file), &file);
        }
        let mut wanted = route.folders.clone();
        // Before it is read: what changes from here on is heard.
        route.folders.iter().for_each(|folder| ears.watch(folder));
        let mut without = match &folder {
            Some(folder) => Some(plan.without(folder, &shown)?),
            None => None,
        };
        let snapshot = match &route.end {
            None => Ok(Snapshot::default()),
            Some(end) => Snapshot::of(end, without.as_mut(), plan.reads(), before, |folder| {
                wanted.insert(folder.to_path_buf());
                ears.watch(folder);
            }),
        };
        let snapshot = snapshot.map_err(|cause| Refused::new(format!("{shown}: {cause}")))?;
        ears.keep(&wanted);
        Ok(Self {
            route,
            without,
            snapshot,
        })
    }

    /// As if nothing were there.
    pub(super) fn nothing(plan: &Plan) -> Self {
        Self {
            route: Route::to(&plan.path),
            without: None,
            snapshot: Snapshot::default(),
        }
    }

    /// The first file that is another than before and that somebody has open for writing.
    pub(super) fn first_open(&self, before: &Self) -> Option<PathBuf> {
        let root = self.route.end.as_deref()?;
        let changed = self.snapshot.since(&before.snapshot);
        let open = self.snapshot.first_open(root, &changed)?;
        Some(snapshot::within(root, open))
    }

    /// Whether it is a file, and somebody has it open for writing.
    pub(super) fn is_open_file(&self, before: &Self) -> bool {
        let open = self.first_open(before);
        open.is_some() && open == self.route.end
    }

    /// Sources count one by one: what is still being written does when it is closed, which is heard of,
    /// and a folder is none.
    pub(super) fn leave_open(&mut self, before: &Self) {
        let Some(root) = self.route.end.clone() else {
            return;
        };
        self.snapshot.leave_open(&root, &before.snapshot);
    }

    pub(super) fn judge(&self, heard: &Heard) -> Verdict {
        if heard.lost {
            return Verdict::Counts;
        }
        if !heard.counts {
            return Verdict::OnlyRead;
        }
        let verdicts = heard.paths.iter().map(|path| self.judge_path(path));
        verdicts.max().unwrap_or(Verdict::Counts)
    }

    fn judge_path(&self, path: &Path) -> Verdict {
        // The folder of a name tells of itself, too.
        if self.route.names.contains(path) {
            return Verdict::Counts;
        }
        let end = self.route.end.as_deref();
        if !end.is_some_and(|end| path.starts_with(end)) {
            return Verdict::Other;
        }
        let Some(without) = &self.without else {
            return Verdict::Counts;
        };
        // What is left out says so itself, and that may have changed.
        match !without.is_file_of_patterns(path) && without.leaves_out_all(path) {
            true => Verdict::LeftOut,
            false => Verdict::Counts,
        }
    }
}

/// Whether an event is a reason to look; of several paths the last of these counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Verdict {
    Other,
    LeftOut,
    OnlyRead,
    Counts,
}

impl Verdict {
    pub(super) fn text(self) -> &'static str {
        match self {
            Self::Counts => "counts: it is looked whether there is something else now",
            Self::OnlyRead => "does not count: nothing was written",
            Self::LeftOut => "does not count: it is left out of what is deployed",
            Self::Other => "does not count: it is not part of what is watched",
        }
    }
}

impl Plan {
    /// What is left out of this folder.
    fn without(&self, folder: &Path, shown: &str) -> Result<Without, Refused> {
        let (without, output) = match &self.kind {
            Kind::Output => (Without::of(folder, &self.ignore, shown)?, None),
            Kind::Sources { only, output } => (
                Without::of_sources(folder, &self.ignore, only, shown)?,
                output.as_ref(),
            ),
        };
        Ok(without.never(self.never.iter().chain(output)))
    }

    /// Of which files the bytes are read.
    fn reads(&self) -> Reads {
        match self.kind {
            Kind::Output => Reads::Doubtful,
            Kind::Sources { .. } => Reads::Changed,
        }
    }

    /// The files that say what is left out, beside those in the folder itself.
    fn files_above(&self, folder: &Path) -> Vec<PathBuf> {
        match self.kind {
            Kind::Output => Vec::new(),
            Kind::Sources { .. } => Without::files_above(folder),
        }
    }
}
