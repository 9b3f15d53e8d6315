//! The listening sockets: bound here, by the privileged process, and lent to one balancer after another.
//!
//! Each worker has an accept queue of its own (SO_REUSEPORT). Since that option would also let a second daemon of the same
//! user join in silently, each address is first bound without it, so that the second one fails loudly.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use socket2::{Domain, Protocol, Socket, Type};

use crate::config::model;
use crate::process::messages::ListenerPlace;

/// Connections that wait to be accepted, for each worker; the kernel's `net.core.somaxconn` may be lower.
const BACKLOG: i32 = 4096;

/// Every listening socket of the node.
#[derive(Clone)]
pub(super) struct Listeners {
    /// By frontend and bind, in the order of the configuration.
    binds: Vec<Bound>,
}

/// The sockets of one bind, by worker.
#[derive(Clone)]
struct Bound {
    frontend: usize,
    bind: usize,
    address: SocketAddr,
    sockets: Arc<[Socket]>,
}

/// Why a socket could not be had.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Somebody else listens there.
    #[error(
        "{whose} cannot listen on {address}: the port is in use; \
         stop the program that has it (`ss -ltnp` names it) or bind another one"
    )]
    InUse {
        /// `frontend "web"` or `peering.listen`.
        whose: String,
        /// Where.
        address: SocketAddr,
    },
    /// Ports below 1024.
    #[error("{whose} cannot listen on {address}: that port needs root or the capability NET_BIND_SERVICE")]
    NotPermitted {
        /// `frontend "web"` or `peering.listen`.
        whose: String,
        /// Where.
        address: SocketAddr,
    },
    /// Anything else.
    #[error("{whose} cannot listen on {address}: {source}")]
    Other {
        /// `frontend "web"` or `peering.listen`.
        whose: String,
        /// Where.
        address: SocketAddr,
        /// What the kernel says.
        source: io::Error,
    },
}

impl Listeners {
    /// Binds all of them, or none.
    pub(super) fn bind(config: &model::Balancer) -> Result<Self, Error> {
        Listeners::none().rebind(config)
    }

    /// None at all.
    pub(super) fn none() -> Self {
        Listeners { binds: Vec::new() }
    }

    /// Those of another configuration: of an address that stays it keeps the sockets, the others it binds, all of them or none.
    /// Nobody is kept from what is not in the new ones before all who have the old ones have let go of them.
    pub(super) fn rebind(&self, config: &model::Balancer) -> Result<Self, Error> {
        let mut binds = Vec::new();
        for (frontend_index, frontend) in config.frontends.iter().enumerate() {
            for (bind_index, bind) in frontend.binds.iter().enumerate() {
                let explain = |error| explain(error, of_frontend(&frontend.name), bind.address);
                let sockets = match self.at(bind.address) {
                    Some(bound) => bound.sockets.clone(),
                    None => self.sockets(bind.address, config.threads).map_err(explain)?,
                };
                binds.push(Bound { frontend: frontend_index, bind: bind_index, address: bind.address, sockets });
            }
        }
        let listeners = Listeners { binds };
        // Not before all are bound: what is queued in vain is lost.
        for bound in listeners.unlike(self) {
            let frontend = config.frontends.get(bound.frontend).map_or("", |frontend| &frontend.name);
            let listen = bound.sockets.iter().try_for_each(|socket| socket.listen(BACKLOG));
            listen.map_err(|error| explain(error, of_frontend(frontend), bound.address))?;
        }
        Ok(listeners)
    }

    fn sockets(&self, address: SocketAddr, workers: usize) -> io::Result<Arc<[Socket]>> {
        // Our own wildcard may be in the way, or an address that the wildcard is to take the place of.
        if !self.binds.iter().any(|bound| overlap(bound.address, address)) {
            bound(address, false)?;
        }
        (0..workers).map(|_| bound(address, true)).collect()
    }

    fn at(&self, address: SocketAddr) -> Option<&Bound> {
        self.binds.iter().find(|bound| bound.address == address)
    }

    /// Those whose address is not among the others'.
    fn unlike<'a>(&'a self, others: &'a Listeners) -> impl Iterator<Item = &'a Bound> {
        self.binds.iter().filter(|bound| others.at(bound.address).is_none())
    }

    /// Where each of the sockets belongs, in the order of [`Listeners::descriptors`].
    pub(super) fn places(&self) -> Vec<ListenerPlace> {
        self.binds.iter().flat_map(Bound::places).collect()
    }

