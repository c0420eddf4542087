//! Addresses and ports: those hotctl takes requests at, and those it gives to services.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::ops::RangeInclusive;

use hotctl_config::file::{Admin, Config, PortRange};

use crate::answers::Finding;
use crate::api::Status;
use crate::daemon;

const EPHEMERAL: &str = "/proc/sys/net/ipv4/ip_local_port_range";
const RESERVED: &str = "/proc/sys/net/ipv4/ip_local_reserved_ports";

/// All of it.
pub fn check(config: &Config, daemon: Option<&Status>) -> Vec<Finding> {
    let held: Vec<SocketAddr> = daemon
        .map(|status| status.listen.iter().copied().chain(status.admin).collect())
        .unwrap_or_default();
    let mut found: Vec<Finding> = config
        .listen
        .iter()
        .map(|listen| address("listen", listen.address, &held))
        .collect();
    if let Admin::At(admin) = config.admin {
        found.push(address("admin", admin, &held));
    }
    found.push(free(config, daemon));
    found.push(apart(config.ports));
    found
}

fn address(check: &'static str, wanted: SocketAddr, held: &[SocketAddr]) -> Finding {
    if held.contains(&wanted) {
        return Finding::good(check, format!("{wanted}: held by the daemon"));
    }
    match daemon::bind(wanted, check) {
        Ok(_) => Finding::good(check, format!("{wanted}: free")),
        Err(fault) => Finding::of_fault(check, fault),
    }
}

/// Whether enough ports can be given: each service needs those of two releases, old and new. Those that
/// the daemon has given already count, too.
fn free(config: &Config, daemon: Option<&Status>) -> Finding {
    const CHECK: &str = "ports";
    let PortRange { first, last } = config.ports;
    let services = config.services.values();
    let wanted: usize = services.map(|s| 2 * s.leased_ports() as usize).sum();
    let wanted = wanted.max(2);
    let total = usize::from(last - first) + 1;
    let services = daemon.iter().flat_map(|status| &status.services);
    let instances = services.flat_map(|s| &s.running).flat_map(|r| &r.instances);
    let given: Vec<u16> = instances
        .flat_map(|one| {
            one.address
                .port()
                .into_iter()
                .chain(one.ports.values().copied())
        })
        .collect();
    let can_use = |port: &u16| {
        given.contains(port) || TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok()
    };
    // More than are needed need not be counted.
    let free = (first..=last).filter(can_use).take(wanted).count();
    if free < wanted {
        return Finding::wrong(
            CHECK,
            format!(
                "{first}-{last}: {free} of {total} free, a deploy of everything needs {wanted}"
            ),
            format!(
                "widen `ports` in the configuration; `ss -ltn 'sport >= :{first} and sport <= :{last}'` shows who has them"
            ),
        );
    }
    Finding::good(CHECK, format!("{first}-{last}: enough are free"))
}

/// Whether the system may take one of them for an outgoing connection.
fn apart(ports: PortRange) -> Finding {
    const CHECK: &str = "port range";
    let Some(ephemeral) = fs::read_to_string(EPHEMERAL).ok().and_then(|t| range(&t)) else {
        return Finding::note(CHECK, format!("{EPHEMERAL} cannot be read"));
    };
    let (first, last) = (ports.first, ports.last);
    let reserved = fs::read_to_string(RESERVED).unwrap_or_default();
    let mut exposed = (first..=last)
        .filter(|port| ephemeral.contains(port))
        .filter(|port| !reserved_ranges(&reserved).any(|range| range.contains(port)));
    match exposed.next() {
        None => Finding::good(
            CHECK,
            format!("{first}-{last}: outside of those for outgoing connections"),
        ),
        Some(port) => Finding::wrong(
            CHECK,
            format!(
                "{first}-{last}: overlaps the ports for outgoing connections ({}-{}), so {port} may be taken when a service needs it",
                ephemeral.start(),
                ephemeral.end()
            ),
            format!(
                "ports = \"20000-29999\" in the configuration, or sysctl -w net.ipv4.ip_local_reserved_ports={first}-{last}"
            ),
        ),
    }
}

/// `32768\t60999`.
fn range(text: &str) -> Option<RangeInclusive<u16>> {
    let mut ends = text.split_whitespace().map(str::parse);
    Some(ends.next()?.ok()?..=ends.next()?.ok()?)
}

/// `8080,9000-9100`.
fn reserved_ranges(text: &str) -> impl Iterator<Item = RangeInclusive<u16>> + '_ {
    text.trim().split(',').filter_map(|part| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.parse().ok()?..=last.parse().ok()?)
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn the_kernels_ways_to_write_ranges_are_read() {
        assert_eq!(range("32768\t60999\n"), Some(32768..=60999));
        assert_eq!(range(""), None);
        let ranges: Vec<_> = reserved_ranges("8080,9000-9100\n").collect();
        assert_eq!(ranges, [8080..=8080, 9000..=9100]);
        assert_eq!(reserved_ranges("\n").count(), 0);
    }
}
