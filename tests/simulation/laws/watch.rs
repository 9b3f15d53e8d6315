//! What is known of one process from outside, and the laws for it: what it must do with an event, and as time goes by.

use relevo_ha::State;
use relevo_ha::election::{Action, Event, Received};

use super::{Before, SLACK};
use crate::node::Node;
use crate::schedule::{MILLISECOND, SECOND, lease_seconds, microseconds};
use crate::world::{Network, Violation};

/// A router that could not hold its addresses tries again after this.
const PAUSE: u64 = 5 * SECOND;
const BOOT: u64 = 310 * MILLISECOND;
/// A router answers a flood of adverts with so many in an interval.
const ANSWERS: usize = 8;

/// What is known of one process from outside.
#[derive(Default)]
pub struct Watch {
    /// By its clock.
    pub advert_sent: u64,
    pub lease_asked: u64,
    /// Of the last interval.
    adverts: Vec<u64>,
    /// The active interval that it goes by.
    pub interval: u64,
    was_late: bool,
    /// The last advert of another active router, and when it was heard.
    heard: Option<(Received, u64)>,
    /// Since when it could be active and nobody it can hear is.
    pub alone_since: Option<u64>,
    /// Since when it has been active without the address, or the contrary.
    unlike_kernel_since: Option<u64>,
    idle_since: Option<u64>,
    /// Since when it has been active although its kernel answers nothing.
    unanswered_since: Option<u64>,
    /// While no packet is lost.
    changes: Vec<u64>,
    announcements: Vec<u64>,
    /// Announcements that must be made.
    owed: Vec<Owed>,
    /// The one after the lease of the last rival has ended.
    owed_at_last: Option<Owed>,
}

/// So many announcements in that time.
#[derive(Clone, Copy)]
struct Owed {
    from: u64,
    by: u64,
    count: usize,
}

impl Watch {
    pub fn of(host: &Node) -> Self {
        Self { interval: host.interval(), ..Self::default() }
    }

    /// The order of actions, whatever caused them.
    pub fn actions(
        &mut self,
        host: &Node,
        now: u64,
        clock: u64,
        before: &Before,
        after: &Before,
        actions: &[Action],
    ) -> Result<(), Violation> {
        let becomes_active = before.state != State::Active && after.state == State::Active;
        let mut state = before.state;
        let mut removed = false;
        for (place, action) in actions.iter().enumerate() {
            match action {
                Action::SendAdvert { priority: 0 } if state != State::Active || after.state == State::Active => {
                    return Err("priority 0 from a router that does not let go".into());
                }
                Action::SendAdvert { priority: 0 } => {}
                Action::SendAdvert { priority } => {
                    if *priority != host.priority() || (state != State::Active && !becomes_active) {
                        return Err("an advert that it may not send".into());
                    }
                    self.advert_sent = clock;
                    self.adverts.retain(|at| *at + host.interval() > clock);
                    self.adverts.push(clock);
                }
                Action::Lease { seconds } => {
                    if u64::from(*seconds) != lease_seconds(host.interval()) {
                        return Err("a lease of the wrong length".into());
                    }
                    if state != State::Active && !(becomes_active && place > 0) {
                        return Err("a lease before it is active".into());
                    }
                    self.lease_asked = clock;
                }
                Action::RemoveAddresses => removed = true,
                Action::Announce if state != State::Active => {
                    return Err("an announcement of a router not active".into());
                }
                Action::Announce => self.announcements.push(now),
                Action::DrainReceived => {}
                Action::Changed(transition) => {
                    if transition.from != state || (state == State::Active && !removed) {
                        return Err("a change that leaves something behind".into());
                    }
                    state = transition.to;
                    self.changes.push(now);
                    if state == State::Active {
                        self.owe_nothing();
                        self.announcements.clear();
                    }
                }
            }
        }
        if becomes_active
            && !matches!(actions, [.., Action::SendAdvert { .. }, Action::Lease { .. }, Action::Changed(_)])
        {
            return Err("it became active without an advert and then a lease".into());
        }
        if state != after.state { Err("a change that it did not report".into()) } else { Ok(()) }
    }

