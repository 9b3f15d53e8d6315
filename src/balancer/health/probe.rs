//! One check of one server: connect, ask if it is HTTP, and say in words what came back.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::Request;
use hyper::body::{Body, Incoming};
use hyper::client::conn::http1;
use hyper::header::{CONNECTION, HOST, USER_AGENT};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use crate::balancer::lack::is_ours;
use crate::config::model::{HealthCheck, Probe, Server};

/// A server's answer is read to its end so that it can close in peace, but not for longer than this. Nobody waits for that.
const LEFTOVERS: Duration = Duration::from_millis(100);
/// Nor is more of it read than this, be it to look for a text. Nor is its head longer.
const MOST: usize = 64 * 1024;
/// Nor has it more headers: hyper's own limit, and that of what goes through us.
const MAX_HEADERS: usize = 100;

/// Why a check has not passed, in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Failure {
    /// The server is not as it should be.
    Server(String),
    /// It could not be asked: this node lacks something, and that says nothing of the server.
    Node(String),
}

impl Failure {
    pub(super) fn words(&self) -> &str {
        match self {
            Self::Server(words) | Self::Node(words) => words,
        }
    }
}

impl From<String> for Failure {
    fn from(words: String) -> Self {
        Self::Server(words)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        if is_ours(&error) { Self::Node(in_words(&error)) } else { Self::Server(in_words(&error)) }
    }
}

/// What the check found, in words; the timeout covers all of it.
pub(super) async fn probe(health: &HealthCheck, server: &Server, address: SocketAddr) -> Result<String, Failure> {
    let answer = async {
        let connection = connect(server, target(health, server, address)).await?;
        match &health.probe {
            Probe::Tcp => Ok("connection accepted".to_owned()),
            Probe::Http { method, path, host, headers, expect, expect_body } => {
                let host = host.clone().unwrap_or_else(|| server.address.to_string());
                let request =
                    Request::builder().method(method.as_str()).uri(path).header(HOST, host).header(CONNECTION, "close");
                let request = headers.iter().fold(request, |request, (name, value)| request.header(name, value));
                let request = match headers.iter().any(|(name, _)| name == USER_AGENT.as_str()) {
                    true => request,
                    false => request.header(USER_AGENT, concat!("relevo/", env!("CARGO_PKG_VERSION"))),
                };
                let request = request
                    .body(Empty::new())
                    .map_err(|error| format!("the check's request cannot be sent: {error}"))?;
                ask(connection, request, expect, expect_body.as_deref()).await
            }
        }
    };
    let late = |_| Err(format!("no answer within {:?}", health.timeout).into());
    timeout(health.timeout, answer).await.unwrap_or_else(late)
}

/// Where the server is checked that is at `address`.
fn target(health: &HealthCheck, server: &Server, address: SocketAddr) -> SocketAddr {
    let port = server.check_port.or(health.port).unwrap_or(address.port());
    SocketAddr::new(server.check_address.unwrap_or(address.ip()), port)
}

/// From the server's `source`, unless that is a virtual address: checks come from the node's own (rule 7).
pub(super) async fn connect(server: &Server, address: SocketAddr) -> Result<TcpStream, Failure> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    if let Some(source) = server.source.filter(|_| !server.source_is_virtual) {
        let bound = socket.bind(SocketAddr::new(source, 0));
        bound.map_err(|error| Failure::Node(format!("cannot connect from {source}: {}", in_words(&error))))?;
    }
    Ok(socket.connect(address).await?)
}

/// Sends the request and judges the answer.
async fn ask(
    connection: TcpStream,
    request: Request<Empty<Bytes>>,
    expect: &[(u16, u16)],
    expect_body: Option<&str>,
) -> Result<String, Failure> {
    let handshake = http1::Builder::new().max_buf_size(MOST).handshake(TokioIo::new(connection));
    let (mut sender, mut connection) = handshake.await.map_err(|error| http_failure(&error))?;
    let exchange = async {
        let answer = sender.send_request(request).await.map_err(|error| http_failure(&error))?;
        let judgement = judge(answer.status().as_u16(), expect);
        let mut body = answer.into_body();
        let judgement = match (judgement, expect_body) {
            (Ok(status), Some(text)) => look_for(text, &mut body).await.map(|()| format!("{status} and the text")),
            (judgement, _) => judgement,
        };
        Ok::<_, Failure>((judgement, body))
    };
    tokio::pin!(exchange);
    let (judgement, body) = tokio::select! {
        biased;
        judged = &mut exchange => judged,
        // The connection's end is told to the exchange, in its own words.
        _ = &mut connection => exchange.await,
    }?;
    if !body.is_end_stream() {
        tokio::spawn(timeout(LEFTOVERS, read_on(connection, body)));
    }
    Ok(judgement?)
}

