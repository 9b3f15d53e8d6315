//! So many clients' connections and no more: at a frontend, in the process, from one source; and what slow ones can hold.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use crate::rig::http::{Connection, Message, get, response};
use crate::rig::node::{Relevo, relevo};
use crate::rig::place::own_loopback;
use crate::rig::server::Server;
use crate::rig::{PATIENCE, wait_until};
use crate::{ask, configuration, connect, connection_from, csv, is_quiet, limited};

/// Beyond its limit a frontend's connections wait in the kernel, and none is refused; the same of the whole process.
#[test]
fn connections_beyond_the_limit_wait_to_be_accepted() {
    let _place = own_loopback();
    for (process, frontend) in [("", "max_connections = 2"), ("max_connections = 2", "")] {
        let server = Server::named("a");
        let (web, text) = configuration(frontend, "", &[server.address]);
        let node = Relevo::start(&format!("[process]\nthreads = 2\n{process}\n{text}"));
        let mut open = vec![connect(web), connect(web)];
        for connection in &mut open {
            assert_eq!(connection.get("/").unwrap().status(), 200);
        }
        let mut waiting: Vec<_> = (0..4).map(|_| ask(web, "/", "")).collect();
        assert!(waiting.iter().all(is_quiet), "{}", node.messages());
        assert_eq!(node.status().unwrap().node.balancer.connections, 2);
        node.wait_for_message("have to wait");
        open.clear();
        // One after the other, as those before them go.
        while !waiting.is_empty() {
            let served = |connection: &Connection| connection.stream().peek(&mut [0]).is_ok();
            for connection in &waiting {
                connection.stream().set_read_timeout(Some(Duration::from_millis(5))).unwrap();
            }
            let begin = Instant::now();
            let next = loop {
                if let Some(next) = waiting.iter().position(served) {
                    break next;
                }
                assert!(begin.elapsed() < PATIENCE, "{}", node.messages());
            };
            let mut connection = waiting.swap_remove(next);
            connection.stream().set_read_timeout(Some(PATIENCE)).unwrap();
            assert_eq!(connection.receive().unwrap().status(), 200);
        }
        node.wait_for("all are closed", |status| status.node.balancer.connections == 0);
    }
}

/// A reload lets in who waits for the old limit, and turns nobody out whom the new one would not have let in.
#[test]
fn a_limit_changes_while_clients_wait() {
    let _place = own_loopback();
    let server = Server::named("a");
    let lines = |most: u32| format!("max_connections = {most}");
    let (web, text) = configuration(&lines(1), "", &[server.address]);
    let node = Relevo::start(&format!("[process]\nthreads = 2\n{text}"));
    let mut first = connect(web);
    assert_eq!(first.get("/").unwrap().status(), 200);
    let mut waiting = [ask(web, "/", ""), ask(web, "/", "")];
    assert!(waiting.iter().all(is_quiet), "{}", node.messages());
    node.reload_with(&format!("[process]\nthreads = 2\n{}", text.replace(&lines(1), &lines(3))));
    for connection in &mut waiting {
        assert_eq!(connection.receive().unwrap().status(), 200);
    }
    node.reload_with(&format!("[process]\nthreads = 2\n{text}"));
    for connection in waiting.iter_mut().chain([&mut first]) {
        assert_eq!(connection.get("/").unwrap().status(), 200);
    }
    assert!(is_quiet(&ask(web, "/", "")), "{}", node.messages());
}

/// One source may have so many connections, whatever it says about itself: the next one is closed, and counted.
#[test]
fn one_source_has_no_more_than_its_share() {
    let _place = own_loopback();
    let server = Server::named("a");
    for mode in ["http", "tcp"] {
        let frontend = format!("mode = \"{mode}\"\nmax_connections_per_source = 2");
        let (web, stats, text) = limited(&frontend, "", &[(server.address, "")]);
        let node = Relevo::start(&format!("[process]\nthreads = 2\n{text}"));
        let mut open = vec![connect(web), connect(web)];
        for connection in &mut open {
            assert_eq!(connection.get("/").unwrap().status(), 200);
        }
        for _ in 0..3 {
            let mut third = connect(web);
            let _ = third.send("GET / HTTP/1.1\r\nHost: test\r\nX-Forwarded-For: 192.0.2.9\r\n\r\n");
            assert_eq!(third.receive_rest().unwrap(), b"", "{mode}");
        }
        node.wait_for_message("there are 2 of its source");
        let row = csv(stats, "web/FRONTEND");
        assert_eq!((row["dcon"].as_str(), row["scur"].as_str(), row["stot"].as_str()), ("3", "2", "2"));
        let mut other = connection_from("127.0.0.2", web);
        assert_eq!(other.get("/").unwrap().status(), 200);
        open.pop();
        let again = || connect(web).get("/").is_ok_and(|answer| answer.status() == 200);
        wait_until("its place is free again", again, || node.messages());
    }
}

