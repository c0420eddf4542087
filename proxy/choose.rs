//! Which release answers a request: a ticket where something serves, a place in the park where
//! nothing does for a moment, or the reason why there is neither. Sends nothing.

use hotctl_config::ServiceName;
use pingora::protocols::http::v1::server::HttpSession as Session;

use crate::answer::Refusal;
use crate::context::Context;
use crate::headers;
use crate::metrics::ParkOutcome;
use crate::park::{Parked, Place};
use crate::request::{Requests, conn};
use crate::split::Closed;
use crate::switch::{Ask, NoRoute};

/// Why a request has no ticket.
pub(crate) enum Unchosen {
    Refused(Refusal),
    /// The client went away while its request waited.
    ClientLeft,
}

/// A request that waits.
struct Stay {
    place: Place,
    until: tokio::time::Instant,
}

impl Requests {
    /// Takes a ticket, waiting for one where the service is parked.
    pub(crate) async fn choose(
        &self,
        session: &Session,
        ctx: &mut Context,
    ) -> Result<(), Unchosen> {
        match self.pick(session, ctx) {
            Ok(()) => Ok(()),
            // In a box of its own: all others would else carry what it takes to wait.
            Err(NoRoute::Parked(service, parked)) => {
                Box::pin(self.wait(session, ctx, service, parked)).await
            }
            Err(why) => Err(Unchosen::Refused(self.refusal(ctx, why))),
        }
    }

    /// Waits for a ticket.
    async fn wait(
        &self,
        session: &Session,
        ctx: &mut Context,
        service: ServiceName,
        parked: Parked,
    ) -> Result<(), Unchosen> {
        let mut stay: Option<Stay> = None;
        let mut picked = Err(NoRoute::Parked(service, parked));
        loop {
            let parked = match picked {
                Err(NoRoute::Parked(service, parked)) => {
                    ctx.meter = Some(self.metrics.meter(&service));
                    parked
                }
                picked => {
                    let outcome = match picked.is_ok() {
                        true => ParkOutcome::Served,
                        false => ParkOutcome::Refused,
                    };
                    if stay.is_some() {
                        self.count_parked(ctx, outcome);
                    }
                    return picked.map_err(|why| Unchosen::Refused(self.refusal(ctx, why)));
                }
            };
            let Some(stay) = stay.as_mut().filter(|stay| stay.place.is_in(&parked.park)) else {
                // As others see it: it does nothing for any release.
                ctx.park();
                if let Some(conn) = conn(session) {
                    conn.line().end();
                }
                let Some(place) = parked.park.enter(parked.limits.max) else {
                    self.count_parked(ctx, ParkOutcome::Full);
                    return Err(Unchosen::Refused(Refusal::ParkFull));
                };
                let until = stay.as_ref().map(|stay| stay.until);
                stay = Some(Stay {
                    place,
                    until: until
                        .unwrap_or_else(|| tokio::time::Instant::now() + parked.limits.time),
                });
                // Once more, with the place: see `park`.
                picked = self.pick(session, ctx);
                continue;
            };
            let left = async {
                match conn(session) {
                    Some(conn) => conn.left().await,
                    None => std::future::pending().await,
                }
            };
            let outcome = tokio::select! {
                biased;
                () = stay.place.rung() => {
                    picked = self.pick(session, ctx);
                    continue;
                }
                () = left => ParkOutcome::Left,
                () = tokio::time::sleep_until(stay.until) => ParkOutcome::Timeout,
            };
            self.count_parked(ctx, outcome);
            return Err(match outcome {
                ParkOutcome::Left => Unchosen::ClientLeft,
                _ => Unchosen::Refused(Refusal::ParkTimeout),
            });
        }
    }

    /// Takes a ticket, and only then gives back the one before.
    fn pick(&self, session: &Session, ctx: &mut Context) -> Result<(), NoRoute> {
        let request = session.req_header();
        let ask = Ask {
            host: headers::host(request),
            path: request.uri.path(),
            roll: ctx.roll,
            tried: ctx.tried,
        };
        let ticket = self.switch.pick(&ask)?;
        if let Some(conn) = conn(session) {
            conn.line().begin(ticket.group_key());
        }
        ctx.go_to(ticket);
        Ok(())
    }

    /// What to answer where there is no ticket.
    fn refusal(&self, ctx: &mut Context, why: NoRoute) -> Refusal {
        match why {
            NoRoute::NoService => Refusal::NoRoute,
            NoRoute::Closed(service, why) => {
                ctx.meter = Some(self.metrics.meter(&service));
                let refusal = Refusal::from(&why);
                if let Closed::Maintenance(notice) = why {
                    ctx.notice = Some(notice);
                }
                refusal
            }
            // Only said to those who do not wait.
            NoRoute::Parked(..) => Refusal::ParkFull,
        }
    }

    fn count_parked(&self, ctx: &Context, outcome: ParkOutcome) {
        if let Some(meter) = self.meter(ctx) {
            self.metrics.parked(meter, outcome);
        }
    }
}
