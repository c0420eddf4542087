//! nginx, as a proxy with kept-alive upstream connections, which it does not have by itself. Pure.

use rustix::process::geteuid;

use super::peers::{Log, Place, Upstream};

/// Its `nginx.conf`.
pub fn configuration(place: &Place) -> String {
    let folder = place.folder.display();
    let upstream = match &place.upstream {
        Upstream::Tcp(address) => address.to_string(),
        Upstream::Unix(path) => format!("unix:{}", path.display()),
    };
    // Workers of root become nobody, who may not look into the folder.
    let user = match geteuid().is_root() {
        true => "user root;",
        false => "",
    };
    let log = match place.setting.log {
        Log::Off => "access_log off;".to_string(),
        Log::On => format!("access_log {folder}/access.log;"),
    };
    let server = |name: &str| {
        format!(
            "server {{ listen {} backlog=4096; server_name {name};
  location / {{ proxy_pass http://web; proxy_set_header Connection \"\"; }}
  location /ws {{ proxy_pass http://web; proxy_set_header Upgrade $http_upgrade;
    proxy_set_header Connection upgrade; }}
}}\n",
            place.listen
        )
    };
    // Only one of the servers of an address may say its backlog.
    let servers = match place.setting.routes {
        1 => server("_"),
        routes => {
            let first = server("h0.test");
            let others =
                (1..routes).map(|n| server(&format!("h{n}.test")).replace(" backlog=4096", ""));
            first + &others.collect::<String>()
        }
    };
    format!(
        "{user}
daemon off;
worker_processes {threads};
pid {folder}/nginx.pid;
error_log {folder}/error.log warn;
events {{ worker_connections 16384; }}
http {{
{log}
server_names_hash_max_size 65536;
server_names_hash_bucket_size 128;
client_max_body_size 64m;
keepalive_requests 100000000;
client_body_temp_path {folder}/body;
proxy_temp_path {folder}/proxy;
fastcgi_temp_path {folder}/fastcgi;
uwsgi_temp_path {folder}/uwsgi;
scgi_temp_path {folder}/scgi;
proxy_http_version 1.1;
proxy_set_header Host $host;
proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
proxy_set_header X-Forwarded-Proto $scheme;
proxy_set_header Connection \"\";
upstream web {{ server {upstream}; keepalive 2048; keepalive_requests 100000000; }}
{servers}}}
",
        threads = place.setting.threads,
    )
}
