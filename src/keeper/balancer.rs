//! The balancer's process, one after another: started, watched, ended. When is decided by `lifecycle.rs`.

mod process;
mod report;
mod told;

use std::collections::BTreeSet;
use std::io::{self, ErrorKind};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nix::unistd::Pid;
use tokio::sync::watch;
use tokio::time::{sleep_until, timeout};

use self::process::Process;
use self::report::{differ, fits, longest_message};
use super::knowledge::Knowledge;
use super::lifecycle::{Lifecycle, Verdict};
use super::listeners::Listeners;
use crate::config::model::{self, LogTarget};
use crate::config::text;
use crate::process::messages::{Beat, FromBalancer, Identity, Known, Reload, Start, ToBalancer};
use crate::process::wishes::{StampedWish, Wishes};
use crate::status::{BackendStatus, BalancerState, BalancerStatus, ServerStatus};

/// Connections wait so long in the queues while no balancer serves; then they are refused.
const QUEUE_LIMIT: Duration = Duration::from_secs(1);
/// Of files that names are resolved by.
const LONGEST_HOST_FILE: u64 = 1 << 20;

/// Between two attempts to open targets of the balancer's log that are away.
const LOG_PAUSE: Duration = Duration::from_secs(1);

/// What every balancer of this keeper starts with.
#[derive(Clone)]
pub(super) struct Template {
    pub(super) config: model::Balancer,
    pub(super) log_targets: Vec<LogTarget>,
    pub(super) user: Option<Identity>,
    pub(super) chroot: Option<PathBuf>,
    pub(super) files: HostFiles,
}

/// Texts of files that names are resolved by, which a chroot does not have.
#[derive(Clone, Default)]
pub(super) struct HostFiles {
    resolv_conf: String,
    hosts: String,
}

impl HostFiles {
    /// As they are now. One that is not there, or cannot be one, is empty.
    pub(super) fn read() -> Self {
        let read = |path: &str| {
            let bytes = text::of_regular_file(path.as_ref(), LONGEST_HOST_FILE).unwrap_or_default();
            String::from_utf8_lossy(&bytes).into_owned()
        };
        HostFiles { resolv_conf: read("/etc/resolv.conf"), hosts: read("/etc/hosts") }
    }
}

