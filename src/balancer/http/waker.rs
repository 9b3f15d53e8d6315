//! Wakes a client's task for its server's connection, without going round the loop for nothing.
//!
//! The connection to the server is polled by the task of the client it works for. Between the two are hyper's channels,
//! and each step on one of them would wake the very task that runs. Such a wake is only remembered while the task polls
//! the connection, and the task polls it again at once if it has to.

use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Wake, Waker};

/// Beyond this many other tasks have their turn first. (A task that has used up its share of the runtime is woken at once
/// and never ready: without a bound it would be polled for ever.)
const POLLS_IN_A_ROW: u32 = 4;

/// The waker of one client's task for whatever server works for it.
pub struct UpstreamWaker {
    inner: Arc<Inner>,
    waker: Waker,
}

#[derive(Default)]
struct Inner {
    task: OnceLock<Waker>,
    is_polling: AtomicBool,
    is_woken: AtomicBool,
}

impl UpstreamWaker {
    /// One whose task is not known yet.
    pub fn new() -> Self {
        let inner = Arc::<Inner>::default();
        Self { waker: inner.clone().into(), inner }
    }

    /// The task, which stays the same for the client's life.
    pub fn set_task(&self, task: &Waker) {
        self.inner.task.get_or_init(|| task.clone());
    }

    /// Polls until it is ready or has nothing left to do; what goes on and on has to wait for the loop's next round.
    pub fn poll<T>(&self, mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>) -> Poll<T> {
        self.inner.is_polling.store(true, Relaxed);
        let mut result = Poll::Pending;
        for _ in 0..POLLS_IN_A_ROW {
            self.inner.is_woken.store(false, Relaxed);
            result = poll(&mut Context::from_waker(&self.waker));
            if result.is_ready() || !self.inner.is_woken.load(Relaxed) {
                break;
            }
        }
        self.inner.is_polling.store(false, Relaxed);
        if result.is_pending() && self.inner.is_woken.load(Relaxed) {
            self.inner.wake_task();
        }
        result
    }
}

impl Wake for Inner {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.is_polling.load(Relaxed) {
            self.is_woken.store(true, Relaxed);
        } else {
            self.wake_task();
        }
    }
}

impl Inner {
    fn wake_task(&self) {
        if let Some(task) = self.task.get() {
            task.wake_by_ref();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Relaxed);
        }
    }

    #[test]
    fn a_wake_from_within_polls_again_and_one_from_without_wakes_the_task() {
        let (task, waker) = (Arc::<Count>::default(), UpstreamWaker::new());
        waker.set_task(&task.clone().into());
        let mut left = 3;
        let mut kept = None;
        let result = waker.poll(|context| {
            kept = Some(context.waker().clone());
            left -= 1;
            if left > 0 {
                context.waker().wake_by_ref();
            }
            Poll::<()>::Pending
        });
        assert_eq!((result, left, task.0.load(Relaxed)), (Poll::Pending, 0, 0));
        kept.unwrap().wake();
        assert_eq!(task.0.load(Relaxed), 1);
    }

    #[test]
    fn what_never_ends_gives_way_and_goes_on_later() {
        let (task, waker) = (Arc::<Count>::default(), UpstreamWaker::new());
        waker.set_task(&task.clone().into());
        let result = waker.poll(|context| {
            context.waker().wake_by_ref();
            Poll::<()>::Pending
        });
        assert_eq!((result, task.0.load(Relaxed)), (Poll::Pending, 1));
    }
}
