//! The few calls that Rust cannot check: what stands between `fork` and `exec`, signal masks, file
//! leases. Knows nothing of releases; everything else in the crate is safe code above it.
#![allow(unsafe_code)]

use std::ffi::{CString, NulError, c_char};
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use crate::confine::Prepared;
use rustix::process::{Pid, Signal};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// The descriptor of an inherited listening socket, as sd_listen_fds(3) has it: the first after the
/// three standard ones.
pub(crate) const LISTEN_FD: i32 = 3;

/// What `LISTEN_PID` begins with, and the room that a number and the end take.
const LISTEN_PID: &[u8] = b"LISTEN_PID=";
const DIGITS: usize = 11;

/// A program, its arguments and its environment, as the kernel takes them.
#[derive(Debug)]
pub(crate) struct Image {
    program: CString,
    argv: Vec<*const c_char>,
    envp: Vec<*const c_char>,
    /// What the pointers point into; never touched again.
    _words: Vec<CString>,
    /// Room for `LISTEN_PID`, whose value is known only to the child itself. `None` if it inherits
    /// no listening socket.
    listen_pid: Option<Box<[u8; LISTEN_PID.len() + DIGITS]>>,
}

// SAFETY: the pointers lead into `_words`, which moves with them, is never changed, and whose strings
// do not move when the vector does.
unsafe impl Send for Image {}
// SAFETY: as above; nothing is written through them.
unsafe impl Sync for Image {}

/// Whether a program inherits descriptor [`LISTEN_FD`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Inherits {
    /// It does not.
    Nothing,
    /// It does, and its environment says so.
    Listener,
}

impl Image {
    /// # Errors
    /// If there is a NUL in any of it.
    pub(crate) fn new(
        program: &Path,
        args: &[String],
        env: &[(String, String)],
        inherits: Inherits,
    ) -> Result<Self, NulError> {
        let program = CString::new(program.as_os_str().as_bytes())?;
        let args = args.iter().map(|arg| CString::new(arg.as_str()));
        let vars = env
            .iter()
            .map(|(name, value)| CString::new(format!("{name}={value}")));
        let args = args.collect::<Result<Vec<_>, _>>()?;
        let mut words = vars.collect::<Result<Vec<_>, _>>()?;
        let list = |words: &[CString]| -> Vec<*const c_char> {
            let pointers = words.iter().map(|word| word.as_ptr());
            pointers.chain([std::ptr::null()]).collect()
        };
        let listen_pid = match inherits {
            Inherits::Nothing => None,
            Inherits::Listener => {
                words.extend([c"LISTEN_FDS=1", c"LISTEN_FDNAMES=http"].map(CString::from));
                let mut room = Box::new([0; LISTEN_PID.len() + DIGITS]);
                room[..LISTEN_PID.len()].copy_from_slice(LISTEN_PID);
                Some(room)
            }
        };
        let (argv, mut envp) = (list(&args), list(&words));
        if listen_pid.is_some() {
            // In place of the end, which the child moves on by one.
            envp.push(std::ptr::null());
        }
        words.extend(args);
        Ok(Self {
            program,
            argv,
            envp,
            _words: words,
            listen_pid,
        })
    }

