//! Tests of the rules of one service, with the words in which an operator is told.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use crate::read::tests::{LEAST, config, wrong, wrong_service};
use crate::source::Format::{Json, Toml};

#[test]
fn commands_are_programs_with_arguments() {
    wrong_service(
        "before_start = [\"\"]\non_live = [\"a\", \"\"]\nhealth.command = [\"\"]\nhealth.kind = \"command\"\n",
        &[
            r#"hotctl.toml:3: service.web.before_start[0]: "": the program is empty"#,
            r#"hotctl.toml:4: service.web.on_live[1]: "": an empty argument"#,
            r#"hotctl.toml:5: service.web.health.command[0]: "": the program is empty"#,
        ],
    );
    wrong_service(
        "before_start = \"./migrate --now\"\n",
        &[
            r#"hotctl.toml:3: service.web.before_start: "./migrate --now": a string, where a list is due -> ["./migrate", "--now"]"#,
        ],
    );
    wrong_service(
        "run = [\"app\", \"{port}\"]\naddress = \"unix\"\n",
        &[
            r#"hotctl.toml:3: service.web.run[1]: "{port}": {port} stands for nothing when address is "unix" (line 4) -> {socket}, or address = "port""#,
        ],
    );
}

#[test]
fn what_only_another_kind_of_probe_looks_at_is_refused() {
    for kind in ["notify", "command"] {
        let command = match kind {
            "command" => "health.command = [\"./ok\"]\n",
            _ => "",
        };
        wrong_service(
            &format!("health.path = \"/up\"\nhealth.kind = \"{kind}\"\n{command}"),
            &[&format!(
                "hotctl.toml:3: service.web.health.path: \"/up\": means nothing when kind is \"{kind}\" (line 4) -> kind = \"http\", or leave it out"
            )],
        );
        config(Toml, &format!("{LEAST}health.kind = \"{kind}\"\n{command}")).unwrap();
    }
    wrong_service(
        "health.command = [\"./ok\"]\n",
        &[
            r#"hotctl.toml:3: service.web.health.command: ["./ok"]: means nothing when kind is "http" -> kind = "command", or leave it out"#,
        ],
    );
    wrong_service(
        "health.kind = \"command\"\n",
        &[
            r#"hotctl.toml:3: service.web.health.kind: "command": no command to run -> command = ["./healthy"] beside it, or another kind"#,
        ],
    );
}

#[test]
fn variables_have_names_that_hotctl_does_not_set_itself() {
    wrong_service(
        "[service.web.env]\nPORT = \"80\"\n\"A=B\" = \"x\"\n\"\" = \"\"\nLISTEN_FDS = \"1\"\nHOTCTL_DATA = \"/\"\nGOOD = \"a\\u0000b\"\nPORTS = \"fine\"\n",
        &[
            "hotctl.toml:4: service.web.env.PORT: hotctl sets it for each process -> leave it out",
            r#"hotctl.toml:5: service.web.env."A=B": a name is not empty, and has neither "=" nor NUL -> NAME = "value""#,
            r#"hotctl.toml:6: service.web.env."": a name is not empty, and has neither "=" nor NUL -> NAME = "value""#,
            "hotctl.toml:7: service.web.env.LISTEN_FDS: hotctl sets it for each process -> leave it out",
            "hotctl.toml:8: service.web.env.HOTCTL_DATA: hotctl sets it for each process -> leave it out",
            "hotctl.toml:9: service.web.env.GOOD: a value cannot contain NUL",
        ],
    );
}

#[test]
fn the_value_of_a_variable_is_never_shown() {
    wrong_service(
        "[service.web.env]\nPIN = 4711\nRATE = 0.815\nON = true\nKEYS = [\"4711\"]\n",
        &[
            "hotctl.toml:4: service.web.env.PIN: a number, where a string is due -> the same in quotes",
            "hotctl.toml:5: service.web.env.RATE: a fraction, where a string is due -> the same in quotes",
            "hotctl.toml:6: service.web.env.ON: true or false, where a string is due -> the same in quotes",
            "hotctl.toml:7: service.web.env.KEYS: a list, where a string is due",
        ],
    );
    wrong_service(
        "env = [\"PIN=4711\"]\n",
        &[
            r#"hotctl.toml:3: service.web.env: a list, where a table is due -> a table, such as env = { NAME = "value" }"#,
        ],
    );
}

