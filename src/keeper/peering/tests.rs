//! Peer links over loopback: what a keeper learns when its peer changes, leaves, dies, hangs or is somebody else.

mod news;
mod others;
mod surroundings;

use std::time::Instant;

use nix::sys::signal::Signal;
use relevo_ha::{RouterStatus, State};

use self::surroundings::{Cut, Log, OtherProcess, PEER_VARIABLE, Proxy};
use super::*;
use crate::wish::{Admin, ServerName, Wish};

const KEY: [u8; 32] = [7; 32];
const VRID: u8 = 51;
const LB2_ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);

/// Far more than anything here takes; a test that reaches it has failed.
const LIMIT: Duration = Duration::from_secs(20);

struct Node {
    address: SocketAddr,
    local: tokio::sync::watch::Sender<Arc<NodeStatus>>,
    wishes: tokio::sync::watch::Sender<Arc<Wishes>>,
    sessions: broadcast::Sender<Arc<str>>,
    peering: Peering,
}

impl Node {
    fn start(name: &str, listener: std::net::TcpListener, peers: &[(&str, SocketAddr)]) -> Node {
        Node::with(settings(name, peers), listener)
    }

    fn with(settings: Settings, listener: std::net::TcpListener) -> Node {
        let address = listener.local_addr().unwrap();
        let local = tokio::sync::watch::Sender::new(Arc::new(status(&settings.node, State::Backup)));
        let (wishes, sessions) = (tokio::sync::watch::Sender::default(), sessions());
        let told = Local { status: local.subscribe(), wishes: wishes.subscribe(), sessions: sessions.clone() };
        Node { address, local, wishes, sessions, peering: start(settings, listener, told).unwrap() }
    }

    /// Somebody wants this of a server.
    fn wants(&self, server: &str, admin: Admin) -> StampedWish {
        let server = ServerName { backend: "app".into(), server: server.into() };
        let mut made = None;
        self.wishes.send_modify(|wishes| made = Some(Arc::make_mut(wishes).add(server, Wish::Admin(admin), "here", 1)));
        made.unwrap()
    }

    /// Changes what this node tells.
    fn is(&self, status: NodeStatus) {
        self.local.send_replace(Arc::new(status));
    }

    async fn sees(&self, what: impl Fn(&PeerStatus) -> bool) -> PeerStatus {
        let mut peers = self.peering.peers();
        let seen = timeout(LIMIT, peers.wait_for(|peers| what(&peers[0]))).await;
        seen.unwrap_or_else(|_| panic!("seen instead: {:?}", self.peering.peers().borrow()[0])).unwrap()[0].clone()
    }

    async fn event(&mut self) -> PeerEvent {
        timeout(LIMIT, self.peering.next_event()).await.expect("an event")
    }

    async fn saw_nothing_happen(&mut self) -> bool {
        timeout(Duration::ZERO, self.peering.next_event()).await.is_err()
    }
}

fn settings(name: &str, peers: &[(&str, SocketAddr)]) -> Settings {
    Settings {
        node: name.into(),
        peers: peers.iter().map(|(name, address)| (name.to_string(), *address)).collect(),
        key: Key::new(KEY),
        config_hash: "same".into(),
        source: Ipv4Addr::LOCALHOST.into(),
        first_descriptor: 800,
    }
}

fn status(node: &str, state: State) -> NodeStatus {
    let router = RouterStatus {
        name: "main".into(),
        virtual_router_id: VRID,
        state,
        own_address: Some(LB2_ADDRESS),
        reason: "because".into(),
        ..RouterStatus::default()
    };
    NodeStatus {
        node: node.into(),
        config_hash: "same".into(),
        vrrp: vec![router],
        can_take_over: true,
        ..NodeStatus::default()
    }
}

fn listener() -> std::net::TcpListener {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap()
}

/// Where one was a moment ago.
async fn listener_at(address: SocketAddr) -> std::net::TcpListener {
    let bind = async {
        loop {
            match std::net::TcpListener::bind(address) {
                Ok(listener) => return listener,
                Err(_) => tokio::time::sleep(Duration::from_millis(1)).await,
            }
        }
    };
    timeout(LIMIT, bind).await.expect("the address is free again")
}

