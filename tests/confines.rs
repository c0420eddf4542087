//! As whom apps run, how much they may take, and what becomes of one that takes more.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Signal;

use crate::support::load::Plan;
use crate::support::program::{lives, send};
use crate::support::{Class, Daemon, eventually, eventually_some, http, leftovers};

const WARM: &str = "keep_warm = \"0s\"\nstop_timeout = \"1s\"\n";

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// The cgroup v2 of a process, as a folder, if it is one that hotctl makes.
fn leaf(pid: u32) -> Option<PathBuf> {
    let all = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    let own = all.lines().find_map(|line| line.strip_prefix("0::"))?;
    let roots = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"];
    let mut roots = roots
        .iter()
        .map(|root| Path::new(root).join(own.trim_start_matches('/')));
    roots.find(|path| path.join("cgroup.procs").exists() && own.contains("hotctl-apps"))
}

/// What a line of /proc/self/limits or /proc/self/status says.
fn says(text: &str, name: &str) -> String {
    let line = text.lines().find(|line| line.starts_with(name));
    let line = line.unwrap_or_else(|| panic!("no {name} in {text}"));
    line[name.len()..]
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
}

#[test]
fn an_app_runs_as_the_user_that_is_named_in_a_folder_of_its_own() {
    if !is_root() {
        eprintln!("not root: tested that it is refused");
        let daemon = Daemon::of_web(&format!("{WARM}user = \"nobody\""));
        let path = daemon.release("v1");
        let ran = daemon.try_deploy(&path, &[]).exits(1);
        ran.says("only root can start a process as another user");
        return;
    }
    eprintln!("root: tested with the user nobody");
    let hook = "before_start = [\"sh\", \"-c\", \"id -un > $HOTCTL_DATA/hook\"]";
    for address in ["port", "unix", "socket"] {
        let config = format!(
            "{WARM}user = \"nobody\"\n{hook}\naddress = \"{address}\"\n[service.web.health]\nkind = \"command\"\ncommand = [\"sh\", \"-c\", \"id -un > $HOTCTL_DATA/health\"]\n"
        );
        let daemon = Daemon::of_web(&config);
        // What tests live in is of root alone.
        let open = fs::Permissions::from_mode(0o711);
        fs::set_permissions(daemon.folder(), open).unwrap();
        daemon.deploy("v1", &[]);
        eventually("it answers", || daemon.get("/").head.status == 200);
        let status = daemon.get("/proc?name=status").text();
        let passwd = fs::read_to_string("/etc/passwd").unwrap();
        let nobody = passwd
            .lines()
            .find(|line| line.starts_with("nobody:"))
            .unwrap();
        let numbers: Vec<&str> = nobody.split(':').skip(2).take(2).collect();
        assert_eq!(says(&status, "Uid:"), [numbers[0]; 4].join(" "));
        assert_eq!(says(&status, "Gid:"), [numbers[1]; 4].join(" "));
        assert_eq!(says(&status, "Groups:"), numbers[1]);
        assert_eq!(says(&status, "CapEff:"), "0000000000000000");
        assert_eq!(daemon.get("/env?name=USER").text(), "nobody");
        let web = daemon.folder().join("state/services/web");
        for file in ["data/hook", "data/health"] {
            assert_eq!(
                fs::read_to_string(web.join(file)).unwrap(),
                "nobody\n",
                "{address}"
            );
            assert_eq!(
                fs::metadata(web.join(file)).unwrap().uid().to_string(),
                numbers[0]
            );
        }
        // Nothing of what is hotctl's own can be seen by it.
        let see = |path: &Path| {
            let mut command = std::process::Command::new("setpriv");
            command
                .args(["--reuid=nobody", "--clear-groups", "--", "test", "-r"])
                .arg(path);
            let seen = command.output().unwrap();
            seen.status.success()
        };
        for hidden in ["logs", "run", "record.json", "key", "releases", ""] {
            assert!(!see(&web.join(hidden)), "{hidden} can be seen");
        }
        assert!(!see(&daemon.folder().join("state/events.ndjson")));
    }
}

#[test]
fn a_user_that_the_system_does_not_know_is_told_before_anything_is_touched() {
    let config = crate::support::daemon::web(WARM);
    let daemon = Daemon::start(&config);
    daemon.deploy("v1", &[]);
    let file = daemon.folder().join("hotctl.toml");
    fs::write(
        &file,
        config.replace(WARM, &format!("{WARM}user = \"no-such-user\"\n")),
    )
    .unwrap();
    daemon.hotctl(["reload"]).exits(0).says("user");
    let path = daemon.release("v2");
    let ran = daemon.hotctl(["deploy", path.to_str().unwrap()]).exits(1);
    ran.says("the system has no such user").says("useradd");
    assert_eq!(daemon.get("/").text(), "v1\n");
    let found = daemon.hotctl(["doctor", "--config", file.to_str().unwrap()]);
    assert!(found.to_string().contains("no such user"), "{found}");
}

#[test]
fn limits_hold_for_the_app() {
    let limits = "[service.web.limits]\nopen_files = 333\ncore_size = \"0B\"\n";
    let daemon = Daemon::of_web(&format!("{WARM}{limits}"));
    daemon.deploy("v1", &[]);
    let has = daemon.get("/proc?name=limits").text();
    assert_eq!(says(&has, "Max open files"), "333 333 files");
    assert_eq!(says(&has, "Max core file size"), "0 0 bytes");
}

