//! Times and sizes as people write them: `30s`, `1m30s`, `250ms`, `64MiB`. Pure.

use std::time::Duration;

/// Units of time, largest first, in nanoseconds.
const TIMES: [(&str, u128); 7] = [
    ("d", 86_400_000_000_000),
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("ns", 1),
];

/// Units of size, largest first, in bytes.
const SIZES: [(&str, u64); 5] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("B", 1),
];

/// The longest time that is read: 100 years. More is a slip, and would overflow the clock.
const LONGEST: Duration = Duration::from_secs(36_500 * 86_400);

/// Reads a time: whole numbers with a unit each (`d`, `h`, `m`, `s`, `ms`, `us`, `ns`), largest first
/// and without spaces: `30s`, `1m30s`, `250ms`. At most 100 years. `0s` is a time.
///
/// # Errors
/// The reason, without the text itself: `unknown unit "parsecs"`.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let mut rest = text;
    let mut sum: u128 = 0;
    let mut units = TIMES.iter();
    if rest.is_empty() {
        return Err("a time is empty".into());
    }
    while !rest.is_empty() {
        let (number, unit, after) = number_and_unit(rest)?;
        rest = after;
        if unit.is_empty() {
            return Err(format!("{number} has no unit"));
        }
        if !TIMES.iter().any(|(name, _)| *name == unit) {
            return Err(format!("unknown unit {unit:?}"));
        }
        // Going on from the unit before, so that each stands at most once and in order.
        let Some((_, size)) = units.find(|(name, _)| *name == unit) else {
            return Err(format!("{unit:?} stands after a unit that is not larger"));
        };
        sum = sum.saturating_add(size.saturating_mul(number.into()));
    }
    let whole = Duration::new(
        u64::try_from(sum / 1_000_000_000).unwrap_or(u64::MAX),
        (sum % 1_000_000_000) as u32,
    );
    match whole <= LONGEST {
        true => Ok(whole),
        false => Err("a time is at most 36500d".into()),
    }
}

/// Writes a time so that [`parse_duration`] reads exactly it back: in one unit (`90s`) or carried from
/// unit to unit (`1h1m1s`), whichever is shorter, and carried when they are equally long.
pub fn show_duration(time: Duration) -> String {
    let nanos = time.as_nanos();
    if nanos == 0 {
        return "0s".into();
    }
    let mut carried = String::new();
    let mut rest = nanos;
    for (unit, size) in TIMES {
        if rest >= size {
            carried += &format!("{}{unit}", rest / size);
            rest %= size;
        }
    }
    let single = TIMES
        .iter()
        .find(|(_, size)| nanos.is_multiple_of(*size))
        .map(|(unit, size)| format!("{}{unit}", nanos / size));
    match single {
        Some(single) if single.len() < carried.len() => single,
        _ => carried,
    }
}

/// A time for people, rounded to what they care for: `850 µs`, `412 ms`, `3.2 s`, `1 m 5 s`, `2 h 5 m`,
/// `3 d 4 h`.
pub fn brief(time: Duration) -> String {
    let nanos = time.as_nanos();
    // Each row: up to where (after rounding) it holds. So 999.96 ms is "1.0 s" and not "1000 ms".
    let tenths = |unit: u128| rounded(nanos, unit / 10);
    let wholes = |unit: u128| rounded(nanos, unit);
    let (us, ms, s, m, h) = (1_000, 1_000_000, 1_000_000_000, 60, 3_600);
    if nanos < us {
        return format!("{nanos} ns");
    }
    for (unit, name, one, many) in [
        (us, "µs", 10, 1_000),
        (ms, "ms", 10, 1_000),
        (s, "s", 60, 60),
    ] {
        if tenths(unit) < one * 10 {
            return format!("{}.{} {name}", tenths(unit) / 10, tenths(unit) % 10);
        }
        if wholes(unit) < many {
            return format!("{} {name}", wholes(unit));
        }
    }
    let two = |big: u128, big_name, small: u128, small_name| match small {
        0 => format!("{big} {big_name}"),
        _ => format!("{big} {big_name} {small} {small_name}"),
    };
    let seconds = wholes(s);
    if seconds < h {
        return two(seconds / m, "m", seconds % m, "s");
    }
    let minutes = rounded(seconds, m);
    if minutes < 24 * 60 {
        return two(minutes / 60, "h", minutes % 60, "m");
    }
    let hours = rounded(seconds, h);
    two(hours / 24, "d", hours % 24, "h")
}

