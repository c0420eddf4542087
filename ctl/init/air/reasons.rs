//! Why a setting of air has no equivalent, and what there is instead.

/// The reason.
pub fn of(name: &str) -> &'static str {
    match name {
        "testdata_dir" => "hotctl has no folder of that kind; build.ignore leaves it out",
        "build.delay" => {
            "what air takes by itself; hotctl waits until nothing has changed for 50ms, and settle = \
             \"1s\" in [service.app.watch] makes that longer"
        }
        "build.post_cmd" => {
            "runs when air itself ends; hotctl has nothing for that (build.post is what runs after \
             each build that was good)"
        }
        "build.log" => "hotctl keeps the output of builds, and shows their errors, by itself",
        "build.bin" | "build.entrypoint" | "build.args_bin" => {
            "build.full_bin, or build.entrypoint, goes before it"
        }
        "build.exclude_unchanged" => {
            "what a build leaves is deployed only where its content has changed, in any case"
        }
        "build.ignore_dangerous_root_dir" => "hotctl watches any folder that it is told to",
        "build.follow_symlink" => "links in the sources are not followed; they count as they are",
        "build.poll" | "build.poll_interval" => {
            "hotctl looks by itself every now and then where the system does not tell of changes"
        }
        "build.stop_on_error" => {
            "what is live serves on, whatever becomes of a build; it is never stopped for one"
        }
        "build.kill_delay" => "only counts with build.send_interrupt",
        "build.rerun" | "build.rerun_delay" => {
            "a process that ends is started again in any case; crash_loop says how often"
        }
        "build.rules" => {
            "hotctl has no commands for single files: build.pre runs before each build, and what \
             watches by itself can be a service with http = false"
        }
        "log.time" | "log.main_only" | "log.silent" => {
            "hotctl dev --log-level says how much hotctl writes of what it does"
        }
        "misc.clean_on_exit" => "hotctl removes nothing that a build has left",
        "misc.startup_banner" => "hotctl dev has no banner",
        "proxy.enabled" => "hotctl is such a proxy, and hotctl dev reloads the page",
        "proxy.app_start_timeout" => "without a time, start_timeout is what hotctl takes",
        _ if name.starts_with("build.windows") || name.starts_with("build.darwin") => {
            "hotctl runs on Linux only"
        }
        _ if name.starts_with("color.") => "--color and NO_COLOR say whether there are colours",
        _ if name.starts_with("screen.") => "hotctl never clears the screen",
        _ => "not a setting of air that hotctl knows",
    }
}
