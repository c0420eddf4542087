//! Tests of the rules across fields, with the words in which an operator is told.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use crate::read::tests::{LEAST, config, wrong, wrong_service};
use crate::source::Format::Toml;

#[test]
fn listeners_do_not_take_each_others_address() {
    let listeners = |addresses: &[&str]| {
        let tables: String = addresses
            .iter()
            .map(|address| format!("[[listen]]\naddress = \"{address}\"\n"))
            .collect();
        format!("{tables}[service.web]\n")
    };
    wrong(
        Toml,
        "[service.web]\n",
        &[
            r#"hotctl.toml:1: listen: no listener -> a table [[listen]] with an address, such as "0.0.0.0:80""#,
        ],
    );
    wrong(
        Toml,
        &listeners(&["127.0.0.1:80", "127.0.0.1:80"]),
        &[
            r#"hotctl.toml:4: listen[1].address: "127.0.0.1:80": the same address as listen[0].address (line 2) -> another address or port"#,
        ],
    );
    wrong(
        Toml,
        &listeners(&["127.0.0.1:80", "0.0.0.0:80"]),
        &[
            r#"hotctl.toml:4: listen[1].address: "0.0.0.0:80": cannot be bound beside listen[0].address, 127.0.0.1:80 (line 2) -> one of the two, or another port"#,
        ],
    );
    wrong(
        Toml,
        &listeners(&["127.0.0.1:10480"]),
        &[
            r#"hotctl.toml:2: listen[0].address: "127.0.0.1:10480": the same address as admin -> another address or port"#,
        ],
    );
    wrong(
        Toml,
        &listeners(&["127.0.0.1:20000"]),
        &[
            r#"hotctl.toml:2: listen[0].address: "127.0.0.1:20000": port 20000 is one of ports, 20000-29999 -> a port that services are not started on"#,
        ],
    );
    for good in [
        &["127.0.0.1:80", "127.0.0.2:80"],
        &["127.0.0.1:0", "127.0.0.1:0"],
        &["0.0.0.0:80", "[::1]:80"],
    ] {
        config(Toml, &listeners(good)).unwrap();
    }
}

#[test]
fn no_request_is_for_two_services() {
    let two = |a: &str, b: &str| format!("{LEAST}{a}\n[service.zoo]\n{b}\n");
    wrong(
        Toml,
        &two("", ""),
        &[
            r#"hotctl.toml:4: service.zoo.paths[0]: path "/" of every host belongs to service web already -> other hosts or paths for one of the two"#,
        ],
    );
    wrong(
        Toml,
        &two(
            "hosts = [\"a.b\", \"c.d\"]",
            "hosts = [\"x.y\", \"C.D\", \"a.b\"]\npaths = [\"/x\", \"/\"]",
        ),
        &[
            r#"hotctl.toml:5: service.zoo.hosts[1]: "C.D": path "/" of c.d belongs to service web already (line 3) -> other hosts or paths for one of the two"#,
        ],
    );
    wrong_service(
        "hosts = [\"a.b\", \"A.B.\"]\npaths = [\"/x\", \"/x/\"]",
        &[
            r#"hotctl.toml:3: service.web.hosts[1]: "A.B.": the same as service.web.hosts[0] (line 3) -> leave one of them out"#,
            r#"hotctl.toml:4: service.web.paths[1]: "/x/": the same as service.web.paths[0] (line 4) -> leave one of them out"#,
        ],
    );
    for (a, b) in [
        ("", "hosts = [\"a.b\"]"),
        ("", "paths = [\"/api\"]"),
        ("hosts = [\"*.a.b\"]", "hosts = [\"x.a.b\"]"),
        (
            "hosts = [\"a.b\"]\npaths = [\"/x\"]",
            "hosts = [\"a.b\"]\npaths = [\"/y\"]",
        ),
    ] {
        config(Toml, &two(a, b)).unwrap();
    }
}

