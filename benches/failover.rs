//! How long clients notice that the active node failed: `cargo bench --bench failover [-- --runs 20 --only carrier --json]`.
//!
//! For every fault a new pair in network namespaces (priorities 254 and 253, nobody preempts), a client that opens a
//! connection every 2 ms, and the outage as it saw it: from the start of the first attempt that failed or took over 50 ms
//! to the start of the one after which all succeed. Needs root. Exits 1 when a median is above its limit.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use relevo::lab::directory::Directory;
use relevo::lab::fault::Fault;
use relevo::lab::pair::{Options, Pair};
use relevo::lab::trial::Trial;
use relevo::lab::{Error, Result};

/// How long clients notice that the active node failed
#[derive(Parser)]
struct Arguments {
    /// Runs of each fault
    #[arg(long, default_value_t = 20)]
    runs: usize,
    /// Only faults whose name holds this
    #[arg(long, default_value = "")]
    only: String,
    /// A line of JSON for each fault, with every single outage
    #[arg(long)]
    json: bool,
    /// What cargo says to every benchmark
    #[arg(long, hide = true)]
    bench: bool,
}

const CASES: [(Fault, u64); 10] = [
    (Fault::AllKilled, 100),
    (Fault::BalancerKilled, 100),
    (Fault::BalancerKilledHolding(8000), 100),
    (Fault::KeeperKilled, 100),
    (Fault::KeeperKilledChildLives, 100),
    (Fault::GuardKilled, 100),
    (Fault::Terminated, 100),
    (Fault::CarrierLost, 100),
    (Fault::CarrierLost, 10),
    (Fault::BalancerStopped, 100),
];

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("failover: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<bool> {
    if !arguments.json {
        println!("Outages in ms, {} runs each, priorities 254 and 253\n", arguments.runs);
        println!("{:<44} {:>8} {:>9} {:>9} {:>9}", "fault", "interval", "median", "worst", "limit");
    }
    let mut within = true;
    for (fault, interval) in CASES {
        if !fault.name().contains(&arguments.only) {
            continue;
        }
        let interval = Duration::from_millis(interval);
        let mut outages = (0..arguments.runs).map(|_| outage(fault, interval)).collect::<Result<Vec<_>>>()?;
        outages.sort();
        let (Some(median), Some(worst)) = (median(&outages), outages.last().copied()) else {
            return Err(Error::new("nothing to do", "--runs is 0"));
        };
        let limit = fault.limit(interval);
        within &= median <= limit;
        if arguments.json {
            let outages: Vec<f64> = outages.iter().copied().map(ms).collect();
            let line = serde_json::json!({
                "fault": fault.name(), "interval_ms": ms(interval), "outages_ms": outages,
                "median_ms": ms(median), "worst_ms": ms(worst), "limit_ms": ms(limit),
            });
            println!("{line}");
        } else {
            let (interval, median, worst, limit) = (ms(interval), ms(median), ms(worst), ms(limit));
            println!("{:<44} {interval:>8} {median:>9.1} {worst:>9.1} {limit:>9.1}", fault.name());
        }
    }
    Ok(within)
}

fn outage(fault: Fault, interval: Duration) -> Result<Duration> {
    let directory = Directory::new()?;
    let options = Options {
        interval,
        preempt: false,
        max_connections: fault.max_connections(),
        ..Options::new(Path::new(env!("CARGO_BIN_EXE_relevo")), directory.path())
    };
    let pair = Pair::start(&options)?;
    let (report, _struck) = Trial::of(fault).run(&pair)?;
    if report.outage.duration > fault.limit(interval) {
        eprintln!("{}: {:?}\n{}", fault.name(), report.outage, report.story);
    }
    Ok(report.outage.duration)
}

/// Of a sorted list.
fn median(sorted: &[Duration]) -> Option<Duration> {
    let upper = *sorted.get(sorted.len() / 2)?;
    let lower = *sorted.get((sorted.len() - 1) / 2)?;
    Some((lower + upper) / 2)
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
