//! The one task of a service: every wish is an order in its mailbox, whoever sends it. One
//! deployment runs at a time, the newest order waits its turn. Decides what happens when; how it
//! is done is the driver's and the site's.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hotctl_config::names::{Digest, Slot};
use hotctl_deploy::drive::drive;
use hotctl_deploy::ledger::{Release, Traffic};
use hotctl_deploy::machine::{Deployment, Event, Ladder, Phase};
use hotctl_deploy::process::Exit;
use hotctl_deploy::queue::Queue;
use hotctl_deploy::why::{Kind, Why};
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::api::{Progress, Verb};
use crate::hands::DeployHands;
use crate::site::{Keep, Site};
use crate::teller::Teller;

/// What somebody wants of a service, and where to tell what becomes of it.
#[derive(Debug)]
pub struct Order {
    pub wish: Wish,
    pub tell: Teller,
}

/// The wishes there are.
#[derive(Debug, Clone)]
pub enum Wish {
    /// Make this content live.
    Deploy {
        digest: Digest,
        args: Vec<String>,
        /// Where it came from, for people.
        name: String,
        unchanged: Unchanged,
    },
    /// Go back to the release before.
    Rollback,
    /// Take it out of service.
    Stop,
    /// Start what was stopped.
    Start,
    /// The same release in fresh processes.
    Restart,
    /// End a deployment.
    Cancel(Which),
}

impl Wish {
    /// What is asked for, in a word.
    pub fn verb(&self) -> Verb {
        match self {
            Self::Deploy { .. } => Verb::Deploy,
            Self::Rollback => Verb::Rollback,
            Self::Stop => Verb::Stop,
            Self::Start => Verb::Start,
            Self::Restart => Verb::Restart,
            Self::Cancel(_) => Verb::Cancel,
        }
    }
}

/// Which deployment is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// Whatever is under way, and whatever waits.
    Any,
    /// The one of this number, if it is under way.
    Number(u32),
    /// The one that waits.
    Waiting,
}

/// What to do with a deploy of what is live already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unchanged {
    /// Nothing: it is live.
    Nothing,
    /// Deploy it all the same.
    Deploy,
}

/// Run the task of one service until `stop`.
pub async fn run(
    site: Arc<Site>,
    mut orders: mpsc::Receiver<Order>,
    mut exits: mpsc::Receiver<(Slot, Exit)>,
    stop: CancellationToken,
) {
    let mut desk = Desk {
        site,
        active: None,
        queue: Queue::default(),
    };
    loop {
        tokio::select! {
            Some(order) = orders.recv() => desk.receive(order).await,
            deployment = ended(&mut desk.active) => desk.settle(deployment).await,
            Some((slot, exit)) = exits.recv() => desk.hear_of(slot, &exit).await,
            () = stop.cancelled() => break,
        }
    }
    if let Some(active) = desk.active.take() {
        active.driver.abort();
        active.tell.tell(Progress::Failed {
            release: Some(active.to),
            live: None,
            why: Why::new(
                Kind::Interrupted,
                "hotctl ended while the deployment was under way",
            ),
        });
    }
    desk.site.stop_everything().await;
}

/// Where orders are received and deployments watched.
struct Desk {
    site: Arc<Site>,
    active: Option<Active>,
    queue: Queue<Order>,
}

/// The deployment under way.
struct Active {
    driver: JoinHandle<Deployment>,
    /// An operator's word to it. Four may lie unread: a fifth says nothing new.
    events: mpsc::Sender<Event>,
    number: u32,
    to: hotctl_config::names::ReleaseId,
    slot: Slot,
    tell: Teller,
    /// Ends the hold of the last step; remembered until then.
    hurry: Arc<Notify>,
    /// Orders that want it to fail: a rollback, a cancel.
    against: Vec<Order>,
}

async fn ended(active: &mut Option<Active>) -> Deployment {
    loop {
        match active {
            None => std::future::pending::<()>().await,
            Some(active) => match (&mut active.driver).await {
                Ok(deployment) => return deployment,
                // Only a panic of the driver: it is logged by the runtime, and the deployment
                // never ends. Nothing that serves is touched by that.
                Err(_) => std::future::pending::<()>().await,
            },
        }
    }
}

