//! The primitives the switch is built on, from `std` or, for the model, from `loom`.
//!
//! Only what takes part in the protocol comes from here: locks and counters. `Arc` stays the one
//! of `std` everywhere: its counts only free memory, and loom's cannot hold a slice.

#[cfg(loom)]
pub(crate) use loom::sync::{
    Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard, atomic::AtomicUsize,
};
#[cfg(not(loom))]
pub(crate) use std::sync::{
    Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard, atomic::AtomicUsize,
};

use std::ops::Deref;
use std::sync::PoisonError;

// A panic while one of these locks is held cannot leave half a value behind: every critical
// section of this crate ends in a single assignment. So a poisoned lock is simply taken.

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) fn write<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}

/// A value on cache lines of its own. 128 bytes, because the prefetchers of current machines
/// fetch lines in pairs: at 64 two cores would still pull at one another's line.
#[repr(align(128))]
pub(crate) struct Padded<T>(pub(crate) T);

impl<T> Deref for Padded<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}
