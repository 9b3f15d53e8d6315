//! What systemd is told, by the guard alone: `NotifyAccess=main` is enough.
//!
//! A service manager that does not read must not keep the guard from its work, so a thread of its own speaks to it.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};
use std::{io, thread};

use sd_notify::NotifyState;

use crate::process::messages::{REPORT_INTERVAL, Report};

/// Words that wait.
const OUTBOX: usize = 64;

/// The one that started this process, if any.
pub(super) struct ServiceManager {
    outbox: Option<SyncSender<Word>>,
    is_watched: bool,
    /// When it was last told that things go on.
    alive_at: Instant,
    is_ready: bool,
    is_reloading: bool,
    status: String,
}

#[derive(Debug, Clone)]
enum Word {
    Ready,
    Reloading,
    Status(String),
    /// Things go on: without it for as long as `WatchdogSec=` says the service is restarted.
    Watchdog,
    Stopping,
    /// For this long, whatever `TimeoutStopSec=` says.
    Wait(Duration),
}

impl ServiceManager {
    /// As the environment tells.
    pub(super) fn find() -> io::Result<Self> {
        let outbox = std::env::var_os("NOTIFY_SOCKET").map(|_| spawn()).transpose()?;
        let watchdog = sd_notify::watchdog_enabled();
        if let Some(limit) = watchdog.filter(|limit| *limit < 3 * REPORT_INTERVAL) {
            let least = 3 * REPORT_INTERVAL;
            tracing::warn!("the watchdog's limit of {limit:?} is too short: set WatchdogSec to {least:?} or more");
        }
        let is_watched = watchdog.is_some();
        let status = String::new();
        Ok(ServiceManager {
            outbox,
            is_watched,
            alive_at: Instant::now(),
            is_ready: false,
            is_reloading: false,
            status,
        })
    }

    /// Passes on what the keeper reports.
    pub(super) fn report(&mut self, report: &Report) {
        if report.is_ready && !self.is_ready {
            self.is_ready = true;
            self.say(Word::Ready);
        }
        self.status(&report.state);
        if report.in_time {
            self.alive();
        }
    }

    /// Something is to change: it waits for [`ServiceManager::reloaded`].
    pub(super) fn reloading(&mut self) {
        if self.is_ready && !self.is_reloading {
            self.is_reloading = true;
            self.say(Word::Reloading);
        }
    }

    /// Nothing is about to change any more.
    pub(super) fn reloaded(&mut self) {
        if self.is_reloading {
            self.is_reloading = false;
            self.say(Word::Ready);
        }
    }

    /// For `systemctl status`.
    pub(super) fn status(&mut self, status: &str) {
        if self.status != status {
            status.clone_into(&mut self.status);
            self.say(Word::Status(status.to_owned()));
        }
    }

    /// While the guard waits on purpose, it is the guard that is in time. Never returns.
    pub(super) async fn wait(&mut self) {
        loop {
            self.alive();
            tokio::time::sleep(REPORT_INTERVAL).await;
        }
    }

    /// The guard has not run for so long: if things went on before, they need the time to go on again.
    pub(super) fn was_absent(&mut self, absence: Duration) {
        if self.alive_at.elapsed() < absence + 2 * REPORT_INTERVAL {
            self.alive();
        }
    }

    /// It takes this long at most.
    pub(super) fn stopping(&self, limit: Duration) {
        self.say(Word::Stopping);
        self.say(Word::Wait(limit));
    }

    fn alive(&mut self) {
        self.alive_at = Instant::now();
        if self.is_watched {
            self.say(Word::Watchdog);
        }
    }

    fn say(&self, word: Word) {
        let Some(outbox) = &self.outbox else { return };
        if outbox.try_send(word).is_err() {
            tracing::debug!("the service manager does not listen");
        }
    }
}

fn spawn() -> io::Result<SyncSender<Word>> {
    let (outbox, words) = sync_channel(OUTBOX);
    thread::Builder::new().name("notify".to_owned()).spawn(move || speak(&words))?;
    Ok(outbox)
}

fn speak(words: &Receiver<Word>) {
    let mut failed = false;
    for word in words {
        let said = match &word {
            Word::Ready => sd_notify::notify(&[NotifyState::Ready]),
            Word::Reloading => match NotifyState::monotonic_usec_now() {
                Ok(now) => sd_notify::notify(&[NotifyState::Reloading, now]),
                Err(error) => Err(error),
            },
            Word::Status(status) => sd_notify::notify(&[NotifyState::Status(status)]),
            Word::Watchdog => sd_notify::notify(&[NotifyState::Watchdog]),
            Word::Stopping => sd_notify::notify(&[NotifyState::Stopping]),
            Word::Wait(limit) => {
                let limit = u32::try_from(limit.as_micros()).unwrap_or(u32::MAX);
                sd_notify::notify(&[NotifyState::ExtendTimeoutUsec(limit)])
            }
        };
        let failed_before = std::mem::replace(&mut failed, said.is_err());
        if let (Err(error), false) = (said, failed_before) {
            tracing::warn!(%error, "the service manager cannot be told how this node is");
        }
    }
}
