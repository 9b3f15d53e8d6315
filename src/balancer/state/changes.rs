//! How servers change while they are used: whoever knows something new of one says so here, and all workers heed it.

use std::sync::Arc;
use std::sync::atomic::Ordering::{Relaxed, Release};
use std::time::{Duration, Instant};

use tracing::{debug, error, info, warn};

use super::facts::{AgentReport, Facts, Health};
use super::{Admin, BackendState, Place, ServerShared, Shared};
use crate::balancer::balance::plan::{Plan, WHOLE};
use crate::balancer::balance::slow_start::tenths;
use crate::config::model::{self, BackendIndex, WhenAllDown};
use crate::status::ServerState;
#[cfg(test)]
use crate::wish::Weight;

impl Shared {
    /// What the checks of a server, its name or its traffic say of it, with the reason in words ("connection refused").
    ///
    /// As with all that changes a server: a change of its state is logged, with its cause, and reaches every worker with its
    /// next choice. Says whether the state changed.
    pub fn set_health(&self, backend: BackendIndex, server: usize, health: Health, reason: &str) -> bool {
        self.change(backend, server, |facts| facts.set_health(health, reason))
    }

    /// The same of a check that was counted while the health was `before`: what its traffic has said since counts for more.
    pub fn conclude(&self, backend: BackendIndex, server: usize, [before, after]: [Health; 2], reason: &str) -> bool {
        self.change(backend, server, |facts| {
            if facts.health == before {
                facts.set_health(after, reason);
            }
        })
    }

    /// It could not be checked, for want of something here: what is known of it stays.
    pub fn not_checked(&self, backend: BackendIndex, server: usize, lack: &str) {
        let Some(place) = self.server(backend, server) else { return };
        let mut facts = place.state.facts();
        if facts.health == Health::Starting {
            facts.health_reason = format!("it cannot be checked: {lack}").into();
        }
        drop(facts);
        self.lasting
            .checks_lack
            .make(|| warn!("servers cannot be checked for now, and what is known of them stays: {lack}"));
    }

    /// What a person wants of a server, with the reason in words.
    pub fn set_admin(&self, backend: BackendIndex, server: usize, admin: Admin, reason: &str) -> bool {
        let Some(place) = self.server(backend, server) else { return false };
        let was_in_maintenance = place.state.is_in_maintenance();
        let has_changed = self.change(backend, server, |facts| facts.set_operator(admin, reason, place.server.check));
        if was_in_maintenance {
            place.state.returned.notify_waiters();
        }
        has_changed
    }

    /// Another weight than the configured one; `None`: that one again.
    #[cfg(test)]
    pub fn set_weight(&self, backend: BackendIndex, server: usize, weight: Option<u32>) {
        self.change(backend, server, |facts| facts.weight = weight.map_or(Weight::Default, Weight::Absolute));
    }

    /// What a server's agent says of it.
    pub fn set_agent(&self, backend: BackendIndex, server: usize, report: AgentReport) -> bool {
        self.change(backend, server, |facts| facts.agent = report)
    }

    pub(super) fn change(&self, backend: BackendIndex, server: usize, change: impl FnOnce(&mut Facts)) -> bool {
        let Some(place) = self.server(backend, server) else { return false };
        let mut facts = place.state.facts();
        let before = (facts.state(), facts.weight());
        change(&mut facts);
        let after = (facts.state(), facts.weight());
        if before == after {
            return false;
        }
        let now = Instant::now();
        place.state.state.store(after.0 as u8, Release);
        place.state.weight.store(after.1, Relaxed);
        if before.0 != after.0 {
            let was_rising = facts.rising_since.is_some();
            facts.was_away |= was_rising || matches!(before.0, ServerState::Down | ServerState::Maintenance);
            let rises = facts.was_away && after.0 == ServerState::Up && place.backend.slow_start.is_some();
            facts.was_away &= after.0 != ServerState::Up;
            facts.rising_since = rises.then_some(now);
            place.state.tenths.store(if rises { 1 } else { WHOLE }, Relaxed);
            place.state.errors.store(0, Relaxed);
            place.state.checks.changed(|| after.0, now);
        }
        let (reason, rises) = (facts.reason(), facts.rising_since.is_some());
        drop(facts);

        // A busy agent does so all the time: no more than a detail.
        if before.1 != after.1 {
            debug!(
                "server {}/{} has the weight {}, after {}",
                place.backend.name, place.server.name, after.1, before.1
            );
        }
        self.wherever(&[place.state], |config, state, is_newest| {
            if is_newest {
                state.checks.changed(|| state.state(), now);
            }
            state.replan(config);
            if rises {
                state.came_back.notify_one();
            }
        });
        if before.0 != after.0 {
            log_state(place, after.0, &reason);
        }
        self.wherever(&[place.state], |config, state, is_newest| {
            if is_newest {
                state.tell_whether_empty(config, &place.server.name);
            }
        });
        before.0 != after.0
    }