#[test]
fn what_outlives_a_release_lies_within_it() {
    wrong_service(
        r#"persist = ["", "/var/data", "../x", "./data", ".", "a", "a/b", "up", "up/"]"#,
        &[
            r#"hotctl.toml:3: service.web.persist[0]: "": not a path within the release -> such as "data""#,
            r#"hotctl.toml:3: service.web.persist[1]: "/var/data": not a path within the release -> "var/data""#,
            r#"hotctl.toml:3: service.web.persist[2]: "../x": not a path within the release -> "x""#,
            r#"hotctl.toml:3: service.web.persist[3]: "./data": not a path within the release -> "data""#,
            r#"hotctl.toml:3: service.web.persist[4]: ".": not a path within the release -> such as "data""#,
            r#"hotctl.toml:3: service.web.persist[6]: "a/b": within service.web.persist[5], which is kept whole (line 3) -> leave the inner one out"#,
            r#"hotctl.toml:3: service.web.persist[8]: "up/": the same as service.web.persist[7] (line 3) -> leave one of them out"#,
        ],
    );
    wrong_service(
        "persist = \"data\"\nignore = \"*.log\"\n",
        &[
            r#"hotctl.toml:3: service.web.persist: "data": a string, where a list is due -> ["data"]"#,
            r#"hotctl.toml:4: service.web.ignore: "*.log": a string, where a list is due -> ["*.log"]"#,
        ],
    );
    config(
        Toml,
        &format!("{LEAST}persist = [\"data/\", \"up/loads\", \"up/images\", \"..x\"]\n"),
    )
    .unwrap();
}

#[test]
fn patterns_that_leave_nothing_out_are_refused() {
    wrong_service(
        r##"ignore = ["", " ", "/", "#x", "a\nb", "[a", "a\\"]"##,
        &[
            r#"hotctl.toml:3: service.web.ignore[0]: "": matches nothing -> a pattern such as "*.log""#,
            r#"hotctl.toml:3: service.web.ignore[1]: " ": matches nothing -> a pattern such as "*.log""#,
            r#"hotctl.toml:3: service.web.ignore[2]: "/": matches nothing -> a pattern such as "*.log""#,
            r##"hotctl.toml:3: service.web.ignore[3]: "#x": a comment, which matches nothing -> "\\#…" for a name that begins with "#""##,
            r#"hotctl.toml:3: service.web.ignore[4]: "a\nb": a pattern is one line -> an element of the list for each"#,
            r#"hotctl.toml:3: service.web.ignore[5]: "[a": a "[" that is not closed -> "\\[" for the letter itself"#,
            r#"hotctl.toml:3: service.web.ignore[6]: "a\\": ends in a backslash with nothing after it -> "\\\\" for a backslash"#,
        ],
    );
    let good = r#"ignore = ["*.log", "/target", "!keep.log", "a/**/b", "[a-z]?", "\\#x", "x/"]"#;
    config(Toml, &format!("{LEAST}{good}\n")).unwrap();
}

#[test]
fn times_sizes_and_counts_have_their_bounds() {
    wrong_service(
        "instances = 65\nwarmup = [\"/\", \"feed\"]\nwarmup_timeout = \"0s\"\nbefore_start_timeout = \"0s\"\non_live_timeout = \"0s\"\nenv_file = \"\"\nworkdir = \"\"\n",
        &[
            "hotctl.toml:3: service.web.instances: 65: above 64 -> fewer processes, each with threads of its own",
            r#"hotctl.toml:4: service.web.warmup[1]: "feed": a path begins with "/" -> "/feed""#,
            r#"hotctl.toml:5: service.web.warmup_timeout: "0s": must be above 0 -> leave it out for the default"#,
            r#"hotctl.toml:6: service.web.before_start_timeout: "0s": must be above 0 -> leave it out for the default"#,
            r#"hotctl.toml:7: service.web.on_live_timeout: "0s": must be above 0 -> leave it out for the default"#,
            r#"hotctl.toml:8: service.web.env_file: "": not a path -> leave it out for none"#,
            r#"hotctl.toml:9: service.web.workdir: "": not a path -> leave it out for none"#,
        ],
    );
    wrong_service(
        "instances = 0\nlogs.file_size = \"1KiB\"\n",
        &[
            "hotctl.toml:3: service.web.instances: 0: must be at least 1",
            r#"hotctl.toml:4: service.web.logs.file_size: "1KiB": below 64KiB -> such as "16MiB""#,
        ],
    );
    wrong_service(
        "logs.file_size = \"1GiB\"\n",
        &[
            r#"hotctl.toml:3: service.web.logs.file_size: "1GiB": above total_size, 256MiB -> a smaller file_size or a larger total_size"#,
        ],
    );
    wrong_service(
        "logs.total_size = \"1MiB\"\n",
        &[
            r#"hotctl.toml:3: service.web.logs.total_size: "1MiB": below file_size, 16MiB -> a smaller file_size or a larger total_size"#,
        ],
    );
}

