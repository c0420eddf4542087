//! Caddy, whose configuration is loaded anew through its admin API. Pure.

use serde_json::{Value, json};

use super::peers::{Log, Place, Upstream};

/// Its configuration, as JSON.
pub fn configuration(place: &Place) -> String {
    let dial = match &place.upstream {
        Upstream::Tcp(address) => address.to_string(),
        Upstream::Unix(path) => format!("unix/{}", path.display()),
    };
    let mut server = json!({
        "listen": [place.listen.to_string()],
        "automatic_https": { "disable": true },
        "routes": [{ "handle": [{
            "handler": "reverse_proxy",
            "upstreams": [{ "dial": dial }],
            // Its own limit of 32 idle upstream connections is fewer than the load has at once.
            "transport": { "protocol": "http", "keep_alive": { "max_idle_conns_per_host": 2048 } }
        }]}]
    });
    let mut logs = json!({ "default": { "level": "ERROR" } });
    if place.setting.log == Log::On {
        server["logs"] = json!({ "default_logger_name": "access" });
        logs["access"] = json!({
            "writer": { "output": "file", "filename": place.folder.join("access.log") },
            "include": ["http.log.access.access"]
        });
    }
    let config: Value = json!({
        "admin": { "listen": place.admin.to_string() },
        "logging": { "logs": logs },
        "apps": { "http": { "servers": { "in": server } } }
    });
    config.to_string()
}
