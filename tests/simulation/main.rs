//! The election in a world with virtual time: two or three nodes, a network that loses, repeats, delays and cuts, hosts that
//! freeze, die and come back, a kernel that leases addresses. Each seed is one schedule of faults; after each step the laws
//! (laws.rs) are looked at.
//!
//! `RELEVO_SEED=n cargo test --test simulation -- --nocapture` replays one schedule and prints all that happens in it;
//! `RELEVO_SEEDS=n` runs the first n.

#![allow(unreachable_pub, reason = "nothing is outside of a test binary")]

mod laws;
mod node;
mod random;
mod schedule;
mod tally;
mod world;

use std::sync::atomic::{AtomicU64, Ordering};

use schedule::Schedule;
use tally::Tally;
use world::World;

const SEEDS: u64 = 10_000;

#[test]
fn every_schedule_keeps_the_laws() {
    if let Some(seed) = number("RELEVO_SEED") {
        match World::new(Schedule::from_seed(seed), true).run() {
            Ok(tally) => println!("seed {seed} keeps the laws: {tally}"),
            Err(violation) => panic!("seed {seed}: {violation}"),
        }
        return;
    }
    let seeds = number("RELEVO_SEEDS").unwrap_or(SEEDS);
    let tally = run(seeds);
    println!("{seeds} schedules: {tally}");
    if seeds >= SEEDS {
        assert!(
            tally.takeovers > 2 * seeds && tally.splits > seeds / 10 && tally.fences > seeds / 10,
            "too tame: {tally}"
        );
    }
}

#[test]
fn a_seed_always_gives_the_same_run() {
    for seed in 0..20 {
        let run = || World::new(Schedule::from_seed(seed), false).run().map(|tally| tally.to_string());
        assert_eq!(run(), run());
    }
}

fn run(seeds: u64) -> Tally {
    let next = AtomicU64::new(0);
    let threads = std::thread::available_parallelism().map_or(1, |threads| threads.get());
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(|| work(&next, seeds))).collect();
        workers.into_iter().fold(Tally::default(), |sum, worker| match worker.join() {
            Ok(tally) => sum + tally,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    })
}

fn work(next: &AtomicU64, seeds: u64) -> Tally {
    let mut sum = Tally::default();
    loop {
        let seed = next.fetch_add(1, Ordering::Relaxed);
        if seed >= seeds {
            return sum;
        }
        match World::new(Schedule::from_seed(seed), false).run() {
            Ok(tally) => sum = sum + tally,
            Err(violation) => {
                next.store(seeds, Ordering::Relaxed);
                panic!(
                    "seed {seed}: {violation}\n\
                     replay it: RELEVO_SEED={seed} cargo test --test simulation -- --nocapture"
                );
            }
        }
    }
}

fn number(variable: &str) -> Option<u64> {
    let value = std::env::var(variable).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{variable}={value} is not a number")))
}
