//! What is known of a server, by who knows it, and what follows from all of it: its state and its weight.

use std::sync::Arc;
use std::time::Instant;

use crate::status::ServerState;
use crate::wish::{Admin, HIGHEST_WEIGHT, Weight};

/// What checks, the resolver and the traffic say of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// Not proven yet.
    Starting,
    /// It serves, or nobody checks it.
    Up,
    /// It does not.
    Down,
}

/// What a server's agent said last, its answers one after the other taken together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentReport {
    /// What it wants.
    pub admin: Admin,
    /// Why it calls its server down, in words; `None` if it does not.
    pub down: Option<Arc<str>>,
    /// Percent of its weight it should have.
    pub percent: u32,
    /// What it gave as the reason when it last spoke of either.
    pub why: Option<Arc<str>>,
}

impl Default for AgentReport {
    fn default() -> Self {
        Self { admin: Admin::Ready, down: None, percent: 100, why: None }
    }
}

impl AgentReport {
    fn asks_for(&self, what: &str) -> Arc<str> {
        let (separator, why) = self.why.as_ref().map_or(("", ""), |why| (": ", why));
        format!("its agent asks for {what}{separator}{why}").into()
    }
}

/// All of it.
#[derive(Debug)]
pub(super) struct Facts {
    pub(super) health: Health,
    pub(super) health_reason: Arc<str>,
    /// What others know of its health and why, which counts while it is `Starting`.
    pub(super) hearsay: Option<(Health, Arc<str>)>,
    pub(super) agent: AgentReport,
    pub(super) operator: Admin,
    pub(super) operator_reason: Arc<str>,
    /// The one that was given while running.
    pub(super) weight: Weight,
    /// The one that is configured.
    pub(super) configured_weight: u32,
    /// It was down or in maintenance, and has not been up since.
    pub(super) was_away: bool,
    /// Slow start: since when it rises.
    pub(super) rising_since: Option<Instant>,
}

impl Facts {
    pub(super) fn new(health: Health, reason: &str, configured_weight: u32) -> Self {
        Self {
            health,
            health_reason: reason.into(),
            hearsay: None,
            agent: AgentReport::default(),
            operator: Admin::Ready,
            operator_reason: "".into(),
            weight: Weight::Default,
            configured_weight,
            was_away: false,
            rising_since: None,
        }
    }

    /// What the checks, the resolver and the traffic say, and nobody else from now on.
    pub(super) fn set_health(&mut self, health: Health, reason: &str) {
        (self.health, self.health_reason, self.hearsay) = (health, reason.into(), None);
    }

    /// What people want. After maintenance a server that is checked has to prove itself.
    pub(super) fn set_operator(&mut self, admin: Admin, reason: &str, is_checked: bool) {
        let returns = self.operator == Admin::Maintenance && admin != Admin::Maintenance;
        (self.operator, self.operator_reason) = (admin, reason.into());
        if returns && is_checked {
            self.set_health(Health::Starting, reason);
        }
    }

    fn known(&self) -> (Health, &Arc<str>) {
        match (self.health, &self.hearsay) {
            (Health::Starting, Some((health, reason))) => (*health, reason),
            (health, _) => (health, &self.health_reason),
        }
    }

    /// What is in maintenance is that whatever its health; what cannot serve is down, drained or not.
    pub(super) fn state(&self) -> ServerState {
        match (self.operator.max(self.agent.admin), self.known().0) {
            (Admin::Maintenance, _) => ServerState::Maintenance,
            (_, Health::Down) => ServerState::Down,
            _ if self.agent.down.is_some() => ServerState::Down,
            (_, Health::Starting) => ServerState::Starting,
            (Admin::Drain, Health::Up) => ServerState::Drain,
            (Admin::Ready, Health::Up) => ServerState::Up,
        }
    }

    /// Is it the agent, and it alone, that ends new sessions?
    pub(super) fn are_out_by_agent(&self) -> bool {
        match self.state() {
            ServerState::Maintenance => self.operator != Admin::Maintenance,
            ServerState::Drain => self.operator != Admin::Drain,
            ServerState::Down => self.known().0 != Health::Down,
            ServerState::Up => self.agent.percent == 0,
            ServerState::Starting => false,
        }
    }

