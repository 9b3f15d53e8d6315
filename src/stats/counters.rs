//! What a worker counts. Each worker has counters of its own and is their only writer, so that counting is a load and a
//! store of its own memory; whoever reads adds those of all workers.

use std::ops::Index;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use crate::config::model::{BackendOrigin, Origins};

/// Something that is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Event {
    /// A connection (frontend), or a request or TCP connection that came here (backend, server).
    Session,
    /// Chosen by the balancing algorithm, and not by a cookie.
    Balanced,
    BytesIn,
    BytesOut,
    Request,
    Response1xx,
    Response2xx,
    Response3xx,
    Response4xx,
    Response5xx,
    ResponseOther,
    /// The client's request was no request, or never became complete.
    RequestError,
    /// No connection to a server, after all attempts.
    ConnectError,
    /// The server's response was none, or broke off.
    ResponseError,
    /// What failed and was tried again at the same server.
    Retry,
    /// A session or a retry that went to another server.
    Redispatch,
    DeniedRequest,
    /// Closed at once: there were too many of its source.
    DeniedConnection,
    DeniedResponse,
    ClientAbort,
    ServerAbort,
    /// Answered by this program itself.
    Intercepted,
    /// A new connection to the server.
    Connect,
    /// A kept connection to the server.
    Reuse,
    /// The budget did not allow to send a request again.
    OverBudget,
}

impl Event {
    const COUNT: usize = Event::OverBudget as usize + 1;

    /// By the status that the client was sent.
    pub fn response(status: u16) -> Self {
        match status {
            100..=199 => Self::Response1xx,
            200..=299 => Self::Response2xx,
            300..=399 => Self::Response3xx,
            400..=499 => Self::Response4xx,
            500..=599 => Self::Response5xx,
            _ => Self::ResponseOther,
        }
    }
}

/// A phase of a request whose duration is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Waiting for a server to become free.
    Queue,
    /// The connection to the server.
    Connect,
    /// From the request to the head of its response.
    Response,
    /// All of it.
    Total,
}

/// Every [`Phase`].
pub const PHASES: [Phase; 4] = [Phase::Queue, Phase::Connect, Phase::Response, Phase::Total];

/// How long the phases of one request took; `None`: it did not get so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Durations(pub [Option<Duration>; PHASES.len()]);

/// All of one worker. What keeps its name goes on counting when a configuration takes the place of another; what is under way
/// under the old one counts there as well.
pub struct Counters {
    /// By index of the frontend.
    pub frontends: Vec<Arc<Traffic>>,
    /// By index of the backend.
    pub backends: Vec<BackendCounters>,
}

/// Of one backend.
pub struct BackendCounters {
    /// Of its own.
    pub traffic: Arc<Traffic>,
    /// [`Phase::Response`] of all requests.
    pub response: Arc<Histogram>,
    /// [`Phase::Total`] of all requests.
    pub total: Arc<Histogram>,
    /// By index of the server.
    pub servers: Vec<Arc<Traffic>>,
}

/// Of one frontend, backend or server.
#[repr(align(128))]
#[derive(Default)]
pub struct Traffic {
    events: [AtomicU64; Event::COUNT],
    most_sessions: AtomicU64,
    averages: [Average; PHASES.len()],
}

impl Counters {
    /// For one worker; with what it has counted so far.
    pub fn new(origins: &Origins, before: Option<&Self>) -> Self {
        let frontend = |origin: &Option<usize>| origin.and_then(|index| before?.frontends.get(index)).cloned();
        let backend = |origin: &BackendOrigin| {
            let before = origin.index.and_then(|index| before?.backends.get(index));
            let server = |origin: &Option<usize>| origin.and_then(|index| before?.servers.get(index)).cloned();
            BackendCounters {
                traffic: before.map(|before| before.traffic.clone()).unwrap_or_default(),
                response: before.map(|before| before.response.clone()).unwrap_or_default(),
                total: before.map(|before| before.total.clone()).unwrap_or_default(),
                servers: origin.servers.iter().map(|origin| server(origin).unwrap_or_default()).collect(),
            }
        };
        Self {
            frontends: origins.frontends.iter().map(|origin| frontend(origin).unwrap_or_default()).collect(),
            backends: origins.backends.iter().map(backend).collect(),
        }
    }
}

