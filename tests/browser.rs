//! `hotctl dev` in a real browser: what fails is shown over the page that still serves, and what is live
//! comes by itself.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};

use crate::support::browser::{Browser, Tab};
use crate::support::desk::Desk;
use crate::support::{eventually, http};

/// An app with a page, its style, and all else that a page may be; what is `v1` here is what is edited.
const APP: &str = r##"
import base64, gzip, hashlib, http.server, json, os
PAGE = b"""<!doctype html>
<html><head><title>shop</title><link rel="stylesheet" href="/style.css"></head>
<body><h1>Welcome to the shop</h1><p id="version">v1</p>
<script>
  const seen = JSON.parse(sessionStorage.seen || "[]");
  seen.push(performance.getEntriesByType("navigation")[0].responseStatus);
  sessionStorage.seen = JSON.stringify(seen);
</script></body></html>"""
posts = 0
POLICY = "default-src 'none'; script-src 'nonce-own'; style-src 'self'"
class H(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def log_message(self, *args): pass
    def say(self, kind, body, status=200, **headers):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
    def do_HEAD(self): self.do_GET()
    def do_POST(self):
        global posts
        posts += 1
        self.say("text/html; charset=utf-8", PAGE.replace(b"Welcome", b"Thank you %d times" % posts))
    def do_GET(self):
        html = "text/html; charset=utf-8"
        self.path = self.path.split("?")[0]
        if self.path == "/": self.say(html, PAGE)
        elif self.path == "/style.css": self.say("text/css", open("style.css", "rb").read())
        elif self.path == "/policy": self.say(html, PAGE, Content_Security_Policy=POLICY)
        elif self.path == "/packed": self.say(html, gzip.compress(PAGE), Content_Encoding="gzip")
        elif self.path == "/broken": self.say(html, PAGE, 500)
        elif self.path == "/data": self.say("application/json", b'{"html":"<html>"}', ETag='"1"')
        elif self.path == "/part": self.say(html, PAGE[:10], 206, Content_Range="bytes 0-9/100")
        elif self.path == "/stream":
            self.send_response(200)
            self.send_header("Content-Type", html)
            self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(b"<!doctype html><p id=first>first</p>")
            self.wfile.flush()
            self.rfile.read(1)
        elif self.path == "/events":
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.end_headers()
            self.wfile.write(b"data: <html>\n\n")
            self.wfile.flush()
            self.rfile.read(1)
        elif self.path == "/ws":
            key = self.headers["Sec-WebSocket-Key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
            self.send_response(101)
            self.send_header("Connection", "Upgrade")
            self.send_header("Upgrade", "websocket")
            accept = base64.b64encode(hashlib.sha1(key.encode()).digest()).decode()
            self.send_header("Sec-WebSocket-Accept", accept)
            self.end_headers()
            self.wfile.write(b"\x81\x06<html>")
            self.wfile.flush()
            self.rfile.read(1)
        else: self.say("text/plain", b"", 404)
http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), H).serve_forever()
"##;

const STYLE: &str = "body { font: 18px system-ui; margin: 3rem } h1 { color: rgb(0, 0, 128) }\n";

/// As cargo says it, in its colours.
const ERROR: &str = "\u{1b}[1m\u{1b}[91merror[E0308]\u{1b}[0m\u{1b}[1m: mismatched types, expected `Vec<T>`\u{1b}[0m\n  --> src/shop.rs:3:5\n";

/// A build that leaves what is in `src/app.py`, and fails while there is a file `src/broken`.
const CONFIG: &str = "[service.web]\nrun = [\"python3\", \"{release}/app.py\"]\nworkdir = \"src\"\n\
    [service.web.build]\ncommand = [\"sh\", \"-c\", \"if [ -e broken ]; then cat broken >&2; exit 101; fi; \
    mkdir -p ../out; cp app.py ../out/new; mv ../out/new ../out/app.py\"]\n\
    root = \"src\"\noutput = \"../out\"\nassets = [\"*.css\"]\n";

fn files(broken: bool) -> Vec<(&'static str, &'static str)> {
    let mut files = vec![
        ("hotctl.toml", CONFIG),
        ("src/app.py", APP),
        ("src/style.css", STYLE),
        ("src/shop.rs", "fn shop() {}\n"),
    ];
    if broken {
        files.push(("src/broken", ERROR));
    }
    files
}

fn shop(broken: bool) -> Desk {
    Desk::open(&files(broken), &[])
}

fn serves(desk: &Desk) {
    eventually(&format!("it serves:\n{}", desk.dev.stdout()), || {
        desk.answer().contains("Welcome")
    });
}

fn page(desk: &Desk, path: &str) -> String {
    format!("http://{}{path}", desk.listen)
}

