//! Bytes in both directions: WebSocket connections and TCP mode.

use std::io::{ErrorKind, Read as _};
use std::net::TcpListener;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::rig::PATIENCE;
use crate::rig::http::{Connection, response};
use crate::rig::node::Relevo;
use crate::rig::place::{free_port, own_loopback};
use crate::rig::server::Server;
use crate::{configuration, connect};

const UPGRADE: &str = "GET /chat HTTP/1.1\r\nHost: test\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\
                       Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// Sends everything back until there is no more.
fn echo(mut connection: Connection) {
    while let Ok(byte) = connection.receive_bytes(1) {
        if connection.send(byte).is_err() {
            return;
        }
    }
}

/// After a 101 the connection belongs to client and server: bytes pass both ways, first those of the server that came with
/// its head, and the end of one side is told to the other.
#[test]
fn a_websocket_is_a_tunnel() {
    let _place = own_loopback();
    let server = Server::start(|mut connection| {
        let Ok(request) = connection.receive() else { return };
        assert_eq!(request.header("upgrade"), Some("websocket"), "{request:?}");
        assert!(request.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("upgrade")), "{request:?}");
        assert!(request.header("sec-websocket-key").is_some(), "{request:?}");
        let head = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                    Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\nwelcome";
        connection.send(head).unwrap();
        echo(connection);
    });
    // Longer than these the tunnel is idle: only its own timeout counts.
    let timeouts = "timeouts.server = \"100ms\"\ntimeouts.tunnel = \"1m\"";
    let (web, text) =
        configuration("timeouts.client = \"100ms\"\ntimeouts.http_keep_alive = \"100ms\"", timeouts, &[server.address]);
    let _node = Relevo::start(&text);
    let mut connection = connect(web);
    connection.send(UPGRADE).unwrap();
    let head = connection.receive_head().unwrap().to_lowercase();
    assert!(head.starts_with("http/1.1 101 "), "{head}");
    assert!(head.contains("\nupgrade: websocket") && head.contains("\nsec-websocket-accept: "), "{head}");
    assert_eq!(connection.receive_bytes(7).unwrap(), b"welcome");
    for size in [1, 1000, 100_000] {
        let message: Vec<u8> = (0..size).map(|number| number as u8).collect();
        let reader = connection.stream().try_clone().unwrap();
        let sender = std::thread::spawn({
            let message = message.clone();
            let mut writer = Connection::new(reader).unwrap();
            move || writer.send(message).unwrap()
        });
        assert!(connection.receive_bytes(size).unwrap() == message, "{size} bytes were changed");
        sender.join().unwrap();
        std::thread::sleep(Duration::from_millis(250));
    }
    connection.finish().unwrap();
    assert_eq!(connection.receive_rest().unwrap(), b"");
}

/// A server that refuses the upgrade answers as to any request.
#[test]
fn a_refused_upgrade_is_an_ordinary_answer() {
    let _place = own_loopback();
    let server = Server::answering(|_| response("403 Forbidden", "", "no"));
    let (web, text) = configuration("", "", &[server.address]);
    let _node = Relevo::start(&text);
    let mut connection = connect(web);
    connection.send(UPGRADE).unwrap();
    let answer = connection.receive().unwrap();
    assert_eq!((answer.status(), answer.text().as_str()), (403, "no"));
}

