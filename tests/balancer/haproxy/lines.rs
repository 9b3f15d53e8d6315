//! The line for each request and each connection in the log.

use std::time::Duration;

use super::Haproxy;
use crate::rig::gate::Gate;
use crate::rig::http::{Connection, response};
use crate::rig::node::Relevo;
use crate::rig::place::{free_port, own_loopback};
use crate::rig::server::Server;
use crate::rig::wait_until;
use crate::{ask, csv};

/// What a line says but for ports, dates, bytes (each proxy writes its own heads and pages) and lengths of time, of which it
/// stays whether they are there.
fn timeless(line: &str) -> String {
    let (head, request) = line.split_once(" \"").unwrap_or((line, ""));
    let fields = head.split(' ').enumerate().map(|(index, field)| match index {
        0 => field.rsplit_once(':').map_or_else(|| field.to_owned(), |(address, _)| address.to_owned()),
        1 => field.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).filter(|c| !c.is_alphabetic()).collect(),
        4 => {
            let is_there = |time: &str| if time == "-1" { "-" } else { "+" };
            field.split('/').map(is_there).collect::<Vec<_>>().join("/")
        }
        6 => String::new(),
        _ => field.to_owned(),
    });
    format!("{} \"{request}", fields.collect::<Vec<_>>().join(" "))
}

/// Each request goes through both, to the same server, which is well-behaved for some.
#[test]
fn lines_are_those_that_haproxy_writes() {
    let _place = own_loopback();
    let server = Server::start(|mut connection: Connection| {
        while let Ok(request) = connection.receive() {
            let path = request.head.split(' ').nth(1).unwrap_or_default();
            let answer = match path.split('?').next().unwrap_or_default() {
                "/closed" => return,
                "/silent" => {
                    let _ = connection.receive_rest();
                    return;
                }
                "/short" => {
                    let _ = connection.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf");
                    return;
                }
                "/missing" => response("404 Not Found", "", "none"),
                _ => response("200 OK", "X-Kind: text\r\n", "x".repeat(1000)),
            };
            if connection.send(answer).is_err() {
                return;
            }
        }
    });
    let (ours, theirs, nowhere) = (free_port(), free_port(), Server::nowhere());
    let address = server.address;
    let node = Relevo::start(&format!(
        "[frontends.web]\nbind = \"{ours}\"\ndefault_backend = \"app\"\n\
         capture = {{ request = [\"User-Agent\", \"Referer\"], response = [\"X-Kind\"], length = 12 }}\n\
         [[frontends.web.routes]]\npath_prefix = \"/down\"\nbackend = \"gone\"\n\
         [backends.app]\ncookie = {{ name = \"S\", mode = \"insert\" }}\ntimeouts.server = \"300ms\"\n\
         servers = [{{ name = \"a\", address = \"{address}\", check = false }}]\n\
         [backends.gone]\nretries = 0\nservers = [{{ name = \"b\", address = \"{nowhere}\", check = false }}]\n",
    ));
    // With more threads a connection may still count in one while another takes the next.
    let haproxy = Haproxy::start(
        &format!(
            "global\n nbthread 1\n log stdout format raw local0\ndefaults\n mode http\n log global\n option httplog\n option redispatch\n\
             timeout client 10s\n timeout connect 5s\n timeout server 300ms\n timeout http-request 10s\n\
             frontend web\n bind {theirs}\n capture request header User-Agent len 12\n\
             capture request header Referer len 12\n capture response header X-Kind len 12\n\
             use_backend gone if {{ path_beg /down }}\n default_backend app\n\
             backend app\n cookie S insert indirect\n server a {address} cookie a\n\
             backend gone\n retries 0\n server b {nowhere}\n"
        ),
        theirs,
    );
    // The look whether HAProxy listens was a connection, too, and counts among those open until its line is written.
    haproxy.wait_for_line("<BADREQ>");
    let requests: &[(&str, &str)] = &[
        ("/first", ""),
        ("/cookie?a=b&c", "Cookie: S=a\r\n"),
        ("/agent", "User-Agent: curl/7.88.1 (long)\r\n"),
        ("/both", "User-Agent: a \"b\" {c}\r\nReferer: x|y\r\n"),
        ("/quo\"ted", ""),
        ("/missing", ""),
        ("/closed", ""),
        ("/silent", ""),
        ("/down", ""),
        ("/short", ""),
    ];
    for (path, headers) in requests {
        for place in [ours, theirs] {
            let mut connection = Connection::open(place).unwrap();
            connection
                .send(format!("GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n{headers}\r\n"))
                .unwrap();
            connection.receive_rest().unwrap();
        }
        let words = format!("GET {} HTTP/1.1", path.replace('"', "#22"));
        let (ours, theirs) = (node.wait_for_message(&words), haproxy.wait_for_line(&words));
        assert_eq!(timeless(&ours), timeless(&theirs), "\n{ours}\n{theirs}");
    }
}

