//! Where the file of another tool stands, as what is written sees it, and what lies beside it.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Component, Path, PathBuf};

/// The folder of a file of another tool.
#[derive(Debug, Clone)]
pub struct Project {
    /// As this process sees it.
    here: PathBuf,
    /// As the configuration names it: relative to its own folder where it lies within that.
    named: PathBuf,
}

/// A file of variables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EnvFile {
    /// hotctl takes it as it is.
    Good,
    /// Other users can read it, so that hotctl refuses it.
    Open,
}

impl Project {
    /// Of the file `from`, for a configuration at `path`.
    pub fn of(from: &Path, path: &Path) -> Self {
        let folder = |file: &Path| match file.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
            _ => PathBuf::from("."),
        };
        let mut here = folder(from);
        // air looks there, too, and starts beside it.
        if here.file_name().is_some_and(|name| name == ".config") {
            here = folder(&here);
        }
        let whole = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
        let (own, its) = (whole(&folder(path)), whole(&here));
        let named = match its.strip_prefix(&own) {
            Ok(inside) if inside.as_os_str().is_empty() => PathBuf::from("."),
            Ok(inside) => inside.to_owned(),
            Err(_) => its,
        };
        Self { here, named }
    }

    /// A path of the project as the configuration names it.
    pub fn path(&self, inside: &str) -> String {
        let path = tidy(inside);
        if Path::new(&path).is_absolute() {
            return path;
        }
        tidy(&self.named.join(path).display().to_string())
    }

    /// As this process sees it.
    pub fn file(&self, inside: &str) -> PathBuf {
        self.here.join(inside)
    }

    /// A file of variables in it, if it is there.
    pub fn env_file(&self, name: &str) -> Option<EnvFile> {
        let meta = fs::metadata(self.file(name)).ok()?;
        let is_open = meta.permissions().mode() & 0o007 != 0;
        meta.is_file().then_some(match is_open {
            true => EnvFile::Open,
            false => EnvFile::Good,
        })
    }

    /// The name that a path within the project has there, whichever way it is written; none for one
    /// outside.
    pub fn inside(&self, path: &str) -> Option<String> {
        let tidied = tidy(path);
        let inside = match Path::new(&tidied).is_absolute() {
            true => {
                let root = self.here.canonicalize().ok()?;
                Path::new(&tidied).strip_prefix(root).ok()?.to_owned()
            }
            false => PathBuf::from(&tidied),
        };
        let goes_out = inside.components().next() == Some(Component::ParentDir);
        (!goes_out).then(|| tidy(&inside.display().to_string()))
    }
}

impl EnvFile {
    /// What is to be said of it.
    pub fn note(self, name: &str) -> String {
        match self {
            Self::Good => String::new(),
            Self::Open => {
                format!(" Other users can read it, and hotctl takes none such: chmod o= {name}")
            }
        }
    }
}

/// Without `./`, and without `..` where that is possible; `.` for nothing.
pub fn tidy(path: &str) -> String {
    let mut parts: Vec<Component<'_>> = Vec::new();
    for part in Path::new(path.trim()).components() {
        match (part, parts.last()) {
            (Component::CurDir, _) => {}
            (Component::ParentDir, Some(Component::Normal(_))) => {
                parts.pop();
            }
            _ => parts.push(part),
        }
    }
    match parts.is_empty() {
        true => ".".into(),
        false => parts.iter().collect::<PathBuf>().display().to_string(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn a_project_is_named_from_where_the_configuration_stands() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        fs::create_dir_all(root.join("shop/.config")).unwrap();
        let named = |from: &str, path: &str| {
            let project = Project::of(&root.join(from), &root.join(path));
            project.path("./bin/app")
        };
        assert_eq!(named("shop/Procfile", "shop/hotctl.toml"), "bin/app");
        assert_eq!(
            named("shop/.config/air.toml", "shop/hotctl.toml"),
            "bin/app"
        );
        assert_eq!(named("shop/Procfile", "hotctl.toml"), "shop/bin/app");
        let outside = root.join("bin/app").display().to_string();
        assert_eq!(named("Procfile", "shop/hotctl.toml"), outside);
    }

    #[test]
    fn a_path_is_tidied() {
        for (path, tidied) in [
            ("./a//b/", "a/b"),
            (".", "."),
            ("", "."),
            ("a/../b", "b"),
            ("../a", "../a"),
            ("/tmp/./x", "/tmp/x"),
        ] {
            assert_eq!(tidy(path), tidied, "{path}");
        }
    }
}