fn has_version(tab: &mut Tab, version: &str) {
    let expression = format!("document.getElementById('version')?.innerText === '{version}'");
    tab.until("it shows the version", &expression);
}

/// Where pictures go: those of the README with `HOTCTL_PICTURES`, see `./dev pictures`.
fn picture(name: &str) -> PathBuf {
    let folder = match std::env::var_os("HOTCTL_PICTURES") {
        Some(folder) => PathBuf::from(folder),
        None => Path::new(env!("CARGO_TARGET_TMPDIR")).join("pictures"),
    };
    folder.join(name)
}

#[test]
fn what_fails_is_shown_over_the_page_and_what_is_live_comes_by_itself() {
    let desk = shop(false);
    serves(&desk);
    let browser = Browser::start();
    let mut tab = browser.open(&page(&desk, "/"));
    has_version(&mut tab, "v1");
    assert_eq!(tab.overlay(), "");
    // Each save is there, without an error in between.
    for version in ["v2", "v3", "v4"] {
        desk.save("src/app.py", &APP.replace("v1", version));
        has_version(&mut tab, version);
    }
    // What fails is told over the page, which stays.
    desk.save("src/broken", ERROR);
    tab.shows("serving web@4; build of web@5 failed");
    tab.shows("s ago");
    let text = tab.overlay();
    for words in [
        "src/shop.rs:3:5",
        "mismatched types, expected `Vec<T>`",
        "error[E0308]: mismatched types, expected `Vec<T>`",
        "exit status 101",
    ] {
        assert!(text.contains(words), "{words}:\n{text}");
    }
    assert!(!text.contains('\u{1b}'), "{text:?}");
    let link = "document.querySelector('hotctl-overlay').shadowRoot.querySelector('a').href";
    let file = desk.path("src/shop.rs").canonicalize().unwrap();
    assert_eq!(
        tab.evaluate(link),
        format!("vscode://file{}:3:5", file.display())
    );
    let colour = "getComputedStyle([...document.querySelector('hotctl-overlay').shadowRoot\
        .querySelectorAll('pre span')].find(it => it.innerText.startsWith('error[')))\
        .color";
    assert_eq!(tab.evaluate(colour), "rgb(255, 123, 114)");
    has_version(&mut tab, "v4");
    tab.picture(&picture("overlay.png"));
    // Put away, it stays away until something else fails.
    tab.evaluate("dispatchEvent(new KeyboardEvent('keydown', { key: 'Escape' }))");
    tab.until("it is gone", "!document.querySelector('hotctl-overlay')");
    desk.save(
        "src/broken",
        &ERROR.replace("mismatched", "still mismatched"),
    );
    tab.shows("still mismatched");
    // Gone by itself once it is mended.
    fs::remove_file(desk.path("src/broken")).unwrap();
    desk.save("src/app.py", &APP.replace("v1", "v5"));
    has_version(&mut tab, "v5");
    tab.until("it is gone", "!document.querySelector('hotctl-overlay')");
    // A version that does not start is as much a failure as one that is not built.
    desk.save("src/app.py", "raise SystemExit('no <table> here')");
    tab.shows("serving web@5; web@6 failed");
    tab.shows("no <table> here");
    has_version(&mut tab, "v5");
    // All that this tab has ever loaded was good.
    let seen = tab.evaluate("sessionStorage.seen");
    let seen: Vec<u16> = serde_json::from_str(seen.as_str().unwrap()).unwrap();
    assert!(seen.len() >= 5, "{seen:?}");
    assert!(seen.iter().all(|status| *status == 200), "{seen:?}");
    drop(browser);
    desk.close();
}

#[test]
fn where_nothing_was_ever_good_the_error_is_the_page_until_it_is_mended() {
    let desk = shop(true);
    desk.says("expected `Vec<T>`");
    let browser = Browser::start();
    let mut tab = browser.open(&page(&desk, "/"));
    tab.shows("nothing serves; build of web@1 failed");
    tab.shows("src/shop.rs:3:5");
    tab.picture(&picture("error-page.png"));
    fs::remove_file(desk.path("src/broken")).unwrap();
    has_version(&mut tab, "v1");
    assert_eq!(tab.overlay(), "");
    // And it finds hotctl again, whatever became of it meanwhile.
    let desk = desk.again(|folder| {
        fs::write(folder.join("src/app.py"), APP.replace("v1", "v2")).unwrap();
    });
    has_version(&mut tab, "v2");
    drop(browser);
    desk.close();
}

