//! CPU time per request of Relevo, beside Debian's HAProxy and nginx, on the same machine in the same run.
//!
//! `cargo bench --bench compare [-- --rounds 11 --seconds 2 --row small --beside PATH]`. wrk with 64 connections asks each proxy
//! in turn, with nginx behind them all; what is done is in `rows.rs`, how they are configured in `proxies.rs`, on which
//! processors they run in `processors.rs`. In each round the proxies take another order. What counts is the median over the
//! rounds of the ratio of CPU time (user + system, from /proc, of all processes of the proxy); half of the rounds' ratios lie
//! between the two figures after it. `--beside` measures another Relevo as one more proxy. Needs the programs nginx, haproxy and
//! wrk; the variables NGINX and HAPROXY name other builds of the first two. Exits 1 when a ratio to HAProxy is above its limit,
//! Relevo takes more than 3 % above what the other Relevo takes, or a request failed.

#[path = "../peers/mod.rs"]
mod peers;
mod processors;
mod proxies;
#[path = "../../tests/rig/mod.rs"]
mod rig;
mod rows;
mod wrk;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use relevo::lab::directory::Directory;

use peers::Result;
use processors::Processors;
use proxies::{Name, Origin, Proxy};
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
    /// Another Relevo, measured in the same rounds
    #[arg(long, value_name = "PATH")]
    beside: Option<PathBuf>,
    /// What cargo says to every benchmark
    #[arg(long, hide = true)]
    bench: bool,
}

/// At most so much of the CPU time that the other Relevo takes.
const BESIDE_LIMIT: f64 = 1.03;

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
        "{:<28} {:>8} {:>8} {:>8} {:>9} {:>13} {:>6} {:>9} {:>27} {:>8} {:>13}",
        "",
        "relevo",
        "haproxy",
        "nginx",
        "/haproxy",
        "middle half",
        "limit",
        "/nginx",
        "ms (99 %)",
        "/beside",
        "middle half"
    );
    let mut within = true;
    for row in ROWS.iter().filter(|row| row.name.starts_with(&arguments.row)) {
        let processors = Processors::divide(processors, row)?;
        let origin = Origin::start(directory.path())?;
        let proxies =
            processors.start(|| proxies::start(row, &origin, arguments.beside.as_deref(), directory.path()))?;
        let mut rounds: Vec<Vec<Seen>> = Vec::new();
        for round in 0..arguments.rounds {
            rounds.push(measure(&proxies, round, row, arguments.seconds)?);
        }
        within &= print(row, &proxies, &rounds);
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

/// Prints a row; is it within its limits?
fn print(row: &Row, proxies: &[Proxy], rounds: &[Vec<Seen>]) -> bool {
    let of = |name: Name, value: fn(&Seen) -> f64| {
        let index = proxies.iter().position(|proxy| proxy.name == name)?;
        Some(rounds.iter().map(|seen| value(&seen[index])).collect::<Vec<_>>())
    };
    let costs = |name| of(name, |seen| seen.cpu_us);
    let ratios = |to| Some(std::iter::zip(costs(Name::Relevo)?, costs(to)?).map(|(own, its)| own / its).collect());
    let middle = |values: Option<Vec<f64>>| values.map(|values| quantile(values, 0.5));
    let half = |values: Option<Vec<f64>>| {
        values.map_or("-".to_owned(), |values| {
            format!("{:.3}-{:.3}", quantile(values.clone(), 0.25), quantile(values, 0.75))
        })
    };
    let text = |value: Option<f64>, digits| value.map_or("-".to_owned(), |value| format!("{value:.digits$}"));
    let latencies =
        [Name::Relevo, Name::Haproxy, Name::Nginx].map(|name| text(middle(of(name, |seen| seen.p99_ms)), 2));
    let (to_haproxy, to_beside) = (middle(ratios(Name::Haproxy)), middle(ratios(Name::Beside)));
    println!(
        "{:<28} {:>8} {:>8} {:>8} {:>9} {:>13} {:>6} {:>9} {:>27} {:>8} {:>13}",
        row.name,
        text(middle(costs(Name::Relevo)), 2),
        text(middle(costs(Name::Haproxy)), 2),
        text(middle(costs(Name::Nginx)), 2),
        text(to_haproxy, 3),
        half(ratios(Name::Haproxy)),
        text(row.limit, 2),
        text(middle(ratios(Name::Nginx)), 3),
        latencies.join(" / "),
        text(to_beside, 3),
        half(ratios(Name::Beside)),
    );
    let is_within =
        |ratio: Option<f64>, limit: Option<f64>| limit.is_none_or(|limit| ratio.is_none_or(|ratio| ratio <= limit));
    is_within(to_haproxy, row.limit) && is_within(to_beside, Some(BESIDE_LIMIT))
}

/// The value that this part of all values is below.
fn quantile(mut values: Vec<f64>, part: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get((values.len() as f64 * part) as usize).copied().unwrap_or(f64::NAN)
}
