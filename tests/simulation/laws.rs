//! What must always be true. Some laws judge what a router does with one event, against RFC 9568 read once more; the others
//! watch the world as it goes on, as a client or an operator would.

use relevo_ha::State;
use relevo_ha::election::{Action, Election, Event, Received, Time};

use super::node::Node;
use super::schedule::{MILLISECOND, SECOND, lease_seconds, microseconds};
use super::world::{Network, Violation};

/// For a packet to arrive and the kernel to do as it is told.
const SLACK: u64 = 10 * MILLISECOND;
/// A router that could not hold its addresses tries again after this.
const PAUSE: u64 = 5 * SECOND;
const BOOT: u64 = 310 * MILLISECOND;

pub struct Laws {
    /// No fault is active, and there was time enough for everything to come to rest.
    pub settled: bool,
    /// A router stands back for a while, and may come back at any time after.
    pub somebody_yields: bool,
    watches: Vec<Watch>,
    /// Since when both of a pair are active although they hear each other.
    both_active: Vec<Vec<Option<u64>>>,
    was_split: bool,
}

/// What is known of one process from outside.
#[derive(Default)]
struct Watch {
    /// By its clock.
    advert_sent: u64,
    lease_asked: u64,
    /// The active interval that it goes by.
    interval: u64,
    was_late: bool,
    /// Since when it could be active and nobody it can hear is.
    alone_since: Option<u64>,
    /// Since when it has been active without the address, or the contrary.
    unlike_kernel_since: Option<u64>,
    idle_since: Option<u64>,
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

/// What an election was before it was given an event.
pub struct Before {
    state: State,
    deadline: Option<Time>,
    active_router: Option<std::net::Ipv4Addr>,
}

impl Before {
    pub fn of(election: &Election) -> Self {
        Self { state: election.state(), deadline: election.next_deadline(), active_router: election.active_router() }
    }
}

impl Laws {
    pub fn new(nodes: &[Node]) -> Self {
        let watches = nodes.iter().map(|_| Watch::default()).collect();
        let both_active = vec![vec![None; nodes.len()]; nodes.len()];
        Self { settled: false, somebody_yields: false, watches, both_active, was_split: false }
    }

    pub fn booted(&mut self, node: usize, host: &Node) {
        self.watches[node] = Watch { interval: host.interval(), ..Watch::default() };
    }

    pub fn woke(&mut self, node: usize) {
        self.watches[node].owe_nothing();
    }

    pub fn split_begins(&mut self, active: usize) -> bool {
        let split = active > 1;
        std::mem::replace(&mut self.was_split, split) != split && split
    }

    /// Judges what was done about one event. True if the router was fenced.
    pub fn handled(
        &mut self,
        node: usize,
        now: u64,
        host: &Node,
        before: &Before,
        event: &Event,
        actions: &[Action],
    ) -> Result<bool, Violation> {
        let Some(process) = &host.process else { return Ok(false) };
        let election = &process.election;
        let clock = host.clock(now).0;
        let after = Before::of(election);
        let watch = &mut self.watches[node];

        let fenced = before.state == State::Active
            && (clock >= watch.advert_sent + 3 * host.interval()
                || clock >= watch.lease_asked + lease_seconds(host.interval()) * SECOND);
        if fenced {
            fence(actions)?;
            watch.interval = watch.interval.max(host.interval());
        }
        watch.actions(host, now, clock, before, &after, actions)?;
        if self.settled && before.state != after.state && !self.somebody_yields {
            return Err("a change although nothing has happened".into());
        }
        if matches!(after.state, State::Active | State::Backup) && after.deadline.is_none_or(|at| at.0 <= clock) {
            return Err(format!("its next deadline is {:?} at {clock}", after.deadline));
        }
        if !fenced {
            let watch = &mut self.watches[node];
            match before.state {
                State::Backup => watch.backup(host, now, clock, before, &after, event, actions)?,
                State::Active => watch.active(host, now, clock, &after, event, actions)?,
                State::Init | State::Fault => {
                    if after.state == State::Backup {
                        watch.interval = host.interval();
                    }
                }
            }
        }
        conditions(before, &after, event)?;
        Ok(fenced)
    }

