//! A worker: a thread with its own loop, its own accept queues, its own connections to servers.

use std::cell::{Cell, RefCell};
use std::net::TcpListener;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};
use std::{io, thread};

use jiff::tz::TimeZone;
use tokio::runtime::{Builder, LocalOptions, LocalRuntime};
use tokio::sync::{mpsc, watch};
use tokio::time::MissedTickBehavior;

use crate::balancer::access_log::{AccessLog, Format, Outlet};
use crate::balancer::balance::Chooser;
use crate::balancer::clock::{self, Clock, TICK};
use crate::balancer::listener;
use crate::balancer::pool::Pool;
use crate::balancer::relay::Carriers;
use crate::balancer::state::Shared;
use crate::config::model::LogLevel;
use crate::process::log::{Kind, Log};
use crate::process::memory;
use crate::stats::counters::Counters;

/// Ticks between two looks at what is kept and not needed: connections in the pool, memory.
const SWEEP: u64 = 20;

/// What the tasks of one worker share.
pub struct Worker {
    /// What all workers share.
    pub shared: Arc<Shared>,
    index: usize,
    /// Its time.
    pub clock: Clock,
    /// Its turn.
    pub chooser: RefCell<Chooser>,
    /// Its connections to servers.
    pub pool: Pool,
    /// Its end of the log.
    pub access_log: AccessLog,
    /// Its pipes.
    pub carriers: Carriers,
    /// Its clients.
    pub connections: Cell<usize>,
    /// No connection is kept for another request.
    pub is_stopping: Cell<bool>,
}

impl Worker {
    /// One that has nothing to do yet.
    pub fn new(index: usize, shared: Arc<Shared>, access_log: AccessLog) -> Rc<Self> {
        let most_idle = shared.config.max_connections / shared.config.threads.max(1);
        Rc::new(Self {
            index,
            clock: Clock::new(),
            chooser: RefCell::new(Chooser::new(shared.clone())),
            pool: Pool::new(&shared, most_idle),
            access_log,
            carriers: Carriers::default(),
            connections: Cell::new(0),
            is_stopping: Cell::new(false),
            shared,
        })
    }

    /// Its own counters.
    pub fn counters(&self) -> &Counters {
        &self.shared.counters[self.index]
    }
}

/// What a worker's thread starts with.
pub struct Plan {
    /// Its index.
    pub index: usize,
    /// The listening sockets it accepts from, with the index of their frontend.
    pub listeners: Vec<(usize, TcpListener)>,
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
    /// How long to finish what is under way, once it is to stop.
    pub stop: watch::Receiver<Option<Duration>>,
}

/// A runtime for one thread and tasks that stay on it.
///
/// # Errors
/// When the system gives no epoll descriptor.
pub fn runtime() -> io::Result<LocalRuntime> {
    Builder::new_current_thread().enable_all().on_thread_unpark(clock::next_round).build_local(LocalOptions::default())
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

/// The access log's way to the targets.
fn outlet(log: Log) -> Outlet {
    Box::new(move |batch| log.send(LogLevel::Info, Kind::Access, &batch.into()))
}

async fn serve(mut plan: Plan) -> io::Result<()> {
    let format = Format::new(&plan.shared.config.access_log);
    let outlet = plan.log.map(outlet).zip(format);
    let worker = Worker::new(plan.index, plan.shared, AccessLog::new(outlet, plan.zone));
    let mut accepting = Vec::new();
    for (frontend, listener) in plan.listeners {
        listener.set_nonblocking(true)?;
        let listener = tokio::net::TcpListener::from_std(listener)?;
        accepting.push(tokio::task::spawn_local(listener::accept(worker.clone(), listener, frontend)));
    }
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
                accepting.drain(..).for_each(|task| task.abort());
                worker.is_stopping.set(true);
                worker.clock.wake_all();
            }
        }
        if let Some(beat) = worker.shared.beats.get(plan.index) {
            beat.0.store(plan.started.elapsed().as_millis() as u64, Relaxed);
        }
        worker.clock.tick();
        rounds += 1;
        if rounds.is_multiple_of(SWEEP) {
            worker.pool.sweep(worker.clock.millis());
            memory::give_back();
        }
        let lost = worker.access_log.tick();
        if lost > 0 {
            worker.shared.statistics.lost_log_lines.fetch_add(lost, Relaxed);
        }
        if stop_by.is_some_and(|by| worker.connections.get() == 0 || Instant::now() >= by) {
            return Ok(());
        }
    }
}
