//! `relevo server`: what people want of servers while the node runs, and what becomes of it at the wire.

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::Output;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use nix::sys::signal::Signal;
use relevo::lab::node::send;
use relevo::status::{BackendStatus, BalancerState, ServerState, ServerStatus};
use relevo::wish::Admin;

use crate::rig::http::{exchange, get, response};
use crate::rig::node::Relevo;
use crate::rig::place::own_loopback;
use crate::rig::server::Server;
use crate::rig::wait_until;
use crate::{configuration, connect, server_of};

/// What it said, where it was done.
#[track_caller]
pub(super) fn done(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

/// What it complained of, with this status.
#[track_caller]
fn refused(output: &Output, status: i32) -> String {
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(status), "{text}");
    assert_eq!(output.stdout, b"");
    text
}

pub(super) fn server(node: &Relevo, name: &str) -> ServerStatus {
    let status = node.status().unwrap().node;
    status.backends[0].servers.iter().find(|server| server.name == name).unwrap().clone()
}

/// Of 20 requests without a session, how many each of a, b and c gets.
fn shares(web: SocketAddr, requests: usize) -> [usize; 3] {
    let mut shares = [0; 3];
    for _ in 0..requests {
        let answer = get(web, "/");
        let index = ["a", "b", "c"].iter().position(|name| *name == server_of(&answer)).unwrap();
        shares[index] += 1;
    }
    shares
}

/// A drained server gets no new session from the moment the command returns; it keeps those that it has, also on connections
/// that are open. `ready` ends it. Each is one sentence in the log.
#[test]
fn a_drained_server_keeps_its_sessions_and_gets_no_new_ones() {
    let _place = own_loopback();
    let servers = ["a", "b"].map(Server::named);
    let backend = "cookie = { name = \"NODE\", mode = \"insert\" }";
    let (web, text) = configuration("", backend, &servers.each_ref().map(|server| server.address));
    let node = Relevo::start(&text);
    let of_a = "GET / HTTP/1.1\r\nHost: test\r\nCookie: NODE=a\r\n\r\n";
    let mut open = connect(web);
    open.send(of_a).unwrap();
    assert_eq!(server_of(&open.receive().unwrap()), "a");

    let answer = done(&node.server(&["drain", "app/a"]));
    assert!(answer.starts_with("app/a is drained, weight 1, "), "{answer}");
    assert_eq!(shares(web, 20), [0, 20, 0]);
    for _ in 0..3 {
        assert_eq!(server_of(&exchange(web, of_a)), "a", "a session from before");
        open.send(of_a).unwrap();
        assert_eq!(server_of(&open.receive().unwrap()), "a", "on a connection from before");
    }
    let status = server(&node, "a");
    assert_eq!((status.state, status.reason.as_str()), (ServerState::Drain, "asked for on lb1"));
    assert_eq!(server(&node, "b").state, ServerState::Up);

    done(&node.server(&["drain", "app/a"]));
    done(&node.server(&["ready", "app/a"]));
    assert_eq!(shares(web, 20), [10, 10, 0]);
    node.wait_for_message("server app/a is up");
    let messages = node.messages();
    let drained: Vec<_> = messages.lines().filter(|line| line.contains("server app/a is drained")).collect();
    assert!(matches!(drained[..], [line] if line.ends_with("asked for on lb1")), "{messages}");
}

/// Asks at the control socket as a command does.
fn asks(node: &Relevo, line: &str) -> UnixStream {
    let mut socket = UnixStream::connect(node.directory().join("control.sock")).unwrap();
    socket.write_all(line.as_bytes()).unwrap();
    socket
}

