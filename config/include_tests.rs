//! Tests of a configuration in several files.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::path::Path;

use tempfile::TempDir;

use crate::{AccessLog, Config, read};

const MAIN: &str = "include = \"conf.d\"\nlisten = [{ address = \"127.0.0.1:8080\" }]\n";

/// A folder with these files.
fn folder(files: &[(&str, &str)]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    folder
}

fn good(folder: &TempDir) -> Config {
    read(&folder.path().join("hotctl.toml")).unwrap()
}

/// What is wrong, with files named from the folder on.
#[track_caller]
fn wrong(files: &[(&str, &str)], expected: &[&str]) {
    let folder = folder(files);
    let problems = read(&folder.path().join("hotctl.toml")).expect_err("something is wrong");
    let text = problems.to_string().replace("\n  try: ", " -> ");
    let text = text.replace(&format!("{}/", folder.path().display()), "");
    assert_eq!(text.lines().collect::<Vec<_>>(), expected);
}

#[test]
fn services_stand_in_files_of_their_own() {
    let folder = folder(&[
        ("hotctl.toml", &format!("{MAIN}[service.web]\n")),
        ("conf.d/20-api.toml", "[service.api]\nhosts = [\"api\"]\n"),
        (
            "conf.d/10-zoo.json",
            r#"{ "service": { "zoo": { "hosts": ["zoo"], "env": { "A": "b" } } } }"#,
        ),
        ("conf.d/30-empty.toml", "# nothing yet\n"),
        ("conf.d/.20-api.toml.swp.toml", "= broken\n"),
        ("conf.d/20-api.toml~", "= broken\n"),
        ("conf.d/README", "= broken\n"),
    ]);
    let config = good(&folder);
    let names: Vec<_> = config.services.keys().map(|name| name.as_str()).collect();
    assert_eq!(names, ["api", "web", "zoo"]);
    assert_eq!(config.services["zoo"].env["A"], "b");
    // All of them may stand there.
    fs::write(folder.path().join("hotctl.toml"), MAIN).unwrap();
    assert_eq!(good(&folder).services.len(), 2);
}

#[test]
fn every_problem_names_its_own_file_and_line() {
    wrong(
        &[
            (
                "hotctl.toml",
                &format!("{MAIN}[service.web]\ninstances = 65\nnope = 1\n"),
            ),
            (
                "conf.d/a.toml",
                "\n[service.api]\nhosts = [\"api\"]\nrun = \"a b\"\ninstances = 100\n",
            ),
            (
                "conf.d/b.json",
                "{\n\"service\": {\n\"zoo\": { \"rnu\": [], \"hosts\": [\"zoo\"] } } }",
            ),
        ],
        &[
            "hotctl.toml:4: service.web.instances: 65: above 64 -> fewer processes, each with threads of its own",
            r#"hotctl.toml:5: service.web.nope: unknown field -> one of "hosts", "paths", "http", "overlap", "run", "strategy", "address", "ports", "instances", "env", "env_file", "workdir", "persist", "ignore", "before_start", "before_start_timeout", "on_live", "on_live_timeout", "health", "warmup", "warmup_timeout", "start_timeout", "drain", "stop_timeout", "keep_warm", "max_failures", "park", "crash_loop", "on_crash_loop", "recycle", "memory_max", "user", "group", "limits", "logs", "log_level", "keep_releases", "watch" or "build""#,
            r#"conf.d/a.toml:4: service.api.run: "a b": a string, where a list is due -> ["a", "b"]"#,
            "conf.d/a.toml:5: service.api.instances: 100: above 64 -> fewer processes, each with threads of its own",
            r#"conf.d/b.json:3: service.zoo.rnu: unknown field -> "run""#,
        ],
    );
}

#[test]
fn a_service_stands_in_one_file() {
    wrong(
        &[
            ("hotctl.toml", &format!("{MAIN}[service.web]\n")),
            ("conf.d/a.toml", "[service.api]\nhosts = [\"api\"]\n"),
            ("conf.d/b.toml", "\n[service.api]\n[service.web]\n"),
        ],
        &[
            "conf.d/b.toml:2: service.api: stands in conf.d/a.toml:1 too -> another name for one of the two",
            "conf.d/b.toml:3: service.web: stands in hotctl.toml:3 too -> another name for one of the two",
        ],
    );
}

