//! A host of the simulation: its clock, its kernel's address table, and the process that runs the election.

use std::collections::VecDeque;
use std::net::Ipv4Addr;

use relevo_ha::election::{Action, Election, Event, Time};
use relevo_ha::{State, VirtualAddress};

use super::schedule::{NodePlan, microseconds};

pub const VIRTUAL_ADDRESS: VirtualAddress = VirtualAddress { address: Ipv4Addr::new(10, 0, 0, 100), prefix_length: 24 };

pub struct Node {
    pub plan: NodePlan,
    pub address: Ipv4Addr,
    pub powered: bool,
    pub link: bool,
    pub eligible: bool,
    /// Its kernel refuses addresses.
    pub refuses: bool,
    /// Its netlink socket answers nothing.
    pub stalled: bool,
    /// Its kernel refuses to send adverts.
    pub unsendable: bool,
    /// It may pause: its kernel refused or lost an address.
    pub may_pause: bool,
    /// It may have given up its addresses, and stand back for a while.
    pub may_yield: bool,
    pub kernel: Kernel,
    pub process: Option<Process>,
    /// Of its processes; what was meant for an earlier one is dropped.
    pub incarnation: u64,
}

/// What the kernel knows of the one virtual address.
#[derive(Default)]
pub struct Kernel {
    pub held: bool,
    /// Of its leases: an expiry that belongs to an earlier one is void.
    pub generation: u64,
}

pub struct Process {
    pub election: Election,
    pub frozen: bool,
    /// It will be, as soon as it has asked for a lease.
    pub freezes_in_lease: bool,
    /// What arrives while it is frozen, in order.
    pub inbox: VecDeque<Event>,
    /// Leases and removals on their way to the kernel, in order.
    pub writes: VecDeque<Action>,
    pub timer_generation: u64,
}

impl Node {
    pub fn new(plan: NodePlan, index: usize) -> Self {
        Self {
            plan,
            address: Ipv4Addr::new(10, 0, 0, 1 + index as u8),
            powered: true,
            link: true,
            eligible: true,
            refuses: false,
            stalled: false,
            unsendable: false,
            may_pause: false,
            may_yield: false,
            kernel: Kernel::default(),
            process: None,
            incarnation: 0,
        }
    }

    /// What its own clock shows: each began at another time, and each runs at its own pace.
    pub fn clock(&self, now: u64) -> Time {
        Time((self.clock_began() + now as i64 + now as i64 * self.plan.drift / 1_000_000) as u64)
    }

    /// When its clock will show that.
    pub fn when(&self, clock: Time) -> u64 {
        let passed = i128::from(clock.0 as i64 - self.clock_began());
        (passed * 1_000_000 / i128::from(1_000_000 + self.plan.drift)) as u64 + 1
    }

    fn clock_began(&self) -> i64 {
        i64::from(self.address.octets()[3]) * 1_000_000_000
    }

    pub fn interval(&self) -> u64 {
        microseconds(self.plan.settings.advertisement_interval)
    }

    pub fn priority(&self) -> u8 {
        self.plan.settings.priority.get()
    }

    /// RFC 9568 §6.1, for an active router of this interval.
    pub fn skew(&self, interval: u64) -> u64 {
        interval * (256 - u64::from(self.priority())) / 256
    }

    /// It can hear and be heard, if the network lets it.
    pub fn awake(&self) -> Option<&Process> {
        self.process.as_ref().filter(|process| self.powered && self.link && !process.frozen)
    }

    pub fn awake_in(&self, state: State) -> bool {
        self.awake().is_some_and(|process| process.election.state() == state)
    }
}
