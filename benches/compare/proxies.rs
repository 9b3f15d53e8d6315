//! The proxies, configured to do the same, and the server behind them.

use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use nix::unistd::Pid;

use crate::peers::{Peer, Result};
use crate::rig::node::{BINARY, Relevo};
use crate::rig::place::free_port;
use crate::rig::wait_until;
use crate::rows::{Feature, Row};

/// nginx on two ports: `/` is small, `/16k` and `/1m` are what they say.
pub(crate) struct Origin {
    servers: [SocketAddr; 2],
    _nginx: Peer,
}

/// A proxy that answers.
pub(crate) struct Proxy {
    pub(crate) name: Name,
    pub(crate) address: SocketAddr,
    program: Program,
}

/// Which proxy it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Name {
    Relevo,
    /// Another Relevo.
    Beside,
    Haproxy,
    Nginx,
}

enum Program {
    Relevo(Relevo),
    Peer(Peer),
}

impl Origin {
    pub(crate) fn start(directory: &Path) -> Result<Self> {
        let servers = [free_port(), free_port()];
        for (name, length) in [("16k", 16 << 10), ("1m", 1 << 20)] {
            std::fs::write(directory.join(name), vec![b'x'; length])?;
        }
        // Its worker is somebody else's.
        std::fs::set_permissions(directory, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
        let http = format!(
            "access_log off; sendfile on;
server {{
    listen {}; listen {};
    location = / {{ return 200 \"hello\\n\"; }}
    location / {{ root {}; }}
}}",
            servers[0],
            servers[1],
            directory.display()
        );
        let nginx = Peer::nginx(directory, "origin", 1, &http, servers[1])?;
        Ok(Self { servers, _nginx: nginx })
    }
}

/// Relevo, the other Relevo if there is one, HAProxy and, where it can do what the row says, nginx.
pub(crate) fn start(row: &Row, origin: &Origin, beside: Option<&Path>, directory: &Path) -> Result<Vec<Proxy>> {
    let mut proxies = vec![relevo(Name::Relevo, Path::new(BINARY), row, origin)];
    proxies.extend(beside.map(|binary| relevo(Name::Beside, binary, row, origin)));
    proxies.push(haproxy(row, origin, directory)?);
    proxies.extend(nginx(row, origin, directory)?);
    for Proxy { name, address, .. } in &proxies {
        wait_until(&format!("{name:?} answers"), || answers(*address).unwrap_or(false), String::new);
    }
    Ok(proxies)
}

impl Proxy {
    pub(crate) fn pid(&self) -> Pid {
        match &self.program {
            Program::Relevo(node) => node.pid(),
            Program::Peer(peer) => peer.pid(),
        }
    }
}

fn answers(address: SocketAddr) -> std::io::Result<bool> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")?;
    Ok(std::io::read_to_string(stream)?.starts_with("HTTP/1.1 200"))
}

fn relevo(name: Name, binary: &Path, row: &Row, origin: &Origin) -> Proxy {
    const RULES: &str = r#"rules = [
    { when = { path_prefix = "/a/" }, deny = 403 }, { when = { path_prefix = "/b/" }, deny = 403 },
    { when = { path_prefix = "/c/" }, deny = 403 }, { when = { path_prefix = "/d/" }, deny = 403 },
    { when = { path_prefix = "/e/" }, deny = 403 },
    { request_headers = { set = { X-A = "a" } } }, { request_headers = { set = { X-B = "b" } } },
    { request_headers = { set = { X-C = "c" } } },
    { response_headers = { set = { X-D = "d" } } }, { response_headers = { set = { X-E = "e" } } },
]"#;
    let address = free_port();
    let [a, b] = origin.servers;
    // Whatever its version: it is not asked for its state, which that may tell otherwise.
    let configuration = format!(
        r#"
[process]
threads = {workers}
user = "nobody"
chroot = "/"

[log]
format = "{log}"

[frontends.web]
mode = "{mode}"
bind = ["{address}"]
default_backend = "app"
{forwarding}
{rules}

[backends.app]
{stick}
health = {{ {check}interval = "2s" }}
servers = [{{ name = "a", address = "{a}" }}, {{ name = "b", address = "{b}" }}]
"#,
        workers = row.workers,
        log = match (row.is_logged, row.is_tcp) {
            (false, _) => "off",
            (true, false) => "httplog",
            (true, true) => "tcplog",
        },
        mode = if row.is_tcp { "tcp" } else { "http" },
        forwarding = if row.is_tcp { "" } else { "forwarded_for = true" },
        check = if row.is_tcp { "" } else { r#"method = "HEAD", path = "/", "# },
        rules = if row.feature == Feature::TenRules { RULES } else { "" },
        stick = if row.feature == Feature::StickTable { r#"stick = { by = "source" }"# } else { "" },
    );
    let node = Relevo::launch_by(Command::new(binary), &configuration);
    Proxy { name, address, program: Program::Relevo(node) }
}

fn haproxy(row: &Row, origin: &Origin, directory: &Path) -> Result<Proxy> {
    const RULES: &str = "http-request deny if { path_beg /a/ }
    http-request deny if { path_beg /b/ }
    http-request deny if { path_beg /c/ }
    http-request deny if { path_beg /d/ }
    http-request deny if { path_beg /e/ }
    http-request set-header X-A a
    http-request set-header X-B b
    http-request set-header X-C c
    http-response set-header X-D d
    http-response set-header X-E e";
    let address = free_port();
    let [a, b] = origin.servers;
    let http = if row.is_tcp { "" } else { "http-reuse always\n    option forwardfor" };
    let configuration = format!(
        "global
    nbthread {workers}
defaults
    mode {mode}
    timeout connect 5s
    timeout client 50s
    timeout server 50s
    {http}
    {log}
frontend web
    bind {address}
    {rules}
    default_backend app
backend app
    balance roundrobin
    {check}
    {stick}
    default-server inter 2s check
    server a {a}
    server b {b}
",
        workers = row.workers,
        mode = if row.is_tcp { "tcp" } else { "http" },
        log = if row.is_logged { "log stdout format raw local0\n    option httplog" } else { "no log" },
        rules = if row.feature == Feature::TenRules { RULES } else { "" },
        check = if row.is_tcp { "" } else { "option httpchk HEAD /" },
        stick = if row.feature == Feature::StickTable {
            "stick-table type ip size 100k expire 30m\n    stick on src"
        } else {
            ""
        },
    );
    let peer = Peer::haproxy(directory, &configuration, address)?;
    Ok(Proxy { name: Name::Haproxy, address, program: Program::Peer(peer) })
}

/// Without checks, which it does not have. In mode TCP it wants a module of its own, and it has no stick tables.
fn nginx(row: &Row, origin: &Origin, directory: &Path) -> Result<Option<Proxy>> {
    if row.is_tcp || row.feature == Feature::StickTable {
        return Ok(None);
    }
    const RULES: &str = "location /a/ { return 403; } location /b/ { return 403; } location /c/ { return 403; }
    location /d/ { return 403; } location /e/ { return 403; }
    proxy_set_header X-A a; proxy_set_header X-B b; proxy_set_header X-C c; add_header X-D d; add_header X-E e;";
    let address = free_port();
    let [a, b] = origin.servers;
    let log = match row.is_logged {
        true => format!("access_log {}/proxy/access.log;", directory.display()),
        false => "access_log off;".to_owned(),
    };
    let http = format!(
        "{log}
upstream app {{ server {a}; server {b}; keepalive 128; keepalive_requests 1000000000; }}
server {{
    listen {address} reuseport;
    proxy_http_version 1.1; proxy_set_header Connection \"\";
    proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
    {rules}
    location / {{ proxy_pass http://app; }}
}}",
        rules = if row.feature == Feature::TenRules { RULES } else { "" },
    );
    let peer = Peer::nginx(directory, "proxy", row.workers, &http, address)?;
    Ok(Some(Proxy { name: Name::Nginx, address, program: Program::Peer(peer) }))
}
