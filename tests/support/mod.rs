//! What tests and benches share: a daemon with all that belongs to it, releases to deploy, a load
//! that looks at every single answer. Knows hotctl only as a program and by its documented outputs.

// Each of the programs that include this uses a part of it.
#![allow(dead_code, unused_imports)]

pub mod browser;
pub mod chaos;
pub mod daemon;
pub mod desk;
pub mod eventually;
pub mod follower;
pub mod http;
pub mod ledger;
pub mod leftovers;
pub mod load;
pub mod outcomes;
pub mod program;
pub mod rest;
pub mod sample;
pub mod saves;
pub mod status;
pub mod websocket;

pub use daemon::Daemon;
pub use eventually::{eventually, eventually_some};
pub use load::{Class, Load};
