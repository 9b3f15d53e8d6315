//! The statistics as a person's browser, HAProxy's tools and Prometheus see them: the built binary, asked over HTTP.

mod page;
mod readers;
#[path = "../rig/mod.rs"]
mod rig;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use rig::http::{Connection, Message, get, response};
use rig::node::Relevo;
use rig::place::{free_port, own_loopback};
use rig::server::Server;
use rig::wait_until;

/// `admin:secret` and `reader:secret`, in Base64.
const ADMIN: &str = "YWRtaW46c2VjcmV0";
const READER: &str = "cmVhZGVyOnNlY3JldA==";
/// Of `secret`, by `openssl passwd -6`.
const HASH: &str = "$6$saltsalt$TVLlQcbpFVof5W3Yz4DTP6gRstiNuHwwTt6GLc1E5n0U0aDehy0S5knV8wiOQSpT0Y77vwPZN.Pq.H91p5hVO1";

/// A node with a backend of two servers, of which the second is down, and statistics in both places.
struct Place {
    web: SocketAddr,
    stats: SocketAddr,
    node: Relevo,
}

impl Place {
    fn start(server: &Server) -> Self {
        let (web, stats) = (free_port(), free_port());
        let node = Relevo::start(&format!(
            "[stats]\nlisten = \"{stats}\"\n\
             [frontends.web]\nbind = \"{web}\"\ndefault_backend = \"app\"\n\
             stats = {{ path = \"/stats\", realm = \"The pair\", users = {{ admin = \"secret\", reader = \"{HASH}\" }} }}\n\
             [backends.app]\nhealth = {{ path = \"/check\", interval = \"100ms\", fall = 1, rise = 1 }}\n\
             servers = [{{ name = \"one\", address = \"{}\" }}, {{ name = \"two\", address = \"{}\" }}]\n",
            server.address,
            Server::nowhere(),
        ));
        node.wait_for_servers(1);
        Self { web, stats, node }
    }

    /// The CSV's values by proxy and server, then by column.
    fn csv(&self) -> BTreeMap<String, BTreeMap<String, String>> {
        parse_csv(&get(self.stats, "/;csv;norefresh").text())
    }

    /// Waits until a value is this one.
    #[track_caller]
    fn wait_for(&self, row: &str, column: &str, value: &str) {
        let now = || self.csv()[row][column].clone();
        wait_until(&format!("{column} of {row} is {value}"), || now() == value, now);
    }
}

/// No text in these tests has a comma in it.
fn parse_csv(text: &str) -> BTreeMap<String, BTreeMap<String, String>> {
    let mut lines = text.lines();
    let columns: Vec<_> = lines.next().unwrap().strip_prefix("# ").unwrap().split(',').collect();
    let row = |line: &str| {
        let values = columns.iter().zip(line.split(','));
        let values: BTreeMap<_, _> = values.map(|(column, value)| ((*column).to_owned(), value.to_owned())).collect();
        (format!("{}/{}", values["pxname"], values["svname"]), values)
    };
    lines.filter(|line| !line.is_empty()).map(row).collect()
}

fn ask(address: SocketAddr, path: &str, credentials: Option<&str>) -> Message {
    let authorization = credentials.map_or(String::new(), |it| format!("Authorization: Basic {it}\r\n"));
    let mut connection = Connection::open(address).unwrap();
    connection.send(format!("GET {path} HTTP/1.1\r\nHost: test\r\n{authorization}\r\n")).unwrap();
    connection.receive().unwrap()
}

