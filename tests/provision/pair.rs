//! A pair from the package, with two web servers behind it and a client that measures.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use relevo::lab::client::{EVERY, Prober, allow_descriptors};
use relevo::lab::node::is_active;
use relevo::lab::outage::{Attempt, Outage, describe, outage};
use relevo::lab::pair::servers_up;
use relevo::lab::web::WebServer;
use relevo::status::{BalancerState, PairStatus};

use crate::containers::{Machine, Site, package};

/// The address that moves.
pub(crate) const FLOATING: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 10);

const NODES: [(&str, Ipv4Addr); 2] = [("lb1", Ipv4Addr::new(10, 77, 0, 11)), ("lb2", Ipv4Addr::new(10, 77, 0, 12))];
const SERVERS: [(&str, Ipv4Addr); 2] =
    [("backend1", Ipv4Addr::new(10, 77, 0, 21)), ("backend2", Ipv4Addr::new(10, 77, 0, 22))];

/// For a pair to be whole again, with a machine that may have to boot.
const PATIENCE: Duration = Duration::from_secs(60);
/// So long all must have gone well for a pair to count as undisturbed.
const WELL: Duration = Duration::from_millis(300);
/// So many good attempts in a row, 20 ms of them, end an outage: what is slow long before or after is the machine's doing.
const GOOD_AGAIN: usize = 10;

/// Everything, running.
pub(crate) struct Pair {
    prober: Prober,
    _servers: Vec<WebServer>,
    pub(crate) site: Site,
}

/// What the client saw of something that happened.
pub(crate) struct Seen {
    pub(crate) outage: Outage,
    /// For people.
    pub(crate) story: String,
}

impl Pair {
    /// Installs and configures it as the README says, and waits until it is whole.
    #[track_caller]
    pub(crate) fn start() -> Self {
        allow_descriptors(8192).unwrap();
        let site = Site::start(&NODES);
        let servers =
            SERVERS.map(|(name, address)| WebServer::new(site.switch(), name, address).unwrap()).into_iter().collect();
        let package = package::make(site.directory(), 1);
        let [lb1, lb2] = [site.machine("lb1"), site.machine("lb2")];
        for (machine, peer) in [(lb1, lb2), (lb2, lb1)] {
            machine.install(&package);
            machine.write("/etc/relevo/relevo.toml", configuration(machine, peer));
        }
        lb1.shell("relevo key /etc/relevo/pair.key");
        lb2.write("/etc/relevo/pair.key", lb1.shell("cat /etc/relevo/pair.key"));
        lb2.shell("chmod 600 /etc/relevo/pair.key");
        for machine in [lb1, lb2] {
            machine.shell("relevo check && systemctl start relevo");
        }
        let prober = Prober::start(&site.control().namespace, (FLOATING, 80).into(), EVERY).unwrap();
        let pair = Self { prober, _servers: servers, site };
        pair.wait_whole();
        pair
    }