    /// The kernel is about to take the address.
    pub fn leased(&mut self, node: usize, host: &Node, clock: Time) -> Result<(), Violation> {
        let replaceable = self.watches[node].advert_sent + 3 * host.interval() + host.skew(host.interval());
        if clock.0 > replaceable {
            return Err(format!("node {node} leases the address when it may long have been replaced"));
        }
        Ok(())
    }

    pub fn lease_ended(&self, host: &Node) -> Result<(), Violation> {
        if host.awake_in(State::Active) && !host.may_yield {
            return Err(format!("the lease of {} ran out although it is active and awake", host.address));
        }
        Ok(())
    }

    /// What clients and operators see as time goes by.
    pub fn look(&mut self, now: u64, nodes: &[Node], network: &Network) -> Result<(), Violation> {
        for node in 0..nodes.len() {
            self.somebody_takes_over(node, now, nodes, network)?;
            let watch = &mut self.watches[node];
            watch.kernel_agrees(node, now, &nodes[node])?;
            watch.takes_part(node, now, &nodes[node])?;
            watch.announces(node, now, &nodes[node])?;
            for other in 0..node {
                self.one_gives_way(node, other, now, nodes, network)?;
            }
        }
        Ok(())
    }

    /// When all has settled.
    pub fn one_holds(&self, nodes: &[Node]) -> Result<(), Violation> {
        let state = |node: &Node| node.process.as_ref().map(|process| process.election.state());
        let active: Vec<_> = nodes.iter().filter(|node| state(node) == Some(State::Active)).collect();
        let holders = nodes.iter().filter(|node| node.kernel.held).count();
        let [active] = active[..] else {
            let states: Vec<_> = nodes.iter().map(state).collect();
            return Err(format!("not one is active when all has settled: {states:?}"));
        };
        if holders != 1 || !active.kernel.held {
            return Err(format!("{holders} hold the address when all has settled"));
        }
        let Some(highest) = nodes.iter().max_by_key(|node| node.priority()) else { return Ok(()) };
        let preempts = highest.plan.settings.preempt || highest.priority() == 255;
        if preempts && active.priority() != highest.priority() && !self.somebody_yields {
            return Err(format!("{} is active, but priority {} preempts", active.address, highest.priority()));
        }
        Ok(())
    }

    /// A backup that hears no active router becomes active in its active-down interval.
    fn somebody_takes_over(
        &mut self,
        node: usize,
        now: u64,
        nodes: &[Node],
        network: &Network,
    ) -> Result<(), Violation> {
        let heard = |other: usize| {
            other != node
                && nodes[other].powered
                && nodes[other].link
                && nodes[other].awake_in(State::Active)
                && network.carries(other, node)
        };
        let watch = &mut self.watches[node];
        if !nodes[node].awake_in(State::Backup) || (0..nodes.len()).any(heard) {
            watch.alone_since = None;
            return Ok(());
        }
        let since = *watch.alone_since.get_or_insert(now);
        let interval = watch.interval.max(nodes.iter().map(Node::interval).max().unwrap_or(0));
        if now > since + 3 * interval + nodes[node].skew(interval) + SLACK {
            return Err(format!("node {node} is a backup, alone since {since}, and does not take over"));
        }
        Ok(())
    }