/// What clients and servers did is what is counted, for the frontend, the backend and the server.
#[test]
fn everything_that_happens_is_counted_where_it_happened() {
    let _place = own_loopback();
    let server = Server::answering(|request| match request.head.split(' ').nth(1) {
        Some("/missing") => response("404 Not Found", "", ""),
        Some("/broken") => response("500 Internal Server Error", "", ""),
        _ => response("200 OK", "", "x".repeat(1000)),
    });
    let place = Place::start(&server);
    let mut client = Connection::open(place.web).unwrap();
    for path in ["/", "/", "/missing", "/broken"] {
        client.get(path).unwrap();
    }
    let body = "y".repeat(5000);
    client.send(format!("POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 5000\r\n\r\n{body}")).unwrap();
    client.receive().unwrap();
    rig::http::exchange(place.web, "GET / HTTP/1.1\r\n\r\n");

    place.wait_for("web/FRONTEND", "req_tot", "6");
    let csv = place.csv();
    let values = |row: &str, columns: &[&str]| columns.iter().map(|it| csv[row][*it].clone()).collect::<Vec<_>>();
    let responses = ["hrsp_2xx", "hrsp_3xx", "hrsp_4xx", "hrsp_5xx"];
    assert_eq!(values("web/FRONTEND", &responses), ["3", "0", "2", "1"], "the 400 is the frontend's own");
    assert_eq!(values("app/BACKEND", &responses), ["3", "0", "1", "1"]);
    assert_eq!(values("app/one", &responses), ["3", "0", "1", "1"]);
    assert_eq!(values("app/two", &responses), ["0"; 4]);
    assert_eq!(values("web/FRONTEND", &["stot", "ereq", "scur", "status"]), ["2", "1", "1", "OPEN"]);
    assert_eq!(values("app/BACKEND", &["stot", "lbtot", "scur", "smax", "act"]), ["5", "5", "0", "1", "1"]);
    assert_eq!(values("app/one", &["connect", "reuse", "status"]), ["1", "4", "UP"]);
    let number = |row: &str, column: &str| csv[row][column].parse::<u64>().unwrap();
    assert!((5000 + 5 * 30..5000 + 5 * 100).contains(&number("app/one", "bin")), "{:?}", csv["app/one"]);
    assert!((3000 + 5 * 40..3000 + 5 * 200).contains(&number("app/one", "bout")), "{:?}", csv["app/one"]);
    assert!(number("web/FRONTEND", "bout") > number("app/one", "bout"));

    assert_eq!(values("app/two", &["status", "chkdown", "check_status"]), ["DOWN", "1", "L4CON"]);
    assert_eq!(values("app/one", &["check_status", "check_code"]), ["L7OK", "200"]);
}

/// A server that goes down is counted, and its time down grows.
#[test]
fn a_server_that_dies_is_seen_with_its_downtime() {
    let _place = own_loopback();
    let server = Server::named("one");
    let place = Place::start(&server);
    assert_eq!(place.csv()["app/BACKEND"]["status"], "UP");
    drop(server);
    place.wait_for("app/one", "status", "DOWN");
    place.wait_for("app/one", "downtime", "1");
    let csv = place.csv();
    assert_eq!((csv["app/one"]["chkdown"].as_str(), csv["app/one"]["chkfail"].as_str()), ("1", "1"));
    assert_eq!((csv["app/BACKEND"]["status"].as_str(), csv["app/BACKEND"]["chkdown"].as_str()), ("DOWN", "1"));
    assert_eq!(get(place.web, "/").status(), 503);
    let page = get(place.stats, "/").text();
    assert!(page.contains("<span class=\"pill down\">down</span>"), "{page}");
}

