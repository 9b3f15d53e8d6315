//! One check of one server: connect, ask if it is HTTP, and say in words what came back.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::Request;
use hyper::client::conn::http1;
use hyper::header::{CONNECTION, HOST, USER_AGENT};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{timeout, timeout_at};

use crate::config::model::{HealthCheck, Probe, Server};

/// A server's answer is read to its end so that it can close in peace, but not for longer than this.
const LEFTOVERS: Duration = Duration::from_millis(100);

/// What the check found, in words; the timeout covers all of it.
pub(super) async fn probe(health: &HealthCheck, server: &Server, address: SocketAddr) -> Result<String, String> {
    let answer = async {
        let connection = connect(server, address).await.map_err(|error| in_words(&error))?;
        match &health.probe {
            Probe::Tcp => Ok("connection accepted".to_owned()),
            Probe::Http { method, path, host, expect } => {
                let host = host.clone().unwrap_or_else(|| server.address.to_string());
                let request = Request::builder()
                    .method(method.as_str())
                    .uri(path)
                    .header(HOST, host)
                    .header(USER_AGENT, concat!("relevo/", env!("CARGO_PKG_VERSION")))
                    .header(CONNECTION, "close")
                    .body(Empty::new())
                    .map_err(|error| format!("the check's request cannot be sent: {error}"))?;
                judge(ask(connection, request).await?, expect)
            }
        }
    };
    timeout(health.timeout, answer).await.unwrap_or_else(|_| Err(format!("no answer within {:?}", health.timeout)))
}

/// From the server's `source`, unless that is a virtual address: checks come from the node's own (rule 7).
async fn connect(server: &Server, address: SocketAddr) -> io::Result<TcpStream> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    if let Some(source) = server.source.filter(|_| !server.source_is_virtual) {
        let bound = socket.bind(SocketAddr::new(source, 0));
        bound.map_err(|error| io::Error::other(format!("cannot connect from {source}: {}", in_words(&error))))?;
    }
    socket.connect(address).await
}

/// The answer's status.
async fn ask(connection: TcpStream, request: Request<Empty<Bytes>>) -> Result<u16, String> {
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(connection)).await.map_err(|error| http_in_words(&error))?;
    let exchange = async {
        let answer = sender.send_request(request).await.map_err(|error| http_in_words(&error))?;
        let status = answer.status().as_u16();
        let mut body = answer.into_body();
        let read_on = async { while matches!(body.frame().await, Some(Ok(_))) {} };
        let _ = timeout_at(tokio::time::Instant::now() + LEFTOVERS, read_on).await;
        Ok(status)
    };
    tokio::pin!(exchange);
    tokio::select! {
        biased;
        status = &mut exchange => status,
        // The connection's end is told to the exchange, in its own words.
        _ = connection => exchange.await,
    }
}

fn judge(status: u16, expect: &[(u16, u16)]) -> Result<String, String> {
    if expect.iter().any(|(first, last)| (*first..=*last).contains(&status)) {
        return Ok(format!("status {status}"));
    }
    let range = |(first, last): &(u16, u16)| if first == last { first.to_string() } else { format!("{first}-{last}") };
    Err(format!("status {status}, expected {}", expect.iter().map(range).collect::<Vec<_>>().join(", ")))
}

/// "connection refused" rather than "Connection refused (os error 111)".
fn in_words(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut letters = text.chars();
    letters.next().map(|first| first.to_lowercase().chain(letters).collect()).unwrap_or_default()
}

fn http_in_words(error: &hyper::Error) -> String {
    if error.is_parse() {
        return "the answer is not HTTP/1".to_owned();
    }
    if error.is_incomplete_message() || error.is_canceled() {
        return "the connection was closed before an answer came".to_owned();
    }
    let cause = std::error::Error::source(error).and_then(|cause| cause.downcast_ref::<io::Error>());
    cause.map_or_else(|| error.to_string(), in_words)
}
