//! The privileged process: it runs the election, owns the virtual addresses, binds every listening socket, looks after the
//! balancer, talks to the peers and answers on the control socket.
//!
//! One thread, which never waits for a file, a lock or another process. Everything that happens arrives in [`Keeper::run`].

mod asked;
mod balancer;
mod control;
mod foreign;
mod guard_link;
mod identity;
mod knowledge;
mod lifecycle;
mod listeners;
mod operator;
mod orders;
pub mod peering;
mod peers;
mod readiness;
mod realtime;
mod reload;
mod signals;
mod standing;
mod view;
mod warnings;

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::stat::{Mode, umask};
use relevo_ha::{Driver, RouterStatus, State};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::time::{MissedTickBehavior, interval};

use self::asked::Asked;
use self::balancer::{Balancer, Change, HostFiles, Template};
use self::control::{ControlSocket, Query};
use self::foreign::Foreign;
use self::guard_link::GuardLink;
use self::knowledge::Knowledge;
use self::listeners::Listeners;
use self::operator::Waiting;
use self::peering::{Local, Peering};
use self::peers::next_event;
use self::reload::Reloads;
use self::signals::StopSignals;
use self::standing::Standing;
use self::warnings::Warnings;
use crate::config::model::Config;
use crate::process::log::{self, Log};
use crate::process::messages::{Charge, REPORT_INTERVAL, Report, ToKeeper};
use crate::process::wishes::Wishes;
use crate::status::{NodeStatus, PairStatus, PeerStatus};

/// A keeper that comes so late is not in time: it was starved, or hung.
const LATE: Duration = Duration::from_millis(500);
/// Descriptors that the keeper opens beside its listening sockets stay below this number.
const FIRST_HIGH_DESCRIPTOR: i32 = 512;
/// The guard's link comes first among the high ones, then those of the peers.
const GUARD_DESCRIPTORS: i32 = 8;

