//! What the browser of a person at the desk is told: what is live, so that a page that an older version
//! has made can go; and what did not become live, and why, to be shown over the page that still serves.
//! Knows what is told, and the scripts that show it; how they come into a page is the proxy's.

mod editor;
mod sheet;

use std::collections::BTreeMap;
use std::time::Duration;

use axum::body::Bytes;
use hotctl_config::ServiceName;
use hotctl_proxy::{Answering, Desk, OWN_PATHS, Own, Page};
use serde::Serialize;
use tokio::sync::watch;

use crate::api::EventLine;
use crate::history::now_ms;
use crate::house::House;
pub use editor::Editor;
use sheet::Sheet;

/// How long a browser waits for news until it hears that there are none, so that it sees if nobody is
/// there any more.
const PATIENCE: Duration = Duration::from_secs(20);

const PAGE_SCRIPT: &str = include_str!("browser/page.js");
const WORKER_SCRIPT: &str = include_str!("browser/worker.js");
const SCRIPT_KIND: &str = "text/javascript; charset=utf-8";

/// See the head of this file.
#[derive(Debug)]
pub struct Browser {
    /// Another one each time hotctl starts.
    boot: String,
    editor: Editor,
    told: watch::Sender<Told>,
}

/// All that is told.
#[derive(Debug, Default)]
struct Told {
    /// Counts the changes.
    seq: u64,
    sheets: BTreeMap<ServiceName, Sheet>,
}

/// The same, on its way.
#[derive(Serialize)]
struct News<'a> {
    boot: &'a str,
    seq: u64,
    /// What time it is here, in milliseconds since 1970.
    now_ms: u64,
    services: &'a BTreeMap<ServiceName, Sheet>,
}

impl Browser {
    /// Files are linked to as this editor opens them.
    pub fn new(editor: Editor) -> Self {
        Self {
            boot: format!("{:x}", fastrand::u64(..)),
            editor,
            told: watch::Sender::default(),
        }
    }

    /// See that what is told is what is so, as long as the daemon runs.
    /// `since`: the number of the last event before anything of this was begun.
    pub async fn follow(&self, house: &House, since: u64) {
        let mut reader = house.means.journal.after(since, None);
        self.told.send_modify(|told| {
            told.seq += 1;
            for resident in house.residents() {
                let sheet = Sheet::of(&resident.site, &self.editor);
                told.sheets.insert(resident.site.name.clone(), sheet);
            }
        });
        while let Some(bytes) = reader.follow().await {
            for line in bytes.split(|byte| *byte == b'\n') {
                let Ok(EventLine::Event(event)) = serde_json::from_slice(line) else {
                    continue;
                };
                let resident = event.service.as_ref().map(|name| house.resident(name));
                let Some(Ok(resident)) = resident else {
                    continue;
                };
                let site = &resident.site;
                self.told.send_if_modified(|told| {
                    let sheet = told.sheets.entry(site.name.clone());
                    let sheet = sheet.or_insert_with(|| Sheet::of(site, &self.editor));
                    let before = sheet.clone();
                    sheet.hear(&event, site, &self.editor);
                    let is_other = *sheet != before;
                    told.seq += u64::from(is_other);
                    is_other
                });
            }
        }
    }

    /// What is told now, if that is not what `known` (`BOOT-SEQ`) says; else when it is another.
    async fn news(&self, known: &str) -> Bytes {
        let mut told = self.told.subscribe();
        let is_new = |told: &Told| format!("{}-{}", self.boot, told.seq) != known;
        let _ = tokio::time::timeout(PATIENCE, told.wait_for(is_new)).await;
        let told = told.borrow();
        let news = News {
            boot: &self.boot,
            seq: told.seq,
            now_ms: now_ms(),
            services: &told.sheets,
        };
        serde_json::to_vec(&news).unwrap_or_default().into()
    }
}

impl Desk for Browser {
    fn script(&self, page: &Page<'_>) -> String {
        let told = self.told.borrow();
        let sheet = page.service.and_then(|name| told.sheets.get(name));
        // Names of services and releases have nothing that HTML knows.
        let attribute = |name: &str, value: Option<String>| {
            value.map_or_else(String::new, |value| format!(" data-{name}=\"{value}\""))
        };
        let nonce = page.nonce.map(|nonce| format!(" nonce=\"{nonce}\""));
        format!(
            "<script async src=\"{OWN_PATHS}page.js\"{}{}{}{}{}{}></script>",
            nonce.unwrap_or_default(),
            attribute("service", page.service.map(ToString::to_string)),
            attribute("release", page.release.map(ToString::to_string)),
            match page.once {
                true => " data-once",
                false => "",
            },
            attribute("assets", sheet.map(|sheet| sheet.assets.to_string())),
            attribute(
                "turn",
                sheet.map(|sheet| format!("{}-{}", self.boot, sheet.turn))
            ),
        )
    }

    fn answer<'a>(&'a self, path: &'a str, query: &'a str) -> Answering<'a> {
        let fixed = |kind, body: &'static str| Own {
            kind,
            body: Bytes::from_static(body.as_bytes()),
        };
        Box::pin(async move {
            match path {
                "page.js" => Some(fixed(SCRIPT_KIND, PAGE_SCRIPT)),
                "worker.js" => Some(fixed(SCRIPT_KIND, WORKER_SCRIPT)),
                "news" => Some(Own {
                    kind: "application/json",
                    body: self.news(query).await,
                }),
                _ => None,
            }
        })
    }
}
