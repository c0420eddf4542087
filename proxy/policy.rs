//! What the Content Security Policy of a page must say so that one more script may run in it, which has a
//! worker and asks its own origin: no more than that is let in. Pure. (Content Security Policy Level 3.)

use http::header::{self, HeaderValue};
use pingora::http::ResponseHeader;

/// What a directive says where it is not there is said by the next one.
const SCRIPTS: [&str; 3] = ["script-src-elem", "script-src", "default-src"];
const WORKERS: [&str; 4] = ["worker-src", "child-src", "script-src", "default-src"];
const ASKS: [&str; 2] = ["connect-src", "default-src"];
const OWN_ORIGIN: &str = "'self'";

/// Let a script in wherever the policies of a page would not; the nonce that it needs, if one does.
pub(crate) fn let_in(answer: &mut ResponseHeader) -> Option<String> {
    let values = answer.headers.get_all(header::CONTENT_SECURITY_POLICY);
    let values: Vec<String> = values
        .into_iter()
        .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
        .collect();
    if values.is_empty() {
        return None;
    }
    let nonce = format!("{:032x}", fastrand::u128(..));
    answer.remove_header(&header::CONTENT_SECURITY_POLICY);
    for value in values {
        let policies: Vec<String> = value.split(',').map(|it| widened(it, &nonce)).collect();
        if let Ok(value) = HeaderValue::try_from(policies.join(",")) {
            let _ = answer.append_header(header::CONTENT_SECURITY_POLICY, value);
        }
    }
    Some(nonce)
}

/// One directive: its name and what it allows.
struct Directive<'a> {
    name: &'a str,
    sources: Vec<&'a str>,
}

impl<'a> Directive<'a> {
    fn has(&self, source: &str) -> bool {
        self.sources
            .iter()
            .any(|it| it.eq_ignore_ascii_case(source))
    }

    fn add(&mut self, source: &'a str) {
        self.sources.retain(|it| !it.eq_ignore_ascii_case("'none'"));
        if !self.has(source) {
            self.sources.push(source);
        }
    }

    /// Whether what is inline runs: a nonce would end that.
    fn runs_all_inline(&self) -> bool {
        let is_named = |it: &&str| it.starts_with("'nonce-") || it.starts_with("'sha");
        self.has("'unsafe-inline'") && !self.sources.iter().any(is_named)
    }
}

fn widened(policy: &str, nonce: &str) -> String {
    let nonce = format!("'nonce-{nonce}'");
    let mut directives: Vec<Directive> = policy
        .split(';')
        .filter_map(|directive| {
            let mut words = directive.split_ascii_whitespace();
            let name = words.next()?;
            let sources = words.collect();
            Some(Directive { name, sources })
        })
        .collect();
    // Before the scripts get one more source, of which workers would have theirs.
    if let Some(workers) = own(&WORKERS, "worker-src", &mut directives)
        && !workers.has("*")
    {
        workers.add(OWN_ORIGIN);
    }
    if let Some(asks) = own(&ASKS, "connect-src", &mut directives)
        && !asks.has("*")
    {
        asks.add(OWN_ORIGIN);
    }
    if let Some(scripts) = own(&SCRIPTS, "script-src", &mut directives) {
        match scripts.runs_all_inline() {
            true if scripts.has("*") => {}
            true => scripts.add(OWN_ORIGIN),
            false => scripts.add(&nonce),
        }
    }
    let directives = directives.iter().map(|directive| {
        let mut words = vec![directive.name];
        words.extend(&directive.sources);
        words.join(" ")
    });
    directives.collect::<Vec<_>>().join("; ")
}

/// The directive that counts, which nothing else looks at: made out of the one that others look at, too,
/// where there is no other.
fn own<'d, 'a>(
    names: &[&str],
    made: &'a str,
    directives: &'d mut Vec<Directive<'a>>,
) -> Option<&'d mut Directive<'a>> {
    let at = names.iter().find_map(|name| {
        let mut directives = directives.iter();
        directives.position(|it| it.name.eq_ignore_ascii_case(name))
    })?;
    let is_shared = |name: &str| {
        let shared = ["default-src", "script-src"];
        !name.eq_ignore_ascii_case(made) && shared.iter().any(|it| name.eq_ignore_ascii_case(it))
    };
    if !is_shared(directives[at].name) {
        return directives.get_mut(at);
    }
    let sources = directives[at].sources.clone();
    directives.push(Directive {
        name: made,
        sources,
    });
    directives.last_mut()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;

    #[test]
    fn a_policy_lets_in_one_script_more_and_keeps_what_it_forbids() {
        for (before, after) in [
            ("img-src 'none'", "img-src 'none'"),
            (
                "default-src 'none'",
                "default-src 'none'; worker-src 'self'; connect-src 'self'; script-src 'nonce-N'",
            ),
            (
                "default-src 'self'",
                "default-src 'self'; worker-src 'self'; connect-src 'self'; script-src 'self' 'nonce-N'",
            ),
            (
                "script-src 'unsafe-inline' https://x.org",
                "script-src 'unsafe-inline' https://x.org 'self'; worker-src 'unsafe-inline' https://x.org 'self'",
            ),
            (
                "script-src *  'unsafe-inline' ;",
                "script-src * 'unsafe-inline'; worker-src * 'unsafe-inline'",
            ),
            (
                "script-src 'nonce-a' 'strict-dynamic'; object-src 'none'; worker-src 'none'",
                "script-src 'nonce-a' 'strict-dynamic' 'nonce-N'; object-src 'none'; worker-src 'self'",
            ),
            (
                "script-src-elem 'sha256-x'; connect-src https://api.org",
                "script-src-elem 'sha256-x' 'nonce-N'; connect-src https://api.org 'self'",
            ),
        ] {
            assert_eq!(widened(before, "N"), after, "{before}");
        }
    }

    #[test]
    fn every_policy_of_a_page_lets_it_in_by_the_same_nonce() {
        let mut answer = ResponseHeader::build(200, None).unwrap();
        assert_eq!(let_in(&mut answer), None);
        let name = header::CONTENT_SECURITY_POLICY;
        for value in [
            "script-src 'nonce-a', script-src 'none'",
            "script-src b.org",
        ] {
            answer.append_header(&name, value).unwrap();
        }
        let nonce = let_in(&mut answer).unwrap();
        let values = answer.headers.get_all(&name).into_iter();
        let all: Vec<&str> = values.map(|it| it.to_str().unwrap()).collect();
        assert_eq!(all.len(), 2);
        assert_eq!(
            all.join(" ").matches(&format!("'nonce-{nonce}'")).count(),
            3
        );
    }
}
