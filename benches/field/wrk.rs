//! wrk, as the load: quick, and known to everybody. What it cannot say exactly is whether an answer was
//! right, so a client of our own, see `client`, asks the same after it.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::client::Ask;
use super::process;
use super::seen::Seen;

/// Its own words are for the eye; these are for us.
const SCRIPT: &str = r#"
done = function(sum, latency)
  local e = sum.errors
  io.write(string.format("\nseen %d %d %d %d %d %d %d %f %f %f %f\n", sum.requests, sum.duration,
    e.connect, e.read, e.write, e.status, e.timeout, latency:percentile(50), latency:percentile(99),
    latency:percentile(99.9), latency.max))
end
"#;

/// Ask with so many connections, for so long. None: it is not there, or failed.
pub fn wrk(
    to: SocketAddr,
    ask: &Ask,
    connections: usize,
    during: Duration,
    cores: &[usize],
    folder: &Path,
) -> Option<Seen> {
    let script = folder.join("seen.lua");
    std::fs::write(&script, SCRIPT).ok()?;
    let mut command = Command::new("taskset");
    command
        .args(["-c", &process::words(cores), "wrk"])
        .arg(format!("-t{}", cores.len().min(connections)))
        .arg(format!("-c{connections}"))
        .arg(format!("-d{}s", during.as_secs().max(1)))
        .args(["--timeout", "10s", "-s"])
        .arg(&script)
        .args(["-H", &format!("Host: {}", ask.host)]);
    if ask.closes() {
        command.args(["-H", "Connection: close"]);
    }
    let ran = command.arg(format!("http://{to}{}", ask.path())).output();
    let ran = ran.ok().filter(|ran| ran.status.success())?;
    let said = String::from_utf8_lossy(&ran.stdout).into_owned();
    let line = said.lines().find_map(|line| line.strip_prefix("seen "))?;
    let numbers: Vec<f64> = line
        .split(' ')
        .filter_map(|word| word.parse().ok())
        .collect();
    let &[
        done,
        micros,
        connect,
        read,
        write,
        status,
        timeout,
        p50,
        p99,
        p999,
        worst,
    ] = numbers.as_slice()
    else {
        return None;
    };
    // Where each answer ends its connection, some reset it once all of it is out. wrk counts that; whether
    // answers were whole is told by our own client.
    let read = if ask.closes() { 0.0 } else { read };
    let failed = [
        ("not connected", connect),
        ("reset", read),
        ("not sent", write),
        ("another status", status),
        ("too late", timeout),
    ];
    Some(Seen {
        done: done as u64 - status as u64,
        failed: failed
            .into_iter()
            .filter(|(_, n)| *n > 0.0)
            .map(|(what, n)| (what.to_string(), n as u64))
            .collect(),
        took: Duration::from_micros(micros as u64),
        p50: p50 / 1000.0,
        p99: p99 / 1000.0,
        p999: p999 / 1000.0,
        worst: worst / 1000.0,
    })
}
