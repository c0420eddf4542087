//! Takes up what was there before: the deployments so far, and what was live.

use std::sync::Arc;

use hotctl_config::names::ServiceName;
use tracing::{info, warn};

use crate::fault::Fault;
use crate::history::History;
use crate::site::{Means, Site};

/// The deployments of a service so far.
pub fn history_of(means: &Means, service: &ServiceName) -> Result<Arc<History>, Fault> {
    let folder = means.state.service(service);
    let history = History::open(&folder, service).map_err(|cause| {
        Fault::config(format!("state {}: history.json: {cause}", folder.display()))
            .hint("mend its permissions, or move it away")
    })?;
    Ok(Arc::new(history))
}

/// Start again what was live when the last daemon ended. Traffic goes there at once: until the app
/// listens, connects are refused, and the proxy tries again.
pub async fn start_live(site: &Arc<Site>) {
    let Some(live) = site.ledger().live else {
        return;
    };
    let release = live.release_of(&site.name);
    match site.launch(live).await {
        Ok(launched) => {
            site.publish();
            for (instance, one) in launched.instances.into_iter().enumerate() {
                info!(%release, instance, address = %one.address, pid = one.process.pid(), "started again");
                site.bring_up(live.slot, instance, one);
            }
        }
        Err(why) => {
            let hint = why.hint.as_deref().unwrap_or_default();
            warn!(%release, %why, hint, "cannot start the live release again");
            site.publish();
        }
    }
}
