//! Why a setting of nodemon has no equivalent, and what there is instead.

/// The reason.
pub fn of(name: &str) -> &'static str {
    match name {
        "restartable" => "r and Enter in `hotctl dev` build and start again",
        "verbose" | "quiet" | "dump" => {
            "hotctl dev --log-level says how much hotctl writes of what it does"
        }
        "colours" | "colors" => "--color and NO_COLOR say whether there are colours",
        "signal" => {
            "hotctl ends an app with SIGTERM, and kills it after stop_timeout; \
             the app can do there what it did for this signal"
        }
        "legacyWatch" | "pollingInterval" => {
            "hotctl looks by itself every now and then where the system does not tell of changes"
        }
        "watch" => "hotctl deploy, without [service.app.build], is how not to watch",
        "runOnChangeOnly" => "hotctl starts at once, so that requests are answered",
        "exitCrash" => "a process that ends is started again; crash_loop says how often",
        "stdin" | "stdout" => "hotctl keeps the output of an app, and gives it no input",
        "spawn" | "js" | "noUpdateNotifier" | "scriptPosition" | "monitor" | "configFile"
        | "execOptions" | "help" | "version" => "it is about nodemon itself",
        "$schema" => "it is for editors",
        "exec" | "script" | "args" | "nodeArgs" | "execArgs" | "ext" | "ignore" | "delay"
        | "cwd" | "ignoreRoot" => {
            "another setting, or the command line in package.json, goes before it"
        }
        _ if name.starts_with("watchOptions") => {
            "these are for the library that nodemon watches with"
        }
        _ if name.starts_with("execMap") => {
            "it is for scripts of another kind than the one that is run"
        }
        _ if name.starts_with("events") => {
            "hotctl events -f --json tells of everything that happens; on_live runs once a new \
             version is live"
        }
        _ => "not a setting of nodemon that hotctl knows",
    }
}
