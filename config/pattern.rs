//! The small languages inside a value: hosts, path prefixes, sets of status codes. Pure.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;
use std::sync::Arc;

use crate::error::Invalid;
use crate::form;

/// The hosts that a service answers for: one host (`example.com`), or all below one (`*.example.com`,
/// which is not `example.com` itself). Kept in lower case, without a port and without a final dot.
/// Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostPattern(Arc<str>);

/// The paths that a service answers for: all that equal the prefix or go on below it. `/api` is
/// `/api` and `/api/x`, not `/apix`; `/` is every path. Compared with the path as it was sent. Kept
/// without a final `/`, save for `/` itself. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PathPrefix(Arc<str>);

/// A set of HTTP status codes, written as codes and spans of them: `200-399,404`. Codes are 100 to
/// 599. Kept sorted, and joined where they touch.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct StatusSet(Vec<(u16, u16)>);

impl HostPattern {
    /// As it is written: `example.com` or `*.example.com`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// For a pattern with a star, what a host must end with, beginning with its dot: `.example.com`.
    /// `None` for a pattern that is one host.
    pub fn suffix(&self) -> Option<&str> {
        self.0.strip_prefix('*')
    }

    /// Whether a host is meant. The host is in lower case, without a port and without a final dot.
    pub fn matches(&self, host: &str) -> bool {
        match self.suffix() {
            Some(suffix) => host.len() > suffix.len() && host.ends_with(suffix),
            None => *self.0 == *host,
        }
    }
}

impl FromStr for HostPattern {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let refuse = |reason: &str, hint: &str| Err(Invalid::new(reason, hint));
        let example = r#"a host such as "example.com" or "*.example.com""#;
        let lower = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
        if lower.is_empty() {
            return refuse("a host is empty", example);
        }
        if lower == "*" {
            return refuse(
                "a star without a host",
                "leave hosts out: then every host is meant",
            );
        }
        if lower.contains('/') {
            return refuse("a host has no scheme and no path", example);
        }
        if let Some(inner) = lower
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
        {
            return match inner.parse::<Ipv6Addr>() {
                // Its one canonical form, which is what clients send.
                Ok(address) => Ok(Self(format!("[{address}]").into())),
                Err(_) => refuse("not an IPv6 address in brackets", r#"such as "[::1]""#),
            };
        }
        if lower.parse::<Ipv6Addr>().is_ok() {
            return Err(Invalid::new(
                "an IPv6 host without brackets",
                format!("\"[{lower}]\""),
            ));
        }
        if let Some((host, port)) = lower.rsplit_once(':')
            && port.bytes().all(|b| b.is_ascii_digit())
        {
            return Err(Invalid::new("a host has no port here", format!("{host:?}")));
        }
        let name = lower.strip_prefix("*.").unwrap_or(&lower);
        if name.contains('*') {
            return refuse(
                "a star can only be the whole first label",
                r#"such as "*.example.com""#,
            );
        }
        if !name.is_ascii() {
            return refuse("a host is written in ASCII", r#"its "xn--" form"#);
        }
        if let Some(bad) = name
            .chars()
            .find(|c| !matches!(c, 'a'..='z' | '0'..='9' | '-' | '_' | '.'))
        {
            return Err(Invalid::new(
                format!("a host cannot contain {bad:?}"),
                example,
            ));
        }
        if name.split('.').any(str::is_empty) {
            return refuse("a host has an empty label", example);
        }
        if name.len() > 253 || name.split('.').any(|label| label.len() > 63) {
            return refuse(
                "a host has at most 253 characters, and 63 between two dots",
                example,
            );
        }
        // 1.2.3 or 300.1.1.1: no name ends in a number, so it is a slip in an address.
        let last = name.rsplit('.').next().unwrap_or(name);
        if last.bytes().all(|b| b.is_ascii_digit()) && name.parse::<Ipv4Addr>().is_err() {
            return refuse("neither a name nor an IPv4 address", example);
        }
        Ok(Self(lower.into()))
    }
}

impl PathPrefix {
    /// As it is written, without a final `/` save for `/` itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether a path is meant. The path is as it was sent, without its query.
    pub fn matches(&self, path: &str) -> bool {
        match path.strip_prefix(self.0.trim_end_matches('/')) {
            Some(rest) => rest.is_empty() || rest.starts_with('/'),
            None => false,
        }
    }
}

impl Default for PathPrefix {
    /// Every path.
    fn default() -> Self {
        Self("/".into())
    }
}

impl FromStr for PathPrefix {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let refuse = |reason: &str, hint: String| Err(Invalid::new(reason, hint));
        if !text.starts_with('/') {
            return refuse(
                "a path begins with \"/\"",
                format!("{:?}", format!("/{text}")),
            );
        }
        if text.contains('*') {
            let without = text.trim_end_matches('*');
            return refuse(
                "a path is a prefix already, without a star",
                format!("{without:?}"),
            );
        }
        if let Some(end) = text.find(['?', '#']) {
            let path = text.get(..end).unwrap_or(text);
            return refuse("a path has no query and no fragment", format!("{path:?}"));
        }
        if let Some(bad) = text.chars().find(|c| !c.is_ascii_graphic()) {
            let hint = "percent-encoding, as it is sent: \"%20\" for a space".into();
            return refuse(&format!("a path cannot contain {bad:?}"), hint);
        }
        let path = match text.trim_end_matches('/') {
            "" => "/",
            path => path,
        };
        let mut segments = path.split('/').skip(1);
        if path != "/" && segments.any(|segment| matches!(segment, "" | "." | "..")) {
            return Err(Invalid::plain(
                "a path with an empty, \".\" or \"..\" segment",
            ));
        }
        Ok(Self(path.into()))
    }
}