#[test]
fn a_drain_ends_as_its_clients_can_bear_it() {
    wrong_service(
        "drain = { close_code = 1000, spread = \"2m\" }\n",
        &[
            "hotctl.toml:3: service.web.drain.close_code: 1000: not a code that says that the server goes -> 1012 (service restart) or 1001 (going away)",
            r#"hotctl.toml:3: service.web.drain.spread: "2m": longer than streams, 1m -> a shorter spread or a longer time for streams"#,
        ],
    );
    // Nobody asked for the spread.
    config(Toml, &format!("{LEAST}drain.websockets = \"1s\"\n")).unwrap();
    wrong_service(
        "drain = \"30s\"\ndrain_timeout = \"30s\"\nlogs = \"1MiB\"\n",
        &[
            r#"hotctl.toml:3: service.web.drain: "30s": a string, where a table is due -> drain.requests = "30s""#,
            "hotctl.toml:4: service.web.drain_timeout: unknown field -> drain.requests",
            r#"hotctl.toml:5: service.web.logs: "1MiB": a string, where a table is due -> logs.file_size = "1MiB""#,
        ],
    );
}

#[test]
fn a_deploy_has_ports_for_every_process_that_it_starts() {
    let pools = |ports: &str, more: &str| {
        format!(
            "ports = \"{ports}\"\n{LEAST}instances = 4\n{more}[service.zoo]\nhosts = [\"zoo\"]\ninstances = 2\n"
        )
    };
    config(Toml, &pools("3000-3009", "")).unwrap();
    wrong(
        Toml,
        &pools("3000-3008", ""),
        &[
            r#"hotctl.toml:1: ports: "3000-3008": 9 ports, and what is live takes 6: a deploy of web needs 4 more (line 3) -> a wider range, such as "20000-29999""#,
        ],
    );
    config(Toml, &pools("3000-3003", "address = \"unix\"\n")).unwrap();
    // Those that have names count, too, and whatever kind of address it has.
    config(Toml, &pools("3000-3017", "ports = [\"debug\"]\n")).unwrap();
    for (range, more, told) in [
        (
            "3000-3016",
            "ports = [\"debug\"]\n",
            "17 ports, and what is live takes 10: a deploy of web needs 8 more",
        ),
        (
            "3000-3008",
            "address = \"unix\"\nports = [\"debug\"]\n",
            "9 ports, and what is live takes 6: a deploy of web needs 4 more",
        ),
    ] {
        let problems = config(Toml, &pools(range, more)).unwrap_err();
        assert!(problems.contains(told), "{problems}");
    }
}