#[test]
fn routes_are_compared_across_files() {
    wrong(
        &[
            ("hotctl.toml", MAIN),
            ("conf.d/a.toml", "[service.api]\nhosts = [\"x\"]\n"),
            (
                "conf.d/b.toml",
                "[service.zoo]\npaths = [\"/\"]\nhosts = [\"y\", \"x\"]\n",
            ),
        ],
        &[
            r#"conf.d/b.toml:3: service.zoo.hosts[1]: "x": path "/" of x belongs to service api already (conf.d/a.toml:2) -> other hosts or paths for one of the two"#,
        ],
    );
}

#[test]
fn an_included_file_holds_only_services() {
    wrong(
        &[
            ("hotctl.toml", MAIN),
            ("conf.d/a.toml", "threads = 2\n[[service]]\n[timeouts]\n"),
            ("conf.d/b.json", "[]"),
            ("conf.d/c.toml", "x = 5s\n"),
        ],
        &[
            "conf.d/a.toml:1: threads: an included file holds only services -> [service.NAME] tables here, the rest in hotctl.toml",
            "conf.d/a.toml:2: service: a list, where a table is due -> [service.NAME], with its name and single brackets",
            "conf.d/a.toml:3: timeouts: an included file holds only services -> [service.NAME] tables here, the rest in hotctl.toml",
            "conf.d/b.json: a list, where a table is due",
            r#"conf.d/c.toml:1: x = 5s: text must be in quotes -> x = "5s""#,
        ],
    );
}

#[test]
fn a_folder_that_is_not_there_is_told() {
    wrong(
        &[("hotctl.toml", &format!("{MAIN}[service.web]\nnope = 1\n"))],
        &[
            r#"hotctl.toml:1: include: "conf.d": cannot be read: No such file or directory (os error 2) -> make the folder, or leave it out"#,
            r#"hotctl.toml:4: service.web.nope: unknown field -> one of "hosts", "paths", "http", "overlap", "run", "strategy", "address", "ports", "instances", "env", "env_file", "workdir", "persist", "ignore", "before_start", "before_start_timeout", "on_live", "on_live_timeout", "health", "warmup", "warmup_timeout", "start_timeout", "drain", "stop_timeout", "keep_warm", "max_failures", "park", "crash_loop", "on_crash_loop", "recycle", "memory_max", "user", "group", "limits", "logs", "log_level", "keep_releases", "watch" or "build""#,
        ],
    );
    wrong(
        &[("hotctl.toml", MAIN), ("conf.d/README", "")],
        &["hotctl.toml:1: service: no service -> a table such as [service.web]"],
    );
}

#[test]
fn a_relative_path_begins_at_the_folder_of_its_file() {
    let paths = "env_file = \"web.env\"\nworkdir = \"../work\"\n";
    let folder = folder(&[
        (
            "hotctl.toml",
            &format!("access_log = \"access.log\"\n{MAIN}[service.web]\n{paths}"),
        ),
        (
            "conf.d/a.toml",
            &format!("[service.api]\nhosts = [\"api\"]\n{paths}"),
        ),
        (
            "conf.d/b.toml",
            "[service.zoo]\nhosts = [\"zoo\"]\nworkdir = \"/srv\"\n",
        ),
    ]);
    let config = good(&folder);
    let at = |path: &str| Some(folder.path().join(path));
    assert_eq!(
        Some(config.access_log),
        at("access.log").map(AccessLog::File)
    );
    assert_eq!(config.include, at("conf.d"));
    assert_eq!(config.services["web"].env_file, at("web.env"));
    assert_eq!(config.services["web"].workdir, at("../work"));
    assert_eq!(config.services["api"].env_file, at("conf.d/web.env"));
    assert_eq!(
        config.services["zoo"].workdir.as_deref(),
        Some(Path::new("/srv"))
    );
}
