//! CPU time per request of Relevo, beside Debian's HAProxy and nginx, on the same machine in the same run.
//!
//! `cargo bench --bench compare [-- --rounds 11 --seconds 2 --row small]`. wrk with 64 connections asks each proxy in turn, with
//! nginx behind them all; what is done is in `rows.rs`, how they are configured in `proxies.rs`, on which processors they run in
//! `processors.rs`. In each round the proxies take another order. What counts is the median over the rounds of the ratio of CPU
//! time (user + system, from /proc, of all processes of the proxy); half of the rounds' ratios lie between the two figures
//! after it. Needs the programs nginx, haproxy and wrk. Exits 1 when a ratio to HAProxy is above its limit, or a request
//! failed.

#[path = "../peers/mod.rs"]
mod peers;
mod processors;
mod proxies;
#[path = "../../tests/rig/mod.rs"]
mod rig;
mod rows;
mod wrk;

use std::process::ExitCode;

use clap::Parser;
use relevo::lab::directory::Directory;

use peers::Result;
use processors::Processors;
use proxies::{Origin, Proxy};
use rows::{ROWS, Row};
use wrk::{Seen, load};

/// CPU time per request of Relevo, beside Debian's HAProxy and nginx
#[derive(Parser)]
struct Arguments {
    /// How often each is measured
    #[arg(long, default_value_t = 11)]
    rounds: usize,
    /// How long each time
    #[arg(long, default_value_t = 2)]
    seconds: u64,
    /// Only rows whose names begin so
    #[arg(long, default_value = "")]
    row: String,
    /// What cargo says to every benchmark
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("compare: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<bool> {
    let directory = Directory::new()?;
    let processors = processors::all()?;
    println!("{} rounds of {} s, 64 connections", arguments.rounds, arguments.seconds);
    println!(
        "µs of CPU time per request, its ratio to HAProxy's and to nginx's, and the 99th percentile of the time to answer"
    );
    println!(
        "{:<28} {:>8} {:>8} {:>8} {:>9} {:>13} {:>6} {:>9} {:>27}",
        "", "relevo", "haproxy", "nginx", "/haproxy", "middle half", "limit", "/nginx", "ms (99 %)"
    );
    let mut within = true;
    for row in ROWS.iter().filter(|row| row.name.starts_with(&arguments.row)) {
        let processors = Processors::divide(processors, row)?;
        let origin = Origin::start(directory.path())?;
        let proxies = processors.start(|| proxies::start(row, &origin, directory.path()))?;
        let mut rounds: Vec<Vec<Seen>> = Vec::new();
        for round in 0..arguments.rounds {
            rounds.push(measure(&proxies, round, row, arguments.seconds)?);
        }
        within &= print(row, &rounds);
    }
    Ok(within)
}

/// One round: what was seen of each proxy, in their order; each goes first in turn.
fn measure(proxies: &[Proxy], round: usize, row: &Row, seconds: u64) -> Result<Vec<Seen>> {
    let mut seen: Vec<Option<Seen>> = proxies.iter().map(|_| None).collect();
    for turn in 0..proxies.len() {
        let index = (round + turn) % proxies.len();
        seen[index] = Some(load(&proxies[index], row, seconds)?);
    }
    Ok(seen.into_iter().flatten().collect())
}

/// Prints a row; is it within its limit?
fn print(row: &Row, rounds: &[Vec<Seen>]) -> bool {
    let count = rounds.first().map_or(0, Vec::len);
    let of = |index: usize, value: fn(&Seen) -> f64| {
        (index < count).then(|| median(rounds.iter().map(|seen| value(&seen[index]))))
    };
    let cost = |index| of(index, |seen| seen.cpu_us);
    let ratios = |index: usize| rounds.iter().map(move |seen| seen[0].cpu_us / seen[index].cpu_us);
    let ratio = |index: usize| (index < count).then(|| median(ratios(index)));
    let half = format!("{:.3}-{:.3}", quantile(ratios(1), 0.25), quantile(ratios(1), 0.75));
    let text = |value: Option<f64>, digits| value.map_or("-".to_owned(), |value| format!("{value:.digits$}"));
    let latencies: Vec<String> = (0..3).map(|index| text(of(index, |seen| seen.p99_ms), 2)).collect();
    println!(
        "{:<28} {:>8} {:>8} {:>8} {:>9} {:>13} {:>6} {:>9} {:>27}",
        row.name,
        text(cost(0), 2),
        text(cost(1), 2),
        text(cost(2), 2),
        text(ratio(1), 3),
        half,
        text(row.limit, 2),
        text(ratio(2), 3),
        latencies.join(" / "),
    );
    let ratio = ratio(1).unwrap_or(f64::NAN);
    row.limit.is_none_or(|limit| ratio <= limit)
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    quantile(values, 0.5)
}

/// The value that this part of all values is below.
fn quantile(values: impl Iterator<Item = f64>, part: f64) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get((values.len() as f64 * part) as usize).copied().unwrap_or(f64::NAN)
}
