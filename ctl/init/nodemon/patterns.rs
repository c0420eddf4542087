//! What nodemon watches and ignores, as patterns of `.gitignore`. Pure, but that it looks whether a path
//! is a folder.

use super::super::project::{Project, tidy};

/// Why something is not among the patterns.
pub const REASON: &str = "not a path within the folder, or not one that a pattern of .gitignore can say; \
     add one to [service.app.build]";

/// The endings of files: of `"js, ts"`, `"*.ts"`, `".mjs"`.
pub fn endings(said: &[String]) -> Vec<String> {
    let words = said.iter().flat_map(|one| one.split([',', '*', ' ', '\t']));
    let bare = words.map(|word| word.trim_start_matches('.').to_owned());
    bare.filter(|word| !word.is_empty()).collect()
}

/// What one entry of `watch` is: a folder with all below of these endings, a file, or a pattern. None for
/// what cannot be said.
pub fn watched(entry: &str, endings: &[String], project: &Project) -> Option<Vec<String>> {
    let mut found = Vec::new();
    for entry in expanded(entry)? {
        let path = within(&entry, project)?;
        let of_folder = |folder: &str| {
            let patterns = endings.iter().map(|ending| match folder {
                "" | "." => format!("*.{ending}"),
                folder if folder.starts_with("**/") => format!("{folder}/**/*.{ending}"),
                folder => format!("/{folder}/**/*.{ending}"),
            });
            patterns.collect::<Vec<_>>()
        };
        let (folder, last) = path.rsplit_once('/').unwrap_or(("", &path));
        let is_pattern = path.contains(['*', '?', '[']);
        if path == "." || matches!(path.as_str(), "*.*" | "**/*.*") {
            found.extend(of_folder("."));
        } else if matches!(last, "*" | "**") {
            // All below, in any depth.
            found.extend(of_folder(
                folder.trim_end_matches("/**").trim_end_matches("**"),
            ));
        } else if is_pattern {
            found.push(anchored(&path));
        } else if entry.ends_with('/') || is_folder(&path, project) {
            found.extend(of_folder(&path));
        } else {
            found.push(format!("/{path}"));
        }
    }
    Some(found)
}

/// What one entry of `ignore` is. None for what cannot be said.
pub fn ignored(entry: &str, project: &Project) -> Option<Vec<String>> {
    let mut found = Vec::new();
    for entry in expanded(entry)? {
        let path = within(&entry, project)?;
        if path == "." {
            return None;
        }
        let slash = if entry.ends_with('/') { "/" } else { "" };
        let pattern = anchored(&path);
        found.push(match pattern.strip_prefix('#') {
            // Else it would be a comment.
            Some(rest) => format!("\\#{rest}{slash}"),
            None => format!("{pattern}{slash}"),
        });
    }
    Some(found)
}

/// A path with a folder in it begins at the root; a bare name is one anywhere.
fn anchored(path: &str) -> String {
    match path.contains('/') && !path.starts_with("**/") {
        true => format!("/{path}"),
        false => path.to_owned(),
    }
}

/// The path within the project.
fn within(entry: &str, project: &Project) -> Option<String> {
    let path = project.inside(entry)?;
    // `+(a|b)` and `!(a)`.
    (!path.contains(['(', ')', '|', '\\', '\n'])).then_some(path)
}

fn is_folder(path: &str, project: &Project) -> bool {
    match std::fs::metadata(project.file(path)) {
        Ok(meta) => meta.is_dir(),
        Err(_) => !tidy(path)
            .rsplit('/')
            .next()
            .unwrap_or_default()
            .contains('.'),
    }
}

/// Without `{a,b}`, which `.gitignore` does not know.
fn expanded(entry: &str) -> Option<Vec<String>> {
    /// No list of patterns is longer.
    const MOST: usize = 64;
    let mut done = Vec::new();
    let mut open = vec![entry.trim().to_owned()];
    while let Some(one) = open.pop() {
        if done.len() + open.len() > MOST {
            return None;
        }
        // The innermost first.
        let inner = one.find('}').and_then(|close| {
            let begin = one.get(..close)?.rfind('{')?;
            Some((begin, close))
        });
        let Some((begin, close)) = inner else {
            if one.contains(['{', '}']) {
                return None;
            }
            done.push(one);
            continue;
        };
        let (before, after) = (one.get(..begin)?, one.get(close + 1..)?);
        let choices: Vec<&str> = one.get(begin + 1..close)?.split(',').collect();
        let choices = choices.iter().rev();
        open.extend(choices.map(|choice| format!("{before}{choice}{after}")));
    }
    Some(done)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use std::fs;

    use super::*;

    #[test]
    fn what_is_watched_and_ignored_is_said_in_patterns() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        fs::create_dir_all(root.join("src.d")).unwrap();
        let project = Project::of(&root.join("nodemon.json"), &root.join("hotctl.toml"));
        let endings = endings(&["ts, .js".into()]);
        let whole = root.join("src").display().to_string();
        let cases: [(&str, Option<&[&str]>); 16] = [
            (".", Some(&["*.ts", "*.js"])),
            ("*.*", Some(&["*.ts", "*.js"])),
            ("src", Some(&["/src/**/*.ts", "/src/**/*.js"])),
            ("./src/", Some(&["/src/**/*.ts", "/src/**/*.js"])),
            ("src/*", Some(&["/src/**/*.ts", "/src/**/*.js"])),
            ("src/**/*", Some(&["/src/**/*.ts", "/src/**/*.js"])),
            ("src.d", Some(&["/src.d/**/*.ts", "/src.d/**/*.js"])),
            (&whole, Some(&["/src/**/*.ts", "/src/**/*.js"])),
            ("src/**/*.ts", Some(&["/src/**/*.ts"])),
            (
                "src/**/*.{ts,tsx}",
                Some(&["/src/**/*.ts", "/src/**/*.tsx"]),
            ),
            ("*.graphql", Some(&["*.graphql"])),
            ("config/app.yaml", Some(&["/config/app.yaml"])),
            ("server.js", Some(&["/server.js"])),
            ("../shared", None),
            ("/etc", None),
            ("src/+(a|b).ts", None),
        ];
        for (entry, patterns) in cases {
            let found = watched(entry, &endings, &project);
            let patterns =
                patterns.map(|it| it.iter().map(ToString::to_string).collect::<Vec<_>>());
            assert_eq!(found, patterns, "{entry}");
        }
        let cases: [(&str, Option<&[&str]>); 9] = [
            ("*.test.js", Some(&["*.test.js"])),
            ("**/test/**", Some(&["**/test/**"])),
            ("src/**/*.spec.ts", Some(&["/src/**/*.spec.ts"])),
            ("./lib/app.js", Some(&["/lib/app.js"])),
            ("dist/", Some(&["dist/"])),
            (".git", Some(&[".git"])),
            ("#*#", Some(&["\\#*#"])),
            ("../x", None),
            ("a{b", None),
        ];
        for (entry, patterns) in cases {
            let found = ignored(entry, &project);
            let patterns =
                patterns.map(|it| it.iter().map(ToString::to_string).collect::<Vec<_>>());
            assert_eq!(found, patterns, "{entry}");
        }
    }
}