impl Desk {
    async fn receive(&mut self, order: Order) {
        match (&order.wish, &self.active) {
            (_, None) => self.begin(order).await,
            (Wish::Rollback, Some(active)) => {
                active.say(Event::Failed(Why::new(
                    Kind::RolledBack,
                    "rolled back by an operator",
                )));
                self.against(order);
            }
            (Wish::Cancel(which), Some(active)) => {
                let why = || Why::new(Kind::Cancelled, "cancelled by an operator");
                let under_way = match which {
                    Which::Any => true,
                    Which::Number(number) => *number == active.number,
                    Which::Waiting => false,
                };
                if under_way {
                    active.say(Event::Failed(why()));
                }
                if matches!(which, Which::Any | Which::Waiting)
                    && let Some(waiting) = self.queue.take()
                {
                    self.refuse(&waiting.tell, why());
                }
                if under_way {
                    self.against(order);
                } else {
                    order.tell.tell(Progress::Done {
                        text: format!("{}: cancelled", self.site.name),
                    });
                }
            }
            (Wish::Stop, Some(active)) => {
                // What has gone live stays the release to start again; what has not is given up.
                let warm = self.site.ledger().deployment.is_some_and(|d| d.is_warm());
                if !warm {
                    let why = Why::new(Kind::Cancelled, "the service is being stopped");
                    active.say(Event::Failed(why));
                }
                self.wait(order);
            }
            (Wish::Deploy { .. } | Wish::Start | Wish::Restart, Some(active)) => {
                let warm = self.site.ledger().deployment.filter(Deployment::is_warm);
                match warm {
                    Some(d)
                        if self.queue.waiting().is_none()
                            && self.is_same(&order.wish, d.to.release) =>
                    {
                        order.tell.tell(Progress::Unchanged {
                            release: active.to.clone(),
                        });
                        return;
                    }
                    Some(_) => {}
                    None => order.tell.tell(Progress::Queued {
                        behind: active.to.clone(),
                    }),
                }
                self.wait(order);
            }
        }
    }

    /// The order is answered when the deployment under way has ended.
    fn against(&mut self, order: Order) {
        if let Some(active) = &mut self.active {
            active.against.push(order);
        }
    }

    fn wait(&mut self, order: Order) {
        if let Some(active) = &self.active {
            // A hold that only keeps the old release warm gives way, now or when it begins.
            active.hurry.notify_one();
        }
        if let Some(older) = self.queue.wait(order) {
            self.refuse(
                &older.tell,
                Why::new(Kind::Superseded, "superseded by a newer order"),
            );
        }
    }

    /// Whether a wish is to deploy what this release is already.
    fn is_same(&self, wish: &Wish, number: u32) -> bool {
        let Wish::Deploy {
            digest,
            args,
            unchanged: Unchanged::Nothing,
            ..
        } = wish
        else {
            return false;
        };
        let ledger = self.site.ledger();
        let release = ledger.releases.get(&number);
        release.is_some_and(|release| release.digest == *digest && release.args == *args)
    }

    /// Begin what it asks for; nothing is under way.
    async fn begin(&mut self, order: Order) {
        let ledger = self.site.ledger();
        let Order { wish, tell } = order;
        let up = ledger.live.filter(|live| self.site.runs(*live));
        if let Some(live) = up
            && self.is_same(&wish, live.release)
        {
            tell.tell(Progress::Unchanged {
                release: ledger.id(live.release),
            });
            return;
        }
        match wish {
            Wish::Deploy {
                digest, args, name, ..
            } => {
                let release = Release {
                    digest,
                    args,
                    name,
                    created_ms: now_ms(),
                    proved: false,
                    environment: None,
                };
                let number = self.site.note(|ledger| ledger.add(release));
                self.deploy(number, tell);
            }
            Wish::Rollback => match ledger.back() {
                Some(number) => self.deploy(number, tell),
                None => self.refuse(
                    &tell,
                    Why::new(
                        Kind::NoRelease,
                        "there is no release before this one to go back to",
                    )
                    .hint(format!("hotctl releases {}", self.site.name)),
                ),
            },
            Wish::Start => match (up, ledger.live.map(|live| live.release).or(ledger.stopped)) {
                (Some(live), _) => tell.tell(Progress::Unchanged {
                    release: ledger.id(live.release),
                }),
                (None, Some(number)) => self.deploy(number, tell),
                (None, None) => self.refuse(&tell, nothing_deployed(&self.site)),
            },
            Wish::Restart => match (ledger.live.map(|live| live.release), ledger.stopped) {
                (Some(number), _) | (None, Some(number)) => self.deploy(number, tell),
                (None, None) => self.refuse(&tell, nothing_deployed(&self.site)),
            },
            Wish::Stop => self.stop(&tell).await,
            Wish::Cancel(_) => tell.tell(Progress::Done {
                text: format!("{}: no deployment is under way", self.site.name),
            }),
        }
    }

    /// The one path: start, prove, flip, drain, stop.
    fn deploy(&mut self, release: u32, tell: Teller) {
        let keep_warm = self.site.config.keep_warm;
        let deployment = self.site.note(|ledger| {
            // With nobody live there is nobody to keep warm.
            let hold = ledger.live.map_or(Duration::ZERO, |_| keep_warm);
            ledger.begin(release, Ladder::blue_green(hold))
        });
        let to = deployment.to.release_of(&self.site.name);
        info!(release = %to, deployment = deployment.number, "deployment begins");
        let (events, heard) = mpsc::channel(4);
        let hurry = Arc::new(Notify::new());
        let hands = DeployHands::new(&self.site, &deployment, tell.clone(), hurry.clone());
        self.active = Some(Active {
            number: deployment.number,
            slot: deployment.to.slot,
            driver: tokio::spawn(drive(deployment, Arc::new(hands), heard)),
            events,
            to,
            tell,
            hurry,
            against: Vec::new(),
        });
    }

