//! What a seed decides beforehand: the nodes, and rounds of faults with calm between them. All times in microseconds.

use std::num::NonZeroU8;
use std::time::Duration;

use relevo_ha::election::Settings;

use super::random::Random;

pub const MILLISECOND: u64 = 1_000;
pub const SECOND: u64 = 1_000_000;

pub struct Schedule {
    pub nodes: Vec<NodePlan>,
    pub rounds: Vec<Round>,
    pub random: Random,
}

pub struct NodePlan {
    pub settings: Settings,
    /// Parts per million that its clock is fast.
    pub drift: i64,
    pub boots_at: u64,
}

pub struct Round {
    pub begins: u64,
    pub faults: Vec<Fault>,
    /// From here on exactly one router is active, and nothing changes.
    pub settled: u64,
    pub ends: u64,
}

#[derive(Clone, Copy)]
pub struct Fault {
    pub at: u64,
    pub lasts: u64,
    pub kind: Kind,
    pub whom: Whom,
}

#[derive(Debug, Clone, Copy)]
pub enum Whom {
    Node(usize),
    /// Whoever is active when it begins.
    Active,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Of the keeper; its guard cleans up.
    Kill,
    /// Of keeper and guard: the kernel lets the lease run out.
    KillAll,
    /// SIGTERM.
    Stop,
    PowerOff,
    Freeze,
    LinkDown,
    Ineligible,
    /// Nothing from this node reaches any other.
    Muted,
    /// Nothing from any other reaches this node.
    Deaf,
    Partition,
    Noise {
        loss: u64,
        duplication: u64,
        reordering: u64,
    },
    /// Somebody deletes the address, this many times.
    Delete {
        times: u64,
    },
    /// The kernel refuses the address.
    Refuse,
    /// Netlink answers nothing.
    Stall,
    /// The kernel refuses to send adverts.
    Unsendable,
}

impl Kind {
    /// After which a router may stand back for a while: its kernel does not let it be active.
    pub fn makes_it_yield(self) -> bool {
        matches!(self, Self::Delete { .. } | Self::Refuse | Self::Stall | Self::Unsendable)
    }
}

impl Schedule {
    pub fn from_seed(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let nodes = nodes(&mut random);
        let slowest = nodes.iter().map(|node| microseconds(node.settings.advertisement_interval)).max().unwrap_or(0);
        let mut begins = settling_time(slowest);
        let mut rounds = vec![Round { begins: 0, faults: Vec::new(), settled: begins, ends: begins + 5 * slowest }];
        for _ in 0..random.within(1..4) {
            begins = rounds.last().map_or(0, |round| round.ends);
            rounds.push(round(begins, slowest, nodes.len(), &mut random));
        }
        Self { nodes, rounds, random }
    }
}

fn nodes(random: &mut Random) -> Vec<NodePlan> {
    let count = if random.chance(80) { 2 } else { 3 };
    let interval = random.pick(&[10, 50, 100, 100, 100, 250, 1000]);
    let preempt = random.chance(70);
    let equal = random.chance(15);
    let mixed = random.chance(10);
    let highest = random.pick(&[255, 254, 254, 200, 100]);
    let mut plans: Vec<_> = (0..count)
        .map(|rank| NodePlan {
            settings: Settings {
                priority: NonZeroU8::new(if equal { highest } else { highest - rank }).unwrap(),
                advertisement_interval: Duration::from_millis(if mixed && rank == 0 { 2 * interval } else { interval }),
                preempt,
            },
            drift: random.within(0..401) as i64 - 200,
            boots_at: random.within(0..300 * MILLISECOND),
        })
        .collect();
    let turned = random.within(0..count.into()) as usize;
    plans.rotate_left(turned);
    plans
}

fn round(begins: u64, slowest: u64, nodes: usize, random: &mut Random) -> Round {
    let faults: Vec<_> = (0..random.pick(&[1, 1, 1, 2, 2, 3])).map(|_| fault(slowest, nodes, random)).collect();
    let over = begins + faults.iter().map(|fault| fault.at + fault.lasts).max().unwrap_or(0);
    let pause = if faults.iter().any(|fault| fault.kind.makes_it_yield()) { 6 * SECOND } else { 0 };
    let settled = over + pause + settling_time(slowest);
    Round { begins, faults, settled, ends: settled + 4 * slowest + random.within(0..slowest) }
}

fn fault(slowest: u64, nodes: usize, random: &mut Random) -> Fault {
    let whom = if random.chance(60) { Whom::Active } else { Whom::Node(random.within(0..nodes as u64) as usize) };
    let kind = match random.within(0..19) {
        0 | 1 => Kind::Kill,
        2 => Kind::KillAll,
        3 => Kind::Stop,
        4 => Kind::PowerOff,
        5..=7 => Kind::Freeze,
        8 => Kind::LinkDown,
        9 => Kind::Ineligible,
        10 => Kind::Muted,
        11 => Kind::Deaf,
        12 => Kind::Partition,
        13 | 14 => Kind::Noise {
            loss: random.pick(&[0, 10, 50]),
            duplication: random.pick(&[0, 10, 50]),
            reordering: random.pick(&[0, 10, 50]),
        },
        15 => Kind::Delete { times: random.within(1..7) },
        16 => Kind::Refuse,
        17 => Kind::Unsendable,
        _ => Kind::Stall,
    };
    let lasts = match random.within(0..4) {
        0 => random.within(1..slowest),
        1 | 2 => random.within(slowest..6 * slowest),
        _ => random.within(slowest..3 * SECOND + 4 * slowest),
    };
    Fault { at: random.within(0..5 * slowest), lasts, kind, whom }
}

/// A node boots, listens, is active, may give way to a better one; what it leased before has run out, all is announced.
fn settling_time(slowest: u64) -> u64 {
    600 * MILLISECOND + 2 * 4 * slowest + lease_seconds(slowest) * SECOND + 3 * SECOND
}

pub fn lease_seconds(interval: u64) -> u64 {
    (3 * interval).div_ceil(SECOND).max(1)
}

pub fn microseconds(duration: Duration) -> u64 {
    duration.as_micros() as u64
}
