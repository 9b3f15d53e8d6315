//! The line for each request, beside the one that the real HAProxy writes for the same request to the same servers.

use std::io::Read;
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use relevo::lab::directory::Directory;
use relevo::status::ServerState;

use crate::rig::gate::Gate;
use crate::rig::http::{Connection, exchange, response};
use crate::rig::node::Relevo;
use crate::rig::place::{free_port, own_loopback};
use crate::rig::server::Server;
use crate::rig::wait_until;
use crate::{ask, csv};

/// A running HAProxy and what it wrote.
struct Haproxy {
    process: Child,
    lines: Arc<Mutex<String>>,
    _directory: Directory,
}

impl Haproxy {
    fn start(configuration: &str, listens: SocketAddr) -> Self {
        let directory = Directory::new().unwrap();
        let file = directory.path().join("haproxy.cfg");
        std::fs::write(&file, configuration).unwrap();
        let mut command = Command::new("haproxy");
        command.arg("-db").arg("-f").arg(&file).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut process = command.spawn().expect("haproxy has to be installed: tests/run does that");
        let lines = Arc::<Mutex<String>>::default();
        let mut output = process.stdout.take().unwrap();
        std::thread::spawn({
            let lines = lines.clone();
            move || {
                let mut buffer = [0; 4096];
                while let Ok(length @ 1..) = output.read(&mut buffer) {
                    lines.lock().unwrap().push_str(&String::from_utf8_lossy(&buffer[..length]));
                }
            }
        });
        let haproxy = Self { process, lines, _directory: directory };
        wait_until("HAProxy listens", || Connection::open(listens).is_ok(), String::new);
        haproxy
    }

    #[track_caller]
    fn wait_for_line(&self, words: &str) -> String {
        let find = || self.lines.lock().unwrap().lines().find(|line| line.contains(words)).map(str::to_owned);
        wait_until(
            &format!("HAProxy's line with {words:?}"),
            || find().is_some(),
            || self.lines.lock().unwrap().clone(),
        );
        find().unwrap()
    }
}

impl Drop for Haproxy {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

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

/// What both are asked, in each mode: whether by POST, the path, and the request's cookie, in which `NOW`, `IDLE`, `OLD` and
/// `AHEAD` are dates.
const COOKIES: [(bool, &str, &str); 19] = [
    (false, "/", ""),
    (false, "/set", ""),
    (true, "/", ""),
    (true, "/set", ""),
    (false, "/", "a"),
    (false, "/set", "a"),
    (false, "/", "b"),
    (false, "/set", "b~own"),
    (false, "/", "gone"),
    (false, "/set", "gone~own"),
    (false, "/", "down"),
    (false, "/", "down~own"),
    (false, "/", "b|NOW|NOW"),
    (false, "/", "b|IDLE|NOW"),
    (false, "/", "b|NOW|OLD"),
    (false, "/set", "b|AHEAD|AHEAD"),
    (false, "/", "gone|NOW|IDLE"),
    (false, "/cacheable", ""),
    (false, "/cacheable", "b|nod"),
];

/// A date as it stands in a cookie: units of four seconds, rounded up, in base64.
fn date(seconds: u64) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let units = seconds.div_ceil(4);
    [24, 18, 12, 6, 0].map(|shift| char::from(LETTERS[(units >> shift & 0x3f) as usize])).iter().collect()
}

/// A cookie as both set it, though they may have done so a moment after each other.
fn undated(mut cookie: String) -> String {
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
    for seconds in now - 60..now + 8 {
        cookie = cookie.replace(&format!("|{}", date(seconds)), "|(now)");
    }
    cookie
}

