//! Whoever is at the other end of a link that should not be: another key, another name, another version, another program.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::surroundings::Log;
use super::*;
use crate::keeper::peering::channel::Channel;
use crate::keeper::peering::message::{Hello, Message, PROTOCOL};

#[tokio::test]
async fn a_wrong_key_is_told_on_both_sides() {
    let log = Log::start();
    let (one, two) = (listener(), listener());
    let (address1, address2) = (one.local_addr().unwrap(), two.local_addr().unwrap());
    let mut lb1 = Node::start("lb1", one, &[("lb2", address2)]);
    let other_key = Settings { key: Key::new([8; 32]), ..settings("lb2", &[("lb1", address1)]) };
    let lb2 = Node::with(other_key, two);
    for node in [&lb1, &lb2] {
        node.sees(|peer| peer.link_error.contains("copy the same key file to both nodes")).await;
    }
    let wanted = "the key of peer at 127.0.0.1 differs: copy the same key file to both nodes";
    // One line of each node, however often they have tried.
    assert_eq!(log.text().matches(wanted).count(), 2, "{}", log.text());
    assert!(lb1.saw_nothing_happen().await);
}

/// However often they try, the link is never up, and either side says the reason once.
async fn refuse_each_other(nodes: [&Node; 2], reasons: [&str; 2], log: &Log) {
    for (node, reason) in nodes.iter().zip(reasons) {
        node.sees(|peer| peer.link_error.contains(reason)).await;
    }
    let mut peers = nodes.map(|node| node.peering.peers());
    // As long as it takes for a second and a third attempt.
    let end = Instant::now() + Duration::from_millis(600);
    while Instant::now() < end {
        assert!(peers.iter_mut().all(|peers| !peers.borrow_and_update()[0].connected), "{}", log.text());
        let [one, two] = &mut peers;
        let changes = async {
            tokio::select! { _ = one.changed() => {}, _ = two.changed() => {} }
        };
        let _ = timeout(Duration::from_millis(50), changes).await;
    }
    let text = log.text();
    assert!(!text.contains("the peer link is up"), "{text}");
    for reason in reasons {
        let times = text.lines().filter(|line| line.contains("peer link is down") && line.contains(reason)).count();
        assert_eq!(times, if reasons[0] == reasons[1] { 2 } else { 1 }, "{reason}\n{text}");
    }
    assert!(text.lines().count() <= 6, "{text}");
}

#[tokio::test]
async fn a_wrong_name_is_told_once_on_both_sides_and_is_never_a_link() {
    let log = Log::start();
    let (one, two) = (listener(), listener());
    let (address1, address2) = (one.local_addr().unwrap(), two.local_addr().unwrap());
    let lb1 = Node::start("lb1", one, &[("lb2", address2)]);
    let lb3 = Node::start("lb3", two, &[("lb1", address1)]);
    let reasons = ["\"lb3\", not \"lb2\"", "peering.peers of \"lb1\" has \"lb2\", and not \"lb3\""];
    refuse_each_other([&lb1, &lb3], reasons, &log).await;
    assert!(log.text().contains("its name \"lb3\" is not among our peers"), "{}", log.text());
    assert!(log.text().contains("it refuses the link: peering.peers of \"lb1\" has \"lb2\" at"), "{}", log.text());
}

#[tokio::test]
async fn two_nodes_of_one_name_are_told() {
    let log = Log::start();
    let (one, two) = (listener(), listener());
    let (address1, address2) = (one.local_addr().unwrap(), two.local_addr().unwrap());
    let first = Node::start("lb1", one, &[("lb2", address2)]);
    let second = Node::start("lb1", two, &[("lb2", address1)]);
    refuse_each_other([&first, &second], ["is \"lb1\", not \"lb2\""; 2], &log).await;
    assert!(log.text().contains("both nodes are named \"lb1\""), "{}", log.text());
}

#[tokio::test]
async fn a_node_that_dials_itself_is_told() {
    let log = Log::start();
    let one = listener();
    let address = one.local_addr().unwrap();
    let lb1 = Node::start("lb1", one, &[("lb2", address)]);
    lb1.sees(|peer| peer.link_error.contains("is this node itself, not \"lb2\": correct peering.peers")).await;
    assert!(!log.text().contains("the peer link is up"), "{}", log.text());
}

/// The one that is where our configuration says keeps its link, and is not disturbed by the other.
#[tokio::test]
async fn of_two_peers_of_one_name_the_configured_one_is_kept() {
    let log = Log::start();
    let (lb1, mut lb2) = pair();
    lb2.sees(|peer| peer.connected).await;
    let elsewhere = std::net::TcpListener::bind("127.0.0.2:0").unwrap();
    let settings = Settings { source: [127, 0, 0, 2].into(), ..settings("lb2", &[("lb1", lb1.address)]) };
    let double = Node::with(settings, elsewhere);
    let reason = "another node, at 127.0.0.1, is named \"lb2\" too";
    double.sees(|peer| peer.link_error.contains(reason)).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let text = log.text();
    assert_eq!(text.matches("the peer link is up").count(), 2, "{text}");
    assert_eq!(text.matches("there are two nodes named \"lb2\", at 127.0.0.1 and at 127.0.0.2").count(), 1, "{text}");
    lb1.is(status("lb1", State::Active));
    lb2.sees(is_active).await;
    assert!(lb2.saw_nothing_happen().await);
}