/// Why a keeper cannot start.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum Error {
    #[error("this command is not for people: `relevo run` starts it")]
    NoGuard,
    #[error(transparent)]
    Identity(#[from] identity::Error),
    #[error(transparent)]
    Control(#[from] control::Error),
    #[error(transparent)]
    Listeners(#[from] listeners::Error),
    #[error(transparent)]
    Addresses(#[from] relevo_ha::address::Error),
    #[error(transparent)]
    Driver(#[from] relevo_ha::StartError),
    #[error("the balancer cannot start: {0}")]
    Balancer(String),
    #[error("the keeper cannot work: {0}")]
    System(#[from] io::Error),
}

/// Runs what the guard says until the guard dies or somebody says stop: then hands over first.
///
/// # Errors
/// When it cannot start; nothing is left half done then.
pub async fn run() -> Result<(), Error> {
    // What it is told next holds the key.
    nix::sys::prctl::set_dumpable(false).map_err(io::Error::from)?;
    raise_open_files()?;
    // Its folder and its socket are for owner and group from the first moment.
    umask(Mode::from_bits_truncate(0o027));
    let link = GuardLink::take(|charge| first_high_descriptor(&charge.config)).await?;
    let (guard, Charge { config, key }, wishes) = link.ok_or(Error::NoGuard)?;
    let log_guard = log::init_again(&config, "keeper");
    let log = log_guard.log().clone();
    let stop = StopSignals::new()?;
    let reopen = signal(SignalKind::user_defined1())?;

    let confinement = identity::find(&config.process)?;
    let missing = [realtime::acquire(!config.virtual_routers.is_empty()), confinement.missing].concat();
    if !missing.is_empty() {
        tracing::warn!("restricted mode: {}", missing.join("; "));
    }

    let (control_socket, queries) = control::open(&config.node.control_socket)?;
    let listeners = Listeners::bind(&config.balancer)?;
    let peering_listener = config.peering.as_ref().map(|peering| listeners::peering(peering.listen)).transpose()?;
    // The guard's lock says that no other instance owns them.
    if !config.virtual_routers.is_empty() {
        for (interface, address) in relevo_ha::address::release_all().await? {
            tracing::warn!(interface, %address, "removed an address that an earlier run left behind");
        }
    }

    // What peers are told before there is more to tell.
    let status = watch::Sender::new(Arc::new(NodeStatus {
        node: config.node.name.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        configured: config.read_at.clone(),
        config_hash: config.hash.clone(),
        cannot_take_over_because: "it is starting".to_owned(),
        ..NodeStatus::default()
    }));
    let sessions = peering::sessions();
    let peering = match (&config.peering, key, peering_listener) {
        (Some(peering), Some(key), Some(listener)) => {
            let settings = peering::Settings {
                node: config.node.name.clone(),
                peers: peering.peers.clone(),
                key,
                config_hash: config.hash.clone(),
                source: peering.listen.ip(),
                first_descriptor: first_high_descriptor(&config) + GUARD_DESCRIPTORS,
            };
            let local = Local { status: status.subscribe(), wishes: wishes.subscribe(), sessions: sessions.clone() };
            Some(peering::start(settings, listener, local)?)
        }
        _ => None,
    };
    let driver = Driver::start(config.virtual_routers.clone()).await?;
    let standing = Standing::new(&config);
    driver.set_nodes(&standing.nodes());
    let template = Template {
        config: config.balancer.clone(),
        log_targets: config.log_targets.clone(),
        user: confinement.user,
        chroot: confinement.chroot,
        files: HostFiles::read(),
    };
    let peers = peering.as_ref().map(Peering::peers);
    let mut keeper = Keeper {
        started: Instant::now(),
        guard,
        stop,
        reopen,
        log,
        routers: driver.status(),
        driver,
        standing,
        balancer: Balancer::new(template, listeners, wishes.subscribe(), Knowledge::new(peers.clone(), sessions)),
        wishes,
        waiting: Vec::new(),
        asked: Vec::new(),
        peers,
        warnings: Warnings::default(),
        foreign: Foreign::default(),
        peering,
        is_ready: false,
        reloads: Reloads::default(),
        file_differs: None,
        status,
        queries,
        _control_socket: control_socket,
        config,
    };
    let result = keeper.run().await;
    match &result {
        Ok(Stop::Asked) => keeper.end("it was told to stop", true).await,
        Ok(Stop::GuardDied) => keeper.end("its guard died", false).await,
        Err(_) => keeper.end("it cannot start", false).await,
    }
    result.map(drop)
}

struct Keeper {
    config: Config,
    started: Instant,
    guard: GuardLink,
    stop: StopSignals,
    /// The log's files were moved.
    reopen: Signal,
    log: Log,
    driver: Driver,
    standing: Standing,
    routers: watch::Receiver<Vec<RouterStatus>>,
    balancer: Balancer,
    peering: Option<Peering>,
    peers: Option<watch::Receiver<Vec<PeerStatus>>>,
    warnings: Warnings,
    /// Addresses that this host should have.
    foreign: Foreign,
    /// What people want of servers.
    wishes: watch::Sender<Arc<Wishes>>,
    /// Who asked, and hears of it when the balancer heeds it.
    waiting: Vec<Waiting>,
    /// Who asked for the state of the pair.
    asked: Vec<Asked>,
    /// Has it ever served?
    is_ready: bool,
    reloads: Reloads,
    /// What of the file on disk is not what runs.
    file_differs: Option<String>,
    status: watch::Sender<Arc<NodeStatus>>,
    queries: mpsc::Receiver<Query>,
    _control_socket: ControlSocket,
}

/// Why a node stops.
enum Stop {
    Asked,
    GuardDied,
}

impl Keeper {
    /// Everything that happens to a node, until it stops.
    async fn run(&mut self) -> Result<Stop, Error> {
        let mut second = interval(REPORT_INTERVAL);
        second.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let mut in_time = false;
            tokio::select! {
                biased;
                () = self.stop.recv() => return Ok(Stop::Asked),
                message = self.guard.hear() => match message {
                    None => return Ok(Stop::GuardDied),
                    Some(ToKeeper::Reload { charge }) => {
                        self.reloads.arrives(charge);
                        continue;
                    }
                    Some(ToKeeper::Answer { wish, answer }) => {
                        self.reloads.answer(wish, answer);
                        continue;
                    }
                    Some(ToKeeper::FileDiffers(difference)) => self.file_differs = difference,
                },
                change = self.balancer.next() => match change {
                    Change::Serving => self.serves(),
                    Change::Lost(reason) if !self.is_ready => return Err(Error::Balancer(reason)),
                    Change::Lost(reason) => {
                        self.answer_waiting(u64::MAX, false);
                        self.answer_asked(u64::MAX);
                        self.decide_eligibility(&format!("its balancer is lost: {reason}"));
                        self.reloaded(Err(format!("the balancer was lost meanwhile: {reason}")));
                        if self.is_eligible() {
                            tracing::warn!("no peer could take over: the addresses stay here");
                        }
                    }
                    Change::Servers => self.decide_readiness(),
                    Change::Heeded(number) => {
                        self.answer_waiting(number, true);
                        self.answer_asked(number);
                    }
                    Change::Reloaded(result) => self.reloaded(result),
                },
                arrived = self.reloads.arrived() => self.reload(arrived),
                event = next_event(&mut self.peering) => {
                    self.peer_event(event);
                    continue;
                }
                () = changed(Some(&mut self.routers)) => {
                    self.hold();
                    self.know_what_is_cut_off();
                    self.decide_readiness();
                    self.decide_eligibility("another node holds the addresses and its balancer is lost");
                    self.warn();
                }
                () = changed(self.peers.as_mut()) => {
                    self.know_nodes();
                    self.decide_readiness();
                    self.decide_eligibility("its balancer is lost, and a peer can take over");
                    self.warn();
                    self.balancer.tell_known();
                    self.balancer.greet_peers();
                    continue;
                }
                () = asked::is_due(&self.asked) => {
                    self.answer_asked(0);
                    continue;
                }
                () = self.standing.is_due() => self.decide_readiness(),
                _ = self.reopen.recv() => {
                    self.log.reopen();
                    self.balancer.reopen_log();
                    continue;
                }
                Some(query) = self.queries.recv() => {
                    match query {
                        // A client that has gone does not matter, and wants nothing any more.
                        Query::Status(reply) => self.status_asked(reply),
                        Query::Server(_, reply) if reply.is_closed() => {}
                        Query::Reload(reply) if reply.is_closed() => {}
                        Query::Server(order, reply) => self.order(&order, reply),
                        Query::Reload(reply) => self.wants_reload(reply),
                    }
                    continue;
                }
                found = self.foreign.looked() => {
                    if !self.foreign.found(found) {
                        continue;
                    }
                }
                due = second.tick() => {
                    self.withdraw_reloads();
                    if self.is_ready {
                        self.foreign.look(&self.config);
                    }
                    in_time = due.elapsed() < LATE && self.driver.is_whole();
                }
            }
            let status = self.node_status();
            self.guard.report(Report { is_ready: self.is_ready, in_time, state: view::in_a_line(&status) });
            self.status.send_replace(Arc::new(status));
            self.balancer.tell_pair(|| without_backends(self.pair_status()));
        }
    }

    /// Hands over first: all else can wait.
    async fn end(mut self, reason: &str, is_planned: bool) {
        self.driver.stop().await;
        match self.config.virtual_routers.is_empty() {
            true => tracing::info!(reason, "this node stops"),
            false => tracing::info!(reason, "this node has handed over and stops"),
        }
        if let Some(peering) = &self.peering {
            peering.goodbye(reason, is_planned).await;
        }
        control::end(&mut self.queries);
        self.balancer.stop(self.config.process.stop_timeout).await;
    }

    fn serves(&mut self) {
        self.stands_by();
        if !self.is_ready {
            tracing::info!("ready: every worker accepts connections");
            self.is_ready = true;
        }
    }

    /// The balancer is told what this node holds now; what peers said before it held that is not known any more.
    fn hold(&mut self) {
        let held = self.held();
        let took_over = held.iter().any(|address| !self.balancer.holds(*address));
        self.balancer.hold(held);
        if let Some(peering) = self.peering.as_ref().filter(|_| took_over) {
            peering.took_over();
        }
    }

    fn held(&self) -> Vec<IpAddr> {
        let routers = self.routers.borrow();
        let is_active = |name: &str| routers.iter().any(|router| router.name == name && router.state == State::Active);
        let active = self.config.virtual_routers.iter().filter(|router| is_active(&router.name));
        active.flat_map(|router| &router.addresses).map(|address| IpAddr::V4(address.address)).collect()
    }

    fn pair_status(&self) -> PairStatus {
        let peers = self.peers.as_ref().map(|peers| peers.borrow().clone()).unwrap_or_default();
        PairStatus { node: self.node_status(), peers }
    }

    fn node_status(&self) -> NodeStatus {
        let vrrp = self.routers.borrow().clone();
        let balancer = self.balancer.status();
        let can_take_over = view::can_take_over(balancer.state, &vrrp);
        NodeStatus {
            node: self.config.node.name.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_s: self.started.elapsed().as_secs_f64(),
            configured: self.config.read_at.clone(),
            config_hash: self.config.hash.clone(),
            vrrp,
            balancer,
            backends: self.balancer.backends().to_vec(),
            foreign_addresses: self.foreign.sentences(),
            file_differs: self.file_differs.clone(),
            can_take_over: can_take_over.is_ok(),
            cannot_take_over_because: can_take_over.err().unwrap_or_default(),
        }
    }
}

/// The balancer knows its own, and the peers' are not shown.
fn without_backends(mut pair: PairStatus) -> PairStatus {
    pair.node.backends.clear();
    pair.peers.iter_mut().for_each(|peer| peer.status.backends.clear());
    pair
}

/// Never, where there is nothing that could change any more.
async fn changed<T>(receiver: Option<&mut watch::Receiver<T>>) {
    let Some(receiver) = receiver else { return std::future::pending().await };
    if receiver.changed().await.is_err() {
        std::future::pending().await
    }
}

/// Above all listening sockets and whatever else is open.
fn first_high_descriptor(config: &Config) -> i32 {
    let binds = config.balancer.frontends.iter().map(|frontend| frontend.binds.len()).sum::<usize>();
    i32::try_from(binds * config.balancer.threads).unwrap_or(i32::MAX / 2) + FIRST_HIGH_DESCRIPTOR
}

/// To the highest that is allowed: the keeper's links live on high descriptors, and the balancer inherits the limit.
fn raise_open_files() -> io::Result<()> {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    Ok(setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?)
}