/// The same of mode TCP: a connection that went well, and one to nobody.
#[test]
fn lines_of_connections_are_those_that_haproxy_writes() {
    let _place = own_loopback();
    let server = Server::named("a");
    let (nowhere, address) = (Server::nowhere(), server.address);
    let [ours, theirs, our_down, their_down] = std::array::from_fn(|_| free_port());
    let node = Relevo::start(&format!(
        "[frontends.web]\nmode = \"tcp\"\nbind = \"{ours}\"\ndefault_backend = \"app\"\n\
         [frontends.down]\nmode = \"tcp\"\nbind = \"{our_down}\"\ndefault_backend = \"gone\"\n\
         [backends.app]\nservers = [{{ name = \"a\", address = \"{address}\", check = false }}]\n\
         [backends.gone]\nretries = 0\nservers = [{{ name = \"b\", address = \"{nowhere}\", check = false }}]\n",
    ));
    let haproxy = Haproxy::start(
        &format!(
            "global\n log stdout format raw local0\ndefaults\n mode tcp\n log global\n option tcplog\n\
             timeout client 10s\n timeout connect 5s\n timeout server 10s\n\
             frontend web\n bind {theirs}\n default_backend app\n\
             frontend down\n bind {their_down}\n default_backend gone\n\
             backend app\n server a {address}\nbackend gone\n retries 0\n server b {nowhere}\n"
        ),
        theirs,
    );
    // The look whether HAProxy listens was a connection, too.
    haproxy.wait_for_line(" web app/a ");
    haproxy.lines.lock().unwrap().clear();
    for (place, words) in [([ours, theirs], " web app/a "), ([our_down, their_down], " down gone/b ")] {
        for address in place {
            let mut connection = Connection::open(address).unwrap();
            let _ = connection.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n");
            let _ = connection.finish();
            connection.receive_rest().unwrap();
        }
        let (ours, theirs) = (node.wait_for_message(words), haproxy.wait_for_line(words));
        let timeless = |line: &str| {
            let is_there = |time: &str| if time == "-1" { "-" } else { "+" };
            let fields: Vec<_> = line.split(' ').skip(2).collect();
            let times = fields[2].split('/').map(is_there).collect::<Vec<_>>().join("/");
            [fields[..2].join(" "), times, fields[3..].join(" ")].join(" ")
        };
        assert_eq!(timeless(&ours), timeless(&theirs), "\n{ours}\n{theirs}");
    }
}

/// In mode TCP the time of the data begins when the server is connected to.
#[test]
fn the_time_of_data_in_mode_tcp_is_haproxys() {
    let _place = own_loopback();
    let server = Server::start(|mut connection| {
        let _ = connection.receive_bytes(1);
        std::thread::sleep(Duration::from_millis(200));
        let _ = connection.send("late");
    });
    let (ours, theirs) = (free_port(), free_port());
    let address = server.address;
    const FORMAT: &str = "times of %b: %Tw %Tc %Td";
    let node = Relevo::start(&format!(
        "[log]\nformat = \"{FORMAT}\"\n[frontends.web]\nmode = \"tcp\"\nbind = \"{ours}\"\ndefault_backend = \"app\"\n\
         [backends.app]\nservers = [{{ name = \"a\", address = \"{address}\", check = false }}]\n",
    ));
    let haproxy = Haproxy::start(
        &format!(
            "global\n log stdout format raw local0\ndefaults\n mode tcp\n log global\n log-format \"{FORMAT}\"\n\
             timeout client 10s\n timeout connect 5s\n timeout server 10s\n\
             frontend web\n bind {theirs}\n default_backend app\nbackend app\n server a {address}\n"
        ),
        theirs,
    );
    haproxy.wait_for_line("times of app: ");
    haproxy.lines.lock().unwrap().clear();
    for place in [ours, theirs] {
        let mut connection = Connection::open(place).unwrap();
        connection.send("x").unwrap();
        assert_eq!(connection.receive_rest().unwrap(), b"late");
    }
    for line in [node.wait_for_message("times of app: "), haproxy.wait_for_line("times of app: ")] {
        let times: Vec<u64> = line.rsplit(' ').take(3).map(|time| time.parse().unwrap()).collect();
        assert!(times[0] >= 200, "the data took all of it: {line}");
    }
}