/// A command that failed, because the keeper or the guard did not answer in time, is not carried out when they do again.
#[test]
fn what_nobody_waits_for_any_more_is_not_done() {
    let _place = own_loopback();
    let servers = ["a", "b"].map(Server::named);
    let (_, text) = configuration("", "", &servers.each_ref().map(|server| server.address));
    let node = Relevo::start(&text);
    let before = node.status().unwrap().node;
    node.configure(&text.replace("check = false", "check = false\nweight = 9"));
    let lines = [
        "server drain app/a\n",
        "server maintenance app/b\n",
        "server weight 7 app/a app/b\n",
        "server weight 50% app/b\n",
        "reload\n",
        "reload",
    ];
    for process in [node.keeper(), node.pid()] {
        send(process, Signal::SIGSTOP).unwrap();
        // A guard that hangs keeps no order from being heard.
        let lines = lines.iter().filter(|line| process == node.keeper() || line.starts_with("reload"));
        let askers: Vec<_> = lines.map(|line| asks(&node, line)).collect();
        if process == node.pid() {
            // They come before this is answered; that they have gone the keeper sees when it looks around, each second.
            node.wait_for("the keeper asks the guard", |status| status.node.uptime_s > before.uptime_s);
        }
        drop(askers);
        if process == node.pid() {
            std::thread::sleep(Duration::from_millis(1200));
        }
        send(process, Signal::SIGCONT).unwrap();
        // What is done now comes behind what is done by then.
        done(&node.server(&["weight", "app/b", "1"]));
        let status = node.status().unwrap().node;
        assert_eq!(status.config_hash, before.config_hash, "{}", node.messages());
        for name in ["a", "b"] {
            let now = server(&node, name);
            assert_eq!(
                (now.admin, now.weight, now.configured_weight),
                (Admin::Ready, 1, 1),
                "{name}: {}",
                node.messages()
            );
        }
    }
    node.wait_for_message("whoever asked for a reload has not waited for it");
    assert!(!node.messages().contains("was reloaded"), "{}", node.messages());

    // Who says that no more comes still waits.
    let mut socket = asks(&node, "reload\n");
    socket.shutdown(Shutdown::Write).unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("ok: "), "{answer}");
}

/// Whatever becomes of its file, the control socket is there again within a second, for commands that were begun before as well.
#[test]
fn a_control_socket_that_is_lost_comes_back() {
    let _place = own_loopback();
    let (_, text) = configuration("", "", &[Server::named("a").address]);
    let node = Relevo::start(&text);
    let (directory, socket) = (node.directory(), node.directory().join("control.sock"));
    let aside = directory.with_extension("aside");
    let lose: [(&str, &dyn Fn()); 4] = [
        ("removed", &|| fs::remove_file(&socket).unwrap()),
        ("moved", &|| fs::rename(&socket, directory.join("other.sock")).unwrap()),
        ("another in its place", &|| {
            fs::remove_file(&socket).unwrap();
            drop(UnixListener::bind(&socket).unwrap());
        }),
        ("its folder gone", &|| fs::rename(directory, &aside).unwrap()),
    ];
    for (how, lose) in lose {
        lose();
        done(&node.server(&["list"]));
        let mode = fs::metadata(&socket).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o660, "{how}");
        let again = socket.clone();
        assert!(UnixStream::connect(again).is_ok(), "{how}");
    }
    fs::remove_dir_all(directory).unwrap();
    fs::rename(&aside, directory).unwrap();
    // The folder that is back has the socket of before, which nobody listens at.
    done(&node.server(&["list"]));
    done(&node.reload());
    assert_eq!(
        node.messages().matches("was removed or replaced, and was made again").count(),
        5,
        "{}",
        node.messages()
    );

    fs::remove_file(&socket).unwrap();
    fs::write(&socket, "precious").unwrap();
    node.wait_for_message("nobody can ask this node, whose control socket was removed or replaced");
    for said in [refused(&node.server(&["list"]), 1), refused(&node.reload(), 1)] {
        assert!(said.contains("a node runs here, and its control socket"), "{said}");
        assert!(!said.contains("relevo run"), "{said}");
    }
    assert_eq!(fs::read_to_string(&socket).unwrap(), "precious");
    assert_eq!(node.messages().matches("nobody can ask this node").count(), 1, "{}", node.messages());
    fs::remove_file(&socket).unwrap();
    done(&node.server(&["list"]));
    let place = socket.clone();
    assert!(node.stop().success());
    assert!(!place.exists());
    // That nobody answers is said as before where none runs.
    let gone = refused(&crate::rig::node::server(&place, &["list"]), 1);
    assert!(gone.contains("start it with `relevo run`"), "{gone}");
}

