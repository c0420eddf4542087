//! `hotctl dev` in the smallest projects: with no configuration each save is live a moment later, and
//! what fails changes nothing.

use std::fs;
use std::net::TcpListener;
use std::path::Path;

use rustix::process::Signal;

use crate::support::daemon::hotctl;
use crate::support::desk::Desk;
use crate::support::program::{self, lives};
use crate::support::{eventually, http, leftovers};

/// Saved, broken and mended under load: no request fails.
fn is_live_at_each_save(files: &[(&str, &str)], source: &str, broken: &str, told: &[&str]) {
    let text = files.iter().find(|(name, _)| *name == source).unwrap().1;
    let desk = Desk::open(files, &[]);
    desk.answers("v1\n");
    let load = desk.load();
    load.flipping("v1", "v2", || {
        desk.save(source, &text.replace("v1", "v2"));
        desk.answers("v2\n");
    });
    desk.save(source, &format!("{text}\n{broken}\n"));
    for words in told {
        desk.says(words);
    }
    assert_eq!(desk.answer(), "v2\n");
    load.flipping("v2", "v3", || {
        desk.save(source, &text.replace("v1", "v3"));
        desk.answers("v3\n");
    });
    load.wait_for(10);
    load.finish().assert_none_failed();
    // A command in the project finds it.
    let mut status = hotctl(desk.folder.path());
    status
        .env_remove("HOTCTL_SOCKET")
        .env_remove("HOTCTL_STATE");
    let status = program::run(status.current_dir(desk.folder.path()).arg("status"));
    status.exits(0).says("app  serving");
    let said = desk.close();
    assert!(said.contains("live in "), "{said}");
}

const RUST: &str = r#"use std::io::{Read, Write};
fn main() {
    let port = std::env::var("PORT").unwrap().parse::<u16>().unwrap();
    let listener = std::net::TcpListener::bind(("127.0.0.1", port)).unwrap();
    for stream in listener.incoming() {
        let mut stream = stream.unwrap();
        let _ = stream.read(&mut [0; 4096]);
        let head = "HTTP/1.1 200 OK\r\nX-Version: v1\r\nContent-Length: 3\r\nConnection: close\r\n\r\n";
        let _ = stream.write_all(head.as_bytes());
        let _ = stream.write_all(b"v1\n");
    }
}
"#;

const CARGO: &str =
    "[package]\nname = \"hello\"\nversion = \"0.1.0\"\nedition = \"2021\"\n[workspace]\n";

#[test]
fn a_cargo_project_is_built_and_live_at_each_save() {
    is_live_at_each_save(
        &[("Cargo.toml", CARGO), ("src/main.rs", RUST)],
        "src/main.rs",
        "fn broken() -> Vec<T> {}",
        &["failed after", "src/main.rs:", "cannot find type `T`"],
    );
}

const GO: &str = r#"package main

import (
	"fmt"
	"net/http"
	"os"
)

func main() {
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Version", "v1")
		fmt.Fprint(w, "v1\n")
	})
	http.ListenAndServe("127.0.0.1:"+os.Getenv("PORT"), nil)
}
"#;

#[test]
fn a_go_project_is_built_and_live_at_each_save() {
    is_live_at_each_save(
        &[("go.mod", "module hello\n\ngo 1.18\n"), ("main.go", GO)],
        "main.go",
        "func broken() { undefined() }",
        &["failed after", "main.go:17", "undefined: undefined"],
    );
}

const NODE: &str = "require('http').createServer((q, r) => {\n  r.setHeader('X-Version', 'v1');\n  r.end('v1\\n');\n}).listen(process.env.PORT, process.env.HOST);\n";

#[test]
fn a_node_project_is_live_at_each_save() {
    is_live_at_each_save(
        &[("package.json", "{}"), ("index.js", NODE)],
        "index.js",
        "this is no javascript",
        &["failed", "SyntaxError"],
    );
}

const PYTHON: &str = "import http.server, os\nclass H(http.server.BaseHTTPRequestHandler):\n    def do_GET(self):\n        self.send_response(200)\n        self.send_header('X-Version', 'v1')\n        self.end_headers()\n        self.wfile.write(b'v1\\n')\nhttp.server.ThreadingHTTPServer(('127.0.0.1', int(os.environ['PORT'])), H).serve_forever()\n";

#[test]
fn a_python_project_is_live_at_each_save() {
    is_live_at_each_save(
        &[("app.py", PYTHON)],
        "app.py",
        "this is no python",
        &["failed", "SyntaxError"],
    );
}

/// A port that is free, for an app that has it in its source.
fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