#[tokio::test]
async fn a_version_too_far_away_is_told_to_whoever_runs_it() {
    let log = Log::start();
    let (lb1, _lb2) = pair();
    lb1.sees(|peer| peer.connected).await;
    for _ in 0..2 {
        let mut far = channel(lb1.address, KEY).await;
        let hello = Hello { protocol: PROTOCOL + 2, version: "9.9".into(), ..hello("lb2") };
        far.send(&Message::Hello(hello)).await.unwrap();
        assert!(matches!(far.receive().await, Ok(Message::Hello(_))));
        let Ok(Message::Refused(refused)) = far.receive().await else { panic!("not refused") };
        let own = env!("CARGO_PKG_VERSION");
        assert_eq!(
            refused.reason,
            format!("it runs version {own}, too far from 9.9, which runs here: upgrade one step at a time")
        );
    }
    assert_eq!(log.text().matches("it runs version 9.9, too far from").count(), 1, "{}", log.text());
}

#[tokio::test]
async fn strangers_are_closed_and_disturb_nobody() {
    let log = Log::start();
    let (lb1, mut lb2) = pair();
    lb2.sees(|peer| peer.connected).await;

    let garbage: [&[u8]; 5] = [
        b"GET / HTTP/1.1\r\nHost: lb1\r\n\r\n",
        &[0xff; 70_000],
        &[0, 48, 1, 2, 3],
        &[0, 0],
        &[[0, 48].as_slice(), &[9; 48]].concat(),
    ];
    for bytes in garbage {
        let mut stranger = TcpStream::connect(lb1.address).await.unwrap();
        // It may be closed before all is written.
        let _ = stranger.write_all(bytes).await;
        let _ = stranger.shutdown().await;
        closed(&mut stranger).await;
    }

    // Those who say nothing: more of them than may wait, and yet a peer comes through.
    let mut silent = Vec::new();
    for _ in 0..3 * 8 {
        silent.push(TcpStream::connect(lb1.address).await.unwrap());
    }
    let mut late = channel(lb1.address, KEY).await;
    late.send(&Message::Hello(hello("lb2"))).await.unwrap();
    assert!(matches!(late.receive().await, Ok(Message::Hello(_))));
    for stranger in &mut silent {
        closed(stranger).await;
    }

    // Those who hold the key and misuse it.
    let mut unnamed = channel(lb1.address, KEY).await;
    unnamed.send(&Message::Hello(hello("lb9"))).await.unwrap();
    assert!(matches!(unnamed.receive().await, Ok(Message::Hello(_))));
    assert!(matches!(unnamed.receive().await, Ok(Message::Refused(_))));
    assert!(unnamed.receive().await.is_err());
    let mut long = channel(lb1.address, KEY).await;
    let _ = long.send_text(&vec![b' '; 100_000]).await;
    let _ = long.receive().await;
    assert!(long.receive().await.is_err());

    lb1.is(status("lb1", State::Active));
    lb2.sees(is_active).await;
    assert!(lb2.saw_nothing_happen().await);
    assert!(log.text().lines().count() < 15, "{}", log.text());
}

#[tokio::test]
async fn a_peer_of_another_version_is_linked() {
    let (one, two) = (listener(), listener());
    let address2 = two.local_addr().unwrap();
    two.set_nonblocking(true).unwrap();
    let two = tokio::net::TcpListener::from_std(two).unwrap();
    let mut lb1 = Node::start("lb1", one, &[("lb2", address2)]);
    let mut peer = Channel::respond(two.accept().await.unwrap().0, &Key::new(KEY)).await.unwrap();
    for text in [
        r#"{"type":"hello","node":"lb2","protocol":2,"taste":"sweet"}"#,
        r#"{"type":"a_later_message","n":1}"#,
        r#"{"type":"state","node":"lb2","balancer":{"state":"a_later_state"}}"#,
        r#"{"type":"state","node":"lb2","moon":{"full":true},"vrrp":[{"name":"main","virtual_router_id":51,"state":"active"}]}"#,
    ] {
        peer.send_text(text.as_bytes()).await.unwrap();
    }
    lb1.sees(is_active).await;
    peer.send_text(br#"{"type":"state","node":"lb2"}"#).await.unwrap();
    assert!(matches!(lb1.event().await, PeerEvent::Released { virtual_router_id: VRID, own_address: None, .. }));
}

async fn closed(stream: &mut TcpStream) {
    let mut rest = Vec::new();
    // A reset is as good an end.
    let _ = timeout(LIMIT, stream.read_to_end(&mut rest)).await.expect("the connection is closed");
}

async fn channel(address: SocketAddr, key: [u8; 32]) -> Channel {
    Channel::initiate(TcpStream::connect(address).await.unwrap(), &Key::new(key)).await.unwrap()
}

fn hello(node: &str) -> Hello {
    Hello { protocol: PROTOCOL, node: node.into(), ..Hello::default() }
}