/// Reads a size: a whole number with a unit (`B`, `KiB`, `MiB`, `GiB`, `TiB`), without spaces: `64MiB`.
///
/// # Errors
/// The reason, without the text itself.
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    if text.is_empty() {
        return Err("a size is empty".into());
    }
    let (number, unit, rest) = number_and_unit(text)?;
    if !rest.is_empty() {
        return Err(format!("{rest:?} stands after the unit"));
    }
    if unit.is_empty() {
        return Err(format!("{number} has no unit"));
    }
    let (_, size) = SIZES
        .iter()
        .find(|(name, _)| *name == unit)
        .ok_or_else(|| format!("unknown unit {unit:?}: B, KiB, MiB, GiB and TiB are known"))?;
    number
        .checked_mul(*size)
        .ok_or_else(|| "a size is below 16777216TiB".into())
}

/// Writes a size in the largest unit that is exact, so that [`parse_bytes`] reads it back.
pub fn show_bytes(bytes: u64) -> String {
    let fits = |(_, size): &&(&str, u64)| bytes >= *size && bytes.is_multiple_of(*size);
    let (unit, size) = SIZES.iter().find(fits).unwrap_or(&("B", 1));
    format!("{}{unit}", bytes / size)
}

/// Takes a whole number and the letters behind it off the front.
fn number_and_unit(text: &str) -> Result<(u64, &str, &str), String> {
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, rest) = text.split_at(digits);
    if number.is_empty() {
        return Err(match text.starts_with(['-', '+']) {
            true => "a sign where a number is due".into(),
            false => format!("{text:?} where a number is due"),
        });
    }
    if rest.starts_with(['.', ',']) {
        return Err("a fraction: only whole numbers are known".into());
    }
    let number = number
        .parse()
        .map_err(|_| format!("{number} is too large"))?;
    // A space belongs to the unit only in the message: `30 parsecs` is about the parsecs.
    let unit_end = rest
        .find(|c: char| c.is_ascii_digit())
        .unwrap_or(rest.len());
    let (unit, rest) = rest.split_at(unit_end);
    let word = unit.trim();
    if word.len() < unit.len() && TIMES.iter().any(|(name, _)| *name == word)
        || word.len() < unit.len() && SIZES.iter().any(|(name, _)| *name == word)
    {
        return Err(format!("a space at the unit {word:?}"));
    }
    Ok((number, word, rest))
}