/// What agents say, what the traffic speaks for, and who stands by are where HAProxy's columns have them.
#[test]
fn agents_observation_and_backups_are_shown() {
    let _place = own_loopback();
    let elsewhere = || "127.0.0.2:0".parse().unwrap();
    let asked = Server::named("asked");
    let failing = Server::answering_at(elsewhere(), |_| response("500 Sorry", "", "sorry"));
    let standby = Server::answering_at(elsewhere(), |_| response("200 OK", "", "standby"));
    // Only the first server has one; at the others' address nobody listens there.
    let says = Arc::new(Mutex::new("25%\n"));
    let agent = Server::start({
        let says = Arc::clone(&says);
        move |mut connection| {
            let text = *says.lock().unwrap();
            let _ = connection.send(text);
        }
    });
    let (web, stats) = (free_port(), free_port());
    let node = Relevo::start(&format!(
        "[stats]\nlisten = \"{stats}\"\n[frontends.web]\nbind = \"{web}\"\ndefault_backend = \"app\"\n\
         [backends.app]\nbalance = \"random\"\nagent = {{ port = {}, interval = \"100ms\" }}\n\
         health = {{ interval = \"1h\", fast_interval = \"1h\", observe = \"layer7\", error_limit = 1 }}\n\
         servers = [{{ name = \"asked\", address = \"{}\", weight = 40 }}, \
         {{ name = \"failing\", address = \"{}\", weight = 5 }}, \
         {{ name = \"standby\", address = \"{}\", weight = 7, backup = true }}]\n",
        agent.address.port(),
        asked.address,
        failing.address,
        standby.address,
    ));
    node.wait_for_servers(3);
    let csv = || parse_csv(&get(stats, "/;csv").text());
    let values = |row: &str, columns: &[&str]| columns.iter().map(|it| csv()[row][*it].clone()).collect::<Vec<_>>();
    let wait_for = |row: &str, column: &str, value: &str| {
        let now = || csv()[row][column].clone();
        wait_until(&format!("{column} of {row} is {value}"), || now() == value, now);
    };

    wait_for("app/asked", "weight", "10");
    let agents = ["status", "agent_status", "agent_health", "last_agt"];
    assert_eq!(values("app/asked", &agents), ["UP", "L7OK", "1", "25%"]);
    wait_for("app/failing", "agent_status", "L4CON");
    assert_eq!(values("app/failing", &agents), ["UP", "L4CON", "1", "connection refused"]);
    let shares = ["status", "weight", "act", "bck"];
    assert_eq!(values("app/BACKEND", &shares), ["UP", "15", "2", "1"]);
    assert_eq!(values("app/standby", &shares), ["UP", "7", "0", "1"]);
    assert_eq!(values("app/BACKEND", &["algo"]), ["random"]);

    *says.lock().unwrap() = "down # night\n";
    node.wait_for_message("server app/asked is down: its agent says down: night");
    assert_eq!(values("app/asked", &agents), ["DOWN (agent)", "L7STS", "0", "down # night"]);
    assert_eq!(get(web, "/").status(), 500);
    node.wait_for_message("server app/failing is down: ");
    let observed = ["status", "hanafail", "check_status", "last_chk", "chkdown"];
    assert_eq!(values("app/failing", &observed), ["DOWN", "1", "HANA", "an error of its traffic: status 500", "1"]);
    assert_eq!(get(web, "/").text(), "standby");
    assert_eq!(values("app/BACKEND", &shares), ["UP", "7", "0", "1"]);

    *says.lock().unwrap() = "up drain\n";
    wait_for("app/asked", "status", "DRAIN (agent)");
    let page = get(stats, "/").text();
    for words in ["drain by its agent", "weight\u{a0}7, backup", "an error of its traffic: status 500 (HANA)"] {
        assert!(page.contains(words), "{words} is not in {page}");
    }
    let metrics = get(stats, "/metrics").text();
    for line in [
        "relevo_server_marked_down_total{backend=\"app\",server=\"failing\"} 1.0",
        "relevo_server_state{backend=\"app\",server=\"asked\",state=\"drain\"} 1.0",
    ] {
        assert!(metrics.lines().any(|it| it == line), "{line} is not in\n{metrics}");
    }
}

/// Retries count where the connection failed, and a failure for good where it was final.
#[test]
fn connections_that_fail_are_counted() {
    let _place = own_loopback();
    let (web, stats) = (free_port(), free_port());
    let server = Server::named("one");
    let _node = Relevo::start(&format!(
        "[stats]\nlisten = \"{stats}\"\n[frontends.web]\nbind = \"{web}\"\ndefault_backend = \"app\"\n\
         [backends.app]\nservers = [{{ name = \"one\", address = \"{}\", check = false }}, \
         {{ name = \"two\", address = \"{}\", check = false }}]\n",
        server.address,
        Server::nowhere(),
    ));
    for _ in 0..4 {
        assert_eq!(get(web, "/").status(), 200);
    }
    let csv = || parse_csv(&get(stats, "/;csv").text());
    wait_until("all are counted", || csv()["web/FRONTEND"]["req_tot"] == "4", || format!("{:?}", csv()));
    let csv = csv();
    assert_eq!((csv["app/two"]["wredis"].as_str(), csv["app/two"]["econ"].as_str()), ("2", "0"));
    assert_eq!((csv["app/one"]["hrsp_2xx"].as_str(), csv["app/BACKEND"]["wredis"].as_str()), ("4", "2"));
    assert_eq!(csv["app/two"]["status"], "no check");
}

