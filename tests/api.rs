//! The control API keeps what its description says, whoever asks whatever: an OpenAPI fuzzer
//! (schemathesis) finds no 500, no hang, and no answer of another shape.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use serde_json::{Value, json};

use crate::support::Daemon;
use crate::support::program;

/// The same requests in each run.
const SEED: &str = "7";

/// Where `./dev test` installs it.
fn fuzzer() -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/schemathesis/bin/schemathesis");
    assert!(
        path.exists(),
        "schemathesis is not installed, and this test needs it: ./dev test installs it"
    );
    path
}

/// Carries every connection to a port over to a unix socket: the fuzzer knows only ports. Ends with
/// the process; the port is only known to the fuzzer.
fn bridge(socket: PathBuf) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let Ok(daemon) = UnixStream::connect(&socket) else {
                return;
            };
            let (from, to) = (client.try_clone().unwrap(), daemon.try_clone().unwrap());
            thread::spawn(move || {
                carry(from, &to);
                let _ = to.shutdown(Shutdown::Write);
            });
            thread::spawn(move || {
                carry(daemon, &client);
                let _ = client.shutdown(Shutdown::Write);
            });
        }
    });
    address
}

/// Until one of the two ends.
fn carry(mut from: impl Read, mut to: impl Write) {
    let _ = std::io::copy(&mut from, &mut to);
}

/// The description, made narrow where a fuzzer would never find the way by itself: services and
/// content that are there, and no stream that does not end.
fn narrowed(mut api: Value, digest: &Value) -> Value {
    // Without a body it is obeyed, and the fuzzer would speak with a daemon that leaves.
    if let Some(paths) = api["paths"].as_object_mut() {
        paths.remove("/v1/upgrade");
    }
    for operation in operations(&mut api) {
        let Some(parameters) = operation
            .get_mut("parameters")
            .and_then(Value::as_array_mut)
        else {
            continue;
        };
        parameters.retain(|one| one["name"] != "follow");
        for one in parameters {
            if one["name"] == "service" && one["in"] == "path" {
                one["schema"] = json!({"type": "string", "enum": ["web", "nobody"]});
            }
        }
    }
    let unknown = "0".repeat(64);
    api["components"]["schemas"]["DeployRequest"]["properties"]["digest"] =
        json!({"type": "string", "enum": [digest, unknown]});
    api
}

fn operations(api: &mut Value) -> impl Iterator<Item = &mut Value> {
    let paths = api["paths"].as_object_mut().unwrap().values_mut();
    paths.flat_map(|path| path.as_object_mut().unwrap().values_mut())
}

#[test]
fn a_fuzzer_finds_no_500_no_hang_and_no_answer_of_another_shape() {
    let fuzzer = fuzzer();
    let daemon =
        Daemon::of_web("keep_warm = \"0s\"\nstart_timeout = \"2s\"\nstop_timeout = \"1s\"");
    daemon.deploy("v1", &[]);
    let releases: Value = daemon.hotctl(["releases", "--json"]).exits(0).json();
    let api: Value = daemon.hotctl(["openapi"]).exits(0).json();
    let narrow = narrowed(api, &releases[0]["digest"]);
    let file = daemon.folder().join("api.json");
    fs::write(&file, narrow.to_string()).unwrap();
    let address = bridge(daemon.folder().join("control.sock"));
    let ran = program::run(
        Command::new(fuzzer)
            .current_dir(daemon.folder())
            .args(["--no-color", "run", "api.json"])
            .args(["--url", &format!("http://{address}")])
            .args(["--seed", SEED, "--phases", "examples,coverage,fuzzing"])
            .args(["--max-examples", "8", "--request-timeout", "10"])
            .args(["--continue-on-failure", "--suppress-health-check", "all"])
            // Bytes that are no tar, and words that are no command, are refused by what they say.
            .args(["--exclude-checks", "positive_data_acceptance"]),
    );
    ran.exits(0).says("Tested: ");
    // It steers as before.
    daemon.deploy("v2", &[]);
    assert_eq!(daemon.get("/").has_status(200).text(), "v2\n");
}

#[test]
fn what_the_framework_refuses_has_the_one_shape_too() {
    let daemon = Daemon::of_web("");
    for (args, status) in [
        (&["/v1/nowhere"][..], 404),
        (&["/v1/services/nobody/releases"], 404),
        (&["/v1/services/No%20Name/releases"], 400),
        (&["-X", "PATCH", "/v1/status"], 405),
        (&["/v1/services/web/logs?lines=many"], 400),
        (&["/v1/services/web/logs?linse=3"], 400),
        (
            &[
                "-H",
                "content-type: application/json",
                "-d",
                "{",
                "/v1/services/web/deployments",
            ],
            400,
        ),
        (
            &[
                "-H",
                "content-type: application/json",
                "-d",
                "{\"digset\":1}",
                "/v1/services/web/deployments",
            ],
            422,
        ),
        (&["-d", "digest=1", "/v1/services/web/deployments"], 415),
        // Not taken for a rollback to wherever it would go.
        (&["-X", "POST", "/v1/services/web/rollback?to=1"], 400),
        (&["/v1/status?service=web"], 400),
    ] {
        let (path, flags) = args.split_last().unwrap();
        let ran = program::run(
            Command::new("curl")
                .args(["-s", "-w", "\n%{http_code}", "--unix-socket"])
                .arg(daemon.folder().join("control.sock"))
                .args(flags)
                .arg(format!("http://hotctl{path}")),
        );
        let (body, code) = ran.stdout.rsplit_once('\n').unwrap();
        assert_eq!(code, status.to_string(), "{args:?}\n{ran}");
        let refusal: Value = serde_json::from_str(body).unwrap_or_else(|e| panic!("{e}\n{ran}"));
        assert!(refusal["error"].is_string(), "{args:?}\n{ran}");
    }
}