#[test]
fn further_ports_have_names_and_are_asked_for_by_them() {
    wrong_service(
        "ports = [\"debug\", \"De\", \"debug\"]\n",
        &[
            r#"hotctl.toml:3: service.web.ports[1]: "De": the name of a port cannot contain 'D' -> a name of a-z, 0-9 and "_", such as "debug""#,
        ],
    );
    wrong_service(
        "ports = [\"debug\", \"debug\"]\n",
        &[
            r#"hotctl.toml:3: service.web.ports[1]: "debug": the same as service.web.ports[0] (line 3) -> leave one of them out"#,
        ],
    );
    wrong_service(
        "ports = [\"a\", \"b\", \"c\", \"d\", \"e\", \"f\", \"g\", \"h\", \"i\"]\n",
        &[
            r#"hotctl.toml:3: service.web.ports: ["a", "b", "c", "d", "e", "f", "g", "h", "i"]: more than 8 -> leave out what can share one"#,
        ],
    );
    wrong_service(
        "ports = [\"debug\"]\nrun = [\"app\", \"{port.debgu}\", \"{port.x}{port.debug}\"]\nhealth.command = [\"{port.debu}\"]\nhealth.kind = \"command\"\nenv = { PORT_DEBUG = \"1\", PORT_X = \"1\", OPTIONS = \"--inspect={port.debugg}\" }\n",
        &[
            r#"hotctl.toml:4: service.web.run[1]: "{port.debgu}": {port.debgu} stands for nothing: ports has no such name (line 3) -> {port.debug}"#,
            r#"hotctl.toml:4: service.web.run[2]: "{port.x}{port.debug}": {port.x} stands for nothing: ports has no such name (line 3) -> ports = ["x"] beside it"#,
            r#"hotctl.toml:5: service.web.health.command[0]: "{port.debu}": {port.debu} stands for nothing: ports has no such name (line 3) -> {port.debug}"#,
            "hotctl.toml:7: service.web.env.OPTIONS: {port.debugg} stands for nothing: ports has no such name (line 3) -> {port.debug}",
            "hotctl.toml:7: service.web.env.PORT_DEBUG: hotctl sets it for each process -> leave it out",
        ],
    );
    wrong_service(
        "run = [\"app\", \"{port.}\"]\n",
        &[
            r#"hotctl.toml:3: service.web.run[1]: "{port.}": {port.} stands for nothing: ports has no such name -> a name of a-z, 0-9 and "_", such as "debug""#,
        ],
    );
    // Whoever means the range has written it below a table, and the other way round.
    wrong_service(
        "ports = \"20000-29999\"\n",
        &[
            r#"hotctl.toml:3: service.web.ports: "20000-29999": a string, where a list is due -> ports at the top of the file, above every table, is the range"#,
        ],
    );
    wrong_service(
        "ports = \"debug\"\n",
        &[
            r#"hotctl.toml:3: service.web.ports: "debug": a string, where a list is due -> ["debug"]"#,
        ],
    );
    wrong(
        Toml,
        &format!("ports = [\"debug\"]\n{LEAST}"),
        &[
            r#"hotctl.toml:1: ports: ["debug"]: a list, where a range of ports such as "20000-29999" is due -> names of ports are for a service: ports in [service.NAME]"#,
        ],
    );
    for address in ["port", "unix", "socket", "fixed:3000"] {
        let fields = format!(
            "address = \"{address}\"\nports = [\"debug\", \"a_1\"]\nrun = [\"app\", \"--inspect={{port.debug}}\"]\n"
        );
        config(Toml, &format!("{LEAST}{fields}")).unwrap();
    }
    let worker = "http = false\nports = [\"debug\"]\nrun = [\"app\", \"{port.debug}\"]\n";
    config(Toml, &format!("{LEAST}{worker}")).unwrap();
}

