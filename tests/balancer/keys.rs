//! A key of the request chooses its server: what it is made of, and what moves when servers go and come.

use crate::choice::shares;
use crate::rig::http::{exchange, get};
use crate::rig::node::Relevo;
use crate::rig::place::own_loopback;
use crate::rig::server::Server;
use crate::{configuration, connect, connection_from, server_of};

/// Equal keys go to one server, whatever connection they come on, and many keys to all; a server that goes takes its own
/// keys elsewhere and leaves the others where they are.
#[test]
fn a_key_of_the_request_chooses_its_server() {
    for (balance, path, header) in [
        ("{ algorithm = \"uri\", depth = 1, hash = \"consistent\" }", "/KEY/other/RANDOM", ""),
        ("{ algorithm = \"parameter\", name = \"user\", hash = \"consistent\" }", "/RANDOM?x=1&user=KEY", ""),
        ("{ algorithm = \"header\", name = \"X-User\", hash = \"consistent\" }", "/RANDOM", "X-User: KEY\r\n"),
    ] {
        let _place = own_loopback();
        let mut servers = vec![Server::named("a"), Server::named("b"), Server::named("c")];
        let addresses: Vec<_> = servers.iter().map(|server| server.address).collect();
        let (web, text) = configuration("", &format!("balance = {balance}"), &addresses);
        let node = Relevo::start(&format!("[process]\nthreads = 2\n{text}"));
        let ask = |key: usize, random: usize| {
            let fill = |text: &str| text.replace("KEY", &format!("k{key}")).replace("RANDOM", &format!("r{random}"));
            let answer = exchange(web, format!("GET {} HTTP/1.1\r\nHost: test\r\n{}\r\n", fill(path), fill(header)));
            assert_eq!(answer.status(), 200, "{answer:?}\n{}", node.messages());
            server_of(&answer).to_owned()
        };
        let owners: Vec<_> = (0..30).map(|key| ask(key, 0)).collect();
        assert_eq!(owners, (0..30).map(|key| ask(key, key + 1)).collect::<Vec<_>>(), "{balance}");
        assert!(["a", "b", "c"].iter().all(|server| owners.iter().any(|owner| owner == server)), "{owners:?}");

        drop(servers.remove(0));
        for (key, owner) in owners.iter().enumerate() {
            let now = ask(key, 0);
            assert!(now == *owner || owner == "a" && now != "a", "{balance}: {key} went from {owner} to {now}");
        }
    }
}

/// The client that a trusted proxy names chooses, and not the proxy they all come through; whom anybody else names does not.
#[test]
fn clients_behind_a_trusted_proxy_have_servers_of_their_own() {
    let _place = own_loopback();
    let servers = ["a", "b", "c"].map(Server::named);
    let addresses = servers.each_ref().map(|server| server.address);
    let (web, text) = configuration("trusted_proxies = \"127.0.0.2\"", "balance = \"source\"", &addresses);
    let _node = Relevo::start(&text);
    let owners = |proxy: &str| -> Vec<_> {
        let mut connection = connection_from(proxy, web);
        let mut ask = |client: usize| {
            let request = format!("GET / HTTP/1.1\r\nHost: test\r\nX-Forwarded-For: 192.0.2.{client}\r\n\r\n");
            connection.send(request).unwrap();
            server_of(&connection.receive().unwrap()).to_owned()
        };
        (1..=30).map(&mut ask).collect()
    };
    let trusted = owners("127.0.0.2");
    assert!(["a", "b", "c"].iter().all(|server| trusted.iter().any(|owner| owner == server)), "{trusted:?}");
    assert_eq!(owners("127.0.0.2"), trusted);
    let others = owners("127.0.0.3");
    assert!(others.iter().all(|owner| *owner == others[0]), "{others:?}");
}

