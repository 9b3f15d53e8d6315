//! The time of one worker: a clock read once per round of its loop, and coarse deadlines that cost a store to move.
//!
//! A request moves its connection's deadline several times; a timer of the runtime for each would be dear. So a deadline
//! is a number, and a wheel of ticks wakes its task when the number has passed. It is moved later without touching the wheel:
//! it finds the new time when its turn comes. Deadlines are up to [`TICK`] late, never early.

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
    /// Its turn comes then, and where it waits for it.
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
        if at == NEVER || deadline.place.get().is_some_and(|place| place.tick <= tick_after(at)) {
            return;
        }
        let mut wheel = self.wheel.borrow_mut();
        wheel.remove(deadline);
        wheel.add(deadline, tick_after(at));
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

    /// Wakes every task that has a deadline, passed or not: the worker is told to stop.
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

/// The first tick at which `at` has passed.
fn tick_after(at: Millis) -> u64 {
    at / TICK_MS + 1
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    struct Task {
        deadline: Rc<Deadline>,
        woken: Arc<Count>,
    }

    impl Task {
        fn new() -> Self {
            let task = Self { deadline: Deadline::new(), woken: Arc::default() };
            task.deadline.set_waker(&task.woken.clone().into());
            task
        }

        fn woken(&self) -> usize {
            self.woken.0.load(Ordering::Relaxed)
        }
    }

    /// A clock whose beginning lies `age` back.
    fn clock(age: u64) -> Clock {
        next_round();
        Clock { origin: now() - Duration::from_millis(age), ..Clock::new() }
    }

    fn waiting(clock: &Clock) -> usize {
        clock.wheel.borrow().slots.iter().map(Vec::len).sum()
    }

    fn pass(clock: &mut Clock, millis: u64) {
        clock.origin -= Duration::from_millis(millis);
        clock.tick();
    }

    #[test]
    fn wakes_after_the_deadline_and_not_before() {
        let (mut clock, task) = (clock(7), Task::new());
        clock.set(&task.deadline, clock.after(Duration::from_millis(200)));
        pass(&mut clock, 199);
        assert_eq!(task.woken(), 0);
        pass(&mut clock, 51);
        assert_eq!(task.woken(), 1);
        pass(&mut clock, 1000);
        assert_eq!(task.woken(), 1);
    }

    #[test]
    fn a_deadline_moved_later_wakes_only_then() {
        let (mut clock, task) = (clock(0), Task::new());
        clock.set(&task.deadline, 100);
        clock.set(&task.deadline, 1000);
        pass(&mut clock, 900);
        assert_eq!(task.woken(), 0);
        pass(&mut clock, 150);
        assert_eq!(task.woken(), 1);
    }

    #[test]
    fn a_deadline_moved_forward_wakes_sooner_and_once() {
        let (mut clock, task) = (clock(0), Task::new());
        clock.set(&task.deadline, 1000);
        clock.set(&task.deadline, 100);
        pass(&mut clock, 160);
        assert_eq!(task.woken(), 1);
        pass(&mut clock, 2000);
        assert_eq!(task.woken(), 1);
    }

    #[test]
    fn a_deadline_further_ahead_than_the_wheel_looks_wakes_on_time() {
        let (mut clock, task) = (clock(0), Task::new());
        let far = 3 * AHEAD * TICK_MS;
        clock.set(&task.deadline, far);
        for _ in 0..far / TICK_MS {
            pass(&mut clock, TICK_MS);
        }
        assert_eq!(task.woken(), 0);
        pass(&mut clock, TICK_MS);
        assert_eq!(task.woken(), 1);
    }

    #[test]
    fn ticks_that_were_missed_are_made_up_for() {
        let (mut clock, tasks) = (clock(0), [Task::new(), Task::new(), Task::new()]);
        for (task, at) in tasks.iter().zip([100, AHEAD * TICK_MS - 100, AHEAD * TICK_MS + 100]) {
            clock.set(&task.deadline, at);
        }
        pass(&mut clock, 3 * AHEAD * TICK_MS);
        assert_eq!(tasks.each_ref().map(Task::woken), [1, 1, 1]);
        clock.set(&tasks[0].deadline, clock.after(Duration::from_millis(60)));
        pass(&mut clock, 59);
        assert_eq!(tasks[0].woken(), 1);
        pass(&mut clock, TICK_MS);
        assert_eq!(tasks[0].woken(), 2);
    }

    #[test]
    fn one_that_was_forgotten_wakes_nobody_and_leaves_nothing() {
        let (mut clock, tasks) = (clock(0), [Task::new(), Task::new(), Task::new()]);
        for task in &tasks {
            clock.set(&task.deadline, 100);
        }
        clock.forget(&tasks[0].deadline);
        assert_eq!((waiting(&clock), Rc::strong_count(&tasks[0].deadline)), (2, 1));
        clock.forget(&tasks[2].deadline);
        assert_eq!(waiting(&clock), 1);
        pass(&mut clock, 500);
        assert_eq!(tasks.each_ref().map(Task::woken), [0, 1, 0]);
        assert_eq!(waiting(&clock), 0);
    }

    #[test]
    fn a_deadline_waits_in_one_place_however_often_it_is_moved() {
        let (clock, task) = (clock(0), Task::new());
        for at in [9_000, 5_000, 7_000, 1_000, NEVER, 500, 60] {
            clock.set(&task.deadline, at);
            assert_eq!(waiting(&clock), 1, "{at}");
        }
    }
}