/// A server in maintenance gets nothing, not even a check; then the first check alone brings it back, and comes at once.
#[test]
fn a_server_in_maintenance_is_left_alone_until_it_is_ready() {
    let _place = own_loopback();
    let checks = [(); 2].map(|()| Arc::new(AtomicUsize::new(0)));
    let checked = |name: &'static str, checks: &Arc<AtomicUsize>| {
        let checks = Arc::clone(checks);
        Server::answering(move |request| {
            checks.fetch_add(usize::from(request.head.starts_with("GET /check ")), Ordering::SeqCst);
            response("200 OK", &format!("X-Server: {name}\r\n"), name)
        })
    };
    let servers = [checked("a", &checks[0]), checked("b", &checks[1])];
    let count = |server: usize| checks[server].load(Ordering::SeqCst);
    let backend = "cookie = { name = \"NODE\", mode = \"insert\" }\n\
                   health = { method = \"GET\", path = \"/check\", interval = \"20ms\", rise = 3 }";
    let (web, text) = configuration("", backend, &servers.each_ref().map(|server| server.address));
    let node = Relevo::start_with(&text.replace("check = false", "check = true"), 2);

    let answer = done(&node.server(&["maintenance", "app/a"]));
    assert!(answer.starts_with("app/a is in maintenance, "), "{answer}");
    assert_eq!(shares(web, 10), [0, 10, 0]);
    let of_a = "GET / HTTP/1.1\r\nHost: test\r\nCookie: NODE=a\r\n\r\n";
    assert_eq!(server_of(&exchange(web, of_a)), "b", "its sessions go to another");
    // One may have been under way.
    let (before, of_b) = (count(0), count(1));
    wait_until("the other is checked", || count(1) >= of_b + 10, || node.messages());
    assert!(count(0) <= before + 1, "it is checked in maintenance");
    assert_eq!(server(&node, "a").state, ServerState::Maintenance);

    done(&node.server(&["ready", "app/a"]));
    node.wait_for_servers(2);
    assert_eq!(server(&node, "a").reason, "status 200");
    assert_eq!(shares(web, 10), [5, 5, 0]);
}

/// However long the interval is.
#[test]
fn a_server_that_is_ready_again_is_checked_at_once() {
    let _place = own_loopback();
    let server = Server::named("a");
    let health = "health = { path = \"/\", interval = \"1h\", fast_interval = \"1h\", down_interval = \"1h\" }";
    let (web, text) = configuration("", health, &[server.address]);
    let node = Relevo::start_with(&text.replace("check = false", "check = true"), 1);
    done(&node.server(&["maintenance", "app/a"]));
    assert_eq!(get(web, "/").status(), 503);
    node.wait_for_message("backend app has no server left: none is up");
    drop(server);
    done(&node.server(&["ready", "app/a"]));
    node.wait_for_message("server app/a is down: connection refused");
}

/// A weight counts from the moment the command returns, as a number, as a share of the configured one, or that one again.
#[test]
fn weights_change_the_shares_of_servers() {
    let _place = own_loopback();
    let servers = ["a", "b", "c"].map(Server::named);
    let (web, text) = configuration("", "", &servers.each_ref().map(|server| server.address));
    let node = Relevo::start(&text.replace("check = false", "check = false\nweight = 10"));
    assert_eq!(shares(web, 30), [10, 10, 10]);
    let answer = done(&node.server(&["weight", "app/a", "30"]));
    assert_eq!(answer, "app/a is up, weight 30 (configured: 10), 0 connections now\n");
    assert_eq!(shares(web, 50), [30, 10, 10]);
    done(&node.server(&["weight", "app/a", "app/b", "50%"]));
    assert_eq!(shares(web, 40), [10, 10, 20]);
    let answer = done(&node.server(&["weight", "app/b", "0"]));
    assert!(answer.starts_with("app/b is drained, weight 0 (configured: 10)"), "{answer}");
    assert_eq!(shares(web, 30), [10, 0, 20]);
    done(&node.server(&["weight", "app/a", "app/b", "default"]));
    assert_eq!(shares(web, 30), [10, 10, 10]);
    node.wait_for_message("server app/a has the weight 30, its configured one is 10: asked for on lb1");
}

