//! The duty to start a candidate: its command beforehand, its processes, the proof that they are
//! healthy, and the requests that warm them up. Nothing here gives it traffic.

use std::time::{Duration, Instant};

use futures_util::future::try_join_all;
use hotctl_config::{HealthKind, ReleaseId, show_duration};
use hotctl_deploy::command;
use hotctl_deploy::machine::Placement;
use hotctl_deploy::probe::{self, Healthy, Unhealthy, UnhealthyKind};
use hotctl_deploy::process::Exit;
use hotctl_deploy::why::{Kind, Why};
use hotctl_deploy::{inspect, logs, warmup};

use super::{DeployHands, LAST_LINES};
use crate::api::Progress;
use crate::failpoint;
use crate::site::{Launched, Started};
use crate::store::on_disk;
use crate::teller::ms;

/// How many ports are tried when somebody else takes the leased one first.
const PORT_TRIES: u32 = 3;

impl DeployHands {
    pub(super) async fn start(&self, at: Placement) -> Result<(), Why> {
        let release = at.release_of(&self.site.name);
        self.tell.tell(Progress::Starting {
            release: release.clone(),
            deployment: self.deployment,
        });
        let launched = match self.site.launched(at) {
            // The duty was begun before; it may be repeated.
            Some(launched) => launched,
            None => {
                // What is left of a start that another daemon began.
                self.site.discard(at.slot).await;
                self.site.until_alone(at.slot).await;
                self.before_start(at, &release).await?;
                failpoint::pass("after-before-start");
                self.site.launch(at).await?
            }
        };
        let launched = self.until_proved(at, &release, launched).await?;
        if self.site.has_read_others(at) {
            // It would be started again from what it is not. What it has read is deployed next.
            self.site.want_build();
            let text = format!("{release}: what it runs from was changed while it started");
            return Err(Why::new(Kind::Superseded, text));
        }
        failpoint::pass("after-proof");
        self.warm_up(&release, &launched).await;
        Ok(())
    }

    async fn before_start(&self, at: Placement, release: &ReleaseId) -> Result<(), Why> {
        let argv = &self.site.config().before_start;
        if argv.is_empty() {
            return Ok(());
        }
        let command = shell_words::join(argv);
        self.tell.tell(Progress::BeforeStart {
            release: release.clone(),
            command: command.clone(),
        });
        let spec = self.site.before_start(at)?;
        let limit = self.site.config().before_start_timeout;
        let began = Instant::now();
        let said = |last: &str| {
            self.tell.tell(Progress::Waiting {
                release: release.clone(),
                probe: format!("before_start: {last}"),
                for_ms: ms(began.elapsed()),
            });
        };
        match command::run(spec, limit, said).await {
            Ok(ran) => {
                self.tell.tell(Progress::BeforeStartDone {
                    release: release.clone(),
                    took_ms: ms(ran.took),
                });
                Ok(())
            }
            Err(failed) => Err(Why {
                output: failed.output,
                hint: Some(
                    failed
                        .hint
                        .unwrap_or_else(|| format!("hotctl logs {release}")),
                ),
                ..Why::new(
                    Kind::BeforeStart,
                    format!("{release}: before_start failed: {}", failed.text),
                )
            }),
        }
    }

    /// Prove all instances, side by side.
    async fn until_proved(
        &self,
        at: Placement,
        release: &ReleaseId,
        mut launched: Launched,
    ) -> Result<Launched, Why> {
        let mut tries = 1;
        loop {
            self.tell_started(release, &launched);
            self.times().launched = Some((launched.clone(), self.tell.elapsed()));
            let began = Instant::now();
            let several = launched.instances.len() > 1;
            let proofs = launched.instances.iter().enumerate().map(|(n, one)| {
                let said = move |last: &str| {
                    self.tell.tell(Progress::Waiting {
                        release: release.clone(),
                        probe: match several {
                            true => format!("instance {n}: {last}"),
                            false => last.to_owned(),
                        },
                        for_ms: ms(began.elapsed()),
                    });
                };
                async move { self.prove(at, n, one, said).await.map_err(|e| (n, e)) }
            });
            match try_join_all(proofs).await {
                Ok(healthy) => {
                    self.proved(release, &healthy);
                    return Ok(launched);
                }
                Err((n, unhealthy)) => {
                    let taken =
                        unhealthy.kind == UnhealthyKind::Exited && self.site.lost_a_port(at.slot);
                    if taken && tries < PORT_TRIES {
                        // Between our test and its bind somebody else took the port: not its fault.
                        tries += 1;
                        self.site.discard(at.slot).await;
                        launched = self.site.launch(at).await?;
                        continue;
                    }
                    let Some(one) = launched.instances.get(n) else {
                        return Err(Why::new(Kind::NotHealthy, unhealthy.to_string()));
                    };
                    return Err(self.why(&unhealthy, one, release));
                }
            }
        }
    }

