//! The balancer on its own as clients and servers see it: the built binary on a loopback, without an election.

mod bodies;
mod choice;
mod connections;
mod error_files;
mod early_answers;
mod errors;
mod forwarded;
mod haproxy;
mod health;
mod hostile;
mod idle;
mod kill;
mod limits;
mod log;
mod log_targets;
mod names;
mod operator;
mod php;
mod reload;
mod retries;
#[path = "../rig/mod.rs"]
mod rig;
mod routing;
mod rules;
mod sessions;
mod stick;
mod timeouts;
mod tunnels;

use std::net::SocketAddr;

use rig::http::{Connection, Message};
use rig::place::free_port;

/// A frontend `web` on a free port with a backend `app` of these servers, unchecked; `frontend` and `backend` are further
/// lines of theirs.
fn configuration(frontend: &str, backend: &str, servers: &[SocketAddr]) -> (SocketAddr, String) {
    let web = free_port();
    let servers: String = servers
        .iter()
        .zip('a'..)
        .map(|(address, name)| {
            format!("[[backends.app.servers]]\nname = \"{name}\"\naddress = \"{address}\"\ncheck = false\n")
        })
        .collect();
    let text = format!(
        "[frontends.web]\nbind = \"{web}\"\ndefault_backend = \"app\"\n{frontend}\n[backends.app]\n{backend}\n{servers}"
    );
    (web, text)
}

/// The server that an answer came from, as it names itself.
fn server_of(answer: &Message) -> &str {
    answer.header("x-server").unwrap_or_else(|| panic!("not from a server: {answer:?}"))
}

/// A connection to the frontend.
fn connect(web: SocketAddr) -> Connection {
    Connection::open(web).unwrap()
}

/// A client with an address of its own.
fn connection_from(source: &str, to: SocketAddr) -> Connection {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    let source: std::net::IpAddr = source.parse().unwrap();
    socket.bind(&SocketAddr::new(source, 0).into()).unwrap();
    socket.connect(&to.into()).unwrap();
    Connection::new(socket.into()).unwrap()
}
