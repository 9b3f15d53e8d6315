//! What the node that takes over knows of the one before it: what people want of servers, and where sessions are.

mod rig;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use relevo::lab::fault::Fault;
use relevo::lab::node::{is_active, send};
use relevo::lab::pair::{Pair, target};
use relevo::lab::trial::{READY_TIMEOUT, Trial};
use relevo::status::{PairStatus, ServerState};

use rig::http::Connection;
use rig::lab::{Lab, lab};
use rig::node::{relevo, server};
use rig::wait_until;

/// Runs `relevo server` on a node; it must succeed.
#[track_caller]
fn order(pair: &Pair, node: usize, arguments: &[&str]) {
    let output = server(&pair.nodes[node].control_socket(), arguments);
    assert!(output.status.success(), "{}\n{}", String::from_utf8_lossy(&output.stderr), pair.messages());
}

/// Waits until a node says so.
#[track_caller]
fn wait_for(pair: &Pair, node: usize, what: &str, is_so: impl Fn(&PairStatus) -> bool) {
    let explain =
        || format!("{:#?}\n{}", pair.nodes[node].status().map(|status| status.node.backends), pair.messages());
    wait_until(what, || pair.nodes[node].status().is_ok_and(|status| is_so(&status)), explain);
}

/// State and weight of a web server, as a node has them.
fn of(status: &PairStatus, server: &str) -> Option<(ServerState, u32)> {
    let servers = status.node.backends.iter().flat_map(|backend| &backend.servers);
    servers.into_iter().find(|it| it.name == server).map(|it| (it.state, it.weight))
}

fn is_linked(status: &PairStatus) -> bool {
    status.peers.iter().all(|peer| peer.connected)
}

/// The servers that answer the client from now on, until so many have.
fn answering(pair: &Pair, count: usize) -> Vec<String> {
    let begin = Instant::now();
    let answers = || -> Vec<String> {
        let attempts = pair.prober.attempts(begin).into_iter().filter(|attempt| attempt.start >= begin);
        attempts.filter_map(|attempt| Some(attempt.outcome.ok()?.server)).collect()
    };
    wait_until("the client is answered", || answers().len() >= count, || pair.messages());
    answers()
}

/// Drained on the active, weighed on the backup: both know both; the one that takes over from a kill -9 has them from its first
/// request on, and so has the killed one when it is back, with what was asked for meanwhile. The last word counts.
#[test]
fn what_people_want_of_servers_survives_a_takeover() {
    let Some(mut lab) = lab(|options| options.preempt = false) else { return };
    let pair = &mut lab.pair;
    let active = pair.wait_ready(READY_TIMEOUT).unwrap();
    let other = 1 - active;
    order(pair, active, &["drain", "app/web1"]);
    assert!(answering(pair, 100).iter().all(|server| server != "web1"), "{}", pair.messages());
    order(pair, other, &["weight", "app/web2", "7"]);
    for node in [active, other] {
        wait_for(pair, node, "both nodes know", |status| {
            of(status, "web1") == Some((ServerState::Drain, 1)) && of(status, "web2") == Some((ServerState::Up, 7))
        });
    }

    let struck = Fault::AllKilled.strike(pair, active).unwrap();
    let begin = Instant::now();
    wait_for(pair, other, "the other takes over", |status| is_active(&status.node));
    let servers = answering(pair, 100);
    let since: Vec<_> = pair.prober.attempts(begin).into_iter().filter_map(|it| it.outcome.ok()).collect();
    assert!(since.iter().all(|answer| answer.server != "web1"), "{since:?}\n{}", pair.messages());
    let share = servers.iter().filter(|server| *server == "web2").count() * 100 / servers.len();
    assert!((80..=95).contains(&share), "web2 has {share} % instead of 7 of 8");

    // While nobody else is there to hear it.
    order(pair, other, &["maintenance", "app/web3"]);
    Fault::AllKilled.undo(pair, active, struck).unwrap();
    wait_for(pair, active, "the killed one is back and knows", |status| {
        is_linked(status)
            && of(status, "web1") == Some((ServerState::Drain, 1))
            && of(status, "web2") == Some((ServerState::Up, 7))
            && of(status, "web3") == Some((ServerState::Maintenance, 1))
    });

    order(pair, active, &["ready", "app/web1", "app/web3"]);
    order(pair, active, &["weight", "app/web2", "default"]);
    assert_eq!(pair.wait_ready(READY_TIMEOUT).unwrap(), other);
    for node in [active, other] {
        wait_for(pair, node, "both nodes know", |status| {
            ["web1", "web2", "web3"].iter().all(|server| of(status, server) == Some((ServerState::Up, 1)))
        });
    }
}

