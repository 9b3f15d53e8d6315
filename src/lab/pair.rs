//! A complete lab: a switch, two nodes, web servers and a client.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use super::client::{EVERY, Prober, allow_descriptors};
use super::error::{Context, Error, Result};
use super::network::{Host, INTERFACE, PREFIX_LENGTH, Switch};
use super::node::{Messages, Node, control_socket, is_active};
use super::watch::Watch;
use super::web::WebServer;
use crate::status::{BalancerState, NodeStatus, PairStatus, ServerState};

/// The address that moves.
pub const FLOATING: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 10);
/// The VRID.
pub const VIRTUAL_ROUTER_ID: u8 = 77;
/// The nodes' names, in the order of [`Pair::nodes`].
pub const NODES: [&str; 2] = ["lb1", "lb2"];
/// The nodes' own addresses.
pub const NODE_ADDRESSES: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 77, 0, 11), Ipv4Addr::new(10, 77, 0, 12)];
/// The client's address.
pub const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 100);

const FRONTEND_PORT: u16 = 80;
const PEERING_PORT: u16 = 8650;

/// Between two looks at the state of the pair.
const LOOK: Duration = Duration::from_millis(20);

/// A client is well when all has gone well for so long.
const WELL: Duration = Duration::from_millis(200);

/// How the lab is made.
#[derive(Debug, Clone)]
pub struct Options {
    /// `relevo` itself.
    pub binary: PathBuf,
    /// An empty directory for configurations, sockets and messages; whoever made it removes it.
    pub directory: PathBuf,
    /// Between two adverts.
    pub interval: Duration,
    /// Of the two nodes.
    pub priorities: [u8; 2],
    /// Does a returning node of higher priority take over again?
    pub preempt: bool,
    /// Whom the balancer becomes; `None`: not written.
    pub user: Option<String>,
    /// Where the balancer is locked in; `None`: not written.
    pub chroot: Option<PathBuf>,
    /// The balancer's workers; `None`: not written.
    pub threads: Option<usize>,
    /// Most clients at a time; `None`: not written.
    pub max_connections: Option<usize>,
    /// How many web servers.
    pub servers: u8,
    /// How they are checked.
    pub health: String,
    /// Further lines of the backend.
    pub backend: String,
    /// Further tables of the configuration.
    pub tables: String,
    /// `log.level` of the nodes.
    pub log_level: String,
    /// Where the nodes' messages go.
    pub messages: Messages,
}

/// Everything, running.
pub struct Pair {
    /// Both nodes.
    pub nodes: [Node; 2],
    /// The web servers behind them.
    pub servers: Vec<WebServer>,
    /// Where the client is.
    pub client: Host,
    /// A new connection to the floating IP every 2 ms.
    pub prober: Prober,
    /// Who held the floating IP when.
    pub watch: Watch,
    /// For further hosts.
    pub switch: Switch,
    /// The node that is active whenever both are well, if the configuration says so.
    favourite: Option<usize>,
}

impl Options {
    /// 100 ms, priorities 254 and 253, preempting, three servers; as the user nobody where there is one.
    pub fn new(binary: &Path, directory: &Path) -> Self {
        let privileged = super::isolation::has_user_nobody();
        Self {
            binary: binary.into(),
            directory: directory.into(),
            interval: Duration::from_millis(100),
            priorities: [254, 253],
            preempt: true,
            user: privileged.then(|| "nobody".into()),
            chroot: privileged.then(|| directory.join("empty")),
            threads: None,
            max_connections: None,
            servers: 3,
            health: r#"interval = "200ms", rise = 2, fall = 2"#.into(),
            backend: String::new(),
            tables: String::new(),
            log_level: "info".into(),
            messages: Messages::File,
        }
    }

    fn configuration(&self, node: usize, servers: &[WebServer]) -> String {
        let quoted = |key: &str, value: Option<String>| value.map(|v| format!("{key} = \"{v}\"\n")).unwrap_or_default();
        let number = |key: &str, value: Option<usize>| value.map(|v| format!("{key} = {v}\n")).unwrap_or_default();
        let name = NODES[node];
        let peer = 1 - node;
        let servers: String = servers
            .iter()
            .map(|server| {
                let (name, address) = (server.name(), server.address());
                format!("[[backends.app.servers]]\nname = \"{name}\"\naddress = \"{address}\"\ncheck = true\n\n")
            })
            .collect();
        format!(
            r#"[node]
name = "{name}"
control_socket = "{control_socket}"

[process]
{user}{chroot}{threads}{max_connections}
[log]
format = "off"
level = "{level}"

[timeouts]
http_request = "60s"

[frontends.web]
bind = ["*:{FRONTEND_PORT}"]
default_backend = "app"
forwarded_for = true

[backends.app]
health = {{ method = "HEAD", path = "/", {health} }}
{backend}
{servers}[vrrp.main]
interface = "{INTERFACE}"
virtual_router_id = {VIRTUAL_ROUTER_ID}
priority = {priority}
addresses = ["{FLOATING}/{PREFIX_LENGTH}"]
advertisement_interval = "{interval}ms"
preempt = {preempt}

[peering]
listen = "{own}:{PEERING_PORT}"
key_file = "{key}"
peers = {{ {peer_name} = "{peer_address}:{PEERING_PORT}" }}

{tables}"#,
            control_socket = control_socket(&self.directory, name).display(),
            user = quoted("user", self.user.clone()),
            chroot = quoted("chroot", self.chroot.as_ref().map(|path| path.display().to_string())),
            threads = number("threads", self.threads),
            max_connections = number("max_connections", self.max_connections),
            health = self.health,
            backend = self.backend,
            tables = self.tables,
            level = self.log_level,
            priority = self.priorities[node],
            interval = self.interval.as_millis(),
            preempt = self.preempt,
            own = NODE_ADDRESSES[node],
            key = self.key_file().display(),
            peer_name = NODES[peer],
            peer_address = NODE_ADDRESSES[peer],
        )
    }

