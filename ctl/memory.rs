//! Where memory comes from, and how that is set.
//!
//! jemalloc, by measurement (`./dev bench proxy` and `cost`): a request on its way through the proxy takes
//! and gives back some hundred pieces, and much of what it costs beside the C library's allocator is there.
//! mimalloc is as quick, and holds twice the memory of an idle daemon.
//!
//! One of the places with `unsafe`: the name by which jemalloc finds its settings is the linker's, and the
//! compiler cannot know that nobody else has it.
#![allow(unsafe_code)]

use tikv_jemalloc_ctl::{background_thread, max_background_threads};
use tikv_jemallocator::Jemalloc;

#[global_allocator]
static MEMORY: Jemalloc = Jemalloc;

/// jemalloc(3), TUNING, ended by a zero as C has it. `dirty_decay_ms`: what a burst took goes back soon.
// Public, for else it would not be in the program.
#[unsafe(export_name = "_rjem_malloc_conf")]
pub static SETTINGS: Settings = Settings(c"dirty_decay_ms:1000,muzzy_decay_ms:0".as_ptr());

/// A pointer to text that is there for ever, and that nobody writes.
#[repr(transparent)]
pub struct Settings(*const std::ffi::c_char);

// SAFETY: see `Settings`.
unsafe impl Sync for Settings {}

/// From now on what is not used goes back to the system also while nothing happens: a thread sees to that,
/// which sleeps while there is nothing. For a daemon; a shim is too small, a command too short.
pub fn give_back() {
    // Without it memory goes back whenever some is taken.
    let _ = max_background_threads::write(1).and_then(|()| background_thread::write(true));
}