    /// Does this with each backend that has one of these servers, under the old configurations that are still there as well;
    /// is it the newest one's?
    fn wherever(&self, servers: &[&ServerShared], act: impl Fn(&model::Backend, &BackendState, bool)) {
        let live = self.lasting.live();
        let newest = live.last().map(Arc::as_ptr);
        for shared in &live {
            for (config, state) in shared.config.backends.iter().zip(&shared.backends) {
                if servers.iter().any(|server| state.index_of(server).is_some()) {
                    act(config, state, newest == Some(Arc::as_ptr(shared)));
                }
            }
        }
    }

    /// Gives servers of a backend that rise what slow start lets them have by now. Is one of them still rising?
    pub fn raise(&self, backend: BackendIndex, slow_start: Duration, now: Instant) -> bool {
        let Some(state) = self.backends.get(backend.0) else { return false };
        let (mut changed, mut is_rising) = (Vec::new(), false);
        for server in &state.servers {
            let mut facts = server.facts();
            let Some(since) = facts.rising_since else { continue };
            let tenths = tenths(now.saturating_duration_since(since), slow_start);
            if server.tenths.swap(tenths, Relaxed) != tenths {
                changed.push(&**server);
            }
            is_rising |= tenths < WHOLE;
            facts.rising_since = (tenths < WHOLE).then_some(since);
        }
        if !changed.is_empty() {
            self.wherever(&changed, |config, state, _| state.replan(config));
        }
        is_rising
    }
}

impl BackendState {
    /// Publish what servers are chosen by from now on.
    pub(super) fn replan(&self, config: &model::Backend) {
        // Again with the states of that moment, should two threads do this at once.
        self.plan.rcu(|previous| Plan::new(config, &self.standing(), previous, self.turn.load(Relaxed)));
        self.generation.fetch_add(1, Release);
        self.queue.iter().for_each(|queue| queue.reconsider(self));
    }

    /// Says once that it has lost its last server, and once that it has one again: the one that has changed.
    fn tell_whether_empty(&self, config: &model::Backend, changed: &str) {
        let name = &config.name;
        match self.state() {
            ServerState::Up if self.is_empty.swap(false, Relaxed) => {
                info!("backend {name} has a server again: {changed}");
            }
            ServerState::Down if !self.is_empty.swap(true, Relaxed) => {
                let are_all_down = self.servers.iter().all(|server| server.state() == ServerState::Down);
                let how = match (are_all_down, config.when_all_down) {
                    (false, _) => "none is up",
                    (true, WhenAllDown::Reject) => "all are down",
                    (true, WhenAllDown::TryAll) => "all are down, and all are tried",
                };
                error!("backend {name} has no server left: {how}");
            }
            _ => {}
        }
    }
}

fn log_state(place: Place<'_>, state: ServerState, reason: &str) {
    let (backend, server) = (&place.backend.name, &place.server.name);
    match state {
        ServerState::Down => warn!("server {backend}/{server} is down: {reason}"),
        _ => info!("server {backend}/{server} is {}: {reason}", state.in_a_sentence()),
    }
}