/// Has a node follow another configuration, of which this is a number.
#[track_caller]
fn reload(lab: &Lab, node: usize, number: usize) {
    let file = lab.directory.path().join(format!("{}.toml", lab.pair.nodes[node].name));
    let text = std::fs::read_to_string(&file).unwrap();
    let lines = text.lines().filter(|line| !line.starts_with("retries = "));
    let text: String = lines.map(|line| format!("{line}\n")).collect();
    let retries = format!("[backends.app]\nretries = {number}\n");
    std::fs::write(&file, text.replacen("[backends.app]\n", &retries, 1)).unwrap();
    let output = relevo(&["reload", "-c", &file.display().to_string()]);
    assert!(output.status.success(), "{}\n{}", String::from_utf8_lossy(&output.stderr), lab.pair.messages());
}

/// A node that is reloaded again and again takes over at once, not when a timer runs out.
#[test]
fn a_reload_keeps_no_node_from_taking_over() {
    let Some(lab) = lab(|options| options.preempt = false) else { return };
    let other = 1 - lab.pair.wait_ready(READY_TIMEOUT).unwrap();
    let is_over = AtomicBool::new(false);
    let (report, reloads) = std::thread::scope(|scope| {
        let reloading = scope.spawn(|| {
            let numbers = (0..).take_while(|_| !is_over.load(Ordering::Relaxed));
            numbers.map(|number| reload(&lab, other, number % 10)).count()
        });
        let tried = Trial::of(Fault::AllKilled).run(&lab.pair);
        is_over.store(true, Ordering::Relaxed);
        (tried.unwrap().0, reloading.join().unwrap())
    });
    let timer = 3 * Duration::from_millis(100);
    assert!(report.without_owner < timer, "{:?}\n{}", report.without_owner, report.story);
    assert!(report.after.failed == 0 && reloads > 2, "{:?}, {reloads} reloads\n{}", report.after, report.story);
    assert_eq!(lab.pair.active(), Some(other));
}

/// One node after the other reads its changed file: no client notices, the address stays where it is, and each node says whether the
/// other has followed yet. Then one is stopped: that is one line in the other's log, and no warning.
#[test]
fn a_pair_is_reloaded_one_node_after_the_other() {
    let Some(lab) = lab(|options| options.preempt = false) else { return };
    let pair = &lab.pair;
    let active = pair.wait_ready(READY_TIMEOUT).unwrap();
    let other = 1 - active;
    order(pair, other, &["drain", "app/web1"]);
    let begin = Instant::now();
    for (node, agree) in [(other, false), (active, true)] {
        reload(&lab, node, 2);
        for node in [active, other] {
            wait_for(pair, node, "it knows whether they agree", |status| {
                is_linked(status)
                    && status.peers[0].config_matches == agree
                    && of(status, "web1") == Some((ServerState::Drain, 1))
            });
        }
    }
    let end = Instant::now();
    wait_until("all are answered", || pair.prober.all_over_before(end), || pair.messages());
    let attempts = pair.prober.attempts(begin);
    let failed: Vec<_> = attempts.iter().filter(|attempt| attempt.start < end && attempt.outcome.is_err()).collect();
    assert!(failed.is_empty() && !attempts.is_empty(), "{failed:?}\n{}", pair.messages());
    assert_eq!(pair.active(), Some(active));
    for node in &pair.nodes {
        let said = |words: &str| node.messages().matches(words).count();
        wait_until(
            "the log says that they agree",
            || said(" run the same configuration again") == 1,
            || node.messages(),
        );
        assert_eq!(said(" differs from that of "), 1, "{}", node.messages());
    }

    let before = pair.nodes[other].messages().len();
    send(pair.nodes[active].expect_processes().unwrap().guard, Signal::SIGTERM).unwrap();
    wait_for(pair, other, "the other takes over, and nobody is left there", |status| {
        is_active(&status.node) && status.peers[0].link_error.starts_with("nothing listens at")
    });
    let since = || pair.nodes[other].messages().split_off(before);
    wait_until("the log says so", || since().contains("the peer stops"), since);
    let messages = since();
    let of_peer: Vec<_> = messages.lines().filter(|line| line.contains("the peer ")).collect();
    assert!(
        matches!(of_peer[..], [line] if line.contains("INFO") && line.contains("stops: it was told to stop")),
        "{messages}"
    );
    assert!(!messages.contains("WARN"), "{messages}");
}