fn pair() -> (Node, Node) {
    let (one, two) = (listener(), listener());
    let (address1, address2) = (one.local_addr().unwrap(), two.local_addr().unwrap());
    (Node::start("lb1", one, &[("lb2", address2)]), Node::start("lb2", two, &[("lb1", address1)]))
}

fn is_active(peer: &PeerStatus) -> bool {
    peer.connected && peer.status.vrrp.first().is_some_and(|router| router.state == State::Active)
}

fn released(reason: &str) -> PeerEvent {
    PeerEvent::Released {
        peer: "lb2".into(),
        virtual_router_id: VRID,
        own_address: Some(LB2_ADDRESS),
        reason: reason.into(),
    }
}

#[tokio::test]
async fn both_nodes_see_each_other() {
    let (lb1, lb2) = pair();
    lb2.is(NodeStatus { config_hash: "another".into(), ..status("lb2", State::Active) });
    let peer = lb1.sees(is_active).await;
    assert_eq!((peer.name.as_str(), peer.status.node.as_str()), ("lb2", "lb2"));
    assert!(peer.status.can_take_over && !peer.config_matches && peer.link_error.is_empty());
    assert!(lb2.sees(|peer| peer.connected && !peer.status.vrrp.is_empty()).await.config_matches);
}

#[tokio::test]
async fn a_node_that_reloads_compares_its_new_configuration() {
    let (lb1, lb2) = pair();
    lb2.is(status("lb2", State::Active));
    assert!(lb1.sees(is_active).await.config_matches);
    lb1.peering.set_config_hash("another");
    assert!(!lb1.sees(is_active).await.config_matches);
    lb2.is(NodeStatus { config_hash: "another".into(), ..status("lb2", State::Active) });
    assert!(lb1.sees(|peer| peer.status.config_hash == "another").await.config_matches);
}

#[tokio::test]
async fn letting_go_is_told_at_once() {
    let (mut lb1, lb2) = pair();
    lb2.is(status("lb2", State::Active));
    lb1.sees(is_active).await;
    // Just after a regular state, so that the next one is most of a second away.
    lb2.is(NodeStatus { uptime_s: 1.0, ..status("lb2", State::Active) });
    lb1.sees(|peer| peer.status.uptime_s == 1.0).await;
    let start = Instant::now();
    lb2.is(status("lb2", State::Backup));
    assert_eq!(lb1.event().await, released("because"));
    assert!(start.elapsed() < Duration::from_millis(700), "{:?}", start.elapsed());
}

#[tokio::test]
async fn a_goodbye_is_no_death() {
    let (mut lb1, lb2) = pair();
    lb2.is(status("lb2", State::Active));
    lb1.sees(is_active).await;
    lb2.peering.goodbye("stopping", true).await;
    drop(lb2);
    assert_eq!(lb1.event().await, released("stopping"));
    let peer = lb1.sees(|peer| peer.link_error.starts_with("nothing listens at")).await;
    assert!(!peer.status.can_take_over && peer.status.cannot_take_over_because.contains("nothing listens at"));
    assert!(peer.gone && peer.goodbye == "stopping", "{peer:?}");
    assert!(lb1.saw_nothing_happen().await);
}

#[tokio::test]
async fn a_goodbye_is_one_line_and_no_warning_if_somebody_asked_for_it() {
    for (is_planned, level) in [(true, "INFO"), (false, "WARN")] {
        let log = Log::start();
        let (lb1, lb2) = pair();
        lb2.is(status("lb2", State::Active));
        lb1.sees(is_active).await;
        lb2.sees(|peer| peer.connected).await;
        lb2.peering.goodbye("told to", is_planned).await;
        let up = log.text().lines().count();
        drop(lb2);
        lb1.sees(|peer| peer.link_error.starts_with("nothing listens at")).await;
        let text = log.text();
        let lines: Vec<_> = text.lines().filter(|line| line.contains("stops") || line.contains("down")).collect();
        assert!(
            matches!(lines[..], [line] if line.contains(level) && line.contains("the peer stops: told to")),
            "{text}"
        );
        assert!(text.lines().count() <= up + 1, "{text}");
    }
}

