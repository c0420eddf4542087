//! Rules of the `[service.NAME.log_level]` table. Pure.

use crate::check::Rules;
use crate::file::{LevelChange, Service};
use crate::tree::Place;

/// What the level stands in a request for.
const LEVEL: &str = "{level}";

impl Rules {
    pub(super) fn log_level(&mut self, service_at: &Place, service: &Service) {
        let (at, change) = (service_at.key("log_level"), &service.log_level);
        self.above_zero(at.key("timeout"), change.timeout);
        let Some(request) = &change.request else {
            self.without_request(&at, change);
            return;
        };
        if change.signal.is_some() {
            let reason = "one way is enough";
            let hint = "leave one of the two out";
            self.conflict(at.key("request"), at.key("signal"), reason, hint);
        }
        if !service.http {
            let reason = "a worker has no address that it could be sent to";
            let hint = "signal = \"USR1\", or http = true";
            self.conflict(at.key("request"), service_at.key("http"), reason, hint);
        }
        match request.split_once(' ') {
            Some((method, path))
                if !method.is_empty() && method.chars().all(|c| c.is_ascii_uppercase()) =>
            {
                self.request_path(at.key("request"), path);
            }
            _ => {
                let reason = "not a method in capitals, a space and a path";
                let hint = "such as \"PUT /loglevel?level={level}\"";
                self.refuse(at.key("request"), reason, hint);
            }
        }
        self.only_the_level(at.key("request"), request);
        if let Some(body) = &change.body {
            self.only_the_level(at.key("body"), body);
        }
        if let Some(kind) = &change.content_type
            && (kind.is_empty() || !kind.chars().all(|c| matches!(c, ' '..='~')))
        {
            let hint = "such as \"application/json\"";
            self.refuse(at.key("content_type"), "not the type of a body", hint);
        }
        if change.content_type.is_some() && change.body.is_none() {
            let reason = "the type of a body that is not there";
            let hint = "body = \"{level}\", say, beside it";
            self.refuse(at.key("content_type"), reason, hint);
        }
    }

    /// Without a request nothing says how one would be made.
    fn without_request(&mut self, at: &Place, change: &LevelChange) {
        let default = LevelChange::default();
        for (field, written) in [
            ("body", change.body.is_some()),
            ("content_type", change.content_type.is_some()),
            ("timeout", change.timeout != default.timeout),
        ] {
            if written {
                let hint = "request = \"PUT /loglevel?level={level}\" beside it, or leave it out";
                self.refuse(at.key(field), "means nothing without request", hint);
            }
        }
    }

    /// Another word in braces would be sent as it is, which nobody means.
    fn only_the_level(&mut self, place: Place, text: &str) {
        let words = text.split('{').skip(1);
        let mut words = words.filter_map(|rest| rest.split_once('}').map(|(word, _)| word));
        let is_word = |word: &&str| {
            !word.is_empty() && word.chars().all(|c| c.is_ascii_alphabetic() || c == '_')
        };
        if let Some(word) = words.find(|word| is_word(word) && *word != "level") {
            let reason = format!("{{{word}}} stands for nothing here");
            self.refuse(place, reason, LEVEL);
        }
    }
}
