//! What a person at the desk sees of a daemon, a line an event, with the output of apps and builds; and
//! the keys.

mod builds;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, BufRead as _};
use std::num::NonZeroU16;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anstyle::{AnsiColor, Style};
use futures_util::StreamExt as _;
use futures_util::future::join_all;
use hotctl_config::file::AddressKind;
use hotctl_config::names::{ReleaseId, ServiceName};
use hotctl_deploy::why::{Kind, Why};
use rustix::process::Signal;
use tokio::sync::mpsc;

use super::browser::{Browser, Editor};
use super::escapes::only_colours;
use crate::api::{
    ConfigChange, Effect, EventLine, LogLevel, LogsQuery, Noted, NumberedEvent, Progress, Reloaded,
    Summary, What,
};
use crate::fault::Fault;
use crate::follow;
use crate::house::{House, Resident};
use crate::paint::{GOOD, in_style};
use crate::print;
use crate::reload::Mode;
use crate::who::Giver;
use builds::{AT_ONCE, BuildOutput, Builds, follow_builds};

/// The colours of names, in turn.
const COLOURS: [AnsiColor; 5] = [
    AnsiColor::Cyan,
    AnsiColor::Magenta,
    AnsiColor::Blue,
    AnsiColor::Yellow,
    AnsiColor::Green,
];

/// See the head of this file.
#[derive(Debug)]
pub struct Console {
    /// The project.
    folder: PathBuf,
    /// What there is to say before anything happens.
    said: Vec<String>,
    /// Whoever looks at the pages sees what happens as well.
    pub browser: Arc<Browser>,
}

impl Console {
    pub fn new(folder: PathBuf, said: Vec<String>, editor: Editor) -> Self {
        Self {
            folder,
            said,
            browser: Arc::new(Browser::new(editor)),
        }
    }

    /// Until the daemon ends, or is to, for the reason that comes back. `since`: the number of the last
    /// event before it began to run anything.
    pub async fn run(self, house: Arc<House>, listen: String, since: u64) -> Fault {
        let names = Names::of(house.lodgers().into_keys());
        for line in &self.said {
            say(line);
        }
        say(&format!(
            "serving on http://{listen} (Ctrl-C ends it; r, l, q and Enter: rebuild, log, quit)"
        ));
        let residents = house.residents();
        let outputs = residents
            .iter()
            .map(|resident| app(resident, names.mark(&resident.site.name)));
        let builds = residents.iter().map(|resident| {
            let mark = names.mark(&resident.site.name);
            let build = BuildOutput::of(&resident.site, mark);
            (resident.site.name.clone(), tokio::sync::Mutex::new(build))
        });
        let builds: Builds = builds.collect();
        let shows = async {
            tokio::join!(
                events(&house, &names, &builds, since),
                self.browser.follow(&house, since),
                follow_configuration(&house),
                keys(&house),
                follow_builds(&builds),
                async { drop(join_all(outputs).await) }
            );
            std::future::pending().await
        };
        tokio::select! {
            fault = gone(&self.folder) => fault,
            fault = shows => fault,
        }
    }
}

/// When the project is not there any more: nothing can be built of it, and nothing is to be written where it
/// was.
async fn gone(folder: &Path) -> Fault {
    /// How often it is looked.
    const LOOK: Duration = Duration::from_millis(250);
    /// So many times in a row it is not there: whoever puts another in its place has had the time.
    const LOOKS: u32 = 4;
    let mut missed = 0;
    while missed < LOOKS {
        tokio::time::sleep(LOOK).await;
        missed = match folder.is_dir() {
            true => 0,
            false => missed + 1,
        };
    }
    let shown = folder.display();
    // Where one stands goes with the folder.
    match std::env::current_dir() {
        Ok(now) if now != folder && now.is_dir() => Fault::failed(format!(
            "{shown}: the project is gone: it is {} now",
            now.display()
        ))
        .hint(format!("cd {} && hotctl dev", now.display())),
        _ => Fault::failed(format!(
            "{shown}: the project is gone: the folder was removed"
        ))
        .hint("hotctl dev, in the folder of a project"),
    }
}

/// What lines of each service begin with.
struct Names(BTreeMap<ServiceName, String>);

impl Names {
    fn of(services: impl Iterator<Item = ServiceName>) -> Self {
        let services: Vec<ServiceName> = services.collect();
        let wide = services.iter().map(|name| name.as_str().len()).max();
        let wide = wide.unwrap_or(0);
        let colours = COLOURS.iter().cycle();
        let marks = services.into_iter().zip(colours).map(|(name, colour)| {
            let style = Style::new().fg_color(Some((*colour).into()));
            let mark = in_style(style, &format!("{:<wide$} |", name.as_str()));
            (name, mark)
        });
        Self(marks.collect())
    }

    fn mark(&self, name: &ServiceName) -> String {
        self.0.get(name).cloned().unwrap_or_default()
    }
}

/// A reader that has left hears nothing; the apps go on until they are told to end.
fn say(text: &str) {
    let _ = print::line(text);
}