impl AsRef<Traffic> for Traffic {
    fn as_ref(&self) -> &Traffic {
        self
    }
}

impl AsRef<Histogram> for Histogram {
    fn as_ref(&self) -> &Histogram {
        self
    }
}

impl Traffic {
    /// Counts one.
    pub fn count(&self, event: Event) {
        self.add(event, 1);
    }

    /// Counts many.
    pub fn add(&self, event: Event, number: u64) {
        add(&self.events[event as usize], number);
    }

    /// A session began; so many are there now.
    pub fn session(&self, now: u64) {
        self.count(Event::Session);
        raise(&self.most_sessions, now);
    }

    /// A request ended that took so long.
    pub fn took(&self, durations: &Durations) {
        for (average, duration) in self.averages.iter().zip(durations.0) {
            if let Some(duration) = duration {
                average.add(duration.as_millis() as u64);
            }
        }
    }
}

/// Requests that the averages look back on, as in HAProxy.
const LOOK_BACK: u64 = 1024;

/// A sliding average in milliseconds over about the last [`LOOK_BACK`] values.
#[derive(Default)]
struct Average {
    sum: AtomicU64,
    values: AtomicU64,
    most: AtomicU64,
}

impl Average {
    fn add(&self, value: u64) {
        let (sum, values) = (self.sum.load(Relaxed), self.values.load(Relaxed));
        if values < LOOK_BACK {
            self.values.store(values + 1, Relaxed);
            self.sum.store(sum + value, Relaxed);
        } else {
            self.sum.store(sum - sum.div_ceil(LOOK_BACK) + value, Relaxed);
        }
        raise(&self.most, value);
    }
}

/// Upper ends of the histograms' buckets, in milliseconds; the last bucket has none.
pub const BUCKETS_MS: [u64; 14] = [1, 2, 5, 10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 30_000];

/// How many durations there were of each length.
#[derive(Default)]
pub struct Histogram {
    buckets: [AtomicU64; BUCKETS_MS.len() + 1],
    sum_us: AtomicU64,
}

impl Histogram {
    /// Counts one.
    pub fn add(&self, duration: Duration) {
        let micros = duration.as_micros() as u64;
        let bucket = BUCKETS_MS.iter().position(|end| micros <= end * 1000).unwrap_or(BUCKETS_MS.len());
        add(&self.buckets[bucket], 1);
        add(&self.sum_us, micros);
    }
}

/// Counts. Only the thread that the counter belongs to does this: nothing is lost between the load and the store.
pub fn add(counter: &AtomicU64, number: u64) {
    counter.store(counter.load(Relaxed).wrapping_add(number), Relaxed);
}

fn raise(counter: &AtomicU64, value: u64) {
    if counter.load(Relaxed) < value {
        counter.store(value, Relaxed);
    }
}

/// The [`Traffic`] of all workers together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Totals {
    events: [u64; Event::COUNT],
    /// The most sessions at a time.
    pub most_sessions: u64,
    averages: [(u64, u64, u64); PHASES.len()],
}

/// The [`Histogram`] of all workers together.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct HistogramTotals {
    /// How many in each bucket; the last one is for all that is longer than the others' ends.
    pub buckets: [u64; BUCKETS_MS.len() + 1],
    /// Of all durations, in seconds.
    pub sum: f64,
}

