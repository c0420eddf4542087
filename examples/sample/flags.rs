//! What the app is told: the command line, then the environment.

use std::env;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::PathBuf;
use std::time::Duration;

const HELP: &str = "\
A small web app for demos, tests and benches. Listens on the socket it inherits if LISTEN_FDS=1, else
on the unix socket SOCKET, else on HOST:PORT (default 127.0.0.1:8000).

  --version-text TEXT   what GET / answers
  --marker TEXT         looked at by nobody; makes the command another one
  --level-by-signal     SIGUSR1 changes the log level from info to debug and back
  --notify-after-ms N   says STATUS=warming up to NOTIFY_SOCKET, and after N milliseconds READY=1

Answers:
  /                     the version (and x-version, x-pid on every answer)
  /up                   ok
  /slow?ms=N            after N milliseconds
  /hold?name=X          once somebody asks for /let-go?name=X
  /echo                 the request's body, as it comes
  /digest               length and blake3 of the request's body
  /headers              the request's line and headers
  /big?bytes=N          N bytes
  /sse?every=MS&count=N events
  /ws                   a WebSocket that echoes
  /status?code=N        that status
  /redirect             301 to https://example.test/
  /env?name=X           that variable
  /cwd                  the folder it runs in
  /proc?name=X          the file /proc/self/X, such as limits or status
  /eat?mib=N            takes so much memory and keeps it
  /exit?code=N          ends without an answer
  /level                the log level; PUT /level?to=X, or POST /level with it as body, changes it

Misbehaves:
  --crash-at-start [N]  ends with status N (default 1) before it listens
  --segv                ends by SIGSEGV before it listens
  --never-listen        runs and never listens
  --listen-on PORT      listens there instead
  --listen-also NAME    listens at the port in this variable, too, and at once
  --start-delay-ms N    listens only then
  --always-500          answers everything with 500
  --fail-after-ms N     from then on answers everything with 500
  --fail-real-after-ms N
                        from then on answers everything but /up with 500
  --exit-after-ms N     ends with status 1 then
  --hang                accepts and never answers
  --ignore-term         goes on after SIGTERM
  --fork-children       leaves a child, one in a session of its own, and one that is nobody's
  --flood-stdout        writes to its output as fast as it can
  --drop-idle-after MS  closes an idle connection without a word

More flags may stand in SAMPLE_ARGS, separated by spaces.";

/// What SIGTERM does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnTerm {
    Stop,
    Ignore,
}

/// How requests are answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    Well,
    /// With 500 from this time after the start on, and until then well.
    Failing(Failing, Duration),
    Never,
}

/// Which requests are answered with 500.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failing {
    All,
    /// All but `/up`.
    Real,
}

/// Where the app listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// On the socket that it inherits.
    Inherited,
    Unix(PathBuf),
    Port(String, u16),
}

/// What happens before the app listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    Listen,
    Crash(u8),
    Segv,
    NeverListen,
}

/// Which kind of child this process is, if it is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Child {
    /// Sleeps.
    Sleeper,
    /// Goes into a session of its own and sleeps.
    Escapee,
    /// Starts an escapee and ends.
    Parent,
}

/// Everything the app is told.
#[derive(Clone, Debug)]
pub struct Flags {
    pub version: String,
    pub start: Start,
    pub manner: Manner,
    pub on_term: OnTerm,
    pub start_delay: Duration,
    pub drop_idle_after: Option<Duration>,
    pub notify_after: Option<Duration>,
    pub exit_after: Option<Duration>,
    pub listen_on: Option<u16>,
    pub listen_also: Option<u16>,
    pub fork_children: bool,
    pub level_by_signal: bool,
    pub flood_stdout: bool,
    pub child: Option<Child>,
}

impl Flags {
    /// From the command line and the environment. `--help` is an error whose text is the help.
    pub fn read() -> Result<Self, String> {
        let more = env::var("SAMPLE_ARGS").unwrap_or_default();
        let words = env::args()
            .skip(1)
            .chain(more.split_whitespace().map(str::to_string));
        Self::parse(words.collect())
    }

