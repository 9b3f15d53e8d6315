//! The client: a new connection to the floating IP every 2 ms, one request on each, and what became of it.

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use super::error::{Context, Result};
use super::namespace::Namespace;
use super::outage::{Answer, Attempt, Failure, LONGEST_GOOD, Outage, outage};
use super::web::{FORWARDED_HEADER, NODE_HEADER, SERVER_HEADER, header};

/// Between two attempts.
pub const EVERY: Duration = Duration::from_millis(2);

/// Nobody answered in time.
pub const TIMEOUT: Duration = Duration::from_secs(3);

/// Attempts under way at a time: more than begin within [`TIMEOUT`].
const MOST_AT_A_TIME: usize = 2000;

/// Attempts kept: two minutes of them.
const MOST_KEPT: usize = 60_000;

/// Attempts begun at a steady pace, each on its own, so that one that hangs delays no other.
pub struct Prober {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    stop: AtomicBool,
    attempts: Mutex<Attempts>,
}

#[derive(Default)]
struct Attempts {
    /// When those began that are not over; the pace keeps any two apart.
    under_way: BTreeSet<Instant>,
    /// In the order of their ends.
    finished: VecDeque<Attempt>,
}

impl Prober {
    /// Begins to probe `target` from inside `namespace`.
    pub fn start(namespace: &Namespace, target: SocketAddr, every: Duration) -> Result<Self> {
        let shared = Arc::new(Shared { stop: AtomicBool::new(false), attempts: Mutex::default() });
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context(|| "cannot start a runtime".into())?;
        let thread = namespace.thread("prober", {
            let shared = Arc::clone(&shared);
            move || runtime.block_on(probe(&shared, target, every))
        })?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// The attempts that were not over at `since` and are now, in the order of their starts.
    pub fn attempts(&self, since: Instant) -> Vec<Attempt> {
        let shared = self.shared.lock();
        // Of those that ended before, none can follow one that ended later.
        let begin = shared.finished.partition_point(|attempt| attempt.start + attempt.took < since);
        let mut attempts: Vec<Attempt> = shared.finished.range(begin..).cloned().collect();
        attempts.sort_by_key(|attempt| attempt.start);
        attempts
    }

    /// The last one that is over.
    pub fn last(&self) -> Option<Attempt> {
        self.shared.lock().finished.back().cloned()
    }

    /// The outage since a moment, as far as the attempts are over.
    pub fn outage(&self, since: Instant) -> Outage {
        outage(&self.attempts(since), since)
    }

    /// Are all attempts over that began before `moment`?
    pub fn all_over_before(&self, moment: Instant) -> bool {
        self.shared.lock().under_way.first().is_none_or(|oldest| *oldest >= moment)
    }

    /// Was every attempt good that began within the last `span` (but for the last 50 ms, which may still become so)?
    pub fn is_well(&self, span: Duration) -> bool {
        let until = Instant::now() - LONGEST_GOOD;
        let from = until - span;
        if self.shared.lock().under_way.range(from..until).next().is_some() {
            return false;
        }
        let attempts = self.attempts(from);
        let mut window = attempts.iter().filter(|attempt| attempt.start >= from && attempt.start < until).peekable();
        window.peek().is_some() && window.all(Attempt::is_good)
    }
}

impl Drop for Prober {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Attempts> {
        self.attempts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn probe(shared: &Arc<Shared>, target: SocketAddr, every: Duration) {
    let mut pace = tokio::time::interval(every);
    // After a pause the pace goes on: a burst would be a load of its own.
    pace.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut under_way = JoinSet::new();
    while !shared.stop.load(Ordering::Relaxed) {
        pace.tick().await;
        while under_way.try_join_next().is_some() {}
        if under_way.len() < MOST_AT_A_TIME {
            let start = Instant::now();
            shared.lock().under_way.insert(start);
            under_way.spawn(record(Arc::clone(shared), target, start));
        }
    }
}

async fn record(shared: Arc<Shared>, target: SocketAddr, start: Instant) {
    let outcome = tokio::time::timeout(TIMEOUT, attempt(target)).await.unwrap_or(Err(Failure::TimedOut));
    let mut attempts = shared.lock();
    attempts.under_way.remove(&start);
    if attempts.finished.len() == MOST_KEPT {
        attempts.finished.pop_front();
    }
    attempts.finished.push_back(Attempt { start, took: start.elapsed(), outcome });
}

async fn attempt(target: SocketAddr) -> std::result::Result<Answer, Failure> {
    let mut connection = tokio::net::TcpStream::connect(target).await.map_err(failure)?;
    let request = format!("GET / HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", target.ip());
    connection.write_all(request.as_bytes()).await.map_err(failure)?;
    let mut answer = Vec::with_capacity(1024);
    connection.read_to_end(&mut answer).await.map_err(failure)?;
    parse(&String::from_utf8_lossy(&answer))
}

fn parse(answer: &str) -> std::result::Result<Answer, Failure> {
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or(Failure::Closed)?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or(Failure::Closed)?;
    if status != 200 {
        return Err(Failure::Status(status));
    }
    if header(head, "content-length").and_then(|length| length.parse().ok()) != Some(body.len()) {
        return Err(Failure::Closed);
    }
    let field = |name| header(head, name).unwrap_or_default().to_owned();
    Ok(Answer { node: field(NODE_HEADER), server: field(SERVER_HEADER), forwarded_for: field(FORWARDED_HEADER) })
}

fn failure(error: io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => Failure::Refused,
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => Failure::Reset,
        io::ErrorKind::TimedOut => Failure::TimedOut,
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => Failure::Unreachable,
        _ => Failure::Closed,
    }
}

/// Opens so many connections to `target` from inside `namespace` and sends nothing on them.
pub fn hold(namespace: &Namespace, target: SocketAddr, connections: usize) -> Result<Vec<TcpStream>> {
    allow_descriptors(connections as u64 + 2 * MOST_AT_A_TIME as u64)?;
    namespace
        .run(|| (0..connections).map(|_| TcpStream::connect_timeout(&target, TIMEOUT)).collect::<io::Result<_>>())?
        .context(|| format!("cannot open {connections} connections to {target}"))
}

/// Lets this process open so many files.
pub fn allow_descriptors(needed: u64) -> Result<()> {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).context(|| "cannot read the limit of open files".into())?;
    if soft >= needed {
        return Ok(());
    }
    setrlimit(Resource::RLIMIT_NOFILE, needed, hard.max(needed))
        .or_else(|_| setrlimit(Resource::RLIMIT_NOFILE, hard.min(needed), hard))
        .context(|| format!("cannot open {needed} files (the limit is {hard})"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANSWER: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nx-server: web1\r\nx-node: 10.77.0.11\r\n\r\nweb1\n";

    #[test]
    fn an_answer_names_server_and_node() {
        let answer = parse(ANSWER).unwrap();
        assert_eq!((answer.server.as_str(), answer.node.as_str()), ("web1", "10.77.0.11"));
    }

    #[test]
    fn an_answer_that_was_cut_is_a_failure() {
        assert_eq!(parse(&ANSWER[..ANSWER.len() - 1]), Err(Failure::Closed));
        assert_eq!(parse(""), Err(Failure::Closed));
    }

    #[test]
    fn any_other_status_is_a_failure() {
        assert_eq!(parse("HTTP/1.1 503 Service Unavailable\r\n\r\n"), Err(Failure::Status(503)));
    }
}