    #[expect(clippy::too_many_arguments, reason = "all of what happened")]
    pub fn backup(
        &mut self,
        host: &Node,
        now: u64,
        clock: u64,
        before: &Before,
        after: &Before,
        event: &Event,
        actions: &[Action],
    ) -> Result<(), Violation> {
        self.hear(host, clock, event);
        let Some(deadline) = before.deadline else { return Err("a backup without a deadline".into()) };
        let late = !self.was_late && clock >= deadline.0 + self.interval;
        if late != actions.contains(&Action::DrainReceived) {
            return Err("a backup that was absent listens before it acts, and no other does".into());
        }
        if ends_the_role(event) {
            return Ok(());
        }
        if late {
            self.was_late = true;
            return must_listen(after, clock + self.active_down(host), event);
        }
        match event {
            Event::Advert(received) if received.source == host.address => {}
            Event::Advert(Received { priority: 0, .. }) => {
                return must_be(after, State::Backup, clock + host.skew(self.interval), event);
            }
            Event::Advert(received) => {
                let preempts = host.plan.settings.preempt || host.priority() == 255;
                let obeyed = received.priority >= host.priority() || !preempts;
                if !obeyed && host.may_yield && after.deadline != before.deadline && after.state == State::Backup {
                    // It stands back for a while.
                    self.obey(received, now);
                    return must_be(after, State::Backup, clock + self.active_down(host), event);
                }
                if obeyed {
                    self.obey(received, now);
                    return must_be(after, State::Backup, clock + self.active_down(host), event);
                }
            }
            Event::RouterGone { address, .. } if before.active_router == Some(*address) => {
                if after.state != State::Active {
                    return Err("the active router is gone, and it does not take over".into());
                }
                return Ok(());
            }
            _ => {}
        }
        // Nothing that would stop the timer.
        if clock >= deadline.0 {
            return if after.state == State::Active { Ok(()) } else { Err("its timer fired for nothing".into()) };
        }
        must_be(after, State::Backup, deadline.0, event)
    }

    fn hear(&mut self, host: &Node, clock: u64, event: &Event) {
        if let Event::Advert(received) = event
            && received.source != host.address
            && received.priority > 0
        {
            self.heard = Some((*received, clock));
        }
    }

    fn obey(&mut self, received: &Received, now: u64) {
        self.interval = microseconds(received.advertisement_interval);
        self.was_late = false;
        self.alone_since = self.alone_since.map(|_| now);
    }

    pub fn active_down(&self, host: &Node) -> u64 {
        3 * self.interval + host.skew(self.interval)
    }

    pub fn active(
        &mut self,
        host: &Node,
        now: u64,
        clock: u64,
        after: &Before,
        event: &Event,
        actions: &[Action],
    ) -> Result<(), Violation> {
        self.hear(host, clock, event);
        if after.state == State::Fault && !ends_the_role(event) && !host.stalled {
            must_be(after, State::Fault, clock + PAUSE, event)?;
        }
        match event {
            Event::Advert(received) if received.source != host.address => {
                if (received.priority, received.source) > (host.priority(), host.address) {
                    if actions_of(actions)
                        != [&Action::RemoveAddresses, &Action::SendAdvert { priority: host.priority() }]
                    {
                        return Err("overruled, it does not let go and say so with one last advert".into());
                    }
                    self.obey(received, now);
                    self.was_late = false;
                    return must_be(after, State::Backup, clock + self.active_down(host), event);
                }
                let answers = self.adverts.iter().filter(|at| **at + host.interval() > clock).count();
                if answers < ANSWERS && !actions.contains(&Action::SendAdvert { priority: host.priority() }) {
                    return Err("it does not assert itself".into());
                }
                if !self.announcements.is_empty() {
                    self.owe(now, SECOND + SLACK, 1, microseconds(received.advertisement_interval));
                }
            }
            Event::AddressesTaken if self.announcements.len() == 1 && self.announcements[0] == now => {
                self.owe(now, 500 * MILLISECOND + SLACK, 3, self.interval);
            }
            Event::AddressesTaken if self.announcements.is_empty() => return Err("nobody is told".into()),
            Event::AdvertNotSent { .. } if after.state == State::Backup => {
                let recently = |at: u64| at + 5 * self.interval.max(host.interval()) > clock;
                let Some((heard, _)) = self.heard.filter(|(_, at)| recently(*at)) else {
                    return Err("it gives way to nobody".into());
                };
                self.obey(&heard, now);
                return must_be(after, State::Backup, clock + self.active_down(host), event);
            }
            Event::Stop | Event::Ineligible { .. } | Event::AddressRefused { .. }
                if !actions.starts_with(&[Action::SendAdvert { priority: 0 }, Action::RemoveAddresses]) =>
            {
                return Err("it does not hand over".into());
            }
            _ => {}
        }
        Ok(())
    }