async fn read_on(connection: impl Future<Output = hyper::Result<()>>, body: Incoming) {
    let mut rest = Limited::new(body, MOST);
    tokio::select! {
        () = async { while matches!(rest.frame().await, Some(Ok(_))) {} } => {}
        _ = connection => {}
    }
}

fn judge(status: u16, expect: &[(u16, u16)]) -> Result<String, String> {
    if expect.iter().any(|(first, last)| (*first..=*last).contains(&status)) {
        return Ok(format!("status {status}"));
    }
    let range = |(first, last): &(u16, u16)| if first == last { first.to_string() } else { format!("{first}-{last}") };
    Err(format!("status {status}, expected {}", expect.iter().map(range).collect::<Vec<_>>().join(", ")))
}

/// Reads the body until the text has come: so one that never ends is no trouble.
async fn look_for(text: &str, body: &mut Incoming) -> Result<(), String> {
    let mut read = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| "the connection was closed before the body's end".to_owned())?;
        let Ok(data) = frame.into_data() else { continue };
        // The text may have begun in what came before. In one piece may come more than counts.
        let from = read.len().saturating_sub(text.len() - 1);
        let counts = data.len().min(MOST - read.len());
        read.extend_from_slice(&data[..counts]);
        if contains(read.get(from..).unwrap_or_default(), text.as_bytes()) {
            return Ok(());
        }
        if read.len() == MOST {
            return Err(format!("the text {text:?} is not in the first {} KiB of the body", MOST / 1024));
        }
    }
    Err(format!("the text {text:?} is not in the body"))
}

fn contains(bytes: &[u8], text: &[u8]) -> bool {
    bytes.windows(text.len()).any(|window| window == text)
}

/// "connection refused" rather than "Connection refused (os error 111)".
pub(super) fn in_words(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut letters = text.chars();
    letters.next().map(|first| first.to_lowercase().chain(letters).collect()).unwrap_or_default()
}

