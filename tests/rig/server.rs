//! A server that does exactly what a test wants, well-behaved or not.

use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use super::http::{Connection, Message, response};
use super::place::free_port;

/// A server on the loopback, a thread for each connection; it ends with the value.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    connections: AtomicUsize,
    open: Mutex<Vec<TcpStream>>,
}

impl Server {
    /// Handles each connection as told.
    pub(crate) fn start(handle: impl Fn(Connection) + Send + Sync + 'static) -> Self {
        Self::start_at((Ipv4Addr::LOCALHOST, 0).into(), handle)
    }

    /// The same at a certain place.
    pub(crate) fn start_at(address: SocketAddr, handle: impl Fn(Connection) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::<Shared>::default();
        let acceptor = std::thread::spawn({
            let shared = Arc::clone(&shared);
            let handle = Arc::new(handle);
            move || {
                while let Ok((stream, _)) = listener.accept()
                    && !shared.stop.load(Ordering::Relaxed)
                {
                    shared.connections.fetch_add(1, Ordering::Relaxed);
                    if let (Ok(copy), Ok(connection)) = (stream.try_clone(), Connection::new(stream)) {
                        shared.open.lock().unwrap_or_else(PoisonError::into_inner).push(copy);
                        let handle = Arc::clone(&handle);
                        std::thread::spawn(move || {
                            let end = connection.stream().try_clone();
                            handle(connection);
                            // The copy that is kept would hold it open.
                            let _ = end.and_then(|end| end.shutdown(Shutdown::Both));
                        });
                    }
                }
            }
        });
        Self { address, shared, acceptor: Some(acceptor) }
    }

    /// Answers each request, on connections that it keeps, by what `answer` makes of it.
    pub(crate) fn answering(answer: impl Fn(&Message) -> Vec<u8> + Send + Sync + 'static) -> Self {
        Self::answering_at((Ipv4Addr::LOCALHOST, 0).into(), answer)
    }

    /// The same at a certain place.
    pub(crate) fn answering_at(
        address: SocketAddr,
        answer: impl Fn(&Message) -> Vec<u8> + Send + Sync + 'static,
    ) -> Self {
        Self::start_at(address, move |mut connection| {
            while let Ok(request) = connection.receive() {
                if connection.send(answer(&request)).is_err() {
                    return;
                }
            }
        })
    }

    /// Answers with its name, and with the request's head as it arrived.
    pub(crate) fn named(name: &'static str) -> Self {
        Self::answering(named(name))
    }

    /// How many connections were made to it.
    pub(crate) fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::Relaxed)
    }

    /// Where the connection came from that was made to it last.
    pub(crate) fn newest_client(&self) -> Option<SocketAddr> {
        self.shared.open.lock().unwrap_or_else(PoisonError::into_inner).last()?.peer_addr().ok()
    }

    /// Where nobody listens.
    pub(crate) fn nowhere() -> SocketAddr {
        free_port()
    }
}

/// An answer with a server's name and the request's head as it arrived.
pub(crate) fn named(name: &'static str) -> impl Fn(&Message) -> Vec<u8> + Send + Sync + 'static {
    move |request| response("200 OK", &format!("X-Server: {name}\r\n"), format!("{name}\n{}", request.head))
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        // Wakes it up.
        let _ = TcpStream::connect(self.address);
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
        for connection in self.shared.open.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            let _ = connection.shutdown(Shutdown::Both);
        }
    }
}
