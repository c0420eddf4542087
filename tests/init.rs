//! `hotctl init --from`: what another tool is told becomes a configuration that is good, says what has no
//! equivalent, and runs.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use rustix::process::Signal;
use tempfile::TempDir;

use crate::support::daemon::hotctl;
use crate::support::program::{self, Ran, Running};
use crate::support::status::Status;
use crate::support::{eventually, eventually_some, http};

/// A project of another tool.
fn project(files: &[(&str, &str)]) -> TempDir {
    let folder = tempfile::Builder::new()
        .prefix("hotctl-test-")
        .tempdir()
        .unwrap();
    fs::create_dir(folder.path().join("tmp")).unwrap();
    for (name, text) in files {
        fs::write(folder.path().join(name), text).unwrap();
    }
    folder
}

fn run(folder: &Path, args: &[&str]) -> Ran {
    program::run(hotctl(folder).args(args))
}

#[test]
fn what_is_made_of_another_tools_file_is_good_and_never_overwrites() {
    let air = "[build]\ncmd = 'go build -o ./bin/app .'\nbin = './bin/app -v'\npost_cmd = ['x']\n";
    let nodemon = "{\"exec\": \"ts-node a.ts\", \"signal\": \"SIGHUP\"}";
    let package = "{\"scripts\": {\"start\": \"node a.js\", \"test\": \"jest\"}}";
    for (name, text, lost) in [
        (
            "Procfile",
            "web: a -p $PORT\njobs: b | c\n# end",
            "a comment = \"end\"",
        ),
        (".air.toml", air, ".air.toml:4: build.post_cmd = [\"x\"]"),
        ("nodemon.json", nodemon, "signal = \"SIGHUP\""),
        ("package.json", package, "scripts.test = \"jest\""),
    ] {
        let folder = project(&[(name, text)]);
        let folder = folder.path();
        run(folder, &["init", "--from", name])
            .exits(0)
            .says("wrote hotctl.toml from")
            .says(lost);
        run(folder, &["check"]).exits(0);
        let written = fs::read_to_string(folder.join("hotctl.toml")).unwrap();
        assert!(written.contains("no equivalent"), "{written}");
        run(folder, &["init", "--from", name])
            .exits(2)
            .says("not overwritten");
        let json = run(folder, &["init", "two.toml", "--from", name, "--json"]).exits(0);
        let json: serde_json::Value = json.json();
        assert_eq!(json["unmapped"][0]["file"], name, "{json}");
        assert_eq!(
            fs::read_to_string(folder.join("hotctl.toml")).unwrap(),
            written
        );
    }
}

#[test]
fn what_cannot_be_understood_is_told_with_its_place_and_writes_nothing() {
    let folder = project(&[
        ("Procfile", "web: a\nweb b\n"),
        (".air.toml", "[build]\ncmd = 3\n"),
        ("nodemon.json", "{\n,}"),
        ("docker-compose.yml", ""),
    ]);
    for (name, said, hint) in [
        (
            "Procfile",
            "Procfile:2: \"web b\": not a name",
            "node server.js",
        ),
        (".air.toml", ".air.toml:2: build.cmd: 3: not a text", "text"),
        ("nodemon.json", "nodemon.json:2: ", "JSON"),
        (
            "docker-compose.yml",
            "by its name",
            "Procfile, Procfile.dev",
        ),
        (
            "Procfile.gone",
            "cannot be read",
            "name a file that is there",
        ),
    ] {
        run(folder.path(), &["init", "--from", name])
            .exits(2)
            .says(said)
            .says("try: ")
            .says(hint);
        assert!(!folder.path().join("hotctl.toml").exists(), "{name}");
    }
    run(folder.path(), &["init", "x.json"])
        .exits(2)
        .says(".toml");
}

/// Takes requests at any port, or works.
const APP: &str = "\
import http.server, os, sys, time
if sys.argv[1] == 'work':
    open('worked', 'w').write(os.environ['KIND'])
    time.sleep(600)
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        text = (sys.argv[1] + open('version').read()).encode()
        self.send_response(200)
        self.send_header('content-length', str(len(text)))
        self.end_headers()
        self.wfile.write(text)
    def log_message(self, *args):
        pass
