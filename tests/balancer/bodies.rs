//! Bodies pass through unchanged, in both directions, in every framing.

use std::hash::{DefaultHasher, Hasher};

use crate::rig::curl::curl;
use crate::rig::http::{Message, response};
use crate::rig::node::Relevo;
use crate::rig::place::own_loopback;
use crate::rig::server::Server;
use crate::{configuration, connect};

const MEBIBYTE: usize = 1024 * 1024;

/// Bytes that repeat nowhere soon.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    let mut bytes: Vec<u8> = std::iter::repeat_with(&mut next).take(length.div_ceil(8)).flatten().collect();
    bytes.truncate(length);
    bytes
}

/// For messages: two bodies of ten mebibytes are not printed.
fn digest(bytes: &[u8]) -> (usize, u64) {
    let mut hasher = DefaultHasher::new();
    hasher.write(bytes);
    (bytes.len(), hasher.finish())
}

fn echo() -> Server {
    Server::answering(|request| {
        let framing = request.header("transfer-encoding").unwrap_or("length").to_owned();
        response("200 OK", &format!("X-Framing: {framing}\r\n"), &request.body)
    })
}

/// Ten mebibytes up and down again through curl, with a length and chunked.
#[test]
fn ten_mebibytes_come_back_as_they_went() {
    let _place = own_loopback();
    let server = echo();
    let (web, text) = configuration("", "", &[server.address]);
    let node = Relevo::start(&text);
    let (sent, received) = (node.directory().join("sent"), node.directory().join("received"));
    let body = noise(10 * MEBIBYTE + 1);
    std::fs::write(&sent, &body).unwrap();
    let (file, output) = (sent.display().to_string(), received.display().to_string());
    let url = format!("http://{web}/");
    for framing in ["X-With: length", "Transfer-Encoding: chunked"] {
        curl(&["--fail", "-H", "Expect:", "-H", framing, "-T", &file, "-o", &output, &url]);
        assert_eq!(digest(&std::fs::read(&received).unwrap()), digest(&body), "{framing}");
    }
    // curl asks for leave first: "Expect: 100-continue".
    curl(&["--fail", "-H", "Expect: 100-continue", "-T", &file, "-o", &output, &url]);
    assert_eq!(digest(&std::fs::read(&received).unwrap()), digest(&body), "100-continue");
}

/// A chunked request arrives chunked (its length is not known yet), and a chunked response too: piece by piece, not at its end.
#[test]
fn chunks_pass_as_they_come() {
    let _place = own_loopback();
    let (go_on, wait) = std::sync::mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let server = Server::start(move |mut connection| {
        let Ok(request) = connection.receive() else { return };
        assert_eq!(request.header("transfer-encoding"), Some("chunked"), "{request:?}");
        assert_eq!(request.text(), "hello world");
        let _ = connection.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n");
        let _ = wait.lock().unwrap().recv();
        let _ = connection.send("6\r\nsecond\r\n0\r\n\r\n");
    });
    let (web, text) = configuration("", "", &[server.address]);
    let _node = Relevo::start(&text);
    let mut connection = connect(web);
    let head = "POST / HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n";
    connection.send(format!("{head}6\r\nhello \r\n5\r\nworld\r\n0\r\n\r\n")).unwrap();
    let head = connection.receive_head().unwrap();
    assert!(head.to_lowercase().contains("transfer-encoding: chunked"), "{head}");
    assert_eq!(connection.receive_bytes(10).unwrap(), b"5\r\nfirst\r\n");
    go_on.send(()).unwrap();
    assert_eq!(connection.receive_bytes(16).unwrap(), b"6\r\nsecond\r\n0\r\n\r\n");
}

