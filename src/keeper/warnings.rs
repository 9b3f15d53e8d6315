//! What is wrong with the pair, though each node works: said once when it begins, and once when it is over.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use relevo_ha::{RouterStatus, VirtualRouter};

use super::view;
use crate::status::{PeerStatus, rivalries};

/// Adverts that have just begun to arrive settle a rivalry within two intervals, and what a peer told is not news for ever.
const PATIENCE: Duration = Duration::from_secs(1);

/// A virtual router of this node and a peer.
type Which = (String, String);

/// What was said.
#[derive(Default)]
pub(super) struct Warnings {
    /// With the same priority.
    equals: BTreeSet<Which>,
    /// With the same own address.
    twins: BTreeSet<Which>,
    /// Both active.
    rivals: BTreeMap<Which, Rival>,
    /// The peers whose configuration differs.
    others: BTreeSet<String>,
}

struct Rival {
    /// The peer's uptime when it first said so: it must say so again some time later, or else it may only be what it was.
    since: f64,
    /// What both are active for, once it was said.
    said: Option<String>,
}

impl Warnings {
    /// Compares this node with what its peers tell.
    pub(super) fn look(
        &mut self,
        node: &str,
        own: &[RouterStatus],
        configured: &[VirtualRouter],
        peers: &[PeerStatus],
    ) {
        self.equal_priorities(own, peers);
        self.equal_addresses(own, peers);
        self.both_active(node, own, configured, peers);
        self.configurations(node, peers);
    }

    /// It works, but which node is active is left to chance and addresses, and nobody returns to where they were.
    fn equal_priorities(&mut self, own: &[RouterStatus], peers: &[PeerStatus]) {
        for (own, peer, its) in view::shared(own, peers) {
            let which = (own.name.clone(), peer.to_owned());
            if own.priority != its.priority {
                self.equals.remove(&which);
            } else if self.equals.insert(which) {
                let (router, priority) = (&own.name, own.priority);
                tracing::warn!(
                    router,
                    peer,
                    "virtual router {router} has priority {priority} here and on {peer}: give the node that should be \
                     active a higher one; as it is, the node that starts first is, or the one with the higher address"
                );
            }
        }
    }

    /// The kernel lets nothing in that comes from an address of its own: such routers never hear each other.
    fn equal_addresses(&mut self, own: &[RouterStatus], peers: &[PeerStatus]) {
        for (own, peer, its) in view::shared(own, peers) {
            let which = (own.name.clone(), peer.to_owned());
            let Some(address) = own.own_address.filter(|address| its.own_address == Some(*address)) else {
                self.twins.remove(&which);
                continue;
            };
            if self.twins.insert(which) {
                let RouterStatus { name: router, interface, .. } = own;
                tracing::error!(
                    router,
                    peer,
                    "{address} is the own address of this node on {interface} and that of {peer}, so that neither hears the other: \
                     give each an address of its own"
                );
            }
        }
    }

    fn both_active(&mut self, node: &str, own: &[RouterStatus], configured: &[VirtualRouter], peers: &[PeerStatus]) {
        let mut present = BTreeSet::new();
        for rivalry in rivalries(own, peers) {
            let (router, peer, uptime) = (&rivalry.own.name, &rivalry.peer.name, rivalry.peer.status.uptime_s);
            let which = (router.clone(), peer.clone());
            present.insert(which.clone());
            let rival = self.rivals.entry(which).or_insert(Rival { since: uptime, said: None });
            // Another process.
            rival.since = rival.since.min(uptime);
            let interval = configured.iter().find(|it| it.name == *router).map(|it| it.advertisement_interval);
            let patience = PATIENCE + 2 * interval.unwrap_or_default();
            if rival.said.is_none() && uptime - rival.since >= patience.as_secs_f64() {
                let (object, remedy) = (rivalry.object(), rivalry.remedy(node));
                tracing::error!(router, peer, "both {node} and {peer} are active for {object}: {remedy}");
                rival.said = Some(object);
            }
        }
        // Of a peer that is not heard nothing is known.
        let is_heard = |name: &str| peers.iter().any(|peer| peer.connected && peer.name == name);
        self.rivals.retain(|which, rival| {
            let (router, peer) = which;
            if present.contains(which) || (rival.said.is_some() && !is_heard(peer)) {
                return true;
            }
            if let Some(object) = &rival.said {
                tracing::info!(router, peer, "{node} and {peer} are no longer both active for {object}");
            }
            false
        });
    }

