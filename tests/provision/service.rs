//! The unit on a pair: whatever ends the active node, its clients hardly notice, and it comes back by itself.
//!
//! Limits are five times as wide as promised, since machines are noisy, and for the same reason a few measurements may be beyond
//! them: what is wrong with the unit is so every time.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use relevo::lab::node::send;

use crate::containers::Machine;
use crate::pair::{Pair, Seen};

const TOLERANCE: u32 = 5;
/// So many measurements may have met something else that the machine had to do.
const MISHAPS: usize = 3;
/// For a death that the other node sees by the closed link, and for an end that hands over first.
const AT_ONCE: Duration = Duration::from_millis(10);
/// For one that only the missing adverts tell: the active-down interval, at 100 ms, and the takeover.
const BY_TIMER: Duration = Duration::from_millis(350);

#[test]
fn the_service_is_killed_stopped_and_restarted_and_its_machine_too() {
    let pair = Pair::start();
    let systemctl =
        |command: &'static str| move |node: &Machine| drop(node.shell(&format!("systemctl {command} relevo")));
    survives(&pair, 2, "kill -9 of everything", AT_ONCE, |node| signal_all(node, Signal::SIGKILL), |_| ());
    survives(&pair, 2, "systemctl kill -s KILL", AT_ONCE, systemctl("kill -s KILL"), |_| ());
    survives(&pair, 2, "systemctl stop", AT_ONCE, systemctl("stop"), systemctl("start"));
    survives(&pair, 2, "systemctl restart", AT_ONCE, systemctl("restart"), |_| ());
    survives(&pair, 2, "reboot", AT_ONCE, Machine::begin_reboot, |_| ());
    survives(&pair, 2, "power off", BY_TIMER, Machine::power_off, Machine::power_on);
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

/// Does it to the active node, and has the pair whole and of one mind after each time, until so many outages were within the
/// limit.
#[track_caller]
fn survives(
    pair: &Pair,
    times: usize,
    what: &str,
    limit: Duration,
    strike: impl Fn(&Machine),
    undo: impl Fn(&Machine),
) {
    let limit = TOLERANCE * limit;
    let (mut within, mut stories) = (0, String::new());
    for _ in 0..times + MISHAPS {
        let victim = pair.wait_whole();
        let Seen { outage, story } = pair.observe(|| strike(victim));
        undo(victim);
        pair.wait_whole();
        pair.assert_agreed();
        println!("{what}: {outage:?}");
        within += usize::from(outage.duration <= limit);
        if within == times {
            return;
        }
        stories += &format!("{outage:?}\n{story}");
    }
    panic!("{what}: within {limit:?} only {within} times\n{stories}{}", pair.messages());
}

fn signal_all(node: &Machine, signal: Signal) {
    for process in node.relevo() {
        send(process.pid, signal).unwrap();
    }
}
