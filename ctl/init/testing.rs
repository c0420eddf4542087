//! For tests: what comes of files of other tools, read back as `hotctl check` reads it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::path::Path;

use hotctl_config::file::{Build, Service};
use hotctl_config::{Config, Format};

use super::{checked, draft};
use crate::fault::Fault;

/// A configuration that was made.
#[derive(Debug)]
pub struct Made {
    pub text: String,
    pub config: Config,
    /// What has no equivalent: setting, value, and reason.
    pub unmapped: Vec<String>,
}

/// Made of the last of these files, in a folder with all of them.
pub fn made(files: &[(&str, &str)]) -> Result<Made, Fault> {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let (name, _) = files.last().unwrap();
    let from = folder.path().join(name);
    let path = folder.path().join("hotctl.toml");
    let shown = from.display().to_string();
    let bare = |text: &str| text.replace(&shown, name);
    let draft = draft(&from, &path).map_err(|fault| Fault {
        text: bare(&fault.text),
        ..fault
    })?;
    let text = bare(&checked(&draft, &path)?);
    // So that relative paths come back as they were written.
    let config = hotctl_config::parse(&text, Format::Toml, Path::new("/x/hotctl.toml")).unwrap();
    let unmapped = draft.unmapped.iter();
    Ok(Made {
        config,
        unmapped: unmapped.map(|it| bare(&it.to_string())).collect(),
        text,
    })
}

impl Made {
    pub fn service(&self, name: &str) -> &Service {
        &self.config.services[name]
    }

    pub fn build(&self) -> &Build {
        &self.service("app").build
    }

    pub fn port(&self) -> u16 {
        self.config.listen[0].address.port()
    }

    /// All that has no equivalent is at the end of the text.
    pub fn lost(&self, fields: &[&str]) {
        let lost: Vec<&str> = self
            .unmapped
            .iter()
            .filter_map(|it| it.split(": ").nth(1)?.split(" = ").next())
            .collect();
        assert_eq!(lost, fields, "{}", self.text);
        let (_, end) = self.text.split_once("no equivalent").unwrap_or_default();
        let end: String = end.replace("\n#", "");
        for unmapped in &self.unmapped {
            let squeezed: Vec<&str> = unmapped.split_whitespace().collect();
            let end: Vec<&str> = end.split_whitespace().collect();
            assert!(
                end.join(" ").contains(&squeezed.join(" ")),
                "{unmapped}\n{}",
                self.text
            );
        }
    }
}