#[test]
fn an_app_that_ignores_port_is_replaced_while_requests_wait() {
    // Seen in its source, and found out when it listens there.
    for (hides, told) in [
        ("", "does not ask for PORT"),
        ("# PORT\n", "whatever PORT says"),
    ] {
        let number = format!("{}", free_port());
        let text = format!(
            "{hides}{}",
            PYTHON.replace("int(os.environ['PORT'])", &number)
        );
        let desk = Desk::open(&[("app.py", &text)], &[]);
        desk.says(told);
        desk.answers("v1\n");
        let load = desk.load();
        load.flipping("v1", "v2", || {
            desk.save("app.py", &text.replace("v1", "v2"));
            desk.answers("v2\n");
        });
        // Only one of it can run, and what is broken takes nobody's place for good.
        load.expect(&["v2"]);
        desk.save("app.py", "this is no python");
        desk.says("SyntaxError");
        load.wait_for(20);
        desk.answers("v2\n");
        load.flipping("v2", "v3", || {
            desk.save("app.py", &text.replace("v1", "v3"));
            desk.answers("v3\n");
        });
        load.finish().assert_none_failed();
        desk.close();
    }
}

#[test]
fn a_version_that_crashes_while_its_files_are_broken_is_started_again_as_it_was() {
    let text = PYTHON.replace(
        "    def do_GET(self):\n",
        "    def do_GET(self):\n        if self.path == '/die':\n            os._exit(3)\n",
    );
    let desk = Desk::open(&[("app.py", &text)], &[]);
    desk.answers("v1\n");
    desk.save("app.py", "this is no python");
    desk.says("SyntaxError");
    let _ = http::try_ask(
        desk.listen,
        "GET /die HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n",
    );
    desk.says("started again");
    desk.answers("v1\n");
    desk.save("app.py", &text.replace("v1", "v2"));
    desk.answers("v2\n");
    desk.close();
}

#[test]
fn an_app_that_writes_among_its_sources_is_deployed_less_often_with_a_word_about_it() {
    let text = PYTHON.replace(
        "class H",
        "open('data.json', 'w').write(str(os.getpid()))\nclass H",
    );
    let desk = Desk::open(&[("app.py", &text), ("data.json", "0")], &[]);
    desk.says("the same changes as soon as a version runs");
    desk.says("build.ignore = [\"/data.json\"]");
    // What somebody saves is live at once all the same, and what is left out is none of it.
    desk.save("app.py", &text.replace("v1", "v2"));
    desk.answers("v2\n");
    desk.save(".hotctlignore", "data.json\n");
    desk.save("app.py", &text.replace("v1", "v3"));
    desk.answers("v3\n");
    desk.close();
}

#[test]
fn a_debugger_that_listens_before_the_app_is_not_taken_for_it() {
    let config = "[[listen]]\naddress = \"127.0.0.1:0\"\n\
        [service.web]\nports = [\"debug\"]\nrun = [\"node\", \"--inspect={port.debug}\", \"index.js\"]\n\
        [service.web.build]\nroot = \".\"\nwatch = [\"*.js\"]\n";
    // Longer than it takes to be seen to listen elsewhere.
    let slow = format!("setTimeout(() => {{\n{NODE}}}, 1500);\n");
    let desk = Desk::open(&[("hotctl.toml", config), ("index.js", &slow)], &[]);
    desk.answers("v1\n");
    // Both run for a moment, each with a debugger.
    desk.save("index.js", &slow.replace("v1", "v2"));
    desk.answers("v2\n");
    desk.says("web@2 live in");
    let said = desk.close();
    let port = |release: &str| {
        let line = said.lines().find(|line| line.contains(release)).unwrap();
        line.rsplit("; debug ")
            .next()
            .unwrap()
            .parse::<u16>()
            .unwrap()
    };
    assert_ne!(port("web@1 live in"), port("web@2 live in"), "{said}");
    assert!(!said.contains("whatever PORT says"), "{said}");
}

#[test]
fn services_of_a_configuration_run_side_by_side_or_some_of_them() {
    let config = "[[listen]]\naddress = \"127.0.0.1:0\"\n\
        [service.web.build]\nroot = \"web\"\n[service.web]\nrun = [\"python3\", \"app.py\"]\n\
        [service.worker]\nhttp = false\nrun = [\"sh\", \"work.sh\"]\n\
        [service.worker.build]\nroot = \"worker\"\n[service.worker.health]\nmin_uptime = \"100ms\"\n";
    let files = [
        ("hotctl.toml", config),
        ("web/app.py", PYTHON),
        ("worker/work.sh", "echo at work\nexec sleep 600\n"),
    ];
    let desk = Desk::open(&files, &[]);
    desk.answers("v1\n");
    desk.says("worker | at work");
    desk.says("worker@1 live in");
    // A worker is replaced, too.
    desk.save("worker/work.sh", "echo at other work\nexec sleep 600\n");
    desk.says("worker | at other work");
    desk.close();
    let desk = Desk::open(&files, &["web"]);
    desk.answers("v1\n");
    let said = desk.close();
    assert!(!said.contains("worker"), "{said}");
}

