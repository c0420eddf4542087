//! A real browser without a window: Chromium, by its DevTools protocol.

use std::fs;
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;

use data_encoding::BASE64;
use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio_tungstenite::tungstenite::stream::MaybeTlsStream;
use tokio_tungstenite::tungstenite::{Message, WebSocket, connect};

use super::eventually::{eventually, eventually_some};
use super::http;
use super::program::{self, Running};

/// See the head of this file. Ends with its tabs.
pub struct Browser {
    running: Option<Running>,
    port: u16,
    _profile: TempDir,
}

/// One page.
pub struct Tab {
    socket: WebSocket<MaybeTlsStream<TcpStream>>,
    calls: u64,
}

impl Browser {
    pub fn start() -> Self {
        let profile = tempfile::Builder::new()
            .prefix("hotctl-test-browser-")
            .tempdir()
            .unwrap();
        let mut command = Command::new("chromium");
        // Root has no sandbox; small machines and containers have little shared memory.
        command.args([
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--no-first-run",
            "--disable-background-networking",
            "--window-size=1000,640",
            "--remote-debugging-port=0",
        ]);
        command.arg(format!("--user-data-dir={}", profile.path().display()));
        command.arg("about:blank").env("HOME", profile.path());
        let running = program::start(&mut command);
        let file = profile.path().join("DevToolsActivePort");
        let port = eventually_some("chromium says where it listens", || {
            let text = fs::read_to_string(&file).ok()?;
            text.lines().next()?.parse().ok()
        });
        Self {
            running: Some(running),
            port,
            _profile: profile,
        }
    }

    /// A new tab with this page.
    pub fn open(&self, address: &str) -> Tab {
        let request = format!(
            "PUT /json/new?about:blank HTTP/1.1\r\nhost: 127.0.0.1:{}\r\nconnection: close\r\n\r\n",
            self.port
        );
        let made = http::ask(([127, 0, 0, 1], self.port).into(), &request);
        let made: Value = serde_json::from_slice(&made.has_status(200).body).unwrap();
        let (socket, _) = connect(made["webSocketDebuggerUrl"].as_str().unwrap()).unwrap();
        let mut tab = Tab { socket, calls: 0 };
        tab.go(address);
        tab
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            // It ends its own processes when it is told so; the profile goes afterwards.
            running.signal(Signal::TERM);
            let _ = running.wait();
        }
    }
}

impl Tab {
    /// Go to a page; where it has none, what the browser shows instead is the page.
    pub fn go(&mut self, address: &str) {
        self.call("Page.navigate", json!({ "url": address }));
    }

    /// What an expression comes to, after a promise. Null where the page is just going away.
    pub fn evaluate(&mut self, expression: &str) -> Value {
        let asked = json!({
            "expression": expression, "awaitPromise": true, "returnByValue": true,
        });
        let told = self.call("Runtime.evaluate", asked);
        told["result"]["result"]["value"].clone()
    }

    /// Wait until an expression is true.
    #[track_caller]
    pub fn until(&mut self, what: &str, expression: &str) {
        let whole = "document.documentElement.outerHTML.slice(0, 2000)";
        let mut page = Value::Null;
        eventually(&format!("{what}: {expression}"), || {
            page = self.evaluate(whole);
            self.evaluate(&format!("!!({expression})")) == true
        });
    }

    /// What hotctl shows over the page; nothing where it shows nothing.
    pub fn overlay(&mut self) -> String {
        let text = "document.querySelector('hotctl-overlay')?.shadowRoot.querySelector('.back')\
            ?.innerText ?? ''";
        let text = self.evaluate(text);
        text.as_str().unwrap_or_default().to_owned()
    }

    /// Wait until it shows this over the page.
    #[track_caller]
    pub fn shows(&mut self, words: &str) {
        eventually(&format!("the overlay says {words:?}"), || {
            self.overlay().contains(words)
        });
    }

    /// A picture of what can be seen, as PNG.
    pub fn picture(&mut self, file: &Path) {
        let told = self.call("Page.captureScreenshot", json!({ "format": "png" }));
        let data = told["result"]["data"].as_str().expect("a picture");
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, BASE64.decode(data.as_bytes()).unwrap()).unwrap();
    }

    fn call(&mut self, method: &str, params: Value) -> Value {
        self.calls += 1;
        let call = json!({ "id": self.calls, "method": method, "params": params });
        self.socket.send(Message::text(call.to_string())).unwrap();
        loop {
            let Message::Text(text) = self.socket.read().unwrap() else {
                continue;
            };
            let told: Value = serde_json::from_str(&text).unwrap();
            if told["id"] == self.calls {
                return told;
            }
        }
    }
}