#[test]
fn a_style_sheet_is_another_without_loading_the_page_anew() {
    let desk = shop(false);
    serves(&desk);
    let browser = Browser::start();
    let mut tab = browser.open(&page(&desk, "/"));
    has_version(&mut tab, "v1");
    tab.until("its script has come", "window.__hotctl");
    let has_colour = |tab: &mut Tab, colour: &str| {
        let expression =
            format!("getComputedStyle(document.querySelector('h1')).color === '{colour}'");
        tab.until("it has the colour", &expression);
    };
    has_colour(&mut tab, "rgb(0, 0, 128)");
    tab.evaluate("window.mark = 'the same page'");
    for colour in ["rgb(128, 0, 0)", "rgb(0, 128, 0)"] {
        desk.save("src/style.css", &STYLE.replace("rgb(0, 0, 128)", colour));
        has_colour(&mut tab, colour);
    }
    assert_eq!(tab.evaluate("window.mark"), "the same page");
    desk.says("assets changed");
    drop(browser);
    let said = desk.close();
    assert!(!said.contains("web@2"), "{said}");
}

#[test]
fn every_kind_of_page_gets_the_script_and_nothing_else_is_touched() {
    let desk = shop(false);
    serves(&desk);
    let browser = Browser::start();
    for path in ["/policy", "/packed", "/broken", "/stream"] {
        let mut tab = browser.open(&page(&desk, path));
        tab.until("its script runs", "window.__hotctl");
        // Also where nothing else may.
        desk.save("src/broken", ERROR);
        tab.shows("build of web@2 failed");
        fs::remove_file(desk.path("src/broken")).unwrap();
        eventually("it is mended", || tab.overlay().is_empty());
    }
    let mut tab = browser.open(&page(&desk, "/"));
    for (expression, expected) in [
        (
            "fetch('/').then(it => it.text()).then(it => it.includes('__hotctl'))",
            "false",
        ),
        (
            "fetch('/data').then(it => it.text())",
            r#""{\"html\":\"<html>\"}""#,
        ),
        (
            "new Promise(done => new EventSource('/events').onmessage = it => done(it.data))",
            r#""<html>""#,
        ),
        (
            "new Promise(done => new WebSocket('ws://' + location.host + '/ws').onmessage = it => done(it.data))",
            r#""<html>""#,
        ),
    ] {
        assert_eq!(
            tab.evaluate(expression).to_string(),
            expected,
            "{expression}"
        );
    }
    let mut connection = TcpStream::connect(desk.listen).unwrap();
    let head =
        "HEAD / HTTP/1.1\r\nhost: test\r\nconnection: close\r\nsec-fetch-dest: document\r\n\r\n";
    connection.write_all(head.as_bytes()).unwrap();
    let mut head = String::new();
    connection.read_to_string(&mut head).unwrap();
    assert!(
        head.to_ascii_lowercase().contains("content-length: "),
        "{head}"
    );
    let part = "GET /part HTTP/1.1\r\nhost: test\r\nsec-fetch-dest: document\r\n\r\n";
    let part = http::ask(desk.listen, part).has_status(206);
    assert_eq!(part.text(), "<!doctype ");
    assert_eq!(http::get(desk.listen, "/__hotctl/nothing").head.status, 404);
    drop(browser);
    desk.close();
}

#[test]
fn what_a_form_has_brought_is_not_loaded_anew() {
    let desk = shop(false);
    serves(&desk);
    let browser = Browser::start();
    let mut form = browser.open(&page(&desk, "/"));
    has_version(&mut form, "v1");
    form.evaluate(
        "document.body.innerHTML = '<form method=post action=/buy></form>'; document.forms[0].submit()",
    );
    form.until(
        "it is sent",
        "location.pathname === '/buy' && window.__hotctl",
    );
    let mut other = browser.open(&page(&desk, "/"));
    has_version(&mut other, "v1");
    desk.save("src/app.py", &APP.replace("v1", "v2"));
    has_version(&mut other, "v2");
    // Both have heard of it, but for what is under way between the two.
    desk.save("src/broken", ERROR);
    form.shows("build of web@3 failed");
    form.until(
        "it was sent once",
        "document.body.innerText.includes('Thank you 1 times')",
    );
    has_version(&mut form, "v1");
    drop(browser);
    desk.close();
}

#[test]
fn the_tenth_tab_still_loads_and_all_of_them_follow() {
    let desk = shop(false);
    serves(&desk);
    let browser = Browser::start();
    let mut tabs: Vec<Tab> = (0..10).map(|_| browser.open(&page(&desk, "/"))).collect();
    for tab in &mut tabs {
        has_version(tab, "v1");
        tab.until("its script has come", "window.__hotctl");
    }
    desk.save("src/app.py", &APP.replace("v1", "v2"));
    for tab in &mut tabs {
        has_version(tab, "v2");
    }
    drop(browser);
    desk.close();
}