/// A backend's mode is that of the frontends that lead to it, by a route or without.
#[test]
fn a_backend_that_tcp_leads_to_is_shown_as_such() {
    let _place = own_loopback();
    let stats = free_port();
    let server = |name: &str| {
        let servers = format!("servers = [{{ name = \"one\", address = \"{}\", check = false }}]", Server::nowhere());
        format!("[backends.{name}]\n{servers}\n")
    };
    let _node = Relevo::start(&format!(
        "[stats]\nlisten = \"{stats}\"\n[frontends.mail]\nmode = \"tcp\"\nbind = \"{}\"\ndefault_backend = \"others\"\n\
         routes = [{{ source = \"192.0.2.0/24\", backend = \"near\" }}]\n\
         [frontends.web]\nbind = \"{}\"\ndefault_backend = \"app\"\n{}{}{}",
        free_port(),
        free_port(),
        server("near"),
        server("others"),
        server("app"),
    ));
    let csv = parse_csv(&get(stats, "/;csv").text());
    assert_eq!(
        ["near", "others", "app"].map(|name| csv[&format!("{name}/BACKEND")]["mode"].clone()),
        ["tcp", "tcp", "http"]
    );
}

/// Without the password there is nothing to see, with it all three; a wrong method is refused.
#[test]
fn the_password_is_asked_for() {
    let _place = own_loopback();
    let server = Server::named("one");
    let place = Place::start(&server);
    for path in ["/stats", "/stats/", "/stats;csv", "/stats/metrics", "/stats?refresh=5"] {
        for wrong in [None, Some("YWRtaW46d3Jvbmc="), Some("!"), Some("OnNlY3JldA==")] {
            let answer = ask(place.web, path, wrong);
            assert_eq!(answer.status(), 401, "{path} {wrong:?}");
            assert_eq!(answer.header("www-authenticate"), Some("Basic realm=\"The pair\", charset=\"UTF-8\""));
            assert!(!answer.text().contains("app"), "{}", answer.text());
        }
        for right in [ADMIN, READER] {
            let answer = ask(place.web, path, Some(right));
            assert_eq!(answer.status(), 200, "{path} {right}");
            assert!(answer.text().contains("app"), "{}", answer.text());
            assert_eq!(answer.header("cache-control"), Some("no-store"));
        }
    }
    assert_eq!(get(place.web, "/statistics").text().lines().next(), Some("one"), "that is for the server");
    assert_eq!(rig::http::exchange(place.stats, "DELETE / HTTP/1.1\r\nHost: test\r\n\r\n").status(), 405);
    assert_eq!(get(place.stats, "/other").status(), 404);
    let mut connection = Connection::open(place.stats).unwrap();
    connection.send("HEAD / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n").unwrap();
    let head = Message { head: connection.receive_head().unwrap(), body: connection.receive_rest().unwrap() };
    assert!(head.status() == 200 && head.header("content-length").unwrap().len() > 3 && head.body.is_empty());
    let line = place.node.wait_for_message("\"GET /stats;csv HTTP/1.1\"");
    assert!(line.contains(" web web/<STATS> 0/0/0/0/") && line.contains(" 401 "), "{line}");
    assert!(line.contains(" - - LR-- ") && line.contains("/0/0/0 0/0 "), "{line}");
    place.wait_for("web/FRONTEND", "intercepted", "30");
    place.wait_for("web/FRONTEND", "hrsp_2xx", "11");
}

