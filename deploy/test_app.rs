//! For the tests of this crate: a shim, and an app to run under one.
//!
//! `deploy-test shim` is a shim. `deploy-test app DELAY_MS ADDRESS STATUS [WARM_MS STATUS]` waits,
//! listens there, and answers every request with the status, for the time, then with the second. An
//! address with a `/` is the path of a unix socket.
//!
//! `deploy-test inherit STATUS` answers on the listening socket that it inherits.
//!
//! `deploy-test notify (MESSAGE [DELAY_MS])...` says each on its NOTIFY_SOCKET, then sleeps.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use rustix::process::{PidfdFlags, PidfdGetfdFlags, pidfd_getfd};

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.first().map(String::as_str) {
        Some("shim") => hotctl_deploy::shim::main(),
        Some("app") => done(app(args.get(1..).unwrap_or_default())),
        Some("inherit") => done(inherit(args.get(1..).unwrap_or_default())),
        Some("notify") => done(notify(args.get(1..).unwrap_or_default())),
        _ => ExitCode::from(2),
    }
}

fn done(result: std::io::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(cause) => {
            eprintln!("{cause}");
            ExitCode::FAILURE
        }
    }
}

fn app(args: &[String]) -> std::io::Result<()> {
    let word = |n: usize| args.get(n).map_or("", String::as_str);
    let ms = |n| Duration::from_millis(word(n).parse().unwrap_or(0));
    std::thread::sleep(ms(0));
    let since = Instant::now();
    let answer = |mut stream: Box<dyn Stream>| {
        let status = match since.elapsed() < ms(3) || args.len() < 5 {
            true => word(2),
            false => word(4),
        };
        let mut request = [0; 4096];
        // A probe that only connects sends nothing; whoever is gone is gone.
        let _ = stream.read(&mut request);
        let _ = write!(stream, "HTTP/1.1 {status} .\r\nContent-Length: 0\r\n\r\n");
    };
    if word(1).contains('/') {
        let listener = UnixListener::bind(word(1))?;
        listener.incoming().try_for_each(|stream| {
            answer(Box::new(stream?));
            Ok(())
        })
    } else {
        let listener = TcpListener::bind(word(1))?;
        listener.incoming().try_for_each(|stream| {
            answer(Box::new(stream?));
            Ok(())
        })
    }
}

trait Stream: Read + Write {}
impl<T: Read + Write> Stream for T {}

fn inherit(args: &[String]) -> std::io::Result<()> {
    let var = |name| std::env::var(name).unwrap_or_default();
    let own = std::process::id().to_string();
    if (var("LISTEN_FDS"), var("LISTEN_PID"), var("LISTEN_FDNAMES"))
        != ("1".into(), own, "http".into())
    {
        return Err(std::io::Error::other("no socket is for this process"));
    }
    // Descriptor 3 by its number, without `unsafe`.
    let own = rustix::process::pidfd_open(rustix::process::getpid(), PidfdFlags::empty())?;
    let listener = TcpListener::from(pidfd_getfd(&own, 3, PidfdGetfdFlags::empty())?);
    for stream in listener.incoming() {
        let mut stream = stream?;
        let mut request = [0; 4096];
        let _ = stream.read(&mut request);
        let status = args.first().map_or("", String::as_str);
        let _ = write!(stream, "HTTP/1.1 {status} .\r\nContent-Length: 0\r\n\r\n");
    }
    Ok(())
}

fn notify(args: &[String]) -> std::io::Result<()> {
    let path = std::env::var("NOTIFY_SOCKET").map_err(std::io::Error::other)?;
    let to = SocketAddr::from_abstract_name(path.trim_start_matches('@'))?;
    let socket = UnixDatagram::unbound()?;
    for word in args {
        match word.parse() {
            Ok(ms) => std::thread::sleep(Duration::from_millis(ms)),
            Err(_) => drop(socket.send_to_addr(word.as_bytes(), &to)?),
        }
    }
    std::thread::sleep(Duration::from_secs(60));
    Ok(())
}
