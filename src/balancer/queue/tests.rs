//! The lines of a backend: by rows here, by schedules and by threads in `schedules.rs`.

mod schedules;

use std::cell::Cell;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};

use super::*;
use crate::balancer::state::tests::{one_backend, server};
use crate::config::model::Balance;

/// Servers without a process around them.
struct World {
    slots: Vec<Slots>,
    limits: Vec<u64>,
    up: Vec<AtomicBool>,
}

impl World {
    fn new(limits: &[u32]) -> (Self, Box<Queue>) {
        Self::with_lines(limits, None, None)
    }

    fn with_lines(limits: &[u32], any: Option<u32>, own: Option<u32>) -> (Self, Box<Queue>) {
        let limited =
            |limit: &u32| model::Server { max_connections: Some(*limit), max_queue: own, ..server("server", 1) };
        let mut config = one_backend(Balance::RoundRobin, limits.iter().map(limited).collect());
        config.backends[0].max_queue = any;
        let world = Self {
            slots: limits.iter().map(|_| Slots::default()).collect(),
            limits: limits.iter().copied().map(u64::from).collect(),
            up: limits.iter().map(|_| AtomicBool::new(true)).collect(),
        };
        (world, Queue::new(&config.backends[0]).unwrap())
    }

    fn leave(&self, queue: &Queue, server: usize) {
        if self.slots[server].give_back() {
            queue.has_room(self, server);
        }
    }
}

impl Servers for World {
    fn slots(&self, server: usize) -> Option<&Slots> {
        self.slots.get(server)
    }

    fn most(&self, server: usize) -> u64 {
        self.limits[server]
    }

    fn takes_new(&self, server: usize) -> bool {
        self.up[server].load(SeqCst)
    }

    fn keeps_sessions(&self, server: usize) -> bool {
        self.takes_new(server)
    }

    /// There is one queue, which knows.
    fn has_room(&self, _server: usize) {}
}

const ANY: Place = Place::Any;

fn at(server: usize) -> Place {
    Place::At { server, is_session: true }
}

#[track_caller]
fn wait<'a>(queue: &'a Queue, world: &'a World, place: Place, served: &'a Cell<u64>) -> Waiting<'a, World> {
    match queue.join(world, place, &[], None, served) {
        Joined::Waits(waiting) => waiting,
        Joined::At(verdict) => panic!("{verdict:?} at once"),
        Joined::Full => panic!("the line is full"),
    }
}

fn verdict(waiting: &mut Waiting<'_, World>) -> Option<Verdict> {
    match Pin::new(waiting).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(verdict) => Some(verdict),
        Poll::Pending => None,
    }
}

fn fill(world: &World) {
    for (slots, most) in world.slots.iter().zip(&world.limits) {
        while slots.take_below(*most).is_some() {}
    }
}

#[test]
fn whoever_came_first_of_those_it_suits_gets_the_slot() {
    let (world, queue) = World::new(&[1, 1]);
    fill(&world);
    let served: [_; 4] = Default::default();
    let [first, second, third, fourth] = &served;
    let mut waiting = [(at(1), first), (ANY, second), (at(0), third), (ANY, fourth)]
        .map(|(place, served)| wait(&queue, &world, place, served));
    for (server, next) in [(0, 1), (0, 2), (1, 0), (0, 3)] {
        world.leave(&queue, server);
        assert_eq!(verdict(&mut waiting[next]), Some(Verdict::Turn(server)), "server {server}");
        assert!(world.slots[server].take_below(1).is_none(), "a slot that was handed over was free");
    }
    assert_eq!(queue.lengths(), Lengths { any: (0, 2), own: vec![(0, 1), (0, 1)] });
    waiting.into_iter().for_each(drop);
    assert_eq!(served.map(Cell::into_inner), [1, 1, 1, 2], "their positions in their lines");
    (0..2).for_each(|server| world.leave(&queue, server));
    assert_eq!(world.slots.iter().map(|slots| slots.0.load(Relaxed)).collect::<Vec<_>>(), [0, 0], "no mark is left");
}

