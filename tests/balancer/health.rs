//! How servers are checked, and what takes one down: its answers, its agent, its traffic.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use relevo::lab::node::send;
use relevo::status::ServerState;

use crate::rig::http::{get, response};
use crate::rig::node::{Relevo, relevo};
use crate::rig::place::{free_port, own_loopback};
use crate::rig::server::{Server, named};
use crate::rig::wait_until;
use crate::{configuration, server_of};

/// The servers of the backend are checked, as `backend` says.
fn checked(backend: &str, servers: &[SocketAddr]) -> (SocketAddr, String) {
    let (web, text) = configuration("", backend, servers);
    (web, text.replace("check = false", "check = true"))
}

/// Waits until the server is in this state for a reason with these words.
#[track_caller]
fn wait_for(node: &Relevo, server: &str, state: ServerState, reason: &str) {
    node.wait_for(&format!("{server} is {state:?}: {reason}"), |status| {
        let servers = status.node.backends.first().map_or(&[][..], |backend| &backend.servers);
        servers.iter().any(|it| it.name == server && it.state == state && it.reason.contains(reason))
    });
}

/// All of 20 requests are answered by this server.
#[track_caller]
fn assert_all_from(web: SocketAddr, server: &str, node: &Relevo) {
    for _ in 0..20 {
        let answer = get(web, "/");
        assert_eq!(server_of(&answer), server, "{answer:?}\n{}", node.messages());
    }
}

/// A check has its method, path, host, headers and port; a text that is no longer in the body takes the server down, and the
/// log says why, once.
#[test]
fn a_check_is_what_the_file_says_and_looks_into_the_body() {
    let _place = own_loopback();
    let server = Server::named("a");
    let state = Arc::new(Mutex::new(("all is well", String::new())));
    let checks = Server::answering({
        let state = Arc::clone(&state);
        move |request| {
            let mut state = state.lock().unwrap();
            state.1.clone_from(&request.head);
            response("203 Fine", "", state.0)
        }
    });
    let health = format!(
        "health = {{ path = \"/up?deep=1\", host = \"site.example\", headers = {{ X-Check = \"relevo\" }}, expect = [203], \
         expect_body = \"well\", port = {}, interval = \"50ms\", timeout = \"5s\", fall = 2 }}",
        checks.address.port()
    );
    let (web, text) = checked(&health, &[server.address]);
    let node = Relevo::start_with(&text, 1);
    assert_all_from(web, "a", &node);
    let head = state.lock().unwrap().1.to_ascii_lowercase();
    for line in ["get /up?deep=1 http/1.1", "host: site.example", "x-check: relevo"] {
        assert!(head.lines().any(|it| it == line), "{line} is not in\n{head}");
    }

    state.lock().unwrap().0 = "all is lost";
    node.wait_for_message("server app/a is down: the text \"well\" is not in the body");
    assert_eq!(get(web, "/").status(), 503);
    wait_for(&node, "a", ServerState::Down, "the text \"well\" is not in the body");
    state.lock().unwrap().0 = "well again";
    wait_for(&node, "a", ServerState::Up, "status 203 and the text");
    assert_all_from(web, "a", &node);
    let changes = node.messages().lines().filter(|line| line.contains("server app/a is down")).count();
    assert_eq!(changes, 1, "{}", node.messages());
}

/// A check that is never answered, and one whose answer never ends, are over in time; the others go on.
#[test]
fn checks_without_end_take_their_servers_down_and_nothing_else() {
    let _place = own_loopback();
    let silent = Server::start(|mut connection| drop(connection.receive_rest()));
    let endless = Server::start(|mut connection| {
        let _ = connection.receive();
        let _ = connection.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
        while connection.send("8\r\nnonsense\r\n").is_ok() {}
    });
    let sound = Server::answering(|_| response("200 OK", "X-Server: c\r\n", "ready"));
    let health = "health = { path = \"/\", expect_body = \"ready\", interval = \"100ms\", timeout = \"1s\", fall = 2 }";
    let (web, text) = checked(health, &[silent.address, endless.address, sound.address]);
    let node = Relevo::start_with(&text, 1);
    wait_for(&node, "a", ServerState::Down, "no answer within 1s");
    wait_for(&node, "b", ServerState::Down, "the text \"ready\" is not in the first 64 KiB of the body");
    assert_all_from(web, "c", &node);
}

