#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
use std::path::Path;

use hotctl_config::AddressKind;

use super::super::testing::made;

/// As for a Rails app on Heroku, and more of what people write.
const RAILS: &str = "\
# Served by puma.
web: RAILS_ENV=production bundle exec puma -t 5:5 -p ${PORT:-3000} -e production

worker: bundle exec sidekiq -C config/sidekiq.yml
Clock_Work: bin/clock
api: ./bin/api --port $PORT
release: bundle exec rake db:migrate
css: cd frontend && npm run watch | cat
# cable: puma -p 28080 cable/config.ru
";

#[test]
fn each_process_is_a_service() {
    let made = made(&[("Procfile", RAILS)]).unwrap();
    let names: Vec<&str> = made
        .config
        .services
        .keys()
        .map(|name| name.as_str())
        .collect();
    assert_eq!(names, ["api", "clock-work", "css", "web", "worker"]);
    let web = made.service("web");
    assert!(web.http && web.hosts.is_empty());
    let shell = |line: &str| ["sh", "-c", line].map(ToOwned::to_owned);
    assert_eq!(
        web.run,
        shell("RAILS_ENV=production bundle exec puma -t 5:5 -p ${PORT:-3000} -e production")
    );
    assert_eq!(web.before_start, ["bundle", "exec", "rake", "db:migrate"]);
    assert_eq!(web.workdir.as_deref(), Some(Path::new("/x")));
    assert_eq!(web.build.root.as_deref(), Some(Path::new("/x")));
    let api = made.service("api");
    assert!(api.http);
    assert_eq!(api.hosts[0].as_str(), "api.localhost");
    assert_eq!(api.run, shell("exec ./bin/api --port {port}"));
    for (name, run) in [
        (
            "worker",
            vec!["bundle", "exec", "sidekiq", "-C", "config/sidekiq.yml"],
        ),
        ("clock-work", vec!["sh", "-c", "exec bin/clock"]),
        (
            "css",
            vec!["sh", "-c", "cd frontend && npm run watch | cat"],
        ),
    ] {
        let worker = made.service(name);
        assert!(!worker.http && worker.overlap, "{name}");
        assert_eq!(worker.run, run);
    }
    assert_eq!(made.port(), 5000);
    made.lost(&["a comment"]);
    assert!(made.text.contains("# Served by puma."), "{}", made.text);
    assert!(
        made.text
            .contains("# From Procfile:5: Clock_Work: bin/clock"),
        "{}",
        made.text
    );
}

#[test]
fn ports_are_those_of_whoever_wrote_it() {
    let cases = [
        // The port in front is where people expect it; the app gets its own.
        ("web: PORT=3000 node a.js", 3000, AddressKind::Port),
        ("a: sleep 9\nweb: thin start", 5100, AddressKind::Port),
        ("release: ./r\nweb: thin start", 5100, AddressKind::Port),
        (
            "web: thin start -p 3000",
            5000,
            AddressKind::Fixed(3000.try_into().unwrap()),
        ),
        (
            "web: thin start -p 5000",
            5001,
            AddressKind::Fixed(5000.try_into().unwrap()),
        ),
        (
            "web: a -p 25000",
            5000,
            AddressKind::Fixed(25_000.try_into().unwrap()),
        ),
        ("web: PORT=25000 a", 25_000, AddressKind::Port),
    ];
    for (text, port, address) in cases {
        let made = made(&[("Procfile.dev", text)]).unwrap();
        assert_eq!(made.port(), port, "{text}\n{}", made.text);
        assert_eq!(made.service("web").address, address, "{text}");
        made.lost(&[]);
    }
    let made = made(&[(
        "Procfile",
        "web: PORT=3000 a\napi: PORT=3001 b\nvite: vite --port 5173\n",
    )])
    .unwrap();
    assert_eq!(made.port(), 3000);
    made.lost(&["api"]);
    assert!(!made.service("vite").overlap, "{}", made.text);
}

#[test]
fn only_workers_and_a_file_of_variables_beside_them() {
    let files = [
        (".env", "A=b\n"),
        ("Procfile", "a_b: A=1 x\na-b: y\nrelease: z $PORT\n"),
    ];
    let made = made(&files).unwrap();
    let first = made.service("a-b");
    assert_eq!(first.env["A"], "1");
    assert_eq!(first.before_start, ["sh", "-c", "z $PORT"]);
    assert_eq!(first.env_file.as_deref(), Some(Path::new("/x/.env")));
    assert!(!made.service("a-b-2").http);
    let text = made.text.replace("\n# ", " ");
    assert!(text.contains("chmod o= .env"), "{text}");
}

#[test]
fn what_is_no_procfile_is_refused_with_its_line() {
    let cases = [
        ("", "Procfile: has no process", "web:"),
        ("# nothing\n", "Procfile: has no process", "web:"),
        ("release: x\n", "Procfile: has no process", "web:"),
        (
            "web: a\nweb b\n",
            "Procfile:2: \"web b\": not a name",
            "comment",
        ),
        (
            "web: a\n: b\n",
            "Procfile:2: \": b\": not a name",
            "comment",
        ),
        ("web:\n", "Procfile:1: \"web:\": no command", "shell"),
        (
            "web: echo 'a\n",
            "Procfile:1: \"web: echo 'a\": a quote that is not closed",
            "shell",
        ),
        (
            "web: a\nx: b\nweb: c\n",
            "Procfile:3: \"web: c\": web stands twice, first in line 1",
            "name",
        ),
        (
            "web: a {socket}\n",
            "Procfile: no good configuration comes of it: service.web.run[1]",
            "change",
        ),
    ];
    for (text, said, hint) in cases {
        let refused = made(&[("Procfile", text)]).unwrap_err();
        let text = refused.to_string();
        assert!(
            text.contains(said.strip_prefix("Procfile").unwrap()),
            "{text}"
        );
        assert!(refused.hint.unwrap().contains(hint), "{text}");
    }
}
