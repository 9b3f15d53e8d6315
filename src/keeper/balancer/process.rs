//! One balancer's process: how it is started, written to and buried.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::process::Stdio;
use std::sync::Arc;

use tokio::net::UnixStream;
use tokio::process::{Child, Command};
use tokio::sync::mpsc;

use crate::config::model::LogTarget;
use crate::keeper::listeners::Listeners;
use crate::process::descriptors::{self, Receiver, Sender};
use crate::process::log;
use crate::process::messages::{Start, ToBalancer};

/// Messages that wait for a balancer that does not read.
pub(super) const OUTBOX: usize = 64;

/// Of the environment: what its log looks like.
const PASSED_ON: [&str; 3] = ["NO_COLOR", "RUST_BACKTRACE", "TZ"];

/// It dies with its keeper, or when it is buried.
pub(super) struct Process {
    pub(super) pid: u32,
    pub(super) child: Child,
    pub(super) receiver: Receiver,
    pub(super) outbox: mpsc::Sender<Letter>,
}

/// A message and what goes with it.
pub(super) type Letter = (ToBalancer, Vec<OwnedFd>);

impl Process {
    /// Must be called on the main thread: the balancer dies with the thread that started it (PDEATHSIG).
    pub(super) fn start(start: Start, listeners: Arc<Listeners>, longest_message: usize) -> io::Result<Self> {
        let (ours, its) = StdUnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let (sender, receiver) = descriptors::halves(UnixStream::from_std(ours)?);
        let child = Command::new("/proc/self/exe")
            .arg0("relevo")
            .arg("balancer")
            // A service's environment may hold what is nobody's business.
            .env_clear()
            .envs(PASSED_ON.iter().filter_map(|name| Some((name, std::env::var_os(name)?))))
            .stdin(Stdio::from(OwnedFd::from(its)))
            .spawn()?;
        let pid = child.id().ok_or_else(|| io::Error::other("it ended at once"))?;
        let (outbox, messages) = mpsc::channel(OUTBOX);
        tokio::spawn(send(sender, start, listeners, messages));
        Ok(Process { pid, child, receiver: receiver.distrust(longest_message), outbox })
    }

    /// Makes sure that it is dead, and says how it died. Nobody waits for that.
    pub(super) fn bury(mut self) {
        if let Err(error) = self.child.start_kill() {
            tracing::error!(%error, pid = self.pid, "the balancer could not be killed");
        }
        tokio::spawn(async move {
            if let Ok(status) = self.child.wait().await {
                tracing::info!(pid = self.pid, %status, "the balancer has ended");
            }
        });
    }
}

/// A task of its own, so that a balancer that does not read holds nothing up.
async fn send(mut sender: Sender, mut start: Start, listeners: Arc<Listeners>, mut messages: mpsc::Receiver<Letter>) {
    let (opened, log): (Vec<_>, Vec<_>) = open_log(start.log_targets.clone()).await.into_iter().unzip();
    start.log_opened = opened;
    let descriptors = [listeners.descriptors(), log.iter().map(AsFd::as_fd).collect()].concat();
    // A failure means that it is gone, which its receiving half tells.
    if sender.send(&ToBalancer::Start(Box::new(start)), &descriptors).await.is_err() {
        return;
    }
    drop((listeners, log));
    while let Some((message, descriptors)) = messages.recv().await {
        let descriptors: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();
        if sender.send(&message, &descriptors).await.is_err() {
            return;
        }
    }
}

/// A target that has become impossible since this process opened it costs its lines, and no balancer.
async fn open_log(targets: Vec<LogTarget>) -> Vec<(usize, OwnedFd)> {
    let open = move || -> Vec<(usize, OwnedFd)> {
        let or_nothing = |(place, target)| match log::open(target) {
            Ok(opened) => Some((place, opened)),
            Err(error) => {
                tracing::error!(%error, "the balancer does not log there: {error}");
                None
            }
        };
        targets.iter().enumerate().filter_map(or_nothing).collect()
    };
    tokio::task::spawn_blocking(open).await.unwrap_or_default()
}
