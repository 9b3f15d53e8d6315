//! Servers by name: from /etc/hosts, and from a name server that learns the name only later.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::sync::{Arc, Mutex};

use relevo::lab::directory::Directory;
use relevo::status::ServerState;

use crate::rig::http::get;
use crate::rig::node::Relevo;
use crate::rig::place::{free_port, own_loopback, own_network, replace_file};
use crate::rig::server::{Server, named};
use crate::server_of;

const RESOLV_CONF: &str = "/etc/resolv.conf";

/// A name server on port 53 of this network: it knows one address, or none, for every name.
struct NameServer(Arc<Mutex<Option<Ipv4Addr>>>);

impl NameServer {
    fn start() -> Self {
        let known = Arc::<Mutex<Option<Ipv4Addr>>>::default();
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 53)).unwrap();
        std::thread::spawn({
            let known = Arc::clone(&known);
            move || {
                let mut query = [0; 512];
                while let Ok((length, client)) = socket.recv_from(&mut query) {
                    if let Some(answer) = answer(&query[..length], *known.lock().unwrap()) {
                        let _ = socket.send_to(&answer, client);
                    }
                }
            }
        });
        Self(known)
    }

    fn learn(&self, address: Ipv4Addr) {
        *self.0.lock().unwrap() = Some(address);
    }

    fn forget(&self) {
        *self.0.lock().unwrap() = None;
    }
}

/// An answer (RFC 1035 §4) with a time to live of one second; there are no addresses but of IPv4.
fn answer(query: &[u8], known: Option<Ipv4Addr>) -> Option<Vec<u8>> {
    let question = query.get(12..)?;
    let name_end = question.iter().position(|byte| *byte == 0)? + 1;
    let question = question.get(..name_end + 4)?;
    let is_address_query = question.get(name_end..name_end + 2)? == [0, 1];
    let record = known.filter(|_| is_address_query);
    let code = if known.is_some() { 0 } else { 3 };
    let mut answer = query.get(..2)?.to_vec();
    answer.extend([0x81, 0x80 | code, 0, 1, 0, u8::from(record.is_some()), 0, 0, 0, 0]);
    answer.extend(question);
    if let Some(address) = record {
        answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4]);
        answer.extend(address.octets());
    }
    Some(answer)
}

fn configuration(web: SocketAddr, server: &str) -> String {
    format!(
        "[frontends.web]\nbind = \"{web}\"\ndefault_backend = \"app\"\n\
         [backends.app]\nhealth = {{ interval = \"50ms\", rise = 1, fall = 1 }}\n\
         [[backends.app.servers]]\nname = \"a\"\naddress = \"{server}\"\n"
    )
}

/// A name that does not resolve is a server that is down, and no reason not to start; when it resolves the server comes up;
/// when it is forgotten nothing changes, and when its address changes the traffic follows.
#[test]
fn a_name_may_resolve_later_and_move() {
    let Some(_place) = own_network() else { return };
    if !Path::new(RESOLV_CONF).exists() {
        assert!(std::env::var_os("CI").is_none(), "there is no {RESOLV_CONF}");
        eprintln!("NOT TRIED: there is no {RESOLV_CONF} that could be replaced");
        return;
    }
    let directory = Directory::new().unwrap();
    let resolv_conf = directory.path().join("resolv.conf");
    std::fs::write(&resolv_conf, "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n").unwrap();
    replace_file(Path::new(RESOLV_CONF), &resolv_conf);
    let name_server = NameServer::start();
    let (first, second) = (Ipv4Addr::new(127, 0, 0, 21), Ipv4Addr::new(127, 0, 0, 22));
    let one = Server::answering_at((first, 8080).into(), named("one"));
    let _two = Server::answering_at((second, 8080).into(), named("two"));

    let web = free_port();
    let node = Relevo::start(&configuration(web, "app.example.org:8080"));
    node.wait_for("the server is down, for its name", |status| {
        let server = &status.node.backends[0].servers[0];
        server.state == ServerState::Down && server.reason.contains("app.example.org does not resolve")
    });
    assert_eq!(get(web, "/").status(), 503);

    name_server.learn(first);
    node.wait_for_servers(1);
    assert_eq!(server_of(&get(web, "/")), "one");

    // Whatever a name server says or does not say later: the last address that was known stays.
    name_server.forget();
    node.wait_for_message(
        "app.example.org no longer resolves (NXDOMAIN, there is no such name): 127.0.0.21:8080 is kept",
    );
    assert_eq!(server_of(&get(web, "/")), "one");

    name_server.learn(second);
    node.wait_for("it moves", |status| status.node.backends[0].servers[0].address.starts_with("127.0.0.22"));
    node.wait_for_servers(1);
    drop(one);
    assert_eq!(server_of(&get(web, "/")), "two");
}

/// What /etc/hosts says needs no name server.
#[test]
fn a_name_in_the_hosts_file_resolves() {
    let _place = own_loopback();
    let server = Server::named("a");
    let hosts = std::fs::read_to_string("/etc/hosts").unwrap_or_default();
    let is_known = |line: &str| line.split_whitespace().take(2).eq(["127.0.0.1", "localhost"]);
    if !hosts.lines().any(is_known) {
        assert!(std::env::var_os("CI").is_none(), "/etc/hosts does not say that localhost is 127.0.0.1");
        eprintln!("NOT TRIED: /etc/hosts does not say that localhost is 127.0.0.1");
        return;
    }
    let web = free_port();
    let _node = Relevo::start_with(&configuration(web, &format!("localhost:{}", server.address.port())), 1);
    assert_eq!(server_of(&get(web, "/")), "a");
}