#[test]
fn a_service_with_no_more_than_a_command_runs_from_the_files_that_are_edited() {
    let config = "[service.web]\nrun = [\"python3\", \"app.py\"]\nenv = { GREETING = \"v1\" }\n";
    let app = PYTHON.replace("b'v1\\n'", "(os.environ['GREETING'] + '\\n').encode()");
    let desk = Desk::open(&[("hotctl.toml", config), ("app.py", &app)], &[]);
    desk.answers("v1\n");
    // What counts with the next deploy is deployed.
    desk.save("hotctl.toml", &config.replace("v1", "v2"));
    desk.answers("v2\n");
    desk.save("app.py", &app.replace("'\\n'", "'!\\n'"));
    desk.answers("v2!\n");
    desk.close();
}

#[test]
fn a_version_that_hangs_at_the_only_port_gives_it_back_before_anybody_has_waited_in_vain() {
    let config = "[service.web]\nrun = [\"python3\", \"app.py\"]\nstart_timeout = \"2s\"\n";
    let text = PYTHON.replace("int(os.environ['PORT'])", &free_port().to_string());
    let desk = Desk::open(&[("hotctl.toml", config), ("app.py", &text)], &[]);
    desk.says("whatever PORT says");
    desk.answers("v1\n");
    let load = desk.load();
    desk.save("app.py", "import time; time.sleep(1000)");
    desk.says("not healthy within 2s");
    load.wait_for(20);
    load.finish().assert_none_failed();
    desk.close();
}

/// Whether these tests run where a closed terminal is to end nothing (proc(5), SigIgn: bit 0 is SIGHUP).
fn is_under_nohup() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    u64::from_str_radix(ignored.unwrap().trim(), 16).unwrap() & 1 == 1
}

#[test]
fn a_terminal_that_is_closed_ends_what_ran_in_it() {
    let desk = Desk::open(&[("app.py", PYTHON)], &[]);
    desk.answers("v1\n");
    let all = leftovers::descendants(desk.dev.pid());
    desk.dev.signal(Signal::HUP);
    if is_under_nohup() {
        // So is what it starts: it goes on, as whoever said so wants.
        desk.answers("v1\n");
        desk.close();
        return;
    }
    desk.dev.wait().exits(0);
    eventually("nothing of it runs any more", || {
        !all.iter().any(|pid| lives(*pid))
    });
}

#[test]
fn a_state_that_is_removed_and_a_configuration_that_is_changed_end_nothing() {
    let config =
        "[service.web.build]\nroot = \"web\"\n[service.web]\nrun = [\"python3\", \"app.py\"]\n";
    let desk = Desk::open(&[("hotctl.toml", config), ("web/app.py", PYTHON)], &[]);
    desk.answers("v1\n");
    // At once: hotctl writes there while it is emptied.
    fs::rename(desk.path(".hotctl"), desk.path("gone")).unwrap();
    desk.save("web/app.py", &PYTHON.replace("v1", "v2"));
    desk.answers("v2\n");
    desk.save("hotctl.toml", &format!("{config}stop_timeout = \"soon\"\n"));
    desk.says("stop_timeout: ");
    desk.save("hotctl.toml", &format!("{config}stop_timeout = \"3s\"\n"));
    desk.says("web.stop_timeout: \"2s\" -> \"3s\"");
    assert_eq!(desk.answer(), "v2\n");
    desk.close();
}

#[test]
fn apps_end_with_a_desk_that_is_killed() {
    let desk = Desk::open(&[("app.py", PYTHON)], &[]);
    desk.answers("v1\n");
    let all = leftovers::descendants(desk.dev.pid());
    assert!(all.len() >= 2, "{all:?}");
    desk.dev.signal(Signal::KILL);
    eventually("they have ended", || !all.iter().any(|pid| lives(*pid)));
}