impl StatusSet {
    /// Whether a status code is in the set.
    pub fn contains(&self, status: u16) -> bool {
        self.0
            .iter()
            .any(|(first, last)| (*first..=*last).contains(&status))
    }
}

impl Default for StatusSet {
    /// `100-499`: the app answered, and did not say that it is broken.
    fn default() -> Self {
        Self(vec![(100, 499)])
    }
}

impl FromStr for StatusSet {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let wrong = |reason: String| Invalid::new(reason, r#"such as "200-399,404""#);
        let code = |text: &str| match text.trim() {
            digits if digits.len() == 3 && digits.bytes().all(|b| b.is_ascii_digit()) => digits
                .parse()
                .ok()
                .filter(|code| (100..=599).contains(code))
                .ok_or_else(|| wrong(format!("status {digits} is not within 100 to 599"))),
            other => Err(wrong(format!("{other:?} is not a status code"))),
        };
        let mut spans = Vec::new();
        for part in text.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last): (u16, u16) = (code(first)?, code(last)?);
            if first > last {
                return Err(wrong(format!("{first}-{last} runs backwards")));
            }
            spans.push((first, last));
        }
        spans.sort_unstable();
        let mut joined: Vec<(u16, u16)> = Vec::new();
        for (first, last) in spans {
            match joined.last_mut() {
                Some((_, end)) if first <= *end + 1 => *end = last.max(*end),
                _ => joined.push((first, last)),
            }
        }
        Ok(Self(joined))
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Display for PathPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Display for StatusSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, (first, last)) in self.0.iter().enumerate() {
            let comma = if n > 0 { "," } else { "" };
            match first == last {
                true => write!(f, "{comma}{first}")?,
                false => write!(f, "{comma}{first}-{last}")?,
            }
        }
        Ok(())
    }
}

form::as_text!(HostPattern, "a host such as \"example.com\"");
form::as_text!(PathPrefix, "a path such as \"/api\"");
form::as_text!(StatusSet, "status codes such as \"200-399,404\"");
