//! Another configuration while it runs: `relevo reload` and SIGHUP, as clients, servers and whoever looks after it see them.

mod clients;
mod file;
mod known;
mod listeners;
mod many;

use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};

use relevo::status::{OldConfigurations, ServerStatus};

use crate::rig::node::Relevo;
use crate::rig::server::Server;
use crate::rig::wait_until;

/// A frontend `web` here, and a backend `app` of these servers, by name, unchecked.
fn configuration(web: SocketAddr, more: &str, servers: &[(&str, SocketAddr)]) -> String {
    let servers: String = servers
        .iter()
        .map(|(name, address)| {
            format!("[[backends.app.servers]]\nname = \"{name}\"\naddress = \"{address}\"\ncheck = false\n")
        })
        .collect();
    format!("{more}\n[frontends.web]\nbind = \"{web}\"\ndefault_backend = \"app\"\n{servers}")
}

fn server(node: &Relevo, name: &str) -> ServerStatus {
    let status = node.status().expect("it runs");
    let servers = status.node.backends.into_iter().flat_map(|backend| backend.servers);
    servers.into_iter().find(|server| server.name == name).unwrap_or_else(|| panic!("no server {name}"))
}

fn old_configurations(node: &Relevo) -> OldConfigurations {
    node.status().map(|status| status.node.balancer.old_configurations).unwrap_or_default()
}

#[track_caller]
fn wait_for_old_configurations(node: &Relevo, count: usize) {
    wait_until(
        &format!("{count} old configurations are there"),
        || old_configurations(node).count == count,
        || node.messages(),
    );
}

/// A server whose answers stop half-way until somebody says go on.
fn halting() -> (Server, Sender<()>) {
    let (go_on, wait) = channel();
    let wait: Mutex<Receiver<()>> = Mutex::new(wait);
    let server = Server::start(move |mut connection| {
        let Ok(request) = connection.receive() else { return };
        let head = if request.header("upgrade").is_some() {
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: chat\r\n\r\nfirst"
        } else {
            "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nfirst"
        };
        connection.send(head).unwrap();
        let _ = wait.lock().unwrap().recv();
        let _ = connection.send("last");
    });
    (server, go_on)
}