/// Nothing happens to any server if one of them is not there; wrong words are wrong usage.
#[test]
fn what_is_not_there_is_told_and_nothing_is_done() {
    let _place = own_loopback();
    let servers = ["a", "b"].map(Server::named);
    let (web, text) = configuration("", "", &servers.each_ref().map(|server| server.address));
    let node = Relevo::start(&text.replace("name = \"a\"", "name = \"backend1\""));
    let error = refused(&node.server(&["drain", "app/b", "app/bakcend1"]), 1);
    assert_eq!(error, "relevo: no server app/bakcend1; did you mean app/backend1?\n");
    let error = refused(&node.server(&["maintenance", "b"]), 1);
    assert_eq!(error, "relevo: no server b; did you mean app/b?\n");
    assert_eq!(shares(web, 10), [5, 5, 0]);
    let error = refused(&node.server(&["weight", "app/b", "257"]), 2);
    assert!(error.contains("expected 0 to 256"), "{error}");
    refused(&node.server(&["drain"]), 2);
    refused(&node.server(&["stop", "app/b"]), 2);
    let error = refused(&node.server(&["list", "ap"]), 1);
    assert_eq!(error, "relevo: no backend ap; did you mean app?\n");

    let socket = node.directory().join("nobody.sock").display().to_string();
    let error = refused(&crate::rig::node::relevo(&["server", "--socket", &socket, "drain", "app/b"]), 1);
    assert!(error.contains("no node runs here"), "{error}");
}

/// For people and for scripts.
#[test]
fn servers_are_listed() {
    let _place = own_loopback();
    let servers = ["a", "b"].map(Server::named);
    let (_, text) = configuration("", "", &servers.each_ref().map(|server| server.address));
    let sorry = "[[backends.app.servers]]\nname = \"sorry\"\naddress = \"127.0.0.1:9\"\ncheck = false\nbackup = true\n";
    let node = Relevo::start(&format!("{text}\n{sorry}"));
    done(&node.server(&["drain", "app/b"]));
    done(&node.server(&["weight", "app/b", "7"]));
    let text = done(&node.server(&["list"]));
    assert!(text.contains("\napp/sorry (backup)  127.0.0.1:9"), "{text}");
    let rows: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[0], ["server", "address", "state", "weight", "connections", "requests", "because"]);
    assert_eq!(rows[1][..4], ["app/a", &servers[0].address.to_string(), "up", "1"]);
    assert_eq!(rows[2][..6], ["app/b", &servers[1].address.to_string(), "drain", "7", "of", "1"]);
    let json = done(&node.server(&["list", "--json", "app"]));
    let backends: Vec<BackendStatus> = serde_json::from_str(&json).unwrap();
    assert_eq!(backends, node.status().unwrap().node.backends);
}

