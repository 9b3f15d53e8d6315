//! The balancer on its own as clients and servers see it: the built binary on a loopback, without an election.

mod bodies;
mod bound;
mod choice;
mod connections;
mod early_answers;
mod error_files;
mod errors;
mod forwarded;
mod haproxy;
mod health;
mod hostile;
mod idle;
mod keys;
mod kill;
mod lack;
mod limits;
mod log;
mod log_targets;
mod log_trouble;
mod names;
mod operator;
mod output;
mod peers;
mod php;
mod queues;
mod reload;
mod retries;
#[path = "../rig/mod.rs"]
mod rig;
mod routing;
mod rules;
mod segments;
mod sessions;
mod stick;
mod telling;
mod timeouts;
mod tunnels;

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;

use rig::http::{Connection, Message, get};
use rig::place::free_port;
use rig::{PATIENCE, wait_until};

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

/// A backend `app` of servers with these further lines, named `a`, `b`, …; `backend` and `frontend` are further lines of theirs.
fn limited(frontend: &str, backend: &str, servers: &[(SocketAddr, &str)]) -> (SocketAddr, SocketAddr, String) {
    let addresses: Vec<_> = servers.iter().map(|(address, _)| *address).collect();
    let (web, mut text) = configuration(frontend, backend, &addresses);
    for ((address, lines), name) in servers.iter().zip('a'..) {
        let server = format!("name = \"{name}\"\naddress = \"{address}\"\n");
        text = text.replace(&server, &format!("{server}{lines}\n"));
    }
    let stats = free_port();
    (web, stats, format!("[stats]\nlisten = \"{stats}\"\n{text}"))
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

/// A request whose answer is awaited later.
fn ask(web: SocketAddr, path: &str, headers: &str) -> Connection {
    let mut connection = connect(web);
    connection.send(format!("GET {path} HTTP/1.1\r\nHost: test\r\n{headers}\r\n")).unwrap();
    connection
}

/// Has nothing come for a while?
fn is_quiet(connection: &Connection) -> bool {
    connection.stream().set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    let peeked = connection.stream().peek(&mut [0]);
    connection.stream().set_read_timeout(Some(PATIENCE)).unwrap();
    matches!(peeked, Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut))
}

/// The values of a line of the CSV by column.
fn csv(stats: SocketAddr, row: &str) -> BTreeMap<String, String> {
    let text = get(stats, "/;csv").text();
    let columns = text.lines().next().unwrap().trim_start_matches("# ").split(',');
    let line = text.lines().find(|line| line.starts_with(&row.replace('/', ","))).unwrap_or_else(|| panic!("{text}"));
    columns.zip(line.split(',')).map(|(column, value)| (column.to_owned(), value.to_owned())).collect()
}
