//! What the operator writes, and the words that every part of hotctl speaks.
//!
//! This crate knows nobody: no runtime, no proxy, no process. It reads a configuration file whole,
//! checks it whole, and tells everything that is wrong with it at once.

// Here, because every other crate needs this one: so it is the one error that a build elsewhere shows.
#[cfg(not(target_os = "linux"))]
compile_error!("hotctl runs on Linux only: it stands on pidfds, subreapers and /proc");

mod address;
mod check;
mod decode;
mod error;
pub mod file;
mod form;
mod include;
pub mod names;
pub mod pattern;
mod phrase;
mod port_name;
mod read;
mod schema;
mod source;
pub mod suggest;
pub mod tree;
pub mod units;

pub use address::Address;
pub use check::is_own_variable;
pub use error::{Invalid, Problem, Problems};
pub use file::{
    AccessLog, AddressKind, Admin, Config, Control, Drain, Health, HealthKind, Limits, Listen,
    Logs, Ownership, PortRange, Service, Timeouts, fields,
};
pub use names::{Digest, Percent, ReleaseId, ServiceName, Slot};
pub use pattern::{HostPattern, PathPrefix, StatusSet};
pub use port_name::PortName;
pub use read::{EXAMPLE, find, parse, read, read_with, single};
pub use source::{Format, load};
pub use units::{brief, parse_bytes, parse_duration, show_bytes, show_duration};

pub use ipnet::IpNet;
