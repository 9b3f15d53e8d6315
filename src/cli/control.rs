//! The control socket of a running node, as the commands that ask it something find it.

use std::io::{self, ErrorKind};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::{Instant, sleep, timeout};

use crate::config;

/// No answer is longer, in bytes.
const LONGEST_ANSWER: u64 = 64 << 20;

/// For a node whose socket was removed to make it again: it looks three times a second.
const MADE_AGAIN: Duration = Duration::from_secs(1);
const RETRY: Duration = Duration::from_millis(20);

/// `-c FILE` or `--socket PATH`, before or behind a further word.
#[derive(Args)]
pub(super) struct ControlSocket {
    /// The configuration that names the control socket [default: /etc/relevo/relevo.toml, if it can be read]
    #[arg(short, long = "config", value_name = "FILE", conflicts_with = "socket", global = true)]
    config: Option<PathBuf>,
    /// The control socket of the node [default: the configuration's, or /run/relevo/control.sock]
    #[arg(long, value_name = "PATH", global = true)]
    socket: Option<PathBuf>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error(transparent)]
    Config(#[from] config::LoadError),
    #[error(
        "no node runs here: nobody answers at {}; start it with `relevo run`, or name its socket with --socket",
        .0.display()
    )]
    NotRunning(PathBuf),
    #[error("this user may not ask the node at {}: run as root or as a member of the socket's group", .0.display())]
    Forbidden(PathBuf),
    #[error(
        "a node runs here, and its control socket {} was removed or replaced: it makes it again within a second, or says in \
         its log why it cannot",
        .0.display()
    )]
    Removed(PathBuf),
    #[error(
        "the node at {} does not answer within {} s: its keeper hangs or is overloaded, see its log",
        socket.display(), patience.as_secs()
    )]
    Silent { socket: PathBuf, patience: Duration },
    #[error("asking the node at {} failed: {source}", socket.display())]
    Failed { socket: PathBuf, source: io::Error },
}

impl ControlSocket {
    /// A configuration that nobody named may be broken or out of our reach: the node runs on what it read earlier.
    pub(super) fn path(&self) -> Result<PathBuf, Error> {
        if let Some(socket) = &self.socket {
            return Ok(socket.clone());
        }
        match &self.config {
            Some(file) => Ok(config::control_socket(file)?),
            None => Ok(config::control_socket(Path::new(config::DEFAULT_PATH))
                .unwrap_or_else(|_| config::DEFAULT_CONTROL_SOCKET.into())),
        }
    }
}

/// The answer to one line.
pub(super) fn ask(socket: &Path, line: &str, patience: Duration) -> Result<Vec<u8>, Error> {
    let asking = async { timeout(patience, exchange(socket, line)).await.unwrap_or(Err(ErrorKind::TimedOut.into())) };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.and_then(|runtime| runtime.block_on(asking)).map_err(|source| {
        let socket = socket.to_owned();
        match source.kind() {
            ErrorKind::NotFound | ErrorKind::ConnectionRefused if is_listening(&socket) => Error::Removed(socket),
            ErrorKind::NotFound | ErrorKind::ConnectionRefused => Error::NotRunning(socket),
            ErrorKind::PermissionDenied => Error::Forbidden(socket),
            // Would block: so many ask already that the socket's queue is full.
            ErrorKind::TimedOut | ErrorKind::WouldBlock => Error::Silent { socket, patience },
            _ => Error::Failed { socket, source },
        }
    })
}

/// Does a process listen there, whatever has become of the file? The kernel lists the sockets of the network namespace by the names
/// that they were made with.
fn is_listening(socket: &Path) -> bool {
    let sockets = std::fs::read("/proc/net/unix").unwrap_or_default();
    let name = [b" ", socket.as_os_str().as_bytes()].concat();
    sockets.split(|byte| *byte == b'\n').any(|line| line.ends_with(&name))
}

/// A node whose socket was removed makes it again soon.
async fn connect(socket: &Path) -> io::Result<UnixStream> {
    let end = Instant::now() + MADE_AGAIN;
    loop {
        match UnixStream::connect(socket).await {
            Err(error)
                if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused)
                    && Instant::now() < end
                    && is_listening(socket) =>
            {
                sleep(RETRY).await;
            }
            connected => return connected,
        }
    }
}

async fn exchange(socket: &Path, line: &str) -> io::Result<Vec<u8>> {
    let mut stream = connect(socket).await?;
    stream.write_all(format!("{line}\n").as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(LONGEST_ANSWER).read_to_end(&mut answer).await?;
    Ok(answer)
}
