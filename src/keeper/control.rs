//! The control socket: where `relevo status`, `relevo server` and `relevo reload` ask. One line in, the answer out, and it is
//! closed.
//!
//! Nothing here can hold the election up: each client is a task of its own with a deadline, and there are few of them.

mod socket;

use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener as StdUnixListener;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::{JoinError, JoinHandle, spawn_blocking};
use tokio::time::{MissedTickBehavior, interval, timeout};

use self::socket::Site;
pub(super) use self::socket::{ControlSocket, Error};
use super::orders::Order;
use super::reload::Answer;
use crate::process::messages::Refused;
use crate::status::PairStatus;
use crate::wish::LONGEST_LINE;

/// Clients at once; the next one waits in the socket's queue.
const CLIENTS: usize = 16;
/// For the line to come, and for the answer to be taken.
const PATIENCE: Duration = Duration::from_secs(1);
/// For the file to be read and the balancer to follow it.
const RELOAD_PATIENCE: Duration = Duration::from_secs(20);
/// Between two looks whether a client that waits is still there.
const LOOK: Duration = Duration::from_millis(50);
/// After each client, so that many of them, one after the other, leave the election its time.
const PAUSE: Duration = Duration::from_millis(5);
/// Between two looks whether the socket's file is still there.
const LOOK_AT_FILE: Duration = Duration::from_millis(300);

/// What a client asks for.
pub(super) enum Query {
    /// The state of the pair.
    Status(oneshot::Sender<PairStatus>),
    /// Something of servers. The answer is a text, or what is wrong.
    Server(Order, oneshot::Sender<Result<String, String>>),
    /// That the configuration is read again.
    Reload(oneshot::Sender<Answer>),
}

/// Makes the socket, in place of one that a dead keeper left, and answers on it. Queries arrive at the receiver.
pub(super) fn open(path: &Path) -> Result<(ControlSocket, mpsc::Receiver<Query>), Error> {
    let (socket, listener) = ControlSocket::make(path)?;
    let listener = UnixListener::from_std(listener).map_err(|source| Error::Other { path: path.to_owned(), source })?;
    let (queries, receiver) = mpsc::channel(CLIENTS);
    tokio::spawn(accept(listener, socket.site(), queries));
    Ok((socket, receiver))
}

/// No query is answered any more: who asks is told that the node stops.
pub(super) fn end(queries: &mut mpsc::Receiver<Query>) {
    queries.close();
    while queries.try_recv().is_ok() {}
}

async fn accept(mut listener: UnixListener, site: Arc<Mutex<Site>>, queries: mpsc::Sender<Query>) {
    let places = Arc::new(Semaphore::new(CLIENTS));
    let mut looks = interval(LOOK_AT_FILE);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut looking: Option<JoinHandle<Option<StdUnixListener>>> = None;
    // The semaphore is never closed.
    while let Ok(place) = places.clone().acquire_owned().await {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = looks.tick(), if looking.is_none() => {
                let site = site.clone();
                // A file system may take its time.
                looking = Some(spawn_blocking(move || socket::lock(&site).look()));
                continue;
            }
            looked = looked(&mut looking) => {
                looking = None;
                if let Ok(Some(Ok(again))) = looked.map(|listener| listener.map(UnixListener::from_std)) {
                    listener = again;
                }
                continue;
            }
        };
        match accepted {
            Ok((stream, _)) => {
                let queries = queries.clone();
                tokio::spawn(async move {
                    // A client that is slow or gone is its own loss.
                    let _ = answer(stream, queries).await;
                    drop(place);
                });
                tokio::time::sleep(PAUSE).await;
            }
            Err(error) => {
                tracing::warn!(%error, "a client of the control socket could not be accepted");
                tokio::time::sleep(PATIENCE).await;
            }
        }
    }
}

/// Never, where nobody looks.
async fn looked(
    looking: &mut Option<JoinHandle<Option<StdUnixListener>>>,
) -> Result<Option<StdUnixListener>, JoinError> {
    match looking {
        Some(looking) => looking.await,
        None => std::future::pending().await,
    }
}

async fn answer(mut stream: UnixStream, queries: mpsc::Sender<Query>) -> io::Result<()> {
    let mut line = String::new();
    let mut reader = BufReader::new((&mut stream).take(LONGEST_LINE));
    timeout(PATIENCE, reader.read_line(&mut line)).await.map_err(io::Error::from)??;
    let reply = tokio::select! {
        biased;
        // To whom it failed must not see it done later.
        () = hung_up(&stream) => return Ok(()),
        reply = reply(&line, &queries) => match reply {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => b"error: this node is stopping\n".to_vec(),
            reply => reply?,
        },
    };
    timeout(PATIENCE, stream.write_all(&reply)).await??;
    stream.shutdown().await
}

async fn reply(line: &str, queries: &mpsc::Sender<Query>) -> io::Result<Vec<u8>> {
    match line.trim_end().split_once(' ').unwrap_or((line.trim_end(), "")) {
        ("status", "") => timeout(PATIENCE, status(queries)).await?,
        ("reload", "") => reload(queries).await,
        // The end of a line that was cut is no name.
        ("server", words) if line.ends_with('\n') => timeout(2 * PATIENCE, server(words, queries)).await?,
        _ => {
            Ok(format!("error: unknown command {:.100?}; known: status, server, reload\n", line.trim_end())
                .into_bytes())
        }
    }
}

/// When the client has closed its socket. One that only says that no more comes from it still waits, so that this cannot be
/// read: it is looked for, at once and again and again.
async fn hung_up(stream: &UnixStream) {
    loop {
        let mut socket = [PollFd::new(stream.as_fd(), PollFlags::empty())];
        let looked = poll(&mut socket, PollTimeout::ZERO);
        if looked.is_ok() && socket[0].revents().is_some_and(|events| events.contains(PollFlags::POLLHUP)) {
            return;
        }
        tokio::time::sleep(LOOK).await;
    }
}