    fn parse(words: Vec<String>) -> Result<Self, String> {
        let mut flags = Self {
            version: String::new(),
            start: Start::Listen,
            manner: Manner::Well,
            on_term: OnTerm::Stop,
            start_delay: Duration::ZERO,
            drop_idle_after: None,
            notify_after: None,
            exit_after: None,
            listen_on: None,
            listen_also: None,
            fork_children: false,
            level_by_signal: false,
            flood_stdout: false,
            child: None,
        };
        let mut words = words.into_iter().peekable();
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or(format!("{word}: a value must follow"));
            match word.as_str() {
                "--help" => return Err(HELP.to_string()),
                "--version-text" => flags.version = value()?,
                "--marker" => drop(value()?),
                "--crash-at-start" => {
                    let code = words.next_if(|next| next.parse::<u8>().is_ok());
                    flags.start = Start::Crash(number(code.as_deref().unwrap_or("1"))?);
                }
                "--segv" => flags.start = Start::Segv,
                "--never-listen" => flags.start = Start::NeverListen,
                "--listen-on" => flags.listen_on = Some(number(&value()?)?),
                "--always-500" => flags.manner = Manner::Failing(Failing::All, Duration::ZERO),
                "--fail-after-ms" => {
                    flags.manner = Manner::Failing(Failing::All, millis(&value()?)?);
                }
                "--fail-real-after-ms" => {
                    flags.manner = Manner::Failing(Failing::Real, millis(&value()?)?);
                }
                "--listen-also" => {
                    let name = value()?;
                    let port = env::var(&name).map_err(|_| format!("{name}: not set"))?;
                    flags.listen_also = Some(number(&port)?);
                }
                "--exit-after-ms" => flags.exit_after = Some(millis(&value()?)?),
                "--notify-after-ms" => flags.notify_after = Some(millis(&value()?)?),
                "--hang" => flags.manner = Manner::Never,
                "--ignore-term" => flags.on_term = OnTerm::Ignore,
                "--level-by-signal" => flags.level_by_signal = true,
                "--fork-children" => flags.fork_children = true,
                "--flood-stdout" => flags.flood_stdout = true,
                "--start-delay-ms" => flags.start_delay = millis(&value()?)?,
                "--drop-idle-after" => flags.drop_idle_after = Some(millis(&value()?)?),
                "--child" => {
                    flags.child = Some(match value()?.as_str() {
                        "sleeper" => Child::Sleeper,
                        "escapee" => Child::Escapee,
                        "parent" => Child::Parent,
                        other => return Err(format!("--child {other}: no such child")),
                    });
                }
                _ => return Err(format!("{word}: no such flag; see --help")),
            }
        }
        if flags.version.is_empty() {
            flags.version = env::var("SAMPLE_VERSION")
                .ok()
                .or_else(written_at_the_end)
                .unwrap_or_else(|| "dev".to_string());
        }
        Ok(flags)
    }

    /// Where to listen. A `PORT` that is no number is as good as none, as with most apps.
    pub fn place(&self) -> Place {
        let host = env::var("HOST").unwrap_or_else(|_| "127.0.0.1".to_string());
        if let Some(port) = self.listen_on {
            return Place::Port(host, port);
        }
        if env::var("LISTEN_FDS").is_ok_and(|count| count == "1") {
            return Place::Inherited;
        }
        if let Some(path) = env::var_os("SOCKET") {
            return Place::Unix(path.into());
        }
        let port = env::var("PORT").ok().and_then(|text| text.parse().ok());
        Place::Port(host, port.unwrap_or(8000))
    }
}

fn millis(text: &str) -> Result<Duration, String> {
    number(text).map(Duration::from_millis)
}

fn number<N: std::str::FromStr>(text: &str) -> Result<N, String> {
    text.parse()
        .map_err(|_| format!("{text}: not a number that fits"))
}

/// The version that was appended to this program's file: `sample-version:TEXT`, up to the line's end.
fn written_at_the_end() -> Option<String> {
    const MARK: &str = "sample-version:";
    let mut file = File::open("/proc/self/exe").ok()?;
    let length = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(256)))
        .ok()?;
    let mut end = Vec::with_capacity(256);
    file.read_to_end(&mut end).ok()?;
    let end = String::from_utf8_lossy(&end);
    let (_, version) = end.rsplit_once(MARK)?;
    Some(version.lines().next()?.to_string())
}
