//! A worker: a thread with its own loop, its own accept queues, its own connections to servers.

use std::cell::{Cell, RefCell};
use std::net::{SocketAddr, TcpListener};
use std::ops::Deref;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};
use std::{io, thread};

use jiff::tz::TimeZone;
use tokio::runtime::{Builder, LocalOptions, LocalRuntime};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;

use crate::balancer::access_log::{AccessLog, Format, Outlet};
use crate::balancer::balance::Chooser;
use crate::balancer::clock::{self, Clock, Millis, NEVER, TICK};
use crate::balancer::listener::{self, Listening};
use crate::balancer::listening_socket::ListeningSocket;
use crate::balancer::pool::{Pool, Upstream};
use crate::balancer::relay::Carriers;
use crate::balancer::state::{Shared, Vitals};
use crate::config::model::{self, LogLevel, Mode};
use crate::process::log::{Kind, Log};
use crate::process::memory;
use crate::stats::counters::{self, Counters};

/// Ticks between two looks at what is kept and not needed: connections in the pool, memory.
const SWEEP: u64 = 20;

/// Steps of tasks between two looks at the system's events, when there is always a task that can go on. A look brings all
/// events there are, and what waits meanwhile is brought together with more.
const EVENT_INTERVAL: u32 = 256;

/// Clients that have found no pause between two requests in so long leave none.
const NO_PAUSE: Millis = 1_000;

/// What the tasks of one worker share under one configuration. Its thread, which stays, is what it derefs to.
pub struct Worker {
    /// What all workers share.
    pub shared: Arc<Shared>,
    /// Its turn.
    pub chooser: RefCell<Chooser>,
    /// Its connections to servers.
    pub pool: Pool,
    /// Its end of the log.
    pub access_log: Rc<AccessLog>,
    thread: Rc<Thread>,
    stage: Cell<Stage>,
    /// When another configuration took the place of this one.
    replaced: Cell<Millis>,
}

/// What becomes of a configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// It is followed.
    Newest,
    /// Another has taken its place: what began under it goes on.
    Old,
    /// That has had its time.
    Over,
}

/// What the tasks of one worker share whatever the configuration.
pub struct Thread {
    index: usize,
    /// Its time.
    pub clock: Clock,
    /// What its relays share.
    pub carriers: Carriers,
    /// Its clients.
    pub connections: Cell<usize>,
    /// No connection is kept for another request.
    pub is_stopping: Cell<bool>,
    /// `None` only while the first one is made.
    newest: RefCell<Option<Rc<Worker>>>,
    /// Those that something may still go on under, and until when.
    old: RefCell<Vec<(Weak<Worker>, Instant)>>,
}

impl Deref for Worker {
    type Target = Thread;

    fn deref(&self) -> &Thread {
        &self.thread
    }
}

impl Worker {
    /// One that has nothing to do yet, on a thread of its own.
    pub fn new(index: usize, shared: Arc<Shared>, access_log: AccessLog) -> Rc<Self> {
        let thread = Rc::new(Thread {
            index,
            clock: Clock::new(),
            carriers: Carriers::new(shared.config.threads),
            connections: Cell::new(0),
            is_stopping: Cell::new(false),
            newest: RefCell::new(None),
            old: RefCell::default(),
        });
        let pool = Pool::new(&shared, most_idle(&shared));
        Self::begin(shared, pool, Rc::new(access_log), thread)
    }

    fn begin(shared: Arc<Shared>, pool: Pool, access_log: Rc<AccessLog>, thread: Rc<Thread>) -> Rc<Self> {
        let chooser = RefCell::new(Chooser::new(shared.clone()));
        let (stage, replaced) = (Cell::new(Stage::Newest), Cell::new(NEVER));
        let worker = Rc::new(Self { shared, chooser, pool, access_log, thread, stage, replaced });
        worker.newest.replace(Some(worker.clone()));
        worker
    }

    /// Follows another configuration from now on; what is under way goes on under this one until `until`.
    pub fn succeeded_by(self: &Rc<Self>, shared: Arc<Shared>, access_log: Rc<AccessLog>, until: Instant) -> Rc<Self> {
        let pool = Pool::new(&shared, most_idle(&shared));
        for mut upstream in self.pool.drain() {
            if upstream.moves(&self.shared, &shared) {
                pool.take_over(upstream);
            }
        }
        self.stage.set(Stage::Old);
        self.replaced.set(self.clock.millis());
        self.old.borrow_mut().push((Rc::downgrade(self), until));
        Self::begin(shared, pool, access_log, self.thread.clone())
    }

    /// Keeps a connection to a server that has done its work, under the newest configuration if that has the server.
    pub fn keep(&self, mut upstream: Box<Upstream>) {
        let now = self.clock.millis();
        if self.stage.get() == Stage::Newest {
            return self.pool.put(upstream, now);
        }
        if let Some(newest) = self.newest()
            && upstream.moves(&self.shared, &newest.shared)
        {
            newest.pool.put(upstream, now);
        }
    }