async fn status(queries: &mpsc::Sender<Query>) -> io::Result<Vec<u8>> {
    let mut text = serde_json::to_vec(&ask(queries, Query::Status).await?)?;
    text.push(b'\n');
    Ok(text)
}

async fn server(words: &str, queries: &mpsc::Sender<Query>) -> io::Result<Vec<u8>> {
    let answer = match Order::parse(words) {
        Ok(order) => ask(queries, |reply| Query::Server(order, reply)).await?,
        Err(error) => Err(error),
    };
    Ok(answer.unwrap_or_else(|error| format!("error: {error}\n")).into_bytes())
}

/// `ok: ` and what has changed; `restart: ` and what counts only when the node starts; `error: ` and why nothing has changed; or a
/// sentence that says none of it.
async fn reload(queries: &mpsc::Sender<Query>) -> io::Result<Vec<u8>> {
    let limit = RELOAD_PATIENCE.as_secs();
    let text = match timeout(RELOAD_PATIENCE, ask(queries, Query::Reload)).await {
        Ok(answer) => match answer? {
            Ok(changes) => format!("ok: {changes}\n"),
            Err(Refused { reason, needs_restart: true }) => format!("restart: {reason}\n"),
            Err(Refused { reason, needs_restart: false }) => format!("error: {reason}\n"),
        },
        Err(_) => format!("nothing is known after {limit} s; the log tells what becomes of it\n"),
    };
    Ok(text.into_bytes())
}

/// A broken pipe if the keeper takes no more queries: it stops.
async fn ask<T>(queries: &mpsc::Sender<Query>, query: impl FnOnce(oneshot::Sender<T>) -> Query) -> io::Result<T> {
    let gone = || io::Error::from(io::ErrorKind::BrokenPipe);
    let (reply, answer) = oneshot::channel();
    queries.send(query(reply)).await.map_err(|_| gone())?;
    answer.await.map_err(|_| gone())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::path::PathBuf;

    use super::*;

    /// A directory of its own that goes away with the test.
    struct Directory(PathBuf);

    impl Directory {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("relevo-control-{name}-{}", std::process::id()));
            std::fs::create_dir_all(&path).unwrap();
            Directory(path)
        }
    }

    impl Drop for Directory {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    async fn ask(path: &Path, line: &str) -> String {
        let mut stream = UnixStream::connect(path).await.unwrap();
        stream.write_all(line.as_bytes()).await.unwrap();
        let mut reply = String::new();
        stream.read_to_string(&mut reply).await.unwrap();
        reply
    }

    #[tokio::test]
    async fn it_answers_status_and_refuses_the_rest() {
        let directory = Directory::new("answers");
        let path = directory.0.join("made/control.sock");
        let (socket, mut queries) = open(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
        tokio::spawn(async move {
            while let Some(query) = queries.recv().await {
                match query {
                    Query::Status(reply) => {
                        let mut status = PairStatus::default();
                        status.node.node = "lb1".to_owned();
                        let _ = reply.send(status);
                    }
                    Query::Reload(reply) => drop(reply.send(Err("the file is bad".to_owned().into()))),
                    Query::Server(order, reply) => drop(reply.send(Ok(format!("{}\n", order.names.join(" "))))),
                }
            }
        });

        let status: PairStatus = serde_json::from_str(&ask(&path, "status\n").await).unwrap();
        assert_eq!(status.node.node, "lb1");
        assert_eq!(ask(&path, "reload\n").await, "error: the file is bad\n");
        assert_eq!(ask(&path, "stop\n").await, "error: unknown command \"stop\"; known: status, server, reload\n");
        assert!(ask(&path, "server drain\n").await.starts_with("error: no server is named"));
        assert_eq!(ask(&path, "server drain a/b c/d\n").await, "a/b c/d\n");
        drop(socket);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_node_that_stops_says_so() {
        let directory = Directory::new("stops");
        let path = directory.0.join("control.sock");
        let (_socket, mut queries) = open(&path).unwrap();
        // It has come before the keeper stops, and is never looked at.
        let asked = tokio::spawn({
            let path = path.clone();
            async move { ask(&path, "status\n").await }
        });
        while queries.is_empty() {
            tokio::task::yield_now().await;
        }
        end(&mut queries);
        assert_eq!(asked.await.unwrap(), "error: this node is stopping\n");
        assert_eq!(ask(&path, "reload\n").await, "error: this node is stopping\n");
    }

    #[tokio::test]
    async fn a_stale_socket_is_replaced_and_a_live_one_is_respected() {
        let directory = Directory::new("stale");
        let path = directory.0.join("control.sock");
        drop(StdUnixListener::bind(&path).unwrap());
        let (_socket, _queries) = open(&path).unwrap();
        assert!(matches!(open(&path), Err(Error::Running(_))));

        let file = directory.0.join("file");
        std::fs::write(&file, "precious").unwrap();
        assert!(matches!(open(&file), Err(Error::Occupied(_))));
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "precious");
    }

    #[tokio::test]
    async fn silent_clients_do_not_keep_others_out() {
        let directory = Directory::new("silent");
        let path = directory.0.join("control.sock");
        let (_socket, _queries) = open(&path).unwrap();
        let mut silent = Vec::new();
        for _ in 0..CLIENTS {
            silent.push(UnixStream::connect(&path).await.unwrap());
        }
        assert!(ask(&path, "hello\n").await.starts_with("error: "));
    }
}