/// A 101 that agrees to nothing that was asked makes no tunnel (RFC 9110 §7.8, §15.2.2; RFC 6455 §4.2.2), and a WebSocket is asked
/// for with one key (§4.1).
#[test]
fn an_upgrade_is_what_both_sides_mean() {
    let _place = own_loopback();
    const ACCEPT: &str = "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n";
    let answers = [
        ("Upgrade: websocket\r\n", ACCEPT, 101),
        ("Upgrade: WebSocket\r\n", ACCEPT, 101),
        ("", "", 502),
        ("", ACCEPT, 502),
        ("Upgrade:\r\n", ACCEPT, 502),
        ("Upgrade: other\r\n", ACCEPT, 502),
        ("Upgrade: websocket, other\r\n", ACCEPT, 502),
        ("Upgrade: websocket\r\n", "", 502),
        ("Upgrade: websocket\r\n", "Sec-WebSocket-Accept: dGhlIHNhbXBsZSBub25jZQ==\r\n", 502),
    ];
    let server = Server::answering(move |request| {
        let index: usize = request.head.split(['/', ' ']).nth(2).unwrap().parse().unwrap();
        let (upgrade, accept, _) = answers[index];
        format!("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n{upgrade}{accept}\r\n").into_bytes()
    });
    let (web, text) = configuration("", "", &[server.address]);
    let node = Relevo::start(&text);
    for (index, (upgrade, accept, status)) in answers.into_iter().enumerate() {
        let mut connection = connect(web);
        connection.send(UPGRADE.replace("/chat", &format!("/{index}"))).unwrap();
        let head = connection.receive_head().unwrap();
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{upgrade:?} {accept:?}: {head}");
    }
    assert!(node.wait_for_message("GET /2 ").contains(" 502 "), "{}", node.messages());

    const KEY: &str = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let asked = server.connections();
    for request in [
        UPGRADE.replace(KEY, ""),
        UPGRADE.replace(KEY, "Sec-WebSocket-Key: short\r\n"),
        UPGRADE.replace(KEY, &KEY.repeat(2)),
        UPGRADE.replace("GET", "POST"),
    ] {
        let mut connection = connect(web);
        connection.send(&request).unwrap();
        assert_eq!(connection.receive().unwrap().status(), 400, "{request}");
    }
    assert_eq!(server.connections(), asked, "none of them reached the server");
}

/// TCP mode: whoever speaks first, whatever they say; an end of one direction leaves the other open; connections alternate.
#[test]
fn tcp_mode_passes_bytes() {
    let _place = own_loopback();
    let server = |name: &'static str| {
        Server::start(move |mut connection| {
            let _ = connection.send(format!("220 {name}\r\n"));
            let received = connection.receive_rest().unwrap_or_default();
            let _ = connection.send(format!("{name} got {} bytes, the last was {:?}", received.len(), received.last()));
        })
    };
    let servers = [server("a"), server("b")];
    let (tcp, text) = configuration("mode = \"tcp\"", "", &servers.each_ref().map(|server| server.address));
    let _node = Relevo::start(&text);
    let mut greetings = Vec::new();
    for _ in 0..6 {
        let mut connection = connect(tcp);
        let greeting = connection.receive_bytes(7).unwrap();
        connection.send(vec![7; 1_000_000]).unwrap();
        connection.finish().unwrap();
        let name = char::from(greeting[4]);
        let expected = format!("{name} got 1000000 bytes, the last was Some(7)");
        assert_eq!(String::from_utf8(connection.receive_rest().unwrap()).unwrap(), expected);
        greetings.push(name);
    }
    assert!(greetings.windows(2).all(|two| two[0] != two[1]), "{greetings:?}");
}

/// TCP mode without a server: the connection is closed at once, and none hangs.
#[test]
fn tcp_mode_closes_where_there_is_no_server() {
    let _place = own_loopback();
    let (tcp, text) = configuration("mode = \"tcp\"", "", &[Server::nowhere()]);
    let other = free_port();
    let server = Server::start(echo);
    let _node = Relevo::start(&format!(
        "[frontends.other]\nbind = \"{other}\"\nmode = \"tcp\"\ndefault_backend = \"other\"\n[[backends.other.servers]]\n\
         name = \"a\"\naddress = \"{}\"\ncheck = false\n{text}",
        server.address
    ));
    assert_eq!(connect(tcp).receive_rest().unwrap(), b"");
    let mut connection = connect(other);
    connection.send("ping").unwrap();
    assert_eq!(connection.receive_bytes(4).unwrap(), b"ping");
}

