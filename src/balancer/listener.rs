//! Accepts the connections of one listening socket.

use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::balancer::listening_socket::ListeningSocket;
use crate::balancer::room::{self, Room};
use crate::balancer::session::{NotOpened, Session};
use crate::balancer::worker::Thread;
use crate::balancer::{http, tcp};
use crate::config::model::Mode;

/// After an error that is not about one connection alone: the system is short of something.
const PAUSE: Duration = Duration::from_millis(100);
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
pub async fn accept(thread: Rc<Thread>, socket: Rc<ListeningSocket>, listening: Rc<Listening>) {
    let port = socket.address().map_or(0, |address| address.port());
    let warned = Cell::new(None);
    loop {
        let Some(rooms) = rooms(&thread, &listening, &warned) else { return };
        room::vacancy(&rooms).await;
        let accepted = socket.accept().await;
        // Meanwhile there may be another configuration.
        let Some(rooms) = self::rooms(&thread, &listening, &warned) else { return };
        let (stream, client, places) = match accepted {
            // Another worker may have been quicker to take the last place.
            Ok((stream, client)) => {
                let places = room::enter(rooms).await;
                (stream, client, places)
            }
            Err(error) if is_about_one_connection(&error) => continue,
            Err(error) => {
                warn(&warned, || tracing::warn!(%error, "connections cannot be accepted for now: {error}"));
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let session = match Session::open(&thread, &listening, places, client, port) {
            Ok(session) => session,
            Err(NotOpened::TooMany { frontend, most }) => {
                warn(&warned, || {
                    tracing::warn!(%client, "a connection to frontend {frontend} is closed: there are {most} of its source");
                });
                continue;
            }
            Err(NotOpened::NobodyListens) => return,
        };
        match session.frontend().mode {
            Mode::Http => match http::serve(stream, session) {
                Ok(serving) => drop(tokio::task::spawn_local(serving)),
                Err(error) => warn(&warned, || tracing::warn!(%error, "a connection cannot be watched: {error}")),
            },
            Mode::Tcp => drop(tokio::task::spawn_local(tcp::serve(stream, session))),
        }
    }
}

/// Where connections are counted: at their frontend and in the process. `None`: nobody listens there any more.
fn rooms(thread: &Thread, listening: &Listening, warned: &Cell<Option<Instant>>) -> Option<[Arc<Room>; 2]> {
    let (worker, frontend) = (thread.newest()?, listening.frontend.get()?);
    let shared = &worker.shared;
    let rooms = [shared.frontends.get(frontend)?.connections.clone(), shared.connections.clone()];
    // The next ones wait in the kernel's queue.
    let [own, all] = &rooms;
    if all.is_full() {
        let most = all.count();
        warn(warned, || tracing::warn!(most, "all {most} connections are in use: new ones have to wait"));
    } else if own.is_full() {
        let (name, most) = (&shared.config.frontends.get(frontend)?.name, own.count());
        warn(warned, || {
            tracing::warn!(most, "all {most} connections of frontend {name} are in use: new ones have to wait");
        });
    }
    Some(rooms)
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
