//! The configuration read again, for whoever asks: one after the other, each whole before anything of it is in force.

use std::collections::VecDeque;
use std::future::pending;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{Instant, timeout_at};

use crate::config::changes::Changes;
use crate::config::{self, LoadError, Machine};
use crate::process::messages::{Charge, Refused};

/// Whoever asked for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    /// A person or a service manager, by SIGHUP.
    BySignal,
    /// Somebody at the control socket, whom the keeper knows by this number.
    ByWish(u64),
}

/// A configuration that could take the place of the one that runs.
pub(super) struct Offer {
    /// What the next keeper would run, once this one does.
    pub(super) charge: Arc<Charge>,
    /// The same as JSON.
    pub(super) text: String,
    /// What it changes.
    pub(super) changes: Changes,
}

/// Why there is none.
pub(super) struct Refusal {
    /// For the log.
    pub(super) line: String,
    /// For whoever asked.
    pub(super) refused: Refused,
}

/// For a file to be read and checked.
const READ_TIMEOUT: Duration = Duration::from_secs(5);
/// Threads that hang in a file system.
const MOST_STUCK: usize = 4;

/// A file that is being read, for whom, and until when.
struct Reading {
    asked: Asked,
    until: Instant,
    thread: JoinHandle<Result<Offer, Refusal>>,
}

/// All that was asked for and has no answer yet.
pub(super) struct Reloads {
    path: PathBuf,
    waiting: VecDeque<Asked>,
    reading: Option<Reading>,
    /// Threads that still read for somebody who was told that it takes too long.
    stuck: Vec<JoinHandle<Result<Offer, Refusal>>>,
    offered: Option<(Asked, Offer)>,
}

impl Reloads {
    /// Of the configuration that is in this file.
    pub(super) fn new(path: PathBuf) -> Self {
        Reloads { path, waiting: VecDeque::new(), reading: None, stuck: Vec::new(), offered: None }
    }

    /// Is nothing going on?
    pub(super) fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.reading.is_none() && self.offered.is_none()
    }

    /// The file is to be read again.
    pub(super) fn ask(&mut self, asked: Asked) {
        // One that has not begun sees all that many signals want to be seen.
        if asked != Asked::BySignal || !self.waiting.contains(&asked) {
            self.waiting.push_back(asked);
        }
    }

    /// Whoever asked has gone: nothing becomes of it, unless the keeper has it already. Says whether there was something.
    pub(super) fn withdraw(&mut self, asked: Asked) -> bool {
        let asked_for = self.waiting.len();
        self.waiting.retain(|waiting| *waiting != asked);
        let was_read = self.abandon(|reading| reading == asked);
        was_read || self.waiting.len() < asked_for
    }

    /// What has been read, for whom; none while the last is still with the keeper. `running` is what runs. Cancel-safe.
    pub(super) async fn read(&mut self, running: &Arc<Charge>) -> (Asked, Result<Offer, Refusal>) {
        if self.offered.is_some() {
            return pending().await;
        }
        if self.reading.is_none()
            && let Some(asked) = self.waiting.pop_front()
        {
            self.stuck.retain(|thread| !thread.is_finished());
            if self.stuck.len() >= MOST_STUCK {
                let reason = format!("{} does not come: its file system hangs", self.path.display());
                return (asked, Err(Refusal::from(reason)));
            }
            let (path, running) = (self.path.clone(), running.clone());
            let thread = spawn_blocking(move || read(&path, &running));
            self.reading = Some(Reading { asked, until: Instant::now() + READ_TIMEOUT, thread });
        }
        let Some(Reading { asked, until, thread }) = &mut self.reading else { return pending().await };
        let (asked, read) = (*asked, timeout_at(*until, thread).await);
        let Ok(read) = read else {
            self.abandon(|_| true);
            let (path, limit) = (self.path.display(), READ_TIMEOUT.as_secs());
            return (
                asked,
                Err(Refusal::from(format!("{path} could not be read within {limit} s: its file system hangs"))),
            );
        };
        self.reading = None;
        let broken = |error: tokio::task::JoinError| Err(Refusal::from(format!("it cannot be read: {error}")));
        (asked, read.unwrap_or_else(broken))
    }

    /// What is being read, if it is for one of these, is for nobody any more. Says whether it was.
    fn abandon(&mut self, is_one: impl Fn(Asked) -> bool) -> bool {
        let abandoned = self.reading.take_if(|reading| is_one(reading.asked));
        let was_read = abandoned.is_some();
        self.stuck.extend(abandoned.map(|reading| reading.thread));
        was_read
    }

    /// The keeper has it.
    pub(super) fn offered(&mut self, asked: Asked, offer: Offer) {
        self.offered = Some((asked, offer));
    }

    /// What the keeper had, and has decided on.
    pub(super) fn take_offered(&mut self) -> Option<(Asked, Offer)> {
        self.offered.take()
    }

    /// The keeper has died, and with it all whom it knew by number: nobody waits for what they asked for, and the next one has
    /// numbers of its own. What this one was offered is not offered again: it may be what has killed it. Says whether there was
    /// something that nothing becomes of.
    pub(super) fn keeper_died(&mut self) -> bool {
        let asked_for = self.waiting.len();
        self.waiting.retain(|asked| *asked == Asked::BySignal);
        let was_read = self.abandon(|asked| asked != Asked::BySignal);
        self.offered.take().is_some() || was_read || self.waiting.len() < asked_for
    }
}

