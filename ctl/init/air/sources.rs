//! What of a project counts as source for air, in patterns of `.gitignore`.

use super::super::draft::{Draft, Row, Service};
use super::super::fields::{Fields, Said};
use super::super::project::{Project, tidy};
use crate::fault::Fault;

/// What air takes where nothing is said.
const EXTENSIONS: [&str; 4] = ["go", "tpl", "tmpl", "html"];
const LEFT_OUT: [&str; 4] = ["assets", "tmp", "vendor", "testdata"];
const NOT_OF_TESTS: &str = "_test.go";
const TMP: &str = "tmp";

/// Where air is started, and which folder below that it watches.
#[derive(Debug)]
pub struct Place {
    /// The folder of the sources, as the configuration names it.
    pub folder: String,
    /// The folder below that; `.` for all of it.
    below: String,
}

impl Place {
    /// A root that lies elsewhere is where everything happens.
    pub fn of(root: Option<&Said<String>>, project: &Project) -> Self {
        let root = root.map_or(".", |said| said.value.as_str());
        match project.inside(root) {
            Some(below) => Self {
                folder: project.path("."),
                below,
            },
            None => Self {
                folder: project.path(root),
                below: ".".into(),
            },
        }
    }

    /// A path that air takes from its root, as it is from the folder of the sources.
    pub fn own(&self, path: &str) -> String {
        match self.below.as_str() {
            "." => tidy(path),
            below => tidy(&format!("{below}/{path}")),
        }
    }

    /// The same as a pattern; none for what lies outside.
    pub fn pattern(&self, path: &str) -> Option<String> {
        let path = path.trim();
        let own = self.own(path);
        match path.starts_with('/') || own.starts_with("..") || own == "." {
            true => None,
            false => Some(format!("/{own}")),
        }
    }
}

/// What is watched, and what is not.
pub fn rows(
    fields: &mut Fields,
    place: &Place,
    tmp: Option<&Said<String>>,
    service: &mut Service,
    draft: &mut Draft,
) -> Result<(), Fault> {
    watched(fields, place, service, draft)?;
    ignored(fields, place, tmp, service, draft)
}

fn watched(
    fields: &mut Fields,
    place: &Place,
    service: &mut Service,
    draft: &mut Draft,
) -> Result<(), Fault> {
    let extensions = fields.list("build.include_ext")?;
    let folders = fields.list("build.include_dir")?;
    let files = fields.list("build.include_file")?;
    let mut why = Vec::new();
    let endings: Vec<String> = match &extensions {
        Some(said) => {
            why.push(said.from());
            let trimmed = said.value.iter();
            trimmed
                .map(|one| one.trim().trim_start_matches('.').to_owned())
                .filter(|one| !one.is_empty())
                .collect()
        }
        None => {
            why.push("What air takes where build.include_ext is left out.".into());
            EXTENSIONS.map(ToOwned::to_owned).into()
        }
    };
    let all = endings.iter().any(|one| one == "*");
    let mut within = Vec::new();
    for said in folders.iter().filter(|said| !said.value.is_empty()) {
        why.push(said.from());
        for folder in &said.value {
            match (place.pattern(folder), tidy(folder) == ".") {
                (Some(pattern), _) => within.push(pattern),
                (None, true) => within.push(String::new()),
                (None, false) => draft.unmapped.push(said.unmapped(
                    folder,
                    "it lies outside of the folder that is watched, and only that is",
                )),
            }
        }
    }
    if within.is_empty() && place.below != "." {
        within.push(format!("/{}", place.below));
    }
    let mut patterns = Vec::new();
    match (all, within.is_empty()) {
        // No list at all: everything.
        (true, true) => {}
        (true, false) => patterns.extend(within.iter().map(|folder| format!("{folder}/**"))),
        (false, true) => patterns.extend(endings.iter().map(|one| format!("*.{one}"))),
        (false, false) => patterns.extend(within.iter().flat_map(|folder| {
            let of_folder = |one: &String| match folder.is_empty() {
                true => format!("*.{one}"),
                false => format!("{folder}/**/*.{one}"),
            };
            endings.iter().map(of_folder).collect::<Vec<_>>()
        })),
    }
    let everything = patterns.is_empty();
    for said in files.iter().filter(|said| !said.value.is_empty()) {
        why.push(said.from());
        if !everything {
            patterns.extend(said.value.iter().filter_map(|file| place.pattern(file)));
        }
    }
    if !patterns.is_empty() {
        service
            .build
            .push(Row::list("watch", &patterns, why.join(" ")));
    }
    Ok(())
}

