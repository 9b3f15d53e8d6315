//! A pair that serves, and that nothing may disturb.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use relevo::lab::namespace::Namespace;
use relevo::lab::outage::Attempt;
use relevo::status::NodeStatus;

use crate::rig::lab::{Lab, lab};
use crate::rig::{PATIENCE, wait_until};

pub(crate) const STRANGER: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 66);

/// A running pair, its client, and a host that means ill.
pub(crate) struct Served {
    pub(crate) lab: Lab,
    pub(crate) stranger: Namespace,
    pub(crate) begin: Instant,
}

/// `None` where there can be no namespaces.
pub(crate) fn served() -> Option<Served> {
    let lab = lab(|_| {})?;
    assert_eq!(lab.pair.wait_ready(PATIENCE).unwrap(), 0);
    let stranger = lab.pair.switch.host("stranger", STRANGER).unwrap().namespace;
    Some(Served { lab, stranger, begin: Instant::now() })
}

impl Served {
    pub(crate) fn node(&self, number: usize) -> NodeStatus {
        self.lab.pair.nodes[number].status().unwrap().node
    }

    pub(crate) fn messages(&self) -> String {
        self.lab.pair.nodes.iter().map(|node| format!("--- {}\n{}", node.name, node.messages())).collect()
    }

    #[track_caller]
    pub(crate) fn wait_for(&self, what: &str, is_so: impl FnMut() -> bool) {
        wait_until(what, is_so, || self.messages());
    }

    pub(crate) fn is_linked(&self) -> bool {
        let is_linked = |node: &relevo::lab::node::Node| node.status().is_ok_and(|status| status.peers[0].connected);
        self.lab.pair.nodes.iter().all(is_linked)
    }

    /// Since all was ready no client saw an error, and the address was always where it is now: at the first node alone.
    #[track_caller]
    pub(crate) fn assert_undisturbed(&self) {
        // Those that had begun before may have waited for a pair that was not ready yet.
        let attempts = || -> Vec<Attempt> {
            let attempts = self.lab.pair.prober.attempts(self.begin);
            attempts.into_iter().filter(|attempt| attempt.start >= self.begin).collect()
        };
        self.wait_for("a hundred requests", || attempts().len() >= 100);
        let attempts = attempts();
        let failed: Vec<&Attempt> = attempts.iter().filter(|attempt| attempt.outcome.is_err()).collect();
        assert!(failed.is_empty(), "{} of {}: {:?}\n{}", failed.len(), attempts.len(), failed[0], self.messages());
        let history = self.lab.pair.watch.history();
        let now = Instant::now();
        assert!(history.holds(0) && !history.holds(1), "{}", history.describe(self.begin));
        assert_eq!(history.longest_without_owner(self.begin, now), Duration::ZERO, "{}", history.describe(self.begin));
        assert_eq!(
            history.longest_with_two_owners(self.begin, now),
            Duration::ZERO,
            "{}",
            history.describe(self.begin)
        );
    }
}
