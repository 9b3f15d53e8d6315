//! The raw sockets that adverts travel through, both bound to the virtual router's interface: one only receives, one only
//! sends.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::OwnedFd;

use nix::errno::Errno;
use nix::unistd::read;
use socket2::{Domain, InterfaceIndexOrAddress, Protocol, Socket, Type};
use tokio::io::unix::AsyncFd;

use crate::packet::{GROUP, PROTOCOL};
use crate::readiness::when_readable;

/// TC_PRIO_CONTROL: before everything else in the interface's queue.
const CONTROL_PRIORITY: u32 = 7;
/// No packet that could be an advert is longer (20 + 8 + 4 × 255 + 28); what is longer is cut off, and not valid.
pub(crate) const LONGEST_PACKET: usize = 2048;

/// The two of them.
#[derive(Debug)]
pub(crate) struct AdvertSockets {
    receiving: AsyncFd<OwnedFd>,
    sending: Socket,
}

/// The same, not yet watched by a runtime.
#[derive(Debug)]
pub(crate) struct OpenedSockets {
    receiving: Socket,
    sending: Socket,
}

impl OpenedSockets {
    /// To join a group takes the kernel's lock, so it is not for a thread that must be in time.
    pub(crate) fn open(interface: &str, interface_index: u32) -> io::Result<OpenedSockets> {
        Ok(OpenedSockets { receiving: receiving(interface, interface_index)?, sending: sending(interface)? })
    }
}

impl AdvertSockets {
    /// Must be called on the runtime that is to receive.
    pub(crate) fn watch(opened: OpenedSockets) -> io::Result<AdvertSockets> {
        Ok(AdvertSockets { receiving: when_readable(opened.receiving.into())?, sending: opened.sending })
    }

    /// Waits for a packet, and returns it with its IP header. Nothing is lost when the wait is given up.
    pub(crate) async fn received<'a>(&self, buffer: &'a mut [u8; LONGEST_PACKET]) -> io::Result<&'a [u8]> {
        let length = loop {
            let mut ready = self.receiving.readable().await?;
            match ready.try_io(|socket| Ok(read(socket.get_ref(), &mut buffer[..])?)) {
                Ok(length) => break length?,
                Err(_would_block) => continue,
            }
        };
        Ok(buffer.get(..length).unwrap_or_default())
    }

    /// A packet with its IP header, if one waits.
    pub(crate) fn waiting<'a>(&self, buffer: &'a mut [u8; LONGEST_PACKET]) -> io::Result<Option<&'a [u8]>> {
        match read(self.receiving.get_ref(), buffer) {
            Ok(length) => Ok(buffer.get(..length)),
            Err(Errno::EAGAIN) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Sends a packet that begins with its IP header; never waits.
    pub(crate) fn send(&self, packet: &[u8], destination: Ipv4Addr) -> io::Result<()> {
        self.sending.send_to(packet, &SocketAddrV4::new(destination, 0).into()).map(|_sent| ())
    }
}

/// Whether this process may have such sockets.
pub(crate) fn permitted() -> io::Result<()> {
    Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(i32::from(PROTOCOL)))).map(|_socket| ())
}

fn receiving(interface: &str, interface_index: u32) -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(i32::from(PROTOCOL))))?;
    socket.set_nonblocking(true)?;
    socket.bind_device(Some(interface.as_bytes()))?;
    // Otherwise groups that other sockets joined, on any interface, are delivered here too.
    socket.set_multicast_all_v4(false)?;
    socket.join_multicast_v4_n(&GROUP, &InterfaceIndexOrAddress::Index(interface_index))?;
    Ok(socket)
}

fn sending(interface: &str) -> io::Result<Socket> {
    // IPPROTO_RAW: the IP header is ours, and nothing is ever received.
    let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(libc::IPPROTO_RAW)))?;
    socket.set_nonblocking(true)?;
    socket.bind_device(Some(interface.as_bytes()))?;
    socket.set_multicast_loop_v4(false)?;
    socket.set_priority(CONTROL_PRIORITY)?;
    Ok(socket)
}