    fn key_file(&self) -> PathBuf {
        self.directory.join("pair.key")
    }

    fn make_key(&self) -> Result<()> {
        let output = Command::new(&self.binary)
            .arg("key")
            .arg(self.key_file())
            .output()
            .context(|| format!("cannot run {}", self.binary.display()))?;
        if output.status.success() {
            return Ok(());
        }
        Err(Error::new("relevo key failed", String::from_utf8_lossy(&output.stderr).trim()))
    }
}

impl Pair {
    /// Makes the network and starts servers, nodes, prober and watch. It does not wait for the pair to be ready.
    pub fn start(options: &Options) -> Result<Self> {
        allow_descriptors(8192)?;
        if let Some(chroot) = &options.chroot {
            std::fs::create_dir_all(chroot).context(|| format!("cannot make {}", chroot.display()))?;
        }
        options.make_key()?;
        let switch = Switch::new()?;
        let servers = (1..=options.servers)
            .map(|number| WebServer::new(&switch, &format!("web{number}"), Ipv4Addr::new(10, 77, 0, 20 + number)))
            .collect::<Result<Vec<_>>>()?;
        let node = |index: usize| {
            let host = switch.host(NODES[index], NODE_ADDRESSES[index])?;
            let configuration = options.configuration(index, &servers);
            Node::new(NODES[index], host, &options.binary, &options.directory, options.messages, &configuration)
        };
        let mut nodes = [node(0)?, node(1)?];
        let watch = Watch::start(FLOATING, nodes.iter().map(|node| &node.host.namespace))?;
        let client = switch.host("client", CLIENT)?;
        for node in &mut nodes {
            node.start()?;
        }
        let prober = Prober::start(&client.namespace, target(), EVERY)?;
        let favourite = options.preempt.then_some(usize::from(options.priorities[1] > options.priorities[0]));
        Ok(Self { nodes, servers, client, prober, watch, switch, favourite })
    }

    /// Both views of the pair; `None` where a node does not answer.
    pub fn status(&self) -> [Option<PairStatus>; 2] {
        [self.nodes[0].status().ok(), self.nodes[1].status().ok()]
    }

    /// The node that says it is active, if exactly one does.
    pub fn active(&self) -> Option<usize> {
        match self.status().map(|status| status.is_some_and(|status| is_active(&status.node))) {
            [true, false] => Some(0),
            [false, true] => Some(1),
            _ => None,
        }
    }

    /// Waits until one node is active, the other could take over at once, both know it of each other, and the client is
    /// well; returns the active one.
    pub fn wait_ready(&self, timeout: Duration) -> Result<usize> {
        let begin = Instant::now();
        loop {
            let why = match self.not_ready_because() {
                Ok(active) => return Ok(active),
                Err(why) => why,
            };
            let dead = self.nodes.iter().any(|node| !node.runs());
            if dead || begin.elapsed() > timeout {
                return Err(Error::new("the pair does not become ready", format!("{why}\n{}", self.messages())));
            }
            std::thread::sleep(LOOK);
        }
    }

    /// Has every attempt been good for a while, and does none from before that still hang?
    pub fn client_is_well(&self) -> bool {
        self.prober.is_well(WELL) && self.prober.all_over_before(Instant::now() - WELL)
    }

    /// The last messages of both nodes.
    pub fn messages(&self) -> String {
        self.nodes.iter().map(|node| format!("--- {}\n{}", node.name, tail(&node.messages()))).collect()
    }

    fn not_ready_because(&self) -> std::result::Result<usize, String> {
        let [first, second] = self.nodes.each_ref().map(|node| node.status().map_err(|error| error.to_string()));
        let views = [first?, second?];
        let active = match views.each_ref().map(|view| is_active(&view.node)) {
            [true, false] => 0,
            [false, true] => 1,
            [false, false] => return Err("no node is active".into()),
            [true, true] => return Err("both nodes are active".into()),
        };
        if self.favourite.is_some_and(|favourite| favourite != active) {
            return Err("the node of higher priority is not active".into());
        }
        for view in &views {
            let name = &view.node.node;
            if !view.node.can_take_over {
                return Err(format!("{name} cannot take over: {}", view.node.cannot_take_over_because));
            }
            if view.node.balancer.state != BalancerState::Serving {
                return Err(format!("the balancer of {name} does not serve"));
            }
            let up = servers_up(&view.node);
            let running = self.servers.iter().filter(|server| server.is_running()).count();
            if up != running {
                return Err(format!("{name} sees {up} servers up, and {running} run"));
            }
            if let Some(peer) = view.peers.iter().find(|peer| !peer.connected) {
                return Err(format!("{name} has no link to {}: {}", peer.name, peer.link_error));
            }
            if let Some(peer) = view.peers.iter().find(|peer| !peer.status.can_take_over) {
                return Err(format!("{name} was told that {} cannot take over", peer.name));
            }
        }
        if !self.client_is_well() {
            return Err(format!("the client is not well: {:?}", self.prober.last()));
        }
        Ok(active)
    }
}

/// The floating IP and the frontend's port.
pub fn target() -> SocketAddr {
    (FLOATING, FRONTEND_PORT).into()
}

/// How many servers get traffic.
pub fn servers_up(status: &NodeStatus) -> usize {
    let servers = status.backends.iter().flat_map(|backend| &backend.servers);
    servers.filter(|server| server.state == ServerState::Up).count()
}

fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(40)..].iter().map(|line| format!("{line}\n")).collect()
}
