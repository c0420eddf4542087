//! What is deployed by the daemon itself where the configuration says so, each time it has changed and
//! come to rest: what a build leaves, or sources, which are built first. The same order as any other;
//! decides nothing else.

mod begun;
mod build;
mod repeats;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hotctl_config::file::{Build, OnChange};
use hotctl_config::names::Digest;
use hotctl_deploy::pack::{self, Packed};
use hotctl_deploy::refused::Refused;
use hotctl_deploy::watch::{Explain, Found, Kind, Plan, Told, Watch};
use hotctl_deploy::without::{self, Only};
use tokio::sync::mpsc;
use tracing::{info, warn};

use crate::api::Noted;
use crate::service::{Order, Unchanged, Wish};
use crate::site::{Site, Touched};
use crate::store::on_disk;
use crate::teller::ms;
use crate::{chunks, dev};
use begun::{Begun, Heard, hear, order};
use build::{Building, Disturbed, Loops, Verdict};
use repeats::{Pace, Repeats};

/// Watch what the configuration names, as long as it does.
pub async fn keep_watching(site: Arc<Site>, orders: mpsc::Sender<Order>) {
    loop {
        // Asked for before it is looked, so that no change between the two is missed.
        let stirred = site.stirred();
        match plan(&site) {
            None => stirred.await,
            Some(plans) => follow(&site, &orders, plans).await,
        }
    }
}

/// What is watched, and what is done when it changes.
#[derive(Debug, Clone, PartialEq)]
struct Plans {
    watch: Plan,
    build: Build,
}

fn plan(site: &Site) -> Option<Plans> {
    let config = site.config();
    let Build {
        output,
        root,
        watch,
        ignore,
        assets,
        ..
    } = &config.build;
    let (path, ignore, kind) = match root {
        Some(root) => {
            let kind = Kind::Sources {
                only: match watch.is_empty() {
                    true => Vec::new(),
                    false => watch.iter().chain(assets).cloned().collect(),
                },
                output: output.clone(),
            };
            (root.clone(), ignore.clone(), kind)
        }
        None => {
            let path = config.watch.path.clone()?;
            (path, config.ignore.clone(), Kind::Output)
        }
    };
    Some(Plans {
        watch: Plan {
            path,
            ignore,
            never: vec![site.means.state.root().to_path_buf()],
            kind,
            settle: config.watch.settle,
            max_wait: config.watch.max_wait,
            explain: Explain::Nothing,
        },
        build: config.build.clone(),
    })
}

/// Until the configuration says something else.
async fn follow(site: &Arc<Site>, orders: &mpsc::Sender<Order>, plans: Plans) {
    let mut follower = Follower {
        site,
        orders,
        watch: Watch::begin(plans.watch.clone()),
        assets: Only::of(&plans.watch.path, &plans.build.assets),
        plans,
        begun: None,
        building: None,
        next: None,
        loops: Loops::default(),
        quiet_at: None,
        ended_at: None,
        repeats: Repeats::default(),
        held: None,
    };
    loop {
        let stirred = site.stirred();
        if plan(site).as_ref() != Some(&follower.plans) {
            if let Some(building) = follower.building.take() {
                building.cancel(site).await;
            }
            return;
        }
        tokio::select! {
            told = follower.watch.next() => match told {
                Some(told) => follower.hear(told).await,
                // Its task ends with us only.
                None => return,
            },
            verdict = ended(&mut follower.building) => follower.settle(verdict).await,
            heard = hear(site, &mut follower.begun) => follower.heed(heard),
            () = site.build_again() => follower.change(Change::wanted()).await,
            () = at(follower.quiet_at) => follower.is_quiet(),
            () = at(follower.held.as_ref().map(|held| held.due)) => follower.let_go().await,
            () = stirred => {}
        }
    }
}

async fn ended(building: &mut Option<Building>) -> Verdict {
    match building {
        Some(building) => building.ended().await,
        None => std::future::pending().await,
    }
}

async fn at(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}

