//! The lines of a backend: by rows, by schedules of steps that a machine could take, and by threads that really do.

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64 as Counter, Ordering::SeqCst};
use std::task::Wake;
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;
use crate::balancer::state::tests::{one_backend, server};
use crate::config::model::Balance;

/// Servers without a process around them.
struct World {
    slots: Vec<Slots>,
    limits: Vec<u64>,
    up: Vec<AtomicBool>,
}

/// Servers whose slots others take and give back between any two steps under the lock. They are those of two configurations,
/// each of which has its queue.
struct Busy {
    world: World,
    queues: [Box<Queue>; 2],
    /// What they do, by the bytes of a schedule.
    schedule: RefCell<Vec<u8>>,
    /// By server: who holds a slot.
    holders: RefCell<Vec<usize>>,
    /// Who has given one back, was told that somebody waits, and has not yet told the queue.
    owing: RefCell<Vec<usize>>,
    is_off: Cell<bool>,
    served: Cell<u64>,
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

impl Servers for Busy {
    fn slots(&self, server: usize) -> Option<&Slots> {
        self.meddle();
        self.world.slots(server)
    }

    fn most(&self, server: usize) -> u64 {
        self.world.most(server)
    }

    fn takes_new(&self, server: usize) -> bool {
        self.world.takes_new(server)
    }

    fn keeps_sessions(&self, server: usize) -> bool {
        self.world.keeps_sessions(server)
    }

    fn has_room(&self, server: usize) {
        self.queues.iter().for_each(|queue| queue.has_room(self, server));
    }
}

impl Busy {
    fn new(limits: &[u32], schedule: Vec<u8>) -> Self {
        let ((world, queue), (_, other)) = (World::new(limits), World::new(limits));
        let (holders, owing, is_off, served) = Default::default();
        Self { world, queues: [queue, other], schedule: RefCell::new(schedule), holders, owing, is_off, served }
    }

    /// What needs no lock and may happen at any moment.
    fn meddle(&self) {
        if self.is_off.get() {
            return;
        }
        let Some(byte) = self.schedule.borrow_mut().pop().map(usize::from) else { return };
        match byte % 3 {
            0 => self.come(byte / 3 % self.world.slots.len()),
            1 => self.go(byte / 3),
            _ => {}
        }
    }

    fn come(&self, server: usize) {
        if self.world.slots[server].take_below(self.world.limits[server]).is_some() {
            self.holders.borrow_mut().push(server);
        }
    }

    fn go(&self, which: usize) {
        let mut holders = self.holders.borrow_mut();
        if holders.is_empty() {
            return;
        }
        let which = which % holders.len();
        let server = holders.swap_remove(which);
        if self.world.slots[server].give_back() {
            self.owing.borrow_mut().push(server);
        }
    }
}

/// Knows whether it was woken.
#[derive(Default)]
struct Bell(AtomicBool);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.store(true, SeqCst);
    }
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

/// A step of a schedule.
#[derive(Debug, Clone)]
enum Step {
    /// In one of the queues.
    Join(Place, usize),
    Come(usize),
    Go(usize),
    /// Somebody who was woken looks.
    Look(usize),
    /// Somebody who waits goes, or was told and goes before it knew.
    Abandon(usize),
    /// Somebody who gave back gets to the queue.
    Pay(usize),
    Change(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (prop_oneof![Just(ANY), (0..3_usize).prop_map(at)], 0..2_usize).prop_map(|(place, queue)| Step::Join(place, queue)),
        2 => any::<usize>().prop_map(Step::Come),
        4 => any::<usize>().prop_map(Step::Go),
        4 => any::<usize>().prop_map(Step::Look),
        1 => any::<usize>().prop_map(Step::Abandon),
        3 => any::<usize>().prop_map(Step::Pay),
        1 => any::<usize>().prop_map(Step::Change),
    ]
}