#[test]
fn a_folder_that_is_no_project_is_refused_with_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let run = |args: &[&str], here: &Path| {
        let mut command = hotctl(folder.path());
        command
            .env_remove("HOTCTL_SOCKET")
            .env_remove("HOTCTL_STATE");
        program::run(command.current_dir(here).arg("dev").args(args))
    };
    run(&[], folder.path())
        .exits(2)
        .says("no Cargo.toml, go.mod, package.json")
        .says("try: hotctl dev -- COMMAND");
    run(&["--", "no-such-program"], folder.path())
        .exits(2)
        .says("no-such-program: no such program in PATH")
        .says("try: install no-such-program");
    fs::write(folder.path().join("app"), "#!/bin/sh\n").unwrap();
    run(&["--", "./app"], folder.path())
        .exits(2)
        .says("./app: not executable")
        .says("try: chmod +x ./app");
    fs::write(folder.path().join("package.json"), "{\"main\" 1}").unwrap();
    run(&[], folder.path())
        .exits(2)
        .says("package.json:1:9: no JSON: expected `:`")
        .says("try: mend that line");
    assert!(!folder.path().join(".hotctl").exists());
    fs::write(
        folder.path().join("hotctl.toml"),
        crate::support::daemon::web(""),
    )
    .unwrap();
    run(&["wep"], folder.path())
        .exits(2)
        .says("no service named wep")
        .says("one of: web");
}

/// What a build, and what it left, may do to a terminal.
#[test]
fn a_build_is_shown_whole_without_what_steers_the_terminal_and_what_it_left_is_named() {
    let config = "[service.web]\nports = [\"debug\"]\nrun = [\"python3\", \"app.py\"]\n\
        env = { OWN = \"at {port.debug} and {port}\" }\n\
        [service.web.build]\ncommand = [\"sh\", \"build.sh\"]\noutput = \"out\"\n\
        watch = [\"*.py\", \"*.sh\", \"*.css\", \"nothing/**\"]\n";
    let script = "printf '\\033[2J\\033]0;title\\007cleared\\n'\nseq 100000 119999\nmkdir -p out\ncp app.py out\nprintf 'no end'\n";
    let app = PYTHON.replace("b'v1\\n'", "(os.environ['OWN'] + chr(10)).encode()");
    let app = app.replace(
        "import http.server, os\n",
        "import http.server, os\nprint('\\x1b[5Aup', flush=True)\n",
    );
    let files = [
        ("hotctl.toml", config),
        ("build.sh", script),
        ("app.py", &app),
        ("a.css", "a {}"),
    ];
    let desk = Desk::open(&files, &[]);
    desk.says("web@1 live in");
    desk.says("watch: \"nothing/**\" matches no file in ");
    desk.says("web | up\n");
    let own = desk.answer();
    let ports: Vec<u16> = own
        .split_whitespace()
        .filter_map(|it| it.parse().ok())
        .collect();
    assert_eq!(ports.len(), 2, "{own}");
    // It is no part of what is built.
    desk.save("a.css", "a { color: red }");
    desk.says("web@1 is live already: the build left the same as before");
    desk.says("build.assets");
    let said = desk.close();
    assert!(said.contains("web | cleared\n"), "{said}");
    assert!(said.contains("web | no end\n"), "{said}");
    // Twice, each whole and in its order.
    let numbers = said
        .lines()
        .filter_map(|line| line.strip_prefix("web | ")?.parse().ok());
    let numbers: Vec<u32> = numbers.collect();
    let once: Vec<u32> = (100_000..120_000).collect();
    assert!(
        numbers == [once.clone(), once].concat(),
        "{} lines",
        numbers.len()
    );
    assert!(!said.contains('\x1b'), "{said}");
}

#[test]
fn a_build_without_its_env_file_names_it_and_what_to_do() {
    let config =
        "[service.web.build]\ncommand = [\"true\"]\noutput = \"app\"\nenv_file = \"none.env\"\n";
    let desk = Desk::open(&[("hotctl.toml", config)], &[]);
    desk.says("failed after");
    desk.says("build.env_file ");
    desk.says("none.env: no such file");
    desk.says("try: make it, or take build.env_file out of the configuration");
    desk.close();
}

#[test]
fn a_port_of_its_own_that_somebody_has_is_told_with_who_it_is() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let text = PYTHON.replace("int(os.environ['PORT'])", &port.to_string());
    let desk = Desk::open(&[("app.py", &text)], &[]);
    let pid = std::process::id();
    desk.says(&format!(
        "127.0.0.1:{port}: taken by another process, pid {pid}: "
    ));
    desk.says(&format!("try: kill {pid}, where it is not needed"));
    drop(taken);
    desk.save("app.py", &text.replace("v1", "v2"));
    desk.answers("v2\n");
    let said = desk.close();
    assert!(!said.contains("does not run"), "{said}");
}

#[test]
fn a_project_that_is_moved_away_ends_it_and_is_not_made_anew() {
    let outer = tempfile::tempdir().unwrap();
    let desk = Desk::open(&[("app.py", PYTHON)], &[]);
    desk.answers("v1\n");
    let moved = outer.path().join("moved");
    fs::rename(desk.folder.path(), &moved).unwrap();
    let ran = desk.dev.wait().exits(1);
    ran.says("the project is gone: it is ")
        .says(&format!("try: cd {} && hotctl dev", moved.display()));
    assert!(!desk.folder.path().exists());
}
