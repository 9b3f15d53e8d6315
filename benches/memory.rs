//! What connections and time cost in memory: `cargo bench --bench memory [-- --connections 4000 --requests 3000000]`.
//!
//! First, quiet clients: resident memory (from /proc/PID/smaps_rollup, of the process that carries traffic; one worker, no log)
//! with so many of them less without, for each of them; beside Debian's HAProxy where it is installed. Then time: resident
//! memory, descriptors and threads after a tenth of the requests and after all of them, most on 64 kept connections, every
//! fifth run of wrk with a connection for each. Needs the programs nginx and wrk. Exits 1 when a quiet client of Relevo costs
//! more than 4 KiB, or it has grown by more than 2 MiB or by a descriptor or a thread.

#[path = "peers/mod.rs"]
mod peers;
#[path = "../tests/rig/mod.rs"]
mod rig;

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Duration;

use clap::Parser;
use nix::unistd::Pid;
use relevo::lab::directory::Directory;

use peers::Peer;
use rig::http::Connection;
use rig::node::Relevo;
use rig::place::free_port;
use rig::process::{Holding, raise_descriptor_limit};

/// KiB for a quiet client.
const MOST_EACH: f64 = 4.0;
/// KiB between a tenth of the requests and all of them.
const MOST_GROWTH: i64 = 2048;
/// Nothing is under way any more, connections rest, and what waited in a pool has been closed.
const SETTLED: Duration = Duration::from_secs(7);

/// What connections and time cost in memory
#[derive(Parser)]
struct Arguments {
    /// Quiet clients
    #[arg(long, default_value_t = 4000)]
    connections: usize,
    /// Requests in all
    #[arg(long, default_value_t = 3_000_000)]
    requests: u64,
    /// What cargo says to every benchmark
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    raise_descriptor_limit();
    let directory = Directory::new().expect("a directory for configurations");
    let server = free_port();
    let _nginx = start_nginx(directory.path(), server);

    let mut within = true;
    if arguments.connections > 0 {
        within &= quiet_clients(&arguments, directory.path(), server);
    }
    if arguments.requests > 0 {
        within &= growth(&arguments, server);
    }
    if within { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// How clients come to be there.
const ARRIVALS: [(&str, Arrival); 3] = [
    ("silent since they connected", |web, count| (0..count).map(|_| connect(web)).collect()),
    ("after a request, one by one", |web, count| {
        let one = |_| {
            let mut client = connect(web);
            assert_eq!(client.get("/").expect("an answer").status(), 200);
            client
        };
        (0..count).map(one).collect()
    }),
    ("after a request, all at once", |web, count| {
        let mut clients: Vec<_> = (0..count).map(|_| connect(web)).collect();
        for client in &mut clients {
            client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n").expect("it takes a request");
        }
        for client in &mut clients {
            assert_eq!(client.receive().expect("an answer").status(), 200);
        }
        clients
    }),
];

type Arrival = fn(SocketAddr, usize) -> Vec<Connection>;

fn connect(web: SocketAddr) -> Connection {
    Connection::open(web).expect("it accepts")
}

fn quiet_clients(arguments: &Arguments, directory: &Path, server: SocketAddr) -> bool {
    let count = arguments.connections;
    println!("{count} quiet clients, KiB for each, and for each that has gone");
    println!("{:<32} {:>17} {:>17} {:>8}", "", "relevo", "haproxy", "limit");
    let mut within = true;
    for (name, arrive) in ARRIVALS {
        let (node, web) = start_relevo(server, count);
        let ours = cost(node.balancer(), web, count, arrive);
        drop(node);
        let theirs =
            start_haproxy(directory, server, count).map(|(haproxy, web)| cost(haproxy.pid(), web, count, arrive));
        let theirs = theirs.map_or("not installed".to_owned(), |cost| cost.to_string());
        println!("{name:<32} {:>17} {theirs:>17} {MOST_EACH:>8}", ours.to_string());
        within &= ours.each <= MOST_EACH;
    }
    println!();
    within
}

/// In KiB for one client.
struct Cost {
    each: f64,
    left: f64,
}

impl std::fmt::Display for Cost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.2} ({:.2})", self.each, self.left)
    }
}