/// The same of requests that wait for a server that is full: until it is their turn, until that takes too long, and until their
/// client goes.
#[test]
fn lines_of_requests_that_waited_are_those_that_haproxy_writes() {
    let _place = own_loopback();
    let gates: [_; 4] = std::array::from_fn(|_| Gate::server("a"));
    let [ours, theirs, our_stats, their_stats] = std::array::from_fn(|_| free_port());
    let [app, impatient, their_app, their_impatient] = gates.each_ref().map(|(server, _)| server.address);
    let node = Relevo::start(&format!(
        "[stats]\nlisten = \"{our_stats}\"\n\
         [frontends.web]\nbind = \"{ours}\"\ndefault_backend = \"app\"\n\
         capture = {{ request = [\"Host\", \"X-None\"], response = [\"X-Server\", \"X-None\"] }}\n\
         routes = [{{ path_suffix = \"soon\", backend = \"impatient\" }}]\n\
         [backends.app]\ntimeouts.queue = \"20s\"\n\
         servers = [{{ name = \"a\", address = \"{app}\", max_connections = 1, check = false }}]\n\
         [backends.impatient]\ntimeouts.queue = \"300ms\"\n\
         servers = [{{ name = \"a\", address = \"{impatient}\", max_connections = 1, check = false }}]\n",
    ));
    let haproxy = Haproxy::start(
        &format!(
            "global\n log stdout format raw local0\ndefaults\n mode http\n timeout client 30s\n timeout connect 5s\n\
             timeout server 30s\n timeout queue 20s\n option abortonclose\n\
             frontend web\n log global\n option httplog\n bind {theirs}\n\
             capture request header Host len 64\n capture request header X-None len 64\n\
             capture response header X-Server len 64\n capture response header X-None len 64\n\
             use_backend impatient if {{ path_end soon }}\n default_backend app\n\
             frontend stats\n bind {their_stats}\n stats enable\n stats uri /\n\
             backend app\n server a {their_app} maxconn 1\n\
             backend impatient\n timeout queue 300ms\n server a {their_impatient} maxconn 1\n"
        ),
        theirs,
    );
    haproxy.wait_for_line("<BADREQ>");
    let close = "Connection: close\r\n";
    for (web, stats, [app, impatient]) in [(ours, our_stats, [0, 1]), (theirs, their_stats, [2, 3])] {
        let wait_for = |number: usize| {
            let waiting = || csv(stats, "app/BACKEND")["qcur"].clone();
            wait_until(&format!("{number} wait"), || waiting() == number.to_string(), waiting);
        };
        let mut served = vec![ask(web, "/held1", close)];
        gates[app].1.wait_for(1);
        served.push(ask(web, "/held2", close));
        wait_for(1);
        served.push(ask(web, "/held3", close));
        wait_for(2);
        let gone = ask(web, "/gone", close);
        wait_for(3);
        drop(gone);
        wait_for(2);
        for (connection, number) in served.iter_mut().zip(1..) {
            gates[app].1.wait_for(number);
            gates[app].1.let_through(1);
            connection.receive_rest().unwrap();
        }
        let mut first = ask(web, "/held-soon", close);
        gates[impatient].1.wait_for(1);
        ask(web, "/late-soon", close).receive_rest().unwrap();
        gates[impatient].1.let_through(1);
        first.receive_rest().unwrap();
    }
    for path in ["/held1", "/held2", "/held3", "/gone", "/late-soon", "/held-soon"] {
        let words = format!("GET {path} HTTP/1.1");
        let (ours, theirs) = (node.wait_for_message(&words), haproxy.wait_for_line(&words));
        // Not the counts of clients' connections: some were for the statistics, or are about to be closed.
        let comparable = |line: &str| {
            let line = timeless(line);
            let mut fields: Vec<_> = line.split(' ').collect();
            fields[10] = fields[10].splitn(3, '/').nth(2).unwrap_or_default();
            fields.join(" ")
        };
        assert_eq!(comparable(&ours), comparable(&theirs), "\n{ours}\n{theirs}");
    }
}
