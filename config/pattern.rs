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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use proptest::prelude::{any, prop_assert_eq, prop_oneof, proptest};

    use super::{HostPattern, PathPrefix, StatusSet};

    fn host(text: &str) -> Result<HostPattern, String> {
        text.parse()
            .map_err(|error: crate::Invalid| error.to_string())
    }

    fn path(text: &str) -> Result<PathPrefix, String> {
        text.parse()
            .map_err(|error: crate::Invalid| error.to_string())
    }

    #[test]
    fn a_host_is_kept_in_the_form_that_is_compared() {
        for (text, kept) in [
            ("Example.COM", "example.com"),
            ("example.com.", "example.com"),
            ("*.Example.com", "*.example.com"),
            ("localhost", "localhost"),
            ("my_app.local", "my_app.local"),
            ("127.0.0.1", "127.0.0.1"),
            ("[::1]", "[::1]"),
            ("[0:0::0:1]", "[::1]"),
            ("xn--bcher-kva.example", "xn--bcher-kva.example"),
        ] {
            assert_eq!(host(text).unwrap().as_str(), kept, "{text}");
        }
    }

    #[test]
    fn a_host_that_is_none_says_what_to_write() {
        for (text, message) in [
            (
                "*",
                "a star without a host\n  try: leave hosts out: then every host is meant",
            ),
            (
                "a.example:8080",
                "a host has no port here\n  try: \"a.example\"",
            ),
            ("::1", "an IPv6 host without brackets\n  try: \"[::1]\""),
            (
                "bücher.example",
                "a host is written in ASCII\n  try: its \"xn--\" form",
            ),
        ] {
            assert_eq!(host(text).unwrap_err(), message);
        }
        let long_label = "a".repeat(64);
        let long = vec!["a".repeat(63); 4].join(".");
        for bad in [
            "",
            ".",
            "..",
            "*.",
            "a..b",
            ".a",
            "*a.example",
            "a.*.example",
            "**.a",
            "http://a.example",
            "a.example/x",
            "a b",
            "a,b",
            "[::1",
            "[zz]",
            "300.1.1.1",
            "1.2.3",
            "a:b",
            "a\0",
            &long,
            &long_label,
        ] {
            assert!(host(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_star_stands_for_one_label_or_more_and_not_for_none() {
        let star = host("*.example.com").unwrap();
        assert_eq!(star.suffix(), Some(".example.com"));
        for (name, meant) in [
            ("a.example.com", true),
            ("a.b.example.com", true),
            ("example.com", false),
            (".example.com", false),
            ("aexample.com", false),
            ("example.com.evil", false),
        ] {
            assert_eq!(star.matches(name), meant, "{name}");
        }
        let exact = host("example.com").unwrap();
        assert!(
            exact.suffix().is_none()
                && exact.matches("example.com")
                && !exact.matches("a.example.com")
        );
    }

    #[test]
    fn a_path_prefix_ends_at_a_segment() {
        let api = path("/api/").unwrap();
        assert_eq!(api.as_str(), "/api");
        for (sent, meant) in [
            ("/api", true),
            ("/api/", true),
            ("/api/x", true),
            ("/apix", false),
            ("/", false),
            ("", false),
        ] {
            assert_eq!(api.matches(sent), meant, "{sent}");
        }
        assert!(PathPrefix::default().matches("/anything"));
        assert_eq!(path("///").unwrap(), PathPrefix::default());
    }

    #[test]
    fn a_path_that_is_none_says_what_to_write() {
        assert_eq!(
            path("api").unwrap_err(),
            "a path begins with \"/\"\n  try: \"/api\""
        );
        assert_eq!(
            path("/api/*").unwrap_err(),
            "a path is a prefix already, without a star\n  try: \"/api/\""
        );
        assert_eq!(
            path("/a?b").unwrap_err(),
            "a path has no query and no fragment\n  try: \"/a\""
        );
        for bad in [
            "", "/a b", "/ä", "/a//b", "//a", "/a/../b", "/./a", "/a#", "/a\n",
        ] {
            assert!(path(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn status_codes_are_sorted_and_joined() {
        for (text, kept) in [
            ("200", "200"),
            ("100-499", "100-499"),
            ("404,200-399", "200-399,404"),
            ("200-299,300-399", "200-399"),
            ("200-299, 250-260", "200-299"),
            ("599,100", "100,599"),
        ] {
            assert_eq!(
                text.parse::<StatusSet>().unwrap().to_string(),
                kept,
                "{text}"
            );
        }
        for bad in [
            "",
            ",",
            "200,",
            "99",
            "600",
            "1000",
            "2xx",
            "300-200",
            "200-",
            "-200",
            "+20",
            "200-300-400",
        ] {
            assert!(bad.parse::<StatusSet>().is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn a_set_of_status_codes_holds_what_was_written(
            spans in proptest::collection::vec((100u16..600, 0u16..60), 1..8)
        ) {
            let spans: Vec<_> = spans.iter().map(|(a, more)| (*a, (a + more).min(599))).collect();
            let written: Vec<_> = spans.iter().map(|(a, b)| format!("{a}-{b}")).collect();
            let set: StatusSet = written.join(",").parse().unwrap();
            for code in 0..1000 {
                let meant = spans.iter().any(|(a, b)| (*a..=*b).contains(&code));
                prop_assert_eq!(set.contains(code), meant, "{}", code);
            }
            prop_assert_eq!(set.to_string().parse(), Ok(set));
        }

        #[test]
        fn what_is_accepted_is_read_back_from_what_it_displays(
            text in prop_oneof![any::<String>(), "[a-c*.:/0-9\\[\\]%_-]{0,10}"]
        ) {
            if let Ok(host) = host(&text) {
                prop_assert_eq!(host.to_string().parse(), Ok(host.clone()));
                assert!(!host.as_str().contains(char::is_uppercase));
            }
            if let Ok(path) = path(&text) {
                assert!(path.matches(path.as_str()));
                prop_assert_eq!(path.to_string().parse(), Ok(path));
            }
            if let Ok(set) = text.parse::<StatusSet>() {
                prop_assert_eq!(set.to_string().parse(), Ok(set));
            }
        }
    }
}
