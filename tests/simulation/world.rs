//! The event loop: virtual time, the network between the nodes, the faults of a schedule.

mod faults;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::Duration;

use relevo_ha::State;
use relevo_ha::election::{Action, Election, Event, Received};

use super::laws::{Before, Laws};
use super::node::{Node, Process, VIRTUAL_ADDRESS};
use super::random::Random;
use super::schedule::{Kind, MILLISECOND, Round, SECOND, Schedule};
use super::tally::Tally;

/// What was broken, when, by whom.
pub type Violation = String;

pub struct World {
    now: u64,
    sequence: u64,
    agenda: BinaryHeap<Reverse<(u64, u64, Entry)>>,
    nodes: Vec<Node>,
    network: Network,
    rounds: Vec<Round>,
    random: Random,
    laws: Laws,
    tally: Tally,
    traced: bool,
}

pub struct Network {
    /// How many faults keep packets of the first from the second.
    pub blocked: Vec<Vec<u32>>,
    noise: Vec<Kind>,
}

impl Network {
    pub fn carries(&self, from: usize, to: usize) -> bool {
        self.blocked[from][to] == 0
    }

    pub fn clean(&self) -> bool {
        self.noise.is_empty()
    }
}

/// Ordered only because the agenda must be; the time decides, then the sequence.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Entry {
    Boot { node: usize },
    Round { round: usize },
    Settled { round: usize },
    Begin { round: usize, fault: usize },
    End { node: usize, fault: (usize, usize) },
    ReportLink { node: usize, incarnation: u64 },
    ReportEligible { node: usize, incarnation: u64 },
    Timer { node: usize, incarnation: u64, generation: u64 },
    Deliver { to: usize, incarnation: u64, from: usize, priority: u8 },
    Gone { to: usize, incarnation: u64, router: usize },
    Write { node: usize, incarnation: u64 },
    Taken { node: usize, incarnation: u64 },
    Refused { node: usize, incarnation: u64 },
    Removed { node: usize, incarnation: u64 },
    LeaseEnds { node: usize, generation: u64 },
    GuardCleans { node: usize, generation: u64 },
    Delete { node: usize },
}

impl World {
    pub fn new(schedule: Schedule, traced: bool) -> Self {
        let count = schedule.nodes.len();
        let nodes: Vec<_> =
            schedule.nodes.into_iter().enumerate().map(|(index, plan)| Node::new(plan, index)).collect();
        let mut world = Self {
            now: 0,
            sequence: 0,
            agenda: BinaryHeap::new(),
            laws: Laws::new(&nodes),
            network: Network { blocked: vec![vec![0; count]; count], noise: Vec::new() },
            nodes,
            rounds: schedule.rounds,
            random: schedule.random,
            tally: Tally::default(),
            traced,
        };
        for node in 0..count {
            let boots_at = world.nodes[node].plan.boots_at;
            world.after(boots_at, Entry::Boot { node });
            world.trace(node, || format!("{:?}", world.nodes[node].plan.settings));
        }
        for round in 0..world.rounds.len() {
            let (begins, settled) = (world.rounds[round].begins, world.rounds[round].settled);
            world.after(begins, Entry::Round { round });
            world.after(settled, Entry::Settled { round });
            for fault in 0..world.rounds[round].faults.len() {
                let at = begins + world.rounds[round].faults[fault].at;
                world.after(at, Entry::Begin { round, fault });
            }
        }
        world
    }

    pub fn run(mut self) -> Result<Tally, Violation> {
        let end = self.rounds.last().map_or(0, |round| round.ends);
        while let Some(Reverse((at, _, entry))) = self.agenda.pop() {
            if at > end {
                break;
            }
            self.now = at;
            self.tally.steps += 1;
            self.step(entry)
                .and_then(|()| self.laws.look(self.now, &self.nodes, &self.network))
                .map_err(|violation| format!("at {:.6} s: {violation}", at as f64 / 1e6))?;
            let active = (0..self.nodes.len()).filter(|node| self.nodes[*node].awake_in(State::Active)).count();
            self.tally.splits += u64::from(self.laws.split_begins(active));
        }
        self.tally.seconds = end / SECOND;
        Ok(self.tally)
    }

