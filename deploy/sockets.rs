//! Which sockets listen, and whose they are, as /proc shows it.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

use hotctl_config::Address;

/// Where these processes listen, ports first, sorted. Empty if nowhere, or if their descriptors may
/// not be looked at. Unix sockets without a file are left out.
pub fn listening(pids: &[u32]) -> Vec<Address> {
    let own = inodes(pids).0;
    let Some(first) = pids.first() else {
        return Vec::new();
    };
    let ports = listeners(*first, Rows::All)
        .into_iter()
        .map(|row| (Address::Inet(row.address), row.inode));
    let files = unix_listeners(*first)
        .into_iter()
        .filter(|(path, _)| path.starts_with('/'))
        .map(|(path, inode)| (Address::Unix(Path::new(&path).into()), inode));
    let mut found: Vec<Address> = ports
        .chain(files)
        .filter(|(_, inode)| own.contains(inode))
        .map(|(address, _)| address)
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
pub fn owner(pids: &[u32], address: &Address) -> Owner {
    let Some(first) = pids.first() else {
        return Owner::Unknown;
    };
    let (own, whole) = inodes(pids);
    let address = match address {
        Address::Inet(address) => *address,
        Address::Nowhere => return Owner::Unknown,
        Address::Unix(path) => {
            let there = unix_listeners(*first).into_iter();
            let mut there = there.filter(|(known, _)| Path::new(known) == path.as_ref());
            // An old socket of that name may still be there without its file: one of ours is enough.
            return match there.next() {
                None => Owner::Unknown,
                Some((_, inode)) if own.contains(&inode) => Owner::Ours,
                _ if there.any(|(_, inode)| own.contains(&inode)) => Owner::Ours,
                _ if whole => Owner::Foreign,
                _ => Owner::Unknown,
            };
        }
    };
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

/// A process that listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// Its number.
    pub pid: u32,
    /// Program and arguments, cut where they are long; the name alone where there are none.
    pub command: String,
}

/// Whom a connection to `address` reaches, of all processes; of several the oldest number. None where nobody
/// listens, or nobody whose descriptors may be looked at.
pub fn holder(address: SocketAddr) -> Option<Holder> {
    let own: BTreeSet<u64> = listeners(std::process::id(), Rows::All)
        .into_iter()
        .filter(|row| reaches(row.address, address))
        .map(|row| row.inode)
        .collect();
    if own.is_empty() {
        return None;
    }
    let all = fs::read_dir("/proc").ok()?.flatten();
    let mut pids: Vec<u32> = all
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect();
    pids.sort_unstable();
    let holds = |pid: &u32| !inodes(&[*pid]).0.is_disjoint(&own);
    let pid = pids.into_iter().find(holds)?;
    Some(Holder {
        pid,
        command: command(pid),
    })
}

fn command(pid: u32) -> String {
    /// In characters.
    const MOST: usize = 100;
    let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let words: Vec<String> = words
        .split(|byte| *byte == 0)
        .map(|word| String::from_utf8_lossy(word).into_owned())
        .collect();
    let text = words.join(" ");
    let text = match text.trim() {
        "" => fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default(),
        some => some.to_owned(),
    };
    let text = text.trim();
    let mut shown: String = text
        .chars()
        .filter(|it| !it.is_control())
        .take(MOST)
        .collect();
    if text.chars().count() > MOST {
        shown.push('…');
    }
    shown
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

/// The unix sockets that listen: their names and their inodes.
fn unix_listeners(pid: u32) -> Vec<(String, u64)> {
    let Ok(file) = File::open(format!("/proc/{pid}/net/unix")) else {
        return Vec::new();
    };
    let lines = BufReader::new(file).lines().skip(1).map_while(Result::ok);
    lines.filter_map(|line| parse_unix(&line)).collect()
}

/// `Num RefCount Protocol Flags Type St Inode Path`; a flag of 0x10000 says that it listens.
fn parse_unix(line: &str) -> Option<(String, u64)> {
    let mut fields = line.split_ascii_whitespace().skip(3);
    let flags = u32::from_str_radix(fields.next()?, 16).ok()?;
    let inode = fields.nth(2)?;
    // A path may hold spaces; what is before it is padded.
    let (_, path) = line.split_once(&format!(" {inode} "))?;
    (flags & 0x10000 != 0).then_some((path.into(), inode.parse().ok()?))
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
    use std::os::unix::net::UnixListener;

    use super::{Address, Owner, holder, listening, owner, parse_ip, parse_unix, reaches};

    #[test]
    fn addresses_are_read_as_the_kernel_writes_them() {
        assert_eq!(parse_ip("0100007F").unwrap().to_string(), "127.0.0.1");
        let loopback = parse_ip("00000000000000000000000001000000").unwrap();
        assert_eq!(loopback.to_string(), "::1");
        assert_eq!(parse_ip("0100"), None);
        assert_eq!(parse_ip("zzzzzzzz"), None);
    }

    #[test]
    fn unix_sockets_are_read_as_the_kernel_writes_them() {
        let line = "0000000000000000: 00000002 00000000 00010000 0001 01 70001 /run/a b.sock";
        assert_eq!(parse_unix(line), Some(("/run/a b.sock".into(), 70001)));
        let connected = "0000000000000000: 00000003 00000000 00000000 0001 03 70002 /run/a";
        assert_eq!(parse_unix(connected), None);
        let unnamed = "0000000000000000: 00000003 00000000 00000000 0001 03 70002";
        assert_eq!(parse_unix(unnamed), None);
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
        let address = Address::Inet(listener.local_addr().unwrap());
        let own = std::process::id();
        assert!(listening(&[own]).contains(&address));
        assert_eq!(owner(&[own], &address), Owner::Ours);
        let found = holder(listener.local_addr().unwrap()).unwrap();
        let this = std::env::args().next().unwrap();
        assert_eq!(found.pid, own);
        assert!(
            found.command.starts_with(&this[..this.len().min(100)]),
            "{found:?}"
        );
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a socket");
        let unix = UnixListener::bind(&path).unwrap();
        let file = Address::Unix(path.into());
        assert!(listening(&[own]).contains(&file));
        assert_eq!(owner(&[own], &file), Owner::Ours);

        let mut other = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        let pids = [other.id()];
        let owners = [owner(&pids, &address), owner(&pids, &file)];
        let found = listening(&pids);
        other.kill().unwrap();
        other.wait().unwrap();
        assert_eq!((found, owners), (vec![], [Owner::Foreign; 2]));

        drop((listener, unix));
        assert_eq!(owner(&[own], &address), Owner::Unknown);
        assert_eq!(owner(&[own], &file), Owner::Unknown);
    }
}
