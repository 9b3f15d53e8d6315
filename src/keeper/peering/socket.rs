//! The sockets of the peer links: where they come from, how long they wait, on which descriptors they are.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{OwnedFd, RawFd};
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::net::TcpSocket;

use crate::process::descriptor::to_high_descriptor;

/// After this long without an acknowledgement the kernel gives a link up. That is no death: the adverts decide.
const SILENCE: Duration = Duration::from_secs(3);

/// Bytes of a segment: what any path carries, even a tunnel's or one whose two ends believe in larger packets than what is between
/// them. Little goes over a link, and a state that never arrives is worse than some more headers.
const SEGMENT: u32 = 1220;

/// How many links fit beneath the listener. It is the higher, and so closed the sooner: who sees a link close and dials
/// again finds nobody listening.
const LINKS: RawFd = 64;

/// Dials a peer from `source`, so that it never comes from a virtual address.
pub(super) async fn connect(source: IpAddr, peer: SocketAddr, first: RawFd) -> io::Result<tokio::net::TcpStream> {
    let socket = Socket::new(Domain::for_address(peer), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    configure(SockRef::from(&socket))?;
    socket.set_tcp_mss(SEGMENT)?;
    socket.bind(&SocketAddr::new(source, 0).into())?;
    let stream = TcpStream::from(to_high_descriptor(OwnedFd::from(socket), first));
    TcpSocket::from_std_stream(stream).connect(peer).await
}

pub(super) fn accepted(stream: tokio::net::TcpStream, first: RawFd) -> io::Result<tokio::net::TcpStream> {
    let stream = stream.into_std()?;
    configure(SockRef::from(&stream))?;
    tokio::net::TcpStream::from_std(TcpStream::from(to_high_descriptor(stream.into(), first)))
}

pub(super) fn listener(listener: TcpListener, first: RawFd) -> io::Result<tokio::net::TcpListener> {
    listener.set_nonblocking(true)?;
    // Those that it accepts have it from their first packet on, in which it is told the other side.
    SockRef::from(&listener).set_tcp_mss(SEGMENT)?;
    let listener = to_high_descriptor(listener.into(), first.saturating_add(LINKS));
    tokio::net::TcpListener::from_std(TcpListener::from(listener))
}

fn configure(socket: SockRef<'_>) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_user_timeout(Some(SILENCE))?;
    let second = Duration::from_secs(1);
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(second).with_interval(second).with_retries(3))
}