    async fn stop(&self, tell: &Teller) {
        let before = self.site.ledger();
        let Some(live) = before.live else {
            let text = match before.stopped {
                Some(_) => format!("{} is stopped", self.site.name),
                None => format!("{}: nothing is deployed", self.site.name),
            };
            tell.tell(Progress::Done { text });
            return;
        };
        let stopped = self.site.change(Keep::IfWritten, |ledger| {
            ledger.stop();
        });
        if let Err(cause) = stopped.await {
            let why = format!("cannot write the state: {cause}");
            self.refuse(tell, Why::new(Kind::NotRecorded, why));
            return;
        }
        self.site.publish();
        let (name, tell) = (self.site.name.clone(), tell.clone());
        self.site.lose(live, move |_| {
            tell.tell(Progress::Done {
                text: format!("{name} is stopped"),
            });
        });
        self.site.retire(live);
        info!(service = %self.site.name, "stopped by an operator");
    }

    /// A deployment has ended: retire who lost, tell who waits, begin what is next.
    async fn settle(&mut self, deployment: Deployment) {
        let Some(active) = self.active.take() else {
            return;
        };
        let release = active.to.clone();
        let failed = match &deployment.phase {
            Phase::Failed(why) => Some(why.clone()),
            _ => None,
        };
        self.site
            .means
            .metrics
            .deployment(&self.site.name, failed.as_ref().map(|why| why.kind));
        match &failed {
            None => {
                info!(%release, "deployment done");
                active.tell.tell(Progress::Settled {
                    release: release.clone(),
                    deployment: deployment.number,
                });
                if let Some(old) = deployment.from {
                    self.site.retire(old);
                }
            }
            Some(why) => {
                warn!(%release, reason = %why.kind, %why, "deployment failed");
                self.site.retire(deployment.to);
                active.tell.tell(Progress::Failed {
                    release: Some(release.clone()),
                    live: self.live(),
                    why: why.clone(),
                });
            }
        }
        self.site.prune().await;
        let mut again = Vec::new();
        for order in active.against {
            match (&order.wish, failed.is_some()) {
                (_, true) => order.tell.tell(Progress::Done {
                    text: match self.live() {
                        Some(live) => format!("{live} is live; {release} was taken back"),
                        None => format!("{release} was taken back; nothing is live"),
                    },
                }),
                // It went live in the same instant: to roll back is a deployment of its own now.
                (Wish::Rollback, false) => again.push(order),
                (_, false) => self.refuse(
                    &order.tell,
                    Why::new(Kind::Cancelled, format!("{release} is live already"))
                        .hint(format!("hotctl rollback {}", self.site.name)),
                ),
            }
        }
        for order in again {
            self.receive(order).await;
        }
        while self.active.is_none()
            && let Some(next) = self.queue.take()
        {
            self.begin(next).await;
        }
    }

    /// The process of a slot has ended by itself, or been stopped.
    async fn hear_of(&mut self, slot: Slot, exit: &Exit) {
        let ledger = self.site.ledger();
        // A candidate's end is the driver's to judge.
        let judged = self.active.as_ref().is_some_and(|a| a.slot == slot);
        if matches!(ledger.traffic(), Traffic::All(at) if at.slot == slot) && !judged {
            self.site.revive(slot, exit);
        } else if let Some(active) = &mut self.active
            && ledger.live.is_some_and(|live| live.slot == slot)
        {
            // The warm release died: there is nothing to go back to.
            warn!(service = %self.site.name, %slot, %exit, "the warm release ended by itself");
            active.say(Event::Promote);
        }
    }

    fn refuse(&self, tell: &Teller, why: Why) {
        tell.tell(Progress::Failed {
            release: None,
            live: self.live(),
            why,
        });
    }

    fn live(&self) -> Option<hotctl_config::names::ReleaseId> {
        let ledger = self.site.ledger();
        ledger.live.map(|live| ledger.id(live.release))
    }
}

impl Active {
    fn say(&self, event: Event) {
        // Full: it has been told already. Closed: it has ended, and `settle` follows.
        let _ = self.events.try_send(event);
    }
}

fn nothing_deployed(site: &Site) -> Why {
    Why::new(
        Kind::NoRelease,
        format!("{}: nothing is deployed", site.name),
    )
    .hint("hotctl deploy PATH")
}

fn now_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| {
            u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
        })
}
