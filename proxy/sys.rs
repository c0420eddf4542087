//! The one place with `unsafe`: a socket filter is set by a pointer.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// Lets a listening socket take no new connection, while those that are being opened go on: a client
/// that comes now is not answered, and tries again after a second. Without it, one that comes between
/// the last `accept` and the close would believe to be connected, and be reset.
///
/// It holds for the socket, whoever else has it open: only for one that is about to be closed for good.
pub(crate) fn take_no_more(listener: impl AsFd) -> io::Result<()> {
    use libc::{BPF_ABS, BPF_ALU, BPF_AND, BPF_B, BPF_JEQ, BPF_JMP, BPF_K, BPF_LD, BPF_RET};

    /// Where a TCP header has its flags (RFC 9293, 3.1), and two of them.
    const FLAGS: u32 = 13;
    const SYN: u32 = 0x02;
    const ACK: u32 = 0x10;
    let step = |code: u32, skip: u8, k: u32| libc::sock_filter {
        code: code as u16,
        jt: 0,
        jf: skip,
        k,
    };
    let mut steps = [
        step(BPF_LD | BPF_B | BPF_ABS, 0, FLAGS),
        step(BPF_ALU | BPF_AND | BPF_K, 0, SYN | ACK),
        step(BPF_JMP | BPF_JEQ | BPF_K, 1, SYN),
        step(BPF_RET | BPF_K, 0, 0),
        step(BPF_RET | BPF_K, 0, u32::MAX),
    ];
    let program = libc::sock_fprog {
        len: steps.len() as u16,
        filter: steps.as_mut_ptr(),
    };
    // SAFETY: the program and its steps outlive the call, which copies them.
    let set = unsafe {
        libc::setsockopt(
            listener.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const program).cast(),
            size_of_val(&program) as libc::socklen_t,
        )
    };
    match set {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
