//! The proxy from outside: real sockets, upstreams that misbehave, clients that look at every byte.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod allocations;
mod closing;
mod drains;
mod evidence;
mod flips;
mod forwarding;
mod instances;
mod instruments;
mod parks;
mod passing;
mod retries;
mod streams;
mod wire;
mod world;