    fn step(&mut self, entry: Entry) -> Result<(), Violation> {
        match entry {
            Entry::Boot { node } => {
                self.boot(node);
                Ok(())
            }
            Entry::Round { round } => {
                self.laws.settled = false;
                if round > 0 && self.traced {
                    println!("{:>12.6}  round {round}", self.now as f64 / 1e6);
                }
                Ok(())
            }
            Entry::Settled { .. } => {
                self.laws.settled = true;
                self.laws.one_holds(&self.nodes)
            }
            Entry::Begin { round, fault } => self.begin((round, fault)),
            Entry::End { node, fault } => self.end(self.rounds[fault.0].faults[fault.1].kind, node),
            Entry::ReportLink { node, incarnation } => {
                let event = match self.nodes[node].link {
                    true => Event::LinkUp { own_address: self.nodes[node].address },
                    false => Event::LinkDown { reason: "no carrier".into() },
                };
                self.deliver(node, incarnation, event)
            }
            Entry::ReportEligible { node, incarnation } => {
                let event = match self.nodes[node].eligible {
                    true => Event::Eligible,
                    false => Event::Ineligible { reason: "the balancer does not serve".into() },
                };
                self.deliver(node, incarnation, event)
            }
            Entry::Timer { node, incarnation, generation } => {
                let process = self.nodes[node].process.as_ref();
                let due = process.is_some_and(|process| !process.frozen && process.timer_generation == generation);
                if due { self.deliver(node, incarnation, Event::Timer) } else { Ok(()) }
            }
            Entry::Deliver { to, incarnation, from, priority } => {
                if !self.nodes[to].powered || !self.nodes[to].link {
                    return Ok(());
                }
                let sender = &self.nodes[from];
                let advertisement_interval = sender.plan.settings.advertisement_interval;
                let received = Received { source: sender.address, priority, advertisement_interval };
                self.deliver(to, incarnation, Event::Advert(received))
            }
            Entry::Gone { to, incarnation, router } => {
                let reason = "its process has ended".into();
                self.deliver(to, incarnation, Event::RouterGone { address: self.nodes[router].address, reason })
            }
            Entry::Write { node, incarnation } => self.write(node, incarnation),
            Entry::Taken { node, incarnation } => self.deliver(node, incarnation, Event::AddressesTaken),
            Entry::Refused { node, incarnation } => {
                self.deliver(node, incarnation, Event::AddressRefused { reason: "no memory".into() })
            }
            Entry::Removed { node, incarnation } => {
                let process = self.nodes[node].process.as_ref();
                let is_last = process.is_some_and(|process| !process.writes.contains(&Action::RemoveAddresses));
                if is_last { self.deliver(node, incarnation, Event::AddressesRemoved) } else { Ok(()) }
            }
            Entry::LeaseEnds { node, generation } => {
                if !self.nodes[node].kernel.held || self.nodes[node].kernel.generation != generation {
                    return Ok(());
                }
                self.trace(node, || "the kernel drops the address: its lease has ended".into());
                self.laws.lease_ended(&self.nodes[node])?;
                self.lose_address(node)
            }
            Entry::GuardCleans { node, generation } => {
                if self.nodes[node].kernel.generation == generation {
                    self.nodes[node].kernel.held = false;
                }
                Ok(())
            }
            Entry::Delete { node } => {
                if !self.nodes[node].kernel.held {
                    return Ok(());
                }
                self.trace(node, || "somebody deletes the address".into());
                self.lose_address(node)
            }
        }
    }

    fn boot(&mut self, node: usize) {
        self.trace(node, || "boots".into());
        let host = &mut self.nodes[node];
        host.incarnation += 1;
        // What an earlier process left behind goes first.
        host.kernel.held = false;
        let incarnation = host.incarnation;
        host.process = Some(Process {
            election: Election::new(host.plan.settings.clone(), host.clock(self.now)),
            frozen: false,
            freezes_in_lease: false,
            inbox: VecDeque::new(),
            writes: VecDeque::new(),
            timer_generation: 0,
        });
        self.laws.booted(node, &self.nodes[node]);
        let serving = self.random.within(5 * MILLISECOND..300 * MILLISECOND);
        self.after(MILLISECOND, Entry::ReportLink { node, incarnation });
        self.after(serving, Entry::ReportEligible { node, incarnation });
    }

    fn lose_address(&mut self, node: usize) -> Result<(), Violation> {
        self.nodes[node].kernel.held = false;
        self.deliver(node, self.nodes[node].incarnation, Event::AddressLost(VIRTUAL_ADDRESS))
    }

    fn deliver(&mut self, node: usize, incarnation: u64, event: Event) -> Result<(), Violation> {
        if self.nodes[node].incarnation != incarnation {
            return Ok(());
        }
        let Some(process) = &mut self.nodes[node].process else { return Ok(()) };
        if process.frozen {
            process.inbox.push_back(event);
            return Ok(());
        }
        self.handle(node, event)
    }

    fn handle(&mut self, node: usize, event: Event) -> Result<(), Violation> {
        let clock = self.nodes[node].clock(self.now);
        let Some(process) = &mut self.nodes[node].process else { return Ok(()) };
        let before = Before::of(&process.election);
        let mut actions = Vec::new();
        process.election.handle(event.clone(), clock, &mut actions);
        self.trace(node, || format!("{event:?} -> {actions:?}"));
        let absent = self.laws.handled(node, self.now, &self.nodes[node], &before, &event, &actions);
        let absent = absent.map_err(|violation| format!("node {node}, {event:?} -> {actions:?}: {violation}"))?;
        self.tally.fences += u64::from(absent);
        let is_unsent = self.nodes[node].unsendable && actions.iter().any(|a| matches!(a, Action::SendAdvert { .. }));
        for action in actions {
            self.carry_out(node, action);
        }
        self.set_timer(node);
        let process = self.nodes[node].process.as_ref();
        if is_unsent && process.is_some_and(|process| process.election.state() == State::Active) {
            return self.handle(node, Event::AdvertNotSent { reason: "not permitted".into() });
        }
        Ok(())
    }