    /// Two active routers that hear each other are one within two intervals.
    fn one_gives_way(
        &mut self,
        node: usize,
        other: usize,
        now: u64,
        nodes: &[Node],
        network: &Network,
    ) -> Result<(), Violation> {
        let both = nodes[node].awake_in(State::Active)
            && nodes[other].awake_in(State::Active)
            && network.clean()
            && network.carries(node, other)
            && network.carries(other, node);
        let since = &mut self.both_active[node][other];
        if !both {
            *since = None;
            return Ok(());
        }
        let began = *since.get_or_insert(now);
        if now > began + 2 * nodes[node].interval().max(nodes[other].interval()) + SLACK {
            return Err(format!("nodes {node} and {other} are both active since {began}"));
        }
        Ok(())
    }
}

/// Nothing leaves a router that may have been replaced before it is a backup, and nothing that it knew counts after.
fn fence(actions: &[Action]) -> Result<(), Violation> {
    let [Action::RemoveAddresses, Action::DrainReceived, Action::Changed(transition), rest @ ..] = actions else {
        return Err("it woke up late and did not let go first".into());
    };
    if transition.to != State::Backup || rest.iter().any(|action| !matches!(action, Action::Changed(_))) {
        return Err("it woke up late and acted on what it knew".into());
    }
    Ok(())
}

fn conditions(before: &Before, after: &Before, event: &Event) -> Result<(), Violation> {
    let right = match event {
        Event::Stop => after.state == State::Init && after.deadline.is_none(),
        Event::LinkDown { .. } | Event::Ineligible { .. } => {
            after.state == State::Fault || before.state == State::Init && after.state == State::Init
        }
        Event::AddressRefused { .. } => after.state != State::Active,
        _ => true,
    };
    if right { Ok(()) } else { Err(format!("and is {:?}", after.state)) }
}

impl Watch {
    /// The order of actions, whatever caused them.
    fn actions(
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
    fn backup(
        &mut self,
        host: &Node,
        now: u64,
        clock: u64,
        before: &Before,
        after: &Before,
        event: &Event,
        actions: &[Action],
    ) -> Result<(), Violation> {
        let Some(deadline) = before.deadline else { return Err("a backup without a deadline".into()) };
        let late = !self.was_late && clock >= deadline.0 + self.interval;
        if late != actions.contains(&Action::DrainReceived) {
            return Err("a backup that was absent listens before it acts, and no other does".into());
        }
        if matches!(event, Event::LinkDown { .. } | Event::Ineligible { .. } | Event::Stop) {
            return Ok(());
        }
        if late {
            self.was_late = true;
            let expected = clock + 3 * self.interval + host.skew(self.interval);
            return must_be(after, State::Backup, expected, event);
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

    fn obey(&mut self, received: &Received, now: u64) {
        self.interval = microseconds(received.advertisement_interval);
        self.was_late = false;
        self.alone_since = self.alone_since.map(|_| now);
    }

    fn active_down(&self, host: &Node) -> u64 {
        3 * self.interval + host.skew(self.interval)
    }

    fn active(
        &mut self,
        host: &Node,
        now: u64,
        clock: u64,
        after: &Before,
        event: &Event,
        actions: &[Action],
    ) -> Result<(), Violation> {
        match event {
            Event::Advert(received) if received.source != host.address => {
                if (received.priority, received.source) > (host.priority(), host.address) {
                    self.obey(received, now);
                    self.was_late = false;
                    return must_be(after, State::Backup, clock + self.active_down(host), event);
                }
                if !actions.contains(&Action::SendAdvert { priority: host.priority() }) {
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

    fn owe_nothing(&mut self) {
        self.owed.clear();
        self.owed_at_last = None;
    }

    /// Who is active holds the address; who is awake and not active does not.
    fn kernel_agrees(&mut self, node: usize, now: u64, host: &Node) -> Result<(), Violation> {
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

    /// A router that could take part does.
    fn takes_part(&mut self, node: usize, now: u64, host: &Node) -> Result<(), Violation> {
        let idle = host.awake_in(State::Init) || host.awake_in(State::Fault);
        if !idle || !host.eligible {
            self.idle_since = None;
            return Ok(());
        }
        let since = *self.idle_since.get_or_insert(now);
        let patience = if host.may_yield { PAUSE + SECOND } else { BOOT };
        if now > since + patience { Err(format!("node {node} does not take part since {since}")) } else { Ok(()) }
    }

    fn announces(&mut self, node: usize, now: u64, host: &Node) -> Result<(), Violation> {
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

fn must_be(after: &Before, state: State, deadline: u64, event: &Event) -> Result<(), Violation> {
    if after.state != state {
        return Err(format!("{event:?} must make it {state:?}, and it is {:?}", after.state));
    }
    match after.deadline {
        Some(at) if at.0 == deadline => Ok(()),
        at => Err(format!("its timer must be {deadline}, and it is {at:?}")),
    }
}
