//! Data, variables and secrets: what belongs to a service and not to a release outlives every release,
//! and is seen by nobody else.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use crate::support::daemon::{secret, web};
use crate::support::ledger::{self, Writers};
use crate::support::{Daemon, http, leftovers, program};

#[test]
fn a_database_keeps_its_rows_across_ten_deploys_and_two_rollbacks() {
    let python = program::python();
    let daemon = Daemon::of_web("keep_warm = \"0s\"\npersist = [\"data\"]");
    let deploy = |number: usize| {
        let path = ledger::release(daemon.folder(), &format!("v{number}"));
        daemon.deploy_path(&path, &[&python, "app.py"]);
        assert_eq!(daemon.get("/").text(), format!("v{number}\n"));
    };
    deploy(0);
    let writers = Writers::start(daemon.listen(), 8);
    for number in 1..=10 {
        deploy(number);
        writers.wait_for(20);
        if number % 5 == 0 {
            daemon.hotctl(["rollback"]).exits(0);
            assert_eq!(daemon.get("/").text(), format!("v{}\n", number - 1));
            writers.wait_for(20);
        }
    }
    let written = writers.finish();
    written.assert_kept_in(&daemon.get("/rows").has_status(200).text());
    // What the first release brought became the data; what others bring does not replace it.
    assert_eq!(daemon.get("/note").text(), "brought by v0\n");
}

#[test]
fn variables_come_from_the_configuration_and_from_a_file_that_is_read_at_each_start() {
    let daemon = Daemon::start_with(
        &web(
            "keep_warm = \"0s\"\nenv = { A = \"config\", B = \"config\" }\nenv_file = \"web.env\"",
        ),
        &[("web.env", "# secrets\nB=file\nC=\"with spaces\"\n")],
    );
    let env = |name: &str| daemon.get(&format!("/env?name={name}")).text();
    daemon.deploy("v1", &[]);
    assert_eq!(
        [env("A"), env("B"), env("C")],
        ["config", "config", "with spaces"]
    );
    secret(&daemon.folder().join("web.env"), "C=new\n");
    assert_eq!(env("C"), "with spaces", "not before the next start");
    daemon.hotctl(["restart"]).exits(0);
    assert_eq!(env("C"), "new");
}

#[test]
fn the_same_release_in_another_environment_is_not_unchanged() {
    let daemon = Daemon::start_with(&web("env_file = \"web.env\""), &[("web.env", "A=1\n")]);
    let path = daemon.release("v1");
    let path = path.to_str().unwrap();
    daemon.hotctl(["deploy", path]).exits(0);
    let first = daemon.live();
    daemon.hotctl(["deploy", path]).exits(0).says("unchanged");
    secret(&daemon.folder().join("web.env"), "A=2\n");
    daemon.hotctl(["deploy", path]).exits(0);
    assert_ne!(daemon.live().pid, first.pid, "another process");
    assert_eq!(daemon.get("/env?name=A").text(), "2");
    daemon.hotctl(["deploy", path]).exits(0).says("unchanged");
}

#[test]
fn an_env_file_that_others_can_read_is_refused_and_what_is_live_stays() {
    let daemon = Daemon::start_with(&web("env_file = \"web.env\""), &[("web.env", "A=1\n")]);
    let first = daemon.deploy("v1", &[]);
    let file = daemon.folder().join("web.env");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    let refused = daemon.try_deploy(&daemon.release("v2"), &[]).exits(1);
    refused.says("web.env").says("chmod");
    assert_eq!(daemon.live().pid, Some(first.pid));
    fs::remove_file(&file).unwrap();
    let refused = daemon.try_deploy(&daemon.release("v2"), &[]).exits(1);
    refused.says("web.env");
    assert_eq!(daemon.live().pid, Some(first.pid));
}

#[test]
fn a_secret_is_seen_by_the_app_and_by_nobody_else() {
    const SECRET: &str = "hunter2-c0rrect-horse";
    let daemon = Daemon::start_with(
        &web("env_file = \"web.env\""),
        &[("web.env", &format!("KEY={SECRET}\n"))],
    );
    daemon.deploy("v1", &[]);
    assert_eq!(daemon.get("/env?name=KEY").text(), SECRET);
    // Also when something goes wrong.
    daemon
        .try_deploy(&daemon.release("v2"), &["--crash-at-start"])
        .exits(1);
    for command in [
        vec!["status", "--json"],
        vec!["status"],
        vec!["releases", "--json"],
        vec!["logs", "-n", "1000"],
    ] {
        let ran = daemon.hotctl(command).exits(0);
        assert!(
            !(ran.stdout.clone() + &ran.stderr).contains(SECRET),
            "{ran}"
        );
    }
    assert!(!daemon.metrics().contains(SECRET));
    assert!(!daemon.log().contains(SECRET), "in the daemon's log");
    for process in leftovers::processes(daemon.folder()) {
        assert!(!process.line.contains(SECRET), "a title: {}", process.line);
    }
    let holding: Vec<_> = leftovers::files(daemon.folder())
        .into_iter()
        .filter(|path| !path.ends_with("web.env") && holds(path, SECRET))
        .collect();
    assert!(holding.is_empty(), "copied into {holding:?}");
}