/// On a connection of its own, as the client.
fn ask(session: &str) -> std::io::Result<String> {
    let mut connection = Connection::open(target())?;
    connection.send(format!("GET / HTTP/1.1\r\nHost: test\r\nX-Session: {session}\r\nConnection: close\r\n\r\n"))?;
    let answer = connection.receive()?;
    answer.header("x-server").map(str::to_owned).ok_or_else(|| std::io::Error::other(format!("{answer:?}")))
}

/// Where each session is, asked for in this order.
fn servers_of(pair: &Pair, sessions: impl Iterator<Item = usize> + Send) -> Vec<(usize, String)> {
    let ask = |session: usize| (session, ask(&format!("session {session}")).unwrap());
    let mut servers: Vec<_> = pair.client.namespace.run(|| sessions.map(ask).collect()).unwrap();
    servers.sort_unstable();
    servers
}

/// The node that takes over has the sessions of the one that is gone; that one, when it is back, has those of the other.
#[test]
fn sessions_of_a_stick_table_survive_a_takeover() {
    const SESSIONS: usize = 30;
    let Some(mut lab) = lab(|options| {
        options.preempt = false;
        options.backend = "stick = { by = \"header\", name = \"X-Session\", expire = \"10m\", size = 10000 }".into();
    }) else {
        return;
    };
    let pair = &mut lab.pair;
    let active = pair.wait_ready(READY_TIMEOUT).unwrap();
    let before = servers_of(pair, 0..SESSIONS);
    let at_web1 = before.iter().filter(|(_, server)| server == "web1").count();
    assert!((5..=15).contains(&at_web1), "{before:?}");

    let knows_all =
        |status: &PairStatus| status.node.backends.first().is_some_and(|backend| backend.sessions >= SESSIONS as u64);
    wait_for(pair, 1 - active, "the other knows the sessions", knows_all);
    let struck = Fault::AllKilled.strike(pair, active).unwrap();
    wait_for(pair, 1 - active, "the other takes over", |status| is_active(&status.node));
    // In another order: its turns alone would lead them elsewhere.
    let after = servers_of(pair, (0..SESSIONS).map(|number| number * 7 % SESSIONS));
    assert_eq!(after, before, "{}", pair.messages());

    Fault::AllKilled.undo(pair, active, struck).unwrap();
    assert_eq!(pair.wait_ready(READY_TIMEOUT).unwrap(), 1 - active);
    wait_for(pair, active, "the first knows the sessions", knows_all);
    let _struck = Fault::AllKilled.strike(pair, 1 - active).unwrap();
    wait_for(pair, active, "the first takes over", |status| is_active(&status.node));
    let again = servers_of(pair, (0..SESSIONS).map(|number| number * 11 % SESSIONS));
    assert_eq!(again, before, "{}", pair.messages());
}