#[tokio::test]
async fn a_killed_process_is_gone() {
    let here = listener();
    let mut lb2 = OtherProcess::start(here.local_addr().unwrap());
    let mut lb1 = Node::start("lb1", here, &[("lb2", lb2.address)]);
    lb1.sees(is_active).await;
    let start = Instant::now();
    lb2.signal(Signal::SIGKILL);
    let PeerEvent::Gone { peer, last } = lb1.event().await else { panic!("not gone") };
    let seen = lb1.sees(|peer| peer.gone).await;
    assert!(seen.goodbye.is_empty(), "{seen:?}");
    println!("gone after {:?}", start.elapsed());
    assert!(start.elapsed() < Duration::from_millis(500), "{:?}", start.elapsed());
    assert_eq!(peer, "lb2");
    assert_eq!(last.vrrp[0].own_address, Some(LB2_ADDRESS));
    lb2.wait();
}

#[tokio::test]
async fn a_frozen_process_is_not_gone_until_it_dies() {
    let here = listener();
    let mut lb2 = OtherProcess::start(here.local_addr().unwrap());
    let mut lb1 = Node::start("lb1", here, &[("lb2", lb2.address)]);
    lb1.sees(is_active).await;
    lb2.signal(Signal::SIGSTOP);
    let peer = lb1.sees(|peer| !peer.connected).await;
    assert!(peer.link_error.contains("hangs") && !peer.status.can_take_over && !peer.gone);
    lb2.signal(Signal::SIGCONT);
    lb1.sees(is_active).await;
    lb2.signal(Signal::SIGSTOP);
    lb1.sees(|peer| !peer.connected).await;
    assert!(lb1.saw_nothing_happen().await);
    lb2.signal(Signal::SIGKILL);
    assert!(matches!(lb1.event().await, PeerEvent::Gone { .. }));
    lb2.wait();
}

#[tokio::test]
async fn a_lost_connection_is_no_death() {
    for cut in [Cut::Fin, Cut::Reset] {
        let (one, two) = (listener(), listener());
        let (address1, address2) = (one.local_addr().unwrap(), two.local_addr().unwrap());
        let mut proxy = Proxy::start(address2).await;
        let mut lb1 = Node::start("lb1", one, &[("lb2", proxy.address)]);
        let lb2 = Node::start("lb2", two, &[("lb1", address1)]);
        lb2.is(status("lb2", State::Active));
        lb1.sees(is_active).await;
        proxy.cut(cut).await;
        // Told over the new link; had anything happened before, it would be the first event.
        lb2.is(NodeStatus { uptime_s: 2.0, ..status("lb2", State::Active) });
        lb1.sees(|peer| is_active(peer) && peer.status.uptime_s == 2.0).await;
        lb2.is(status("lb2", State::Backup));
        assert_eq!(lb1.event().await, released("because"));
    }
}

#[tokio::test]
async fn a_new_process_is_the_death_of_the_old() {
    let (one, two) = (listener(), listener());
    let (address1, address2) = (one.local_addr().unwrap(), two.local_addr().unwrap());
    let mut lb1 = Node::start("lb1", one, &[("lb2", address2)]);
    let lb2 = Node::start("lb2", two.try_clone().unwrap(), &[("lb1", address1)]);
    lb2.is(status("lb2", State::Active));
    lb1.sees(is_active).await;
    // Its port never refuses, as if the next process had been quicker than we are.
    drop(lb2);
    let _lb2 = Node::start("lb2", two, &[("lb1", address1)]);
    let PeerEvent::Gone { last, .. } = lb1.event().await else { panic!("not gone") };
    assert_eq!(last.vrrp[0].state, State::Active);
    lb1.sees(|peer| peer.connected && !peer.status.vrrp.is_empty() && !is_active(peer)).await;
    assert!(lb1.saw_nothing_happen().await);
}