    fn owe(&mut self, from: u64, within: u64, count: usize, rival_interval: u64) {
        if self.owed.len() < 50 {
            self.owed.push(Owed { from, by: from + within, count });
        }
        let rival_gone = from + lease_seconds(rival_interval) * SECOND + 900 * MILLISECOND;
        self.owed_at_last = Some(Owed { from: rival_gone - SLACK, by: rival_gone + SLACK, count: 1 });
    }

    pub fn owe_nothing(&mut self) {
        self.owed.clear();
        self.owed_at_last = None;
    }

    /// Who is active holds the address; who is awake and not active does not.
    pub fn kernel_agrees(&mut self, node: usize, now: u64, host: &Node) -> Result<(), Violation> {
        let process = host.process.as_ref().filter(|process| !process.frozen && !host.stalled);
        let agrees = process.is_none_or(|process| (process.election.state() == State::Active) == host.kernel.held);
        if agrees {
            self.unlike_kernel_since = None;
            return Ok(());
        }
        let since = *self.unlike_kernel_since.get_or_insert(now);
        if now > since + SLACK {
            let (held, since) = (host.kernel.held, since as f64 / 1e6);
            return Err(format!("node {node} and its kernel disagree since {since:.6} s (the kernel: {held})"));
        }
        Ok(())
    }

    pub fn hands_over_without_answer(&mut self, node: usize, now: u64, host: &Node) -> Result<(), Violation> {
        if !host.stalled || !host.awake_in(State::Active) {
            self.unanswered_since = None;
            return Ok(());
        }
        let since = *self.unanswered_since.get_or_insert(now);
        if now > since + lease_seconds(host.interval()) * SECOND + host.interval() + SLACK {
            return Err(format!("node {node} stays active although its kernel answers nothing since {since}"));
        }
        Ok(())
    }

    pub fn does_not_flap(&mut self, node: usize, now: u64, network: &Network) -> Result<(), Violation> {
        self.changes.retain(|change| network.clean() && change + SECOND > now);
        let changes = self.changes.len();
        if changes > 8 { Err(format!("node {node} changed {changes} times in a second")) } else { Ok(()) }
    }

    /// A router that could take part does.
    pub fn takes_part(&mut self, node: usize, now: u64, host: &Node) -> Result<(), Violation> {
        let idle = host.awake_in(State::Init) || host.awake_in(State::Fault);
        if !idle || !host.eligible {
            self.idle_since = None;
            return Ok(());
        }
        if host.stalled && !host.may_pause {
            self.idle_since = None;
            return Ok(());
        }
        let since = *self.idle_since.get_or_insert(now);
        let patience = if host.may_pause { PAUSE + SECOND } else { BOOT };
        if now > since + patience { Err(format!("node {node} does not take part since {since}")) } else { Ok(()) }
    }

    pub fn announces(&mut self, node: usize, now: u64, host: &Node) -> Result<(), Violation> {
        if !host.awake_in(State::Active) || host.may_yield {
            self.owe_nothing();
            return Ok(());
        }
        let announced = |from: u64| self.announcements.iter().filter(|at| **at >= from).count();
        for Owed { from, by, count } in self.owed.iter().chain(&self.owed_at_last).copied() {
            let made = announced(from);
            if now > by && made < count {
                return Err(format!("node {node} announced itself {made}, not {count} times from {from} to {by}"));
            }
        }
        self.owed.retain(|owed| now <= owed.by);
        self.owed_at_last = self.owed_at_last.filter(|owed| now <= owed.by);
        let recent = self.announcements.iter().rev().take_while(|at| **at + SECOND > now).count();
        if recent > 8 { Err(format!("node {node} announced itself {recent} times in a second")) } else { Ok(()) }
    }
}

/// Without the report of a change.
fn actions_of(actions: &[Action]) -> Vec<&Action> {
    actions.iter().filter(|action| !matches!(action, Action::Changed(_))).collect()
}

pub fn ends_the_role(event: &Event) -> bool {
    matches!(event, Event::LinkDown { .. } | Event::Ineligible { .. } | Event::Stop)
}

/// A backup that knows nothing.
pub fn must_listen(after: &Before, deadline: u64, event: &Event) -> Result<(), Violation> {
    if after.active_router.is_some() {
        return Err("it believes what it heard before its absence".into());
    }
    must_be(after, State::Backup, deadline, event)
}

fn must_be(after: &Before, state: State, deadline: u64, event: &Event) -> Result<(), Violation> {
    if after.state != state {
        return Err(format!("{event:?} must make it {state:?}, and it is {:?}", after.state));
    }
    match after.deadline {
        Some(at) if at.0 == deadline => Ok(()),
        at => Err(format!("its timer must be {deadline}, and it is {at:?}")),
    }
}
