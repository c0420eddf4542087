//! The life of a request: which service it is for, which release serves it, and how it gets there
//! and back.
//!
//! Knows the words of `config`, and nothing of deployments, processes or the control API. The
//! seam to those is [`Switch`]: they change splits and wait for drains, requests pick.
//!
//! Without the feature `serve` this crate is the switch alone, without pingora and tokio.

mod instances;
mod park;
mod pool;
mod split;
mod switch;
mod sync;
mod table;

#[cfg(feature = "serve")]
mod access;
#[cfg(feature = "serve")]
mod answer;
#[cfg(feature = "serve")]
mod bare;
#[cfg(feature = "serve")]
mod choose;
#[cfg(feature = "serve")]
mod coding;
#[cfg(feature = "serve")]
mod conn;
#[cfg(feature = "serve")]
mod context;
#[cfg(feature = "serve")]
mod delivery;
#[cfg(feature = "serve")]
mod desk;
#[cfg(feature = "serve")]
mod door;
#[cfg(feature = "serve")]
mod drain;
#[cfg(feature = "serve")]
mod frames;
#[cfg(feature = "serve")]
mod hall;
#[cfg(feature = "serve")]
mod headers;
#[cfg(feature = "serve")]
mod hops;
#[cfg(feature = "serve")]
mod html;
#[cfg(feature = "serve")]
mod kept;
#[cfg(feature = "serve")]
mod kinds;
#[cfg(feature = "serve")]
mod lines;
#[cfg(feature = "serve")]
mod metrics;
#[cfg(feature = "serve")]
mod notes;
#[cfg(feature = "serve")]
mod outbox;
#[cfg(feature = "serve")]
mod pass;
#[cfg(feature = "serve")]
mod policy;
#[cfg(feature = "serve")]
mod relay;
#[cfg(feature = "serve")]
mod request;
#[cfg(feature = "serve")]
mod retry;
#[cfg(feature = "serve")]
mod serve;
#[cfg(feature = "serve")]
mod spare;
#[cfg(feature = "serve")]
mod streak;
#[cfg(feature = "serve")]
mod sys;
#[cfg(feature = "serve")]
mod untold;
#[cfg(feature = "serve")]
mod upstream;

#[cfg(all(test, loom))]
mod model;

pub use instances::Standing;
pub use park::{Limits, Parked};
pub use pool::{Drained, Pool, Ticket, Tried};
pub use split::{Closed, Notice, Split};
pub use switch::{Ask, NoRoute, Stale, Switch, UnknownService};
pub use table::{Route, Table};

#[cfg(feature = "serve")]
pub use access::AccessLog;
#[cfg(feature = "serve")]
pub use bare::serve_bare;
#[cfg(feature = "serve")]
pub use desk::{Answering, Desk, OWN_PATHS, Own, Page};
#[cfg(feature = "serve")]
pub use hall::Stage;
#[cfg(feature = "serve")]
pub use kinds::Open;
#[cfg(feature = "serve")]
pub use metrics::{Metrics, Switching};
#[cfg(feature = "serve")]
pub use pass::{PassSocket, Passed, Past};
#[cfg(feature = "serve")]
pub use serve::{Proxy, Settings};
#[cfg(feature = "serve")]
pub use streak::Streak;