/// Divides, rounding half up.
fn rounded(value: u128, unit: u128) -> u128 {
    (value + unit / 2) / unit
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use std::time::Duration;

    use proptest::prelude::{any, prop_assert_eq, proptest};

    use super::{LONGEST, brief, parse_bytes, parse_duration, show_bytes, show_duration};

    #[test]
    fn times_are_read_as_people_write_them() {
        for (text, millis) in [
            ("30s", 30_000),
            ("1m30s", 90_000),
            ("250ms", 250),
            ("1h", 3_600_000),
            ("2d", 172_800_000),
            ("90m", 5_400_000),
            ("1m90s", 150_000),
            ("1s500ms", 1_500),
            ("0s", 0),
        ] {
            assert_eq!(
                parse_duration(text),
                Ok(Duration::from_millis(millis)),
                "{text}"
            );
        }
    }

    #[test]
    fn a_time_that_is_none_says_why() {
        for (text, reason) in [
            ("", "a time is empty"),
            ("30", "30 has no unit"),
            ("1m30", "30 has no unit"),
            ("30 parsecs", "unknown unit \"parsecs\""),
            ("30S", "unknown unit \"S\""),
            ("30 s", "a space at the unit \"s\""),
            ("1m 30s", "a space at the unit \"m\""),
            ("30s ", "a space at the unit \"s\""),
            (" 30s", "\" 30s\" where a number is due"),
            ("-1s", "a sign where a number is due"),
            ("1.5s", "a fraction: only whole numbers are known"),
            ("30s1m", "\"m\" stands after a unit that is not larger"),
            ("1s1s", "\"s\" stands after a unit that is not larger"),
            ("s", "\"s\" where a number is due"),
            ("٣s", "\"٣s\" where a number is due"),
            ("36501d", "a time is at most 36500d"),
            ("99999999999999999999s", "99999999999999999999 is too large"),
            ("18446744073709551615d", "a time is at most 36500d"),
        ] {
            assert_eq!(parse_duration(text), Err(reason.into()), "{text:?}");
        }
    }

    #[test]
    fn times_are_shown_in_the_shorter_of_the_two_ways() {
        for (millis, shown) in [
            (0, "0s"),
            (250, "250ms"),
            (1_500, "1500ms"),
            (60_000, "1m"),
            (90_000, "90s"),
            (3_600_000, "1h"),
            (3_661_000, "3661s"),
            (5_400_000, "90m"),
            (86_400_000, "1d"),
        ] {
            assert_eq!(show_duration(Duration::from_millis(millis)), shown);
        }
        assert_eq!(show_duration(Duration::new(60, 1)), "1m1ns");
    }

    #[test]
    fn times_for_people_are_rounded_and_carried() {
        for (micros, shown) in [
            (0, "0 ns"),
            (3, "3.0 µs"),
            (850, "850 µs"),
            (1_000, "1.0 ms"),
            (4_240, "4.2 ms"),
            (412_000, "412 ms"),
            (999_960, "1.0 s"),
            (3_240_000, "3.2 s"),
            (59_900_000, "59.9 s"),
            (59_960_000, "1 m"),
            (65_000_000, "1 m 5 s"),
            (3_599_900_000, "1 h"),
            (7_500_000_000, "2 h 5 m"),
            (86_390_000_000, "1 d"),
            (273_600_000_000, "3 d 4 h"),
        ] {
            assert_eq!(brief(Duration::from_micros(micros)), shown, "{micros} µs");
        }
        assert_eq!(brief(Duration::from_nanos(850)), "850 ns");
        assert_eq!(brief(Duration::from_nanos(9_960)), "10 µs");
    }

    #[test]
    fn sizes_are_read_and_refused() {
        assert_eq!(parse_bytes("64MiB"), Ok(64 << 20));
        assert_eq!(parse_bytes("0B"), Ok(0));
        let overflow = "16777216TiB";
        for bad in [
            "", "64", "MiB", "64MB", "64 MiB", "1MiB5B", "-1B", "1.5KiB", overflow,
        ] {
            assert!(parse_bytes(bad).is_err(), "{bad:?}");
        }
        assert_eq!(show_bytes(1000), "1000B");
        assert_eq!(show_bytes(3 << 30), "3GiB");
    }

    proptest! {
        #[test]
        fn a_time_is_read_back_from_what_is_shown(
            secs in 0..LONGEST.as_secs(), nanos in 0u32..1_000_000_000, scale in 0u32..10
        ) {
            let coarse = 10u32.pow(scale);
            let time = Duration::new(secs, nanos / coarse * coarse);
            prop_assert_eq!(parse_duration(&show_duration(time)), Ok(time));
            prop_assert_eq!(parse_duration(&show_duration(time / coarse)), Ok(time / coarse));
        }

        #[test]
        fn a_size_is_read_back_from_what_is_shown(bytes in any::<u64>(), shift in 0u32..64) {
            let bytes = bytes >> shift << (shift / 2);
            prop_assert_eq!(parse_bytes(&show_bytes(bytes)), Ok(bytes));
        }

        #[test]
        fn no_text_is_too_odd_to_be_answered(text in any::<String>(), near in "[0-9.+ a-zµ-]{0,12}") {
            for text in [&text, &near] {
                let (time, size) = (parse_duration(text), parse_bytes(text));
                if let Ok(time) = time {
                    prop_assert_eq!(parse_duration(&show_duration(time)), Ok(time));
                }
                if let Ok(size) = size {
                    prop_assert_eq!(parse_bytes(&show_bytes(size)), Ok(size));
                }
            }
        }

        #[test]
        fn every_time_is_brief(nanos in 0..LONGEST.as_nanos() as u64, shift in 0u32..64) {
            let shown = brief(Duration::from_nanos(nanos >> shift));
            assert!(shown.chars().count() <= 12, "{shown}");
        }
    }
}
