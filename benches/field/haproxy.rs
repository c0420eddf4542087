//! HAProxy, with a socket at which it is steered. Pure.

use std::fmt::Write as _;

use super::peers::{Log, Place, Upstream};

/// Its `haproxy.cfg`.
pub fn configuration(place: &Place) -> String {
    let folder = place.folder.display();
    let upstream = match &place.upstream {
        Upstream::Tcp(address) => address.to_string(),
        Upstream::Unix(path) => format!("unix@{}", path.display()),
    };
    let log = match place.setting.log {
        Log::Off => ("", ""),
        Log::On => (
            "  log stdout format raw local0\n",
            "  log global\n  option httplog\n",
        ),
    };
    // By a map, as its manual says for many hosts.
    let (mut map, mut backends) = (String::new(), String::new());
    let route = match place.setting.routes {
        1 => "  default_backend web".to_string(),
        routes => {
            for n in 0..routes {
                let _ = writeln!(map, "h{n}.test web{n}");
                let _ = writeln!(backends, "backend web{n}\n  server s {upstream}");
            }
            let path = place.folder.join("hosts.map");
            std::fs::write(&path, map).expect("a map");
            format!("  use_backend %[req.hdr(host),map({})]", path.display())
        }
    };
    format!(
        "global
  nbthread {threads}
  maxconn 8000
  stats socket {folder}/haproxy.sock mode 600 level admin expose-fd listeners
{}defaults
  mode http
{}  timeout connect 3s
  timeout client 75s
  timeout server 60s
  timeout tunnel 1h
  http-reuse always
  option forwardfor
frontend in
  bind {listen} backlog 4096
{route}
backend web
  server s {upstream}
{backends}",
        log.0,
        log.1,
        threads = place.setting.threads,
        listen = place.listen,
    )
}
