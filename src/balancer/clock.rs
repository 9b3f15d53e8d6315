//! The time of one worker: a clock read once per round of its loop, and coarse deadlines that cost a store to move.
//!
//! A request moves its connection's deadline several times; a timer of the runtime for each would be dear. So a deadline
//! is a number, and a queue wakes its task when the number has passed. It is moved later without touching the queue: the
//! entry finds the new time when its turn comes. Deadlines are up to [`TICK`] late, never early.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::task::Waker;
use std::time::{Duration, Instant};

/// How often deadlines are looked at.
pub const TICK: Duration = Duration::from_millis(50);

/// Milliseconds since the worker's clock began.
pub type Millis = u64;

/// No deadline.
pub const NEVER: Millis = Millis::MAX;

/// How far ahead the queue looks at most. What has been moved forward or forgotten stays in it no longer than this, however
/// far off its deadline was: an hour for each tunnel that has ended would be many.
const FURTHEST: Millis = 10_000;

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
    queue: RefCell<BTreeMap<u64, Vec<Rc<Deadline>>>>,
}

/// When a task is to be woken.
#[derive(Default)]
pub struct Deadline {
    at: Cell<Millis>,
    /// The key of the queue's entry that counts.
    queued: Cell<Option<u64>>,
    has_fired: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Clock {
    /// A clock that begins now.
    pub fn new() -> Self {
        Self { origin: now(), queue: RefCell::default() }
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
        if at == NEVER || deadline.queued.get().is_some_and(|queued| queued <= key(at)) {
            return;
        }
        let key = key(at.min(self.millis().saturating_add(FURTHEST)));
        deadline.queued.set(Some(key));
        self.queue.borrow_mut().entry(key).or_default().push(deadline.clone());
    }

    /// Wakes every task whose deadline has passed. Called every [`TICK`].
    pub fn tick(&self) {
        let now = self.millis();
        loop {
            let Some(entry) = self
                .queue
                .borrow_mut()
                .first_entry()
                .filter(|entry| *entry.key() <= now / TICK_MS)
                .map(|entry| entry.remove_entry())
            else {
                return;
            };
            let (key, deadlines) = entry;
            for deadline in deadlines {
                self.look_at(&deadline, key, now);
            }
        }
    }

    /// Wakes every task that has a deadline, passed or not: the worker is told to stop.
    pub fn wake_all(&self) {
        for deadline in self.queue.borrow().values().flatten() {
            deadline.wake();
        }
    }

    fn look_at(&self, deadline: &Rc<Deadline>, key: u64, now: Millis) {
        if deadline.queued.get() != Some(key) {
            return; // it was moved forward: another entry counts
        }
        deadline.queued.set(None);
        match deadline.at.get() {
            NEVER => {}
            at if at <= now => {
                deadline.has_fired.set(true);
                deadline.wake();
            }
            at => self.set(deadline, at),
        }
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

    /// Its task has ended: what is left in the queue keeps nothing alive.
    pub fn forget(&self) {
        self.at.set(NEVER);
        self.waker.borrow_mut().take();
    }

    fn wake(&self) {
        if let Some(waker) = &*self.waker.borrow() {
            waker.wake_by_ref();
        }
    }
}

const TICK_MS: u64 = TICK.as_millis() as u64;

/// The first tick at which `at` has passed.
fn key(at: Millis) -> u64 {
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
        Clock { origin: now() - Duration::from_millis(age), queue: RefCell::default() }
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
    fn a_deadline_far_ahead_wakes_on_time_and_leaves_the_queue_soon_after_its_task() {
        let (mut clock, task, gone) = (clock(0), Task::new(), Task::new());
        clock.set(&task.deadline, 3 * FURTHEST);
        clock.set(&gone.deadline, 3_600_000);
        gone.deadline.forget();
        pass(&mut clock, FURTHEST + 60);
        assert_eq!(Rc::strong_count(&gone.deadline), 1);
        pass(&mut clock, FURTHEST + 60);
        pass(&mut clock, FURTHEST - 130);
        assert_eq!(task.woken(), 0);
        pass(&mut clock, 60);
        assert_eq!(task.woken(), 1);
    }

    #[test]
    fn one_that_was_forgotten_wakes_nobody() {
        let (mut clock, task) = (clock(0), Task::new());
        clock.set(&task.deadline, 100);
        task.deadline.forget();
        pass(&mut clock, 500);
        assert_eq!(task.woken(), 0);
        assert!(clock.queue.borrow().is_empty());
    }
}