/// Something is there that was not before.
#[derive(Debug, Clone)]
struct Change {
    paths: Vec<PathBuf>,
    /// Since when that is known; none where nobody has changed anything.
    since: Option<Instant>,
    wanted: Wanted,
}

impl Change {
    /// Somebody wants it, changed or not.
    fn wanted() -> Self {
        Self {
            paths: Vec::new(),
            since: None,
            wanted: Wanted::Always,
        }
    }

    /// The first few paths, for people.
    fn names(&self) -> Vec<String> {
        const NAMED: usize = 5;
        let paths = self.paths.iter().take(NAMED);
        let shown = paths.map(|path| match path.as_os_str().is_empty() {
            // The folder itself.
            true => ".".to_owned(),
            false => path.display().to_string(),
        });
        shown.collect()
    }
}

/// Whoever follows one path.
struct Follower<'a> {
    site: &'a Arc<Site>,
    orders: &'a mpsc::Sender<Order>,
    plans: Plans,
    watch: Watch,
    /// What is no reason to build or deploy anything.
    assets: Option<Only>,
    /// The deployment that was ordered last.
    begun: Option<Begun>,
    building: Option<Building>,
    /// What is built next, when that has ended.
    next: Option<Change>,
    loops: Loops,
    /// When it counts as known that builds disturb themselves.
    quiet_at: Option<Instant>,
    /// When the last build ended.
    ended_at: Option<Instant>,
    repeats: Repeats,
    /// What is deployed later, as it changes all the time.
    held: Option<Held>,
}

struct Held {
    change: Change,
    due: Instant,
}