fn cost(process: Pid, web: SocketAddr, count: usize, arrive: Arrival) -> Cost {
    // What is there from the first requests on counts for none of them.
    drop(arrive(web, 50));
    std::thread::sleep(SETTLED);
    let before = Holding::of(process);
    let each = |now: Holding| (now.resident - before.resident) as f64 / count as f64;
    let clients = arrive(web, count);
    std::thread::sleep(SETTLED);
    let with = Holding::of(process);
    drop(clients);
    std::thread::sleep(SETTLED);
    Cost { each: each(with), left: each(Holding::of(process)) }
}

fn growth(arguments: &Arguments, server: SocketAddr) -> bool {
    println!("{:>12} {:>14} {:>12} {:>8}", "requests", "resident KiB", "descriptors", "threads");
    let (node, web) = start_relevo(server, 1000);
    let mut holdings = Vec::new();
    let mut run = 0;
    for goal in [arguments.requests / 10, arguments.requests] {
        let requests = || node.status().map_or(0, |status| status.node.balancer.requests);
        while requests() < goal {
            load(web, if requests() * 50 < goal * 49 { 5 } else { 1 }, run % 5 == 4);
            run += 1;
        }
        std::thread::sleep(SETTLED);
        let holding = Holding::of(node.balancer());
        println!("{:>12} {:>14} {:>12} {:>8}", requests(), holding.resident, holding.descriptors, holding.threads);
        holdings.push(holding);
    }
    let [early, late] = holdings[..] else { return false };
    println!("grown by {} KiB (limit {MOST_GROWTH})", late.resident - early.resident);
    late.resident - early.resident <= MOST_GROWTH
        && (late.descriptors, late.threads) == (early.descriptors, early.threads)
}

fn load(web: SocketAddr, seconds: u64, closes: bool) {
    let mut command = Command::new("wrk");
    command.args(["-t1", "-c64", &format!("-d{seconds}s"), &format!("http://{web}/")]);
    if closes {
        command.args(["-H", "Connection: close"]);
    }
    let output = command.output().expect("wrk has to be installed: Debian's package wrk");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && !text.contains("Non-2xx"), "requests failed:\n{text}");
}

fn start_relevo(server: SocketAddr, connections: usize) -> (Relevo, SocketAddr) {
    let web = free_port();
    let node = Relevo::start(&format!(
        r#"
[process]
threads = 1
user = "nobody"
chroot = "/"
max_connections = {most}

[log]
format = "off"

[frontends.web]
bind = ["{web}"]
default_backend = "app"
forwarded_for = true
timeouts = {{ http_request = "10m", http_keep_alive = "10m" }}

[backends.app]
servers = [{{ name = "a", address = "{server}", check = false }}]
"#,
        most = connections + 100,
    ));
    (node, web)
}

fn start_haproxy(directory: &Path, server: SocketAddr, connections: usize) -> Option<(Peer, SocketAddr)> {
    let web = free_port();
    let configuration = format!(
        "global
    nbthread 1
    maxconn {most}
defaults
    mode http
    timeout connect 5s
    timeout client 600s
    timeout server 50s
    timeout http-request 600s
    timeout http-keep-alive 600s
    option forwardfor
    http-reuse always
    no log
frontend web
    bind {web}
    default_backend app
backend app
    server a {server}
",
        most = connections + 100,
    );
    Some((Peer::haproxy(directory, &configuration, web).ok()?, web))
}

fn start_nginx(directory: &Path, address: SocketAddr) -> Peer {
    let http = format!("access_log off; server {{ listen {address}; location / {{ return 200 \"hello\\n\"; }} }}");
    Peer::nginx(directory, "origin", 1, &http, address)
        .expect("nginx has to be installed: Debian's package nginx-light")
}
