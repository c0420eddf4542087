#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
use std::path::Path;
use std::time::Duration;

use hotctl_config::AddressKind;

use super::super::testing::made;

/// Every setting that nodemon has.
const ALL: &str = r#"{
  "$schema": "https://json.schemastore.org/nodemon.json",
  "restartable": "rs",
  "colours": true,
  "verbose": true,
  "quiet": false,
  "signal": "SIGHUP",
  "stdin": true,
  "stdout": true,
  "runOnChangeOnly": false,
  "legacyWatch": true,
  "pollingInterval": 100,
  "watchOptions": { "usePolling": true },
  "spawn": false,
  "exitCrash": false,
  "dump": false,
  "monitor": ["x"],
  "js": true,
  "noUpdateNotifier": true,
  "configFile": null,
  "execMap": { "rb": "ruby -v", "ts": "node --loader ts-node/esm" },
  "script": "src/index.ts",
  "args": ["--name", "a b"],
  "execArgs": ["--inspect"],
  "watch": ["src", "config/*.yaml", "../shared"],
  "ext": "ts,json",
  "ignore": [".git", "src/**/*.spec.ts"],
  "delay": 2500,
  "env": { "NODE_ENV": "development", "PORT": 4000, "DEBUG": true, "HOST": "0.0.0.0" },
  "events": {
    "start": "echo started",
    "restart": "notify $FILENAME",
    "crash": "echo crashed"
  }
}"#;

