//! The control socket: where `relevo status`, `relevo server` and `relevo reload` ask. One line in, the answer out, and it is
//! closed.
//!
//! Nothing here can hold the election up: each client is a task of its own with a deadline, and there are few of them.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixListener as StdUnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::timeout;

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
/// Owner and group may ask.
const MODE: u32 = 0o660;
/// Nobody else may take the lock.
const LOCK_MODE: u32 = 0o600;

/// What a client asks for.
pub(super) enum Query {
    /// The state of the pair.
    Status(oneshot::Sender<PairStatus>),
    /// Something of servers. The answer is a text, or what is wrong.
    Server(Order, oneshot::Sender<Result<String, String>>),
    /// That the configuration is read again.
    Reload(oneshot::Sender<Answer>),
}

/// Why there is no control socket.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A live one.
    #[error("another relevo is running: it has the control socket {}; end it first, or set node.control_socket", .0.display())]
    Running(PathBuf),
    /// Not ours to remove.
    #[error("the control socket {} cannot be made: there is something else of that name; move it away", .0.display())]
    Occupied(PathBuf),
    /// Anything else.
    #[error("the control socket {} cannot be made: {source}; run as root, or set node.control_socket", path.display())]
    Other {
        /// Of the socket.
        path: PathBuf,
        /// What the kernel says.
        source: io::Error,
    },
}

/// The socket in the file system; its name goes away with the value.
pub(super) struct ControlSocket {
    path: PathBuf,
    /// Held while this keeper lives, so that of two that start at once only one takes the name.
    _lock: Flock<File>,
}

/// Makes the socket, in place of one that a dead keeper left, and answers on it. Queries arrive at the receiver.
pub(super) fn open(path: &Path) -> Result<(ControlSocket, mpsc::Receiver<Query>), Error> {
    let other = |source| Error::Other { path: path.to_owned(), source };
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory).map_err(other)?;
    }
    let lock = lock(path)?;
    remove_leftover(path)?;
    let listener = StdUnixListener::bind(path).map_err(other)?;
    let socket = ControlSocket { path: path.to_owned(), _lock: lock };
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(MODE)).map_err(other)?;
    listener.set_nonblocking(true).map_err(other)?;
    let listener = UnixListener::from_std(listener).map_err(other)?;
    let (queries, receiver) = mpsc::channel(CLIENTS);
    tokio::spawn(accept(listener, queries));
    Ok((socket, receiver))
}

/// No query is answered any more: who asks is told that the node stops.
pub(super) fn end(queries: &mut mpsc::Receiver<Query>) {
    queries.close();
    while queries.try_recv().is_ok() {}
}

/// Beside the socket. It stays behind: who removes a lock that another waits for gives two the same.
fn lock_path(socket: &Path) -> PathBuf {
    let mut path = socket.as_os_str().to_owned();
    path.push(".lock");
    path.into()
}

fn lock(socket: &Path) -> Result<Flock<File>, Error> {
    let path = lock_path(socket);
    let file = OpenOptions::new().read(true).append(true).create(true).mode(LOCK_MODE).open(&path);
    let file = file.map_err(|source| Error::Other { path: path.clone(), source })?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, error)| match error {
        Errno::EWOULDBLOCK => Error::Running(socket.to_owned()),
        error => Error::Other { path, source: error.into() },
    })
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        // Nothing can be done about a failure, and the next start replaces what is left.
        let _ = std::fs::remove_file(&self.path);
    }
}

fn remove_leftover(path: &Path) -> Result<(), Error> {
    let Ok(metadata) = std::fs::symlink_metadata(path) else { return Ok(()) };
    if !metadata.file_type().is_socket() {
        return Err(Error::Occupied(path.to_owned()));
    }
    std::fs::remove_file(path).map_err(|source| Error::Other { path: path.to_owned(), source })
}

async fn accept(listener: UnixListener, queries: mpsc::Sender<Query>) {
    let places = Arc::new(Semaphore::new(CLIENTS));
    // The semaphore is never closed.
    while let Ok(place) = places.clone().acquire_owned().await {
        match listener.accept().await {
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
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, MODE);
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