impl From<String> for Refusal {
    fn from(line: String) -> Self {
        Refusal { refused: line.clone().into(), line }
    }
}

/// What is not written is as it runs: only what is can have changed.
pub(super) fn read(path: &Path, running: &Charge) -> Result<Offer, Refusal> {
    let machine = Machine {
        host_name: running.config.node.name.clone(),
        cores: running.config.balancer.threads,
        ..Machine::this()
    };
    let config = config::load_again(path, &machine).map_err(|error| match error {
        LoadError::Unreadable { .. } => Refusal::from(error.to_string()),
        LoadError::Invalid(diagnostics) => {
            Refusal { line: diagnostics.in_a_line(), refused: diagnostics.render(false).into() }
        }
    })?;
    let changes = Changes::between(&running.config, &config).map_err(|error| {
        let line = error.to_string();
        Refusal { refused: Refused { reason: line.clone(), needs_restart: true }, line }
    })?;
    let charge = Charge { config, key: running.key.clone() };
    let text = serde_json::to_string(&charge).map_err(|error| Refusal::from(error.to_string()))?;
    Ok(Offer { charge: Arc::new(charge), text, changes })
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;
    use crate::config::parse;

    fn running() -> Arc<Charge> {
        let text = "[frontends.web]\nbind = '127.0.0.1:80'\ndefault_backend = 'app'\n[backends.app]\nservers = [{ name = 'a', address = '127.0.0.1:1' }]\n";
        Arc::new(Charge { config: parse(text, "test").unwrap(), key: None })
    }

    #[tokio::test]
    async fn a_file_system_that_hangs_costs_one_reload_and_not_those_after_it() {
        let mut reloads = Reloads::new("/does/not/exist".into());
        let (go_on, wait) = channel::<()>();
        let thread = spawn_blocking(move || {
            let _ = wait.recv();
            Err(Refusal::from("too late".to_owned()))
        });
        reloads.reading = Some(Reading { asked: Asked::BySignal, until: Instant::now(), thread });
        let line = |(asked, read): (Asked, Result<Offer, Refusal>)| (asked, read.err().unwrap().line);
        let (asked, hangs) = line(reloads.read(&running()).await);
        assert!(asked == Asked::BySignal && hangs.contains("/does/not/exist could not be read within 5 s"), "{hangs}");
        reloads.ask(Asked::ByWish(1));
        let (asked, next) = line(reloads.read(&running()).await);
        assert!(asked == Asked::ByWish(1) && next.contains("cannot read the configuration"), "{next}");
        drop(go_on);
    }

    /// Each holds a thread.
    #[tokio::test]
    async fn not_more_than_a_few_wait_for_it() {
        let mut reloads = Reloads::new("/does/not/exist".into());
        let (go_on, wait) = channel::<()>();
        let wait = Arc::new(std::sync::Mutex::new(wait));
        for _ in 0..MOST_STUCK {
            let wait = wait.clone();
            reloads.stuck.push(spawn_blocking(move || {
                let _ = wait.lock().map(|wait| wait.recv());
                Err(Refusal::from("too late".to_owned()))
            }));
        }
        reloads.ask(Asked::BySignal);
        let (_, read) = reloads.read(&running()).await;
        assert!(read.err().unwrap().line.ends_with("its file system hangs"));
        drop(go_on);
    }
}