fn holds(path: &Path, text: &str) -> bool {
    // Sockets and links that lead nowhere cannot be read, and hold nothing.
    let Ok(bytes) = fs::read(path) else {
        return false;
    };
    bytes
        .windows(text.len())
        .any(|some| some == text.as_bytes())
}

#[test]
fn every_release_works_in_the_same_folder_of_the_service() {
    let daemon = Daemon::of_web("keep_warm = \"0s\"");
    daemon.deploy("v1", &[]);
    let cwd = daemon.get("/cwd").text();
    assert_eq!(daemon.get("/env?name=HOTCTL_DATA").text(), cwd);
    fs::write(Path::new(&cwd).join("state"), "kept").unwrap();
    daemon.deploy("v2", &[]);
    assert_eq!(daemon.get("/cwd").text(), cwd);
    assert_eq!(
        fs::read_to_string(Path::new(&cwd).join("state")).unwrap(),
        "kept"
    );
}

#[test]
fn a_folder_to_work_in_may_be_named() {
    let daemon = Daemon::start_with(&web("workdir = \"work\""), &[("work/here", "")]);
    daemon.deploy("v1", &[]);
    let work = daemon.folder().join("work");
    assert_eq!(daemon.get("/cwd").text(), work.display().to_string());
}

#[test]
fn what_is_ignored_is_no_part_of_a_release() {
    let python = program::python();
    let daemon = Daemon::of_web("ignore = [\"*.log\"]");
    let site = daemon.folder().join("site");
    for (name, text) in [
        ("index.html", "hello\n"),
        ("big.log", "noise\n"),
        ("secrets/key", "k\n"),
        ("kept/secrets.html", "kept\n"),
        (".hotctlignore", "# not for the server\n/secrets/\n"),
    ] {
        let path = site.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let serve = [
        &python,
        "-m",
        "http.server",
        "{port}",
        "--bind",
        "127.0.0.1",
    ];
    daemon.deploy_path(&site, &serve);
    daemon.get("/index.html").has_status(200);
    daemon.get("/kept/secrets.html").has_status(200);
    daemon.get("/big.log").has_status(404);
    daemon.get("/secrets/key").has_status(404);
    // A change of what is left out is no change.
    fs::write(site.join("big.log"), "more noise\n").unwrap();
    daemon
        .try_deploy(&site, &serve)
        .exits(0)
        .last_event::<serde_json::Value>("unchanged");
}

#[test]
fn services_may_stand_in_files_of_their_own() {
    let daemon = Daemon::start_with(
        "admin = \"127.0.0.1:0\"\ninclude = \"conf.d\"\n[[listen]]\naddress = \"127.0.0.1:0\"\n",
        &[
            ("conf.d/web.toml", "[service.web]\nenv_file = \"web.env\"\n"),
            ("conf.d/web.env", "A=beside\n"),
            (
                "conf.d/api.json",
                r#"{ "service": { "api": { "hosts": ["api"] } } }"#,
            ),
        ],
    );
    daemon.deploy("v1", &[]);
    assert_eq!(daemon.get("/env?name=A").text(), "beside");
    assert_eq!(daemon.status().service("api").state, "nothing_deployed");
    let ask = "GET / HTTP/1.1\r\nhost: api\r\n\r\n";
    http::ask(daemon.listen(), ask).has_status(503);
}

#[test]
fn a_script_whose_interpreter_is_missing_says_so() {
    let daemon = Daemon::of_web("");
    let script = daemon.folder().join("script");
    fs::write(&script, "#!/no/such/interpreter\n").unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    let refused = daemon.hotctl(["deploy", script.to_str().unwrap()]);
    assert!(!refused.status.success(), "{refused}");
    refused.says("/no/such/interpreter");
}

#[test]
fn a_virtual_environment_that_was_moved_is_noticed() {
    let python = program::python();
    let daemon = Daemon::of_web("");
    let app = daemon.folder().join("app");
    fs::create_dir(&app).unwrap();
    let made = app.join(".venv");
    program::run(
        Command::new(&python)
            .args(["-m", "venv", "--without-pip"])
            .arg(&made),
    )
    .exits(0);
    // What pip writes: the path of where it was made.
    let script = made.join("bin/serve");
    fs::write(&script, format!("#!{}/bin/python\n", made.display())).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    let moved = daemon.folder().join("elsewhere");
    fs::rename(&app, &moved).unwrap();
    let path = moved.to_str().unwrap();
    let refused = daemon.hotctl(["deploy", path, "--", ".venv/bin/serve"]);
    assert!(!refused.status.success(), "{refused}");
    refused.says("virtual environment").says("try");
}