    /// The sockets, to be lent.
    pub(super) fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        self.binds.iter().flat_map(|bound| bound.sockets.iter()).map(AsFd::as_fd).collect()
    }

    /// Of those whose address is not among the others': where they belong, and copies to be given away.
    pub(super) fn new_ones(&self, others: &Listeners) -> io::Result<(Vec<ListenerPlace>, Vec<OwnedFd>)> {
        let places = self.unlike(others).flat_map(Bound::places).collect();
        let sockets = self.unlike(others).flat_map(|bound| bound.sockets.iter());
        let copies = sockets.map(|socket| socket.as_fd().try_clone_to_owned()).collect::<io::Result<_>>()?;
        Ok((places, copies))
    }
}

impl Bound {
    fn places(&self) -> impl Iterator<Item = ListenerPlace> {
        let Bound { frontend, bind, .. } = *self;
        (0..self.sockets.len()).map(move |worker| ListenerPlace { frontend, bind, worker })
    }
}

/// Would one of them be in the way of the other?
fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    one.port() == other.port()
        && one.is_ipv4() == other.is_ipv4()
        && (one.ip() == other.ip() || one.ip().is_unspecified() || other.ip().is_unspecified())
}

/// The socket that other keepers reach this one on.
pub(super) fn peering(address: SocketAddr) -> Result<TcpListener, Error> {
    let listener = bound(address, false).and_then(|socket| socket.listen(BACKLOG).map(|()| socket.into()));
    listener.map_err(|error| explain(error, "peering.listen".to_owned(), address))
}

/// A socket (close-on-exec, non-blocking) bound to the address.
fn bound(address: SocketAddr, shared: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    // Connections of an earlier run in TIME_WAIT do not matter.
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shared)?;
    // A virtual address is not here yet on a backup, and an interface may come later.
    match address.ip() {
        IpAddr::V4(ip) if !ip.is_unspecified() => socket.set_freebind_v4(true)?,
        IpAddr::V6(ip) if !ip.is_unspecified() => socket.set_freebind_v6(true)?,
        _ => {}
    }
    if address.is_ipv6() {
        // `[::]:80` and `0.0.0.0:80` are two binds, whatever net.ipv6.bindv6only says.
        socket.set_only_v6(true)?;
    }
    socket.bind(&address.into())?;
    Ok(socket)
}

fn explain(source: io::Error, whose: String, address: SocketAddr) -> Error {
    match source.kind() {
        io::ErrorKind::AddrInUse => Error::InUse { whose, address },
        io::ErrorKind::PermissionDenied => Error::NotPermitted { whose, address },
        _ => Error::Other { whose, address, source },
    }
}

fn of_frontend(name: &str) -> String {
    format!("frontend {name:?}")
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::config::{Machine, parse_for};

    fn config(threads: usize, address: SocketAddr) -> model::Balancer {
        let text = format!(
            "[process]\nthreads = {threads}\n[frontends.web]\nbind = \"{address}\"\ndefault_backend = \"app\"\n\
             [backends.app]\nservers = [{{ name = \"a\", address = \"192.0.2.1:80\" }}]\n"
        );
        parse_for(&text, "test", &Machine::this()).unwrap().balancer
    }

    /// A port that was free a moment ago.
    fn free_port(ip: Ipv4Addr) -> SocketAddr {
        TcpListener::bind((ip, 0)).unwrap().local_addr().unwrap()
    }

    #[test]
    fn one_socket_for_each_worker() {
        let listeners = Listeners::bind(&config(3, free_port(Ipv4Addr::LOCALHOST))).unwrap();
        let workers: Vec<usize> = listeners.places().iter().map(|place| place.worker).collect();
        assert_eq!(workers, [0, 1, 2]);
        assert_eq!(listeners.descriptors().len(), 3);
    }

    #[test]
    fn a_second_daemon_fails_loudly_although_the_first_shares_its_port() {
        let config = config(2, free_port(Ipv4Addr::LOCALHOST));
        let _first = Listeners::bind(&config).unwrap();
        let error = Listeners::bind(&config).err().unwrap().to_string();
        assert!(error.contains("\"web\"") && error.contains("the port is in use"), "{error}");
    }

    #[test]
    fn an_address_this_host_does_not_have_can_be_bound() {
        // TEST-NET-1 of RFC 5737.
        let address = SocketAddr::new(Ipv4Addr::new(192, 0, 2, 1).into(), free_port(Ipv4Addr::UNSPECIFIED).port());
        Listeners::bind(&config(1, address)).unwrap();
    }

    #[test]
    fn a_taken_port_of_the_peer_link_is_explained_too() {
        let other = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = other.local_addr().unwrap();
        let error = peering(address).unwrap_err().to_string();
        let expected = format!("peering.listen cannot listen on {address}: the port is in use; stop the program");
        assert!(error.starts_with(&expected), "{error}");
    }
}
