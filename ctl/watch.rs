//! What a build leaves, deployed by the daemon where the configuration says so: the same order as any
//! other, each time it has changed and come to rest. Decides nothing else.

use std::path::Path;
use std::sync::Arc;

use hotctl_config::names::Digest;
use hotctl_deploy::pack::{self, Packed};
use hotctl_deploy::refused::Refused;
use hotctl_deploy::watch::{Explain, Found, Plan, Told, Watch};
use tokio::sync::mpsc;
use tracing::{info, warn};

use crate::api::{Noted, Progress};
use crate::chunks;
use crate::service::{IfBusy, Order, Unchanged, Which, Wish};
use crate::site::Site;
use crate::who::Giver;

/// Watch what the configuration names, as long as it does.
pub async fn keep_watching(site: Arc<Site>, orders: mpsc::Sender<Order>) {
    loop {
        // Asked for before it is looked, so that no change between the two is missed.
        let stirred = site.stirred();
        match plan(&site) {
            None => stirred.await,
            Some(plan) => follow(&site, &orders, plan).await,
        }
    }
}

fn plan(site: &Site) -> Option<Plan> {
    let config = site.config();
    Some(Plan {
        path: config.watch.path.clone()?,
        ignore: config.ignore.clone(),
        settle: config.watch.settle,
        max_wait: config.watch.max_wait,
        explain: Explain::Nothing,
    })
}

/// Until the configuration says something else.
async fn follow(site: &Arc<Site>, orders: &mpsc::Sender<Order>, plan: Plan) {
    let path = plan.path.clone();
    let mut watch = Watch::begin(plan.clone());
    let mut begun: Option<Begun> = None;
    loop {
        let stirred = site.stirred();
        if self::plan(site).as_ref() != Some(&plan) {
            return;
        }
        let told = tokio::select! {
            told = watch.next() => told,
            () = hear(&mut begun) => continue,
            () = stirred => continue,
        };
        // Its task ends with us only.
        let Some(told) = told else { return };
        let which = match told {
            Told::Changed { .. } => Wanted::Always,
            Told::Begins {
                found: Found::Something,
                folders,
            } => {
                info!(service = %site.name, path = %path.display(), folders, "watching");
                Wanted::IfNew
            }
            other => {
                tell(site, &path, other);
                continue;
            }
        };
        match put(site, &path).await {
            Ok(put) if which == Wanted::IfNew && is_stored(site, &put.digest) => {}
            Ok(put) => {
                if let Some(begun) = begun.take() {
                    begun.give_up(site, orders).await;
                }
                begun = put.deploy(site, orders).await;
            }
            Err(refused) => {
                warn!(service = %site.name, hint = refused.hint, "what is watched is not deployed: {}", refused.text);
                let noted = Noted::WatchFailed {
                    error: refused.text,
                    hint: refused.hint,
                };
                site.means.journal.note(Some(&site.name), noted);
            }
        }
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

async fn put(site: &Arc<Site>, path: &Path) -> Result<Put, Refused> {
    let (path, ignore) = (path.to_owned(), site.config().ignore.clone());
    let packed = tokio::task::spawn_blocking(move || pack::pack(&path, &ignore)).await;
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
    async fn deploy(self, site: &Site, orders: &mpsc::Sender<Order>) -> Option<Begun> {
        let wish = Wish::Deploy {
            digest: self.digest,
            args: Vec::new(),
            name: self.name,
            unchanged: Unchanged::Nothing,
        };
        order(site, orders, wish).await.map(|progress| Begun {
            progress,
            number: None,
        })
    }
}

/// None where the service ends.
async fn order(
    site: &Site,
    orders: &mpsc::Sender<Order>,
    wish: Wish,
) -> Option<mpsc::Receiver<Progress>> {
    let (order, progress) = Order::of(site, wish, Giver::watch(), IfBusy::Wait);
    orders.send(order).await.ok().map(|()| progress)
}

/// A deployment that was ordered and has not ended.
struct Begun {
    progress: mpsc::Receiver<Progress>,
    number: Option<u32>,
}

impl Begun {
    /// It is not wanted any more. Refused where it is live already, which then stays until the next is.
    async fn give_up(mut self, site: &Site, orders: &mpsc::Sender<Order>) {
        while let Ok(progress) = self.progress.try_recv() {
            self.note(&progress);
        }
        if let Some(number) = self.number {
            let cancel = Wish::Cancel(Which::Number(number));
            let _ = order(site, orders, cancel).await;
        }
    }

    fn note(&mut self, progress: &Progress) {
        match progress {
            Progress::Ordered { deployment, .. } => self.number = Some(*deployment),
            Progress::Flipped { .. } => self.number = None,
            _ => {}
        }
    }
}

/// Hear what becomes of what was begun, until it has ended.
async fn hear(begun: &mut Option<Begun>) {
    match begun {
        None => std::future::pending().await,
        Some(known) => match known.progress.recv().await {
            Some(progress) => known.note(&progress),
            None => *begun = None,
        },
    }
}
