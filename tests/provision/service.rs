//! The unit on a pair: whatever ends the active node, its clients hardly notice, and it comes back by itself.
//!
//! Limits are five times as wide as promised, since machines are noisy; of three measurements the middle one counts.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use relevo::lab::node::send;

use crate::containers::Machine;
use crate::pair::Pair;

const TOLERANCE: u32 = 5;
/// For a death that the other node sees by the closed link, and for an end that hands over first.
const AT_ONCE: Duration = Duration::from_millis(10);
/// For one that only the missing adverts tell: the active-down interval, at 100 ms, and the takeover.
const BY_TIMER: Duration = Duration::from_millis(350);

#[test]
fn the_service_is_killed_stopped_and_restarted_and_its_machine_too() {
    let pair = Pair::start();
    let systemctl =
        |command: &'static str| move |node: &Machine| drop(node.shell(&format!("systemctl {command} relevo")));
    survives(&pair, "kill -9 of everything", AT_ONCE, kill_all, |_| ());
    survives(&pair, "systemctl kill -s KILL", AT_ONCE, systemctl("kill -s KILL"), |_| ());
    survives(&pair, "systemctl stop", AT_ONCE, systemctl("stop"), systemctl("start"));
    survives(&pair, "systemctl restart", AT_ONCE, systemctl("restart"), |_| ());
    survives(&pair, "reboot", AT_ONCE, Machine::begin_reboot, |_| ());
    survives(&pair, "power off", BY_TIMER, Machine::power_off, Machine::power_on);

    let victim = pair.wait_whole();
    let begin = Instant::now();
    for second in 1..=10 {
        kill_all(victim);
        std::thread::sleep((begin + Duration::from_secs(second)).saturating_duration_since(Instant::now()));
    }
    pair.wait_whole();
    pair.assert_agreed();
    assert_eq!(victim.shell("systemctl is-active relevo").trim(), "active");
}

/// Does it to the active node, three times, and has the pair whole and of one mind after each.
#[track_caller]
fn survives(pair: &Pair, what: &str, limit: Duration, strike: impl Fn(&Machine), undo: impl Fn(&Machine)) {
    let mut all = [(); 3].map(|()| {
        let victim = pair.wait_whole();
        let seen = pair.observe(|| strike(victim));
        undo(victim);
        pair.wait_whole();
        pair.assert_agreed();
        seen
    });
    all.sort_by_key(|seen| seen.outage.duration);
    let [best, median, worst] = &all;
    println!("{what}: {:?}, {:?}, {:?}", best.outage, median.outage, worst.outage);
    let limit = TOLERANCE * limit;
    assert!(
        median.outage.duration <= limit,
        "{what}: {:?} > {limit:?}\n{}{}",
        median.outage,
        median.story,
        pair.messages()
    );
}

fn kill_all(node: &Machine) {
    for process in node.relevo() {
        send(process.pid, Signal::SIGKILL).unwrap();
    }
}