/// The keeper remembers what people want, and the balancer that follows one that was killed begins with it: no request goes
/// where it should not. It knows as well which servers were up.
#[test]
fn a_balancer_that_starts_again_begins_with_what_people_want() {
    let _place = own_loopback();
    let servers = ["a", "b", "c"].map(Server::named);
    // The second is checked by what never answers, from the second time on.
    let silent = Arc::new(AtomicUsize::new(0));
    let checks = Server::start({
        let silent = Arc::clone(&silent);
        move |mut connection| {
            let _ = connection.receive();
            match silent.load(Ordering::SeqCst) {
                0 => drop(connection.send(response("200 OK", "", ""))),
                _ => drop(connection.receive_rest()),
            }
        }
    });
    let health =
        format!("health = {{ path = \"/\", timeout = \"1h\", interval = \"1h\", port = {} }}", checks.address.port());
    let (web, text) = configuration("", &health, &servers.each_ref().map(|server| server.address));
    let node = Relevo::start_with(&text.replace("check = false", "check = true\nweight = 10"), 3);
    silent.store(1, Ordering::SeqCst);
    done(&node.server(&["drain", "app/a"]));
    done(&node.server(&["weight", "app/b", "30"]));

    let killed = node.balancer();
    send(killed, Signal::SIGKILL).unwrap();
    node.wait_for("another balancer serves", |status| {
        let balancer = &status.node.balancer;
        balancer.state == BalancerState::Serving && balancer.pid != killed.as_raw().cast_unsigned()
    });
    assert_eq!(shares(web, 40), [0, 30, 10]);
    node.wait_for("it has told its servers", |status| !status.node.backends.is_empty());
    let [a, b] = ["a", "b"].map(|name| server(&node, name));
    assert_eq!((a.state, a.reason.as_str()), (ServerState::Drain, "asked for on lb1"));
    assert_eq!((b.state, b.reason.as_str()), (ServerState::Up, "status 200 (told by the balancer before)"));
}

/// So does the guard, for the keeper that follows one that was killed: a node without a peer has nobody else to learn it from.
#[test]
fn a_keeper_that_starts_again_begins_with_what_people_want() {
    let _place = own_loopback();
    let servers = ["a", "b", "c"].map(Server::named);
    let (web, text) = configuration("", "", &servers.each_ref().map(|server| server.address));
    let node = Relevo::start(&text.replace("check = false", "check = false\nweight = 10"));
    done(&node.server(&["drain", "app/a"]));
    done(&node.server(&["weight", "app/b", "30"]));
    for shares_after in [[0, 30, 10], [10, 20, 10]] {
        let (keeper, balancer) = (node.keeper(), node.balancer());
        send(keeper, Signal::SIGKILL).unwrap();
        node.wait_for("another balancer serves", |status| {
            let now = &status.node.balancer;
            now.state == BalancerState::Serving && now.pid != balancer.as_raw().cast_unsigned()
        });
        assert_eq!(shares(web, 40), shares_after, "{}", node.messages());
        // And what is asked of one keeper is known to the one after the next.
        done(&node.server(&["ready", "app/a"]));
        done(&node.server(&["weight", "app/b", "200%"]));
    }
}

/// Another configuration changes nothing of what people want, not even of a server that is away meanwhile; a share is one of
/// the weight that is configured by then, and servers that are new are heard of.
#[test]
fn what_people_want_outlives_the_configuration() {
    let _place = own_loopback();
    let servers = ["a", "b", "c"].map(Server::named);
    let addresses = servers.each_ref().map(|server| server.address);
    let (_, all) = configuration("", "", &addresses);
    let (web, two) = configuration("", "", &addresses[..2]);
    // The same frontend in all of them.
    let bind = |text: &str| text.lines().find(|line| line.starts_with("bind")).unwrap().to_owned();
    let all = all.replace(&bind(&all), &bind(&two)).replace("check = false", "check = false\nweight = 20");
    let node = Relevo::start(&two.replace("check = false", "check = false\nweight = 10"));
    done(&node.server(&["drain", "app/a"]));
    done(&node.server(&["weight", "app/b", "50%"]));
    refused(&node.server(&["drain", "app/c"]), 1);

    node.reload_with(&all);
    assert_eq!(server(&node, "a").state, ServerState::Drain);
    assert_eq!(server(&node, "b").weight, 10);
    assert_eq!(shares(web, 30), [0, 10, 20]);
    done(&node.server(&["weight", "app/c", "10"]));
    assert_eq!(shares(web, 30), [0, 15, 15]);

    let without_a = all.replace("name = \"a\"", "name = \"other\"");
    node.reload_with(&without_a);
    refused(&node.server(&["ready", "app/a"]), 1);
    node.reload_with(&all);
    assert_eq!(shares(web, 30), [0, 15, 15]);
    done(&node.server(&["ready", "app/a"]));
    assert_eq!(shares(web, 40), [20, 10, 10]);
}