    /// Has another configuration taken the place of this one?
    pub fn is_old(&self) -> bool {
        self.stage.get() != Stage::Newest
    }

    /// Has another configuration taken the place of this one so long ago that a request which begins under it is of a client that
    /// leaves no pause in which it could go over?
    pub fn is_outlived(&self) -> bool {
        self.is_old() && self.clock.millis().saturating_sub(self.replaced.get()) >= NO_PAUSE
    }

    /// Is what still goes on under this configuration to end?
    pub fn is_over(&self) -> bool {
        self.stage.get() == Stage::Over
    }

    /// What stays when another configuration takes the place of this one.
    pub fn thread(&self) -> &Rc<Thread> {
        &self.thread
    }

    /// Another request has come (TCP mode: a connection).
    pub fn count_request(&self) {
        counters::add(&self.vitals().requests, 1);
    }

    /// Its own signs of life.
    fn vitals(&self) -> &Vitals {
        &self.shared.vitals[self.index]
    }

    /// Its own counters.
    pub fn counters(&self) -> &Counters {
        &self.shared.counters[self.index]
    }
}

fn most_idle(shared: &Shared) -> usize {
    shared.config.idle_connections / shared.config.threads.max(1)
}

impl Thread {
    /// What new connections and requests are served under.
    pub fn newest(&self) -> Option<Rc<Worker>> {
        self.newest.borrow().clone()
    }

    /// Hands over the lines that have gathered.
    fn tick_logs(&self) {
        let old = self.old.borrow();
        for worker in old.iter().filter_map(|(worker, _)| worker.upgrade()).chain(self.newest()) {
            worker.access_log.tick();
        }
    }

    /// Ends what has gone on for too long under configurations that were replaced.
    fn end_old(&self, now: Instant) {
        let mut has_ended_one = false;
        self.old.borrow_mut().retain(|(worker, until)| {
            let Some(worker) = worker.upgrade() else { return false };
            if now >= *until && worker.stage.replace(Stage::Over) != Stage::Over {
                has_ended_one = true;
            }
            true
        });
        if has_ended_one {
            self.clock.wake_all();
        }
    }
}

/// What a worker's thread starts with.
pub struct Plan {
    /// Its index.
    pub index: usize,
    /// The listening sockets it accepts from, and where they are bound.
    pub listeners: Vec<(SocketAddr, TcpListener)>,
    /// What all workers share.
    pub shared: Arc<Shared>,
    /// Where lines for requests go; `None`: nowhere.
    pub log: Option<Log>,
    /// For the log's dates.
    pub zone: TimeZone,
    /// When the process started.
    pub started: Instant,
    /// Told when it accepts.
    pub ready: mpsc::UnboundedSender<usize>,
    /// Other configurations.
    pub reloads: mpsc::UnboundedReceiver<Reload>,
    /// How long to finish what is under way, once it is to stop.
    pub stop: watch::Receiver<Option<Duration>>,
}

/// Another configuration.
pub struct Reload {
    /// What takes the place of what all workers share.
    pub shared: Arc<Shared>,
    /// Further listening sockets, and where they are bound.
    pub listeners: Vec<(SocketAddr, TcpListener)>,
    /// Told when it is followed.
    pub done: oneshot::Sender<()>,
}

/// A runtime for one thread and tasks that stay on it.
///
/// # Errors
/// When the system gives no epoll descriptor.
pub fn runtime() -> io::Result<LocalRuntime> {
    Builder::new_current_thread()
        .enable_all()
        .event_interval(EVENT_INTERVAL)
        .on_thread_unpark(clock::next_round)
        .build_local(LocalOptions::default())
}

/// Starts a worker's thread.
///
/// # Errors
/// When the system gives no thread or no epoll descriptor.
pub fn start(plan: Plan) -> io::Result<thread::JoinHandle<()>> {
    thread::Builder::new().name(format!("worker-{}", plan.index)).spawn(move || {
        let served = runtime().and_then(|runtime| runtime.block_on(serve(plan)));
        if let Err(error) = served {
            tracing::error!(%error, "a worker cannot run: {error}");
        }
    })
}

/// The access log of a configuration.
fn access_log(config: &model::AccessLog, log: Option<&Log>, zone: &TimeZone) -> AccessLog {
    let outlet = |log: Log| -> Outlet { Box::new(move |batch| log.send(LogLevel::Info, Kind::Access, &batch.into())) };
    AccessLog::new(log.cloned().map(outlet).zip(Format::new(config)), zone.clone())
}

