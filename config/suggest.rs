//! What the operator probably meant by a name that is not known. Pure.

/// The known name that is nearest, if one is near: `timout` is `timeout`, `startTimeout` is
/// `start_timeout`. Letters swapped, left out, put in or changed count one each, and about one in
/// three letters may be wrong.
pub fn nearest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    let word = plain(word);
    let allowed = (word.len() / 3).max(1);
    known
        .iter()
        .map(|name| (distance(&word, &plain(name)), *name))
        // A name that shares no letter in its place is no guess: `x` is not `y`.
        .filter(|(far, name)| *far <= allowed && *far < name.len())
        .min_by_key(|(far, _)| *far)
        .map(|(_, name)| name)
}

/// Words in a row for people: `"http" or "tcp"`.
pub fn listed(words: &[&str]) -> String {
    let quoted: Vec<_> = words.iter().map(|word| format!("{word:?}")).collect();
    match quoted.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, rest)) => format!("{} or {last}", rest.join(", ")),
        None => String::new(),
    }
}

/// Without case and the ways to join words.
fn plain(word: &str) -> Vec<char> {
    // Names are short: more than this is no slip of one, and the distance is quadratic.
    let letters = word.chars().filter(|c| !matches!(c, '_' | '-' | ' '));
    letters.take(64).map(|c| c.to_ascii_lowercase()).collect()
}

/// How many letters must be put in, left out, changed or swapped with their neighbour.
fn distance(a: &[char], b: &[char]) -> usize {
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, y) in b.iter().enumerate() {
            let mut far = (last[j] + usize::from(x != y))
                .min(last[j + 1] + 1)
                .min(row[j] + 1);
            if i > 0 && j > 0 && a[i - 1] == *y && b[j - 1] == *x {
                far = far.min(before[j - 1] + 1);
            }
            row.push(far);
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::{listed, nearest};

    #[test]
    fn a_slip_finds_the_name_that_was_meant() {
        let known = [
            "health",
            "hosts",
            "keep_warm",
            "paths",
            "run",
            "start_timeout",
            "stop_timeout",
        ];
        for (word, meant) in [
            ("host", Some("hosts")),
            ("helath", Some("health")),
            ("startTimeout", Some("start_timeout")),
            ("start-timeout", Some("start_timeout")),
            ("stop_timout", Some("stop_timeout")),
            ("Run", Some("run")),
            ("rnu", Some("run")),
            ("keepwarm", Some("keep_warm")),
            ("command", None),
            ("x", None),
            ("", None),
        ] {
            assert_eq!(nearest(word, &known), meant, "{word:?}");
        }
    }

    #[test]
    fn words_are_listed_for_people() {
        assert_eq!(listed(&["http", "tcp"]), r#""http" or "tcp""#);
        assert_eq!(
            listed(&["require", "warn", "off"]),
            r#""require", "warn" or "off""#
        );
    }
}