/// A text counts where it stands whole in the first 64 KiB of the body, in however many pieces that comes; a head that is too much
/// says what of it may be.
#[test]
fn a_text_counts_where_the_documentation_says() {
    let _place = own_loopback();
    let at = |before: usize| {
        let body = format!("{}ready{}", "x".repeat(before), "x".repeat(1000));
        Server::answering(move |_| response("200 OK", "", &body))
    };
    let edge = 64 * 1024 - "ready".len();
    let many = "X-A: 1\r\n".repeat(150);
    let servers = [at(70_000), at(edge), at(edge + 1), Server::answering(move |_| response("200 OK", &many, "ready"))];
    let health = "health = { path = \"/\", expect_body = \"ready\", interval = \"100ms\", fall = 1 }";
    let (_web, text) = checked(health, &servers.each_ref().map(|server| server.address));
    let node = Relevo::start_with(&text, 1);
    const BEYOND: &str = "the text \"ready\" is not in the first 64 KiB of the body";
    wait_for(&node, "a", ServerState::Down, BEYOND);
    wait_for(&node, "b", ServerState::Up, "status 200 and the text");
    wait_for(&node, "c", ServerState::Down, BEYOND);
    wait_for(
        &node,
        "d",
        ServerState::Down,
        "the head of the answer is longer than 64 KiB or has more than 100 headers",
    );
}

/// A server that the balancer before knew as up is down after `fall` failures, not after the first: that one may have met the burst
/// of a takeover.
#[test]
fn a_server_that_was_up_falls_as_any_other_after_a_start() {
    let _place = own_loopback();
    let server = Server::named("a");
    let asked = Arc::new(AtomicUsize::new(0));
    // Well once, and never again.
    let checks = Server::answering({
        let asked = Arc::clone(&asked);
        move |_| response(if asked.fetch_add(1, Ordering::SeqCst) == 0 { "200 OK" } else { "503 Busy" }, "", "")
    });
    let port = checks.address.port();
    let health =
        format!("health = {{ path = \"/\", interval = \"1h\", fast_interval = \"1s\", fall = 3, port = {port} }}");
    let (web, text) = checked(&health, &[server.address]);
    let node = Relevo::start_with(&text, 1);
    let killed = node.balancer();
    send(killed, Signal::SIGKILL).unwrap();
    wait_for(&node, "a", ServerState::Up, "(1 of 3 failures)");
    assert_eq!(get(web, "/").status(), 200, "one failure is not enough\n{}", node.messages());
    wait_for(&node, "a", ServerState::Down, "status 503");
    assert_eq!(asked.load(Ordering::SeqCst), 4, "{}", node.messages());
}

