//! A socket that somebody else holds: nobody is refused while the daemon is dead.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::Daemon;
use crate::support::eventually::within;

const ON_HELD: &str =
    "admin = \"127.0.0.1:0\"\n[[listen]]\naddress = \"$HELD\"\n[service.web]\nkeep_warm = \"0s\"\n";

/// One request on a connection of its own; the error of connecting is an error, and whether there was
/// an answer is not.
fn ask(to: std::net::SocketAddr) -> std::io::Result<bool> {
    let mut stream = TcpStream::connect_timeout(&to, Duration::from_secs(10))?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let mut answer = String::new();
    let asked = stream
        .write_all(b"GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")
        .and_then(|()| stream.read_to_string(&mut answer));
    Ok(asked.is_ok() && answer.starts_with("HTTP/1.1 200"))
}

#[test]
fn no_connection_is_refused_across_kills_of_a_daemon_whose_socket_another_holds() {
    const KILLS: usize = 5;
    let mut daemon = Daemon::start_activated(ON_HELD);
    daemon.deploy("v0", &[]);
    let (app, to) = (daemon.live().pid, daemon.listen());
    let (over, cut, answered) = (
        AtomicBool::new(false),
        AtomicUsize::new(0),
        AtomicUsize::new(0),
    );
    let mut first = Vec::new();
    thread::scope(|scope| {
        let clients: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    while !over.load(Ordering::SeqCst) {
                        match ask(to).expect("nobody is refused") {
                            true => &answered,
                            false => &cut,
                        }
                        .fetch_add(1, Ordering::SeqCst);
                    }
                })
            })
            .collect();
        for _ in 0..KILLS {
            daemon.kill();
            let began = Instant::now();
            daemon.start_again();
            assert!(ask(to).expect("it is not refused"), "it is answered");
            first.push(began.elapsed());
            assert_eq!(daemon.live().pid, app);
        }
        over.store(true, Ordering::SeqCst);
        for client in clients {
            client.join().expect("no client was refused");
        }
    });
    let (cut, answered) = (cut.into_inner(), answered.into_inner());
    println!(
        "{KILLS} kills: {answered} answered, 0 refused, {cut} in flight at a kill; answers after {first:?}"
    );
    assert!(answered > 0);
    // What a client had in flight at the moment of a kill is lost: one for each client and kill.
    assert!(cut <= 4 * KILLS, "{cut} were cut");
}

/// systemd's own program for that opens the socket, and executes hotctl at the first connection.
#[test]
fn the_first_connection_starts_it_by_systemd_and_is_answered() {
    // That program takes no port 0: one that was free a moment ago.
    let to = {
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        free.local_addr().unwrap()
    };
    let listen = to.to_string();
    let through = [
        "systemd-socket-activate",
        "--listen",
        &listen,
        "--fdname",
        "http",
        "--setenv",
        "HOTCTL_SOCKET",
        "--setenv",
        "HOTCTL_STATE",
        "--setenv",
        "TMPDIR",
    ];
    let first = thread::spawn(move || {
        // Refused until it listens; the one that is not is the first, and waits for hotctl.
        let connected = within(Duration::from_secs(20), || TcpStream::connect(to).ok());
        let mut stream = connected.expect("a connection");
        stream
            .write_all(b"GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")
            .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    });
    let config = ON_HELD.replace("$HELD", &listen);
    let daemon = Daemon::start_through(&through, &config, &[]);
    let answer = first.join().unwrap();
    assert!(answer.contains(": nothing_deployed"), "{answer}");
    assert_eq!(daemon.listen(), to);
    daemon.deploy("v1", &[]);
    assert_eq!(daemon.get("/").text(), "v1\n");
}
