#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
use std::path::{Path, PathBuf};
use std::time::Duration;

use hotctl_config::AddressKind;

use super::super::testing::made;

/// Every setting that air has, as its example names them.
const ALL: &str = r#"
root = "."
tmp_dir = "out"
testdata_dir = "fixtures"
env_files = [".env", ".env.local"]

[build]
pre_cmd = ["go generate ./...", "templ generate"]
cmd = "go build -o ./out/main ./cmd/api"
post_cmd = ["echo bye"]
bin = "out/main"
entrypoint = ["./out/main"]
full_bin = "APP_ENV=dev APP_USER=air ./out/main"
args_bin = ["--verbose", "hello"]
include_ext = ["go", "tpl"]
exclude_dir = ["assets", "out", "frontend/node_modules"]
include_dir = ["cmd", "../shared"]
include_file = ["config.yml"]
exclude_file = ["gen.go"]
exclude_regex = ["_test\\.go", "^(a|b)"]
exclude_unchanged = true
ignore_dangerous_root_dir = false
follow_symlink = true
log = "air.log"
poll = false
poll_interval = 500
delay = 200
stop_on_error = true
send_interrupt = true
kill_delay = 500
rerun = false
rerun_delay = 500

[[build.rules]]
name = "assets"
cmd = "npm run build"

[build.windows]
cmd = "go build -o ./out/main.exe ."

[log]
time = false
main_only = false
silent = false

[color]
main = "magenta"
mode = "auto"

[misc]
clean_on_exit = true
startup_banner = ""

[screen]
clear_on_rebuild = true
keep_scroll = true

[proxy]
enabled = true
proxy_port = 8090
app_port = 8081
app_start_timeout = 7000
"#;

#[test]
fn every_setting_is_in_the_configuration_or_told() {
    let made = made(&[(".env", "A=b\n"), (".air.toml", ALL)]).unwrap();
    let (app, build) = (made.service("app"), made.build());
    assert_eq!(made.port(), 8090);
    assert_eq!(app.address, AddressKind::Fixed(8081.try_into().unwrap()));
    assert_eq!(app.run, ["./main", "--verbose", "hello"]);
    assert_eq!(app.ignore, ["/*", "!/main"]);
    assert_eq!(
        (&*app.env["APP_ENV"], &*app.env["APP_USER"]),
        ("dev", "air")
    );
    assert_eq!(app.env_file.as_deref(), Some(Path::new("/x/.env")));
    assert_eq!(app.workdir.as_deref(), Some(Path::new("/x")));
    assert_eq!(app.start_timeout, Duration::from_secs(7));
    assert_eq!(app.stop_timeout, Duration::from_millis(500));
    assert_eq!(app.watch.settle, Duration::from_millis(200));
    assert_eq!(
        build.command,
        ["go", "build", "-o", "./out/main", "./cmd/api"]
    );
    assert_eq!(
        build.pre,
        ["sh", "-c", "(go generate ./...) && (templ generate)"]
    );
    assert_eq!(
        build.output,
        Some(PathBuf::from("/x/./out")).map(|it| it.components().collect())
    );
    assert_eq!(build.env_file.as_deref(), Some(Path::new("/x/.env")));
    assert_eq!(
        build.watch,
        ["/cmd/**/*.go", "/cmd/**/*.tpl", "/config.yml"]
    );
    assert_eq!(
        build.ignore,
        [
            ".*/",
            "/out",
            "/fixtures",
            "/assets",
            "/frontend/node_modules",
            "/gen.go",
            "*_test.go"
        ]
    );
    made.lost(&[
        "env_files",
        "build.post_cmd",
        "build.bin",
        "build.entrypoint",
        "build.include_dir",
        "build.exclude_regex",
        "build.exclude_unchanged",
        "build.ignore_dangerous_root_dir",
        "build.follow_symlink",
        "build.log",
        "build.poll",
        "build.poll_interval",
        "build.stop_on_error",
        "build.rerun",
        "build.rerun_delay",
        "build.rules",
        "build.windows.cmd",
        "log.time",
        "log.main_only",
        "log.silent",
        "color.main",
        "color.mode",
        "misc.clean_on_exit",
        "misc.startup_banner",
        "screen.clear_on_rebuild",
        "screen.keep_scroll",
        "proxy.enabled",
    ]);
    assert!(
        !made
            .unmapped
            .iter()
            .any(|it| it.contains("that hotctl knows")),
        "{:?}",
        made.unmapped
    );
}

#[test]
fn what_air_takes_by_itself_is_written_out() {
    let made = made(&[(".air.toml", "")]).unwrap();
    let (app, build) = (made.service("app"), made.build());
    assert_eq!(made.port(), 8080);
    assert_eq!(build.command, ["go", "build", "-o", "./tmp/main", "."]);
    assert_eq!(build.output, Some(PathBuf::from("/x/tmp/main")));
    assert_eq!(build.watch, ["*.go", "*.tpl", "*.tmpl", "*.html"]);
    assert_eq!(
        build.ignore,
        [
            ".*/",
            "/tmp",
            "/assets",
            "/vendor",
            "/testdata",
            "*_test.go"
        ]
    );
    assert!(app.run.is_empty());
    made.lost(&[]);
}

