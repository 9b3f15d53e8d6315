//! The demo without a person: one fault after the other, and the outage of each beside its limit.

use std::time::Duration;

use super::error::Result;
use super::fault::Fault;
use super::pair::Pair;
use super::show::{introduction, node_line, say, write};
use super::terminal::wrapped;
use super::trial::{READY_TIMEOUT, Report, Trial};

/// A machine with other things to do may take so many times as long as the limit.
pub const TOLERANCE: u32 = 5;

const FAULTS: [Trial; 9] = [
    Trial::of(Fault::AllKilled),
    Trial::of(Fault::BalancerKilled),
    Trial::of(Fault::KeeperKilled),
    Trial::of(Fault::GuardKilled),
    Trial::of(Fault::Terminated),
    Trial::of(Fault::CarrierLost),
    Trial { observe: Duration::from_secs(10), ..Trial::of(Fault::Frozen) },
    Trial::of(Fault::BalancerStopped),
    Trial { observe: Duration::from_secs(3), ..Trial::of(Fault::Partitioned) },
];

/// Goes through all of them. Returns whether every outage was within its limit.
pub fn run(pair: &mut Pair, interval: Duration) -> Result<bool> {
    say(&introduction(pair))?;
    pair.wait_ready(READY_TIMEOUT)?;
    for (index, status) in pair.status().iter().enumerate() {
        say(&node_line(index, status.as_ref()))?;
    }
    say(&format!(
        "\nAdverts every {} ms. The limit is for an idle machine; here an outage may be {TOLERANCE} times as long.\n\n{:<28}{:>12}{:>12}",
        interval.as_millis(),
        "what happens to the active",
        "outage",
        "limit"
    ))?;
    let mut all_within = true;
    for trial in FAULTS {
        let name = format!("{:<28}", trial.fault.name());
        write(&name)?;
        let report = trial.run_and_undo(pair)?;
        let within = report.outage.duration <= TOLERANCE * trial.fault.limit(interval);
        let row = wrapped(&format!("{name}{}", line(&report, interval, within)));
        write(&format!("{}\n", row.strip_prefix(&name).unwrap_or(&row)))?;
        all_within &= within;
    }
    let verdict = if all_within { "Every outage was within its limit." } else { "An outage was over its limit." };
    write(&format!("\n{verdict}\n"))?;
    Ok(all_within)
}

fn line(report: &Report, interval: Duration, within: bool) -> String {
    let ms = |duration: Duration| format!("{:.1} ms", duration.as_secs_f64() * 1e3);
    let outage = &report.outage;
    format!(
        "{:>12}{:>12}  {}of {} requests {} failed, {} took over 50 ms",
        ms(outage.duration),
        ms(report.fault.limit(interval)),
        if within { "" } else { "TOO LONG, " },
        outage.attempts,
        outage.failed,
        outage.slow
    )
}