/// What a rule refuses counts as denied, what it answers as answered here; and rules come before the statistics.
#[test]
fn what_rules_refuse_and_answer_is_counted() {
    let _place = own_loopback();
    let server = Server::named("one");
    let (web, stats) = (free_port(), free_port());
    let text = r#"
[stats]
listen = "STATS"
[frontends.web]
bind = "WEB"
default_backend = "app"
trusted_proxies = "127.0.0.1"
stats = { path = "/stats", users = { admin = "secret" } }
rules = [
    { response_headers = { set = { X-Node = "{node}" } } },
    { when = { source = "192.0.2.0/24" }, deny = 403 },
    { when = { path = "/limited" }, rate_limit = { requests = 1, per = "1h" } },
    { when = { path = "/upload" }, deny_body = { regex = "evil" } },
    { when = { path = "/up" }, respond = { body = "up\n" } },
    { when = { path = "/old" }, redirect = { prefix = "/new" } },
    { when = { path = "/away" }, rewrite = { path = "/stats" } },
]
[backends.app]
servers = [{ name = "one", address = "APP", check = false }]
"#;
    let text = text.replace("STATS", &stats.to_string()).replace("WEB", &web.to_string());
    let node = Relevo::start(&text.replace("APP", &server.address.to_string()));
    let send = |line: &str, headers: &str, body: &str| {
        rig::http::exchange(web, format!("{line} HTTP/1.1\r\nHost: test\r\n{headers}\r\n{body}"))
    };
    let upload = |end: &str| {
        let body = "x".repeat(3000) + end;
        send("POST /upload", &format!("Content-Length: {}\r\n", body.len()), &body)
    };
    let password = format!("Authorization: Basic {ADMIN}\r\n");

    assert_eq!(["/limited", "/limited"].map(|path| send(&format!("GET {path}"), "", "").status()), [200, 429]);
    assert_eq!([upload("evil"), upload("good")].map(|answer| answer.status()), [403, 200]);
    let refused = send("GET /stats", &format!("{password}X-Forwarded-For: 192.0.2.7\r\n"), "");
    assert_eq!((refused.status(), refused.header("x-node")), (403, Some("lb1")));
    let line = node.wait_for_message("\"GET /stats HTTP/1.1\"");
    assert!(line.contains("192.0.2.7:0 [") && line.contains(" web web/<NOSRV> ") && line.contains(" PR-- "), "{line}");

    assert_eq!(send("GET /up", "", "").text(), "up\n");
    assert_eq!(send("GET /old", "", "").status(), 302);
    let shown = send("GET /stats", &password, "");
    assert_eq!((shown.status(), shown.header("x-node")), (200, Some("lb1")));
    assert_eq!(send("GET /away", &password, "").text().lines().next(), Some("one"), "it is the server's");

    let csv = || parse_csv(&get(stats, "/;csv").text());
    wait_until("all are counted", || csv()["web/FRONTEND"]["req_tot"] == "9", || format!("{:?}", csv()));
    let csv = csv();
    let values = |row: &str, columns: &[&str]| columns.iter().map(|it| csv[row][*it].clone()).collect::<Vec<_>>();
    assert_eq!(values("web/FRONTEND", &["dreq", "intercepted", "ereq"]), ["3", "3", "0"]);
    assert_eq!(values("web/FRONTEND", &["hrsp_2xx", "hrsp_3xx", "hrsp_4xx", "hrsp_5xx"]), ["5", "1", "3", "0"]);
    assert_eq!(values("app/BACKEND", &["req_tot", "dreq", "ereq"]), ["3", "0", ""], "the rest never came there");
    let received = |row: &str| csv[row]["bin"].parse::<u64>().unwrap();
    assert!((6008..6008 + 9 * 150).contains(&received("web/FRONTEND")), "both bodies, once: {csv:?}");
    assert!((3004..3004 + 3 * 150).contains(&received("app/BACKEND")), "{csv:?}");
}

/// The page says what the keeper knows, and comes again by itself.
#[test]
fn the_page_shows_the_node_and_refreshes() {
    let _place = own_loopback();
    let server = Server::named("one");
    let place = Place::start(&server);
    let page = || get(place.stats, "/?refresh=5").text();
    wait_until("the keeper has told of the pair", || page().contains("this node"), page);
    let page = page();
    assert!(page.contains("<h2>lb1 <small>this node</small></h2>"), "{page}");
    assert!(page.contains("<meta http-equiv=\"refresh\" content=\"5\">"), "{page}");
    assert!(page.contains("app") && page.contains("one") && page.contains("two"));
}
