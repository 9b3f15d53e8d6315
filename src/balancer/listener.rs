//! Accepts the connections of one listening socket.

use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};

use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};

use crate::balancer::room::{self, Room};
use crate::balancer::session::Session;
use crate::balancer::worker::Worker;
use crate::balancer::{http, tcp};
use crate::config::model::Mode;

/// After an error that is not about one connection alone: the system is short of something.
const PAUSE: Duration = Duration::from_millis(100);
const BETWEEN_WARNINGS: Duration = Duration::from_secs(1);

/// Accepts for ever; each connection gets a task of this worker.
pub async fn accept(worker: Rc<Worker>, listener: TcpListener, frontend: usize) {
    let shared = worker.shared.clone();
    let (Some(config), Some(state)) = (shared.config.frontends.get(frontend), shared.frontends.get(frontend)) else {
        return;
    };
    // Accepted sockets inherit it: what hyper writes is whole, there is nothing to wait for.
    if let Err(error) = SockRef::from(&listener).set_tcp_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY cannot be set");
    }
    let port = listener.local_addr().map_or(0, |address| address.port());
    let warned = Cell::new(None);
    let rooms = [&state.connections, &shared.connections];
    loop {
        warn_if_full(rooms, &config.name, &warned);
        room::vacancy(&rooms).await;
        let accepted = match listener.accept().await {
            // Another worker may have been quicker to take the last place.
            Ok((stream, client)) => match room::enter(&rooms).await {
                true => anew(stream)
                    .map(|stream| (stream, client))
                    .inspect_err(|_| rooms.iter().for_each(|room| room.leave())),
                false => Ok((stream, client)),
            },
            Err(error) => Err(error),
        };
        let (stream, client) = match accepted {
            Ok(accepted) => accepted,
            Err(error) if is_about_one_connection(&error) => continue,
            Err(error) => {
                warn(&warned, || tracing::warn!(%error, "connections cannot be accepted for now: {error}"));
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let Some(session) = Session::open(worker.clone(), frontend, client, port) else {
            let (name, most) = (&config.name, config.max_connections_per_source.unwrap_or_default());
            warn(
                &warned,
                || tracing::warn!(%client, "a connection to frontend {name} is closed: there are {most} of its source"),
            );
            continue;
        };
        match config.mode {
            Mode::Http => drop(tokio::task::spawn_local(http::serve(stream, session))),
            Mode::Tcp => drop(tokio::task::spawn_local(tcp::serve(stream, session))),
        }
    }
}

/// As if it were just accepted: the runtime tells of what has come meanwhile once more.
fn anew(stream: TcpStream) -> io::Result<TcpStream> {
    TcpStream::from_std(stream.into_std()?)
}

/// Where there are as many connections as there may be, the next ones wait in the kernel's queue.
fn warn_if_full([own, all]: [&Room; 2], frontend: &str, warned: &Cell<Option<Instant>>) {
    let most = |room: &Room| room.most().unwrap_or_default();
    if all.is_full() {
        warn(warned, || tracing::warn!("all {} connections are in use: new ones have to wait", most(all)));
    } else if own.is_full() {
        warn(warned, || {
            tracing::warn!("all {} connections of frontend {frontend} are in use: new ones have to wait", most(own))
        });
    }
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
