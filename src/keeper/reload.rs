//! Another configuration while the node runs: the guard reads it and says so, the balancer follows it.
//!
//! A wish goes to the guard, with a number. The guard sends a charge, for a wish or for a signal; when the balancer follows
//! it, or does not, the guard hears of it, and answers the wish. So whoever is answered knows that the next keeper would run
//! the same.

use std::collections::BTreeMap;
use std::future::pending;

use tokio::sync::oneshot;
use tokio::task::{JoinHandle, spawn_blocking};

use super::Keeper;
use super::balancer::HostFiles;
use crate::config::model::{AccessLog, Config};
use crate::process::messages::{Charge, FromKeeper, Refused};

/// What whoever asked is told: what has changed, or why nothing has.
pub(super) type Answer = Result<String, Refused>;

/// Reloads under way.
#[derive(Default)]
pub(super) struct Reloads {
    /// By number: who is to be answered.
    wishes: BTreeMap<u64, oneshot::Sender<Answer>>,
    last: u64,
    arriving: Option<JoinHandle<Result<Arrived, String>>>,
    /// What the balancer was offered.
    offered: Option<Config>,
}

/// A charge that has come.
pub(super) struct Arrived {
    pub(super) config: Config,
    pub(super) files: HostFiles,
}

impl Reloads {
    /// Somebody wants one: its number.
    pub(super) fn wish(&mut self, answer: oneshot::Sender<Answer>) -> u64 {
        self.last += 1;
        self.wishes.insert(self.last, answer);
        self.last
    }

    /// Those whose asker has gone, each once.
    fn take_forsaken(&mut self) -> Vec<u64> {
        let forsaken: Vec<u64> =
            self.wishes.iter().filter(|(_, answer)| answer.is_closed()).map(|(wish, _)| *wish).collect();
        self.wishes.retain(|_, answer| !answer.is_closed());
        forsaken
    }

    /// Whoever wished it is told.
    pub(super) fn answer(&mut self, wish: u64, answer: Answer) {
        if let Some(sender) = self.wishes.remove(&wish) {
            // A client that has gone does not matter.
            let _ = sender.send(answer);
        }
    }

    /// The guard has sent a charge as JSON. It is read, and so are files that go with it, by a thread that has the time.
    pub(super) fn arrives(&mut self, charge: String) {
        self.arriving = Some(spawn_blocking(move || {
            let Charge { config, .. } = serde_json::from_str(&charge).map_err(|error| error.to_string())?;
            Ok(Arrived { config, files: HostFiles::read() })
        }));
    }

    /// What has arrived. Cancel-safe.
    pub(super) async fn arrived(&mut self) -> Result<Arrived, String> {
        let Some(arriving) = &mut self.arriving else { return pending().await };
        let arrived = arriving.await;
        self.arriving = None;
        arrived.unwrap_or_else(|error| Err(error.to_string()))
    }

    /// The balancer has been offered it.
    pub(super) fn offered(&mut self, config: Config) {
        self.offered = Some(config);
    }

    /// What it was offered, if it has not said anything to that.
    pub(super) fn take_offered(&mut self) -> Option<Config> {
        self.offered.take()
    }
}

impl Keeper {
    pub(super) fn wants_reload(&mut self, reply: oneshot::Sender<Answer>) {
        let wish = self.reloads.wish(reply);
        if !self.guard.tell(FromKeeper::WantsReload(wish)) {
            self.reloads.answer(wish, Err("the guard does not listen; see its log".to_owned().into()));
        }
    }

    /// What has not begun when its asker goes is not to begin later.
    pub(super) fn withdraw_reloads(&mut self) {
        for wish in self.reloads.take_forsaken() {
            self.guard.tell(FromKeeper::WithdrawsReload(wish));
        }
    }

    /// The guard has seen to it that only the balancer's part differs from what runs.
    pub(super) fn reload(&mut self, arrived: Result<Arrived, String>) {
        let begun = arrived.and_then(|Arrived { config, files }| {
            let is_done = self.balancer.reload(config.balancer.clone(), files).map_err(|error| error.to_string())?;
            self.reloads.offered(config);
            Ok(is_done)
        });
        match begun {
            Ok(true) => self.reloaded(Ok(())),
            Ok(false) => {}
            Err(reason) => drop(self.guard.tell(FromKeeper::Reloaded(Err(reason)))),
        }
    }

    /// The balancer follows what it was offered, or does not.
    pub(super) fn reloaded(&mut self, result: Result<(), String>) {
        let Some(config) = self.reloads.take_offered() else { return };
        if result.is_ok() {
            if let Some(peering) = &self.peering {
                peering.set_config_hash(&config.hash);
            }
            self.log.set_json(config.balancer.access_log == AccessLog::Json);
            self.config = config;
        }
        self.guard.tell(FromKeeper::Reloaded(result));
    }
}
