"""A ledger in an SQLite file: a folder app as people have them, with data that must outlive it.

    hotctl deploy examples/ledger-app -- python3 app.py

with `persist = ["data"]` for its service. `POST /rows` adds a row and answers once it is on disk,
`GET /rows` lists them, `GET /note` answers what `data/note` holds, `GET /` the version in `version`.
"""

import os
import sqlite3
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

HERE = os.path.dirname(os.path.abspath(__file__))


def connect():
    # Two releases write side by side for a moment: each waits for the other.
    return sqlite3.connect("data/ledger.db", timeout=20, isolation_level=None)


def read(name):
    with open(name, encoding="utf-8") as file:
        return file.read()


class Ledger(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # An answer is one packet.
    wbufsize = -1
    disable_nagle_algorithm = True

    def do_GET(self):
        if self.path == "/":
            self.answer(200, VERSION)
        elif self.path == "/note":
            self.answer(200, read("data/note"))
        elif self.path == "/rows":
            with_rows = connect()
            rows = with_rows.execute("SELECT text FROM ledger ORDER BY id").fetchall()
            with_rows.close()
            self.answer(200, "".join(f"{text}\n" for (text,) in rows))
        else:
            self.answer(404, "no such page\n")

    def do_POST(self):
        text = self.rfile.read(int(self.headers["content-length"])).decode()
        with_rows = connect()
        with_rows.execute("INSERT INTO ledger (text) VALUES (?)", (text,))
        with_rows.close()
        self.answer(200, "written\n")

    def answer(self, status, text):
        body = text.encode()
        self.send_response(status)
        self.send_header("content-type", "text/plain")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    request_queue_size = 128


VERSION = read(os.path.join(HERE, "version"))
os.makedirs("data", exist_ok=True)
setup = connect()
setup.execute("PRAGMA journal_mode = WAL")
setup.execute("CREATE TABLE IF NOT EXISTS ledger (id INTEGER PRIMARY KEY, text TEXT NOT NULL)")
setup.close()
address = (os.environ.get("HOST", "127.0.0.1"), int(os.environ.get("PORT", "8000")))
print(f"ledger {VERSION.strip()}: listening on {address[0]}:{address[1]}", flush=True)
Server(address, Ledger).serve_forever()
