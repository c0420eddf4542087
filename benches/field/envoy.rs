//! Envoy, whose cluster has its endpoints from a file that may change. Pure.

use serde_json::{Value, json};

use super::peers::{Log, Place, Upstream};

/// Its configuration, as JSON. Writes the file of endpoints beside it.
pub fn configuration(place: &Place) -> String {
    let endpoints = place.folder.join("endpoints.json");
    std::fs::write(&endpoints, self::endpoints(&place.upstream)).expect("a file");
    let log = match place.setting.log {
        Log::Off => json!([]),
        Log::On => json!([{
            "name": "envoy.access_loggers.file",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog",
                "path": place.folder.join("access.log"),
            }
        }]),
    };
    let manager = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "in",
        "access_log": log,
        "use_remote_address": true,
        "upgrade_configs": [{ "upgrade_type": "websocket" }],
        "http_filters": [{
            "name": "envoy.filters.http.router",
            "typed_config": { "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router" }
        }],
        "route_config": { "virtual_hosts": [{
            "name": "all",
            "domains": ["*"],
            "routes": [{ "match": { "prefix": "/" }, "route": { "cluster": "web" } }]
        }]}
    });
    let config = json!({
        "node": { "id": "bench", "cluster": "bench" },
        "admin": { "address": address(&Upstream::Tcp(place.admin)) },
        "static_resources": {
            "listeners": [{
                "name": "in",
                "address": address(&Upstream::Tcp(place.listen)),
                "tcp_backlog_size": 4096,
                "filter_chains": [{ "filters": [{
                    "name": "envoy.filters.network.http_connection_manager",
                    "typed_config": manager
                }]}]
            }],
            "clusters": [{
                "name": "web",
                "connect_timeout": "3s",
                "type": "EDS",
                "eds_cluster_config": { "eds_config": {
                    "path_config_source": { "path": endpoints },
                    "resource_api_version": "V3"
                }},
                // Its own limits are 1,024: the case of a thousand connections is near.
                "circuit_breakers": { "thresholds": [{
                    "max_connections": 8192, "max_pending_requests": 8192, "max_requests": 8192
                }]}
            }]
        }
    });
    config.to_string()
}

/// What the file of endpoints says.
pub fn endpoints(upstream: &Upstream) -> String {
    let assignment = json!({
        "@type": "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
        "cluster_name": "web",
        "endpoints": [{ "lb_endpoints": [{ "endpoint": { "address": address(upstream) } }] }]
    });
    json!({ "version_info": upstream.path_or_address(), "resources": [assignment] }).to_string()
}

fn address(of: &Upstream) -> Value {
    match of {
        Upstream::Tcp(address) => json!({ "socket_address": {
            "address": address.ip().to_string(), "port_value": address.port()
        }}),
        Upstream::Unix(path) => json!({ "pipe": { "path": path } }),
    }
}