#[test]
fn every_setting_is_in_the_configuration_or_told() {
    let made = made(&[("nodemon.json", ALL)]).unwrap();
    let (app, build) = (made.service("app"), made.build());
    assert_eq!(made.port(), 4000);
    assert_eq!(
        app.run,
        [
            "node",
            "--loader",
            "ts-node/esm",
            "--inspect",
            "src/index.ts",
            "--name",
            "a b"
        ]
    );
    assert_eq!(
        (&*app.env["NODE_ENV"], &*app.env["DEBUG"]),
        ("development", "true")
    );
    assert_eq!(app.env.len(), 2);
    assert_eq!(app.on_live, ["echo", "started"]);
    assert_eq!(app.watch.settle, Duration::from_millis(2500));
    assert_eq!(app.watch.max_wait, Duration::from_millis(2500));
    assert_eq!(app.workdir.as_deref(), Some(Path::new("/x")));
    assert_eq!(build.root.as_deref(), Some(Path::new("/x")));
    assert!(build.command.is_empty());
    assert_eq!(
        build.watch,
        ["/src/**/*.ts", "/src/**/*.json", "/config/*.yaml"]
    );
    assert_eq!(
        build.ignore,
        [
            "bower_components",
            "coverage",
            ".*",
            ".git",
            "/src/**/*.spec.ts"
        ]
    );
    made.lost(&[
        "$schema",
        "restartable",
        "colours",
        "verbose",
        "quiet",
        "signal",
        "stdin",
        "stdout",
        "runOnChangeOnly",
        "legacyWatch",
        "pollingInterval",
        "watchOptions.usePolling",
        "spawn",
        "exitCrash",
        "dump",
        "monitor",
        "js",
        "noUpdateNotifier",
        "execMap.rb",
        "watch",
        "env.HOST",
        "events.restart",
        "events.crash",
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

const BIN: &str = "export PATH=\"$PWD/node_modules/.bin:$PATH\"; ";

#[test]
fn what_nodemon_would_run_is_run() {
    type Files<'a> = &'a [(&'a str, &'a str)];
    let of_bin = |line: &str| vec!["sh".into(), "-c".into(), format!("{BIN}{line}")];
    let words = |words: &[&str]| words.iter().map(ToString::to_string).collect::<Vec<_>>();
    let cases: Vec<(Files, Vec<String>)> = vec![
        (
            &[("nodemon.json", r#"{"exec": "ts-node src/a.ts"}"#)],
            of_bin("exec ts-node src/a.ts"),
        ),
        (
            &[("nodemon.json", r#"{"exec": "tsc && node dist/a.js"}"#)],
            of_bin("tsc && node dist/a.js"),
        ),
        (
            &[(
                "nodemon.json",
                r#"{"exec": "python -v {{filename}}", "script": "a.py"}"#,
            )],
            words(&["python", "-v", "a.py"]),
        ),
        (
            &[("nodemon.json", r#"{"script": "a.py"}"#)],
            words(&["python", "a.py"]),
        ),
        (
            &[(
                "nodemon.json",
                r#"{"exec": ["node", "--inspect"], "script": "a.js"}"#,
            )],
            words(&["node", "--inspect", "a.js"]),
        ),
        (
            &[
                ("package.json", r#"{"main": "lib/a.js"}"#),
                ("nodemon.json", "{}"),
            ],
            words(&["node", "lib/a.js"]),
        ),
        (
            &[
                ("package.json", r#"{"scripts": {"start": "node b.js"}}"#),
                ("nodemon.json", "{}"),
            ],
            words(&["node", "b.js"]),
        ),
        (
            &[("index.js", ""), ("nodemon.json", "{}")],
            words(&["node", "index.js"]),
        ),
        (
            &[
                (
                    "package.json",
                    r#"{"scripts": {"dev": "nodemon src/a.ts"}}"#,
                ),
                ("nodemon.json", r#"{"exec": "ts-node"}"#),
            ],
            of_bin("exec ts-node src/a.ts"),
        ),
        (
            &[
                (
                    "package.json",
                    r#"{"scripts": {"dev": "nodemon a.js", "debug": "nodemon --config nodemon-debug.json --inspect b.js"}}"#,
                ),
                ("nodemon-debug.json", "{}"),
            ],
            words(&["node", "--inspect", "b.js"]),
        ),
        (
            &[("package.json", r#"{"nodemonConfig": {"exec": "./run.sh"}}"#)],
            words(&["sh", "-c", "exec ./run.sh"]),
        ),
        (
            &[("package.json", r#"{"scripts": {"dev": "vite"}}"#)],
            of_bin("exec vite"),
        ),
        (
            &[(
                "package.json",
                r#"{"scripts": {"start": "next start -p $PORT", "dev": "next dev"}}"#,
            )],
            of_bin("exec next start -p {port}"),
        ),
    ];
    for (files, run) in cases {
        let made = made(files).unwrap();
        assert_eq!(made.service("app").run, run, "{files:?}\n{}", made.text);
    }
}

#[test]
fn a_package_says_how_it_is_run_and_the_rest_is_told() {
    let package = r#"{
  "name": "shop",
  "version": "1.0.0",
  "main": "server.js",
  "scripts": {
    "dev": "NODE_ENV=development nodemon --delay 500ms -w lib server.js --quiet",
    "build": "tsc",
    "prestart": "npm run build",
    "start": "node server.js"
  },
  "dependencies": { "express": "^4" },
  "nodemonConfig": { "watch": ["src"], "ext": "js", "verbose": true }
}"#;
    let listens = "app.listen(3000)";
    let made = made(&[("server.js", listens), ("package.json", package)]).unwrap();
    let app = made.service("app");
    assert_eq!(app.run, ["node", "server.js", "--quiet"]);
    assert_eq!(app.env["NODE_ENV"], "development");
    assert_eq!(app.address, AddressKind::Fixed(3000.try_into().unwrap()));
    assert_eq!(made.port(), 3001);
    assert_eq!(app.watch.settle, Duration::from_millis(500));
    assert_eq!(made.build().watch, ["/lib/**/*.js"]);
    made.lost(&[
        "name, version, main, dependencies",
        "scripts.build",
        "scripts.prestart",
        "scripts.start",
        "nodemonConfig.watch",
        "nodemonConfig.verbose",
    ]);
}

#[test]
fn a_package_without_nodemon_is_run_as_npm_starts_it() {
    let package =
        r#"{"scripts": {"prestart": "tsc", "start": "PORT=4000 node a.js", "test": "x"}}"#;
    let made = made(&[("package.json", package)]).unwrap();
    let app = made.service("app");
    assert_eq!(app.run, ["node", "a.js"]);
    assert_eq!(app.before_start, ["npm", "run", "--silent", "prestart"]);
    assert_eq!(made.port(), 4000);
    assert!(made.build().watch.contains(&"*.ts".to_owned()));
    made.lost(&["scripts.test"]);
}

#[test]
fn what_is_wrong_is_told_with_its_line() {
    let cases = [
        (
            "nodemon.json",
            "{\n  \"exec\": \"a\",\n}",
            ":3: trailing comma",
            "JSON",
        ),
        (
            "nodemon.json",
            "{\n  // no\n  \"exec\": \"a\"}",
            ":2: ",
            "JSON",
        ),
        ("nodemon.json", "[]", "names no program", "exec"),
        ("nodemon.json", "{}", "names no program", "exec"),
        (
            "nodemon.json",
            "{\n\"exec\": 3}",
            ":2: exec: 3: not a list",
            "list",
        ),
        (
            "nodemon.json",
            "{\n\"exec\": \"a 'b\"}",
            ":2: exec: \"a 'b\": a quote",
            "shell",
        ),
        (
            "nodemon.json",
            "{\"exec\": \"a\",\n\"delay\": \"x\"}",
            ":2: delay: \"x\": not a time",
            "2500",
        ),
        ("package.json", "{}", "names no program", "start"),
        (
            "package.json",
            "{\"scripts\":\n{\"start\": \"a 'b\"}}",
            ":2: scripts.start",
            "shell",
        ),
    ];
    for (name, text, said, hint) in cases {
        let refused = made(&[(name, text)]).unwrap_err();
        let shown = refused.to_string();
        assert!(shown.contains(said), "{shown}");
        assert!(refused.hint.unwrap().contains(hint), "{shown}");
    }
}
