//! Reads first, then writes: the order in which a round of the loop does its work.
//!
//! A task that has read a message lets the others read theirs before it writes. So what a round has to say to clients and
//! to servers goes out in a row: a receiver that gets several messages is woken once and takes them together, and on the
//! same machine it does not push this worker from its processor with every single one.

use std::future::poll_fn;
use std::task::Poll;

/// Lets every task that is ready now go first. The loop does not look for new events for that.
pub(super) async fn let_others_read() {
    let mut have_read = false;
    poll_fn(|context| {
        if have_read {
            return Poll::Ready(());
        }
        have_read = true;
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;

    use super::*;
    use crate::balancer::worker;

    #[test]
    fn all_read_before_one_writes() {
        let runtime = worker::runtime().unwrap();
        let done = Rc::<RefCell<Vec<&str>>>::default();
        runtime.block_on(async {
            let tasks: Vec<_> = (0..3)
                .map(|_| {
                    let done = done.clone();
                    tokio::task::spawn_local(async move {
                        done.borrow_mut().push("read");
                        let_others_read().await;
                        done.borrow_mut().push("write");
                    })
                })
                .collect();
            for task in tasks {
                task.await.unwrap();
            }
        });
        assert_eq!(*done.borrow(), ["read", "read", "read", "write", "write", "write"]);
    }
}
