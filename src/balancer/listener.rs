//! Accepts the connections of one listening socket.

use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use socket2::SockRef;
use tokio::net::TcpListener;

use crate::balancer::session::Session;
use crate::balancer::worker::{Thread, Worker};
use crate::balancer::{http, tcp};
use crate::config::model::Mode;

/// After an error that is not about one connection alone: the system is short of something.
const PAUSE: Duration = Duration::from_millis(100);
/// Until the next look whether there is room for another connection.
const FULL_PAUSE: Duration = Duration::from_millis(10);
const BETWEEN_WARNINGS: Duration = Duration::from_secs(1);

/// Whose a listening socket is.
pub struct Listening {
    /// The index of its frontend in the newest configuration; `None`: no frontend listens there any more.
    pub frontend: Cell<Option<usize>>,
}

impl Listening {
    /// For this frontend.
    pub fn new(frontend: Option<usize>) -> Rc<Self> {
        Rc::new(Self { frontend: Cell::new(frontend) })
    }
}

/// Accepts for ever; each connection gets a task of this worker, and the newest configuration.
pub async fn accept(thread: Rc<Thread>, listener: TcpListener, listening: Rc<Listening>) {
    // Accepted sockets inherit it: what hyper writes is whole, there is nothing to wait for.
    if let Err(error) = SockRef::from(&listener).set_tcp_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY cannot be set");
    }
    let port = listener.local_addr().map_or(0, |address| address.port());
    let warned = Cell::new(None);
    loop {
        room(&thread, &warned).await;
        match listener.accept().await {
            Ok((stream, client)) => {
                let Some(session) = Session::open(&thread, &listening, client, port) else { return };
                match session.frontend().mode {
                    Mode::Http => drop(tokio::task::spawn_local(http::serve(stream, session))),
                    Mode::Tcp => drop(tokio::task::spawn_local(tcp::serve(stream, session))),
                }
            }
            Err(error) if is_about_one_connection(&error) => {}
            Err(error) => {
                warn(&warned, || tracing::warn!(%error, "connections cannot be accepted for now: {error}"));
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// Waits while the process has as many connections as it may: the next ones wait in the kernel's queue.
async fn room(thread: &Thread, warned: &Cell<Option<Instant>>) {
    while let Some(most) = thread.newest().and_then(|worker| all_in_use(&worker)) {
        warn(warned, || tracing::warn!(most, "all {most} connections are in use: new ones have to wait"));
        tokio::time::sleep(FULL_PAUSE).await;
    }
}

/// The limit, if there are as many connections as it allows.
fn all_in_use(worker: &Worker) -> Option<u64> {
    let most = worker.shared.config.max_connections as u64;
    (worker.shared.connections.load(Relaxed) >= most).then_some(most)
}

fn is_about_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted, PermissionDenied};
    matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted | PermissionDenied)
}

fn warn(warned: &Cell<Option<Instant>>, say: impl FnOnce()) {
    if warned.get().is_none_or(|last| last.elapsed() >= BETWEEN_WARNINGS) {
        warned.set(Some(Instant::now()));
        say();
    }
}