/// Who breaks off, and how much it had sent: little is copied, much is spliced.
#[derive(Debug, Clone, Copy)]
struct Break {
    is_by_client: bool,
    bytes: usize,
    /// The other side had finished before.
    is_half_closed: bool,
}

const BREAKS: [Break; 6] = [
    Break { is_by_client: true, bytes: 1000, is_half_closed: false },
    Break { is_by_client: true, bytes: 1_000_000, is_half_closed: false },
    Break { is_by_client: true, bytes: 1000, is_half_closed: true },
    Break { is_by_client: false, bytes: 1000, is_half_closed: false },
    Break { is_by_client: false, bytes: 1_000_000, is_half_closed: false },
    Break { is_by_client: false, bytes: 1000, is_half_closed: true },
];

/// Sends, and resets when all of it has arrived at the other side, which `arrived` tells.
fn break_off(mut connection: Connection, bytes: usize, arrived: &Receiver<()>) {
    connection.send(vec![b'x'; bytes]).unwrap();
    arrived.recv_timeout(PATIENCE).unwrap();
    socket2::SockRef::from(connection.stream()).set_linger(Some(Duration::ZERO)).unwrap();
}

/// The other side: how many bytes came, and by what they ended.
fn see_the_end(mut connection: Connection, case: Break, arrived: &Sender<()>) -> (usize, Option<ErrorKind>) {
    if case.is_half_closed {
        connection.finish().unwrap();
    }
    let received = connection.receive_bytes(case.bytes).unwrap().len();
    arrived.send(()).unwrap();
    let rest = connection.stream().read(&mut [0; 1]);
    (received, rest.err().map(|error| error.kind()))
}

/// A side that resets has not finished: the other sees a reset as well, or half an upload would look whole. In mode tcp and after a
/// 101.
#[test]
fn a_reset_is_passed_on_as_one() {
    let _place = own_loopback();
    const ANSWER: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                          Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
    for (mode, is_websocket) in [("mode = \"tcp\"", false), ("", true)] {
        for case in BREAKS {
            let ((tell, arrived), (report, outcome)) = (channel(), channel());
            let arrived = Arc::new(Mutex::new(arrived));
            let play = move |connection, breaks| match breaks {
                true => break_off(connection, case.bytes, &arrived.lock().unwrap()),
                false => report.send(see_the_end(connection, case, &tell)).unwrap(),
            };
            let of_server = play.clone();
            // It alone has its socket, which a reset takes.
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let (web, text) = configuration(mode, "", &[listener.local_addr().unwrap()]);
            let server = std::thread::spawn(move || {
                let mut connection = Connection::new(listener.accept().unwrap().0).unwrap();
                if is_websocket {
                    connection.receive_head().unwrap();
                    connection.send(ANSWER).unwrap();
                }
                of_server(connection, !case.is_by_client);
            });
            let _node = Relevo::start(&text);
            let mut connection = connect(web);
            if is_websocket {
                connection.send(UPGRADE).unwrap();
                connection.receive_head().unwrap();
            }
            play(connection, case.is_by_client);
            server.join().unwrap();
            let outcome = outcome.recv_timeout(PATIENCE).unwrap();
            assert_eq!(outcome, (case.bytes, Some(ErrorKind::ConnectionReset)), "{mode} {case:?}");
        }
    }
}

/// A server that has said enough and closes on somebody who still sends: its words arrive.
#[test]
fn last_words_arrive_though_nobody_listens_any_more() {
    let _place = own_loopback();
    let server = Server::start(|mut connection| {
        let _ = connection.receive_bytes(1);
        let _ = connection.send(vec![b'x'; 500_000]);
        // Closed with what has come since unread, so that the other side is reset.
    });
    let (tcp, text) = configuration("mode = \"tcp\"", "", &[server.address]);
    let _node = Relevo::start(&text);
    for _ in 0..5 {
        let mut connection = connect(tcp);
        connection.send(vec![7; 100_000]).unwrap();
        assert!(!connection.receive_rest().unwrap().is_empty());
    }
}
