//! An observer on the switch: which adverts and announcements were really sent, by whom and when.
//!
//! It has a port of its own, so that it gets what goes to all (multicast adverts, gratuitous ARP) and none of the traffic.

use std::net::Ipv4Addr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, socket};

use super::error::{Context, Result};
use super::network::{Host, Switch};

/// How soon the thread sees that it is to end.
const LOOK_UP: u16 = 50;

/// Frames with a time stamp.
pub struct Wire {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    _host: Host,
}

struct Shared {
    stop: AtomicBool,
    frames: Mutex<Vec<Frame>>,
}

/// Something that was sent to all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame {
    /// When it was seen.
    pub at: Instant,
    /// The MAC address it came from.
    pub from: [u8; 6],
    /// What it says.
    pub said: Said,
}

/// What a frame says about an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "RFC 9568 §5.2")]
pub enum Said {
    /// A VRRP advert.
    Advert { source: Ipv4Addr, virtual_router_id: u8, priority: u8 },
    /// A gratuitous ARP.
    Announcement { address: Ipv4Addr },
}

impl Wire {
    /// Begins to listen, from a host named `observer` with `address`.
    pub fn tap(switch: &Switch, address: Ipv4Addr) -> Result<Self> {
        let host = switch.host("observer", address)?;
        let socket = host
            .namespace
            .run(|| socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::EthAll))?
            .context(|| "cannot listen on the wire".into())?;
        let shared = Arc::new(Shared { stop: AtomicBool::new(false), frames: Mutex::default() });
        let thread = host.namespace.thread("wire", {
            let shared = Arc::clone(&shared);
            move || listen(&socket, &shared)
        })?;
        Ok(Self { shared, thread: Some(thread), _host: host })
    }

    /// All that was seen since a moment.
    pub fn frames(&self, since: Instant) -> Vec<Frame> {
        let frames = self.shared.frames.lock().unwrap_or_else(PoisonError::into_inner);
        frames.iter().filter(|frame| frame.at >= since).copied().collect()
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn listen(socket: &OwnedFd, shared: &Shared) {
    let mut buffer = [0; 2048];
    while !shared.stop.load(Ordering::Relaxed) {
        let mut ready = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
        if !poll(&mut ready, PollTimeout::from(LOOK_UP)).is_ok_and(|ready| ready > 0) {
            continue;
        }
        let Ok(length) = recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty()) else { continue };
        let at = Instant::now();
        if let Some((from, said)) = buffer.get(..length).and_then(read) {
            shared.frames.lock().unwrap_or_else(PoisonError::into_inner).push(Frame { at, from, said });
        }
    }
}

/// An Ethernet frame; `None` for what is neither advert nor announcement.
fn read(frame: &[u8]) -> Option<([u8; 6], Said)> {
    let from = frame.get(6..12)?.try_into().ok()?;
    let payload = frame.get(14..)?;
    let address = |at: usize| Some(Ipv4Addr::from(<[u8; 4]>::try_from(payload.get(at..at + 4)?).ok()?));
    let said = match frame.get(12..14)? {
        [0x08, 0x06] => {
            let sender = address(14)?;
            (sender == address(24)?).then_some(Said::Announcement { address: sender })?
        }
        [0x08, 0x00] if payload.get(9) == Some(&112) => {
            let vrrp = payload.get(usize::from(payload.first()? & 0x0f) * 4..)?;
            Said::Advert { source: address(12)?, virtual_router_id: *vrrp.get(1)?, priority: *vrrp.get(2)? }
        }
        _ => return None,
    };
    Some((from, said))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_advert_is_told_from_other_packets() {
        let mut frame = vec![0; 14 + 20 + 12];
        frame[6..12].copy_from_slice(&[2, 0, 10, 77, 0, 11]);
        frame[12] = 8;
        frame[14] = 0x45;
        frame[26..30].copy_from_slice(&[10, 77, 0, 11]);
        frame[34..37].copy_from_slice(&[0x31, 77, 254]);
        assert_eq!(read(&frame), None);
        frame[23] = 112;
        let source = Ipv4Addr::new(10, 77, 0, 11);
        let advert = Said::Advert { source, virtual_router_id: 77, priority: 254 };
        assert_eq!(read(&frame), Some(([2, 0, 10, 77, 0, 11], advert)));
        assert_eq!(read(&frame[..36]), None);
    }
}
