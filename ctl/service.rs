//! The one task of a service: every wish is an order in its mailbox, whoever sends it. One
//! deployment runs at a time, the newest order waits its turn. Decides what happens when; how it
//! is done is the driver's and the site's.

mod accept;
mod cancel;
mod gate;
mod resume;

use std::sync::Arc;
use std::time::{Duration, Instant};

use hotctl_config::file::OnCrashLoop;
use hotctl_config::names::{Digest, ReleaseId, Slot};
use hotctl_deploy::drive::drive;
use hotctl_deploy::ledger::Traffic;
use hotctl_deploy::machine::{Deployment, Event, Ladder, Phase};
use hotctl_deploy::queue::Queue;
use hotctl_deploy::restart::Loop;
use hotctl_deploy::why::{Kind, Why};
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;
use tokio_util::task::AbortOnDropHandle;
use tracing::{info, warn};

use crate::api::{Noted, Progress, Verb};
use crate::failpoint;
use crate::hands::DeployHands;
use crate::history::History;
use crate::house::{Farewell, Parting};
use crate::site::{Ended, Keep, Renewal, Site};
use crate::teller::Teller;
use crate::who::{Giver, Via};
use accept::Waiting;
pub use gate::Move;
pub use resume::Resume;

/// What somebody wants of a service, and where to tell what becomes of it.
#[derive(Debug)]
pub struct Order {
    pub wish: Wish,
    pub if_busy: IfBusy,
    pub tell: Teller,
}

impl Order {
    /// Of a service, by whom, and where is read what becomes of it.
    pub fn of(
        site: &Site,
        wish: Wish,
        by: Giver,
        if_busy: IfBusy,
    ) -> (Self, mpsc::Receiver<Progress>) {
        let (tell, progress) = Teller::new(wish.verb(), by, &site.name, &site.means.journal);
        let order = Self {
            wish,
            if_busy,
            tell,
        };
        (order, progress)
    }
}

/// What to do with an order while a deployment is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IfBusy {
    /// It waits its turn.
    Wait,
    /// It is refused.
    Refuse,
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
    /// Go back to that release, or to the one before.
    Rollback { to: Option<u32> },
    /// Take it out of service.
    Stop,
    /// Start what was stopped.
    Start,
    /// The same release in fresh processes.
    Restart,
    /// End a deployment.
    Cancel(Which),
    /// Put something between requests and the service, or take it away.
    Gate(Move),
}

impl Wish {
    /// What is asked for, in a word.
    pub fn verb(&self) -> Verb {
        match self {
            Self::Deploy { .. } => Verb::Deploy,
            Self::Rollback { .. } => Verb::Rollback,
            Self::Stop => Verb::Stop,
            Self::Start => Verb::Start,
            Self::Restart => Verb::Restart,
            Self::Cancel(_) => Verb::Cancel,
            Self::Gate(Move::Pause) => Verb::Pause,
            Self::Gate(Move::Resume) => Verb::Resume,
            Self::Gate(Move::Close(_) | Move::Reopen) => Verb::Maintenance,
        }
    }
}

/// Which deployment is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// Whatever is under way, and whatever waits.
    Any,
    /// The one of this number.
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

/// After a restart of its own accord that failed, the next one is not tried before.
const REST: Duration = Duration::from_secs(5 * 60);

/// What takes too much memory as soon as it runs is not replaced more often,
const BETWEEN_RENEWALS: Duration = Duration::from_secs(60);
/// nor what is healthy at first and then hangs.
const BETWEEN_REPAIRS: Duration = Duration::from_secs(10);

/// Run the task of one service until services are to end.
pub async fn run(
    site: Arc<Site>,
    history: Arc<History>,
    mut orders: mpsc::Receiver<Order>,
    mut exits: mpsc::Receiver<Ended>,
    farewell: Farewell,
    resume: Resume,
) {
    let writing = AbortOnDropHandle::new(tokio::spawn(history.clone().keep_writing()));
    let mut desk = Desk {
        site,
        history: history.clone(),
        active: None,
        queue: Queue::default(),
        left: None,
        rest_until: None,
        renewed: None,
    };
    let mut renewals = desk.site.renewals();
    desk.resume(resume).await;
    let parting = loop {
        tokio::select! {
            Some(order) = orders.recv() => desk.receive(order).await,
            deployment = ended(&mut desk.active) => desk.settle(deployment).await,
            Some(ended) = exits.recv() => desk.hear_of(&ended).await,
            Ok(()) = renewals.changed() => {
                let renewal = *renewals.borrow_and_update();
                desk.renew(renewal).await;
            }
            parting = farewell.said() => break parting,
        }
    };
    desk.close(parting).await;
    match parting {
        Parting::Leave => desk.site.leave_everything().await,
        Parting::Stop => {
            desk.site.stop_everything().await;
            // Nothing of it runs any more: the next daemon has nothing to go on with.
            let ended = desk.site.change(Keep::Anyway, |ledger| {
                ledger.interrupted();
            });
            if let Err(cause) = ended.await {
                warn!(service = %desk.site.name, %cause, "cannot record what ended with hotctl");
            }
        }
    }
    drop(writing);
    history.write().await;
}