    async fn prove(
        &self,
        at: Placement,
        instance: usize,
        one: &Started,
        said: impl FnMut(&str),
    ) -> Result<Healthy, Unhealthy> {
        let health = self.site.health(&one.address, &one.ports);
        let limit = self.site.config().start_timeout;
        let healthy =
            probe::prove(&one.process, &one.address, &one.spec, &health, limit, said).await?;
        // Where it has ended since, that is heard of by itself.
        self.site.proved(at.slot, instance, &one.process);
        Ok(healthy)
    }

    fn tell_started(&self, release: &ReleaseId, launched: &Launched) {
        for (instance, one) in launched.instances.iter().enumerate() {
            self.tell.tell(Progress::Started {
                release: release.clone(),
                instance,
                address: one.address.clone(),
                ports: one.ports.clone(),
                pid: one.process.pid(),
                took_ms: ms(self.tell.elapsed()),
            });
        }
    }

    fn proved(&self, release: &ReleaseId, healthy: &[Healthy]) {
        for warning in healthy.iter().filter_map(|one| one.warning.as_ref()) {
            tracing::warn!(%release, "{warning}");
        }
        // The slowest: that is what was waited for.
        let Some(last) = healthy.iter().max_by_key(|one| one.took) else {
            return;
        };
        self.tell.tell(Progress::Healthy {
            release: release.clone(),
            took_ms: ms(last.took),
            probes: healthy.iter().map(|one| one.probes).sum(),
        });
        self.times().healthy = Some(last.clone());
    }

    /// Ask each instance for what the configuration names; what comes of it fails nothing.
    async fn warm_up(&self, release: &ReleaseId, launched: &Launched) {
        let config = &self.site.config();
        if config.warmup.is_empty() {
            return;
        }
        let host = config.health.host.as_deref();
        let warming = launched
            .instances
            .iter()
            .enumerate()
            .map(|(instance, one)| {
                let told = move |warmed: &warmup::Warmed| {
                    self.tell.tell(Progress::Warmed {
                        release: release.clone(),
                        instance,
                        path: warmed.path.clone(),
                        status: warmed.outcome.as_ref().ok().copied(),
                        error: warmed.outcome.as_ref().err().cloned(),
                        took_ms: ms(warmed.took),
                    });
                };
                warmup::warm(
                    &one.address,
                    host,
                    &config.warmup,
                    config.warmup_timeout,
                    told,
                )
            });
        futures_util::future::join_all(warming).await;
    }

    /// Why a candidate did not become healthy, as the deployment tells it.
    fn why(&self, unhealthy: &Unhealthy, one: &Started, release: &ReleaseId) -> Why {
        let kind = match unhealthy.kind {
            UnhealthyKind::Exited => Kind::Exited,
            UnhealthyKind::Timeout => Kind::NotHealthy,
            UnhealthyKind::WrongPort => Kind::WrongPort,
            UnhealthyKind::NotOwned => Kind::NotOwned,
        };
        let output = on_disk(|| logs::tail(&one.spec.log, LAST_LINES));
        let noticed = unhealthy
            .exit
            .as_ref()
            .and_then(|exit| inspect::after(exit, &output));
        let text = match &noticed {
            Some(refused) => format!("{release}: {unhealthy}: {}", refused.text),
            None => format!("{release}: {unhealthy}"),
        };
        let noticed = noticed.and_then(|refused| refused.hint);
        let hint = match (noticed, &unhealthy.hint, &unhealthy.exit) {
            (Some(hint), ..) => hint,
            (None, Some(hint), _) => hint.clone(),
            (None, None, Some(Exit::Code(0))) => {
                "let it stay in the foreground: no daemon mode, no launcher that ends".to_owned()
            }
            (None, None, None)
                if self.site.config().health.kind == HealthKind::Notify
                    && unhealthy.kind == UnhealthyKind::Timeout =>
            {
                format!(
                    "let the app send READY=1 to NOTIFY_SOCKET within {}, or set health.kind",
                    show_duration(self.site.config().start_timeout)
                )
            }
            (None, None, _) => format!("hotctl logs {release}"),
        };
        Why {
            output,
            hint: Some(hint),
            ..Why::new(kind, text)
        }
    }

    /// After the flip: the command that the configuration wants run then, alongside. If it fails,
    /// that is told, and nothing else.
    pub(super) fn on_live(&self) {
        let argv = &self.site.config().on_live;
        if argv.is_empty() {
            return;
        }
        let told = self.clone();
        let limit: Duration = self.site.config().on_live_timeout;
        let command = shell_words::join(argv);
        self.site.beside(self.to.slot, async move {
            let release = told.to.release_of(&told.site.name);
            let ran = match told.site.on_live(told.to) {
                Ok(spec) => command::run(spec, limit, |_| {})
                    .await
                    .map_err(|failed| failed.text),
                Err(why) => Err(why.text),
            };
            if let Err(text) = &ran {
                tracing::warn!(%release, "on_live {command:?}: {text}");
            }
            told.tell.tell(Progress::OnLive {
                release,
                command,
                took_ms: ran.as_ref().map_or(0.0, |ran| ms(ran.took)),
                error: ran.err(),
            });
        });
    }
}