fn ignored(
    fields: &mut Fields,
    place: &Place,
    tmp: Option<&Said<String>>,
    service: &mut Service,
    draft: &mut Draft,
) -> Result<(), Fault> {
    let mut patterns = vec![".*/".to_owned()];
    let mut why = vec!["Hidden folders, which air does not look into.".to_owned()];
    let mut add = |pattern: Option<String>| match pattern {
        Some(pattern) if !patterns.contains(&pattern) => {
            patterns.push(pattern);
            true
        }
        Some(_) => true,
        None => false,
    };
    if let Some(tmp) = tmp {
        why.push(tmp.from());
    }
    let tmp = tmp.map_or(TMP, |said| said.value.as_str());
    add(place.pattern(tmp));
    if let Some(said) = fields.text("testdata_dir")? {
        why.push(said.from());
        add(place.pattern(&said.value));
    }
    match fields.list("build.exclude_dir")? {
        Some(said) => {
            why.push(said.from());
            for folder in &said.value {
                if !add(place.pattern(folder)) {
                    let reason = "it lies outside of the folder that is watched";
                    draft.unmapped.push(said.unmapped(folder, reason));
                }
            }
        }
        None => {
            why.push("What air leaves out by itself.".into());
            for folder in LEFT_OUT {
                add(place.pattern(folder));
            }
        }
    }
    if let Some(said) = fields.list("build.exclude_file")?
        && !said.value.is_empty()
    {
        why.push(said.from());
        for file in &said.value {
            if !add(place.pattern(file)) {
                let reason = "it lies outside of the folder that is watched";
                draft.unmapped.push(said.unmapped(file, reason));
            }
        }
    }
    match fields.list("build.exclude_regex")? {
        Some(said) => {
            why.push(said.from());
            for regex in &said.value {
                if !add(of_regex(regex)) {
                    let reason = "not a regular expression that a pattern of .gitignore can say; \
                                  add one to build.ignore";
                    draft.unmapped.push(said.unmapped(regex, reason));
                }
            }
        }
        None => {
            add(of_regex(NOT_OF_TESTS));
        }
    }
    service
        .build
        .push(Row::list("ignore", &patterns, why.join(" ")));
    Ok(())
}

/// The pattern for a simple regular expression, which is searched for anywhere in a path: letters, and
/// `.*` for anything. A bare `.` is taken for the letter, as it is meant.
fn of_regex(regex: &str) -> Option<String> {
    let (body, ends) = match regex.strip_suffix('$') {
        Some(body) => (body, true),
        None => (regex, false),
    };
    let mut pattern = String::from("*");
    let mut letters = body.chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            '\\' => match letters.next()? {
                escaped @ ('.' | '-' | '_') => pattern.push(escaped),
                _ => return None,
            },
            '.' if letters.peek() == Some(&'*') => {
                letters.next();
                pattern.push('*');
            }
            '.' => pattern.push('.'),
            _ if letter.is_ascii_alphanumeric() || "_- ".contains(letter) => pattern.push(letter),
            _ => return None,
        }
    }
    // "_test.go" is meant to be an end as well.
    let is_ending = pattern.rsplit_once('.').is_some_and(|(_, ending)| {
        !ending.is_empty() && ending.chars().all(|c| c.is_ascii_alphanumeric())
    });
    if !ends && !is_ending {
        pattern.push('*');
    }
    while pattern.contains("**") {
        pattern = pattern.replace("**", "*");
    }
    (pattern != "*").then_some(pattern)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn a_simple_regular_expression_is_a_pattern() {
        let cases = [
            ("_test.go", Some("*_test.go")),
            ("_test\\.go", Some("*_test.go")),
            ("_templ\\.go$", Some("*_templ.go")),
            (".*_templ.go", Some("*_templ.go")),
            ("_gen", Some("*_gen*")),
            ("mock.*\\.go$", Some("*mock*.go")),
            ("^internal/", None),
            ("(a|b)\\.go", None),
            ("[ab]\\.go", None),
            (".*", None),
            ("", None),
        ];
        for (regex, pattern) in cases {
            assert_eq!(of_regex(regex).as_deref(), pattern, "{regex}");
        }
    }
}
