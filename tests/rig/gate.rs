//! A server whose answers a test lets out one by one.

use std::sync::{Arc, Condvar, Mutex};

use super::server::{Server, named};
use super::{PATIENCE, wait_until};

/// A gate that requests stand at until somebody lets them through, one by one.
#[derive(Default)]
pub(crate) struct Gate {
    /// Their paths, in the order they came.
    came: Mutex<Vec<String>>,
    open: Mutex<usize>,
    opened: Condvar,
}

impl Gate {
    /// A server that answers requests for `/held…` when it is let through, and others at once.
    pub(crate) fn server(name: &'static str) -> (Server, Arc<Self>) {
        let gate = Arc::<Self>::default();
        let server = Server::answering({
            let (gate, answer) = (gate.clone(), named(name));
            move |request| {
                let path = request.head.split(' ').nth(1).unwrap_or_default();
                if path.starts_with("/held") {
                    gate.came.lock().unwrap().push(path.to_owned());
                    let open = gate.open.lock().unwrap();
                    let (mut open, _) = gate.opened.wait_timeout_while(open, PATIENCE, |open| *open == 0).unwrap();
                    *open = open.saturating_sub(1);
                }
                answer(request)
            }
        });
        (server, gate)
    }

    pub(crate) fn let_through(&self, number: usize) {
        *self.open.lock().unwrap() += number;
        self.opened.notify_all();
    }

    pub(crate) fn came(&self) -> Vec<String> {
        self.came.lock().unwrap().clone()
    }

    #[track_caller]
    pub(crate) fn wait_for(&self, number: usize) {
        wait_until(&format!("{number} came"), || self.came().len() == number, || format!("{:?}", self.came()));
    }
}