/// Rules come first: the path and the header that they leave are the key.
#[test]
fn a_key_is_made_of_what_the_rules_leave() {
    for (balance, rule) in [
        ("\"uri\"", "rewrite = { path = \"/all\" }"),
        ("{ algorithm = \"header\", name = \"X-Key\" }", "request_headers = { set = { X-Key = \"all\" } }"),
    ] {
        let _place = own_loopback();
        let servers = ["a", "b", "c"].map(Server::named);
        let addresses = servers.each_ref().map(|server| server.address);
        let rules = format!("rules = [{{ when = {{ path_prefix = \"/same/\" }}, {rule} }}]");
        let (web, text) = configuration(&rules, &format!("balance = {balance}"), &addresses);
        let _node = Relevo::start(&text);
        let ask = |path: String, key: usize| {
            exchange(web, format!("GET {path} HTTP/1.1\r\nHost: test\r\nX-Key: {key}\r\n\r\n"))
        };
        assert_eq!(shares((0..30).map(|key| ask(format!("/own/{key}"), key))).len(), 3, "{balance}");
        assert_eq!(shares((0..30).map(|key| ask(format!("/same/{key}"), key))).len(), 1, "{balance}");
    }
}

/// In mode `tcp` a client's address chooses; here there is one client.
#[test]
fn a_client_stays_at_its_server_in_tcp_mode() {
    let _place = own_loopback();
    let servers = ["a", "b", "c"].map(Server::named);
    let addresses = servers.each_ref().map(|server| server.address);
    let (web, text) = configuration("mode = \"tcp\"", "balance = \"source\"", &addresses);
    let _node = Relevo::start(&text);
    let shares = shares((0..20).map(|_| get(web, "/")));
    assert_eq!(shares.len(), 1, "{shares:?}");
}

/// What the key of a path is: two that have the same go to the same server, and of many that have not some go elsewhere.
#[test]
fn a_path_is_a_key_as_far_as_the_file_says() {
    let _place = own_loopback();
    let servers = ["a", "b", "c"].map(Server::named);
    let addresses = servers.each_ref().map(|server| server.address);
    // What is added to the algorithm; paths of one key, and paths of many.
    let rows = [
        ("", "/same?NUMBER", "/NUMBER"),
        ("whole = true", "/same", "/same?NUMBER"),
        ("length = 5", "/sameNUMBER", "/NUMBER"),
        ("depth = 2", "/one/two/NUMBER", "/one/NUMBER"),
    ];
    for (more, same, other) in rows {
        let balance = format!("balance = {{ algorithm = \"uri\", {more} }}").replace(",  }", " }");
        let (web, text) = configuration("", &balance, &addresses);
        let _node = Relevo::start(&text);
        let mut connection = connect(web);
        let mut servers_of = |path: &str| {
            shares((10..40).map(|number| connection.get(&path.replace("NUMBER", &number.to_string())).unwrap())).len()
        };
        assert_eq!(servers_of(same), 1, "{balance}: {same}");
        assert_eq!(servers_of(other), 3, "{balance}: {other}");
    }
}

/// Of ten servers one goes and comes back. Consistent: about a tenth of the keys move, its own, to all of the others; by a map
/// nearly all do. What comes back has its own keys.
#[test]
fn when_one_of_ten_servers_goes_its_own_keys_move() {
    const KEYS: usize = 1000;
    const NAMES: [&str; 10] = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"];
    let _place = own_loopback();
    let servers = NAMES.map(Server::named);
    let addresses = servers.each_ref().map(|server| server.address);
    for (hash, expected) in [("consistent", 0.08..0.12), ("map_based", 0.85..0.95)] {
        let balance = format!("balance = {{ algorithm = \"parameter\", name = \"user\", hash = \"{hash}\" }}");
        let (web, text) = configuration("", &balance, &addresses);
        let node = Relevo::start(&format!("[process]\nthreads = 2\n{text}"));
        let mut connection = connect(web);
        let mut owners = || -> Vec<String> {
            (0..KEYS).map(|key| server_of(&connection.get(&format!("/?user={key}")).unwrap()).to_owned()).collect()
        };
        let before = owners();
        assert!(node.server(&["maintenance", "app/d"]).status.success());
        let after = owners();
        let moved: Vec<_> = before.iter().zip(&after).filter(|(before, after)| before != after).collect();
        let share = moved.len() as f64 / KEYS as f64;
        assert!(expected.contains(&share), "{hash}: {share} of the keys moved");
        if hash == "consistent" {
            assert!(moved.iter().all(|(before, _)| *before == "d"), "a key of another moved");
            let heirs = NAMES.iter().filter(|name| moved.iter().any(|(_, after)| after == *name)).count();
            assert_eq!(heirs, 9, "{moved:?}");
        }
        assert!(node.server(&["ready", "app/d"]).status.success());
        assert_eq!(owners(), before, "{hash}");
    }
}