    /// Why it is in this state, in words.
    pub(super) fn reason(&self) -> Arc<str> {
        match (self.state(), self.are_out_by_agent()) {
            (ServerState::Maintenance | ServerState::Drain, false) => self.operator_reason.clone(),
            (ServerState::Maintenance, true) => self.agent.asks_for("maintenance"),
            (ServerState::Drain, true) => self.agent.asks_for("drain"),
            (ServerState::Down, true) => self.agent.down.clone().unwrap_or_default(),
            (ServerState::Up, true) => self.agent.asks_for("a weight of 0%"),
            (ServerState::Up, false) if self.weight() == 0 => format!("its weight is 0; {}", self.known().1).into(),
            _ => self.known().1.clone(),
        }
    }

    /// Of the weight it was given, or that is configured, the agent's percentage; only none at all is 0.
    pub(super) fn weight(&self) -> u32 {
        let weight = u64::from(self.weight.of(self.configured_weight).unwrap_or(self.configured_weight))
            * u64::from(self.agent.percent);
        u32::try_from(weight.div_ceil(100)).unwrap_or(HIGHEST_WEIGHT).min(HIGHEST_WEIGHT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_is_what_the_strictest_says_and_the_reason_is_theirs() {
        use ServerState as State;
        let down = |reason: &str| Some(Arc::from(reason));
        let rows = [
            (Health::Up, None, Admin::Ready, Admin::Ready, State::Up, "checked"),
            (Health::Starting, None, Admin::Drain, Admin::Ready, State::Starting, "checked"),
            (Health::Down, None, Admin::Ready, Admin::Ready, State::Down, "checked"),
            (Health::Up, down("backup runs"), Admin::Ready, Admin::Ready, State::Down, "backup runs"),
            (Health::Starting, down("backup runs"), Admin::Ready, Admin::Ready, State::Down, "backup runs"),
            (Health::Down, down("backup runs"), Admin::Ready, Admin::Ready, State::Down, "checked"),
            (Health::Up, None, Admin::Drain, Admin::Ready, State::Drain, "its agent asks for drain"),
            (Health::Up, None, Admin::Ready, Admin::Drain, State::Drain, "asked"),
            (Health::Up, None, Admin::Maintenance, Admin::Drain, State::Maintenance, "its agent asks for maintenance"),
            (Health::Down, None, Admin::Drain, Admin::Maintenance, State::Maintenance, "asked"),
            (Health::Down, None, Admin::Ready, Admin::Drain, State::Down, "checked"),
        ];
        for (health, down, admin, operator, state, reason) in rows {
            let agent = AgentReport { admin, down, ..AgentReport::default() };
            let facts = Facts { agent, operator, operator_reason: "asked".into(), ..Facts::new(health, "checked", 1) };
            assert_eq!((facts.state(), &*facts.reason()), (state, reason), "{facts:?}");
        }
    }

    #[test]
    fn what_gets_no_new_sessions_for_its_weight_says_so() {
        let rows = [
            (Health::Up, None, 100, 0, "its weight is 0; checked"),
            (Health::Up, Some(0), 100, 1, "its weight is 0; checked"),
            (Health::Up, Some(1), 100, 0, "checked"),
            (Health::Up, None, 0, 1, "its agent asks for a weight of 0%: it is late"),
            (Health::Down, None, 0, 0, "checked"),
        ];
        for (health, weight, percent, configured, reason) in rows {
            let agent = AgentReport { percent, why: Some("it is late".into()), ..AgentReport::default() };
            let weight = weight.map_or(Weight::Default, Weight::Absolute);
            let facts = Facts { weight, agent, ..Facts::new(health, "checked", configured) };
            assert_eq!(&*facts.reason(), reason, "{facts:?}");
        }
    }

    #[test]
    fn the_agents_percentage_is_of_the_weight_it_was_given_or_has() {
        let rows = [
            (None, 100, 60, 60),
            (None, 50, 60, 30),
            (None, 1, 1, 1),
            (None, 0, 60, 0),
            (None, 1000, 60, 256),
            (Some(10), 50, 60, 5),
            (Some(0), 100, 60, 0),
            (None, u32::MAX, 256, 256),
            (None, 100, 0, 0),
        ];
        for (weight, percent, configured, expected) in rows {
            let agent = AgentReport { percent, ..AgentReport::default() };
            let weight = weight.map_or(Weight::Default, Weight::Absolute);
            let facts = Facts { weight, agent, ..Facts::new(Health::Up, "", configured) };
            assert_eq!(facts.weight(), expected, "{weight:?} {percent} {configured}");
        }
    }
}