/// Where many servers are checked, or asked by their agents, all are at once at the start; from then on at any time of the interval,
/// and none in step with the others. So also after a reload that shortens the interval.
#[test]
fn many_servers_are_not_checked_in_step() {
    const SERVERS: usize = 100;
    let _place = own_loopback();
    let times = || Arc::new(Mutex::new(Vec::new()));
    let noting = |times: &Arc<Mutex<Vec<Instant>>>, answer: &'static str| {
        let times = Arc::clone(times);
        Server::start(move |mut connection| {
            times.lock().unwrap().push(Instant::now());
            let _ = connection.send(answer);
        })
    };
    let (web, checks, agents) = (free_port(), times(), times());
    let (server, agent) = (noting(&checks, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"), noting(&agents, "up\n"));
    let configuration = |interval: &str| {
        let server = |number| format!("{{ name = 's{number}', address = '{}' }},\n", server.address);
        format!(
            "[frontends.web]\nbind = '{web}'\ndefault_backend = 'app'\n\
             [backends.app]\nhealth = {{ path = '/', interval = '{interval}' }}\n\
             agent = {{ port = {}, interval = '{interval}' }}\nservers = [\n{}]\n",
            agent.address.port(),
            (0..SERVERS).map(server).collect::<String>()
        )
    };
    let node = Relevo::start_with(&configuration("1s"), SERVERS);
    for (interval, reload) in [(1000, None), (500, Some("500ms"))] {
        if let Some(reload) = reload {
            node.reload_with(&configuration(reload));
        }
        let begin = Instant::now() + Duration::from_millis(interval);
        let end = begin + Duration::from_millis(interval);
        std::thread::sleep(end - Instant::now());
        for (what, times) in [("checks", &checks), ("agents", &agents)] {
            let mut parts = [0; 5];
            for time in times.lock().unwrap().iter().filter(|time| (begin..end).contains(time)) {
                parts[((*time - begin).as_millis() as usize * 5 / interval as usize).min(4)] += 1;
            }
            // A fifth each, were they spread evenly.
            assert!(parts.iter().all(|part| (SERVERS / 20..SERVERS / 2).contains(part)), "{what}: {parts:?}");
        }
    }
}

/// What answers slowly, by half, or with something else is no server, however it goes on; each says why it is down.
#[test]
fn half_an_answer_and_garbage_take_a_server_down() {
    let _place = own_loopback();
    let answering = |text: &'static str, ends: bool| {
        Server::start(move |mut connection| {
            let _ = connection.receive();
            let _ = connection.send(text);
            if !ends {
                let _ = connection.receive_rest();
            }
        })
    };
    let dripping = Server::start(|mut connection| {
        let _ = connection.receive();
        for byte in "HTTP/1.1 200 OK\r\nX-Long: ".bytes().chain(std::iter::repeat(b'x')) {
            if connection.send([byte]).is_err() {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    });
    let servers = [
        answering("SSH-2.0-OpenSSH_9.2\r\n\r\n", false),
        answering("HTTP/1.1 200 OK\r\nContent-Le", true),
        answering("HTTP/1.1 200 OK\r\nContent-Le", false),
        answering("", true),
        dripping,
        // It was asked for no more than a status.
        answering("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf", false),
    ];
    let health = "health = { path = \"/\", interval = \"100ms\", timeout = \"1s\", fall = 1 }";
    let (_, text) = checked(health, &servers.each_ref().map(|server| server.address));
    let node = Relevo::start_with(&text, 1);
    let closed = "the connection was closed before an answer came";
    let reasons = ["the answer is not HTTP/1", closed, "no answer within 1s", closed, "no answer within 1s"];
    for (name, reason) in ["a", "b", "c", "d", "e"].into_iter().zip(reasons) {
        wait_for(&node, name, ServerState::Down, reason);
    }
    wait_for(&node, "f", ServerState::Up, "status 200");
}

/// So many failures in a row take a server down and so many successes bring it back, and the log says after which.
#[test]
fn a_server_goes_down_after_a_row_of_failures_and_comes_back_after_a_row_of_successes() {
    let _place = own_loopback();
    let server = scripted(&[200, 500, 501, 200, 502, 503, 504, 201, 505, 202, 203]);
    let health = "health = { path = \"/\", interval = \"20ms\", timeout = \"5s\", rise = 2, fall = 3 }";
    let (_, text) = checked(health, &[server.0.address]);
    let node = Relevo::start(&text);
    node.wait_for_message("server app/a is up: status 203");
    let messages = node.messages();
    let changes: Vec<_> = messages.lines().filter_map(|line| line.split_once("server app/a is ")).collect();
    let changes: Vec<_> = changes.into_iter().map(|(_, change)| change).collect();
    assert_eq!(changes, ["up: status 200", "down: status 504, expected 200-399", "up: status 203"], "{messages}");
}

/// The next check comes after the interval that the last ones have earned. Here all but some are an hour.
#[test]
fn how_soon_the_next_check_comes_depends_on_the_last() {
    // Interval, fast interval, down interval; the checks' results; how many of them there are before the hour.
    let (soon, hour) = ("20ms", "1h");
    let rows: [(_, &[u16], usize); 6] = [
        ([hour, soon, soon], &[200, 200], 1),
        ([soon, hour, hour], &[200, 200, 500, 500], 3),
        ([soon, soon, hour], &[200, 500, 500, 500, 500], 4),
        ([hour, soon, hour], &[500, 500], 1),
        ([hour, hour, soon], &[500, 500, 200, 200], 3),
        ([hour, soon, soon], &[500, 500, 200, 200, 200], 4),
    ];
    let _place = own_loopback();
    let servers = rows.map(|(_, script, _)| scripted(script));
    let backends = rows.iter().zip(&servers).enumerate().map(|(row, (([interval, fast, down], ..), (server, _)))| {
        format!(
            "[backends.b{row}]\nhealth = {{ path = \"/\", interval = \"{interval}\", fast_interval = \"{fast}\", \
             down_interval = \"{down}\", timeout = \"5s\", rise = 2, fall = 3 }}\n\
             [[backends.b{row}.servers]]\nname = \"a\"\naddress = \"{}\"\n",
            server.address
        )
    });
    let frontend = format!("[frontends.web]\nbind = \"{}\"\ndefault_backend = \"b0\"\n", free_port());
    let node = Relevo::start(&(frontend + &backends.collect::<String>()));
    for ((intervals, _, expected), (_, asked)) in rows.iter().zip(&servers) {
        let is_checked = || asked.load(Ordering::SeqCst) >= *expected;
        wait_until(&format!("{expected} checks, with {intervals:?}"), is_checked, || node.messages());
    }
    std::thread::sleep(Duration::from_millis(300));
    for ((intervals, _, expected), (_, asked)) in rows.iter().zip(&servers) {
        assert_eq!(asked.load(Ordering::SeqCst), *expected, "{intervals:?}");
    }
}

/// Answers one request after the other with these statuses, and then with the last; how many it was asked.
fn scripted(statuses: &'static [u16]) -> (Server, Arc<AtomicUsize>) {
    let asked = Arc::<AtomicUsize>::default();
    let server = Server::answering({
        let asked = asked.clone();
        move |_| {
            let number = asked.fetch_add(1, Ordering::SeqCst).min(statuses.len() - 1);
            response(&format!("{} Told", statuses[number]), "X-Server: a\r\n", "")
        }
    });
    (server, asked)
}

/// A check goes to an address and a port of its own, and comes from the server's `source`, as the traffic does.
#[test]
fn a_check_has_its_own_address_and_the_servers_source() {
    let _place = own_loopback();
    let sources = [(); 2].map(|()| Arc::<Mutex<Vec<IpAddr>>>::default());
    let noting = |address: &str, sources: &Arc<Mutex<Vec<IpAddr>>>| {
        let sources = sources.clone();
        Server::start_at(address.parse().unwrap(), move |mut connection| {
            sources.lock().unwrap().push(connection.stream().peer_addr().unwrap().ip());
            while connection.receive().is_ok() {
                let _ = connection.send(response("200 OK", "X-Server: a\r\n", ""));
            }
        })
    };
    let (server, checks) = (noting("127.0.0.1:0", &sources[0]), noting("127.0.0.2:0", &sources[1]));
    let (web, text) = checked("health = { interval = \"50ms\", timeout = \"5s\", fall = 1 }", &[server.address]);
    let more = format!(
        "check = true\ncheck_address = \"127.0.0.2\"\ncheck_port = {}\nsource = \"127.0.0.3\"",
        checks.address.port()
    );
    let node = Relevo::start_with(&text.replace("check = true", &more), 1);
    assert_all_from(web, "a", &node);
    for sources in &sources {
        let sources = sources.lock().unwrap();
        assert!(!sources.is_empty() && sources.iter().all(|source| source.to_string() == "127.0.0.3"), "{sources:?}");
    }
    drop(checks);
    wait_for(&node, "a", ServerState::Down, "connection refused");
    assert_eq!(get(web, "/").status(), 503);
}

/// An agent gives its server weight, drains it, takes it down and brings it back, each with a sentence in the log; what is no
/// answer changes nothing.
#[test]
fn a_server_is_what_its_agent_says() {
    let _place = own_loopback();
    let servers = [Server::named("a"), Server::answering_at("127.0.0.2:0".parse().unwrap(), named("b"))];
    let says = Arc::new(Mutex::new("up ready 100%\n"));
    let asked = Arc::new(AtomicUsize::new(0));
    let agent = Server::start({
        let (says, asked) = (Arc::clone(&says), Arc::clone(&asked));
        move |mut connection| {
            let text = *says.lock().unwrap();
            let _ = connection.send(text);
            asked.fetch_add(1, Ordering::Relaxed);
        }
    });
    // Only the first server has one; the other's refuses connections.
    let backend = format!("agent = {{ port = {}, interval = \"300ms\" }}", agent.address.port());
    let (web, text) = configuration("", &backend, &servers.each_ref().map(|server| server.address));
    let node = Relevo::start(&text.replace("check = false", "check = false\nweight = 10"));
    let agent_says = |text| *says.lock().unwrap() = text;

    agent_says("30%\n");
    node.wait_for("it has the weight", |status| status.node.backends[0].servers[0].weight == 3);
    let answers: String = (0..26).map(|_| server_of(&get(web, "/")).to_owned()).collect();
    assert_eq!((answers.matches('a').count(), answers.matches('b').count()), (6, 20), "{answers}");

    agent_says("drain 100%\n");
    node.wait_for_message("server app/a is drained: its agent asks for drain");
    assert_all_from(web, "b", &node);
    agent_says("maint # upgrade\n");
    node.wait_for_message("server app/a is in maintenance: its agent asks for maintenance: upgrade");
    assert_all_from(web, "b", &node);
    agent_says("ready down # the disk is full\n");
    node.wait_for_message("server app/a is down: its agent says down: the disk is full");
    assert_all_from(web, "b", &node);

    agent_says("\u{1b}[31mHELLO");
    node.wait_for_message("the agent of server app/a at ");
    agent_says("x".repeat(1 << 20).leak());
    let before = asked.load(Ordering::Relaxed);
    node.wait_for("it is asked again", |_| asked.load(Ordering::Relaxed) > before + 3);
    wait_for(&node, "a", ServerState::Down, "its agent says down: the disk is full");
    let complaints = node.messages().lines().filter(|line| line.contains("the agent of server app/a")).count();
    assert_eq!(complaints, 1, "{}", node.messages());

    agent_says("up\n");
    wait_for(&node, "a", ServerState::Up, "not checked");
    let answers: String = (0..20).map(|_| server_of(&get(web, "/")).to_owned()).collect();
    assert_eq!(answers.matches('a').count(), 10, "{answers}");
}

/// `on_refused`: the first connection that is refused takes the server down, long before its next check; no client sees it.
#[test]
fn a_refused_connection_takes_a_server_down_at_once() {
    let _place = own_loopback();
    let mut servers = vec![Server::named("a"), Server::named("b")];
    let addresses: Vec<_> = servers.iter().map(|server| server.address).collect();
    let health = "health = { interval = \"1h\", fast_interval = \"100ms\", down_interval = \"100ms\", rise = 2, on_refused = \"mark_down\" }";
    let (web, text) = checked(health, &addresses);
    let node = Relevo::start_with(&text, 2);
    drop(servers.remove(0));
    assert_all_from(web, "b", &node);
    node.wait_for_message("server app/a is down: an error of its traffic: connection refused");

    wait_for(&node, "a", ServerState::Down, "");

    let _again = Server::answering_at(addresses[0], named("a"));
    wait_for(&node, "a", ServerState::Up, "connection accepted");
}

/// The check that follows soon is not forgotten in a reload.
#[test]
fn a_server_that_its_traffic_took_down_is_checked_soon_after_a_reload_too() {
    let _place = own_loopback();
    let [server, other] = ["a", "b"].map(Server::named);
    let address = server.address;
    let health = "health = { interval = \"1h\", fast_interval = \"1s\", rise = 1, on_refused = \"mark_down\" }";
    let (web, text) = checked(health, &[address, other.address]);
    let node = Relevo::start_with(&text, 2);
    drop(server);
    assert_all_from(web, "b", &node);
    node.wait_for_message("server app/a is down: an error of its traffic: connection refused");
    let _again = Server::answering_at(address, named("a"));
    node.reload_with(&text.replace("rise = 1", "rise = 1, fall = 2"));
    wait_for(&node, "a", ServerState::Up, "connection accepted");
}

/// `observe`: a server that passes its checks and fails its clients goes down after so many errors in a row.
#[test]
fn errors_of_the_traffic_take_a_server_down() {
    let _place = own_loopback();
    let failing = Server::answering(|_| response("503 Sorry", "X-Server: a\r\n", "sorry"));
    let sound = Server::named("b");
    let health = "health = { interval = \"1h\", fast_interval = \"1h\", observe = \"layer7\", error_limit = 5 }";
    let (web, text) = checked(health, &[failing.address, sound.address]);
    let node = Relevo::start_with(&text, 2);
    let errors = (0..40).filter(|_| get(web, "/").status() == 503).count();
    assert_eq!(errors, 5, "{}", node.messages());
    node.wait_for_message("server app/a is down: 5 errors of its traffic in a row, the last: status 503");
    assert_all_from(web, "b", &node);
}

/// `observe = "layer4"`: so many connections in a row that fail take a server down that passes its checks; what it answers is
/// no matter, and no client sees it.
#[test]
fn connections_that_fail_take_a_server_down() {
    let _place = own_loopback();
    let (alive, failing) = (Server::start(drop), Server::answering(|_| response("503 Sorry", "X-Server: b\r\n", "")));
    let health = "health = { interval = \"1h\", fast_interval = \"1h\", observe = \"layer4\", error_limit = 3 }";
    let (web, text) = configuration("", health, &[Server::nowhere(), failing.address]);
    let first = format!("check = true\ncheck_port = {}", alive.address.port());
    let node =
        Relevo::start_with(&text.replacen("check = false", &first, 1).replace("check = false", "check = true"), 2);
    assert_all_from(web, "b", &node);
    node.wait_for_message("server app/a is down: 3 errors of its traffic in a row, the last: connection refused");
    wait_for(&node, "b", ServerState::Up, "connection accepted");
}

/// In mode `"tcp"` there are no answers to be observed.
#[test]
fn answers_are_observed_in_http_only() {
    let (_, text) = configuration("mode = \"tcp\"", "health = { observe = \"layer7\" }", &[Server::nowhere()]);
    let directory = relevo::lab::directory::Directory::new().unwrap();
    let file = directory.path().join("relevo.toml");
    std::fs::write(&file, &text).unwrap();
    let output = relevo(&["check", "-c", file.to_str().unwrap()]);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{errors}");
    assert!(errors.contains("answers are observed in HTTP only"), "{errors}");
    std::fs::write(&file, text.replace("layer7", "layer4")).unwrap();
    assert!(relevo(&["check", "-c", file.to_str().unwrap()]).status.success());
}

/// A client's own mistakes do not take a server from the others.
#[test]
fn a_client_cannot_take_a_server_down() {
    let _place = own_loopback();
    let server = Server::named("a");
    let health = "health = { interval = \"1h\", observe = \"layer7\", error_limit = 1 }";
    let (web, text) = checked(health, &[server.address]);
    let node = Relevo::start_with(&text, 1);
    for broken in ["Transfer-Encoding: chunked\r\n\r\nno chunk\r\n", "Content-Length: 10\r\n\r\nshort"] {
        for _ in 0..3 {
            let mut connection = crate::connect(web);
            connection.send(format!("POST / HTTP/1.1\r\nHost: test\r\n{broken}")).unwrap();
            connection.finish().unwrap();
            connection.receive_rest().unwrap();
        }
    }
    assert_all_from(web, "a", &node);
    assert!(!node.messages().contains("server app/a is down"), "{}", node.messages());
}
