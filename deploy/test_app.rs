//! For the tests of this crate: a shim, and an app to run under one.
//!
//! `deploy-test shim` is a shim. `deploy-test app DELAY_MS ADDRESS STATUS [WARM_MS STATUS]` waits,
//! listens there, and answers every request with the status, for the time, then with the second.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::process::ExitCode;
use std::time::{Duration, Instant};

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.first().map(String::as_str) {
        Some("shim") => hotctl_deploy::shim::main(),
        Some("app") => match app(args.get(1..).unwrap_or_default()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(cause) => {
                eprintln!("{cause}");
                ExitCode::FAILURE
            }
        },
        _ => ExitCode::from(2),
    }
}

fn app(args: &[String]) -> std::io::Result<()> {
    let word = |n: usize| args.get(n).map_or("", String::as_str);
    let ms = |n| Duration::from_millis(word(n).parse().unwrap_or(0));
    std::thread::sleep(ms(0));
    let listener = TcpListener::bind(word(1))?;
    let since = Instant::now();
    for stream in listener.incoming() {
        let mut stream = stream?;
        let status = match since.elapsed() < ms(3) || args.len() < 5 {
            true => word(2),
            false => word(4),
        };
        let mut request = [0; 4096];
        // A probe that only connects sends nothing; whoever is gone is gone.
        let _ = stream.read(&mut request);
        let _ = write!(stream, "HTTP/1.1 {status} .\r\nContent-Length: 0\r\n\r\n");
    }
    Ok(())
}
