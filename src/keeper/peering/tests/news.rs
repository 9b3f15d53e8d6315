//! What a peer is told, and in which pieces.

use super::*;
use crate::status::{BackendStatus, ServerStatus};

#[tokio::test]
async fn long_states_come_whole_and_longer_ones_without_servers() {
    let (lb1, lb2) = pair();
    let servers = |count| {
        let server = |number| ServerStatus { name: format!("server{number}"), ..ServerStatus::default() };
        let backend =
            BackendStatus { name: "app".into(), servers: (0..count).map(server).collect(), ..BackendStatus::default() };
        NodeStatus { uptime_s: count as f64, backends: vec![backend], ..status("lb2", State::Backup) }
    };
    lb2.is(servers(2_000));
    assert_eq!(lb1.sees(|peer| peer.status.uptime_s == 2_000.0).await.status.backends[0].servers.len(), 2_000);
    lb2.is(servers(20_000));
    assert!(lb1.sees(|peer| peer.status.uptime_s == 20_000.0).await.status.backends.is_empty());
}

#[tokio::test]
async fn wishes_are_told_when_a_link_is_made_and_when_there_are_new_ones() {
    let (one, two) = (listener(), listener());
    let (address1, address2) = (one.local_addr().unwrap(), two.local_addr().unwrap());
    let mut lb1 = Node::start("lb1", one, &[("lb2", address2)]);
    // Before anybody listens.
    let drained = lb1.wants("a", Admin::Drain);
    let mut lb2 = Node::start("lb2", two, &[("lb1", address1)]);
    assert_eq!(lb2.event().await, PeerEvent::Wishes(vec![drained.clone()]));
    let ready = lb1.wants("b", Admin::Ready);
    assert_eq!(lb2.event().await, PeerEvent::Wishes(vec![ready.clone()]), "what was told is not told again");

    let goodbye = lb2.wants("a", Admin::Maintenance);
    assert_eq!(lb1.event().await, PeerEvent::Wishes(vec![goodbye]));
    drop(lb2);
    let mut lb2 = Node::start("lb2", listener_at(address2).await, &[("lb1", address1)]);
    assert_eq!(lb2.event().await, PeerEvent::Wishes(vec![drained, ready]), "whoever is new hears all");
}

#[tokio::test]
async fn sessions_reach_the_peer_and_one_that_does_not_listen_holds_nobody_up() {
    let (lb1, mut lb2) = pair();
    lb1.sees(|peer| peer.connected).await;
    lb2.sees(|peer| peer.connected).await;
    // A link is heard on a moment before it is told on.
    while lb1.sessions.receiver_count() == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    lb1.sessions.send("AAEC".into()).unwrap();
    assert_eq!(lb2.event().await, PeerEvent::Sessions("AAEC".into()));

    // Far more than a link takes at once: some are left out, and the link stands.
    for _ in 0..1000 {
        let _ = lb1.sessions.send("x".repeat(32 << 10).into());
    }
    lb1.is(NodeStatus { uptime_s: 77.0, ..status("lb1", State::Backup) });
    let heard = async {
        let mut peers = lb2.peering.peers();
        while !peers.borrow().iter().any(|peer| peer.status.uptime_s == 77.0) {
            tokio::select! {
                _ = peers.changed() => {}
                event = lb2.peering.next_event() => assert!(matches!(event, PeerEvent::Sessions(_)), "{event:?}"),
            }
        }
    };
    timeout(LIMIT, heard).await.expect("the state is heard");
}

#[tokio::test]
#[ignore = "long: longer than a peer may be silent"]
async fn a_node_that_was_paused_does_not_blame_its_peer() {
    let log = super::surroundings::Log::start();
    let (lb1, lb2) = pair();
    lb1.sees(|peer| peer.connected).await;
    lb2.sees(|peer| peer.connected).await;
    std::thread::sleep(Duration::from_millis(3700));
    lb2.is(NodeStatus { uptime_s: 7.0, ..status("lb2", State::Backup) });
    let begin = Instant::now();
    let mut peers = lb1.peering.peers();
    while begin.elapsed() < Duration::from_millis(300) {
        assert!(peers.borrow_and_update()[0].connected, "{}", log.text());
        let _ = timeout(Duration::from_millis(50), peers.changed()).await;
    }
    assert!(!log.text().contains("the peer link is down"), "{}", log.text());
}
