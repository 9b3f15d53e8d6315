//! What a node lacks itself: files, ports, an address. It says so, serves whom it can, and blames no server.

use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::unistd::Pid;
use relevo::status::ServerState;
use socket2::{Domain, Socket, Type};

use crate::rig::http::Connection;
use crate::rig::node::{BINARY, Relevo};
use crate::rig::place::{free_port, own_network};
use crate::rig::server::{Server, named};
use crate::{configuration, connect, is_quiet};

/// Runs a program that has to succeed.
#[track_caller]
fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// From now on a process may open so many files.
#[track_caller]
fn allow_files(process: Pid, most: &str) {
    // Its user may do it everywhere, root only with a capability that containers take away.
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let id = |name| status.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next()?.parse().ok());
    let mut command = Command::new("prlimit");
    command.args(["--pid", &process.to_string(), &format!("--nofile={most}:")]);
    command.uid(id("Uid:").unwrap()).gid(id("Gid:").unwrap());
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Whatever the file says, there are no more clients than the limit of files is enough for; some files are left for checks and
/// servers, so that each client is served and no server is down. The rest waits, as with any limit. So also after a reload.
#[test]
fn there_are_no_more_connections_than_files() {
    let Some(_place) = own_network() else { return };
    let server = Server::named("a");
    let (web, text) = configuration("", "health = { interval = '20ms' }", &[server.address]);
    let text = format!("[process]\nthreads = 2\nmax_connections = 20000\n{}", text.replace("check = false", ""));
    let mut limited = Command::new("sh");
    limited.args(["-c", "ulimit -n 256 && exec \"$0\" \"$@\"", BINARY]);
    let node = Relevo::launch_by(limited, &text);
    node.wait_for_servers(1);
    let most = 56;
    node.wait_for_message("at most 56 client connections at a time, not 20000: at most 256 files may be open");
    node.reload_with(&text.replace("20000", "30000"));
    node.wait_for_message("at most 56 client connections at a time, not 30000");

    let mut open: Vec<_> = (0..most).map(|_| connect(web)).collect();
    for connection in &mut open {
        assert_eq!(connection.get("/").unwrap().status(), 200);
    }
    let mut waiting = connect(web);
    waiting.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
    assert!(is_quiet(&waiting), "{}", node.messages());
    for connection in &mut open {
        connection.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
    }
    for connection in &mut open {
        assert_eq!(connection.receive().unwrap().status(), 200, "{}", node.messages());
    }
    assert_eq!(node.status().unwrap().node.balancer.connections, most);
    node.wait_for_servers(1);
    drop(open.pop());
    assert_eq!(waiting.receive().unwrap().status(), 200);
    assert!(!node.messages().contains("is down"), "{}", node.messages());
}

/// A cell of the only server's row.
fn cell(stats: &mut Connection, column: &str) -> String {
    let text = stats.get("/;csv").unwrap().text();
    let place = text.lines().next().unwrap().split(',').position(|name| name == column).unwrap();
    text.lines()
        .find_map(|line| line.strip_prefix("app,a,").map(|_| line.split(',').nth(place)))
        .unwrap()
        .unwrap()
        .to_owned()
}

/// Takes the only two ports that connections can begin at, and gives them back with the value.
fn take_all_ports(servers: &[SocketAddr]) -> Vec<Socket> {
    let taken = [20000, 20001].into_iter().flat_map(|port| servers.iter().map(move |server| (port, *server)));
    let taken = taken.map(|(port, server)| {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.set_reuse_address(true).unwrap();
        socket.bind(&SocketAddr::from(([127, 0, 0, 1], port)).into()).unwrap();
        socket.connect(&server.into()).unwrap();
        socket
    });
    let taken = taken.collect();
    std::fs::write("/proc/sys/net/ipv4/ip_local_port_range", "20000 20001").unwrap();
    taken
}

/// Neither a check, nor an agent, nor the traffic that fails for want of files or ports takes a server down, strict as they may
/// be; the lack is said once. When it ends all goes on.
#[test]
fn what_a_node_lacks_takes_no_server_down() {
    for lacks_files in [true, false] {
        let Some(_place) = own_network() else { return };
        let server = Server::named("a");
        let agent = Server::start(|mut connection| drop(connection.send("up 100%\n")));
        let port = agent.address.port();
        let backend = format!(
            "connection = 'server_close'\nretries = 0\nagent = {{ port = {port}, interval = '20ms' }}\n\
             health = {{ path = '/', interval = '20ms', fall = 1, observe = 'layer4', error_limit = 1, on_refused = 'mark_down' }}"
        );
        let (web, text) = configuration("", &backend, &[server.address]);
        let listen = free_port();
        let text =
            format!("[process]\nthreads = 1\n[stats]\nlisten = '{listen}'\n{}", text.replace("check = false", ""));
        let node = Relevo::start_with(&text, 1);
        let (mut client, mut stats) = (connect(web), connect(listen));
        assert_eq!((client.get("/").unwrap().status(), cell(&mut stats, "check_status").as_str()), (200, "L7OK"));

        let taken = match lacks_files {
            true => {
                allow_files(node.balancer(), "8");
                Vec::new()
            }
            false => take_all_ports(&[server.address, agent.address]),
        };
        node.wait_for_message("servers cannot be checked for now, and what is known of them stays: ");
        node.wait_for_message("the agent of server app/a");
        for _ in 0..10 {
            assert_eq!(client.get("/").unwrap().status(), 503, "{}", node.messages());
        }
        node.wait_for_message(" 503 ");
        assert!(node.messages().contains(" RC-- "), "{}", node.messages());
        crate::wait_until("both are seen", || cell(&mut stats, "agent_status") == "SOCKERR", || node.messages());
        assert_eq!(["check_status", "status"].map(|column| cell(&mut stats, column)), ["SOCKERR", "UP"]);

        drop(taken);
        if lacks_files {
            allow_files(node.balancer(), "4096");
        } else {
            std::fs::write("/proc/sys/net/ipv4/ip_local_port_range", "32768 60999").unwrap();
        }
        crate::wait_until("it is checked again", || cell(&mut stats, "check_status") == "L7OK", || node.messages());
        assert_eq!(client.get("/").unwrap().status(), 200);
        let messages = node.messages();
        assert!(!messages.contains("is down"), "{messages}");
        for said in ["servers cannot be checked for now", "connections to servers cannot be made for now"] {
            assert_eq!(messages.matches(said).count(), 1, "{messages}");
        }
    }
}

/// A server that is to be asked from an address which this host does not have is not down: nobody has asked it.
#[test]
fn a_source_that_is_not_there_says_nothing_of_a_server() {
    let Some(_place) = own_network() else { return };
    let server = Server::start_at("0.0.0.0:0".parse().unwrap(), |mut connection| {
        while let Ok(request) = connection.receive() {
            if connection.send(named("a")(&request)).is_err() {
                return;
            }
        }
    });
    let at = SocketAddr::from(([127, 0, 0, 1], server.address.port()));
    let (web, text) = configuration("", "health = { interval = '20ms' }", &[at]);
    let node = Relevo::start(&text.replace("check = false", "source = '192.0.2.1'"));
    node.wait_for("its server is not known", |status| {
        let server = &status.node.backends[0].servers[0];
        server.state == ServerState::Starting && server.reason.contains("cannot connect from 192.0.2.1")
    });
    run("ip", &["address", "add", "192.0.2.1/32", "dev", "lo"]);
    node.wait_for_servers(1);
    assert_eq!(connect(web).get("/").unwrap().status(), 200);
    assert!(!node.messages().contains("is down"), "{}", node.messages());
}