impl Totals {
    /// Adds them up.
    pub fn of<T: AsRef<Traffic>>(workers: impl Iterator<Item = T>) -> Self {
        let mut totals = Self::default();
        for traffic in workers {
            let traffic = traffic.as_ref();
            for (total, counter) in totals.events.iter_mut().zip(&traffic.events) {
                *total = total.wrapping_add(counter.load(Relaxed));
            }
            totals.most_sessions = totals.most_sessions.max(traffic.most_sessions.load(Relaxed));
            for ((sum, values, most), average) in totals.averages.iter_mut().zip(&traffic.averages) {
                *sum += average.sum.load(Relaxed);
                *values += average.values.load(Relaxed);
                *most = (*most).max(average.most.load(Relaxed));
            }
        }
        totals
    }

    /// The average of the last requests, in milliseconds.
    pub fn average_ms(&self, phase: Phase) -> u64 {
        let (sum, values, _) = self.averages[phase as usize];
        sum.checked_div(values).unwrap_or(0)
    }

    /// The longest of all, in milliseconds.
    pub fn longest_ms(&self, phase: Phase) -> u64 {
        self.averages[phase as usize].2
    }

    /// Responses of all kinds.
    pub fn responses(&self) -> u64 {
        self.events[Event::Response1xx as usize..=Event::ResponseOther as usize].iter().sum()
    }
}

impl Index<Event> for Totals {
    type Output = u64;

    fn index(&self, event: Event) -> &u64 {
        &self.events[event as usize]
    }
}

impl HistogramTotals {
    /// Adds them up.
    pub fn of<T: AsRef<Histogram>>(workers: impl Iterator<Item = T>) -> Self {
        let mut totals = Self::default();
        for histogram in workers {
            let histogram = histogram.as_ref();
            for (total, counter) in totals.buckets.iter_mut().zip(&histogram.buckets) {
                *total += counter.load(Relaxed);
            }
            totals.sum += histogram.sum_us.load(Relaxed) as f64 / 1e6;
        }
        totals
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_workers_count_apart_is_read_together() {
        let workers = [Traffic::default(), Traffic::default()];
        for (worker, sessions) in workers.iter().zip([3, 5]) {
            (1..=sessions).for_each(|now| worker.session(now));
            worker.add(Event::BytesOut, 100 * sessions);
            worker.count(Event::response(204));
        }
        let totals = Totals::of(workers.iter());
        assert_eq!((totals[Event::Session], totals.most_sessions), (8, 5));
        assert_eq!((totals[Event::BytesOut], totals[Event::BytesIn]), (800, 0));
        assert_eq!((totals[Event::Response2xx], totals.responses()), (2, 2));
    }

    #[test]
    fn averages_follow_the_last_requests_and_the_longest_stays() {
        let traffic = Traffic::default();
        let response = |millis| Durations([None, None, Some(Duration::from_millis(millis)), None]);
        let average = || Totals::of(std::iter::once(&traffic)).average_ms(Phase::Response);
        assert_eq!(average(), 0);
        (0..10).for_each(|n| traffic.took(&response(n * 10)));
        assert_eq!(average(), 45);
        (0..20_000).for_each(|_| traffic.took(&response(200)));
        assert!((195..=200).contains(&average()), "{}", average());
        (0..20_000).for_each(|_| traffic.took(&response(3)));
        assert!((2..=4).contains(&average()), "{}", average());
        assert_eq!(Totals::of(std::iter::once(&traffic)).longest_ms(Phase::Response), 200);
        assert_eq!(Totals::of(std::iter::once(&traffic)).average_ms(Phase::Connect), 0);
    }

    #[test]
    fn a_duration_falls_into_the_first_bucket_that_takes_it() {
        let histogram = Histogram::default();
        for micros in [0, 1_000, 1_001, 30_000_000, 30_000_001] {
            histogram.add(Duration::from_micros(micros));
        }
        let totals = HistogramTotals::of(std::iter::once(&histogram));
        assert_eq!(totals.buckets, [2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1]);
        assert!((totals.sum - 60.002_002).abs() < 1e-9);
    }
}
