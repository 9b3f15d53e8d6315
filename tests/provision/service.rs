//! The unit on a pair: whatever ends the active node, its clients hardly notice, and it comes back by itself.
//!
//! Limits are five times as wide as promised, since machines are noisy; of three measurements the median counts, and none may be
//! longer than what a client would call an outage.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use relevo::lab::node::send;

use crate::containers::Machine;
use crate::pair::{Pair, Seen};

const TOLERANCE: u32 = 5;
/// What none may be longer than, whatever else the machine had to do: the lease, the active-down interval and some more.
const AT_MOST: Duration = Duration::from_secs(3);
/// For a death that the other node sees by the closed link, and for an end that hands over first.
const AT_ONCE: Duration = Duration::from_millis(10);
/// For one that only the missing adverts tell: the active-down interval, at 100 ms, and the takeover.
const BY_TIMER: Duration = Duration::from_millis(350);

#[test]
fn the_service_is_killed_stopped_and_restarted_and_its_machine_too() {
    let pair = Pair::start();
    let systemctl =
        |command: &'static str| move |node: &Machine| drop(node.shell(&format!("systemctl {command} relevo")));
    survives(&pair, 3, "kill -9 of everything", AT_ONCE, |node| signal_all(node, Signal::SIGKILL), |_| ());
    survives(&pair, 3, "systemctl kill -s KILL", AT_ONCE, systemctl("kill -s KILL"), |_| ());
    survives(&pair, 3, "systemctl stop", AT_ONCE, systemctl("stop"), systemctl("start"));
    survives(&pair, 3, "systemctl restart", AT_ONCE, systemctl("restart"), |_| ());
    survives(&pair, 3, "reboot", AT_ONCE, Machine::begin_reboot, |_| ());
    survives(&pair, 3, "power off", BY_TIMER, Machine::power_off, Machine::power_on);
    // It takes the watchdog to bring the node back, which is why this is done once.
    survives(&pair, 1, "SIGSTOP of everything", BY_TIMER, |node| signal_all(node, Signal::SIGSTOP), |_| ());

    let victim = pair.wait_whole();
    let begin = Instant::now();
    for second in 1..=10 {
        signal_all(victim, Signal::SIGKILL);
        std::thread::sleep((begin + Duration::from_secs(second)).saturating_duration_since(Instant::now()));
    }
    pair.wait_whole();
    pair.assert_agreed();
    assert_eq!(victim.shell("systemctl is-active relevo").trim(), "active");
}

/// Does it to the active node so many times, and has the pair whole and of one mind after each.
#[track_caller]
fn survives(
    pair: &Pair,
    times: usize,
    what: &str,
    limit: Duration,
    strike: impl Fn(&Machine),
    undo: impl Fn(&Machine),
) {
    let mut seen: Vec<Seen> = Vec::new();
    for _ in 0..times {
        let victim = pair.wait_whole();
        seen.push(pair.observe(|| strike(victim)));
        undo(victim);
        pair.wait_whole();
        pair.assert_agreed();
    }
    seen.sort_by_key(|seen| seen.outage.duration);
    let (median, worst) = (seen[times / 2].outage.duration, seen[times - 1].outage.duration);
    println!("{what}: median {median:?}, worst {worst:?}");
    let stories: String = seen.iter().map(|seen| format!("{:?}\n{}", seen.outage, seen.story)).collect();
    assert!(
        median <= TOLERANCE * limit && worst <= AT_MOST,
        "{what}: {median:?}, {worst:?}\n{stories}{}",
        pair.messages()
    );
}

fn signal_all(node: &Machine, signal: Signal) {
    for process in node.relevo() {
        send(process.pid, signal).unwrap();
    }
}
