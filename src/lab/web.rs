//! A small web server that tells who it is, who asked, and the X-Forwarded-For it got.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::thread::JoinHandle;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

use super::error::{Context, Result};
use super::network::{Host, Switch};

/// Where every one of them listens.
pub const PORT: u16 = 8080;

/// The server's own name, in its answer.
pub const SERVER_HEADER: &str = "x-server";
/// Who connected to the server: the node that the request came through.
pub const NODE_HEADER: &str = "x-node";
/// The X-Forwarded-For that arrived.
pub const FORWARDED_HEADER: &str = "x-received-forwarded-for";

/// Longest head of a request it reads.
const LONGEST_HEAD: usize = 16 * 1024;

/// A web server on a host of its own.
pub struct WebServer {
    name: String,
    host: Host,
    running: Option<Running>,
}

struct Running {
    stop: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

impl WebServer {
    /// Makes the host and starts the server.
    pub fn new(switch: &Switch, name: &str, address: Ipv4Addr) -> Result<Self> {
        let mut server = Self { name: name.into(), host: switch.host(name, address)?, running: None };
        server.start()?;
        Ok(server)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        (self.host.address, PORT).into()
    }

    /// Is it?
    pub fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// Starts it again after [`Self::stop`].
    pub fn start(&mut self) -> Result<()> {
        if self.is_running() {
            return Ok(());
        }
        let address = self.address();
        let listener = self
            .host
            .namespace
            .run(|| {
                let listener = std::net::TcpListener::bind(address)?;
                listener.set_nonblocking(true)?;
                io::Result::Ok(listener)
            })?
            .context(|| format!("cannot listen on {address}"))?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context(|| "cannot start a runtime".into())?;
        let (stop, stopped) = oneshot::channel();
        let name = self.name.clone();
        let thread = self.host.namespace.thread(&self.name, move || {
            // The runtime's end closes every connection: to the balancer the server is gone.
            runtime.block_on(async {
                tokio::select! {
                    _ = serve(listener, &name) => {}
                    _ = stopped => {}
                }
            });
        })?;
        self.running = Some(Running { stop, thread });
        Ok(())
    }

    /// Ends it with all of its connections; its host refuses new ones.
    pub fn stop(&mut self) {
        if let Some(Running { stop, thread }) = self.running.take() {
            let _ = stop.send(());
            let _ = thread.join();
        }
    }
}

impl Drop for WebServer {
    fn drop(&mut self) {
        self.stop();
    }
}

async fn serve(listener: std::net::TcpListener, name: &str) -> io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    loop {
        // What fails is one client's connection, never the listener.
        if let Ok((connection, peer)) = listener.accept().await {
            tokio::spawn(answer(connection, peer, name.to_owned()));
        }
    }
}

async fn answer(mut connection: TcpStream, peer: SocketAddr, name: String) -> io::Result<()> {
    let mut received = Vec::new();
    loop {
        let Some(end) = received.windows(4).position(|window| window == b"\r\n\r\n") else {
            if received.len() > LONGEST_HEAD || connection.read_buf(&mut received).await? == 0 {
                return Ok(());
            }
            continue;
        };
        let head = String::from_utf8_lossy(&received[..end]).into_owned();
        received.drain(..end + 4);
        connection.write_all(response(&head, peer, &name).as_bytes()).await?;
        if header(&head, "connection").is_some_and(|value| value.eq_ignore_ascii_case("close")) {
            return Ok(());
        }
    }
}

fn response(head: &str, peer: SocketAddr, name: &str) -> String {
    let forwarded = header(head, "x-forwarded-for").unwrap_or("");
    let body = format!("{name}\n");
    let length = body.len();
    let body = if head.starts_with("HEAD ") { "" } else { &body };
    let node = peer.ip();
    format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\n{SERVER_HEADER}: {name}\r\n\
         {NODE_HEADER}: {node}\r\n{FORWARDED_HEADER}: {forwarded}\r\n\r\n{body}"
    )
}

/// A header's value in a head, without regard to the case of its name.
pub(super) fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        key.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_tells_who_it_is_and_who_asked() {
        let head = "GET / HTTP/1.1\r\nHost: a\r\nX-FORWARDED-FOR: 10.77.0.100";
        let answer = response(head, "10.77.0.11:4000".parse().unwrap(), "web1");
        assert_eq!(header(&answer, SERVER_HEADER), Some("web1"));
        assert_eq!(header(&answer, NODE_HEADER), Some("10.77.0.11"));
        assert_eq!(header(&answer, FORWARDED_HEADER), Some("10.77.0.100"));
        assert!(answer.ends_with("\r\n\r\nweb1\n"));
    }

    #[test]
    fn a_head_request_gets_no_body() {
        let answer = response("HEAD / HTTP/1.1", "10.77.0.11:4000".parse().unwrap(), "web1");
        assert!(answer.contains("Content-Length: 5\r\n") && answer.ends_with("\r\n\r\n"));
    }
}