    fn configurations(&mut self, node: &str, peers: &[PeerStatus]) {
        for PeerStatus { name: peer, config_matches, .. } in peers.iter().filter(|peer| peer.connected) {
            if *config_matches {
                if self.others.remove(peer) {
                    tracing::info!(peer, "{node} and {peer} run the same configuration again");
                }
            } else if self.others.insert(peer.clone()) {
                tracing::warn!(
                    peer,
                    "the configuration of {peer} differs from that of {node}: make both files agree; `relevo status` says \
                     when they do, and `relevo check` prints the digest of a file"
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::num::NonZeroU8;
    use std::sync::{Arc, Mutex};

    use relevo_ha::{State, VirtualAddress};

    use super::*;
    use crate::status::NodeStatus;

    /// A node that listens to its peer, and what it has logged.
    struct Watcher {
        warnings: Warnings,
        own: RouterStatus,
        peer: PeerStatus,
        log: Arc<Mutex<Vec<u8>>>,
        _subscriber: tracing::subscriber::DefaultGuard,
    }

    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    impl Watcher {
        fn new() -> Watcher {
            let log = Arc::new(Mutex::new(Vec::new()));
            let writer = log.clone();
            let subscriber =
                tracing_subscriber::fmt().with_ansi(false).with_writer(move || Lines(writer.clone())).finish();
            let router = |priority| RouterStatus {
                name: "main".into(),
                virtual_router_id: 51,
                state: State::Active,
                priority,
                interface: "eth0".into(),
                addresses: vec!["192.168.1.20/24".into()],
                ..RouterStatus::default()
            };
            let status = NodeStatus { vrrp: vec![router(253)], uptime_s: 100.0, ..NodeStatus::default() };
            let peer = PeerStatus {
                name: "lb2".into(),
                connected: true,
                config_matches: true,
                status,
                ..PeerStatus::default()
            };
            Watcher {
                warnings: Warnings::default(),
                own: router(254),
                peer,
                log,
                _subscriber: tracing::subscriber::set_default(subscriber),
            }
        }

        /// The peer tells its state so many seconds after the first time; what was logged, without times.
        fn hears(&mut self, seconds: f64) -> String {
            self.peer.status.uptime_s = 100.0 + seconds;
            self.looks()
        }

        fn looks(&mut self) -> String {
            let address = VirtualAddress { address: Ipv4Addr::new(192, 168, 1, 20), prefix_length: 24 };
            let configured = VirtualRouter {
                name: "main".into(),
                interface: "eth0".into(),
                virtual_router_id: NonZeroU8::MIN,
                priority: NonZeroU8::MIN,
                addresses: vec![address],
                advertisement_interval: Duration::from_millis(100),
                preempt: true,
                unicast_peers: Vec::new(),
                obey_other_addresses: false,
            };
            self.warnings.look("lb1", std::slice::from_ref(&self.own), &[configured], std::slice::from_ref(&self.peer));
            String::from_utf8(std::mem::take(&mut *self.log.lock().unwrap())).unwrap()
        }
    }

    #[test]
    fn two_nodes_that_stay_active_are_an_error_once() {
        let mut lb1 = Watcher::new();
        assert_eq!(lb1.hears(0.0), "");
        assert_eq!(lb1.hears(1.0), "", "the adverts have their chance");
        let said = lb1.hears(2.0);
        assert!(said.contains("ERROR") && said.lines().count() == 1, "{said}");
        assert!(
            said.contains("both lb1 and lb2 are active for 192.168.1.20: adverts do not arrive; let protocol 112"),
            "{said}"
        );
        assert_eq!(lb1.hears(3.0), "");

        lb1.peer.connected = false;
        assert_eq!(lb1.looks(), "", "nobody knows");
        lb1.peer.connected = true;
        assert_eq!(lb1.hears(9.0), "", "as before");
        lb1.own.state = State::Backup;
        let over = lb1.hears(10.0);
        assert!(over.contains("INFO") && over.contains("no longer both active for 192.168.1.20"), "{over}");
        assert_eq!(lb1.hears(11.0), "");
    }

    #[test]
    fn two_nodes_with_one_own_address_are_an_error_once() {
        let mut lb1 = Watcher::new();
        let address = Some(Ipv4Addr::new(192, 168, 1, 11));
        (lb1.own.state, lb1.own.own_address) = (State::Backup, address);
        assert_eq!(lb1.looks(), "");
        lb1.peer.status.vrrp[0].own_address = address;
        let said = lb1.looks();
        assert!(
            said.contains("ERROR")
                && said.contains("192.168.1.11 is the own address of this node on eth0 and that of lb2"),
            "{said}"
        );
        assert_eq!(lb1.looks(), "");
        lb1.peer.status.vrrp[0].own_address = Some(Ipv4Addr::new(192, 168, 1, 12));
        assert_eq!(lb1.looks(), "");
    }

    #[test]
    fn two_elections_for_one_address_are_named() {
        let mut lb1 = Watcher::new();
        lb1.peer.status.vrrp[0].virtual_router_id = 52;
        lb1.hears(0.0);
        let said = lb1.hears(2.0);
        assert!(said.contains("VRID 51 on lb1 and 52 on lb2 are two elections"), "{said}");
    }

    #[test]
    fn a_takeover_and_a_peer_that_hangs_are_none() {
        let mut lb1 = Watcher::new();
        lb1.hears(0.0);
        lb1.peer.status.vrrp[0].state = State::Backup;
        assert_eq!(lb1.hears(0.1), "");
        lb1.peer.status.vrrp[0].state = State::Active;
        assert_eq!(lb1.hears(5.0), "");
        // Other things change, but the peer says nothing.
        for _ in 0..3 {
            assert_eq!(lb1.looks(), "");
        }
    }

    #[test]
    fn another_configuration_is_a_warning_once() {
        let mut lb1 = Watcher::new();
        lb1.own.state = State::Backup;
        assert_eq!(lb1.looks(), "");
        lb1.peer.config_matches = false;
        let said = lb1.looks();
        assert!(
            said.contains("WARN")
                && said.contains("the configuration of lb2 differs")
                && said.contains("relevo status"),
            "{said}"
        );
        assert_eq!(lb1.looks(), "");
        lb1.peer.connected = false;
        assert_eq!(lb1.looks(), "");
        (lb1.peer.connected, lb1.peer.config_matches) = (true, true);
        let over = lb1.looks();
        assert!(over.contains("INFO") && over.contains("lb1 and lb2 run the same configuration again"), "{over}");
        assert_eq!(lb1.looks(), "");
    }
}
