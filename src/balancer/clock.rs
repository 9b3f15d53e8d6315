//! The time of one worker: a clock read once per round of its loop, and coarse deadlines that cost a store to move.
//!
//! A request moves its connection's deadline several times; a timer of the runtime for each would be dear. So a deadline
//! is a number, and a wheel of ticks wakes its task when the number has passed. It is moved later without touching the
//! wheel: it finds the new time when its turn comes. Deadlines are up to [`TICK`] late, and by the
//! time of the round never early.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::Waker;
use std::time::{Duration, Instant};

/// How often deadlines are looked at.
pub const TICK: Duration = Duration::from_millis(50);

/// Milliseconds since the worker's clock began.
pub type Millis = u64;

/// No deadline.
pub const NEVER: Millis = Millis::MAX;

/// How many ticks ahead the wheel looks: what is further off has its turn at the last of them, and is put off then.
const AHEAD: u64 = 256;

/// How many times one reading of the clock is used when the loop never rests (it then tells nobody of its rounds).
const USES: u32 = 64;

thread_local! {
    static READING: Cell<Option<(Instant, u32)>> = const { Cell::new(None) };
}

/// The loop goes into its next round: the time is to be read again.
pub fn next_round() {
    READING.set(None);
}

/// The time of this round.
pub fn now() -> Instant {
    let (instant, uses) = match READING.get() {
        Some((instant, uses)) if uses < USES => (instant, uses + 1),
        _ => (Instant::now(), 0),
    };
    READING.set(Some((instant, uses)));
    instant
}

/// The deadlines of a worker.
pub struct Clock {
    origin: Instant,
    wheel: RefCell<Wheel>,
}

/// When a task is to be woken.
#[derive(Default)]
pub struct Deadline {
    at: Cell<Millis>,
    /// Where it waits, and for which tick.
    place: Cell<Option<Place>>,
    has_fired: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Clock {
    /// A clock that begins now.
    pub fn new() -> Self {
        Self { origin: now(), wheel: RefCell::new(Wheel::new()) }
    }

    /// Now, in this clock's milliseconds.
    pub fn millis(&self) -> Millis {
        now().saturating_duration_since(self.origin).as_millis() as Millis
    }

    /// This long from now.
    pub fn after(&self, timeout: Duration) -> Millis {
        self.millis().saturating_add(timeout.as_millis().max(1) as Millis)
    }

    /// Moves a deadline.
    pub fn set(&self, deadline: &Rc<Deadline>, at: Millis) {
        deadline.at.set(at);
        // The first after it: the turn of the one that it falls on may be over.
        let tick = at / TICK_MS + 1;
        if at == NEVER || deadline.place.get().is_some_and(|place| place.tick <= tick) {
            return;
        }
        let mut wheel = self.wheel.borrow_mut();
        wheel.remove(deadline);
        wheel.add(deadline, tick);
    }

    /// A deadline whose task has ended.
    pub fn forget(&self, deadline: &Deadline) {
        deadline.waker.borrow_mut().take();
        self.wheel.borrow_mut().remove(deadline);
    }

    /// Wakes every task whose deadline has passed. Called every [`TICK`].
    pub fn tick(&self) {
        let now = self.millis();
        let due = self.wheel.borrow_mut().turn_to(now / TICK_MS);
        for deadline in due {
            match deadline.at.get() {
                NEVER => {}
                at if at <= now => {
                    deadline.has_fired.set(true);
                    deadline.wake();
                }
                at => self.set(&deadline, at),
            }
        }
    }

    /// Wakes every task that waits for a deadline, passed or not: the worker is told to stop.
    pub fn wake_all(&self) {
        for deadline in self.wheel.borrow().slots.iter().flatten() {
            deadline.wake();
        }
    }
}

/// Deadlines by the tick at which their turn comes; those that end before it leave no trace.
struct Wheel {
    slots: Box<[Vec<Rc<Deadline>>]>,
    /// The first tick that has not been.
    next: u64,
}

#[derive(Clone, Copy)]
struct Place {
    tick: u64,
    /// In its slot.
    index: usize,
}

impl Wheel {
    fn new() -> Self {
        Self { slots: (0..AHEAD).map(|_| Vec::new()).collect(), next: 0 }
    }

    fn slot(&mut self, tick: u64) -> &mut Vec<Rc<Deadline>> {
        &mut self.slots[(tick % AHEAD) as usize]
    }

    fn add(&mut self, deadline: &Rc<Deadline>, tick: u64) {
        let tick = tick.clamp(self.next, self.next + AHEAD - 1);
        let slot = self.slot(tick);
        deadline.place.set(Some(Place { tick, index: slot.len() }));
        slot.push(deadline.clone());
    }

    fn remove(&mut self, deadline: &Deadline) {
        let Some(Place { tick, index }) = deadline.place.take() else { return };
        let slot = self.slot(tick);
        slot.swap_remove(index);
        if let Some(moved) = slot.get(index) {
            moved.place.set(Some(Place { tick, index }));
        }
    }

    /// Takes all whose turn has come, this tick's included.
    fn turn_to(&mut self, tick: u64) -> Vec<Rc<Deadline>> {
        let mut due = Vec::new();
        for past in (self.next..=tick).take(AHEAD as usize) {
            // Together with its memory: what many took at once does not stay in every slot.
            due.append(&mut std::mem::take(self.slot(past)));
        }
        self.next = self.next.max(tick + 1);
        due.iter().for_each(|deadline| deadline.place.set(None));
        due
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::new()
    }
}

impl Deadline {
    /// One that is not set. Its task is told of it by [`Deadline::set_waker`].
    pub fn new() -> Rc<Self> {
        Rc::new(Self { at: Cell::new(NEVER), ..Self::default() })
    }

    /// Whom to wake.
    pub fn set_waker(&self, waker: &Waker) {
        let mut own = self.waker.borrow_mut();
        match own.as_mut() {
            Some(own) => own.clone_from(waker),
            None => *own = Some(waker.clone()),
        }
    }

    /// Has its task been woken since it was asked last?
    pub fn take_fired(&self) -> bool {
        self.has_fired.take()
    }

    fn wake(&self) {
        if let Some(waker) = &*self.waker.borrow() {
            waker.wake_by_ref();
        }
    }
}

const TICK_MS: u64 = TICK.as_millis() as u64;

#[cfg(test)]
mod tests;
