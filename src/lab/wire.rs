//! An observer on the switch: which adverts and announcements were really sent, by whom, to whom and when.
//!
//! It sees every frame that enters the switch, unicast too, and none twice. The times are those the kernel stamped on the
//! frames, so that an observer which has to wait for a processor does not take its own lateness for that of an advert.

use std::io::{self, IoSliceMut};
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use nix::cmsg_space;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg, setsockopt, sockopt};
use nix::sys::time::TimeSpec;
use socket2::{Domain, Protocol, SockFilter, Socket, Type};

use super::error::{Context, Result};
use super::network::Switch;

/// How soon the thread sees that it is to end.
const LOOK_UP: u16 = 50;

/// Frames with a time stamp.
pub struct Wire {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    stop: AtomicBool,
    frames: Mutex<Vec<Frame>>,
}

/// An advert or an announcement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame {
    /// When it was sent.
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
    Advert { source: Ipv4Addr, destination: Ipv4Addr, virtual_router_id: u8, priority: u8 },
    /// A gratuitous ARP.
    Announcement { address: Ipv4Addr },
}

impl Wire {
    /// Begins to listen.
    pub fn tap(switch: &Switch) -> Result<Self> {
        let namespace = switch.namespace();
        let bridge = switch.bridge()?;
        let socket = namespace.run(|| listening(bridge))?.context(|| "cannot listen on the wire".into())?;
        let shared = Arc::new(Shared { stop: AtomicBool::new(false), frames: Mutex::default() });
        let thread = namespace.thread("wire", {
            let shared = Arc::clone(&shared);
            move || listen(&socket, &shared)
        })?;
        Ok(Self { shared, thread: Some(thread) })
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

/// A socket for what enters by the ports of the switch. A bridge hands what is for all to its own interface as well, and
/// sends it out at each port; the kernel shows all of that, and the filter leaves one of each.
fn listening(bridge: u32) -> io::Result<Socket> {
    const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const LOAD_HALF: u16 = (libc::BPF_LD | libc::BPF_H | libc::BPF_ABS) as u16;
    const LOAD_BYTE: u16 = (libc::BPF_LD | libc::BPF_B | libc::BPF_ABS) as u16;
    const JUMP_IF_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    const ANCILLARY: u32 = libc::SKF_AD_OFF as u32;
    const ACCEPT: u32 = u16::MAX as u32;

    let socket =
        Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(i32::from((libc::ETH_P_ALL as u16).to_be()))))?;
    setsockopt(&socket, sockopt::ReceiveTimestampns, &true)?;
    socket.attach_filter(&[
        SockFilter::new(LOAD, 0, 0, ANCILLARY + libc::SKF_AD_PKTTYPE as u32),
        SockFilter::new(JUMP_IF_EQUAL, 8, 0, u32::from(libc::PACKET_OUTGOING)),
        SockFilter::new(LOAD, 0, 0, ANCILLARY + libc::SKF_AD_IFINDEX as u32),
        SockFilter::new(JUMP_IF_EQUAL, 6, 0, bridge),
        SockFilter::new(LOAD_HALF, 0, 0, 12),
        SockFilter::new(JUMP_IF_EQUAL, 3, 0, ARP.into()),
        SockFilter::new(JUMP_IF_EQUAL, 0, 3, IPV4.into()),
        SockFilter::new(LOAD_BYTE, 0, 0, 14 + 9),
        SockFilter::new(JUMP_IF_EQUAL, 0, 1, VRRP.into()),
        SockFilter::new(RETURN, 0, 0, ACCEPT),
        SockFilter::new(RETURN, 0, 0, 0),
    ])?;
    Ok(socket)
}