async fn serve(mut plan: Plan) -> io::Result<()> {
    let log = access_log(&plan.shared.config.access_log, plan.log.as_ref(), &plan.zone);
    let worker = Worker::new(plan.index, plan.shared, log);
    let thread = worker.thread.clone();
    let mut doors = Doors { worker, open: Vec::new() };
    doors.open(plan.listeners)?;
    // Should the control thread be gone, so is the process.
    let _ = plan.ready.send(plan.index);

    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut stop_by = None;
    let mut rounds: u64 = 0;
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            _ = plan.stop.changed(), if stop_by.is_none() => {
                let patience = plan.stop.borrow().unwrap_or_default();
                stop_by = Some(Instant::now() + patience);
                doors.close();
                thread.is_stopping.set(true);
                thread.clock.wake_all();
            }
            Some(reload) = plan.reloads.recv(), if stop_by.is_none() => {
                let closed = doors.reload(reload.shared, reload.listeners, |config| {
                    Rc::new(access_log(config, plan.log.as_ref(), &plan.zone))
                });
                // Their addresses can be had again when it is done.
                for accepting in closed {
                    let _ = accepting.await;
                }
                // Those that have nothing under way follow at once.
                thread.clock.wake_all();
                let _ = reload.done.send(());
            }
        }
        let worker = &doors.worker;
        worker.vitals().beat.store(plan.started.elapsed().as_millis() as u64, Relaxed);
        thread.clock.tick();
        rounds += 1;
        if rounds.is_multiple_of(SWEEP) {
            worker.pool.sweep(thread.clock.millis());
            memory::give_back();
        }
        thread.tick_logs();
        thread.end_old(Instant::now());
        if stop_by.is_some_and(|by| thread.connections.get() == 0 || Instant::now() >= by) {
            return Ok(());
        }
    }
}

/// The listening sockets of a worker.
struct Doors {
    worker: Rc<Worker>,
    open: Vec<Door>,
}

struct Door {
    address: SocketAddr,
    socket: Rc<ListeningSocket>,
    listening: Rc<Listening>,
    accepting: JoinHandle<()>,
}

impl Doors {
    fn open(&mut self, listeners: Vec<(SocketAddr, TcpListener)>) -> io::Result<()> {
        for (address, listener) in listeners {
            let config = &self.worker.shared.config;
            let socket = Rc::new(ListeningSocket::new(listener)?);
            let listening = Listening::new(frontend_at(config, address));
            socket.expect_requests(is_http(config, &listening))?;
            socket.keep_alive(tcp_keep_alive(config, &listening))?;
            let accept = listener::accept(self.worker.thread.clone(), socket.clone(), listening.clone());
            self.open.push(Door { address, socket, listening, accepting: tokio::task::spawn_local(accept) });
        }
        Ok(())
    }

    fn close(&mut self) {
        self.open.drain(..).for_each(|door| door.accepting.abort());
    }

    /// Listeners whose address stays go on, for whichever frontend has it now; the others are closed when their tasks have ended.
    fn reload(
        &mut self,
        shared: Arc<Shared>,
        listeners: Vec<(SocketAddr, TcpListener)>,
        access_log: impl FnOnce(&model::AccessLog) -> Rc<AccessLog>,
    ) -> Vec<JoinHandle<()>> {
        let (old, new) = (&self.worker.shared.config, &shared.config);
        let is_same_log = old.access_log == new.access_log;
        let access_log = if is_same_log { self.worker.access_log.clone() } else { access_log(&new.access_log) };
        for door in &self.open {
            door.listening.frontend.set(frontend_at(new, door.address));
            if let Err(error) = door.socket.expect_requests(is_http(new, &door.listening)) {
                tracing::warn!(%error, "the listening socket at {} keeps its way of acknowledging: {error}", door.address);
            }
            if let Err(error) = door.socket.keep_alive(tcp_keep_alive(new, &door.listening)) {
                tracing::warn!(%error, "the listening socket at {} keeps its tcp_keep_alive: {error}", door.address);
            }
        }
        let closed = self.open.extract_if(.., |door| door.listening.frontend.get().is_none());
        let closed: Vec<_> = closed.map(|door| door.accepting).collect();
        closed.iter().for_each(JoinHandle::abort);
        let until = Instant::now() + new.hard_stop_after;
        self.worker = self.worker.succeeded_by(shared, access_log, until);
        if let Err(error) = self.open(listeners) {
            tracing::error!(%error, "a worker cannot accept from a new listening socket: {error}");
        }
        closed
    }
}

fn is_http(config: &model::Balancer, listening: &Listening) -> bool {
    frontend_of(config, listening).is_some_and(|frontend| frontend.mode == Mode::Http)
}

fn tcp_keep_alive(config: &model::Balancer, listening: &Listening) -> Option<model::TcpKeepAlive> {
    frontend_of(config, listening)?.tcp_keep_alive
}

fn frontend_of<'a>(config: &'a model::Balancer, listening: &Listening) -> Option<&'a model::Frontend> {
    config.frontends.get(listening.frontend.get()?)
}

fn frontend_at(config: &model::Balancer, address: SocketAddr) -> Option<usize> {
    config.frontends.iter().position(|frontend| frontend.binds.iter().any(|bind| bind.address == address))
}
