//! The control socket while the daemon serves: whoever comes in is answered, and where its file was
//! removed it is bound again, so that the daemon can be steered.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UnixListener;
use tokio::task::JoinSet;
use tokio::time::{Interval, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use crate::control;
use crate::fault::Fault;
use crate::house::House;
use crate::places;
use crate::socket::{Callers, Socket};
use crate::store::on_disk;
use crate::upgrade::Held;

/// How often it is looked whether its file is there.
const LOOK: Duration = Duration::from_secs(2);

/// See the head of this file.
pub struct Door {
    house: Arc<House>,
    callers: Callers,
    /// Whoever is answered; ends when this is dropped.
    serving: JoinSet<()>,
    socket: Socket,
    /// Ends what is accepted; those who are in are answered still.
    leave: CancellationToken,
    look: Interval,
    /// Why it cannot be bound again; said once.
    trouble: Option<String>,
}

impl Door {
    /// Let callers in.
    pub fn open(
        house: Arc<House>,
        callers: Callers,
        socket: Socket,
        listener: UnixListener,
    ) -> Self {
        let mut look = tokio::time::interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut door = Self {
            house,
            callers,
            socket,
            serving: JoinSet::new(),
            leave: CancellationToken::new(),
            look,
            trouble: None,
        };
        door.serve(listener);
        door
    }

    fn serve(&mut self, listener: UnixListener) {
        // Nobody can come in where the file is not there any more.
        std::mem::take(&mut self.leave).cancel();
        let left = self.leave.clone();
        let app = control::router(self.house.clone());
        let app = app.into_make_service_with_connect_info::<control::Caller>();
        self.serving.spawn(async move {
            let serving = axum::serve(listener, app);
            let _ = serving.with_graceful_shutdown(left.cancelled_owned()).await;
        });
    }

    /// It is time to look whether its file is there.
    pub async fn due(&mut self) {
        self.look.tick().await;
    }

    /// Look, and bind it again where its file is gone; a hotctl that takes over gets that one.
    pub fn keep(&mut self, held: &mut Held) {
        // Nobody asks for a project that is gone, and whoever is at the desk is told.
        if places::may_be_made(self.socket.path()).is_err() {
            return;
        }
        let place = self.socket.path().display().to_string();
        let bound = on_disk(|| match self.socket.is_in_place() {
            true => Ok(None),
            false => self.socket.renew(&self.callers).map(Some),
        });
        let failed = |cause: io::Error| Fault::failed(format!("descriptors: {cause}"));
        let bound = bound.and_then(|listener| {
            if let Some(listener) = &listener {
                held.renew_control(listener, &self.socket).map_err(failed)?;
            }
            Ok(listener)
        });
        let trouble = match bound {
            Ok(None) => None,
            Ok(Some(listener)) => {
                warn!(
                    socket = place,
                    "the control socket was removed: it is made again"
                );
                while self.serving.try_join_next().is_some() {}
                self.serve(listener);
                None
            }
            Err(fault) => Some(fault.text),
        };
        if let Some(why) = &trouble
            && self.trouble != trouble
        {
            error!(
                socket = place,
                why,
                "the control socket is not there, and no command reaches this hotctl; tried again"
            );
        }
        self.trouble = trouble;
    }

    /// Where it is.
    pub fn socket(&mut self) -> &mut Socket {
        &mut self.socket
    }

    /// Let nobody in any more.
    pub fn close(&self) {
        self.leave.cancel();
    }

    /// When everybody who is in has been answered.
    pub async fn closed(&mut self) {
        while self.serving.join_next().await.is_some() {}
    }
}