fn http_failure(error: &hyper::Error) -> Failure {
    if error.is_parse_too_large() {
        // Which of the two hyper does not tell.
        return format!(
            "the head of the answer is longer than {} KiB or has more than {MAX_HEADERS} headers",
            MOST / 1024
        )
        .into();
    }
    if error.is_parse() {
        return "the answer is not HTTP/1".to_owned().into();
    }
    if error.is_incomplete_message() || error.is_canceled() {
        return "the connection was closed before an answer came".to_owned().into();
    }
    match std::error::Error::source(error).and_then(|cause| cause.downcast_ref::<io::Error>()) {
        Some(cause) if is_ours(cause) => Failure::Node(in_words(cause)),
        Some(cause) => Failure::Server(in_words(cause)),
        None => error.to_string().into(),
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;
    use crate::balancer::state::tests::server;
    use crate::config::model::ServerAddress;

    const LOCALHOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    fn http(method: &str, host: Option<&str>) -> HealthCheck {
        let expect = vec![(200, 399), (418, 418)];
        let probe = Probe::Http {
            method: method.into(),
            path: "/up?deep=1".into(),
            host: host.map(str::to_owned),
            headers: vec![("x-check".into(), "relevo".into())],
            expect,
            expect_body: None,
        };
        HealthCheck { probe, ..tcp() }
    }

    /// The same with a text to look for.
    fn with_text(health: &HealthCheck, text: &str) -> HealthCheck {
        let mut health = health.clone();
        if let Probe::Http { expect_body, .. } = &mut health.probe {
            *expect_body = Some(text.to_owned());
        }
        health
    }

    fn tcp() -> HealthCheck {
        let second = Duration::from_secs(1);
        HealthCheck { timeout: 5 * second, ..HealthCheck::every(second) }
    }

    /// Where the head of one request is read, from whom, before `answer` is sent and the connection closed.
    async fn answering(answer: &'static str) -> (SocketAddr, impl Future<Output = (String, IpAddr)>) {
        let listener = TcpListener::bind((LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let answered = async move {
            let (mut connection, client) = listener.accept().await.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                match connection.read_u8().await {
                    Ok(byte) => head.push(byte),
                    Err(_) => break,
                }
            }
            connection.write_all(answer.as_bytes()).await.unwrap();
            (String::from_utf8(head).unwrap(), client.ip())
        };
        (address, answered)
    }

    #[tokio::test]
    async fn the_answer_is_judged_and_told_in_words() {
        let closed = "the connection was closed before an answer came";
        let rows = [
            ("GET", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", Ok("status 200")),
            ("GET", "HTTP/1.0 302 Found\r\n\r\n<html>", Ok("status 302")),
            ("GET", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok", Ok("status 200")),
            ("HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n", Ok("status 200")),
            ("OPTIONS", "HTTP/1.1 418 I'm a teapot\r\n\r\n", Ok("status 418")),
            ("GET", "HTTP/1.1 500 Oh\r\n\r\n", Err("status 500, expected 200-399, 418")),
            ("GET", "HTTP/1.1 417 Oh\r\n\r\n", Err("status 417, expected 200-399, 418")),
            ("GET", "SSH-2.0-OpenSSH_9.2\r\n", Err("the answer is not HTTP/1")),
            ("GET", "", Err(closed)),
            ("GET", "HTTP/1.1 200 OK\r\nContent-", Err(closed)),
        ];
        for (method, answer, expected) in rows {
            let (address, answered) = answering(answer).await;
            let health = http(method, None);
            let server = server("a", 1);
            let (outcome, _) = tokio::join!(probe(&health, &server, address), answered);
            assert_eq!(outcome.as_deref().map_err(Failure::words), expected, "{answer:?}");
        }
    }

    #[tokio::test]
    async fn the_request_is_what_a_server_expects() {
        let named = ServerAddress::Name { host: "web.example".into(), port: 8080 };
        let server = Server { address: named, ..server("a", 1) };
        for (host, expected) in [(None, "web.example:8080"), (Some("www.example"), "www.example")] {
            let (address, answered) = answering("HTTP/1.1 204 No Content\r\n\r\n").await;
            let health = http("HEAD", host);
            let (outcome, (head, _)) = tokio::join!(probe(&health, &server, address), answered);
            assert_eq!(outcome, Ok("status 204".to_owned()));
            assert!(head.starts_with("HEAD /up?deep=1 HTTP/1.1\r\n"), "{head}");
            assert!(head.contains(&format!("\r\nhost: {expected}\r\n")), "{head}");
            assert!(head.contains("\r\nconnection: close\r\n"), "{head}");
            assert!(head.contains("\r\nx-check: relevo\r\n"), "{head}");
            assert!(head.contains("\r\nuser-agent: relevo/"), "{head}");
        }
    }

    #[tokio::test]
    async fn the_body_has_the_text_or_the_check_fails() {
        let absent = "the text \"ready\" is not in the body";
        let rows = [
            ("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nis ready.", Ok("status 200 and the text")),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nrea\r\n2\r\ndy\r\n0\r\n\r\n",
                Ok("status 200 and the text"),
            ),
            ("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nread y", Err(absent)),
            ("HTTP/1.1 200 OK\r\n\r\n", Err(absent)),
            ("HTTP/1.1 204 No Content\r\n\r\n", Err(absent)),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nrea",
                Err("the connection was closed before the body's end"),
            ),
            ("HTTP/1.1 500 Oh\r\nContent-Length: 5\r\n\r\nready", Err("status 500, expected 200-399, 418")),
        ];
        for (answer, expected) in rows {
            let (address, answered) = answering(answer).await;
            let (health, server) = (with_text(&http("GET", None), "ready"), server("a", 1));
            let (outcome, _) = tokio::join!(probe(&health, &server, address), answered);
            assert_eq!(outcome.as_deref().map_err(Failure::words), expected, "{answer:?}");
        }
    }

    /// Where `begin` is answered and then `more` again and again, until the client closes: how many bytes it was sent.
    async fn endless(begin: &'static str, more: &'static str) -> (SocketAddr, tokio::task::JoinHandle<usize>) {
        let listener = TcpListener::bind((LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let sending = tokio::spawn(async move {
            let (mut connection, _) = listener.accept().await.unwrap();
            let _ = connection.read(&mut [0; 1024]).await;
            let mut sent = 0;
            let mut text = begin;
            while connection.write_all(text.as_bytes()).await.is_ok() {
                sent += text.len();
                text = more;
            }
            sent
        });
        (address, sending)
    }

    #[tokio::test]
    async fn an_answer_without_end_is_left_after_a_while() {
        const CHUNK: &str = "40\r\n0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\r\n";
        const HEAD: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        let plain = http("GET", None);
        let rows = [
            (plain.clone(), HEAD, CHUNK, Ok("status 200")),
            (with_text(&plain, "f01"), HEAD, CHUNK, Ok("status 200 and the text")),
            (with_text(&plain, "ready"), HEAD, CHUNK, Err("the text \"ready\" is not in the first 64 KiB of the body")),
            (
                plain,
                "HTTP/1.1 200 OK\r\n",
                "X-More: 0123456789abcdef0123456789abcdef0123456789abcdef\r\n",
                Err("the head of the answer is longer than 64 KiB or has more than 100 headers"),
            ),
        ];
        for (health, head, more, expected) in rows {
            let (address, sending) = endless(head, more).await;
            let outcome = probe(&health, &server("a", 1), address).await;
            assert_eq!(outcome.as_deref().map_err(Failure::words), expected);
            // What the sockets hold, and what was read.
            let sent = sending.await.unwrap();
            assert!(sent < 16 << 20, "{sent} bytes were taken");
        }
    }

    /// Its head is all that was asked for; its body takes longer than the check may.
    #[tokio::test]
    async fn an_answer_that_has_been_judged_is_in_time() {
        let health = HealthCheck { timeout: LEFTOVERS * 9 / 10, ..http("GET", None) };
        let mut outcome = Err(Failure::Server(String::new()));
        // Under load an answer may come late; not every one of them does.
        for _ in 0..20 {
            let listener = TcpListener::bind((LOCALHOST, 0)).await.unwrap();
            let server = server("a", 1);
            let stalling = async {
                let (mut connection, _) = listener.accept().await.unwrap();
                let _ = connection.read(&mut [0; 1024]).await;
                let _ = connection.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nbody").await;
                std::future::pending().await
            };
            outcome = tokio::select! {
                outcome = probe(&health, &server, listener.local_addr().unwrap()) => outcome,
                () = stalling => continue,
            };
            if outcome.is_ok() {
                break;
            }
        }
        assert_eq!(outcome, Ok("status 200".to_owned()));
    }

    #[tokio::test]
    async fn the_check_goes_to_its_own_address_and_port() {
        let at = |address: &str| address.parse::<SocketAddr>().unwrap();
        let (plain, with_port) = (tcp(), HealthCheck { port: Some(81), ..tcp() });
        let own = Server { check_address: Some([192, 0, 2, 9].into()), check_port: Some(82), ..server("a", 1) };
        assert_eq!(target(&plain, &server("a", 1), at("192.0.2.1:80")), at("192.0.2.1:80"));
        assert_eq!(target(&with_port, &server("a", 1), at("192.0.2.1:80")), at("192.0.2.1:81"));
        assert_eq!(target(&with_port, &own, at("192.0.2.1:80")), at("192.0.2.9:82"));

        let (address, answered) = answering("").await;
        let own = Server { check_address: Some(LOCALHOST), check_port: Some(address.port()), ..server("a", 1) };
        let health = tcp();
        let (outcome, _) = tokio::join!(probe(&health, &own, at("192.0.2.1:80")), answered);
        assert_eq!(outcome.as_deref(), Ok("connection accepted"));
    }

    #[tokio::test]
    async fn a_connection_is_enough_where_only_that_is_asked_for() {
        let (address, answered) = answering("").await;
        let (health, server) = (tcp(), server("a", 1));
        let (outcome, (head, _)) = tokio::join!(probe(&health, &server, address), answered);
        assert_eq!((outcome.as_deref(), head.as_str()), (Ok("connection accepted"), ""));
    }

    #[tokio::test]
    async fn a_server_that_is_not_there_or_says_nothing_fails() {
        let listener = TcpListener::bind((LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let health = HealthCheck { timeout: Duration::from_millis(30), ..http("GET", None) };
        let silence = probe(&health, &server("a", 1), address).await;
        assert_eq!(silence, Err(Failure::Server("no answer within 30ms".to_owned())));

        // Bound and not listening: the port is nobody else's, and connections are refused.
        let unused = TcpSocket::new_v4().unwrap();
        unused.bind((LOCALHOST, 0).into()).unwrap();
        let address = unused.local_addr().unwrap();
        for health in [tcp(), http("GET", None)] {
            let outcome = probe(&health, &server("a", 1), address).await;
            assert_eq!(outcome, Err(Failure::Server("connection refused".to_owned())));
        }
    }

    #[tokio::test]
    async fn checks_come_from_the_source_unless_it_is_a_virtual_address() {
        let source: IpAddr = [127, 0, 0, 2].into();
        for (source_is_virtual, expected) in [(false, source), (true, LOCALHOST)] {
            let (address, answered) = answering("").await;
            let server = Server { source: Some(source), source_is_virtual, ..server("a", 1) };
            let health = tcp();
            let (outcome, (_, client)) = tokio::join!(probe(&health, &server, address), answered);
            assert_eq!((outcome.is_ok(), client), (true, expected));
        }

        let elsewhere = Server { source: Some([192, 0, 2, 1].into()), ..server("a", 1) };
        let failure = probe(&tcp(), &elsewhere, (LOCALHOST, 9).into()).await;
        let lack = "cannot connect from 192.0.2.1: cannot assign requested address";
        assert_eq!(failure, Err(Failure::Node(lack.to_owned())));
    }
}