struct Guest<'a> {
    queue: &'a Queue,
    waiting: Pin<Box<Waiting<'a, Busy>>>,
    bell: Arc<Bell>,
    place: Place,
}

impl<'a> Guest<'a> {
    fn join(queue: &'a Queue, busy: &'a Busy, place: Place, rank: Option<Rank>) -> Option<Self> {
        match queue.join(busy, place, &[], rank, &busy.served) {
            Joined::Waits(waiting) => {
                let bell = Arc::new(Bell(AtomicBool::new(true)));
                Some(Self { queue, waiting: Box::pin(waiting), bell, place })
            }
            Joined::At(Verdict::Turn(server)) => {
                busy.holders.borrow_mut().push(server);
                None
            }
            // It would choose another or give up.
            Joined::At(Verdict::Again) | Joined::Full => None,
        }
    }

    /// What it does when it was woken: `None` if it waits no longer.
    fn look(mut self, busy: &'a Busy) -> Option<Self> {
        self.bell.0.store(false, SeqCst);
        let waker = Waker::from(self.bell.clone());
        match self.waiting.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Pending => Some(self),
            Poll::Ready(Verdict::Again) => Self::join(self.queue, busy, self.place, Some(self.waiting.rank())),
            Poll::Ready(Verdict::Turn(server)) => {
                busy.holders.borrow_mut().push(server);
                None
            }
        }
    }
}

#[test]
fn a_slot_that_somebody_did_not_know_of_goes_on_to_who_waits_under_another_configuration() {
    let busy = Busy::new(&[1], Vec::new());
    busy.come(0);
    let [told, other] = [0, 1].map(|queue| Guest::join(&busy.queues[queue], &busy, at(0), None).unwrap());
    let other = other.look(&busy).unwrap();
    busy.go(0);
    busy.has_room(0);
    assert!(!other.bell.0.load(SeqCst), "the other one came first");
    drop(told);
    assert!(other.bell.0.load(SeqCst), "it was not woken");
    assert!(other.look(&busy).is_none(), "it waits for a slot that is free");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    /// Whatever the order of the steps, and whatever others do between those under the lock: no server has more than its
    /// limit, and when all have gone nobody is left who was not woken, no slot is missing, and no mark is left.
    #[test]
    fn no_wake_up_and_no_slot_is_lost(
        limits in proptest::collection::vec(1..3_u32, 3), steps in proptest::collection::vec(step(), 1..60),
        schedule in proptest::collection::vec(any::<u8>(), 0..400),
    ) {
        let busy = &Busy::new(&limits, schedule);
        let world = &busy.world;
        let mut guests: Vec<Guest<'_>> = Vec::new();
        let pick = |which: usize, length: usize| which.checked_rem(length);
        for step in steps {
            match step {
                Step::Join(place, queue) => guests.extend(Guest::join(&busy.queues[queue], busy, place, None)),
                Step::Come(server) => busy.come(server % limits.len()),
                Step::Go(which) => busy.go(which),
                Step::Look(which) => {
                    let woken: Vec<_> = (0..guests.len()).filter(|guest| guests[*guest].bell.0.load(SeqCst)).collect();
                    if let Some(which) = pick(which, woken.len()) {
                        let guest = guests.swap_remove(woken[which]);
                        guests.extend(guest.look(busy));
                    }
                }
                Step::Abandon(which) => {
                    pick(which, guests.len()).map(|which| guests.swap_remove(which));
                }
                Step::Pay(which) => {
                    let owing = pick(which, busy.owing.borrow().len());
                    let server = owing.map(|which| busy.owing.borrow_mut().swap_remove(which));
                    server.into_iter().for_each(|server| busy.has_room(server));
                }
                Step::Change(server) => {
                    world.up[server % limits.len()].fetch_not(SeqCst);
                    busy.queues.iter().for_each(|queue| queue.reconsider(busy));
                }
            }
            for (slots, most) in world.slots.iter().zip(&world.limits) {
                prop_assert!(slots.count() <= *most);
            }
        }

        busy.is_off.set(true);
        // Nothing is looked at again where nothing has changed.
        if world.up.iter().filter(|up| !up.swap(true, SeqCst)).count() > 0 {
            busy.queues.iter().for_each(|queue| queue.reconsider(busy));
        }
        // Nobody new comes; everybody does what is left to do, the guests only when they are woken.
        loop {
            busy.go(0);
            let owing = busy.owing.borrow_mut().pop();
            owing.into_iter().for_each(|server| busy.has_room(server));
            let woken = guests.iter().position(|guest| guest.bell.0.load(SeqCst));
            let guest = woken.map(|woken| guests.swap_remove(woken));
            guests.extend(guest.and_then(|guest| guest.look(busy)));
            if woken.is_none() && busy.owing.borrow().is_empty() && busy.holders.borrow().is_empty() {
                break;
            }
        }
        prop_assert!(guests.is_empty(), "{} wait and were never woken", guests.len());
        prop_assert!(busy.queues.iter().all(|queue| queue.lengths().any.0 == 0));
        prop_assert!(world.slots.iter().all(|slots| slots.0.load(SeqCst) == 0), "{:?}", world.slots);
    }
}

