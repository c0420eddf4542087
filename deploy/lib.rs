//! The life of a release: how it is stored, started, proved healthy and stopped, and the pure
//! machine that says what a deployment does next. Knows the configuration's words; knows no proxy.

mod archive;
pub mod cgroup;
mod check;
pub mod command;
pub mod confine;
pub mod diagnosis;
mod dial;
pub mod drive;
mod elf;
pub mod env_file;
mod exit;
pub mod fingerprint;
pub mod gate;
pub mod heed;
pub mod inspect;
pub mod ledger;
mod line;
pub mod logs;
pub mod machine;
mod miss;
pub mod notify;
mod oom;
mod output;
pub mod pack;
pub mod persist;
mod pieces;
pub mod ports;
pub mod probe;
pub mod process;
mod prove;
pub mod queue;
pub mod refused;
pub mod release;
pub mod restart;
mod rotate;
pub mod shim;
pub mod sockets;
mod sys;
#[cfg(test)]
mod testing;
mod tree;
pub mod warmup;
pub mod watch;
pub mod why;
mod wire;
pub mod without;
