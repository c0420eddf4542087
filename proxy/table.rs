//! Which service a host and a path belong to. Pure; knows nothing of releases.
//!
//! The most specific host that has a matching path wins: the exact one, then the longest
//! `*.suffix`, then any host; within a host the longest path prefix. A host whose paths do not
//! match passes the request on to the less specific ones, so a service can take `/api` of one
//! host and leave the rest of it to another. Looking up does not allocate, and costs about the
//! same with ten services or ten thousand.

use std::collections::HashMap;

use hotctl_config::{HostPattern, PathPrefix, ServiceName};

/// What one service takes.
#[derive(Clone, Debug)]
pub struct Route {
    /// The service.
    pub service: ServiceName,
    /// The hosts, none for any.
    pub hosts: Vec<HostPattern>,
    /// The path prefixes, none for every path.
    pub paths: Vec<PathPrefix>,
}

/// All routes.
#[derive(Debug, Default)]
pub struct Table {
    services: Vec<ServiceName>,
    exact: HashMap<Box<str>, Paths>,
    suffix: HashMap<Box<str>, Paths>,
    any: Paths,
}

impl Table {
    /// A table of all these routes. Where two have the same host and path (which the check of the
    /// configuration refuses), the first one has it.
    pub fn new(routes: impl IntoIterator<Item = Route>) -> Self {
        let mut table = Self::default();
        for route in routes {
            let index = table.services.len();
            let paths: Vec<&str> = match route.paths.is_empty() {
                true => vec!["/"],
                false => route.paths.iter().map(PathPrefix::as_str).collect(),
            };
            for host in &route.hosts {
                let at = match host.suffix() {
                    Some(suffix) => table.suffix.entry(suffix.trim_start_matches('.').into()),
                    None => table.exact.entry(bare(host.as_str()).into()),
                };
                at.or_default().extend(&paths, index);
            }
            if route.hosts.is_empty() {
                table.any.extend(&paths, index);
            }
            table.services.push(route.service);
        }
        table.any.link();
        table.exact.values_mut().for_each(Paths::link);
        table.suffix.values_mut().for_each(Paths::link);
        table
    }

    /// The services, in the order of the routes.
    pub fn services(&self) -> &[ServiceName] {
        &self.services
    }

    /// The service of a request, as an index into [`Table::services`].
    ///
    /// `host` may have a port, a trailing dot and capitals; `path` is taken as it stands: nothing
    /// is decoded, and `..` means nothing.
    pub fn find(&self, host: &str, path: &str) -> Option<usize> {
        if !self.exact.is_empty() || !self.suffix.is_empty() {
            let mut lower = [0; LONGEST_HOST];
            if let Some(host) = lower_case(bare(host), &mut lower)
                && let Some(index) = self.find_host(host, path)
            {
                return Some(index);
            }
        }
        self.any.find(path)
    }

    fn find_host(&self, host: &str, path: &str) -> Option<usize> {
        if let Some(index) = self.exact.get(host).and_then(|paths| paths.find(path)) {
            return Some(index);
        }
        if self.suffix.is_empty() {
            return None;
        }
        host.match_indices('.')
            .filter_map(|(dot, _)| self.suffix.get(&host[dot + 1..]))
            .find_map(|paths| paths.find(path))
    }
}

/// No name in the DNS is longer, so no host pattern can match a longer one.
const LONGEST_HOST: usize = 253;

/// A host without port, without the brackets of IPv6 and without the dot of the root.
fn bare(host: &str) -> &str {
    if let Some(rest) = host.strip_prefix('[') {
        return rest.split_once(']').map_or(rest, |(inside, _)| inside);
    }
    let host = match host.rsplit_once(':') {
        // More than one colon is an IPv6 address without brackets, not a port.
        Some((name, _)) if !name.contains(':') => name,
        _ => host,
    };
    host.strip_suffix('.').unwrap_or(host)
}

fn lower_case<'a>(host: &'a str, buffer: &'a mut [u8; LONGEST_HOST]) -> Option<&'a str> {
    if !host.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return (host.len() <= LONGEST_HOST).then_some(host);
    }
    let buffer = buffer.get_mut(..host.len())?;
    buffer.copy_from_slice(host.as_bytes());
    buffer.make_ascii_lowercase();
    std::str::from_utf8(buffer).ok()
}

/// The path prefixes of one host, sorted, each with the next shorter one that it begins with.
///
/// All prefixes of a path are found from the greatest entry that is not greater than the path:
/// it is one of them or begins with all of them. So a lookup is a binary search and then a walk
/// over entries that are nested in one another.
#[derive(Debug, Default)]
struct Paths(Vec<Prefix>);

#[derive(Debug)]
struct Prefix {
    /// Without a slash at its end: `/api`, and nothing for `/`.
    text: Box<str>,
    service: usize,
    shorter: Option<usize>,
}

impl Paths {
    fn extend(&mut self, paths: &[&str], service: usize) {
        self.0.extend(paths.iter().map(|path| Prefix {
            text: path.trim_end_matches('/').into(),
            service,
            shorter: None,
        }));
    }