/// Wakes a thread.
struct Thread(std::thread::Thread);

impl Wake for Thread {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Threads that take and give back as fast as they can, over two servers of two slots each; one visit in eight ends while it
/// waits. Each ends, and never are there more at a server than there may be.
#[test]
fn threads_never_exceed_a_limit_and_all_come_to_an_end() {
    const THREADS: usize = 8;
    const VISITS: u64 = 3_000;
    let (world, queue) = World::new(&[2, 2]);
    let inside = [Counter::new(0), Counter::new(0)];
    let served = Counter::new(0);
    let visit = |number: u64| {
        let home = (number % 2) as usize;
        let place = if number.is_multiple_of(3) { at(home) } else { ANY };
        let quick = |server: usize| world.slots[server].take_below(2).map(|_| server);
        let found = quick(home).or_else(|| if place == ANY { quick(1 - home) } else { None });
        let position = Cell::new(0);
        let server = found.or_else(|| match queue.join(&world, place, &[], None, &position) {
            Joined::At(Verdict::Turn(server)) => Some(server),
            Joined::At(Verdict::Again) | Joined::Full => unreachable!("nothing changes here"),
            Joined::Waits(mut waiting) => {
                let waker = Waker::from(Arc::new(Thread(std::thread::current())));
                let end = Instant::now() + Duration::from_secs(30);
                loop {
                    match Pin::new(&mut waiting).poll(&mut Context::from_waker(&waker)) {
                        Poll::Ready(Verdict::Turn(server)) => return Some(server),
                        Poll::Ready(Verdict::Again) => unreachable!("nothing changes here"),
                        Poll::Pending if number.is_multiple_of(8) => return None,
                        Poll::Pending => std::thread::park_timeout(end.saturating_duration_since(Instant::now())),
                    }
                    assert!(Instant::now() < end, "it was never woken");
                }
            }
        });
        let Some(server) = server else { return };
        assert!(inside[server].fetch_add(1, SeqCst) < 2, "more than two at server {server}");
        if number.is_multiple_of(5) {
            std::thread::yield_now();
        }
        inside[server].fetch_sub(1, SeqCst);
        served.fetch_add(1, SeqCst);
        world.leave(&queue, server);
    };
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let visit = &visit;
            scope.spawn(move || (0..VISITS).for_each(|number| visit(number * 7 + thread as u64)));
        }
    });
    assert!(served.load(SeqCst) >= THREADS as u64 * VISITS * 7 / 8);
    assert!(world.slots.iter().all(|slots| slots.0.load(SeqCst) == 0), "{:?}", world.slots);
    assert_eq!(queue.lengths().any.0, 0);
}