async fn events(house: &Arc<House>, names: &Names, builds: &Builds, since: u64) {
    let mut reader = house.means.journal.after(since, None);
    let mut built: BTreeMap<ServiceName, Built> = BTreeMap::new();
    while let Some(bytes) = reader.follow().await {
        for line in bytes.split(|byte| *byte == b'\n') {
            let Ok(EventLine::Event(event)) = serde_json::from_slice(line) else {
                continue;
            };
            let mark = event.service.as_ref().map(|name| names.mark(name));
            // What a build has said is read before it is told how it ended.
            if let Some(build) = event.service.as_ref().and_then(|name| builds.get(name)) {
                let mut build = build.lock().await;
                match event.what {
                    Noted::BuildDone { .. }
                    | Noted::BuildFailed { .. }
                    | Noted::BuildCancelled { .. } => build.end().await,
                    _ => build.print(AT_ONCE).await,
                }
            }
            if let Some(text) = told(&event, &mut built) {
                let mark = mark.unwrap_or_default();
                for line in text.lines().map(only_colours) {
                    say(format!("{mark} {line}").trim_start());
                }
            }
            if let (Some(service), Some(port)) = (&event.service, own_port(&event.what))
                && let Some(line) = take_its_port(house, service, port)
            {
                say(&format!("{} {line}", names.mark(service)));
            }
        }
    }
}

/// A build whose outcome is not told yet.
#[derive(Debug, Default)]
struct Built {
    /// Because something was edited, and not only since somebody wants it.
    edited: bool,
    /// None as long as it goes on.
    took_ms: Option<f64>,
}

/// What is worth a line at the desk.
fn told(event: &NumberedEvent, built: &mut BTreeMap<ServiceName, Built>) -> Option<String> {
    match &event.what {
        // Most often the watch itself has seen to that; whoever else has done it knows.
        Noted::Progress(Progress::Failed {
            why:
                Why {
                    kind: Kind::Cancelled | Kind::Superseded,
                    ..
                },
            release: Some(release),
            ..
        }) => Some(format!("{release} gives way: it is not wanted any more")),
        Noted::Progress(Progress::Failed { why, .. }) => {
            let mut text = print::noted(&event.what);
            let hint = why.hint.iter().map(|hint| format!("try: {hint}"));
            for line in why.output.iter().cloned().chain(hint) {
                text.push_str(&format!("\n  {line}"));
            }
            Some(text)
        }
        Noted::BuildStarted { changed, .. } => {
            // What the one before left may not be live yet.
            let build = built.entry(event.service.clone()?).or_default();
            build.edited = !changed.is_empty();
            Some(print::noted(&event.what))
        }
        Noted::BuildDone { took_ms, .. } => {
            built.entry(event.service.clone()?).or_default().took_ms = Some(*took_ms);
            None
        }
        Noted::Progress(Progress::Unchanged { release }) => {
            let built = built.remove(event.service.as_ref()?);
            match built.is_some_and(|built| built.edited) {
                true => Some(same(release)),
                false => Some(print::noted(&event.what)),
            }
        }
        Noted::Progress(Progress::Summary(summary)) => {
            let build = built.remove(event.service.as_ref()?);
            Some(live(summary, build.and_then(|build| build.took_ms)))
        }
        Noted::Progress(Progress::Restored { .. })
        | Noted::BuildFailed { .. }
        | Noted::BuildCancelled { .. }
        | Noted::BuildDisturbsItself { .. }
        | Noted::AppDisturbsItself { .. }
        | Noted::WatchMatchesNothing { .. }
        | Noted::AssetsChanged { .. }
        | Noted::WatchFailed { .. }
        | Noted::OrderRefused { .. }
        | Noted::InstanceExited { .. }
        | Noted::InstanceRestarted { .. }
        | Noted::CrashLoop { .. }
        | Noted::Unhealthy { .. }
        | Noted::HealthyAgain { .. }
        | Noted::ConfigReloaded { .. }
        | Noted::StateDamaged { .. } => Some(print::noted(&event.what)),
        _ => None,
    }
}

/// A build of other sources that left the same: what was edited is no part of it.
fn same(release: &ReleaseId) -> String {
    format!(
        "{release} is live already: the build left the same as before\n  \
         (what pages load as it is, such as style sheets, can be named in build.assets: nothing is built \
         then, and the browser loads it anew)"
    )
}

/// `web@13 live in 412 ms: build 260, start 95, health 31, flip 0`, and where ports have names
/// `; debug 20417`: whoever attaches a debugger reads it here.
fn live(summary: &Summary, build: Option<f64>) -> String {
    let total = build.unwrap_or(0.0) + summary.live_ms;
    let built = build.map_or_else(String::new, |ms| format!("build {ms:.0}, "));
    let ports = summary.ports.iter();
    let ports: String = ports
        .map(|(name, port)| format!("; {name} {port}"))
        .collect();
    format!(
        "{} {} in {total:.0} ms: {built}start {:.0}, health {:.0}, flip {:.0}{ports}",
        summary.release,
        in_style(GOOD, "live"),
        summary.start_ms,
        summary.health_ms,
        summary.flip_us / 1e3
    )
}

