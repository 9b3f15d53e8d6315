//! The deadlines of a worker, by example and beside a model.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Wake;

use proptest::prelude::*;

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

/// Nothing passes besides, however long the test takes and however often it looks.
fn pass(clock: &mut Clock, millis: u64) {
    READING.set(Some((now(), 0)));
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

#[derive(Debug, Clone)]
enum Step {
    Set { task: usize, after: Option<Millis> },
    Forget { task: usize },
    Pass { millis: Millis },
}

fn step() -> impl Strategy<Value = Step> {
    let far = AHEAD * TICK_MS;
    let after = prop_oneof![1 => Just(None), 4 => (0..2 * TICK_MS).prop_map(Some), 4 => (0..3 * far).prop_map(Some)];
    let millis = prop_oneof![4 => 1..2 * TICK_MS, 1 => 1..3 * far];
    prop_oneof![
        6 => (0..TASKS, after).prop_map(|(task, after)| Step::Set { task, after }),
        1 => (0..TASKS).prop_map(|task| Step::Forget { task }),
        6 => millis.prop_map(|millis| Step::Pass { millis }),
    ]
}

const TASKS: usize = 8;

proptest! {
    /// Nobody is woken early, a tick too late, twice, or when forgotten.
    #[test]
    fn whatever_is_done_with_them(age in 0..100_000_u64, steps in prop::collection::vec(step(), 1..200)) {
        let mut clock = clock(age);
        let mut tasks: Vec<(Task, Option<Millis>)> = (0..TASKS).map(|_| (Task::new(), None)).collect();
        for step in steps {
            match step {
                Step::Set { task, after } => {
                    let at = after.map(|after| clock.millis() + after);
                    clock.set(&tasks[task].0.deadline, at.unwrap_or(NEVER));
                    tasks[task].1 = at;
                }
                Step::Forget { task } => {
                    clock.forget(&tasks[task].0.deadline);
                    prop_assert_eq!(Rc::strong_count(&tasks[task].0.deadline), 1);
                    tasks[task] = (Task::new(), None);
                }
                Step::Pass { millis } => {
                    let before: Vec<_> = tasks.iter().map(|(task, _)| task.woken()).collect();
                    pass(&mut clock, millis);
                    let now = clock.millis();
                    for ((task, at), before) in tasks.iter_mut().zip(before) {
                        let is_late = at.is_some_and(|at| at / TICK_MS < now / TICK_MS);
                        match task.woken() - before {
                            0 => prop_assert!(!is_late, "{:?} at {}", at, now),
                            1 => prop_assert!(at.take().is_some_and(|at| at <= now), "at {}", now),
                            more => prop_assert!(false, "{} times at {}", more, now),
                        }
                    }
                }
            }
        }
    }
}
