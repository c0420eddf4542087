//! sozu: a main process, and one worker for each thread. Pure.

use super::peers::Place;

/// Its `sozu.toml`.
pub fn configuration(place: &Place) -> String {
    let folder = place.folder.display();
    format!(
        "command_socket = \"{folder}/sozu.sock\"
saved_state = \"{folder}/state.json\"
log_level = \"error\"
log_target = \"stdout\"
command_buffer_size = 16384
max_buffers = 8192
buffer_size = 16393
max_connections = 8192
worker_count = {threads}
worker_automatic_restart = false
handle_process_affinity = false
activate_listeners = true

[[listeners]]
protocol = \"http\"
address = \"{listen}\"

[clusters.web]
protocol = \"http\"
load_balancing = \"ROUND_ROBIN\"
frontends = [{{ address = \"{listen}\", hostname = \"test\" }}]
backends = [{{ address = \"{upstream}\", backend_id = \"{name}\" }}]
",
        name = name(&place.upstream.path_or_address()),
        threads = place.setting.threads,
        listen = place.listen,
        upstream = place.upstream.path_or_address(),
    )
}

/// What a backend at this address is called.
pub fn name(address: &str) -> String {
    format!("b{}", address.rsplit(':').next().unwrap_or_default())
}