/// In each mode both set the same cookies, show servers the same, understand each other's, and say the same of them in the log.
/// New sessions go to server a; b has those that come with its cookie, and of a third there is only the cookie left.
#[test]
fn cookies_are_those_that_haproxy_sets() {
    let modes = [
        ("mode = \"prefix\"", "prefix"),
        ("mode = \"rewrite\"", "rewrite"),
        ("mode = \"insert\"", "insert indirect"),
        ("mode = \"insert\", indirect = false", "insert"),
        ("mode = \"insert\", nocache = true", "insert indirect nocache"),
        (
            "mode = \"insert\", postonly = true, httponly = true, secure = true, domain = \".example.com\"",
            "insert indirect postonly httponly secure domain .example.com",
        ),
        ("mode = \"insert\", max_idle = \"10m\"", "insert indirect maxidle 10m"),
        ("mode = \"insert\", max_life = \"8h\"", "insert indirect maxlife 8h"),
        ("mode = \"insert\", max_idle = \"10m\", max_life = \"8h\"", "insert indirect maxidle 10m maxlife 8h"),
    ];
    let _place = own_loopback();
    let application = |name: &'static str| {
        Server::answering(move |request| {
            let path = request.head.split(' ').nth(1).unwrap_or_default();
            let further = match path.split('?').next().unwrap_or_default() {
                "/set" => "Set-Cookie: S=own; path=/app; HttpOnly\r\nSet-Cookie: other=1\r\n",
                "/cacheable" => "Cache-Control: public, max-age=60\r\n",
                _ => "",
            };
            let seen = request.header("cookie").unwrap_or("none").to_owned();
            // Without an ETag it is nothing that HAProxy would keep from caches.
            response("200 OK", &format!("X-Server: {name}\r\nETag: \"1\"\r\n{further}"), seen)
        })
    };
    let (servers, nowhere) = ([application("a"), application("b")], Server::nowhere());
    let [a, b] = servers.each_ref().map(|server| server.address);
    let places = modes.map(|_| [free_port(), free_port()]);
    let (mut ours, mut theirs) = (
        String::new(),
        String::from(
            "global\n log stdout format raw local0\ndefaults\n mode http\n log global\n option httplog\n option redispatch\n\
         timeout client 10s\n timeout connect 5s\n timeout server 10s\n",
        ),
    );
    for (mode, ((our_mode, their_mode), [our_place, their_place])) in modes.iter().zip(&places).enumerate() {
        ours += &format!(
            "[frontends.web{mode}]\nbind = \"{our_place}\"\ndefault_backend = \"app{mode}\"\n\
             [backends.app{mode}]\ncookie = {{ name = \"S\", {our_mode} }}\nhealth = {{ interval = \"50ms\", fall = 1 }}\n\
             servers = [\n{{ name = \"a\", address = \"{a}\", check = false }},\n\
             {{ name = \"b\", address = \"{b}\", check = false, weight = 0 }},\n\
             {{ name = \"down\", address = \"{nowhere}\" }},\n]\n",
        );
        theirs += &format!(
            "frontend web{mode}\n bind {their_place}\n default_backend app{mode}\n\
             backend app{mode}\n cookie S {their_mode}\n server a {a} cookie a\n server b {b} cookie b weight 0\n\
             server down {nowhere} cookie down check inter 50ms fall 1\n"
        );
    }
    let node = Relevo::start(&ours);
    node.wait_for("the last server of each is down", |status| {
        status.node.backends.iter().all(|backend| backend.servers[2].state == ServerState::Down)
    });
    let haproxy = Haproxy::start(&theirs, places[0][1]);
    for mode in 0..modes.len() {
        haproxy.wait_for_line(&format!("Server app{mode}/down is DOWN"));
    }

    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
    let dates = [("NOW", now + 12 * 3600), ("IDLE", now - 601), ("OLD", now - 9 * 3600), ("AHEAD", now + 90_000)];
    for (mode, ((_, words), places)) in modes.iter().zip(&places).enumerate() {
        let (mut number, mut cases) = (0, Vec::new());
        let mut ask_both = |method: &str, path: &str, cookie: &str| {
            number += 1;
            let cookie = dates.iter().fold(cookie.to_owned(), |cookie, (word, at)| cookie.replace(word, &date(*at)));
            let sent = if cookie.is_empty() { String::new() } else { format!("Cookie: x=1; S={cookie}; y=2\r\n") };
            let line = format!("{method} {path}?{mode}.{number} HTTP/1.1");
            let request = format!("{line}\r\nHost: test\r\nContent-Length: 0\r\nConnection: close\r\n{sent}\r\n");
            let answers = places.map(|place| exchange(place, &request));
            let [ours, theirs] = answers.each_ref().map(|answer| {
                let list = |name| answer.headers(name).map(|value| undated(value.to_owned())).collect::<Vec<_>>();
                let server = answer.header("x-server").map(str::to_owned);
                (answer.status(), server, list("set-cookie"), list("cache-control"), answer.text())
            });
            let case = format!("{words}: {line} {sent}");
            assert_eq!(ours, theirs, "{case}");
            cases.push((line, case));
            answers
        };
        for (is_post, path, cookie) in COOKIES {
            ask_both(if is_post { "POST" } else { "GET" }, path, cookie);
        }
        // What one has set, the other one knows.
        for answer in ask_both("POST", "/set", "") {
            let set = answer.headers("set-cookie").find_map(|cookie| cookie.strip_prefix("S=")).unwrap();
            ask_both("GET", "/known", set.split(';').next().unwrap());
        }

        for (line, case) in cases {
            // Server, status, termination state with the cookie's letters, retries.
            let [ours, theirs] = [node.wait_for_message(&line), haproxy.wait_for_line(&line)].map(|line| {
                let fields: Vec<_> = line.split(' ').map(str::to_owned).collect();
                let retries = fields[10].rsplit('/').next().unwrap_or_default().to_owned();
                [fields[3].clone(), fields[5].clone(), fields[9].clone(), retries]
            });
            assert_eq!(ours, theirs, "{case}");
            assert!(!line.contains("/known") || ours[2].starts_with("--V"), "{case}: {ours:?}");
        }
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
