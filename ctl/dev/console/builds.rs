//! What builds say, shown as it comes. Knows their logs, and not how they end.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use hotctl_config::names::ServiceName;
use hotctl_config::units::show_bytes;

use super::{print_whole, say};
use crate::dev::reading::{Read, Reading};
use crate::site::Site;

/// How often it is looked what a build says.
const LOOK: Duration = Duration::from_millis(50);
/// How many pieces of the output of one build are shown at once while it goes on, so that those of others are
/// not held up.
pub const AT_ONCE: usize = 32;

/// The output of builds, by service.
pub type Builds = BTreeMap<ServiceName, tokio::sync::Mutex<BuildOutput>>;

/// What the builds of a service say, as far as it has been printed.
pub struct BuildOutput {
    site: Arc<Site>,
    mark: String,
    number: u64,
    reading: Option<Reading>,
    held: Vec<u8>,
}

impl BuildOutput {
    pub fn of(site: &Arc<Site>, mark: String) -> Self {
        Self {
            site: site.clone(),
            mark,
            number: 0,
            reading: None,
            held: Vec::new(),
        }
    }

    /// Print all that is left of one that has ended.
    pub async fn end(&mut self) {
        self.print(usize::MAX).await;
        if !self.held.is_empty() {
            self.held.push(b'\n');
            print_whole(&mut self.held, &self.mark);
        }
    }

    /// Print what has come since, in so many pieces at most.
    pub async fn print(&mut self, most: usize) {
        let now = self.site.build_status().map_or(0, |build| build.number);
        if now != self.number {
            self.number = now;
            self.reading = None;
            self.held.clear();
        }
        let log = self.site.build_log();
        for _ in 0..most {
            let (path, reading) = (log.clone(), self.reading.take());
            let read = tokio::task::spawn_blocking(move || Reading::go_on(reading, &path)).await;
            // Not there yet: the next look sees it.
            let Ok(Ok(Read {
                reading,
                bytes,
                missed,
            })) = read
            else {
                return;
            };
            self.reading = Some(reading);
            if missed {
                print_whole(&mut self.held, &self.mark);
                self.held.clear();
                say(&format!("{} {}", self.mark, left_out(&self.site, &log)));
            }
            if bytes.is_empty() {
                return;
            }
            self.held.extend(bytes);
            print_whole(&mut self.held, &self.mark);
        }
    }
}

/// A build that says more than its log keeps, before it could be read.
fn left_out(site: &Site, log: &Path) -> String {
    format!(
        "… some of what the build says may be missing here: it says more than can be shown in time, and of its \
         log only the last {} (logs.file_size) are kept: {}",
        show_bytes(2 * site.config().logs.file_size),
        log.display()
    )
}

/// Show what each build says, as it comes.
pub async fn follow_builds(builds: &Builds) {
    loop {
        tokio::time::sleep(LOOK).await;
        for build in builds.values() {
            build.lock().await.print(AT_ONCE).await;
        }
    }
}
