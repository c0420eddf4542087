//! `hotctl doctor` names what is wrong, and what it says to do about it helps: each test breaks one
//! thing, applies the remedy, and asks again.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use crate::support::Daemon;
use crate::support::daemon::{hotctl, web};
use crate::support::program::{self, Ran};

const GOOD: &str = "admin = \"off\"\n[[listen]]\naddress = \"127.0.0.1:0\"\n[service.web]\n";

/// A folder with a configuration, where everything else is as it should be.
fn place(config: &str) -> TempDir {
    let folder = tempfile::Builder::new()
        .prefix("hotctl-test-")
        .tempdir()
        .unwrap();
    fs::create_dir(folder.path().join("tmp")).unwrap();
    configure(&folder, config);
    folder
}

fn configure(folder: &TempDir, config: &str) {
    fs::write(folder.path().join("hotctl.toml"), config).unwrap();
}

fn examine(folder: &TempDir) -> Ran {
    program::run(hotctl(folder.path()).args(["doctor", "--json"]))
}

/// What is wrong is this, and nothing else; its remedy.
#[track_caller]
fn wrong(ran: &Ran, check: &str) -> String {
    let diagnosis: Value = ran.json();
    let checks = diagnosis["checks"].as_array().unwrap();
    let wrong: Vec<&Value> = checks.iter().filter(|c| c["verdict"] == "wrong").collect();
    let names: Vec<&Value> = wrong.iter().map(|c| &c["check"]).collect();
    assert_eq!(names, [check], "{ran}");
    assert_eq!(ran.status.code(), Some(1), "{ran}");
    let hint = wrong[0]["hint"].as_str();
    hint.unwrap_or_else(|| panic!("no remedy\n{ran}"))
        .to_string()
}

#[track_caller]
fn healthy(folder: &TempDir) {
    let ran = examine(folder).exits(0);
    let diagnosis: Value = ran.json();
    assert_eq!(diagnosis["wrong"], 0, "{ran}");
}

/// Do what the remedy says, as a shell does.
fn apply(folder: &Path, remedy: &str) {
    let ran = program::run(Command::new("sh").args(["-c", remedy]).current_dir(folder));
    ran.exits(0);
}

/// Broken in one way; the remedy is a command.
#[track_caller]
fn a_command_mends(folder: &TempDir, check: &str) {
    let remedy = wrong(&examine(folder), check);
    apply(folder.path(), &remedy);
    healthy(folder);
}

#[test]
fn where_nothing_is_wrong_it_says_so() {
    let folder = place(GOOD);
    healthy(&folder);
    let words = program::run(hotctl(folder.path()).arg("doctor")).exits(0);
    words.says("configuration").says("good");
}

#[test]
fn a_configuration_that_cannot_be_read() {
    let folder = place("mine = true\n");
    let ran = examine(&folder);
    let remedy = wrong(&ran, "configuration");
    ran.says("hotctl.toml:1").says("mine");
    assert!(remedy.contains("hotctl check"), "{remedy}");
    configure(&folder, GOOD);
    healthy(&folder);
}

#[test]
fn an_address_that_somebody_else_has() {
    for check in ["listen", "admin"] {
        let other = TcpListener::bind("127.0.0.1:0").unwrap();
        let taken = other.local_addr().unwrap();
        let config = match check {
            "listen" => GOOD.replace("127.0.0.1:0", &taken.to_string()),
            _ => GOOD.replace("\"off\"", &format!("\"{taken}\"")),
        };
        let folder = place(&config);
        let ran = examine(&folder);
        let remedy = wrong(&ran, check);
        ran.says("address in use");
        // Who has it, and that it must go, or another be chosen.
        assert!(remedy.contains(&taken.port().to_string()), "{remedy}");
        drop(other);
        healthy(&folder);
    }
}

/// Two ports side by side that nobody has, and that are not for outgoing connections.
fn two_ports() -> [TcpListener; 2] {
    let bind = |port: u16| TcpListener::bind(("127.0.0.1", port)).ok();
    let found = (10_240..32_000).find_map(|port| Some([bind(port)?, bind(port + 1)?]));
    found.expect("two free ports")
}

#[test]
fn ports_that_the_daemon_itself_has_given_are_not_missing() {
    // Away from those that the tests beside this one look for.
    let free = |port: &u16| [*port, port + 1].map(|p| TcpListener::bind(("127.0.0.1", p)).is_ok());
    let first = (5_000..9_000).find(|port| free(port) == [true, true]);
    let first: u16 = first.expect("two free ports");
    let daemon = Daemon::start(&format!("ports = \"{first}-{}\"\n{}", first + 1, web("")));
    daemon.deploy("v1", &[]);
    let ran = daemon.hotctl(["doctor", "--json"]);
    let diagnosis: Value = ran.json();
    let checks = diagnosis["checks"].as_array().unwrap();
    let ports: Vec<&Value> = checks.iter().filter(|c| c["check"] == "ports").collect();
    assert!(!ports.is_empty(), "{ran}");
    assert!(ports.iter().all(|c| c["verdict"] != "wrong"), "{ran}");
}