#[test]
fn what_is_run_decides_what_a_release_is() {
    type Case<'a> = (&'a str, &'a str, &'a [&'a str], &'a [&'a str]);
    // The settings, what is deployed, what is run, what runs before.
    let cases: [Case; 10] = [
        (
            "bin = './bin/api'\ncmd = 'make api'",
            "/x/bin/api",
            &[],
            &[],
        ),
        ("cmd = 'go build -o app'\nbin = 'app'", "/x/app", &[], &[]),
        (
            "cmd = 'go build -o app'\nbin = './app serve'",
            "/x/tmp",
            &["./app", "serve"],
            &[],
        ),
        (
            "cmd = 'go build -o /tmp/main .'\nbin = '/tmp/main -a 0'",
            "/tmp",
            &["./main", "-a", "0"],
            &[],
        ),
        (
            "cmd = 'go build -o bin/app'\nfull_bin = 'dlv exec ./bin/app --headless'",
            "/x/bin",
            &["dlv", "exec", "{release}/app", "--headless"],
            &[],
        ),
        (
            "cmd = 'go build -o ./tmp .'\nfull_bin = 'export A=1; ./tmp/main | cat'",
            "/x/tmp",
            &["sh", "-c", "export A=1; \"{release}/main\" | cat"],
            &[],
        ),
        (
            "entrypoint = ['./tmp/main', '-x']",
            "/x/tmp",
            &["./main", "-x"],
            &[],
        ),
        (
            "cmd = 'templ generate'\nfull_bin = 'go run .'",
            "",
            &["go", "run", "."],
            &["templ", "generate"],
        ),
        (
            "cmd = 'echo x'\npre_cmd = ['a', 'b # c']\nbin = 'python main.py'",
            "",
            &["python", "main.py"],
            &["sh", "-c", "(a) && (b # c\n) && (echo x)"],
        ),
        (
            "[build.linux]\nbin = './l'\ncmd = 'x -o ./l'",
            "/x/l",
            &[],
            &[],
        ),
    ];
    for (text, output, run, before) in cases {
        let made = made(&[(".air.toml", &format!("[build]\n{text}\n"))]).unwrap();
        let app = made.service("app");
        let said = made.build().output.as_ref().map_or(String::new(), |it| {
            it.components().collect::<PathBuf>().display().to_string()
        });
        assert_eq!(said, output, "{text}\n{}", made.text);
        assert_eq!(app.run, run, "{text}");
        assert_eq!(app.before_start, before, "{text}");
        assert_eq!(
            made.build().command.is_empty(),
            !before.is_empty(),
            "{text}"
        );
        made.lost(&[]);
    }
}

#[test]
fn a_root_below_is_where_it_looks_and_a_port_in_the_source_is_where_it_listens() {
    let made = made(&[
        ("api/main.go", "http.ListenAndServe(\":8080\", nil)"),
        (
            ".air.toml",
            "root = 'api'\n[build]\ndelay = 1000\nexclude_dir = ['x']\n",
        ),
    ])
    .unwrap();
    let app = made.service("app");
    assert_eq!(app.address, AddressKind::Fixed(8080.try_into().unwrap()));
    assert_eq!(made.port(), 8081);
    assert_eq!(made.build().root.as_deref(), Some(Path::new("/x")));
    assert_eq!(made.build().watch[0], "/api/**/*.go");
    assert_eq!(
        made.build().ignore,
        [".*/", "/api/tmp", "/api/x", "*_test.go"]
    );
    made.lost(&["build.delay"]);
}

#[test]
fn a_time_to_end_is_read_as_air_does() {
    for (written, time) in [
        ("0", 0),
        ("500", 500),
        ("500000000", 500),
        ("'500ms'", 500),
        ("'0.5s'", 500),
        ("'1m30s'", 90_000),
    ] {
        let text = format!("[build]\nsend_interrupt = true\nkill_delay = {written}\n");
        let made = made(&[(".air.toml", &text)]).unwrap();
        let stop = made.service("app").stop_timeout;
        assert_eq!(stop, Duration::from_millis(time), "{written}");
    }
    let made = made(&[(
        ".air.toml",
        "[build]\nsend_interrupt = false\nkill_delay = '0s'\n",
    )]);
    made.unwrap().lost(&["build.kill_delay"]);
}

#[test]
fn what_is_wrong_is_told_with_its_line() {
    let cases = [
        ("[build\n", ":1: ", "TOML"),
        (
            "root = '.'\n[build]\ncmd = 3\n",
            ":3: build.cmd: 3: not a text",
            "text",
        ),
        (
            "[build]\ncmd = 'echo \"'\n",
            ":2: build.cmd: \"echo \\\"\": a quote",
            "shell",
        ),
        (
            "[build]\ninclude_ext = [1]\n",
            ":2: build.include_ext: [1]: not a list",
            "list",
        ),
        (
            "[build]\ndelay = -1\n",
            ":2: build.delay: -1: not a whole",
            "number",
        ),
        (
            "[build]\ndelay = '1s'\n",
            ":2: build.delay: \"1s\": not a whole",
            "number",
        ),
        (
            "[proxy]\nenabled = true\napp_port = 70000\n",
            ":3: proxy.app_port: 70000: not a port",
            "port",
        ),
        (
            "[build]\nsend_interrupt = true\nkill_delay = 'soon'\n",
            ":3: build.kill_delay",
            "500ms",
        ),
    ];
    for (text, said, hint) in cases {
        let refused = made(&[(".air.toml", text)]).unwrap_err();
        let shown = refused.to_string();
        assert!(shown.contains(&format!(".air.toml{said}")), "{shown}");
        assert!(refused.hint.unwrap().contains(hint), "{shown}");
    }
}