impl Follower<'_> {
    async fn hear(&mut self, told: Told) {
        let site = self.site;
        let path = &self.plans.watch.path;
        match told {
            Told::Changed { paths, .. } if self.are_assets(&paths) => {
                let change = Change {
                    paths,
                    ..Change::wanted()
                };
                info!(service = %site.name, paths = change.names().join(", "), "assets have changed");
                self.site.journal(Noted::AssetsChanged {
                    paths: change.names(),
                    only_styles: Touched::of(&change.paths) == Touched::Styles,
                });
            }
            Told::Changed { paths, since } => {
                let change = Change {
                    paths,
                    since: Some(since),
                    wanted: Wanted::Always,
                };
                self.change(change).await;
            }
            Told::Begins {
                found: Found::Something,
                folders,
            } => {
                info!(service = %site.name, path = %path.display(), folders, "watching");
                name_unmatched(site, &self.plans).await;
                let change = Change {
                    wanted: Wanted::IfNew,
                    ..Change::wanted()
                };
                self.change(change).await;
            }
            other => tell(site, path, other),
        }
    }

    /// Whether pages load all these as they are, and need nothing else.
    fn are_assets(&self, paths: &[PathBuf]) -> bool {
        let Some(assets) = &self.assets else {
            return false;
        };
        !paths.is_empty() && paths.iter().all(|path| assets.has(path))
    }

    /// Build it, or deploy it as it is.
    async fn change(&mut self, change: Change) {
        self.site.touch(&change.paths);
        if self.plans.build.command.is_empty() {
            return match self.pace(&change) {
                None => self.deploy(change).await,
                // The earliest change counts.
                Some(due) => {
                    self.held.get_or_insert(Held { change, due });
                }
            };
        }
        let Some(building) = self.building.take() else {
            if self.was_during_a_build(&change) {
                return self.after_a_build(change);
            }
            // While none went on: whoever it was, it was no build.
            self.quiet_at = None;
            self.next = None;
            self.loops.at_rest();
            self.building = Some(Building::begin(self.site, change));
            return;
        };
        match (
            self.loops.disturbed(&change.paths),
            self.plans.build.on_change,
        ) {
            (Disturbed::ByItself, _) => self.building = Some(building),
            (Disturbed::Really, OnChange::Cancel) => {
                building.cancel(self.site).await;
                self.next = None;
                self.building = Some(Building::begin(self.site, change));
            }
            (Disturbed::Suspicious, _) | (Disturbed::Really, OnChange::Finish) => {
                self.building = Some(building);
                self.next = Some(change);
            }
        }
    }

    /// Whether it has happened while the last build went on, though it is told only now: a build may be over
    /// before what it changes has come to rest.
    fn was_during_a_build(&self, change: &Change) -> bool {
        /// An event is heard so soon.
        const HEARD: Duration = Duration::from_millis(20);
        match (change.since, self.ended_at) {
            (Some(since), Some(ended)) => since <= ended + HEARD,
            _ => false,
        }
    }

    fn after_a_build(&mut self, change: Change) {
        match self.loops.disturbed(&change.paths) {
            Disturbed::ByItself => {}
            Disturbed::Really => self.building = Some(Building::begin(self.site, change)),
            Disturbed::Suspicious => {
                self.next = Some(change);
                self.quiet_at = Some(Instant::now() + Loops::QUIET);
            }
        }
    }

    /// A build has ended.
    async fn settle(&mut self, verdict: Verdict) {
        let Some(building) = self.building.take() else {
            return;
        };
        self.ended_at = Some(Instant::now());
        match verdict {
            Verdict::Done => {
                building.done(self.site);
                self.deploy(building.change).await;
            }
            Verdict::Failed(failed) => building.failed(self.site, &failed),
            Verdict::Cancelled => {}
        }
        match &self.next {
            Some(next) if self.loops.is_suspicious(&next.paths) => {
                self.quiet_at = Some(Instant::now() + Loops::QUIET);
            }
            Some(_) => self.go_on(),
            None => {}
        }
    }

    /// Build what has changed meanwhile.
    fn go_on(&mut self) {
        if let Some(next) = self.next.take() {
            self.building = Some(Building::begin(self.site, next));
        }
    }

    /// Nothing changes as long as nothing is built.
    fn is_quiet(&mut self) {
        self.quiet_at = None;
        let paths = self.loops.found();
        let paths: Vec<String> = paths.iter().map(|it| it.display().to_string()).collect();
        warn!(service = %self.site.name, paths = paths.join(", "),
            "the build changes its own sources: that counts no more while it goes on (name them in build.ignore)");
        self.site.journal(Noted::BuildDisturbsItself { paths });
        self.go_on();
    }

    /// Until when this is not deployed: what runs from the files that are watched may be what changes them.
    fn pace(&mut self, change: &Change) -> Option<Instant> {
        // A wish of somebody's own is none of that.
        if self.plans.build.root.is_none() || change.since.is_none() {
            return None;
        }
        match self.repeats.changed(&change.paths, Instant::now()) {
            Pace::AtOnce => None,
            Pace::Slow(due) => Some(due),
            Pace::SlowerFrom(due) => {
                let paths = change.names();
                warn!(service = %self.site.name, paths = paths.join(", "),
                    "the same changes as soon as a version runs: it is deployed less often (name it in build.ignore)");
                self.site.journal(Noted::AppDisturbsItself {
                    paths,
                    every_ms: ms(Repeats::EVERY),
                });
                Some(due)
            }
        }
    }

    async fn let_go(&mut self) {
        if let Some(held) = self.held.take() {
            self.deploy(held.change).await;
        }
    }

    fn heed(&mut self, heard: Heard) {
        match heard {
            Heard::Flipped => self.repeats.live(Instant::now()),
            Heard::Ended => self.repeats.ended(),
            Heard::Other => {}
        }
    }

    async fn deploy(&mut self, change: Change) {
        let (site, orders) = (self.site, self.orders);
        // It is all taken as it is now.
        self.held = None;
        self.repeats.begins(Instant::now());
        match put(site, &self.plans).await {
            Ok(put)
                if change.wanted == Wanted::IfNew
                    && !site.means.manner.always_newest()
                    && is_stored(site, &put.digest) => {}
            Ok(put) => {
                if let Some(begun) = self.begun.take() {
                    begun.give_up(site, orders).await;
                }
                self.begun = put.deploy(site, orders, change.since).await;
            }
            Err(refused) => {
                warn!(service = %site.name, hint = refused.hint, "what is watched is not deployed: {}", refused.text);
                site.journal(Noted::WatchFailed {
                    error: refused.text,
                    hint: refused.hint,
                });
            }
        }
    }
}

