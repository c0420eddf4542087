//! The life of a release: how it is stored, started, proved healthy and stopped, and the pure
//! machine that says what a deployment does next. Knows the configuration's words; knows no proxy.

pub mod drive;
pub mod ledger;
pub mod machine;
pub mod queue;
pub mod restart;
pub mod why;
