//! What has nothing to do with a configuration, and which configurations there are.

use std::net::IpAddr;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Instant;

use arc_swap::{ArcSwap, ArcSwapOption};
use tokio::sync::{Semaphore, watch};

use super::{ServerShared, Shared};
use crate::balancer::lack::Complaint;
use crate::balancer::room::Room;
use crate::process::messages::FIRST_ROUND;
use crate::stats::rates::Rates;
use crate::status::{OldConfigurations, PairStatus};

/// It is there from the process's start to its end.
pub struct Lasting {
    /// Client connections open now, and how many there may be.
    pub connections: Arc<Room>,
    /// By index of the worker.
    pub vitals: Vec<Vitals>,
    /// Virtual addresses this node holds now (rule 7).
    pub held: ArcSwap<Vec<IpAddr>>,
    /// Addresses of this host's interfaces that carry nothing now.
    pub cut_off: ArcSwap<Vec<IpAddr>>,
    /// Every server is to be checked in this round, at once.
    pub check_round: watch::Sender<u64>,
    /// When the process started.
    pub started: Instant,
    /// Told where servers could not be checked, and where no connection could be made to them, for want of something here.
    pub checks_lack: Complaint,
    /// See above.
    pub connections_lack: Complaint,
    /// For the statistics alone.
    pub statistics: Statistics,
    /// The one that is followed, and before it those that something still goes on under; the oldest first.
    configurations: Mutex<Vec<Known>>,
}

/// What is kept for nobody but those who look at the statistics.
pub struct Statistics {
    /// The pair, as the keeper last told.
    pub pair: ArcSwapOption<PairStatus>,
    /// Sessions and requests per second.
    pub rates: Mutex<Rates>,
    /// Lines of requests that were lost, as of the last second; each counts once for every target that did not get it.
    pub lost_log_lines: AtomicU64,
    /// One page at a time is made: passwords take time to be checked, and guessing them is to take no more than one core.
    pub turn: Semaphore,
}

/// What a worker tells of itself, and nobody else writes.
#[repr(align(128))]
#[derive(Default)]
pub struct Vitals {
    /// Milliseconds since the start when it last went round its loop.
    pub beat: AtomicU64,
    /// Requests (TCP mode: connections) since the start.
    pub requests: AtomicU64,
}

/// A configuration that may still be there.
struct Known {
    shared: Weak<Shared>,
    /// When another took its place.
    replaced: Option<Instant>,
}

impl Lasting {
    pub(super) fn new(threads: usize) -> Self {
        let statistics = Statistics {
            pair: ArcSwapOption::empty(),
            rates: Mutex::default(),
            lost_log_lines: AtomicU64::new(0),
            turn: Semaphore::new(1),
        };
        Self {
            connections: Arc::default(),
            vitals: (0..threads).map(|_| Vitals::default()).collect(),
            held: ArcSwap::default(),
            cut_off: ArcSwap::default(),
            check_round: watch::Sender::new(FIRST_ROUND),
            started: Instant::now(),
            checks_lack: Complaint::default(),
            connections_lack: Complaint::default(),
            statistics,
            configurations: Mutex::default(),
        }
    }

    /// Requests of all workers.
    pub fn requests(&self) -> u64 {
        self.vitals.iter().map(|vitals| vitals.requests.load(Relaxed)).sum()
    }

    /// From now on this one is followed.
    pub(super) fn begins(&self, shared: &Arc<Shared>) {
        let now = Instant::now();
        let mut known = self.known();
        for known in known.iter_mut() {
            known.replaced.get_or_insert(now);
        }
        known.push(Known { shared: Arc::downgrade(shared), replaced: None });
    }

    /// All that are still there, the one that is followed last.
    pub(super) fn live(&self) -> Vec<Arc<Shared>> {
        self.known().iter().filter_map(|known| known.shared.upgrade()).collect()
    }

    /// Whoever waits for this server may have a slot of it; first those who wait under an old configuration.
    pub(super) fn has_room(&self, server: &ServerShared) {
        for shared in self.live() {
            for state in &shared.backends {
                if let Some(queue) = &state.queue
                    && let Some(index) = state.index_of(server)
                {
                    queue.has_room(state, index);
                }
            }
        }
    }

    /// Those that another has taken the place of.
    pub fn old_configurations(&self) -> OldConfigurations {
        let now = Instant::now();
        let known = self.known();
        let since = known.iter().filter_map(|known| known.replaced).map(|it| now.saturating_duration_since(it));
        let count = known.iter().filter(|known| known.replaced.is_some()).count();
        OldConfigurations { count, oldest_s: since.max().unwrap_or_default().as_secs_f64() }
    }

    /// Without those that have gone.
    fn known(&self) -> MutexGuard<'_, Vec<Known>> {
        let mut known = self.configurations.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|known| known.shared.strong_count() > 0);
        known
    }
}
