//! The way to what is watched: every link on it, and the folders in which they lie. A watch on a
//! folder does not see that a link to it, or it itself, was swapped for another.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Component, Path, PathBuf};

/// How many links are followed; as many as the system does.
const LINKS: usize = 40;

/// Where a path leads now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Route {
    /// Where it ends, without links; none if that is not there.
    pub end: Option<PathBuf>,
    /// Folders to watch for what would lead it elsewhere.
    pub folders: BTreeSet<PathBuf>,
    /// What would, in these folders.
    pub names: BTreeSet<PathBuf>,
}

impl Route {
    /// Of an absolute path.
    pub fn to(path: &Path) -> Self {
        let mut route = Self::default();
        let mut links = 0;
        let mut at = PathBuf::from("/");
        let mut rest: Vec<PathBuf> = parts(path);
        rest.reverse();
        while let Some(part) = rest.pop() {
            if part.as_os_str() == ".." {
                at.pop();
                continue;
            }
            let next = at.join(&part);
            let meta = fs::symlink_metadata(&next);
            let is_last = rest.is_empty();
            match meta {
                Ok(meta) if meta.is_symlink() && links < LINKS => {
                    links += 1;
                    route.look(&at, &next);
                    let Ok(target) = fs::read_link(&next) else {
                        return route;
                    };
                    if target.is_absolute() {
                        at = PathBuf::from("/");
                    }
                    rest.extend(parts(&target).into_iter().rev());
                }
                Ok(meta) if !meta.is_symlink() => {
                    if is_last {
                        route.look(&at, &next);
                    }
                    at = next;
                }
                // Not there yet, or in a circle.
                _ => {
                    route.look(&at, &next);
                    return route;
                }
            }
        }
        route.end = Some(at);
        route
    }

    /// Watch this folder for this name in it, too.
    pub fn look(&mut self, folder: &Path, name: &Path) {
        self.folders.insert(folder.to_path_buf());
        self.names.insert(name.to_path_buf());
    }
}

fn parts(path: &Path) -> Vec<PathBuf> {
    let parts = path.components().filter_map(|part| match part {
        Component::Normal(name) => Some(PathBuf::from(name)),
        Component::ParentDir => Some(PathBuf::from("..")),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    });
    parts.collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use std::os::unix::fs::symlink;

    use super::*;

    fn set(paths: &[&Path]) -> BTreeSet<PathBuf> {
        paths.iter().map(|path| path.to_path_buf()).collect()
    }

    #[test]
    fn the_way_through_links_is_known_with_every_folder_that_could_change_it() {
        let temp = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(temp.path()).unwrap();
        fs::create_dir_all(root.join("releases/7/bin")).unwrap();
        symlink("releases/7", root.join("current")).unwrap();
        symlink(root.join("current"), root.join("app")).unwrap();
        let route = Route::to(&root.join("app/bin"));
        let end = root.join("releases/7/bin");
        assert_eq!(route.end.as_deref(), Some(&*end));
        assert_eq!(route.folders, set(&[&root, &root.join("releases/7")]));
        assert_eq!(
            route.names,
            set(&[&root.join("app"), &root.join("current"), &end])
        );
    }

    #[test]
    fn what_is_not_there_is_waited_for_in_the_nearest_folder() {
        let temp = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(temp.path()).unwrap();
        let route = Route::to(&root.join("build/out/app"));
        assert_eq!(route.end, None);
        assert_eq!(route.folders, set(&[&root]));
        assert_eq!(route.names, set(&[&root.join("build")]));
        symlink("round", root.join("round")).unwrap();
        assert_eq!(Route::to(&root.join("round")).end, None);
    }
}
