//! The cookies that keep sessions.

use relevo::status::ServerState;

use super::Haproxy;
use crate::rig::http::{exchange, response};
use crate::rig::node::Relevo;
use crate::rig::place::{free_port, own_loopback};
use crate::rig::server::Server;

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

/// Where the application does not set its cookie, HAProxy leaves it with a server that no longer has the session. Ours goes along.
fn moves_without_a_word(mode: &str, path: &str, cookie: &str) -> bool {
    let moves: &[&str] = match mode {
        "prefix" => &["down~own"],
        "rewrite" => &["down"],
        _ => &[],
    };
    path == "/" && moves.contains(&cookie)
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
            if moves_without_a_word(words, path, cookie) {
                continue;
            }
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
