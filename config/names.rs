//! The names of things. Pure, and made only by parsing: who holds a [`ServiceName`] holds a good one.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::Invalid;
use crate::form;

/// The name of a service: 1 to 63 characters of `a-z`, `0-9` and `-`, not beginning with `-`.
/// So it is safe as a folder, a host label, a metric label and a word on the command line.
/// Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceName(Arc<str>);

/// One release of one service, written `web@7`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReleaseId {
    /// The service it belongs to.
    pub service: ServiceName,
    /// Its number, counted from 1 within the service and never given twice.
    pub number: u32,
}

/// Where a release runs: an address and its processes. A number and not a colour, since several old
/// releases may drain while a new one starts. `Display` is `slot 3`; serialised as the bare number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Slot(pub u32);

/// A share of requests, 0 to 100. `Display` is `25%`; serialised as the bare number, read from a
/// number or from text with or without the sign.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Percent(u8);

/// The blake3 hash of a release's content, written as 64 lower-case hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

impl ServiceName {
    /// The longest name, in characters: that of a host label.
    pub const MAX_LEN: usize = 63;

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ServiceName {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        const HINT: &str = r#"a name of a-z, 0-9 and "-", such as "web" or "api-2""#;
        let refuse = |reason: String| Err(Invalid::new(reason, HINT));
        let good = |c: char| matches!(c, 'a'..='z' | '0'..='9' | '-');
        if text.is_empty() {
            return refuse("a service name is empty".into());
        }
        if let Some(bad) = text.chars().find(|c| !good(*c)) {
            return refuse(format!("a service name cannot contain {bad:?}"));
        }
        if text.starts_with('-') {
            return refuse("a service name cannot begin with \"-\"".into());
        }
        if text.len() > Self::MAX_LEN {
            let (is, max) = (text.len(), Self::MAX_LEN);
            return refuse(format!(
                "a service name has at most {max} characters, this one {is}"
            ));
        }
        Ok(Self(text.into()))
    }
}

impl FromStr for ReleaseId {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let wrong = || {
            Invalid::new(
                "not a release",
                "a service, \"@\" and a number, such as \"web@7\"",
            )
        };
        let (service, number) = text.split_once('@').ok_or_else(wrong)?;
        let service = service.parse()?;
        // One way to write each: no sign, no leading zero, no number 0.
        if !number.starts_with(|c: char| matches!(c, '1'..='9')) {
            return Err(wrong());
        }
        let number = number.parse().map_err(|_| wrong())?;
        Ok(Self { service, number })
    }
}

impl Percent {
    /// None of the requests.
    pub const ZERO: Self = Self(0);
    /// All of the requests.
    pub const ALL: Self = Self(100);

    /// The share as a number, 0 to 100.
    pub const fn get(self) -> u8 {
        self.0
    }
}

impl TryFrom<u8> for Percent {
    type Error = Invalid;

    fn try_from(share: u8) -> Result<Self, Invalid> {
        match share {
            0..=100 => Ok(Self(share)),
            _ => Err(Invalid::plain("a share is 0 to 100 percent")),
        }
    }
}

impl FromStr for Percent {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let number = text.strip_suffix('%').unwrap_or(text);
        if number.is_empty() || !number.bytes().all(|b| b.is_ascii_digit()) {
            return Err(Invalid::new(
                "not a share",
                "a whole number of percent, such as \"25%\"",
            ));
        }
        Self::try_from(number.parse().unwrap_or(u8::MAX))
    }
}

impl Digest {
    /// From the hash itself.
    pub const fn from_bytes(hash: [u8; 32]) -> Self {
        Self(hash)
    }

    /// The hash itself.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The first 12 hex digits: enough for people and for labels.
    pub fn short(&self) -> String {
        let mut hex = self.to_string();
        hex.truncate(12);
        hex
    }
}

impl FromStr for Digest {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let wrong = || Invalid::plain("not a digest: 64 lower-case hex digits are one");
        if text.len() != 64 {
            return Err(wrong());
        }
        let mut hash = [0; 32];
        for (byte, pair) in hash.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            for &digit in pair {
                let digit = match digit {
                    b'0'..=b'9' => digit - b'0',
                    b'a'..=b'f' => digit - b'a' + 10,
                    _ => return Err(wrong()),
                };
                *byte = *byte << 4 | digit;
            }
        }
        Ok(Self(hash))
    }
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Display for ReleaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}@{}", self.service.0, self.number))
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("slot {}", self.0))
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}%", self.0))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

// `Debug` as `Display`: these stand in logs and in failed assertions, where the wrapping is noise.
impl fmt::Debug for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Debug for ReleaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl AsRef<str> for ServiceName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

// Sound: equality, order and hash are those of the text.
impl Borrow<str> for ServiceName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl PartialEq<str> for ServiceName {
    fn eq(&self, other: &str) -> bool {
        *self.0 == *other
    }
}

