//! What of a daemon runs, and whether it has come to rest.

use super::daemon::Daemon;
use super::leftovers;
use super::status::Status;

/// The app's own processes.
pub fn apps(daemon: &Daemon) -> Vec<u32> {
    let all = leftovers::processes(daemon.folder()).into_iter();
    let apps = all.filter(|it| !is_hotctl(&it.line));
    apps.map(|it| it.pid).collect()
}

/// Every process of it that is a daemon: two while one takes the place of the other.
pub fn daemons(daemon: &Daemon) -> Vec<u32> {
    let all = leftovers::processes(daemon.folder()).into_iter();
    let daemons = all.filter(|it| is_hotctl(&it.line) && it.line.contains(" serve"));
    daemons.map(|it| it.pid).collect()
}

fn is_hotctl(line: &str) -> bool {
    line.starts_with("hotctl") || line.contains("/hotctl ")
}

/// What it says of itself, if exactly one release runs, with as many processes as it should, and
/// nothing is under way.
pub fn at_rest(daemon: &Daemon) -> Option<Status> {
    let ran = daemon.hotctl(["status", "--json"]);
    if !ran.status.success() {
        // It has died in this moment.
        return None;
    }
    let status = ran.json::<Status>();
    let web = status.service("web");
    let rests = web.deployment.is_none()
        && web.waiting.is_none()
        && web.running.len() == 1
        && web
            .running
            .iter()
            .all(|it| it.role == "live" && it.instances.iter().all(|one| one.state == "up"))
        && apps(daemon).len()
            == web
                .running
                .iter()
                .map(|it| it.instances.len().max(1))
                .sum::<usize>();
    rests.then_some(status)
}
