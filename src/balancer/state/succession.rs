//! From one configuration to the next: what is known of all that stays goes with it.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Relaxed, Release};
use std::time::Instant;

use super::facts::{AgentReport, Facts, Health};
use super::server::most;
use super::{BackendState, FrontendState, NOT_CHECKED, ServerShared, Shared};
use crate::balancer::balance::plan::WHOLE;
use crate::balancer::room::Sources;
use crate::balancer::rules::{self, rate_limit::RateLimiter};
use crate::config::model::{self, Backend, BackendIndex, BackendOrigin, Frontend, Origins};
use crate::stats::counters::Counters;

impl Shared {
    /// What takes the place of this one: the same servers, where their names and addresses are the same, with all that is
    /// known of them and asked for; the same counters for each name. Whatever is new begins as at a start.
    pub fn succeeded_by(&self, config: model::Balancer) -> Arc<Self> {
        let origins = Origins::find(&config, &self.config);
        let frontends = config.frontends.iter().zip(&origins.frontends).map(|(config, origin)| {
            let before = origin.and_then(|index| self.config.frontends.get(index).zip(self.frontends.get(index)));
            before.map_or_else(|| FrontendState::new(config), |(old, state)| state.succeeded_by(old, config))
        });
        let backends = config.backends.iter().zip(&origins.backends).map(|(config, origin)| {
            let before = origin.index.and_then(|index| self.config.backends.get(index).zip(self.backends.get(index)));
            before.map_or_else(
                || BackendState::new(config, &self.lasting),
                |(old, state)| state.succeeded_by(old, config, origin),
            )
        });
        let (frontends, backends) = (frontends.collect(), backends.collect());
        let counters = self.counters.iter().map(|before| Counters::new(&origins, Some(before))).collect();
        Self::begin(config, frontends, backends, counters, self.lasting.clone())
    }

    /// Where another configuration's server is in this one.
    pub fn place_of(&self, other: &Shared, backend: BackendIndex, server: usize) -> Option<(BackendIndex, usize)> {
        let wanted = other.backends.get(backend.0)?.servers.get(server)?;
        let name = &other.config.backends.get(backend.0)?.name;
        let index = self.config.backends.iter().position(|backend| backend.name == *name)?;
        let server = self.backends.get(index)?.servers.iter().position(|server| Arc::ptr_eq(server, wanted))?;
        Some((BackendIndex(index), server))
    }
}

impl FrontendState {
    /// Who has used up a limit has done so under the next configuration, too.
    fn succeeded_by(&self, old: &Frontend, new: &Frontend) -> Self {
        let mut limits: Vec<_> = old.rules.iter().zip(self.rate_limits.iter().cloned()).collect();
        let mut rate_limits = rules::rate_limits(&new.rules);
        for (rule, limit) in new.rules.iter().zip(rate_limits.iter_mut()).filter(|(_, limit)| limit.is_some()) {
            let same = limits.iter().position(|(old, limit)| *old == rule && limit.is_some());
            if let Some((_, Some(before))) = same.map(|place| limits.remove(place)) {
                *limit = Some::<Arc<RateLimiter>>(before);
            }
        }
        self.connections.set_most(new.max_connections.map(u64::from));
        let sources = new.max_connections_per_source.map(|most| match &self.sources {
            Some(sources) => {
                sources.set_most(most);
                sources.clone()
            }
            None => Arc::new(Sources::new(most)),
        });
        Self { connections: self.connections.clone(), sources, rate_limits }
    }
}

impl BackendState {
    fn succeeded_by(&self, old: &Backend, new: &Backend, origin: &BackendOrigin) -> Self {
        let servers = new.servers.iter().zip(&origin.servers).map(|(config, origin)| {
            let before = origin.and_then(|index| old.servers.get(index).zip(self.servers.get(index)));
            before.map_or_else(
                || Arc::new(ServerShared::new(config)),
                |(old, state)| {
                    let state = if old.address == config.address {
                        state.clone()
                    } else {
                        Arc::new(state.at_another_address(config))
                    };
                    state.follow(new, config);
                    state
                },
            )
        });
        let kept = self.stick.as_ref().filter(|_| old.stick == new.stick);
        let begun = Self::begin(new, servers.collect(), &self.lasting);
        let state = Self {
            stick: kept.map_or(begun.stick, |kept| Some(kept.succeeded_by(&new.servers))),
            turn: AtomicU64::new(self.turn.load(Relaxed)),
            retry_turn: AtomicU64::new(self.retry_turn.load(Relaxed)),
            connections: self.connections.clone(),
            checks: self.checks.clone(),
            ..begun
        };
        state.checks.changed(|| state.state(), Instant::now());
        if state.servers.iter().any(|server| server.facts().rising_since.is_some()) {
            state.came_back.notify_one();
        }
        state
    }
}

impl ServerShared {
    /// What people want of it, and what it has done so far, goes with its name; how it is has to be found out.
    fn at_another_address(&self, config: &model::Server) -> Self {
        let moved = Self::new(config);
        let known = self.facts();
        let mut facts = moved.facts();
        *facts = Facts {
            operator: known.operator,
            operator_reason: known.operator_reason.clone(),
            weight: known.weight,
            ..Facts::new(facts.health, &facts.health_reason.clone(), config.weight)
        };
        drop(facts);
        moved.requests.store(self.requests.load(Relaxed), Relaxed);
        moved
    }

    /// What a new configuration changes of what is so.
    fn follow(&self, backend: &Backend, config: &model::Server) {
        self.most.store(most(config), Relaxed);
        let mut facts = self.facts();
        facts.configured_weight = config.weight;
        if !config.check && facts.health != Health::Up && self.address.load().is_some() {
            (facts.health, facts.health_reason) = (Health::Up, NOT_CHECKED.into());
        }
        if backend.agent.is_none() {
            facts.agent = AgentReport::default();
        }
        if backend.slow_start.is_none() {
            facts.rising_since = None;
            self.tenths.store(WHOLE, Relaxed);
        }
        let state = facts.state();
        self.weight.store(facts.weight(), Relaxed);
        self.state.store(state as u8, Release);
        drop(facts);
        self.checks.changed(|| state, Instant::now());
    }
}