#[tokio::test]
async fn why_a_link_is_down_is_logged_once_though_the_reasons_alternate() {
    let log = Log::start();
    let identity = Arc::new(Identity::new(&settings("lb1", &[])));
    let peers = Arc::new(tokio::sync::watch::Sender::new(vec![never_linked("lb2")]));
    let (events, _receiver) = mpsc::channel(1);
    let (name, address, logged) = ("lb2".to_owned(), ([192, 0, 2, 2], 8650).into(), Vec::new());
    let mut watch = watch::Watch {
        identity,
        name,
        address,
        index: 0,
        peers,
        events,
        excuse: Excuse::None,
        was_linked: false,
        logged,
    };
    for reason in ["silent", "unreachable", "silent", "unreachable"] {
        watch.down(reason.to_owned());
        assert_eq!(watch.peers.borrow()[0].link_error, reason);
    }
    assert_eq!(log.text().lines().count(), 2, "{}", log.text());
}

#[tokio::test]
async fn a_peer_that_starts_later_is_no_warning_and_one_that_stays_out_is() {
    let log = Log::start();
    let address1 = listener().local_addr().unwrap();
    let early = |excuse| {
        let settings = settings("lb2", &[("lb1", address1)]);
        let peers = Arc::new(tokio::sync::watch::Sender::new(vec![never_linked("lb1")]));
        let (events, receiver) = mpsc::channel(1);
        let (identity, seen) = (Arc::new(Identity::new(&settings)), peers.subscribe());
        let (name, address, logged) = ("lb1".to_owned(), address1, Vec::new());
        let watch =
            watch::Watch { identity, name, address, index: 0, peers, events, excuse, was_linked: false, logged };
        (tokio::spawn(watch.run()), seen, receiver)
    };
    let refused = |peers: &Vec<PeerStatus>| peers[0].link_error.starts_with("nothing listens");
    let soon = tokio::time::Instant::now() + LIMIT;
    let (task, mut seen, _events) = early(Excuse::Starts(soon));
    timeout(LIMIT, seen.wait_for(refused)).await.unwrap().unwrap();
    task.abort();
    assert!(
        log.text().contains("INFO") && log.text().contains("the peer link is not up yet: nothing listens"),
        "{}",
        log.text()
    );
    assert!(!log.text().contains("WARN"), "{}", log.text());

    let (task, mut seen, _events) = early(Excuse::Starts(tokio::time::Instant::now()));
    timeout(LIMIT, seen.wait_for(refused)).await.unwrap().unwrap();
    task.abort();
    assert!(
        log.text().contains("WARN") && log.text().contains("the peer link is down: nothing listens"),
        "{}",
        log.text()
    );
}

#[tokio::test]
async fn links_sit_on_high_descriptors_the_listener_highest() {
    let (one, two) = (listener(), listener());
    let (address1, address2) = (one.local_addr().unwrap(), two.local_addr().unwrap());
    // Apart from those of the other tests in this process.
    let first = 900;
    let lb1 = Node::with(Settings { first_descriptor: first, ..settings("lb1", &[("lb2", address2)]) }, one);
    let lb2 = Node::with(Settings { first_descriptor: first, ..settings("lb2", &[("lb1", address1)]) }, two);
    lb1.sees(|peer| peer.connected).await;
    lb2.sees(|peer| peer.connected).await;
    let name = |entry: std::fs::DirEntry| entry.file_name().to_string_lossy().parse::<RawFd>().ok();
    let high = std::fs::read_dir("/proc/self/fd").unwrap().flatten().filter_map(name).filter(|number| *number >= first);
    let (listeners, links): (Vec<_>, Vec<_>) = high.partition(|number| *number >= first + 64);
    // Of two connections, both ends are here.
    assert_eq!((listeners.len(), links.len()), (2, 4));
}

#[tokio::test]
#[ignore = "no test: the other process of those that need one"]
async fn other_process() {
    let Ok(lb1) = std::env::var(PEER_VARIABLE) else { return };
    let listener = listener();
    let address = listener.local_addr().unwrap();
    let lb2 = Node::start("lb2", listener, &[("lb1", lb1.parse().unwrap())]);
    lb2.is(status("lb2", State::Active));
    println!("\nlistens on {address}");
    // Should its parent die without ending it.
    tokio::time::sleep(3 * LIMIT).await;
}