    /// Waits until one node is active, the other could take over, each knows it of the other, and the client is well. Returns
    /// the active one.
    #[track_caller]
    pub(crate) fn wait_whole(&self) -> &Machine {
        let end = Instant::now() + PATIENCE;
        loop {
            match self.missing() {
                Ok(active) => return active,
                Err(why) => assert!(Instant::now() < end, "the pair is not whole: {why}\n{}", self.messages()),
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Does something to a node, follows the client until it has been well for a while, and tells of its longest outage.
    #[track_caller]
    pub(crate) fn observe(&self, strike: impl FnOnce()) -> Seen {
        let begin = Instant::now();
        strike();
        let struck = Instant::now();
        while struck.elapsed() < 2 * WELL || !self.prober.is_well(WELL) {
            assert!(begin.elapsed() < PATIENCE, "clients do not recover\n{}", self.messages());
            std::thread::sleep(Duration::from_millis(5));
        }
        let over = Instant::now();
        while !self.prober.all_over_before(over) {
            std::thread::sleep(Duration::from_millis(5));
        }
        let attempts = self.prober.attempts(begin);
        let during = &attempts[..attempts.partition_point(|attempt| attempt.start < over)];
        Seen { outage: longest_outage(during), story: describe(during, begin) }
    }

    /// Asserts, by what the nodes' own commands say, that one owns the address and that both say it is that one.
    #[track_caller]
    pub(crate) fn assert_agreed(&self) {
        let holds =
            |machine: &&Machine| machine.shell("ip -brief address show eth0").contains(&format!(" {FLOATING}/"));
        let owners: Vec<&str> = self.site.machines().iter().filter(holds).map(Machine::name).collect();
        for machine in self.site.machines() {
            let text = machine.shell("relevo status --json");
            let view: serde_json::Value = serde_json::from_str(&text).unwrap();
            let peer = &view["peers"][0];
            let active = [(&view["node"], &view["vrrp"]), (&peer["name"], &peer["vrrp"])];
            let active = active.iter().filter(|(_, routers)| routers[0]["state"] == "active");
            let active: Vec<&str> = active.filter_map(|(name, _)| name.as_str()).collect();
            assert_eq!((active, owners.len()), (owners.clone(), 1), "{} says {text}", machine.name());
            assert_eq!(peer["config_matches"], true, "{} says {text}", machine.name());
        }
    }

    /// What the nodes have logged lately.
    pub(crate) fn messages(&self) -> String {
        let of = |machine: &Machine| {
            let journal = machine.run("journalctl --unit=relevo --lines=40 --no-pager --output=short-precise");
            format!("--- {}\n{}", machine.name(), String::from_utf8_lossy(&journal.stdout))
        };
        self.site.machines().iter().map(of).collect()
    }

    fn missing(&self) -> Result<&Machine, String> {
        let mut active = Vec::new();
        // What each node is, and what it takes the other for, which may be a state from before that one lost its power.
        let (mut own, mut told) = (Vec::new(), Vec::new());
        for machine in self.site.machines() {
            let name = machine.name();
            let PairStatus { node, peers } = machine.status().map_err(|error| format!("{name}: {error}"))?;
            if !node.can_take_over {
                return Err(format!("{name} cannot take over: {}", node.cannot_take_over_because));
            }
            if node.balancer.state != BalancerState::Serving || servers_up(&node) != SERVERS.len() {
                return Err(format!("{name} does not serve, or not all servers are up"));
            }
            if !peers.iter().all(|peer| peer.connected && peer.status.can_take_over) {
                return Err(format!("{name} does not know of a peer that could take over"));
            }
            if is_active(&node) {
                active.push(machine);
            }
            own.push((node.node.clone(), is_active(&node)));
            told.extend(peers.iter().map(|peer| (peer.name.clone(), is_active(&peer.status))));
        }
        told.sort();
        if own != told {
            return Err(format!("they take each other for {told:?}, and are {own:?}"));
        }
        let [active] = active[..] else { return Err(format!("{} nodes are active", active.len())) };
        if !self.prober.is_well(WELL) {
            return Err(format!("the client is not well: {:?}", self.prober.last()));
        }
        Ok(active)
    }
}

fn longest_outage(attempts: &[Attempt]) -> Outage {
    let mut longest = Outage::default();
    let mut rest = attempts;
    while let Some(first) = rest.iter().position(|attempt| !attempt.is_good()) {
        rest = &rest[first..];
        let good_again = |window: &[Attempt]| window.iter().all(Attempt::is_good);
        // With the first good one, whose start is the end of the outage.
        let end = rest.windows(GOOD_AGAIN).position(good_again).map_or(rest.len(), |position| position + 1);
        let this = outage(&rest[..end], rest[0].start);
        longest = if this.duration > longest.duration { this } else { longest };
        rest = &rest[end..];
    }
    longest
}

/// Without preemption, so that what happens to the active node happens to each in turn, and only that is measured.
fn configuration(own: &Machine, peer: &Machine) -> String {
    let priority = if own.name() < peer.name() { 254 } else { 253 };
    let servers =
        SERVERS.map(|(name, address)| format!("{{ name = \"{name}\", address = \"{address}:8080\" }}")).join(", ");
    format!(
        r#"[node]
name = "{}"

[log]
format = "off"

[frontends.web]
bind = ["*:80"]
default_backend = "app"
forwarded_for = true

[backends.app]
health = {{ method = "HEAD", path = "/", interval = "200ms" }}
servers = [{servers}]

[vrrp.main]
interface = "eth0"
virtual_router_id = 77
priority = {priority}
addresses = ["{FLOATING}/24"]
advertisement_interval = "100ms"
preempt = false

[peering]
listen = "{}:8650"
peers = {{ {} = "{}:8650" }}
"#,
        own.name(),
        own.address(),
        peer.name(),
        peer.address()
    )
}