fn listen(socket: &Socket, shared: &Shared) {
    let mut buffer = [0; 2048];
    while !shared.stop.load(Ordering::Relaxed) {
        let mut ready = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
        if !poll(&mut ready, PollTimeout::from(LOOK_UP)).is_ok_and(|ready| ready > 0) {
            continue;
        }
        let Ok((length, at)) = receive(socket, &mut buffer) else { continue };
        let at = at.map_or_else(Instant::now, |stamp| Clock::now().instant(stamp));
        if let Some((from, said)) = buffer.get(..length).and_then(read) {
            shared.frames.lock().unwrap_or_else(PoisonError::into_inner).push(Frame { at, from, said });
        }
    }
}

fn receive(socket: &Socket, buffer: &mut [u8]) -> nix::Result<(usize, Option<TimeSpec>)> {
    let mut control = cmsg_space!(TimeSpec);
    let mut parts = [IoSliceMut::new(buffer)];
    let received = recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut control), MsgFlags::empty())?;
    let stamp = received.cmsgs()?.find_map(|message| match message {
        ControlMessageOwned::ScmTimestampns(stamp) => Some(stamp),
        _ => None,
    });
    Ok((received.bytes, stamp))
}

/// The kernel's stamps are by the calendar, which is set now and then: each is compared with the calendar of just now.
struct Clock {
    at: Instant,
    /// The same by the calendar, since 1970.
    calendar: Duration,
}

impl Clock {
    fn now() -> Self {
        let look = || {
            let at = Instant::now();
            let calendar = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            (at.elapsed(), Self { at, calendar })
        };
        // One look of a few may have been interrupted between the two clocks.
        let looks = [look(), look(), look(), look(), look()];
        let [first, rest @ ..] = looks;
        rest.into_iter().fold(first, |best, look| if look.0 < best.0 { look } else { best }).1
    }

    fn instant(&self, stamp: TimeSpec) -> Instant {
        let stamp = Duration::from(stamp);
        match stamp.checked_sub(self.calendar) {
            Some(after) => self.at + after,
            None => self.at - (self.calendar - stamp),
        }
    }
}

const ARP: u16 = 0x0806;
const IPV4: u16 = 0x0800;
const VRRP: u8 = 112;

/// An Ethernet frame; `None` for what is neither advert nor announcement.
fn read(frame: &[u8]) -> Option<([u8; 6], Said)> {
    let from = frame.get(6..12)?.try_into().ok()?;
    let payload = frame.get(14..)?;
    let address = |at: usize| Some(Ipv4Addr::from(<[u8; 4]>::try_from(payload.get(at..at + 4)?).ok()?));
    let said = match u16::from_be_bytes(frame.get(12..14)?.try_into().ok()?) {
        ARP => {
            let sender = address(14)?;
            (sender == address(24)?).then_some(Said::Announcement { address: sender })?
        }
        IPV4 if payload.get(9) == Some(&VRRP) => {
            let vrrp = payload.get(usize::from(payload.first()? & 0x0f) * 4..)?;
            let (virtual_router_id, priority) = (*vrrp.get(1)?, *vrrp.get(2)?);
            Said::Advert { source: address(12)?, destination: address(16)?, virtual_router_id, priority }
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
        frame[30..34].copy_from_slice(&[224, 0, 0, 18]);
        frame[34..37].copy_from_slice(&[0x31, 77, 254]);
        assert_eq!(read(&frame), None);
        frame[23] = 112;
        let (source, destination) = (Ipv4Addr::new(10, 77, 0, 11), Ipv4Addr::new(224, 0, 0, 18));
        let advert = Said::Advert { source, destination, virtual_router_id: 77, priority: 254 };
        assert_eq!(read(&frame), Some(([2, 0, 10, 77, 0, 11], advert)));
        assert_eq!(read(&frame[..36]), None);
    }

    #[test]
    fn a_stamp_becomes_the_instant_it_was_made() {
        let clock = Clock::now();
        let before = Instant::now();
        let stamp = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        let after = Instant::now();
        let at = clock.instant(TimeSpec::from_duration(stamp));
        let tolerance = Duration::from_millis(5);
        assert!(at + tolerance >= before && at <= after + tolerance);
    }
}
