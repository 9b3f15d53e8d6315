//! The data plane over loopback: clients and servers that say byte for byte what they mean, and one worker between them.

mod bodies;
mod faults;
mod forwarding;
mod log;
mod resting;
mod tcp;
mod timeouts;
mod unfinished;

use std::cell::{Cell, RefCell};
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

use jiff::tz::TimeZone;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

use super::access_log;
use super::clock;
use super::listener::{self, Listening};
use super::state::Shared;
use super::state::tests::{one_backend, server as server_named};
use super::worker::{self, Worker};
use crate::balancer::listening_socket::ListeningSocket;
use crate::config::model::{self, *};

/// Runs a test on a thread like a worker's. Nothing here takes seconds; what hangs fails.
fn on_worker(test: impl AsyncFnOnce()) {
    let runtime = worker::runtime().unwrap();
    runtime.block_on(async { tokio::time::timeout(Duration::from_secs(30), test()).await.expect("the test hangs") });
}

/// A balancer of one worker and one frontend.
struct Balancer {
    address: SocketAddr,
    worker: Rc<Worker>,
    log: Receiver<Vec<u8>>,
}

impl Balancer {
    async fn start(config: model::Balancer) -> Self {
        let (batches, log) = sync_channel(16);
        let outlet: access_log::Outlet = Box::new(move |batch| drop(batches.try_send(batch)));
        let outlet = access_log::Format::new(&config.access_log).map(|format| (outlet, format));
        let worker = Worker::new(0, Shared::new(config), access_log::AccessLog::new(outlet, TimeZone::UTC));
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let socket = Rc::new(ListeningSocket::new(listener).unwrap());
        let address = socket.address().unwrap();
        let thread = worker.thread().clone();
        tokio::task::spawn_local(listener::accept(thread, socket, Listening::new(Some(0))));
        tokio::task::spawn_local({
            let worker = worker.clone();
            async move {
                loop {
                    tokio::time::sleep(clock::TICK).await;
                    worker.clock.tick();
                    worker.access_log.tick();
                }
            }
        });
        Self { address, worker, log }
    }

    async fn connect(&self) -> Connection {
        Connection::new(TcpStream::connect(self.address).await.unwrap())
    }

    /// The next lines of the log.
    async fn log_lines(&self) -> String {
        loop {
            match self.log.try_recv() {
                Ok(batch) => return String::from_utf8(batch).unwrap(),
                Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    }
}

/// One end of a connection, client's or server's.
struct Connection {
    stream: BufReader<TcpStream>,
}

impl Connection {
    fn new(stream: TcpStream) -> Self {
        Self { stream: BufReader::new(stream) }
    }

    async fn send(&mut self, text: &str) {
        self.send_bytes(text.as_bytes()).await;
    }

    async fn send_bytes(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    /// Up to and with the empty line; empty when the other side has closed.
    async fn head(&mut self) -> String {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            match self.stream.read_line(&mut head).await {
                Ok(0) | Err(_) => break,
                Ok(_) => {}
            }
        }
        head
    }

    async fn body(&mut self, length: usize) -> String {
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).await.unwrap();
        String::from_utf8(body).unwrap()
    }

    /// Head and body (by Content-Length) of a response.
    async fn response(&mut self) -> (String, String) {
        let head = self.head().await;
        let length = header(&head, "content-length").map_or(0, |length| length.parse().unwrap());
        let body = self.body(length).await;
        (head, body)
    }

    async fn get(&mut self, path: &str) -> (String, String) {
        self.ask(path).await;
        self.response().await
    }

    /// Sends a request and does not wait for the answer.
    async fn ask(&mut self, path: &str) {
        self.send(&format!("GET {path} HTTP/1.1\r\nHost: site.example\r\n\r\n")).await;
    }

    /// All that comes until the other side closes.
    async fn rest(&mut self) -> String {
        let mut rest = Vec::new();
        let _ = self.stream.read_to_end(&mut rest).await;
        String::from_utf8(rest).unwrap()
    }

    async fn finish_sending(&mut self) {
        self.stream.shutdown().await.unwrap();
    }
}

fn header<'head>(head: &'head str, name: &str) -> Option<&'head str> {
    head.lines().filter_map(|line| line.split_once(": ")).find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|it| it.1)
}

fn status(head: &str) -> &str {
    head.split(' ').nth(1).unwrap_or_default()
}

/// A server that does the same with each connection; it is given the connection's number.
async fn server(serve: impl AsyncFn(usize, Connection) + 'static) -> SocketAddr {
    let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = socket.local_addr().unwrap();
    let serve = Rc::new(serve);
    let number = Cell::new(0);
    tokio::task::spawn_local(async move {
        loop {
            let (stream, _) = socket.accept().await.unwrap();
            let (serve, this) = (serve.clone(), number.replace(number.get() + 1));
            tokio::task::spawn_local(async move { serve(this, Connection::new(stream)).await });
        }
    });
    address
}

/// One that answers every request with the connection's number and the head it got.
async fn echoing_server() -> SocketAddr {
    server(async |number, mut connection| {
        loop {
            let head = connection.head().await;
            if head.is_empty() {
                return;
            }
            let text = format!("connection {number}\n{head}");
            connection.send(&format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{text}", text.len())).await;
        }
    })
    .await
}

/// One that sends this after the first head of each connection, and then waits for the other side to close.
async fn answering_server(answer: &'static str) -> SocketAddr {
    server(async move |_, mut connection| {
        connection.head().await;
        connection.send(answer).await;
        connection.rest().await;
    })
    .await
}

/// One that reads and never answers.
async fn silent_server() -> SocketAddr {
    server(async |_, mut connection| drop(connection.rest().await)).await
}

/// Where nobody listens.
async fn nowhere() -> SocketAddr {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap().local_addr().unwrap()
}

fn config(servers: &[SocketAddr]) -> model::Balancer {
    let timeouts = ServerTimeouts {
        connect: Duration::from_secs(5),
        server: Duration::from_secs(10),
        queue: Duration::from_secs(5),
        tunnel: Duration::from_secs(10),
    };
    let server = |(index, address): (usize, &SocketAddr)| Server {
        address: ServerAddress::Socket(*address),
        ..server_named(&format!("s{index}"), 1)
    };
    let servers = servers.iter().enumerate().map(server).collect();
    let mut config = one_backend(Balance::RoundRobin, servers);
    let backend = &mut config.backends[0];
    (backend.health, backend.timeouts) = (HealthCheck::every(Duration::from_secs(2)), timeouts);
    let ten = Duration::from_secs(10);
    let frontend = Frontend {
        name: "web".to_owned(),
        binds: vec![Bind { address: (Ipv4Addr::LOCALHOST, 0).into() }],
        mode: Mode::Http,
        routes: Vec::new(),
        default_backend: Some(BackendIndex(0)),
        forwarding: Some(Forwarding { forwarded_for: Some(ForwardedFor::default()), ..Forwarding::default() }),
        trusted_proxies: Vec::new(),
        request_id: None,
        max_connections: None,
        max_connections_per_source: None,
        rules: Vec::new(),
        timeouts: ClientTimeouts { client: ten, http_request: ten, http_keep_alive: ten },
        capture: Capture::default(),
        statistics: None,
        connection: ConnectionMode::default(),
        tcp_keep_alive: None,
        errors: ErrorPages::new(),
    };
    model::Balancer { threads: 1, max_connections: 1000, idle_connections: 1000, frontends: vec![frontend], ..config }
}