impl PartialEq<&str> for ServiceName {
    fn eq(&self, other: &&str) -> bool {
        *self.0 == **other
    }
}

form::as_text!(ServiceName, "a service name");
form::as_text!(ReleaseId, "a release such as \"web@7\"");
form::as_text!(Digest, "64 lower-case hex digits");

impl Serialize for Percent {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        out.serialize_u8(self.0)
    }
}

impl<'de> Deserialize<'de> for Percent {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = Percent;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a share of 0 to 100 percent")
            }

            fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<Percent, E> {
                Percent::try_from(u8::try_from(number).unwrap_or(u8::MAX)).map_err(E::custom)
            }

            fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<Percent, E> {
                self.visit_u64(u64::try_from(number).unwrap_or(u64::MAX))
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Percent, E> {
                text.parse().map_err(E::custom)
            }
        }
        from.deserialize_any(Visitor)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use std::collections::BTreeMap;

    use proptest::prelude::{any, prop_assert_eq, proptest};

    use super::{Digest, Percent, ReleaseId, ServiceName, Slot};

    #[test]
    fn a_service_name_is_short_and_plain() {
        let longest = "a".repeat(63);
        for good in ["a", "0", "web", "api-2", "x-", "7up", &longest] {
            assert_eq!(good.parse::<ServiceName>().unwrap().as_str(), good);
        }
        let too_long = "a".repeat(64);
        for bad in [
            "", "-web", "Web", "w_b", "web.", "wéb", "a b", "a@1", "../a", &too_long,
        ] {
            assert!(bad.parse::<ServiceName>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_release_is_written_in_one_way_only() {
        let id: ReleaseId = "web@7".parse().unwrap();
        assert_eq!((id.service.as_str(), id.number), ("web", 7));
        for bad in [
            "web", "web@", "@7", "web@0", "web@07", "web@+7", "web@-1", "web@7 ", "web@7@7",
        ] {
            assert!(bad.parse::<ReleaseId>().is_err(), "{bad:?}");
        }
        assert!("web@4294967296".parse::<ReleaseId>().is_err());
    }

    #[test]
    fn a_share_is_at_most_all() {
        assert_eq!("100%".parse(), Ok(Percent::ALL));
        assert_eq!("0".parse(), Ok(Percent::ZERO));
        assert_eq!(
            serde_json::from_str::<Percent>("25").unwrap().to_string(),
            "25%"
        );
        assert_eq!(
            serde_json::from_str::<Percent>("\"25%\"").unwrap().get(),
            25
        );
        for bad in [
            "",
            "%",
            "101",
            "300",
            "1.5",
            "-1",
            "+1",
            "1e1",
            "99999999999999999999",
        ] {
            assert!(bad.parse::<Percent>().is_err(), "{bad:?}");
        }
        for bad in ["101", "-1", "1.5", "300", "null", "[]"] {
            assert!(serde_json::from_str::<Percent>(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_digest_is_64_lower_case_hex_digits() {
        let zeros = "0".repeat(64);
        assert_eq!(zeros.parse(), Ok(Digest::from_bytes([0; 32])));
        let (upper, short, wide) = ("A".repeat(64), "0".repeat(63), "é".repeat(32));
        for bad in [&upper, &short, &wide, "", &format!("{zeros}0")] {
            assert!(bad.parse::<Digest>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn names_keep_their_column_in_a_table() {
        let name: ServiceName = "web".parse().unwrap();
        assert_eq!(format!("[{name:<5}] [{:>7}]", Slot(3)), "[web  ] [ slot 3]");
        let services = BTreeMap::from([(name, 1)]);
        assert_eq!(services.get("web"), Some(&1));
    }

    proptest! {
        #[test]
        fn every_name_is_read_back_from_what_it_displays(
            name in "[a-z0-9][a-z0-9-]{0,62}", number in 1u32.., hash in any::<[u8; 32]>(), share in 0u8..=100
        ) {
            let service: ServiceName = name.parse().unwrap();
            let release = ReleaseId { service: service.clone(), number };
            let (digest, share) = (Digest::from_bytes(hash), Percent::try_from(share).unwrap());
            prop_assert_eq!(&service.to_string(), &name);
            prop_assert_eq!(release.to_string().parse(), Ok(release.clone()));
            prop_assert_eq!(digest.to_string().parse(), Ok(digest));
            prop_assert_eq!(share.to_string().parse(), Ok(share));
            assert!(digest.to_string().starts_with(&digest.short()) && digest.short().len() == 12);

            let whole = (service, release, digest, share, Slot(number));
            let json = serde_json::to_string(&whole).unwrap();
            prop_assert_eq!(serde_json::from_str::<(_, _, _, _, _)>(&json).unwrap(), whole);
        }
    }
}
