//! What the faults of a schedule do to the world, and what their end does.

use relevo_ha::State;
use relevo_ha::election::Event;

use super::{Entry, Violation, World};
use crate::schedule::{Fault, Kind, MILLISECOND, Whom};

impl World {
    pub(super) fn begin(&mut self, (round, fault): (usize, usize)) -> Result<(), Violation> {
        let Fault { lasts, kind, whom, .. } = self.rounds[round].faults[fault];
        let node = match whom {
            Whom::Node(node) => node,
            Whom::Active => (0..self.nodes.len()).find(|node| self.nodes[*node].awake_in(State::Active)).unwrap_or(0),
        };
        let running = self.nodes[node].process.as_ref().is_some_and(|process| !process.frozen);
        match kind {
            Kind::Kill | Kind::KillAll | Kind::Stop | Kind::PowerOff | Kind::Freeze if !running => return Ok(()),
            Kind::LinkDown if !self.nodes[node].link => return Ok(()),
            Kind::Ineligible if !self.nodes[node].eligible => return Ok(()),
            Kind::Refuse if self.nodes[node].refuses => return Ok(()),
            Kind::Stall if self.nodes[node].stalled => return Ok(()),
            Kind::Unsendable if self.nodes[node].unsendable => return Ok(()),
            _ => {}
        }
        self.trace(node, || format!("{kind:?} for {:.6} s", lasts as f64 / 1e6));
        self.nodes[node].may_yield |= kind.makes_it_yield();
        self.nodes[node].may_pause |= matches!(kind, Kind::Delete { .. } | Kind::Refuse);
        self.laws.somebody_yields |= kind.makes_it_yield();
        let incarnation = self.nodes[node].incarnation;
        self.after(lasts, Entry::End { node, fault: (round, fault) });
        match kind {
            Kind::Kill => {
                let cleaned = self.random.within(500..3_000);
                let generation = self.nodes[node].kernel.generation;
                self.after(cleaned, Entry::GuardCleans { node, generation });
                self.process_ends(node);
            }
            Kind::KillAll => self.process_ends(node),
            Kind::Stop => {
                self.handle(node, Event::Stop)?;
                self.nodes[node].kernel.held = false;
                self.process_ends(node);
            }
            Kind::PowerOff => {
                let host = &mut self.nodes[node];
                host.powered = false;
                host.process = None;
                host.kernel.held = false;
            }
            Kind::Freeze => {
                // The worst moment is between asking for a lease and the kernel's hearing of it.
                let in_lease = self.random.chance(40);
                if let Some(process) = &mut self.nodes[node].process {
                    process.frozen = !in_lease;
                    process.freezes_in_lease = in_lease;
                }
            }
            Kind::LinkDown => {
                self.nodes[node].link = false;
                self.after(MILLISECOND, Entry::ReportLink { node, incarnation });
            }
            Kind::Ineligible => {
                self.nodes[node].eligible = false;
                self.after(0, Entry::ReportEligible { node, incarnation });
            }
            Kind::Muted | Kind::Deaf | Kind::Partition => self.block(kind, node, 1),
            Kind::Noise { .. } => self.network.noise.push(kind),
            Kind::Delete { times } => {
                for time in 0..times {
                    self.after(time * lasts / times, Entry::Delete { node });
                }
            }
            Kind::Refuse => self.nodes[node].refuses = true,
            Kind::Stall => self.nodes[node].stalled = true,
            Kind::Unsendable => self.nodes[node].unsendable = true,
        }
        Ok(())
    }

    pub(super) fn end(&mut self, kind: Kind, node: usize) -> Result<(), Violation> {
        self.trace(node, || format!("{kind:?} is over"));
        let incarnation = self.nodes[node].incarnation;
        match kind {
            Kind::Kill | Kind::KillAll | Kind::Stop => {
                // A guard starts no new keeper before it has cleaned up.
                self.after(5 * MILLISECOND, Entry::Boot { node });
            }
            Kind::PowerOff => {
                self.nodes[node].powered = true;
                self.boot(node);
            }
            Kind::Freeze => return self.wake(node),
            Kind::LinkDown => {
                self.nodes[node].link = true;
                self.after(MILLISECOND, Entry::ReportLink { node, incarnation });
            }
            Kind::Ineligible => {
                self.nodes[node].eligible = true;
                self.after(0, Entry::ReportEligible { node, incarnation });
            }
            Kind::Muted | Kind::Deaf | Kind::Partition => self.block(kind, node, -1),
            Kind::Noise { .. } => {
                if let Some(place) = self.network.noise.iter().position(|noise| *noise == kind) {
                    self.network.noise.remove(place);
                }
            }
            Kind::Delete { .. } => {}
            Kind::Refuse => self.nodes[node].refuses = false,
            Kind::Unsendable => self.nodes[node].unsendable = false,
            Kind::Stall => {
                self.nodes[node].stalled = false;
                let waiting = self.nodes[node].process.as_ref().map_or(0, |process| process.writes.len());
                for _ in 0..waiting {
                    self.write(node, incarnation)?;
                }
            }
        }
        Ok(())
    }

    fn block(&mut self, kind: Kind, node: usize, by: i32) {
        for other in (0..self.nodes.len()).filter(|other| *other != node) {
            if kind != Kind::Deaf {
                self.network.blocked[node][other] = self.network.blocked[node][other].saturating_add_signed(by);
            }
            if kind != Kind::Muted {
                self.network.blocked[other][node] = self.network.blocked[other][node].saturating_add_signed(by);
            }
        }
    }

    /// The kernel closes the peer link, and of the backups the one of highest priority hears it, unless the network is cut.
    fn process_ends(&mut self, node: usize) {
        self.nodes[node].process = None;
        let nearest = (0..self.nodes.len())
            .filter(|other| *other != node && self.network.carries(node, *other) && self.network.carries(*other, node))
            .filter(|other| self.nodes[node].link && self.nodes[*other].powered && self.nodes[*other].link)
            .filter(|other| {
                let process = self.nodes[*other].process.as_ref();
                process.is_some_and(|process| process.election.state() == State::Backup)
            })
            .max_by_key(|other| (self.nodes[*other].priority(), *other));
        if let Some(to) = nearest {
            let delay = self.random.within(300..2_000);
            self.after(delay, Entry::Gone { to, incarnation: self.nodes[to].incarnation, router: node });
        }
    }

    /// What was due while it was frozen happens in an order that nobody knows.
    fn wake(&mut self, node: usize) -> Result<(), Violation> {
        let Some(process) = &mut self.nodes[node].process else { return Ok(()) };
        process.freezes_in_lease = false;
        if !std::mem::take(&mut process.frozen) {
            return Ok(());
        }
        let writes = process.writes.len();
        let incarnation = self.nodes[node].incarnation;
        self.laws.woke(node);
        let writer_first = self.random.chance(50);
        if writer_first {
            self.write_all(node, incarnation, writes)?;
        }
        if self.random.chance(50) {
            self.handle(node, Event::Timer)?;
        }
        while let Some(event) = self.nodes[node].process.as_mut().and_then(|process| process.inbox.pop_front()) {
            self.handle(node, event)?;
        }
        self.handle(node, Event::Timer)?;
        if writer_first { Ok(()) } else { self.write_all(node, incarnation, writes) }
    }

    fn write_all(&mut self, node: usize, incarnation: u64, writes: usize) -> Result<(), Violation> {
        (0..writes).try_for_each(|_| self.write(node, incarnation))
    }
}