/// Why a balancer cannot be offered another configuration.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReloadError {
    #[error(transparent)]
    Listeners(#[from] super::listeners::Error),
    #[error("the listening sockets cannot be handed over: {0}")]
    Descriptors(#[from] io::Error),
    #[error("the balancer does not read its messages")]
    Silent,
}

/// The one balancer there is, or the one there will be.
pub(super) struct Balancer {
    template: Template,
    lifecycle: Lifecycle,
    process: Option<Process>,
    /// `None`: none has served for a while, so that clients are refused.
    listeners: Option<Arc<Listeners>>,
    /// What was offered to the one that runs, which has not answered yet.
    offered: Option<(Template, Arc<Listeners>)>,
    /// When the last one was lost, while none serves.
    lost_at: Option<Instant>,
    held: Vec<IpAddr>,
    cut_off: Vec<IpAddr>,
    state: BalancerState,
    beat: Beat,
    /// What people want of servers.
    wishes: watch::Receiver<Arc<Wishes>>,
    /// Of the last ones that it was told.
    number: u64,
    /// Some did not reach it.
    owes_wishes: bool,
    /// When targets of its log were last opened again because they were away.
    log_opened_at: Option<Instant>,
    /// Those that could not be, which was said: by their places.
    log_trouble: Arc<Mutex<BTreeSet<usize>>>,
    /// What the peers' balancers know.
    knowledge: Knowledge,
}

/// What the keeper has to know.
#[derive(Debug)]
pub(super) enum Change {
    /// It accepts connections.
    Serving,
    /// It is gone, for this reason.
    Lost(String),
    /// One of its servers went up or down, or all have been checked again.
    Servers,
    /// It heeds the wishes up to this number.
    Heeded(u64),
    /// It follows the configuration that it was offered, or it does not, for this reason.
    Reloaded(Result<(), String>),
}

/// What happens next to a process.
enum Happening {
    Message(FromBalancer),
    Ended(String),
    Look,
}

impl Balancer {
    /// Nothing runs before [`Balancer::next`].
    pub(super) fn new(
        template: Template,
        listeners: Listeners,
        wishes: watch::Receiver<Arc<Wishes>>,
        knowledge: Knowledge,
    ) -> Self {
        Balancer {
            template,
            lifecycle: Lifecycle::new(Instant::now()),
            process: None,
            listeners: Some(Arc::new(listeners)),
            offered: None,
            lost_at: None,
            held: Vec::new(),
            cut_off: Vec::new(),
            state: BalancerState::Starting,
            beat: Beat::default(),
            wishes,
            number: 0,
            owes_wishes: false,
            log_opened_at: None,
            log_trouble: Arc::default(),
            knowledge,
        }
    }

    /// Starts, watches and ends balancers until there is something to tell. Cancel-safe.
    pub(super) async fn next(&mut self) -> Change {
        loop {
            let verdict = match self.happening().await {
                Happening::Message(FromBalancer::Serving) => {
                    self.lifecycle.serving(Instant::now());
                    self.state = BalancerState::Serving;
                    self.lost_at = None;
                    return Change::Serving;
                }
                Happening::Message(FromBalancer::Failed(reason)) => {
                    return self.lost(ServerStatus::reason_from(&reason));
                }
                Happening::Message(FromBalancer::Reloaded(result)) => match (self.offered.take(), result) {
                    (Some((template, _)), Ok(beat)) if !fits(&beat, &template.config) => {
                        return self.lost("its report does not fit its configuration".to_owned());
                    }
                    (Some((template, listeners)), Ok(beat)) => {
                        (self.template, self.listeners) = (template, Some(listeners));
                        self.beat = beat;
                        return Change::Reloaded(Ok(()));
                    }
                    (Some(_), Err(reason)) => return Change::Reloaded(Err(reason)),
                    (None, _) => return self.lost("it follows what nobody told it".to_owned()),
                },
                Happening::Message(FromBalancer::Beat(beat)) if !fits(&beat, &self.template.config) => {
                    return self.lost("its report does not fit its configuration".to_owned());
                }
                Happening::Message(FromBalancer::Beat(beat)) => {
                    let verdict = self.lifecycle.beat(&beat.worker_silence_ms, Instant::now());
                    let servers_changed =
                        beat.checked != self.beat.checked || differ(&self.beat.backends, &beat.backends);
                    if beat.log_is_broken && self.log_opened_at.is_none_or(|at| at.elapsed() >= LOG_PAUSE) {
                        self.log_opened_at = Some(Instant::now());
                        self.reopen_log();
                    }
                    self.beat = beat;
                    if std::mem::take(&mut self.owes_wishes) {
                        let all: Vec<_> = self.wishes.borrow().iter().cloned().collect();
                        self.heed(&all);
                    }
                    if servers_changed && verdict == Verdict::Wait {
                        return Change::Servers;
                    }
                    verdict
                }
                Happening::Message(FromBalancer::Heeded(number)) => return Change::Heeded(number),
                Happening::Message(FromBalancer::Sessions(batch)) => {
                    self.knowledge.pass_on(batch);
                    Verdict::Wait
                }
                Happening::Ended(reason) => return self.lost(reason),
                Happening::Look => self.lifecycle.look(Instant::now()),
            };
            match verdict {
                Verdict::Wait => {}
                Verdict::Abort(reason) => return self.lost(reason),
                Verdict::Start => {
                    if let Err(error) = self.start() {
                        return self.lost(format!("it could not be started: {error}"));
                    }
                }
            }
            self.refuse_after_a_while();
        }
    }

    /// Offers it another configuration, for which all that is to be bound is bound. Says whether it is in force already, because
    /// no balancer runs that has to agree; else [`Balancer::next`] tells what becomes of it.
    pub(super) fn reload(&mut self, config: model::Balancer, files: HostFiles) -> Result<bool, ReloadError> {
        let template = Template { config, files, ..self.template.clone() };
        let nothing_bound = Listeners::none();
        let before = self.listeners.as_deref().unwrap_or(&nothing_bound);
        let listeners = before.rebind(&template.config)?;
        let Some(process) = &mut self.process else {
            self.template = template;
            // Where connections are refused they go on to be.
            self.listeners = self.listeners.is_some().then(|| Arc::new(listeners));
            return Ok(true);
        };
        let (places, descriptors) = listeners.new_ones(before)?;
        let message = ToBalancer::Reload(Box::new(Reload {
            config: template.config.clone(),
            listeners: places,
            resolv_conf: template.files.resolv_conf.clone(),
            hosts: template.files.hosts.clone(),
            wishes: self.wishes.borrow().iter().map(StampedWish::for_balancer).collect(),
        }));
        process.receiver.allow(longest_message(&template.config).max(longest_message(&self.template.config)));
        process.outbox.try_send((message, descriptors)).map_err(|_| ReloadError::Silent)?;
        self.offered = Some((template, Arc::new(listeners)));
        Ok(false)
    }

    /// For `relevo status`.
    pub(super) fn status(&self) -> BalancerStatus {
        BalancerStatus {
            state: self.state,
            pid: self.process.as_ref().map_or(0, |process| process.pid),
            connections: self.beat.connections,
            requests: self.beat.requests,
            old_configurations: self.beat.old_configurations,
        }
    }

    /// For `relevo status`: what the last beat said.
    pub(super) fn backends(&self) -> &[BackendStatus] {
        &self.beat.backends
    }

    /// Lets it finish what is under way, then ends it.
    pub(super) async fn stop(mut self, patience: Duration) {
        // The limit is this one's to keep.
        self.tell(ToBalancer::Stop { patience: 2 * patience });
        // Nobody is to wait for a node that stops.
        self.listeners = None;
        let Some(mut process) = self.process else { return };
        if timeout(patience, process.child.wait()).await.is_err() {
            tracing::warn!("connections were still open after {patience:?} and are cut");
            if let Err(error) = process.child.kill().await {
                tracing::error!(%error, "the balancer could not be killed");
            }
        }
    }

    async fn happening(&mut self) -> Happening {
        let look = sleep_until(self.lifecycle.next_look().into());
        let Some(process) = &mut self.process else {
            look.await;
            return Happening::Look;
        };
        tokio::select! {
            biased;
            message = process.receiver.receive() => match message {
                Ok(Some((message, _descriptors))) => Happening::Message(message),
                Ok(None) => Happening::Ended("it died".to_owned()),
                Err(error) if matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::UnexpectedEof) => {
                    Happening::Ended("it died".to_owned())
                }
                Err(error) => Happening::Ended(format!("its messages cannot be understood: {error}")),
            },
            status = process.child.wait() => Happening::Ended(match status {
                Ok(status) => format!("it died: {status}"),
                Err(error) => format!("it cannot be waited for: {error}"),
            }),
            () = look => Happening::Look,
        }
    }

    fn start(&mut self) -> Result<(), StartError> {
        let listeners = match &self.listeners {
            Some(listeners) => listeners.clone(),
            None => Arc::new(Listeners::bind(&self.template.config)?),
        };
        self.listeners = Some(listeners.clone());
        let longest = longest_message(&self.template.config);
        let process = Process::start(self.first_message(&listeners), listeners, longest)?;
        tracing::info!(pid = process.pid, "the balancer starts");
        self.process = Some(process);
        self.state = BalancerState::Starting;
        self.beat = Beat::default();
        self.owes_wishes = false;
        self.lifecycle.started(Instant::now());
        self.tell(ToBalancer::Held(self.held.clone()));
        self.tell(ToBalancer::CutOff(self.cut_off.clone()));
        Ok(())
    }

    fn first_message(&self, listeners: &Listeners) -> Start {
        let template = &self.template;
        let mut known = self.knowledge.of_peers();
        known.push(Known { by: "the balancer before".to_owned(), backends: self.beat.backends.clone() });
        Start {
            keeper: Pid::this().as_raw(),
            config: template.config.clone(),
            log_targets: template.log_targets.clone(),
            log_opened: Vec::new(),
            user: template.user,
            chroot: template.chroot.clone(),
            listeners: listeners.places(),
            resolv_conf: template.files.resolv_conf.clone(),
            hosts: template.files.hosts.clone(),
            wishes: self.wishes.borrow().iter().map(StampedWish::for_balancer).collect(),
            known,
            has_peers: self.knowledge.has_peers(),
        }
    }

    fn lost(&mut self, reason: String) -> Change {
        self.offered = None;
        let now = Instant::now();
        if let Some(process) = self.process.take() {
            process.bury();
        }
        self.state = BalancerState::Down;
        self.beat = Beat { backends: std::mem::take(&mut self.beat.backends), ..Beat::default() };
        self.lost_at.get_or_insert(now);
        let pause_ms = self.lifecycle.ended(now).as_millis() as u64;
        tracing::error!(reason, pause_ms, "the balancer is lost");
        Change::Lost(reason)
    }

    /// A client that is refused tries elsewhere; one that waits in a queue that nobody empties does not.
    fn refuse_after_a_while(&mut self) {
        if self.listeners.is_some() && self.lost_at.is_some_and(|lost_at| lost_at.elapsed() >= QUEUE_LIMIT) {
            // A balancer that is starting up has them and is about to accept.
            if self.process.is_none() {
                tracing::warn!("no balancer has served for {} s: connections are refused now", QUEUE_LIMIT.as_secs());
                self.listeners = None;
            }
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum StartError {
    #[error(transparent)]
    Listeners(#[from] super::listeners::Error),
    #[error(transparent)]
    Process(#[from] io::Error),
}