    /// Say in the environment that the listening socket is for this very process, and let it
    /// through `exec`. Makes system calls and writes into room that is there.
    fn pass_listener(&mut self) -> io::Result<()> {
        let Some(room) = &mut self.listen_pid else {
            return Ok(());
        };
        let mut digits = [0; DIGITS];
        let mut length = 0;
        let mut number = std::process::id();
        while number > 0 {
            digits[length] = b'0' + (number % 10) as u8;
            number /= 10;
            length += 1;
        }
        for (to, digit) in room[LISTEN_PID.len()..]
            .iter_mut()
            .zip(digits[..length].iter().rev())
        {
            *to = *digit;
        }
        let last = self.envp.len() - 2;
        self.envp[last] = room.as_ptr().cast();
        // SAFETY: the descriptor is the shim's socket, see `reserve_listen_fd`; its flags are set.
        match unsafe { libc::fcntl(LISTEN_FD, libc::F_SETFD, 0) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Become the program. Returns only if that fails.
    fn exec(&self) -> io::Error {
        // SAFETY: both lists end with a null pointer, and every other points to a C string that
        // lives as long as `self`.
        unsafe {
            libc::execve(
                self.program.as_ptr(),
                self.argv.as_ptr(),
                self.envp.as_ptr(),
            )
        };
        io::Error::last_os_error()
    }
}

/// Let the command's child be what a supervised app is to be: leader of its own session, confined,
/// every signal at its default and none blocked, no descriptor but the three standard ones, and killed
/// as soon as `parent` is gone. It becomes `image`, not what the command names: the standard library would hand a
/// file that the kernel does not know to a shell.
///
/// The death signal is tied to the thread that spawns, so that thread must live as long as `parent`.
pub(crate) fn isolate(command: &mut Command, mut image: Image, confines: Prepared, parent: Pid) {
    let hook = move || {
        rustix::process::setsid()?;
        reset_signals();
        confines.apply()?;
        // After that: whoever becomes another user is let live.
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
        // The parent may have died before the line above: then nobody would tell us.
        if rustix::process::getppid() != Some(parent) {
            return Err(io::Error::from_raw_os_error(libc::ESRCH));
        }
        close_range(libc::CLOSE_RANGE_CLOEXEC);
        image.pass_listener()?;
        Err(image.exec())
    };
    // SAFETY: the hook makes system calls only; it neither allocates nor takes a lock.
    unsafe { command.pre_exec(hook) };
}

/// Let the command's child be confined.
pub(crate) fn confine(command: &mut Command, confines: Prepared) {
    // SAFETY: it makes system calls only; it neither allocates nor takes a lock.
    unsafe { command.pre_exec(move || confines.apply()) };
}

/// Close every descriptor but the three standard ones. For a process that has only just begun.
pub(crate) fn close_inherited() {
    close_range(0);
}

fn close_range(flags: libc::c_uint) {
    // An old kernel does not know the call: then descriptors that others forgot to mark stay open,
    // which is what would have happened without us.
    // SAFETY: takes three numbers. Nobody in the caller's process owns a descriptor of the range.
    unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, flags) };
}

fn reset_signals() {
    // SAFETY: plain calls on values of this frame; signals that cannot be set answer an error.
    unsafe {
        for signal in 1..=64 {
            libc::signal(signal, libc::SIG_DFL);
        }
        let mut none = std::mem::zeroed::<libc::sigset_t>();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
    }
}

/// Ignore what a terminal or an impatient operator sends to a whole group, and have the deaths of
/// children told through the descriptor that is returned.
pub(crate) fn child_signals() -> io::Result<OwnedFd> {
    // SAFETY: plain calls on values of this frame; the descriptor is new and ours alone.
    unsafe {
        for signal in [
            libc::SIGINT,
            libc::SIGTERM,
            libc::SIGHUP,
            libc::SIGQUIT,
            libc::SIGTSTP,
        ] {
            libc::signal(signal, libc::SIG_IGN);
        }
        let mut set = std::mem::zeroed::<libc::sigset_t>();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, libc::SIGCHLD);
        if libc::sigprocmask(libc::SIG_SETMASK, &raw const set, std::ptr::null_mut()) != 0 {
            return Err(io::Error::last_os_error());
        }
        let fd = libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK);
        match fd {
            -1 => Err(io::Error::last_os_error()),
            fd => Ok(OwnedFd::from_raw_fd(fd)),
        }
    }
}

/// Let tokio tell when a descriptor is readable; that of a process is so once the process has ended.
pub(crate) fn readable(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an owned descriptor is open and the same until it is dropped.
    Ok(unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }?)
}

/// Whether somebody has a file open for writing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Writers {
    /// Nobody has.
    None,
    /// Somebody has.
    Some,
    /// The system does not say: not our file, or a file system without leases.
    Unknown,
}

/// Which signal tells that a lease is broken. Not in `libc`; 10 on every Linux.
const F_SETSIG: libc::c_int = 10;

/// Ask whether somebody has this file open for writing. The file must be open for reading only.
pub(crate) fn writers(file: &File) -> Writers {
    let fd = file.as_raw_fd();
    // SAFETY: fcntl with number arguments on a descriptor that is open for the whole call.
    unsafe {
        // A lease that is broken while we hold it tells by SIGIO, which kills; SIGURG is ignored.
        if libc::fcntl(fd, F_SETSIG, libc::SIGURG) != 0 {
            return Writers::Unknown;
        }
        if libc::fcntl(fd, libc::F_SETLEASE, libc::F_RDLCK) == 0 {
            libc::fcntl(fd, libc::F_SETLEASE, libc::F_UNLCK);
            return Writers::None;
        }
    }
    match io::Error::last_os_error().raw_os_error() {
        Some(libc::EAGAIN) => Writers::Some,
        _ => Writers::Unknown,
    }
}
