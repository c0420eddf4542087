//! Finding, reading and parsing the configuration file.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use crate::check::check;
use crate::error::{Problem, Problems};
use crate::file::{Config, Listen, Service};

/// The commented file that `hotctl init` writes.
pub const EXAMPLE: &str = "";

/// The two ways to write a configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// TOML.
    Toml,
    /// JSON, with the same names.
    Json,
}

/// Reads a file.
pub fn read(path: &Path) -> Result<Config, Problems> {
    let format = if path.extension().is_some_and(|e| e == "json") {
        Format::Json
    } else {
        Format::Toml
    };
    let text = std::fs::read_to_string(path).map_err(|error| whole(path, error))?;
    parse(&text, format, path)
}

/// Parses a text.
pub fn parse(text: &str, format: Format, origin: &Path) -> Result<Config, Problems> {
    let config: Config = match format {
        Format::Toml => toml::from_str(text).map_err(|error| whole(origin, error))?,
        Format::Json => serde_json::from_str(text).map_err(|error| whole(origin, error))?,
    };
    let problems = check(&config);
    if problems.is_empty() {
        Ok(config)
    } else {
        Err(Problems(problems))
    }
}

/// Finds the file.
pub fn find(explicit: Option<&Path>) -> Result<Option<PathBuf>, Problems> {
    let known = ["hotctl.toml", "/etc/hotctl/hotctl.toml"];
    Ok(explicit
        .map(PathBuf::from)
        .or_else(|| known.iter().map(PathBuf::from).find(|path| path.exists())))
}

/// No file at all: one service `app` that takes every request.
pub fn single(listen: SocketAddr) -> Config {
    let mut config = Config {
        listen: vec![Listen { address: listen }],
        ..Config::default()
    };
    config
        .services
        .extend("app".parse().map(|name| (name, Service::default())));
    config
}

fn whole(file: &Path, error: impl ToString) -> Problems {
    Problem {
        file: file.into(),
        line: None,
        field: String::new(),
        value: None,
        reason: error.to_string(),
        hint: None,
    }
    .into()
}