/// Resident memory in KiB.
fn memory(node: &Relevo) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", node.balancer())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Clients that do not read what they asked for: the server is read no further than buffers go, and nobody else waits.
#[test]
fn a_client_that_does_not_read_holds_neither_memory_nor_a_worker() {
    const SIZE: usize = 100 << 20;
    const CLIENTS: usize = 16;
    let _place = own_loopback();
    let sent = Arc::new(AtomicUsize::new(0));
    let server = Server::start({
        let sent = sent.clone();
        move |mut connection| {
            while let Ok(request) = connection.receive() {
                if request.head.starts_with("GET /large") {
                    let _ = connection.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {SIZE}\r\n\r\n"));
                    let piece = [b'x'; 64 << 10];
                    for _ in 0..SIZE / piece.len() {
                        if connection.send(piece).is_err() {
                            return;
                        }
                        sent.fetch_add(piece.len(), SeqCst);
                    }
                } else if connection.send(response("200 OK", "", "small")).is_err() {
                    return;
                }
            }
        }
    });
    let (web, text) = configuration("", "", &[server.address]);
    let node = Relevo::start(&format!("[process]\nthreads = 1\n{text}"));
    assert_eq!(get(web, "/").status(), 200);
    let before = memory(&node);
    let mut clients: Vec<_> = (0..CLIENTS).map(|_| ask(web, "/large", "")).collect();
    let mut last = (0, Instant::now());
    wait_until(
        "the server can send no more",
        || {
            let now = sent.load(SeqCst);
            if now != last.0 {
                last = (now, Instant::now());
            }
            now > 0 && last.1.elapsed() > Duration::from_millis(300)
        },
        || format!("{} bytes", sent.load(SeqCst)),
    );
    // The rest is in the kernel's buffers of four sockets.
    assert!(sent.load(SeqCst) < CLIENTS * SIZE / 4, "{} bytes were sent", sent.load(SeqCst));
    let grown = memory(&node).saturating_sub(before);
    assert!(grown < CLIENTS as u64 * 512, "{grown} KiB more for {CLIENTS} clients");
    let begin = Instant::now();
    assert_eq!(get(web, "/").status(), 200);
    assert!(begin.elapsed() < PATIENCE / 4);
    let answer: Message = clients.remove(0).receive().unwrap();
    assert_eq!(answer.body.len(), SIZE);
}

/// Heads that drip, from hundreds of clients: others are served meanwhile, and each is turned out with 408.
#[test]
fn a_crowd_of_slow_heads_keeps_nobody_from_being_served() {
    const CLIENTS: usize = 300;
    let _place = own_loopback();
    let server = Server::named("a");
    let (web, text) = configuration("timeouts.http_request = \"2s\"", "", &[server.address]);
    let node = Relevo::start(&format!("[process]\nthreads = 1\n{text}"));
    assert_eq!(get(web, "/").status(), 200);
    let before = memory(&node);
    let mut clients: Vec<_> = (0..CLIENTS).map(|_| connect(web)).collect();
    let is_over = AtomicBool::new(false);
    for client in &mut clients {
        client.send("GET / HTTP/1.1\r\nHost: test\r\nX-Slow: ").unwrap();
    }
    std::thread::scope(|scope| {
        let mut dripping: Vec<_> = clients.iter().map(|client| client.stream().try_clone().unwrap()).collect();
        let is_over = &is_over;
        scope.spawn(move || {
            while !is_over.load(SeqCst) {
                // Who was turned out can be written to no more.
                dripping.retain_mut(|client| client.write_all(b"x").is_ok());
                std::thread::sleep(Duration::from_millis(100));
            }
        });
        let begin = Instant::now();
        for _ in 0..20 {
            assert_eq!(get(web, "/").status(), 200);
        }
        assert!(begin.elapsed() < PATIENCE / 4, "others had to wait");
        let grown = memory(&node).saturating_sub(before);
        assert!(grown < CLIENTS as u64 * 64, "{grown} KiB more for {CLIENTS} clients");
        node.wait_for("all were turned out", |status| status.node.balancer.connections == 0);
        is_over.store(true, SeqCst);
    });
    let answers = clients.iter_mut().map(|client| client.receive_rest().unwrap());
    assert!(answers.filter(|answer| answer.starts_with(b"HTTP/1.1 408 ")).count() > 0, "nobody was told why");
    assert_eq!(get(web, "/").status(), 200);
}

/// Limits that could never be right are not taken.
#[test]
fn limits_that_mean_nothing_are_refused() {
    let rows = [
        ("max_connections = 0", "", "", "a whole number from 1 to 1000000"),
        ("max_connections_per_source = 0", "", "", "a whole number from 1 to 1000000"),
        ("", "", "max_connections = 0", "a whole number from 1 to 1000000"),
        ("", "", "max_queue = 5", "expected `max_connections` beside it"),
        ("", "max_queue = 5", "", "expected a server with `max_connections`"),
    ];
    let directory = relevo::lab::directory::Directory::new().unwrap();
    let file = directory.path().join("relevo.toml");
    for (frontend, backend, server, words) in rows {
        let (_, _, text) = limited(frontend, backend, &[(Server::nowhere(), server)]);
        std::fs::write(&file, text).unwrap();
        let output = relevo(&["check", "-c", file.to_str().unwrap()]);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{frontend}{backend}{server}: {errors}");
        assert!(errors.contains(words), "{errors}");
    }
}