    fn carry_out(&mut self, node: usize, action: Action) {
        match action {
            Action::SendAdvert { priority } => self.send(node, priority),
            Action::Lease { .. } | Action::RemoveAddresses => {
                let Some(process) = &mut self.nodes[node].process else { return };
                process.frozen |= process.freezes_in_lease && matches!(action, Action::Lease { .. });
                process.writes.push_back(action);
                let incarnation = self.nodes[node].incarnation;
                let delay = self.random.within(30..1_500);
                self.after(delay, Entry::Write { node, incarnation });
            }
            Action::DrainReceived => {
                if let Some(process) = &mut self.nodes[node].process {
                    process.inbox.retain(|event| !matches!(event, Event::Advert(_)));
                }
            }
            Action::Changed(transition) => self.tally.takeovers += u64::from(transition.to == State::Active),
            Action::Announce => {}
        }
    }

    fn set_timer(&mut self, node: usize) {
        let Some(process) = &mut self.nodes[node].process else { return };
        process.timer_generation += 1;
        let generation = process.timer_generation;
        let Some(deadline) = process.election.next_deadline() else { return };
        let lateness = self.random.within(0..150);
        let host = &self.nodes[node];
        let delay = host.when(deadline).saturating_sub(self.now) + lateness;
        self.after(delay, Entry::Timer { node, incarnation: host.incarnation, generation });
    }

    fn send(&mut self, from: usize, priority: u8) {
        if !self.nodes[from].link || self.nodes[from].unsendable {
            return;
        }
        let (mut lost, mut repeated, mut delayed, noisy) = (0, 0, 0, !self.network.clean());
        for noise in &self.network.noise {
            if let Kind::Noise { loss, duplication, reordering } = noise {
                (lost, repeated, delayed) = (lost.max(*loss), repeated.max(*duplication), delayed.max(*reordering));
            }
        }
        for to in 0..self.nodes.len() {
            // Some networks send our own multicast back.
            let reflected = to == from && noisy && self.random.chance(5);
            if (to == from && !reflected) || !self.network.carries(from, to) {
                continue;
            }
            let copies = if self.random.chance(repeated) { 2 } else { 1 };
            for _ in 0..copies {
                if self.random.chance(lost) {
                    continue;
                }
                let late = if self.random.chance(delayed) { 2 * self.nodes[from].interval() } else { 0 };
                let delay = self.random.within(30..400 + late);
                self.after(delay, Entry::Deliver { to, incarnation: self.nodes[to].incarnation, from, priority });
            }
        }
    }

    /// The next of what waits goes to the kernel.
    fn write(&mut self, node: usize, incarnation: u64) -> Result<(), Violation> {
        let clock = self.nodes[node].clock(self.now);
        let host = &mut self.nodes[node];
        let Some(process) = &mut host.process else { return Ok(()) };
        if host.incarnation != incarnation || process.frozen || host.stalled {
            return Ok(());
        }
        let in_time = process.election.replaceable_at().is_some_and(|at| clock < at);
        match process.writes.pop_front() {
            Some(Action::Lease { .. }) if !in_time => {
                host.kernel.held = false;
                self.trace(node, || "a lease comes too late".into());
            }
            Some(Action::Lease { .. }) if host.refuses => self.after(50, Entry::Refused { node, incarnation }),
            Some(Action::Lease { seconds }) => {
                self.laws.leased(node, &self.nodes[node], clock)?;
                let kernel = &mut self.nodes[node].kernel;
                kernel.held = true;
                kernel.generation += 1;
                let generation = kernel.generation;
                let lease = Duration::from_secs(seconds.into()).as_micros() as u64;
                let slack = self.random.within(0..400 * MILLISECOND);
                self.after(lease + slack, Entry::LeaseEnds { node, generation });
                self.after(50, Entry::Taken { node, incarnation });
            }
            Some(Action::RemoveAddresses) => {
                host.kernel.held = false;
                self.after(50, Entry::Removed { node, incarnation });
            }
            _ => {}
        }
        Ok(())
    }

    fn after(&mut self, delay: u64, entry: Entry) {
        self.sequence += 1;
        self.agenda.push(Reverse((self.now + delay, self.sequence, entry)));
    }

    fn trace(&self, node: usize, what: impl FnOnce() -> String) {
        if self.traced {
            println!("{:>12.6}  {node}  {}", self.now as f64 / 1e6, what());
        }
    }
}
