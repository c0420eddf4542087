//! What a process does about a signal, as the kernel tells it (proc_pid_status(5)). Sends none.

use std::fs;

/// What a process does about a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heed {
    /// It has a handler, or waits for it.
    Handles,
    /// It has said that it does not want it.
    Ignores,
    /// It has said nothing: most signals would end it.
    Default,
}

/// What this process does about the signal of that number; `None` where the system does not say, which
/// is so where there is no such process.
pub(crate) fn heed(pid: u32, signal: i32) -> Option<Heed> {
    of(
        &fs::read_to_string(format!("/proc/{pid}/status")).ok()?,
        signal,
    )
}

fn of(status: &str, signal: i32) -> Option<Heed> {
    let bit = 1_u64.checked_shl(u32::try_from(signal).ok()?.checked_sub(1)?)?;
    let has = |name: &str| {
        let mut lines = status.lines();
        let mask = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        Some(u64::from_str_radix(mask.trim(), 16).ok()? & bit != 0)
    };
    Some(match (has("SigCgt")?, has("SigIgn")?, has("SigBlk")?) {
        (_, true, _) => Heed::Ignores,
        // Blocked by its first thread: it is read by sigwait(3) or signalfd(2).
        (true, ..) | (_, _, true) => Heed::Handles,
        (false, false, false) => Heed::Default,
    })
}

#[cfg(test)]
mod tests {
    use super::{Heed, of};

    #[test]
    fn the_masks_of_the_kernel_are_read() {
        let status = "Name:\tapp\nSigPnd:\t0000000000000200\nShdPnd:\t0000000000000000\n\
            SigBlk:\t0000000000000800\nSigIgn:\t0000000000001000\nSigCgt:\t0000000180000201\n";
        for (signal, heed) in [
            (libc::SIGUSR1, Some(Heed::Handles)),
            (libc::SIGHUP, Some(Heed::Handles)),
            (libc::SIGUSR2, Some(Heed::Handles)),
            (libc::SIGPIPE, Some(Heed::Ignores)),
            (libc::SIGWINCH, Some(Heed::Default)),
            (0, None),
            (-1, None),
            (65, None),
        ] {
            assert_eq!(of(status, signal), heed, "{signal}");
        }
        assert_eq!(of("Name:\tapp\n", libc::SIGUSR1), None);
        assert_eq!(of("SigCgt:\tx\nSigIgn:\t0\nSigBlk:\t0\n", 1), None);
    }
}
