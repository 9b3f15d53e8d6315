//! What must always be true. Some laws judge what a router does with one event, against RFC 9568 read once more; the others
//! watch the world as it goes on, as a client or an operator would.

mod watch;

use relevo_ha::State;
use relevo_ha::election::{Action, Election, Event, Time};

use super::node::Node;
use super::schedule::{MILLISECOND, SECOND, lease_seconds};
use super::world::{Network, Violation};
use watch::{Watch, ends_the_role, must_listen};

/// For a packet to arrive and the kernel to do as it is told.
const SLACK: u64 = 10 * MILLISECOND;

pub struct Laws {
    /// No fault is active, and there was time enough for everything to come to rest.
    pub settled: bool,
    /// A router stands back for a while, and may come back at any time after.
    pub somebody_yields: bool,
    watches: Vec<Watch>,
    /// Since when both of a pair are active although one hears the other.
    both_active: Vec<Vec<Option<u64>>>,
    was_split: bool,
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
        self.watches[node] = Watch::of(host);
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

        let overdue = before.state == State::Active
            && (clock >= watch.advert_sent + 3 * host.interval()
                || clock >= watch.lease_asked + lease_seconds(host.interval()) * SECOND);
        let fenced = before.state == State::Active && actions.contains(&Action::DrainReceived);
        if fenced && clock < watch.advert_sent + 2 * host.interval() {
            return Err("a fence although it was there".into());
        }
        if overdue || fenced {
            fence(actions)?;
            watch.interval = watch.interval.max(host.interval());
            if !ends_the_role(event) {
                must_listen(&after, clock + watch.active_down(host), event)?;
            }
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
            watch.hands_over_without_answer(node, now, &nodes[node])?;
            watch.takes_part(node, now, &nodes[node])?;
            watch.announces(node, now, &nodes[node])?;
            watch.does_not_flap(node, now, network)?;
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
                && !nodes[other].unsendable
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

    /// Two active routers that hear each other, or one the other that cannot, are one within two intervals.
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
            && !(nodes[node].unsendable && nodes[other].unsendable)
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