#[test]
fn a_level_is_changed_by_a_signal_that_ends_nothing_or_by_a_request() {
    const SIGNALS: &str = r#""USR1", "USR2", "HUP", "WINCH", "TTIN" or "TTOU""#;
    for (signal, reason, hint) in [
        ("TERM", "ends or stops a process, or lets it go on", SIGNALS),
        ("KILL", "ends or stops a process, or lets it go on", SIGNALS),
        (
            "SIGSTOP",
            "ends or stops a process, or lets it go on",
            SIGNALS,
        ),
        ("NONSENSE", "not a signal that can change a level", SIGNALS),
        (
            "SIGUSR1",
            "the name of a signal is written without SIG, in capitals",
            r#""USR1""#,
        ),
        (
            "hup",
            "the name of a signal is written without SIG, in capitals",
            r#""HUP""#,
        ),
    ] {
        wrong_service(
            &format!("log_level.signal = \"{signal}\"\n"),
            &[&format!(
                "hotctl.toml:3: service.web.log_level.signal: \"{signal}\": {reason} -> {hint}"
            )],
        );
    }
    for (request, reason, hint) in [
        (
            "/level",
            "not a method in capitals, a space and a path",
            r#"such as "PUT /loglevel?level={level}""#,
        ),
        (
            "put /level",
            "not a method in capitals, a space and a path",
            r#"such as "PUT /loglevel?level={level}""#,
        ),
        ("PUT level", "a path begins with \"/\"", r#""/level""#),
        (
            "PUT /a b",
            "a path has no space, \"#\" or other such character",
            r#"percent-encoding, as it is sent: "%20" for a space"#,
        ),
        ("PUT /{levl}", "{levl} stands for nothing here", "{level}"),
    ] {
        wrong_service(
            &format!("log_level.request = \"{request}\"\n"),
            &[&format!(
                "hotctl.toml:3: service.web.log_level.request: \"{request}\": {reason} -> {hint}"
            )],
        );
    }
    wrong_service(
        "[service.web.log_level]\nsignal = \"USR1\"\nrequest = \"PUT /x\"\nbody = \"{lvl}\"\ncontent_type = \"\"\ntimeout = \"0s\"\n",
        &[
            r#"hotctl.toml:5: service.web.log_level.request: "PUT /x": one way is enough (line 4) -> leave one of the two out"#,
            r#"hotctl.toml:6: service.web.log_level.body: "{lvl}": {lvl} stands for nothing here -> {level}"#,
            r#"hotctl.toml:7: service.web.log_level.content_type: "": not the type of a body -> such as "application/json""#,
            r#"hotctl.toml:8: service.web.log_level.timeout: "0s": must be above 0 -> leave it out for the default"#,
        ],
    );
    let without = r#"means nothing without request -> request = "PUT /loglevel?level={level}" beside it, or leave it out"#;
    wrong_service(
        "[service.web.log_level]\nsignal = \"HUP\"\nbody = \"x\"\ncontent_type = \"text/plain\"\ntimeout = \"1s\"\n",
        &[
            &format!("hotctl.toml:5: service.web.log_level.body: \"x\": {without}"),
            &format!(
                "hotctl.toml:6: service.web.log_level.content_type: \"text/plain\": {without}"
            ),
            &format!("hotctl.toml:7: service.web.log_level.timeout: \"1s\": {without}"),
        ],
    );
    wrong_service(
        "http = false\nlog_level.request = \"PUT /x\"\n",
        &[
            r#"hotctl.toml:4: service.web.log_level.request: "PUT /x": a worker has no address that it could be sent to (line 3) -> signal = "USR1", or http = true"#,
        ],
    );
    wrong_service(
        "log_level.request = \"PUT /x\"\nlog_level.content_type = \"text/plain\"\n",
        &[
            r#"hotctl.toml:4: service.web.log_level.content_type: "text/plain": the type of a body that is not there -> body = "{level}", say, beside it"#,
        ],
    );
    wrong_service(
        "log_level = \"debug\"\n",
        &[
            r#"hotctl.toml:3: service.web.log_level: "debug": a string, where a table is due -> how it is changed, such as log_level = { signal = "USR1" }; what it begins with is for env"#,
        ],
    );
    for good in [
        "log_level.signal = \"USR1\"",
        "http = false\nlog_level.signal = \"TTIN\"",
        "log_level.request = \"POST /l\"\nlog_level.body = '{\"level\":\"{level}\"}'\nlog_level.content_type = \"application/json\"",
        "log_level.request = \"PUT /l/{level}\"\nlog_level.timeout = \"1s\"",
    ] {
        config(Toml, &format!("{LEAST}{good}\n")).unwrap();
    }
}

#[test]
fn the_daemons_own_files_and_groups_are_ones() {
    wrong(
        Toml,
        &format!(
            "access_log = \"/var/log/\"\ninclude = \"\"\ncontrol.group = \"the boys\"\n{LEAST}"
        ),
        &[
            r#"hotctl.toml:1: access_log: "/var/log/": a folder, not a file -> "/var/log/access.log""#,
            r#"hotctl.toml:2: include: "": not a path -> leave it out for none"#,
            r#"hotctl.toml:3: control.group: "the boys": not the name of a group -> its name, such as "deploy""#,
        ],
    );
    for group in ["", "1000", "-x", "a:b"] {
        let text = format!("control.group = \"{group}\"\n{LEAST}");
        assert!(config(Toml, &text).is_err(), "{group:?}");
    }
    config(Toml, &format!("control.group = \"deploy-ers_2\"\n{LEAST}")).unwrap();
    wrong(
        Json,
        r#"{ "listen": [{ "address": "127.0.0.1:80" }], "service": { "web": { "env": { "A": 1 } } } }"#,
        &[
            "hotctl.json:1: service.web.env.A: a number, where a string is due -> the same in quotes",
        ],
    );
}
