//! What commands tell of a node that runs, for people, for scripts and for monitoring.

use std::time::Duration;

use nix::sys::signal::Signal;
use relevo::lab::node::send;
use relevo::status::ServerState;
use relevo::wish::Admin;

use super::operator::{done, server};
use crate::rig::http::{get, response};
use crate::rig::node::Relevo;
use crate::rig::place::own_loopback;
use crate::rig::server::Server;
use crate::rig::wait_until;
use crate::{configuration, connect};

/// Not what it counted when it last reported by itself, which it does five times a second.
#[test]
fn what_is_listed_is_what_is_counted_in_this_moment() {
    let _place = own_loopback();
    let a = Server::named("a");
    let (web, text) = configuration("", "", &[a.address]);
    let node = Relevo::start(&text);
    let mut lag = Duration::ZERO;
    for requests in 1..=20 {
        assert_eq!(get(web, "/").status(), 200);
        let begin = std::time::Instant::now();
        // The last is counted a moment after the client has its answer.
        wait_until("it is counted", || server(&node, "a").requests == requests, || node.messages());
        lag += begin.elapsed();
    }
    assert!(lag < Duration::from_secs(1), "{lag:?} for 20 looks");
    // One that hangs keeps nobody waiting.
    send(node.balancer(), Signal::SIGSTOP).unwrap();
    let begin = std::time::Instant::now();
    assert_eq!(server(&node, "a").requests, 20);
    assert!(begin.elapsed() < Duration::from_millis(500), "{:?}", begin.elapsed());
    send(node.balancer(), Signal::SIGCONT).unwrap();
}

/// For scripts that stop a server when nobody is at it any more.
#[test]
fn a_drain_may_wait_until_a_server_is_idle() {
    let _place = own_loopback();
    let (answers, held) = std::sync::mpsc::channel::<()>();
    let held = std::sync::Mutex::new(held);
    let a = Server::answering(move |_| {
        let _ = held.lock().unwrap().recv();
        response("200 OK", "Connection: close\r\n", "late")
    });
    let b = Server::named("b");
    let (web, text) = configuration("", "", &[a.address, b.address]);
    let node = Relevo::start(&text);
    let mut client = connect(web);
    client.send("GET /slow HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
    wait_until("it is under way", || server(&node, "a").connections == 1, || node.messages());

    std::thread::scope(|scope| {
        let drained = scope.spawn(|| (node.server(&["drain", "--wait", "app/a"]), std::time::Instant::now()));
        wait_until("it is drained", || server(&node, "a").admin == Admin::Drain, || node.messages());
        std::thread::sleep(Duration::from_millis(500));
        assert!(!drained.is_finished(), "its request is not over");
        let over = std::time::Instant::now();
        answers.send(()).unwrap();
        assert_eq!(client.receive().unwrap().text(), "late");
        let (output, returned) = drained.join().unwrap();
        assert!(done(&output).contains("app/a is ") && returned > over, "{output:?}");
    });
    // One that is idle is not waited for.
    done(&node.server(&["maintenance", "--wait", "app/b"]));
}

/// One line and the exit status that monitoring knows; and a picture each second.
#[test]
fn the_state_is_for_monitoring_and_for_a_screen_too() {
    let _place = own_loopback();
    let a = Server::named("a");
    let (_, text) = configuration("", "", &[a.address]);
    let text = text
        .replace("check = false", "check = true")
        .replace("[backends.app]", "[backends.app]\nhealth = { interval = \"100ms\" }");
    let node = Relevo::start(&text);
    let socket = format!("--socket={}", node.directory().join("control.sock").display());
    let check = || {
        let output = crate::rig::node::relevo(&["status", "--check", &socket]);
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    assert_eq!(check(), (Some(0), "OK: 1 of 1 servers up\n".to_owned()));
    drop(a);
    wait_until("it is down", || server(&node, "a").state == ServerState::Down, || node.messages());
    assert_eq!(check(), (Some(2), "CRITICAL: backend app has no server up\n".to_owned()));

    let mut watching = std::process::Command::new(crate::rig::node::BINARY);
    watching.args(["status", "--watch", &socket]).stdout(std::process::Stdio::piped());
    let mut watching = watching.spawn().unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(watching.stdout.take().unwrap()));
    let pictures = lines.by_ref().map(Result::unwrap).filter(|line| line.starts_with("lb1")).take(2).count();
    assert_eq!(pictures, 2);
    // Its reader goes.
    drop(lines);
    assert_eq!(watching.wait().unwrap().code(), Some(1));

    let status = node.stop();
    assert!(status.success());
    let (code, line) = check();
    assert!(code == Some(2) && line.starts_with("CRITICAL: no node runs here"), "{line}");
}
