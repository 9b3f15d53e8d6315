//! The lines of a backend by schedules of steps that a machine could take, and by threads that really do.

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64 as Counter, Ordering::SeqCst};
use std::task::Wake;
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;

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