http.server.HTTPServer(('127.0.0.1', int(sys.argv[2])), Handler).serve_forever()
";

#[test]
fn the_processes_of_a_procfile_are_served_as_they_stand_and_anew_when_they_change() {
    let python = program::python();
    let procfile = format!(
        "release: cp draft version\nweb: {python} app.py one $PORT\n\
         api: cd . && exec {python} app.py two \"$PORT\"\njobs: KIND=night {python} app.py work\n"
    );
    let folder = project(&[("Procfile", &procfile), ("app.py", APP), ("draft", "a\n")]);
    let folder = folder.path();
    run(folder, &["init", "--from", "Procfile"]).exits(0);
    fs::write(
        folder.join(".gitignore"),
        "tmp\nstate\nworked\nversion\n*.sock\n",
    )
    .unwrap();
    let (daemon, listen) = serve(folder);
    let ask = |host: &str| ask(listen, host);
    eventually("web answers", || ask("localhost") == "onea\n");
    eventually("api answers", || ask("api.localhost") == "twoa\n");
    eventually("the worker works", || {
        fs::read_to_string(folder.join("worked")).is_ok_and(|text| text == "night")
    });
    fs::write(folder.join("draft"), "b\n").unwrap();
    eventually("the change is live", || ask("localhost") == "oneb\n");
    daemon.signal(Signal::TERM);
    daemon.wait().exits(0);
}

#[test]
fn what_air_builds_is_served_with_its_arguments_and_nothing_beside_it() {
    let python = program::python();
    let build = format!(
        "mkdir -p tmp/out; echo '#!{python}' > tmp/out/app; cat app.py >> tmp/out/app; \
         chmod +x tmp/out/app"
    );
    let air = format!(
        "[build]\ncmd = \"{build}\"\nfull_bin = \"MODE=x ./tmp/out/app one $PORT\"\n\
         include_ext = ['py']\n"
    );
    let folder = project(&[(".air.toml", &air), ("app.py", APP), ("version", "a\n")]);
    let folder = folder.path();
    serves_and_follows(folder, ".air.toml", || {
        fs::write(folder.join("tmp/out/beside"), "x").unwrap();
    });
    let stored = walk(&folder.join("state"));
    let has = |name: &str| stored.iter().any(|path| path.ends_with(name));
    assert!(has("app") && !has("beside"), "{stored:?}");
}

#[test]
fn what_nodemon_runs_is_served_from_the_files_that_are_edited() {
    let python = program::python();
    let nodemon =
        format!("{{\"exec\": \"{python} app.py one $PORT\", \"ext\": \"py\", \"delay\": 60}}");
    let folder = project(&[
        ("nodemon.json", &nodemon),
        ("app.py", APP),
        ("version", "a\n"),
    ]);
    serves_and_follows(folder.path(), "nodemon.json", || {});
}

/// What is made of it serves, and what is edited is live.
fn serves_and_follows(folder: &Path, from: &str, before: impl FnOnce()) {
    run(folder, &["init", "--from", from]).exits(0);
    let (daemon, listen) = serve(folder);
    eventually("it answers", || ask(listen, "x") == "onea\n");
    before();
    let edited = APP.replace("sys.argv[1] + open", "'new ' + open");
    fs::write(folder.join("app.py"), edited).unwrap();
    eventually("the change is live", || ask(listen, "x") == "new a\n");
    daemon.signal(Signal::TERM);
    daemon.wait().exits(0);
}

fn serve(folder: &Path) -> (Running, SocketAddr) {
    let mut command = hotctl(folder);
    command.args(["serve", "--listen", "127.0.0.1:0", "--admin", "off"]);
    let daemon = program::start(&mut command);
    let listen = eventually_some("it serves", || {
        let ran = run(folder, &["status", "--json"]);
        let status = ran.status.success().then(|| ran.json::<Status>())?;
        status.listen.first().copied()
    });
    (daemon, listen)
}

fn ask(listen: SocketAddr, host: &str) -> String {
    let request = format!("GET / HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
    http::try_ask(listen, &request).map_or_else(|_| String::new(), |answer| answer.text())
}

/// All files below.
fn walk(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .flat_map(|entry| match entry.path() {
            path if path.is_dir() => walk(&path),
            path => vec![path],
        })
        .collect()
}