#[test]
fn nobody_overtakes_who_waits() {
    let (world, queue) = World::new(&[2]);
    fill(&world);
    let served = Cell::new(0);
    let mut first = wait(&queue, &world, ANY, &served);
    // It has given back and has not got to the queue yet.
    assert!(world.slots[0].give_back());
    assert_eq!(world.slots[0].take_below(2), None);
    let mut second = wait(&queue, &world, at(0), &served);
    assert_eq!(verdict(&mut second), None);
    assert_eq!(verdict(&mut first), Some(Verdict::Turn(0)));
    queue.has_room(&world, 0);
    assert_eq!(verdict(&mut second), None);
}

#[test]
fn who_goes_leaves_the_line_and_a_slot_it_did_not_know_of_goes_on() {
    let (world, queue) = World::new(&[1]);
    fill(&world);
    let served = Cell::new(0);
    let [first, second, mut third] = [(); 3].map(|()| wait(&queue, &world, ANY, &served));
    drop(second);
    assert_eq!(queue.lengths().any, (2, 3));
    world.leave(&queue, 0);
    drop(first);
    assert_eq!(verdict(&mut third), Some(Verdict::Turn(0)));
    world.leave(&queue, 0);
    assert_eq!(world.slots[0].0.load(Relaxed), 0);
}

#[test]
fn a_line_is_no_longer_than_it_may_be() {
    let (world, queue) = World::with_lines(&[1, 1], Some(1), Some(0));
    assert!(
        matches!(queue.join(&world, at(0), &[], None, &Cell::new(0)), Joined::At(Verdict::Turn(0))),
        "nobody has to wait"
    );
    fill(&world);
    let served = Cell::new(0);
    let waiting = wait(&queue, &world, ANY, &served);
    assert!(matches!(queue.join(&world, ANY, &[], None, &Cell::new(0)), Joined::Full));
    assert!(matches!(queue.join(&world, at(0), &[], None, &Cell::new(0)), Joined::Full));
    drop(waiting);
    drop(wait(&queue, &world, ANY, &served));
}

#[test]
fn a_server_that_goes_gives_its_line_back_and_one_that_comes_takes_who_waits() {
    let (world, queue) = World::new(&[1, 1]);
    fill(&world);
    world.up[1].store(false, SeqCst);
    world.slots[1].0.store(0, SeqCst);
    queue.reconsider(&world);
    assert!(matches!(queue.join(&world, at(1), &[], None, &Cell::new(0)), Joined::At(Verdict::Again)), "it is away");
    let served = Cell::new(0);
    let [mut own, mut any, mut other] = [at(0), ANY, ANY].map(|place| wait(&queue, &world, place, &served));

    world.up[1].store(true, SeqCst);
    queue.reconsider(&world);
    assert_eq!([&mut own, &mut any, &mut other].map(verdict), [None, Some(Verdict::Turn(1)), None]);

    world.up[0].store(false, SeqCst);
    queue.reconsider(&world);
    assert_eq!([&mut own, &mut other].map(verdict), [Some(Verdict::Again), None]);
    // It keeps its rank: it was there before the other.
    let Joined::Waits(mut own) = queue.join(&world, ANY, &[], Some(own.rank()), &served) else {
        panic!("there is no room")
    };
    world.leave(&queue, 1);
    assert_eq!([&mut own, &mut other].map(verdict), [Some(Verdict::Turn(1)), None]);

    world.up[1].store(false, SeqCst);
    queue.reconsider(&world);
    assert_eq!(verdict(&mut other), Some(Verdict::Again), "there is nothing to wait for");
}

#[test]
fn a_server_that_failed_it_is_not_what_it_waits_for() {
    let (world, queue) = World::new(&[1, 1]);
    fill(&world);
    let served = Cell::new(0);
    let Joined::Waits(mut retry) = queue.join(&world, ANY, &[0], None, &served) else { panic!("it does not wait") };
    let mut other = wait(&queue, &world, ANY, &served);
    world.leave(&queue, 0);
    assert_eq!([&mut retry, &mut other].map(verdict), [None, Some(Verdict::Turn(0))]);
    world.leave(&queue, 1);
    assert_eq!(verdict(&mut retry), Some(Verdict::Turn(1)));
}
