//! What systemd is told, as it hears it: readiness, reloads, the end, and that the daemon still turns.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;

use crate::support::Daemon;
use crate::support::daemon::{hotctl, web};
use crate::support::program::{self, send};

/// A daemon whose notify socket this is.
fn watched(more: &[&str]) -> (Daemon, UnixDatagram, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("notify.sock");
    let socket = UnixDatagram::bind(&place).unwrap();
    let patience = Some(Duration::from_secs(10));
    socket.set_read_timeout(patience).unwrap();
    let notify = format!("NOTIFY_SOCKET={}", place.display());
    let mut through = vec!["env", &notify];
    through.extend(more);
    (
        Daemon::start_through(&through, &web(""), &[]),
        socket,
        folder,
    )
}

/// The next message; those that only say that it lives are passed over.
fn heard(socket: &UnixDatagram) -> String {
    let mut said = [0; 512];
    loop {
        let length = socket.recv(&mut said).expect("a message");
        let text = String::from_utf8_lossy(&said[..length]).into_owned();
        if text.trim() != "WATCHDOG=1" {
            return text;
        }
    }
}

#[test]
fn systemd_hears_when_it_is_ready_reloads_and_ends() {
    let (mut daemon, socket, _folder) = watched(&[]);
    let told = heard(&socket);
    assert!(
        told.starts_with("READY=1\nSTATUS=serves 127.0.0.1:"),
        "{told}"
    );
    for (more, status) in [
        ("", "STATUS=serves, with the configuration as it is now"),
        (
            "nonsense = 1\n",
            "STATUS=serves; the configuration is wrong",
        ),
    ] {
        let config = daemon.folder().join("hotctl.toml");
        fs::write(config, format!("{}{more}", web(""))).unwrap();
        send(daemon.pid(), Signal::HUP);
        let told = heard(&socket);
        assert!(told.starts_with("RELOADING=1\nMONOTONIC_USEC="), "{told}");
        let told = heard(&socket);
        assert!(
            told.starts_with("READY=1\n") && told.contains(status),
            "{told}"
        );
    }
    assert!(daemon.stop().success());
    let told = heard(&socket);
    assert!(told.starts_with("STOPPING=1\nSTATUS=ends"), "{told}");
    let told = heard(&socket);
    assert!(told.starts_with("EXTEND_TIMEOUT_USEC="), "{told}");
}

#[test]
fn systemd_hears_that_it_turns_before_it_counts_as_hung_also_after_an_upgrade() {
    let (mut daemon, socket, _folder) = watched(&["WATCHDOG_USEC=400000"]);
    for _ in 0..2 {
        let mut alive = 0;
        let mut said = [0; 512];
        while alive < 3 {
            let length = socket.recv(&mut said).expect("within its time");
            alive += usize::from(&said[..length] == b"WATCHDOG=1\n");
        }
        daemon.upgrade(&[]);
    }
}

/// systemd itself reads the units that `hotctl systemd` prints, where it is installed.
#[test]
fn the_units_are_good() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("hotctl.toml");
    fs::write(
        &config,
        "[[listen]]\naddress = \"127.0.0.1:8080\"\n[[listen]]\naddress = \"[::1]:8081\"\n[service.web]\n",
    )
    .unwrap();
    let config = config.to_str().unwrap();
    for unit in ["service", "socket"] {
        let mut command = hotctl(folder.path());
        let ran = program::run(command.args(["systemd", unit, "--config", config])).exits(0);
        let text = ran.stdout;
        match unit {
            "service" => assert!(text.contains(&format!("serve --config {config}")), "{text}"),
            _ => assert!(
                text.contains("ListenStream=127.0.0.1:8080\nListenStream=[::1]:8081\n"),
                "{text}"
            ),
        }
        fs::write(folder.path().join(format!("hotctl.{unit}")), text).unwrap();
    }
    let mut verify = Command::new("systemd-analyze");
    verify.args(["verify", "--man=no", "--recursive-errors=no"]);
    for unit in ["service", "socket"] {
        verify.arg(folder.path().join(format!("hotctl.{unit}")));
    }
    match verify.output() {
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            println!("systemd-analyze verify: {said}");
            assert!(output.status.success(), "{said}");
            assert!(!said.contains("hotctl."), "{said}");
        }
        Err(cause) => println!("systemd-analyze: {cause}: the units were not read by systemd"),
    }
}