/// Large pieces, which pass without being copied, and small ones between them come in their order, also to a client that
/// reads slowly; and what comes after them on the same connection is the next answer.
#[test]
fn large_and_small_pieces_come_in_their_order() {
    let _place = own_loopback();
    let body = noise(3 * MEBIBYTE + 7);
    let sent = body.clone();
    let server = Server::start(move |mut connection| {
        while let Ok(request) = connection.receive() {
            if !request.head.starts_with("GET /large") {
                let _ = connection.send(response("200 OK", "", "small"));
                continue;
            }
            let _ = connection.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
            let mut rest = sent.as_slice();
            for length in [1, 300_000, 7, 65_536, 4096, 1_000_000, 32_768, 1, usize::MAX] {
                let (chunk, after) = rest.split_at(length.min(rest.len()));
                let _ = connection.send(format!("{:x}\r\n", chunk.len()));
                let _ = connection.send(chunk);
                let _ = connection.send("\r\n");
                rest = after;
            }
            let _ = connection.send("0\r\n\r\n");
        }
    });
    let (web, text) = configuration("", "", &[server.address]);
    let _node = Relevo::start(&text);
    let mut connection = connect(web);
    for pause in [0, 200] {
        connection.send("GET /large HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
        std::thread::sleep(std::time::Duration::from_millis(pause));
        let answer = connection.receive().unwrap();
        assert_eq!(digest(&answer.body), digest(&body), "after {pause} ms");
        assert_eq!(connection.get("/").unwrap().text(), "small");
    }
}

/// A server that breaks off in the middle of a large body: what has come of it arrives, and no end that looks like one.
#[test]
fn a_large_body_that_breaks_off_does_not_look_whole() {
    let _place = own_loopback();
    let server = Server::start(|mut connection| {
        let Ok(_) = connection.receive() else { return };
        let _ = connection.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", 2 * MEBIBYTE));
        let _ = connection.send(noise(MEBIBYTE));
    });
    let (web, text) = configuration("", "", &[server.address]);
    let node = Relevo::start(&text);
    let mut connection = connect(web);
    connection.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
    connection.receive_head().unwrap();
    assert_eq!(digest(&connection.receive_rest().unwrap()), digest(&noise(MEBIBYTE)));
    drop(node);
}

/// An answer without a length, which ends with its connection, arrives whole; HEAD and 204 have no body and no wait.
#[test]
fn answers_without_a_length_and_without_a_body() {
    let _place = own_loopback();
    let server = Server::start(|mut connection| {
        while let Ok(request) = connection.receive() {
            let answer: &[u8] = match request.head.split(' ').next() {
                Some("HEAD") => b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n",
                Some("DELETE") => b"HTTP/1.1 204 No Content\r\n\r\n",
                _ => b"HTTP/1.1 200 OK\r\n\r\nuntil the end",
            };
            let _ = connection.send(answer);
            if request.head.starts_with("GET") {
                return;
            }
        }
    });
    let (web, text) = configuration("", "", &[server.address]);
    let _node = Relevo::start(&text);
    let mut connection = connect(web);
    connection.send("HEAD / HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
    let head = connection.receive_head().unwrap();
    assert!(head.to_lowercase().contains("content-length: 1000"), "{head}");
    connection.send("DELETE / HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
    assert!(connection.receive_head().unwrap().starts_with("HTTP/1.1 204 "));
    assert_eq!(connection.get("/").unwrap().text(), "until the end");
}

/// What has no body may say how long it would be (RFC 9110 §8.6), and what comes next on the connection is not taken for it.
#[test]
fn a_length_without_a_body_goes_on() {
    let _place = own_loopback();
    let server = Server::answering(|request| {
        let status = request.head.split(['/', ' ']).nth(2).unwrap_or_default();
        let length = if request.head.contains("/plain") { "" } else { "Content-Length: 12345\r\n" };
        format!("HTTP/1.1 {status} Told\r\n{length}ETag: \"a\"\r\n\r\n").into_bytes()
    });
    for connection in ["keep_alive", "close"] {
        let (web, text) = configuration(&format!("connection = '{connection}'"), "", &[server.address]);
        let _node = Relevo::start(&text);
        let rows = [
            ("GET", "/304", Some("12345")),
            ("GET", "/304/plain", None),
            ("HEAD", "/304", Some("12345")),
            ("HEAD", "/304/plain", None),
            ("HEAD", "/200", Some("12345")),
            ("HEAD", "/200/plain", None),
            ("HEAD", "/404", Some("12345")),
            ("GET", "/204", None),
        ];
        let mut client = connect(web);
        for (method, path, length) in rows {
            for version in ["1.1", "1.0"] {
                if connection == "close" {
                    client = connect(web);
                }
                let request = format!("{method} {path} HTTP/{version}\r\nHost: test\r\nConnection: keep-alive\r\n\r\n");
                client.send(request).unwrap();
                let head = client.receive_head().unwrap();
                let message = Message { head, body: Vec::new() };
                assert_eq!(message.header("content-length"), length, "{method} {path} HTTP/{version}: {message:?}");
                assert_eq!(message.header("transfer-encoding"), None, "{message:?}");
                if connection == "close" {
                    assert_eq!(client.receive_rest().unwrap(), b"");
                }
            }
        }
    }
}
