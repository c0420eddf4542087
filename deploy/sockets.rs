//! Which sockets listen, and whose they are, as /proc shows it.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Where these processes listen for TCP, sorted. Empty if nowhere, or if their descriptors may not
/// be looked at.
pub fn listening(pids: &[u32]) -> Vec<SocketAddr> {
    let own = inodes(pids).0;
    let Some(first) = pids.first() else {
        return Vec::new();
    };
    let mut found: Vec<SocketAddr> = listeners(*first, Rows::All)
        .into_iter()
        .filter(|row| own.contains(&row.inode))
        .map(|row| row.address)
        .collect();
    found.sort();
    found.dedup();
    found
}

/// Whose a listening address is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// One of the processes has it.
    Ours,
    /// None of them has, and all could be looked at.
    Foreign,
    /// It cannot be told.
    Unknown,
}

/// Whether one of these processes is whom a connection to `address` reaches.
pub fn owner(pids: &[u32], address: SocketAddr) -> Owner {
    let Some(first) = pids.first() else {
        return Owner::Unknown;
    };
    let (own, whole) = inodes(pids);
    for rows in [Rows::Leading, Rows::All] {
        let there: Vec<Listener> = listeners(*first, rows)
            .into_iter()
            .filter(|row| reaches(row.address, address))
            .collect();
        if there.iter().any(|row| own.contains(&row.inode)) {
            return Owner::Ours;
        }
        if !there.is_empty() {
            return if whole {
                Owner::Foreign
            } else {
                Owner::Unknown
            };
        }
    }
    // It answers, and nobody listens: another network namespace, or /proc is not whole.
    Owner::Unknown
}

struct Listener {
    address: SocketAddr,
    inode: u64,
}

/// How much of the list of sockets is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rows {
    /// Up to the first that does not listen. Linux lists those that listen first, and of the others
    /// there may be many thousand.
    Leading,
    /// All.
    All,
}

fn reaches(listener: SocketAddr, address: SocketAddr) -> bool {
    let plain = |ip: IpAddr| ip.to_canonical();
    listener.port() == address.port()
        && (listener.ip().is_unspecified() || plain(listener.ip()) == plain(address.ip()))
}

/// The sockets that the processes hold, and whether all of them could be looked at.
fn inodes(pids: &[u32]) -> (BTreeSet<u64>, bool) {
    let mut found = BTreeSet::new();
    let mut whole = true;
    for pid in pids {
        match fs::read_dir(format!("/proc/{pid}/fd")) {
            Ok(entries) => found.extend(entries.flatten().filter_map(|entry| {
                let target = fs::read_link(entry.path()).ok()?;
                let inode = target.to_str()?.strip_prefix("socket:[")?;
                inode.strip_suffix(']')?.parse::<u64>().ok()
            })),
            // Gone meanwhile, so it holds nothing.
            Err(e) => whole &= e.kind() == std::io::ErrorKind::NotFound,
        }
    }
    (found, whole)
}

fn listeners(pid: u32, rows: Rows) -> Vec<Listener> {
    let mut found = Vec::new();
    for table in ["tcp", "tcp6"] {
        // Of the process's own network namespace.
        let Ok(file) = File::open(format!("/proc/{pid}/net/{table}")) else {
            continue;
        };
        for line in BufReader::new(file).lines().skip(1).map_while(Result::ok) {
            match parse(&line) {
                Some((State::Listens, listener)) => found.push(listener),
                Some((State::Other, _)) if rows == Rows::Leading => break,
                _ => {}
            }
        }
    }
    found
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Listens,
    Other,
}

/// `sl local_address rem_address st tx:rx tr:when retrnsmt uid timeout inode ...`
fn parse(line: &str) -> Option<(State, Listener)> {
    let mut fields = line.split_ascii_whitespace().skip(1);
    let (ip, port) = fields.next()?.split_once(':')?;
    let state = match fields.nth(1)? {
        "0A" => State::Listens,
        _ => State::Other,
    };
    let inode = fields.nth(5)?.parse().ok()?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let address = SocketAddr::new(parse_ip(ip)?, port);
    Some((state, Listener { address, inode }))
}

/// Words of four bytes, each printed as a number in the machine's own byte order.
fn parse_ip(hex: &str) -> Option<IpAddr> {
    let (words, []) = hex.as_bytes().as_chunks::<8>() else {
        return None;
    };
    let words = words
        .iter()
        .map(|word| {
            let word = u32::from_str_radix(std::str::from_utf8(word).ok()?, 16).ok()?;
            Some(word.to_ne_bytes())
        })
        .collect::<Option<Vec<[u8; 4]>>>()?;
    match <[u8; 4]>::try_from(words.concat()) {
        Ok(four) => Some(IpAddr::V4(Ipv4Addr::from(four))),
        Err(more) => {
            let sixteen: [u8; 16] = more.try_into().ok()?;
            Some(IpAddr::V6(Ipv6Addr::from(sixteen)))
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use std::net::{SocketAddr, TcpListener};

    use super::{Owner, listening, owner, parse_ip, reaches};

    #[test]
    fn addresses_are_read_as_the_kernel_writes_them() {
        assert_eq!(parse_ip("0100007F").unwrap().to_string(), "127.0.0.1");
        let loopback = parse_ip("00000000000000000000000001000000").unwrap();
        assert_eq!(loopback.to_string(), "::1");
        assert_eq!(parse_ip("0100"), None);
        assert_eq!(parse_ip("zzzzzzzz"), None);
    }

    #[test]
    fn a_connection_reaches_who_listens_on_all_addresses() {
        let at = |text: &str| text.parse::<SocketAddr>().unwrap();
        let target = at("127.0.0.1:80");
        for listener in [
            "127.0.0.1:80",
            "0.0.0.0:80",
            "[::]:80",
            "[::ffff:127.0.0.1]:80",
        ] {
            assert!(reaches(at(listener), target), "{listener}");
        }
        for listener in ["127.0.0.1:81", "127.0.0.2:80", "[::1]:80"] {
            assert!(!reaches(at(listener), target), "{listener}");
        }
    }

    #[test]
    fn our_own_listener_is_ours_and_another_process_does_not_have_it() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let own = std::process::id();
        assert!(listening(&[own]).contains(&address));
        assert_eq!(owner(&[own], address), Owner::Ours);

        let mut other = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        let found = (listening(&[other.id()]), owner(&[other.id()], address));
        other.kill().unwrap();
        other.wait().unwrap();
        assert_eq!(found, (vec![], Owner::Foreign));

        drop(listener);
        assert_eq!(owner(&[own], address), Owner::Unknown);
    }
}