/// Tell which patterns of the configuration no source has. Those of a kind of file that a project may have are
/// no slip of the pen.
async fn name_unmatched(site: &Site, plans: &Plans) {
    let written = plans.build.watch.iter().chain(&plans.build.assets);
    let named: Vec<String> = written.filter(|it| !dev::is_usual(it)).cloned().collect();
    if named.is_empty() || plans.build.root.is_none() {
        return;
    }
    let plan = plans.watch.clone();
    let found = tokio::task::spawn_blocking(move || {
        without::unmatched(&plan.path, &plan.ignore, &plan.never, &named)
    });
    let patterns = found.await.unwrap_or_default();
    if !patterns.is_empty() {
        let root = plans.watch.path.display().to_string();
        warn!(service = %site.name, patterns = patterns.join(", "), root, "no source matches what is to be watched");
        site.journal(Noted::WatchMatchesNothing { patterns, root });
    }
}

/// Whether what is there is to be deployed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wanted {
    Always,
    /// Not if it was before: somebody may have gone back from it.
    IfNew,
}

fn is_stored(site: &Site, digest: &Digest) -> bool {
    let ledger = site.ledger();
    let mut releases = ledger.releases.values();
    releases.any(|release| release.digest == *digest)
}

fn tell(site: &Site, path: &Path, told: Told) {
    let (service, path) = (&site.name, path.display());
    match told {
        Told::Begins { .. } => info!(%service, %path, "watching: it is not there yet"),
        Told::Gone => warn!(%service, %path, "what is watched is gone: what is live stays"),
        Told::Polls(why) => warn!(%service, %path, "{why}"),
        Told::Waits(file) => {
            info!(%service, file = %file.display(), "somebody still writes it: waiting");
        }
        Told::Cannot(why) => warn!(%service, %path, "{why}: trying again"),
        Told::Changed { .. } | Told::Explained(_) => {}
    }
}

/// Content in the store, and what it is called.
struct Put {
    digest: Digest,
    name: String,
}

async fn put(site: &Arc<Site>, plans: &Plans) -> Result<Put, Refused> {
    if let Err(cause) = on_disk(|| site.make_folders()) {
        return Err(Refused::new(format!("state: {cause}"))
            .hint("free space, or mend the permissions of the state folder"));
    }
    let ignore = site.config().ignore.clone();
    let (watched, output) = (plans.watch.clone(), plans.build.output.clone());
    let packed = tokio::task::spawn_blocking(move || match (&watched.kind, output) {
        (Kind::Sources { .. }, Some(output)) => pack::pack(&output, &ignore, &watched.never),
        (Kind::Sources { only, .. }, None) => {
            pack::pack_sources(&watched.path, &watched.ignore, only, &watched.never)
        }
        (Kind::Output, _) => pack::pack(&watched.path, &ignore, &watched.never),
    })
    .await;
    let Packed {
        upload,
        name,
        reader,
    } = packed.unwrap_or_else(|join| Err(Refused::new(join.to_string())))?;
    let (reading, bytes) = chunks::of(reader);
    let mut bytes = std::pin::pin!(bytes);
    let put = site.store.put(upload, &mut bytes).await;
    // What the reader found wrong is the better reason.
    if let Ok(Err(cause)) = reading.await {
        return Err(Refused::new(cause.to_string()));
    }
    Ok(Put { digest: put?, name })
}

impl Put {
    async fn deploy(
        self,
        site: &Site,
        orders: &mpsc::Sender<Order>,
        since: Option<Instant>,
    ) -> Option<Begun> {
        let wish = Wish::Deploy {
            digest: self.digest,
            args: Vec::new(),
            name: self.name,
            unchanged: Unchanged::Nothing,
        };
        let progress = order(site, orders, wish).await?;
        Some(Begun::new(progress, since))
    }
}
