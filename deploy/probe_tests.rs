//! Answers of every kind, from real sockets.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
