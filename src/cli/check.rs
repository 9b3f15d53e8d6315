//! `relevo check`: all errors of a configuration, or a summary of what it would run.

mod condition;
mod failure;
mod persistence;
mod rule;

use std::fmt::{self, Write as _};
use std::process::ExitCode;

use clap::Args;

use super::{ConfigFile, output};
use crate::config::Config;
use crate::config::model::{
    AccessLog, Backend, BackendIndex, Balance, Frontend, HashKey, HashMethod, HealthCheck, Mode, Observe, Peering,
    Probe, Server, ServerAddress, WhenAllDown,
};
use relevo_ha::VirtualRouter;

/// Check the configuration: all its errors, or what it would run
#[derive(Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    config: ConfigFile,
}

pub(super) fn run(arguments: &Arguments) -> ExitCode {
    let config = match arguments.config.load() {
        Ok(config) => config,
        Err(status) => return status,
    };
    output::show(&Summary(&config).to_string())
}

/// For people.
struct Summary<'a>(&'a Config);

impl fmt::Display for Summary<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let config = self.0;
        let balancer = &config.balancer;
        let log = match balancer.access_log {
            AccessLog::Off => "no line for requests",
            AccessLog::HttpLog => "HAProxy's line for requests",
            AccessLog::Json => "a JSON object for requests",
            AccessLog::Custom(_) => "a line of its own for requests",
        };
        writeln!(f, "node {}: {}, {log}", config.node.name, count(balancer.threads, "worker thread"))?;
        for router in &config.virtual_routers {
            virtual_router(f, router)?;
        }
        if let Some(peering) = &config.peering {
            self.peering(f, peering)?;
        }
        for it in &balancer.frontends {
            self.frontend(f, it)?;
        }
        for (index, it) in balancer.backends.iter().enumerate() {
            backend(f, it, self.is_used(BackendIndex(index)))?;
        }
        writeln!(f, "digest {} (has to be the same on every node of a pair)", config.hash)
    }
}

impl Summary<'_> {
    fn peering(&self, f: &mut fmt::Formatter<'_>, peering: &Peering) -> fmt::Result {
        let peers: Vec<_> = peering.peers.iter().map(|(name, address)| format!("{name} ({address})")).collect();
        writeln!(f, "peering on {} with {}, key in {}", peering.listen, peers.join(", "), peering.key_file.display())
    }

    fn frontend(&self, f: &mut fmt::Formatter<'_>, frontend: &Frontend) -> fmt::Result {
        let mode = if frontend.mode == Mode::Http { "HTTP" } else { "TCP" };
        let binds: Vec<_> = frontend.binds.iter().map(|bind| bind.address.to_string()).collect();
        writeln!(f, "frontend {}: {mode} on {}{}", frontend.name, binds.join(", "), rule::additions(frontend))?;
        for it in &frontend.rules {
            writeln!(f, "  {}", rule::words(it))?;
        }
        if let Some(line) = failure::connection(frontend.connection) {
            writeln!(f, "  {line}")?;
        }
        if let Some(keep_alive) = &frontend.tcp_keep_alive {
            writeln!(f, "  {}", failure::tcp_keep_alive(keep_alive))?;
        }
        if let Some(line) = failure::pages(&frontend.errors).filter(|_| frontend.mode == Mode::Http) {
            writeln!(f, "  {line}")?;
        }
        if let Some(statistics) = &frontend.statistics {
            let to = if statistics.users.is_empty() { "everybody" } else { "those with a password" };
            writeln!(f, "  {} → statistics for {to}", statistics.path)?;
        }
        for route in &frontend.routes {
            writeln!(f, "  {} → {}", condition::words(&route.when), self.backend_name(route.backend))?;
        }
        match frontend.default_backend {
            Some(backend) => writeln!(f, "  everything else → {}", self.backend_name(backend)),
            None if frontend.mode == Mode::Tcp => writeln!(f, "  everything else is closed"),
            None => writeln!(f, "  everything else is answered with 404"),
        }
    }

    fn backend_name(&self, index: BackendIndex) -> &str {
        self.0.balancer.backends.get(index.0).map_or("?", |backend| &backend.name)
    }

    fn is_used(&self, index: BackendIndex) -> bool {
        self.0.balancer.frontends.iter().flat_map(|frontend| frontend.backends()).any(|backend| backend == index)
    }
}

