//! The hotctl that is being replaced, as the new one sees it.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use hotctl_config::names::ServiceName;
use hotctl_proxy::{PassSocket, Passed};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::unix::OwnedWriteHalf;
use tokio::sync::{mpsc, watch};
use tracing::{debug, warn};

use super::{Serving, Word};
use crate::daemon::inherit::{Inherited, name};
use crate::fault::Fault;

/// The line to it, until it has let go.
#[derive(Debug)]
pub struct Predecessor {
    pid: u32,
    line: BufReader<UnixStream>,
    pass: OwnedFd,
}

/// What still comes from it afterwards.
#[derive(Debug)]
pub struct Arrivals {
    line: UnixStream,
    pass: OwnedFd,
}

impl Predecessor {
    /// Who started us, if that was to be replaced.
    pub fn of(inherited: &mut Inherited) -> Option<Self> {
        let (line, pass) = (inherited.named(name::LINK)?, inherited.named(name::PASS)?);
        // While it lives, which it does at first.
        let pid = rustix::process::getppid()?.as_raw_nonzero().get();
        Some(Self {
            pid: u32::try_from(pid).ok()?,
            line: BufReader::new(line.into()),
            pass,
        })
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Say that configuration, state and sockets are good, and wait until the services are ours. One
    /// that has ended has let go of them, too.
    pub fn prepared(&mut self) -> Result<(), Fault> {
        self.say(&Word::Prepared {
            version: env!("CARGO_PKG_VERSION").to_owned(),
        });
        let mut said = String::new();
        let read = self.line.read_line(&mut said);
        match read.map(|_| serde_json::from_str(&said)) {
            Ok(Ok(Word::Yours)) => Ok(()),
            _ if said.is_empty() => {
                warn!("the hotctl that was to be replaced has ended: taking over");
                Ok(())
            }
            _ => Err(Fault::failed(format!(
                "upgrade: the hotctl that is replaced says `{}`, which this one does not know",
                said.trim()
            ))),
        }
    }

    /// Say that it goes on.
    pub fn busy(&mut self) {
        self.say(&Word::Busy);
    }

    /// Say that every service is taken up.
    pub fn ready(mut self) -> Arrivals {
        self.say(&Word::Ready);
        Arrivals {
            line: self.line.into_inner(),
            pass: self.pass,
        }
    }

    /// Say why it is not.
    pub fn failed(&mut self, fault: &Fault) {
        self.say(&Word::Failed {
            error: fault.text.clone(),
            hint: fault.hint.clone(),
        });
    }

    fn say(&mut self, word: &Word) {
        let mut text = serde_json::to_vec(word).unwrap_or_default();
        text.push(b'\n');
        // One that has ended hears nothing, and need not.
        if let Err(cause) = self.line.get_mut().write_all(&text) {
            debug!(%cause, "the hotctl that is replaced does not listen");
        }
    }
}

/// Tell who serves, and whenever that is somebody else.
async fn tell(
    mut line: OwnedWriteHalf,
    mut serving: watch::Receiver<BTreeMap<ServiceName, Serving>>,
) {
    let mut known = BTreeMap::new();
    serving.mark_changed();
    while serving.changed().await.is_ok() {
        let now = serving.borrow_and_update().clone();
        for (service, serving) in &now {
            if known.get(service) == Some(serving) {
                continue;
            }
            let mut text = serde_json::to_vec(&Word::Serves(serving.clone())).unwrap_or_default();
            text.push(b'\n');
            if let Err(cause) = line.write_all(&text).await {
                debug!(%cause, "the hotctl that was replaced does not listen");
                break;
            }
        }
        known = now;
    }
    // Whether it is still there is not seen by this.
    std::future::pending().await
}

impl Arrivals {
    /// Send on what is passed, tell it who serves, and say when it has left. Until all is over.
    pub async fn receive(
        self,
        to: mpsc::UnboundedSender<Passed>,
        here: &watch::Sender<bool>,
        serving: watch::Receiver<BTreeMap<ServiceName, Serving>>,
    ) {
        let connections = async {
            let pass = match PassSocket::from_fd(self.pass) {
                Ok(pass) => pass,
                Err(cause) => return warn!(%cause, "no connection can be passed on to this hotctl"),
            };
            loop {
                match pass.receive().await {
                    Ok(Some(passed)) => drop(to.send(passed)),
                    Ok(None) => return,
                    Err(cause) => warn!(%cause, "a connection was not passed on"),
                }
            }
        };
        let line = self.line;
        let leaves = async {
            let opened = line.set_nonblocking(true);
            if let Ok(line) = opened.and_then(|()| tokio::net::UnixStream::from_std(line)) {
                let (mut read, write) = line.into_split();
                let mut end = [0];
                tokio::select! {
                    // It says nothing any more, so whatever comes is its end.
                    _ = read.read(&mut end) => {}
                    () = tell(write, serving) => {}
                }
            }
            debug!("the hotctl that was replaced has left");
            here.send_replace(false);
        };
        tokio::join!(connections, leaves);
    }
}