#[test]
fn processes_that_use_too_much_memory_are_replaced_without_losing_a_request() {
    let config =
        format!("{WARM}memory_max = \"96MiB\"\n[service.web.health]\ninterval = \"50ms\"\n");
    let daemon = Daemon::of_web(&config);
    daemon.deploy("v1", &[]);
    let first = daemon.live().pid;
    let load = Plan::to(daemon.listen())
        .clients(Class::KeepAlive, 3)
        .every(Duration::from_millis(4))
        .start();
    daemon.get("/eat?mib=200").has_status(200);
    eventually("it is replaced", || daemon.live().pid != first);
    load.finish().assert_none_failed();
    assert!(daemon.metric("hotctl_renewals_total", &["web", "memory"]) >= 1.0);
    daemon.hotctl(["events", "web"]).exits(0).says("memory");
    assert!(daemon.log().contains("uses too much memory"));
    // One that is as hungry as soon as it runs is not replaced all the time.
    daemon.get("/eat?mib=200").has_status(200);
    let looks = |text: &str| text.matches("uses too much memory").count();
    let before = looks(&daemon.log());
    eventually("it was looked at again", || {
        looks(&daemon.log()) > before + 3
    });
    assert_eq!(
        daemon.metric("hotctl_renewals_total", &["web", "memory"]),
        1.0
    );
}

/// A cgroup whose memory is limited, of either version; removed when it is empty.
struct Tight(PathBuf);

impl Tight {
    fn make() -> Option<Self> {
        let name = format!("hotctl-test-{}", std::process::id());
        for (root, limit) in [
            ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
            ("/sys/fs/cgroup", "memory.max"),
        ] {
            let folder = Path::new(root).join(&name);
            if fs::create_dir(&folder).is_err() {
                continue;
            }
            let tight = Self(folder);
            if fs::write(tight.0.join(limit), (64 << 20).to_string()).is_ok() {
                // Or it would be swapped out in place.
                let _ = fs::write(tight.0.join("memory.swap.max"), "0");
                return Some(tight);
            }
        }
        None
    }

    fn take(&self, pid: u32) {
        fs::write(self.0.join("cgroup.procs"), pid.to_string()).unwrap();
    }
}

impl Drop for Tight {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

#[test]
fn an_app_that_the_kernel_ends_for_lack_of_memory_is_said_to_be() {
    let daemon = Daemon::of_web(&format!("{WARM}on_crash_loop = \"restart\""));
    daemon.deploy("v1", &[]);
    let pid = daemon.live().pid.unwrap();
    match Tight::make() {
        Some(tight) => {
            eprintln!("tested by a limit of memory: {}", tight.0.display());
            tight.take(pid);
            // The answer is its end.
            let ask = "GET /eat?mib=300 HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
            drop(http::try_ask(daemon.listen(), ask));
            eventually("it has ended", || !lives(pid));
            eventually("it is told", || {
                let told = daemon.hotctl(["events", "web"]).exits(0).stdout;
                told.contains("out of memory") || told.contains("memory ran out")
            });
        }
        None => {
            eprintln!(
                "no cgroup with a limit of memory can be made: tested that a kill is only a kill"
            );
            send(pid, Signal::KILL);
            eventually("it is told", || {
                let told = daemon.hotctl(["events", "web"]).exits(0).stdout;
                told.contains("killed by SIGKILL (9)") && !told.contains("memory")
            });
        }
    }
    eventually("it serves again", || daemon.get("/").head.status == 200);
}

#[test]
fn an_app_has_a_cgroup_of_its_own_which_goes_with_it() {
    let mut daemon = Daemon::of_web(WARM);
    daemon.deploy("v1", &["--fork-children"]);
    let pid = daemon.live().pid.unwrap();
    let Some(own) = leaf(pid) else {
        eprintln!("no cgroup v2 to divide: tested without, by who started whom");
        return;
    };
    eprintln!("tested in {}", own.display());
    let members = || -> Vec<u32> {
        let all = fs::read_to_string(own.join("cgroup.procs")).unwrap_or_default();
        all.lines().filter_map(|line| line.parse().ok()).collect()
    };
    // The app, and the three that it has started, wherever they went.
    eventually("all are in it", || members().len() == 4);
    let shim = leftovers::parent(pid).unwrap();
    assert!(!members().contains(&shim));
    // A daemon that comes later finds it, too.
    daemon.kill();
    daemon.start_again();
    assert_eq!(daemon.live().pid, Some(pid));
    let before = members();
    // Whoever kills the shim does not leave orphans, and not the folder.
    send(shim, Signal::KILL);
    eventually("nobody of it lives", || {
        before.iter().all(|pid| !lives(*pid))
    });
    eventually("it is removed", || !own.exists());
    let next = eventually_some("it is started again", || {
        let live = daemon.live();
        // For a moment it may not be known yet that the one before has ended.
        let next = live.pid.filter(|next| *next != pid);
        next.filter(|_| live.instances[0].state == "up")
    });
    let own = leaf(next).unwrap();
    daemon.deploy("v2", &[]);
    eventually("the old one's is removed", || !own.exists());
    let own = leaf(daemon.live().pid.unwrap()).unwrap();
    // Shim and daemon at once: the next daemon sees to it.
    let shim = leftovers::parent(daemon.live().pid.unwrap()).unwrap();
    daemon.kill();
    send(shim, Signal::KILL);
    eventually("it is gone", || !lives(shim));
    daemon.start_again();
    eventually("it is removed", || !own.exists());
}