#[test]
fn ports_that_are_all_taken() {
    let others = two_ports();
    let [first, last] = others
        .each_ref()
        .map(|one| one.local_addr().unwrap().port());
    let folder = place(&format!("ports = \"{first}-{last}\"\n{GOOD}"));
    let remedy = wrong(&examine(&folder), "ports");
    assert!(remedy.contains("widen `ports`"), "{remedy}");
    configure(
        &folder,
        &format!("ports = \"{first}-{}\"\n{GOOD}", last + 200),
    );
    healthy(&folder);
}

#[test]
fn ports_that_the_system_gives_to_outgoing_connections() {
    let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap();
    let last: u16 = range.split_whitespace().nth(1).unwrap().parse().unwrap();
    let folder = place(&format!("ports = \"{}-{last}\"\n{GOOD}", last - 20));
    let remedy = wrong(&examine(&folder), "port range");
    let (better, _) = remedy.split_once(" in the configuration").unwrap();
    configure(&folder, &format!("{better}\n{GOOD}"));
    healthy(&folder);
}

#[test]
fn a_state_folder_that_is_a_file() {
    let folder = place(GOOD);
    fs::write(folder.path().join("state"), "").unwrap();
    a_command_mends(&folder, "state");
}

#[test]
fn a_state_folder_that_others_can_enter() {
    let folder = place(GOOD);
    let state = folder.path().join("state");
    fs::create_dir(&state).unwrap();
    fs::set_permissions(&state, fs::Permissions::from_mode(0o755)).unwrap();
    a_command_mends(&folder, "state");
}

#[test]
fn a_stale_control_socket() {
    let folder = place(GOOD);
    drop(UnixListener::bind(folder.path().join("control.sock")).unwrap());
    a_command_mends(&folder, "control socket");
}

#[test]
fn a_file_in_the_place_of_the_control_socket() {
    let folder = place(GOOD);
    fs::write(folder.path().join("control.sock"), "").unwrap();
    a_command_mends(&folder, "control socket");
}

#[test]
fn a_socket_folder_that_others_can_write_to() {
    let folder = place(GOOD);
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
    a_command_mends(&folder, "socket folder");
}

#[test]
fn a_control_socket_with_a_path_that_is_too_long() {
    let folder = place(GOOD);
    let long = folder.path().join("long".repeat(30)).join("control.sock");
    let examine = |socket: &Path| {
        program::run(
            hotctl(folder.path())
                .args(["doctor", "--json", "--socket"])
                .arg(socket),
        )
    };
    let remedy = wrong(&examine(&long), "socket folder");
    assert!(
        remedy.contains("shorter") && remedy.contains("--socket"),
        "{remedy}"
    );
    examine(&folder.path().join("c.sock")).exits(0);
}

#[test]
fn an_env_file_that_everybody_can_read() {
    let folder = place(&format!("{GOOD}env_file = \"secrets\"\n"));
    let file = folder.path().join("secrets");
    fs::write(&file, "TOKEN=x\n").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    a_command_mends(&folder, "web: env_file");
    fs::remove_file(&file).unwrap();
    a_command_mends(&folder, "web: env_file");
}

#[test]
fn a_program_that_is_not_there() {
    let folder = place(&format!("{GOOD}run = [\"no-such-program\"]\n"));
    let remedy = wrong(&examine(&folder), "web: run");
    assert!(remedy.contains("whole path in `run`"), "{remedy}");
    configure(&folder, &format!("{GOOD}run = [\"/bin/sh\"]\n"));
    healthy(&folder);
}

#[test]
fn a_working_folder_that_is_not_there() {
    let folder = place(&format!("{GOOD}workdir = \"work\"\n"));
    a_command_mends(&folder, "web: workdir");
}

#[test]
fn an_access_log_whose_folder_is_not_there() {
    let folder = place(&format!("access_log = \"logs/access.log\"\n{GOOD}"));
    a_command_mends(&folder, "access log");
}

#[test]
fn more_output_kept_than_is_allowed() {
    let limits = "[service.web.logs]\nfile_size = \"64KiB\"\ntotal_size = \"128KiB\"\n";
    let folder = place(&format!("{GOOD}{limits}"));
    let logs = folder.path().join("state/services/web/logs");
    fs::create_dir_all(&logs).unwrap();
    for path in ["state", "state/services"].map(|path| folder.path().join(path)) {
        fs::set_permissions(path, fs::Permissions::from_mode(0o700)).unwrap();
    }
    for number in 0..4 {
        fs::write(logs.join(format!("{number}.log")), vec![b'x'; 64 * 1024]).unwrap();
    }
    a_command_mends(&folder, "web: logs");
}

#[test]
fn too_few_open_files() {
    let folder = place(GOOD);
    let examine = |limit: &str| {
        let mut command = hotctl(folder.path());
        let program = command.get_program().to_owned();
        let shell = format!("{limit} && exec \"$0\" doctor --json");
        let mut limited = Command::new("sh");
        limited
            .args(["-c", &shell])
            .arg(program)
            .current_dir(folder.path())
            .env_clear();
        for (name, value) in command.arg("doctor").get_envs() {
            limited.env(name, value.unwrap_or_default());
        }
        program::run(&mut limited)
    };
    let remedy = wrong(&examine("ulimit -S -n 256"), "open files");
    let (command, _) = remedy.split_once(';').unwrap();
    assert!(command.starts_with("ulimit -n "), "{remedy}");
    examine(&format!("ulimit -S -n 256 && {command}")).exits(0);
}