fn virtual_router(f: &mut fmt::Formatter<'_>, router: &VirtualRouter) -> fmt::Result {
    let addresses: Vec<_> = router.addresses.iter().map(ToString::to_string).collect();
    let to = match router.unicast_peers.as_slice() {
        [] => "to the multicast group".to_owned(),
        peers => format!("to {}", peers.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")),
    };
    let preempt = if router.preempt { "" } else { ", does not preempt" };
    let obeys = if router.obey_other_addresses { ", obeys adverts of other addresses" } else { "" };
    writeln!(f, "virtual router {}: {} on {}", router.name, addresses.join(", "), router.interface)?;
    writeln!(
        f,
        "  VRID {}, priority {}, an advert every {:?} {to}{preempt}{obeys}",
        router.virtual_router_id, router.priority, router.advertisement_interval
    )
}

fn backend(f: &mut fmt::Formatter<'_>, backend: &Backend, is_used: bool) -> fmt::Result {
    let cookie = backend.cookie.as_ref().map_or(String::new(), persistence::cookie);
    let unused = if is_used { "" } else { " (no frontend leads here)" };
    writeln!(f, "backend {}: {}{cookie}{unused}", backend.name, balance(&backend.balance))?;
    if let Some(stick) = &backend.stick {
        writeln!(f, "  {}", persistence::stick(stick))?;
    }
    if let Some(slow_start) = backend.slow_start {
        writeln!(f, "  a server that was down has its whole weight after {slow_start:?}")?;
    }
    if backend.when_all_down == WhenAllDown::TryAll {
        writeln!(f, "  when all are down, all are tried")?;
    }
    for line in failure::lines(backend) {
        writeln!(f, "  {line}")?;
    }
    if backend.servers.iter().any(|server| server.check) {
        writeln!(f, "  checks: {}", check(&backend.health))?;
    }
    if let Some(agent) = &backend.agent {
        writeln!(f, "  agents: port {} every {:?}", agent.port, agent.interval)?;
    }
    backend.servers.iter().try_for_each(|it| server(f, it))
}

fn balance(balance: &Balance) -> String {
    let (key, method) = match balance {
        Balance::RoundRobin => return "round robin".to_owned(),
        Balance::StaticRoundRobin => return "static round robin".to_owned(),
        Balance::LeastConnections => return "least connections".to_owned(),
        Balance::First => return "the first that is up".to_owned(),
        Balance::Random { draws } => return format!("the least loaded of {draws} drawn at random"),
        Balance::Hash { key, method } => (key, method),
    };
    let key = match key {
        HashKey::Source => "the client's address".to_owned(),
        HashKey::Uri { whole, length, depth } => {
            let what = if *whole { "the URI" } else { "the path" };
            let length = length.map(|length| format!(", its first {}", count(length as usize, "byte")));
            let depth = depth.map(|depth| format!(", its first {}", directories(depth)));
            format!("{what}{}{}", length.unwrap_or_default(), depth.unwrap_or_default())
        }
        HashKey::Header(name) => format!("the header {name}"),
        HashKey::Parameter(name) => format!("the parameter {name}"),
    };
    let method = if *method == HashMethod::Consistent { "consistent hash" } else { "hash" };
    format!("{method} of {key}")
}

fn directories(number: u32) -> String {
    if number == 1 { "directory".to_owned() } else { format!("{number} directories") }
}

fn check(health: &HealthCheck) -> String {
    let probe = match &health.probe {
        Probe::Tcp => "a connection".to_owned(),
        Probe::Http { method, path, .. } => format!("{method} {path}"),
    };
    let HealthCheck { interval, rise, fall, error_limit, .. } = health;
    let observed = match health.observe {
        Observe::Off => String::new(),
        _ => format!(", or after {} of the traffic in a row", count(*error_limit as usize, "error")),
    };
    let refused = if health.refused_marks_down { ", or when it refuses a connection" } else { "" };
    format!("{probe} every {interval:?}; up after {rise}, down after {fall}{observed}{refused}")
}

fn server(f: &mut fmt::Formatter<'_>, server: &Server) -> fmt::Result {
    let address = match &server.address {
        ServerAddress::Socket(address) => address.to_string(),
        ServerAddress::Name { host, port } => format!("{host}:{port}"),
    };
    let mut line = format!("  server {} at {address}, weight {}", server.name, server.weight);
    if let Some(source) = server.source {
        let held = if server.source_is_virtual { " while this node is active" } else { "" };
        write!(line, ", from {source}{held}")?;
    }
    if let Some(most) = server.max_connections {
        write!(line, ", at most {}", count(most as usize, "connection"))?;
    }
    if server.backup {
        line.push_str(", backup");
    }
    if !server.check {
        line.push_str(", not checked");
    }
    writeln!(f, "{line}")
}

fn count(number: usize, what: &str) -> String {
    if number == 1 { format!("1 {what}") } else { format!("{number} {what}s") }
}