/// The port at which an app listens instead of the one that it was given.
fn own_port(what: &Noted) -> Option<NonZeroU16> {
    let Noted::Progress(Progress::Waiting { probe, .. }) = what else {
        return None;
    };
    let (_, rest) = probe.split_once("; listens on ")?;
    let (ports, _) = rest.split_once(", not on PORT")?;
    ports.parse().ok()
}

/// An app that listens at a port of its own whatever it is told: let it, from now on.
fn take_its_port(house: &House, service: &ServiceName, port: NonZeroU16) -> Option<String> {
    let site = house.resident(service).ok()?.site;
    let mut config = (*site.config()).clone();
    if config.address != AddressKind::Port {
        return None;
    }
    config.address = AddressKind::Fixed(port);
    site.configure(config);
    site.want_build();
    Some(format!(
        "listens at {port} whatever PORT says: only one of it can run, so each new version takes the \
         place of the old one, and requests wait meanwhile"
    ))
}

/// The output of what is live.
async fn app(resident: &Resident, mark: String) {
    let query = LogsQuery {
        lines: Some(0),
        follow: true,
        ..LogsQuery::default()
    };
    let lines = follow::lines(resident.site.clone(), query, std::future::pending());
    let mut lines = std::pin::pin!(lines);
    let mut held = Vec::new();
    while let Some(Ok(bytes)) = lines.next().await {
        held.extend_from_slice(&bytes);
        print_whole(&mut held, &mark);
    }
}

/// What is changed in the configuration is in force as soon as it is good.
async fn follow_configuration(house: &Arc<House>) {
    /// How often it is looked at.
    const LOOK: Duration = Duration::from_millis(500);
    let Some(file) = house.configured.file() else {
        return;
    };
    let stamp = || {
        let meta = std::fs::metadata(&file).ok()?;
        Some((meta.modified().ok()?, meta.len(), meta.ino()))
    };
    let mut known = stamp();
    let mut seen = known;
    loop {
        tokio::time::sleep(LOOK).await;
        let now = stamp();
        // Twice the same: nobody is writing it.
        if now.is_none() || now == known || std::mem::replace(&mut seen, now) != now {
            continue;
        }
        known = now;
        match house.reload(Mode::Apply, &Giver::watch()).await {
            // That it was is an event, which is told.
            Ok(reloaded) => {
                for change in &reloaded.changes {
                    say(&change.to_string());
                }
                take_effect(house, &reloaded);
                reloaded.notes.iter().for_each(|note| say(note));
            }
            Err(fault) => {
                say(&fault.text);
                fault
                    .hint
                    .iter()
                    .for_each(|hint| say(&format!("  try: {hint}")));
            }
        }
    }
}

/// What counts with the next deploy only is deployed: nobody at the desk waits for that.
fn take_effect(house: &House, reloaded: &Reloaded) {
    let waits = |change: &&ConfigChange| {
        change.what == What::Changed
            && matches!(change.effect, Effect::NextDeploy | Effect::NextStart)
    };
    let changed = reloaded.changes.iter().filter(waits);
    let names: BTreeSet<_> = changed
        .filter_map(|change| change.service.as_ref())
        .collect();
    for resident in house.residents() {
        if names.contains(&resident.site.name) {
            resident.site.want_build();
        }
    }
}

/// The lines whose end has come.
fn print_whole(held: &mut Vec<u8>, mark: &str) {
    let Some(end) = held.iter().rposition(|byte| *byte == b'\n') else {
        return;
    };
    let whole: Vec<u8> = held.drain(..=end).collect();
    for line in String::from_utf8_lossy(&whole).lines().map(only_colours) {
        say(&format!("{mark} {line}"));
    }
}

/// What is typed, line by line.
async fn keys(house: &House) {
    // Four may lie unread; whoever types more waits.
    let (tell, mut typed) = mpsc::channel(4);
    // It may wait for a line for ever, which holds up no end of the process.
    std::thread::spawn(move || {
        for line in io::stdin().lock().lines() {
            let Ok(line) = line else { return };
            if tell.blocking_send(line).is_err() {
                return;
            }
        }
    });
    while let Some(line) = typed.recv().await {
        match line.trim() {
            "" => {}
            "r" => house.residents().iter().for_each(|it| it.site.want_build()),
            "l" => {
                let log = &house.means.log;
                let next = match log.level() {
                    LogLevel::Error | LogLevel::Warn => LogLevel::Info,
                    LogLevel::Info => LogLevel::Debug,
                    LogLevel::Debug | LogLevel::Trace => LogLevel::Error,
                };
                match log.set(next) {
                    Ok(_) => say(&format!("hotctl's own log: {next}")),
                    Err(fault) => say(&fault.text),
                }
            }
            // As Ctrl-C does it.
            "q" => drop(rustix::process::kill_process(
                rustix::process::getpid(),
                Signal::INT,
            )),
            other => say(&format!(
                "{other}: r builds again, l changes the log, q quits"
            )),
        }
    }
}