#[test]
fn values_that_make_no_sense_are_refused() {
    wrong_service(
        "run = [\"\", \"x\", \"\"]\npaths = []\nstart_timeout = \"0s\"\nkeep_releases = 0\n",
        &[
            r#"hotctl.toml:3: service.web.run[0]: "": the program is empty"#,
            r#"hotctl.toml:3: service.web.run[2]: "": an empty argument"#,
            "hotctl.toml:4: service.web.paths: []: without a path it gets no request -> leave it out for every path",
            r#"hotctl.toml:5: service.web.start_timeout: "0s": must be above 0 -> leave it out for the default"#,
            "hotctl.toml:6: service.web.keep_releases: 0: must be at least 1",
        ],
    );
    wrong(
        Toml,
        &format!("ports = \"1000-1000\"\nthreads = 1025\n{LEAST}"),
        &[
            r#"hotctl.toml:1: ports: "1000-1000": ports below 1024 are for the system -> such as "20000-29999""#,
            r#"hotctl.toml:1: ports: "1000-1000": 1 ports, and what is live takes 1: a deploy of web needs 1 more (line 4) -> a wider range, such as "20000-29999""#,
            "hotctl.toml:2: threads: 1025: above 1024 -> leave it out for one for each core",
        ],
    );
    for good in [
        "drain.requests = \"0s\"",
        "stop_timeout = \"0s\"",
        "keep_warm = \"0s\"",
        "start_timeout = \"300ms\"",
    ] {
        config(Toml, &format!("{LEAST}{good}\n")).unwrap();
    }
}

#[test]
fn a_probe_that_makes_no_sense_is_refused() {
    wrong_service(
        "[service.web.health]\nrise = 0\nfall = 0\ntimeout = \"0s\"\ninterval = \"0s\"\npath = \"/a b\"\nmethod = \"get\"\nhost = \"http://x\"\nbody = \"\"\n",
        &[
            "hotctl.toml:4: service.web.health.rise: 0: must be at least 1 -> leave it out for the default",
            "hotctl.toml:5: service.web.health.fall: 0: must be at least 1 -> leave it out for the default",
            r#"hotctl.toml:6: service.web.health.timeout: "0s": must be above 0 -> leave it out for the default"#,
            r#"hotctl.toml:7: service.web.health.interval: "0s": must be above 0 -> leave it out for the default"#,
            r##"hotctl.toml:8: service.web.health.path: "/a b": a path has no space, "#" or other such character -> percent-encoding, as it is sent: "%20" for a space"##,
            r#"hotctl.toml:9: service.web.health.method: "get": a method is a word in capitals -> "GET" or "HEAD""#,
            r#"hotctl.toml:10: service.web.health.host: "http://x": not a host, with or without a port -> a host such as "example.com""#,
            r#"hotctl.toml:11: service.web.health.body: "": empty text occurs everywhere -> leave it out"#,
        ],
    );
    wrong_service(
        "health.kind = \"tcp\"\nhealth.path = \"/up\"\nhealth.interval = \"1m\"\n",
        &[
            r#"hotctl.toml:4: service.web.health.path: "/up": means nothing when kind is "tcp" (line 3) -> kind = "http", or leave it out"#,
            r#"hotctl.toml:5: service.web.health.interval: "1m": longer than start_timeout, 30s -> a shorter interval or a longer start_timeout"#,
        ],
    );
    wrong_service(
        "health.method = \"HEAD\"\nhealth.body = \"ok\"\n",
        &[
            r#"hotctl.toml:4: service.web.health.body: "ok": an answer to HEAD has no body (line 3) -> method = "GET""#,
        ],
    );
}

#[test]
fn a_conflict_with_a_refused_value_is_not_told() {
    // start_timeout is refused; its default is in conflict with the interval, which nobody wrote.
    wrong_service(
        "start_timeout = \"5\"\nhealth.interval = \"2m\"\n",
        &[
            r#"hotctl.toml:3: service.web.start_timeout: "5": 5 has no unit -> a time such as "30s" or "1m30s""#,
        ],
    );
    // With the first listener gone, the numbers of the others are off.
    wrong(
        Toml,
        "[[listen]]\naddress = 1\n[[listen]]\naddress = \"0.0.0.0:1\"\n[[listen]]\nadress = \"\"\n[service.web]\n",
        &[
            r#"hotctl.toml:2: listen[0].address: 1: a number, where an address such as "127.0.0.1:8080" is due"#,
            r#"hotctl.toml:6: listen[2].adress: unknown field -> "address""#,
        ],
    );
}
