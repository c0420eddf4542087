//! Places at which a test can have the daemon die as if by SIGKILL: what was written before is on the
//! disk, what comes after never happens. In programs that are not for debugging there are none.
//!
//! `HOTCTL_FAILPOINTS` names a folder. Each place that is passed adds its name to the file `passed`
//! there; where the file `die` says `NAME N`, the daemon dies when it passes that place for the Nth
//! time.

/// This place is passed.
#[cfg(debug_assertions)]
pub fn pass(name: &str) {
    let Some(folder) = std::env::var_os("HOTCTL_FAILPOINTS") else {
        return;
    };
    let folder = std::path::Path::new(&folder);
    let mut line = name.to_owned();
    line.push('\n');
    let passed = folder.join("passed");
    let file = std::fs::File::options().append(true).open(&passed);
    // Without the file nobody counts.
    let Ok(mut file) = file else { return };
    let _ = std::io::Write::write_all(&mut file, line.as_bytes());
    let times = std::fs::read_to_string(&passed).unwrap_or_default();
    let times = times.lines().filter(|line| *line == name).count();
    let die = std::fs::read_to_string(folder.join("die")).unwrap_or_default();
    if die.trim() == format!("{name} {times}") {
        let own = rustix::process::getpid();
        let _ = rustix::process::kill_process(own, rustix::process::Signal::KILL);
        loop {
            std::thread::park();
        }
    }
}

/// This place is passed.
#[cfg(not(debug_assertions))]
pub fn pass(_: &str) {}