/// Where orders are received and deployments watched.
struct Desk {
    site: Arc<Site>,
    history: Arc<History>,
    active: Option<Active>,
    queue: Queue<Waiting>,
    /// No restart of its own accord before: the last one failed.
    rest_until: Option<Instant>,
    /// When processes were last replaced of the daemon's own accord.
    renewed: Option<Instant>,
    /// The slot that was left for the release before it, because it ended again and again.
    left: Option<Slot>,
}

/// The deployment under way.
struct Active {
    driver: JoinHandle<Deployment>,
    /// An operator's word to it. Four may lie unread: a fifth says nothing new.
    events: mpsc::Sender<Event>,
    number: u32,
    to: ReleaseId,
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
        if let Wish::Cancel(which) = order.wish {
            return self.cancel(which, order).await;
        }
        if let Wish::Gate(to) = &order.wish {
            return self.gate(to, &order.tell).await;
        }
        if order.if_busy == IfBusy::Refuse
            && let Some(why) = self.busy()
        {
            return self.refuse(&order.tell, why);
        }
        match (&order.wish, &self.active) {
            (Wish::Stop, None) => self.stop(&order.tell).await,
            (Wish::Stop, Some(active)) => {
                // What has gone live stays the release to start again; what has not is given up.
                if !self.is_warm() {
                    let why = Why::new(Kind::Cancelled, "the service is being stopped");
                    active.say(Event::Failed(why));
                }
                self.wait(Waiting::Stop(order.tell)).await;
            }
            (Wish::Rollback { to }, Some(active)) if self.takes_back(*to) => {
                let by = &order.tell.by().who;
                active.say(Event::Failed(Why::new(
                    Kind::RolledBack,
                    format!("rolled back by {by}"),
                )));
                self.against(order);
            }
            _ => self.deployment(order).await,
        }
    }

    /// Whether a rollback to that release is to end the deployment under way badly: its target is
    /// what was live when that began.
    fn takes_back(&self, to: Option<u32>) -> bool {
        let ledger = self.site.ledger();
        let from = ledger.deployment.and_then(|d| d.from);
        // What is kept warm and hangs is better started anew.
        if self.is_warm() && from.is_some_and(|from| !self.site.is_well(from.slot)) {
            return false;
        }
        match to {
            None => true,
            Some(to) => from.or(ledger.live).is_some_and(|from| from.release == to),
        }
    }

    /// Whether the deployment under way only keeps the old release warm.
    fn is_warm(&self) -> bool {
        let ledger = self.site.ledger();
        ledger.deployment.is_some_and(|d| d.is_warm())
    }

    /// The order is answered when the deployment under way has ended.
    fn against(&mut self, order: Order) {
        if let Some(active) = &mut self.active {
            active.against.push(order);
        }
    }

    /// The one path: start, prove, flip, drain, stop.
    fn deploy(&mut self, number: u32, release: u32, tell: Teller) {
        let config = self.site.config();
        let (keep_warm, strategy) = (config.keep_warm(), config.strategy());
        // What it is started with now; a start that cannot read it says so.
        let environment = self.site.environment().ok();
        // With nobody live there is nobody to keep warm, nor where the old one had to go first; and nobody
        // goes back to what hangs.
        let hold = match self.site.ledger().live {
            Some(live) if self.site.is_well(live.slot) => keep_warm,
            _ => Duration::ZERO,
        };
        let deployment = self.site.note(|ledger| {
            if let Some(release) = ledger.releases.get_mut(&release) {
                release.environment = environment;
            }
            ledger.begin_ordered(number, release, Ladder::blue_green(hold), strategy)
        });
        let to = deployment.to.release_of(&self.site.name);
        info!(release = %to, deployment = number, by = %tell.by().who, "deployment begins");
        tell.begins(&deployment);
        self.drive(deployment, tell);
    }

    fn drive(&mut self, deployment: Deployment, tell: Teller) {
        let to = deployment.to.release_of(&self.site.name);
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
            let why = Why::new(Kind::NotRecorded, why)
                .hint("free space or mend the permissions of the state folder, then stop it again");
            self.refuse(tell, why);
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
        failpoint::pass("before-settle");
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
                // What ended in the very moment in which it was no longer watched.
                for ended in self.site.dead(deployment.to.slot) {
                    _ = self.site.revive(&ended);
                }
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
                // What was live may be away for good now.
                self.site.publish();
                if active.tell.by().via == Via::Daemon {
                    self.rest_until = Instant::now().checked_add(REST);
                }
                self.site.retire(deployment.to);
                active.tell.tell(Progress::Failed {
                    release: Some(release.clone()),
                    live: self.live(),
                    why: why.clone(),
                });
            }
        }
        failpoint::pass("before-prune");
        self.site.prune().await;
        failpoint::pass("after-prune");
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
                (Wish::Rollback { .. }, false) => again.push(order),
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

    /// A process has ended by itself.
    async fn hear_of(&mut self, ended: &Ended) {
        let ledger = self.site.ledger();
        let slot = ended.slot;
        let serves = matches!(ledger.traffic(), Traffic::All(at) if at.slot == slot);
        // What is left of a candidate's pool goes on; that nothing is left is the driver's to judge.
        if ledger
            .deployment
            .as_ref()
            .is_some_and(Deployment::is_between)
            && matches!(ledger.traffic(), Traffic::Parked(at) if at.slot == slot)
        {
            // It is being ended anyway.
            if let Some(live) = ledger.live {
                self.site.note_exit(live, ended);
            }
            return;
        }
        let judged = self.active.as_ref().is_some_and(|a| a.slot == slot);
        let others = self.site.is_up(slot);
        if serves && (!judged || others) {
            if self.site.revive(ended) != Loop::No {
                self.crash_loop(slot).await;
            }
        } else if let Some(active) = &mut self.active
            && !judged
            && ledger.live.is_some_and(|live| live.slot == slot)
        {
            if others {
                _ = self.site.revive(ended);
            } else {
                // There is nothing to go back to.
                if let Some(live) = ledger.live {
                    self.site.note_exit(live, ended);
                }
                warn!(service = %self.site.name, %slot, exit = %ended.exit, "the warm release ended by itself");
                active.say(Event::Promote);
            }
        }
    }

    /// What is live should be replaced by fresh processes.
    async fn renew(&mut self, renewal: Option<(Slot, Renewal)>) {
        let Some((slot, why)) = renewal else { return };
        let resting = self.rest_until.is_some_and(|until| Instant::now() < until);
        let idle = self.active.is_none() && self.queue.waiting().is_none();
        let live = match self.site.ledger().traffic() {
            Traffic::All(at) if at.slot == slot && self.site.is_up(slot) => at,
            _ => return,
        };
        let pause = match why {
            Renewal::Unhealthy => BETWEEN_REPAIRS,
            Renewal::Age | Renewal::Memory => BETWEEN_RENEWALS,
        };
        let renewed = self.renewed.is_some_and(|at| at.elapsed() < pause);
        let may_repeat = matches!(why, Renewal::Memory | Renewal::Unhealthy);
        if resting || !idle || may_repeat && renewed {
            // It is said again.
            return;
        }
        self.renewed = Some(Instant::now());
        let Site { name, means, .. } = &*self.site;
        means.metrics.renewal(name, why);
        let noted = Noted::Renewal {
            release: live.release_of(name),
            slot,
            reason: why.label().to_owned(),
        };
        means.journal.note(Some(name), noted);
        self.by_itself(Wish::Restart).await;
    }

    /// An order of the daemon's own, as any other.
    async fn by_itself(&mut self, wish: Wish) {
        // Nobody listens: it is told to the journal and to the record.
        let (order, _) = Order::of(&self.site, wish, Giver::daemon(), IfBusy::Refuse);
        self.receive(order).await;
    }

    /// What is live ends again and again: go back, where the configuration wants it, once.
    async fn crash_loop(&mut self, slot: Slot) {
        let idle = self.active.is_none() && self.queue.waiting().is_none();
        if self.site.config().on_crash_loop != OnCrashLoop::Rollback
            || self.left == Some(slot)
            || !idle
            || !self.site.is_failed()
        {
            return;
        }
        self.left = Some(slot);
        self.by_itself(Wish::Rollback { to: None }).await;
    }

    fn refuse(&self, tell: &Teller, why: Why) {
        tell.tell(Progress::Failed {
            release: None,
            live: self.live(),
            why,
        });
    }

    /// The daemon ends: nothing more becomes of what is under way.
    async fn close(&mut self, parting: Parting) {
        let warm = self.is_warm();
        let goes_on = match parting {
            Parting::Stop => "",
            Parting::Leave => ": it goes on when hotctl is started again",
        };
        if let Some(active) = self.active.take() {
            active.driver.abort();
            // Until it has: nothing more is begun then.
            let _ = active.driver.await;
            active.tell.tell(if warm {
                Progress::Settled {
                    release: active.to,
                    deployment: active.number,
                }
            } else {
                Progress::Failed {
                    release: Some(active.to),
                    live: self.live(),
                    why: Why::new(
                        Kind::Interrupted,
                        format!("hotctl ended while the deployment was under way{goes_on}"),
                    ),
                }
            });
        }
        if let Some(waiting) = self.queue.take() {
            let why = "hotctl ended before its turn came";
            self.give_up(waiting, Why::new(Kind::Interrupted, why));
        }
    }

    /// What gets every new request.
    fn live(&self) -> Option<ReleaseId> {
        let ledger = self.site.ledger();
        match ledger.traffic() {
            Traffic::All(at) | Traffic::Parked(at) | Traffic::Shared { live: at, .. } => {
                Some(ledger.id(at.release))
            }
            Traffic::NothingDeployed | Traffic::Stopped => None,
        }
    }
}

impl Active {
    fn say(&self, event: Event) {
        // Full: it has been told already. Closed: it has ended, and `settle` follows.
        let _ = self.events.try_send(event);
    }
}