    /// Sorts and links what was added. The sort is stable, so of equals the first stays first.
    fn link(&mut self) {
        self.0.sort_by(|a, b| a.text.cmp(&b.text));
        self.0.dedup_by(|later, first| later.text == first.text);
        let mut open: Vec<usize> = Vec::new();
        for index in 0..self.0.len() {
            let text = &self.0[index].text;
            while let Some(&last) = open.last()
                && !text.starts_with(&*self.0[last].text)
            {
                open.pop();
            }
            self.0[index].shorter = open.last().copied();
            open.push(index);
        }
    }

    fn find(&self, path: &str) -> Option<usize> {
        let after = self.0.partition_point(|entry| *entry.text <= *path);
        let mut at = after.checked_sub(1);
        while let Some(entry) = at.and_then(|at| self.0.get(at)) {
            if entry.matches(path) {
                return Some(entry.service);
            }
            at = entry.shorter;
        }
        None
    }
}

impl Prefix {
    /// On a boundary of segments: `/api` has `/api` and `/api/x`, not `/apix`.
    fn matches(&self, path: &str) -> bool {
        path.strip_prefix(&*self.text)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/') || self.text.is_empty())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;
    use proptest::prelude::*;

    fn table(routes: &[(&str, &[&str], &[&str])]) -> Table {
        Table::new(routes.iter().map(|(service, hosts, paths)| Route {
            service: service.parse().unwrap(),
            hosts: hosts.iter().map(|it| it.parse().unwrap()).collect(),
            paths: paths.iter().map(|it| it.parse().unwrap()).collect(),
        }))
    }

    fn check(table: &Table, cases: &[(&str, &str, &str)]) {
        for (host, path, service) in cases {
            let found = table
                .find(host, path)
                .map(|it| table.services()[it].as_str());
            assert_eq!(found.unwrap_or("-"), *service, "{host} {path}");
        }
    }

    #[test]
    fn the_most_specific_host_wins() {
        let table = table(&[
            ("any", &[], &[]),
            ("one", &["example.com"], &[]),
            ("below", &["*.example.com"], &[]),
            ("deep", &["*.eu.example.com"], &[]),
            ("six", &["[::1]"], &[]),
        ]);
        check(
            &table,
            &[
                ("example.com", "/", "one"),
                ("EXAMPLE.com:8080", "/", "one"),
                ("example.com.", "/", "one"),
                ("example.com.:80", "/", "one"),
                ("a.example.com", "/", "below"),
                ("a.b.example.com", "/", "below"),
                ("a.eu.Example.com:1", "/", "deep"),
                ("eu.example.com", "/", "below"),
                ("notexample.com", "/", "any"),
                ("", "/", "any"),
                ("[::1]:80", "/", "six"),
                ("[::1]", "/", "six"),
                (".example.com", "/", "below"),
                (&"a.".repeat(4000), "/", "any"),
            ],
        );
    }

    #[test]
    fn the_longest_path_wins_at_a_boundary_of_segments() {
        let table = table(&[
            ("root", &[], &["/"]),
            ("api", &[], &["/api"]),
            ("v2", &[], &["/api/v2"]),
            ("dash", &[], &["/api-old"]),
        ]);
        check(
            &table,
            &[
                ("", "/", "root"),
                ("", "/apix", "root"),
                ("", "/api", "api"),
                ("", "/api/", "api"),
                ("", "/api/v1", "api"),
                ("", "/api/v2", "v2"),
                ("", "/api/v2/x", "v2"),
                ("", "/api/v20", "api"),
                ("", "/api-old/x", "dash"),
                ("", "/api-older", "root"),
                ("", "*", "root"),
                ("", "", "root"),
            ],
        );
    }

    #[test]
    fn a_host_whose_paths_do_not_match_passes_the_request_on() {
        let table = table(&[
            ("any", &[], &["/"]),
            ("api", &["example.com"], &["/api"]),
            ("admin", &["*.com"], &["/admin"]),
        ]);
        check(
            &table,
            &[
                ("example.com", "/api", "api"),
                ("example.com", "/admin", "admin"),
                ("example.com", "/", "any"),
            ],
        );
    }

    #[test]
    fn a_table_without_a_route_for_it_finds_nothing() {
        check(&table(&[]), &[("a", "/", "-")]);
        let table = table(&[("a", &["a.com"], &["/x"])]);
        check(&table, &[("a.com", "/y", "-"), ("b.com", "/x", "-")]);
    }

    proptest! {
        /// Against the rule itself: of all prefixes that match, the longest.
        #[test]
        fn lookups_are_those_of_a_plain_search(
            prefixes in prop::collection::btree_set("(/[ab-]{1,2}){0,3}", 1..12),
            path in "(/[ab-]{1,3}){0,4}/?",
        ) {
            let prefixes: Vec<PathPrefix> = prefixes
                .iter()
                .map(|it| if it.is_empty() { "/" } else { it })
                .map(|it| it.parse().unwrap())
                .collect();
            let routes = prefixes.iter().enumerate().map(|(index, prefix)| Route {
                service: format!("s{index}").parse().unwrap(),
                hosts: vec![],
                paths: vec![prefix.clone()],
            });
            let table = Table::new(routes);
            let longest = (0..prefixes.len())
                .filter(|&index| prefixes[index].matches(&path))
                .max_by_key(|&index| prefixes[index].as_str().trim_end_matches('/').len());
            prop_assert_eq!(table.find("", &path), longest);
        }
    }
}
