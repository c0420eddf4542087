//! How a pool that gets no more requests comes to its end: each kind of request has its time, and
//! what is still open then is ended in the way that its client understands.

use std::time::Duration;

use hotctl_config::Drain;
use tokio::time::Instant;

use crate::kinds::{Kind, Open};
use crate::lines::End;
use crate::pool::Pool;

/// How long the two sides of a WebSocket may take to answer a Close frame.
pub(crate) const FAREWELL: Duration = Duration::from_secs(3);

/// How long the connections may take to obey, at the very most.
const OBEY: Duration = Duration::from_secs(2);

/// See [`crate::Switch::retire`].
pub(crate) async fn drain(pool: &Pool, limits: &Drain) -> Open {
    let times = Times::from(Instant::now(), limits);
    let kinds = &pool.notes().kinds;
    let _late = Late::begin(pool);
    loop {
        let changed = kinds.changed.notified();
        let mut changed = std::pin::pin!(changed);
        changed.as_mut().enable();
        let now = Instant::now();
        kinds.set_late(now >= times.requests);
        if now >= times.end {
            let open = kinds.open(pool.tickets());
            tracing::warn!("{}: {} requests do not end", pool.release(), open.total());
            break;
        }
        let next = end_what_is_due(pool, &times, now);
        tokio::select! {
            biased;
            () = pool.drained() => break,
            () = changed => {}
            () = tokio::time::sleep_until(next) => {}
        }
    }
    kinds.take_cut()
}

/// Ends everything at once: WebSockets in their orderly way, the rest by a reset.
pub(crate) async fn cut(pool: &Pool) -> Open {
    let now = Drain {
        requests: Duration::ZERO,
        websockets: Duration::ZERO,
        streams: Duration::ZERO,
        spread: Duration::ZERO,
        ..Drain::default()
    };
    drain(pool, &now).await
}

/// Says until when there is nothing more to do.
fn end_what_is_due(pool: &Pool, times: &Times, now: Instant) -> Instant {
    let mut next = match now < times.requests {
        true => times.requests,
        false => times.end,
    };
    for (line, kind) in pool.notes().lines_of(pool) {
        let due = times.due(kind, line.lot());
        if due > now {
            next = next.min(due);
            continue;
        }
        let end = match kind {
            Kind::WebSocket => End::Close(times.close_code),
            Kind::Request | Kind::Long | Kind::Stream => End::Cut,
        };
        line.tell(pool, end);
    }
    next
}

/// When each kind is over.
struct Times {
    requests: Instant,
    streams: Instant,
    websockets: Instant,
    /// How long before that the first of its kind may be ended.
    streams_spread: Duration,
    websockets_spread: Duration,
    close_code: u16,
    /// Of waiting for anything.
    end: Instant,
}

impl Times {
    fn from(begun: Instant, limits: &Drain) -> Self {
        let longest = limits.requests.max(limits.streams).max(limits.websockets);
        Self {
            requests: begun + limits.requests,
            streams: begun + limits.streams,
            websockets: begun + limits.websockets,
            streams_spread: limits.spread.min(limits.streams),
            websockets_spread: limits.spread.min(limits.websockets),
            // The configuration allows two, which both fit.
            close_code: u16::try_from(limits.close_code).unwrap_or(1012),
            end: begun + longest + FAREWELL + OBEY,
        }
    }

    /// When one of this kind ends, by its lot of 0 to 1.
    fn due(&self, kind: Kind, lot: f64) -> Instant {
        match kind {
            Kind::Request => self.requests,
            Kind::Stream => self.streams - self.streams_spread.mul_f64(lot),
            // Until then it counts as a request.
            Kind::Long => self.requests.max(self.due(Kind::Stream, lot)),
            Kind::WebSocket => self.websockets - self.websockets_spread.mul_f64(lot),
        }
    }
}

/// As long as a drain goes on, long answers may count as streams.
struct Late(Pool);

impl Late {
    fn begin(pool: &Pool) -> Self {
        Self(pool.clone())
    }
}

impl Drop for Late {
    fn drop(&mut self) {
        self.0.notes().kinds.set_late(false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_has_its_time_and_nothing_ends_before_its_spread_begins() {
        let second = Duration::from_secs;
        let begun = Instant::now();
        let limits = Drain {
            requests: second(30),
            streams: second(10),
            websockets: second(100),
            spread: second(20),
            ..Drain::default()
        };
        let times = Times::from(begun, &limits);
        for (kind, lot, due) in [
            (Kind::Request, 0.9, 30),
            (Kind::Stream, 0.0, 10),
            (Kind::Stream, 1.0, 0),
            (Kind::Long, 0.5, 30),
            (Kind::WebSocket, 0.0, 100),
            (Kind::WebSocket, 0.5, 90),
            (Kind::WebSocket, 1.0, 80),
        ] {
            assert_eq!(times.due(kind, lot), begun + second(due), "{kind:?}, {lot}");
        }
    }
}
