//! The product from outside: real processes, real sockets, one file a promise to the user.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod activation;
mod api;
mod builds;
mod chaos;
mod cli;
mod confines;
mod data;
mod demo;
mod dev;
mod disks;
mod doctor;
mod failures;
mod farewells;
mod faults;
mod flips;
mod hangs;
mod instruments;
mod json;
mod metrics;
mod net;
mod notify;
mod orders;
mod parking;
mod readme;
mod real_apps;
mod recovery;
mod recreate;
mod reload;
mod routing;
mod serve;
mod starts;
mod support;
mod upgrade;
mod watch;
mod workers;
