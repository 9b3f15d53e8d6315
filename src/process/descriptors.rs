//! Messages in frames, and descriptors with them, over the unix stream socketpair of two processes of one program.
//!
//! A frame is two numbers of four bytes, big-endian (the length of the text, the count of descriptors), then the message
//! as JSON. Its descriptors travel with its first bytes (SCM_RIGHTS), so they are all there when the frame is.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

use nix::cmsg_space;
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::time::{Instant, sleep_until};

/// The kernel's limit for one sendmsg (SCM_MAX_FD).
const DESCRIPTORS_AT_ONCE: usize = 253;
/// Longest message: a configuration with thousands of servers stays far below.
const LONGEST: usize = 64 << 20;
const HEAD: usize = 8;
/// Bytes of one read.
const READ: usize = 16 * 1024;
/// Whoever is not trusted is read from so often in each [`WINDOW`], beside what two of its longest messages take.
const READS: usize = 32;
const WINDOW: Duration = Duration::from_millis(200);

/// The two halves of one end of a socketpair. The socket closes when both are gone.
pub fn halves(stream: UnixStream) -> (Sender, Receiver) {
    let stream = Arc::new(stream);
    let receiver =
        Receiver { stream: stream.clone(), bytes: Vec::new(), descriptors: Vec::new(), longest: LONGEST, pace: None };
    (Sender { stream }, receiver)
}

/// Puts the socket of both halves on another descriptor (design rule 1: a high number is closed first).
///
/// # Errors
/// When the socket cannot be watched there.
pub fn renumber(
    sender: Sender,
    mut receiver: Receiver,
    renumber: impl FnOnce(OwnedFd) -> OwnedFd,
) -> io::Result<(Sender, Receiver)> {
    drop(sender);
    let stream = Arc::into_inner(receiver.stream).ok_or(io::ErrorKind::ResourceBusy)?;
    let moved = renumber(stream.into_std()?.into());
    receiver.stream = Arc::new(UnixStream::from_std(moved.into())?);
    Ok((Sender { stream: receiver.stream.clone() }, receiver))
}

/// Sends messages.
pub struct Sender {
    stream: Arc<UnixStream>,
}

impl Sender {
    /// Sends a message and its descriptors (which stay open here). Not cancel-safe: a frame that was begun must be
    /// finished.
    ///
    /// # Errors
    /// When the other process is gone, or the message is too long.
    pub async fn send(&mut self, message: &impl Serialize, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let mut frame = vec![0; HEAD];
        serde_json::to_writer(&mut frame, message)?;
        let length = frame.len() - HEAD;
        if length > LONGEST {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("a message of {length} bytes is too long"),
            ));
        }
        frame[..4].copy_from_slice(&(length as u32).to_be_bytes());
        frame[4..HEAD].copy_from_slice(&(descriptors.len() as u32).to_be_bytes());

        let descriptors: Vec<RawFd> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
        let mut batches = descriptors.chunks(DESCRIPTORS_AT_ONCE).peekable();
        let mut rest = frame.as_slice();
        while !rest.is_empty() {
            let batch = batches.next().unwrap_or_default();
            // A byte is enough to carry a batch, and the last batch takes all that is left.
            let part = if batches.peek().is_some() { &rest[..1] } else { rest };
            rest = &rest[self.write(part, batch).await?..];
        }
        Ok(())
    }

    async fn write(&self, bytes: &[u8], descriptors: &[RawFd]) -> io::Result<usize> {
        let rights = [ControlMessage::ScmRights(descriptors)];
        let control: &[ControlMessage] = if descriptors.is_empty() { &[] } else { &rights };
        let socket = self.stream.as_raw_fd();
        let attempt = || Ok(sendmsg::<()>(socket, &[IoSlice::new(bytes)], control, MsgFlags::MSG_NOSIGNAL, None)?);
        self.stream.async_io(Interest::WRITABLE, attempt).await
    }
}

/// Receives messages.
pub struct Receiver {
    stream: Arc<UnixStream>,
    /// Of the frame that is coming, and never of the next one.
    bytes: Vec<u8>,
    /// What came with it.
    descriptors: Vec<OwnedFd>,
    longest: usize,
    /// `None`: the other process is trusted.
    pace: Option<Pace>,
}

impl Receiver {
    /// For a process that may have been taken over: its messages have `longest` bytes at most, no descriptor is taken from
    /// it, and it is read from at a pace that leaves this thread its time, however much it sends.
    pub fn distrust(self, longest: usize) -> Self {
        let reads = reads_for(longest);
        Receiver { longest, pace: Some(Pace { reads, left: reads, until: Instant::now() }), ..self }
    }

    /// Messages of a process that is not trusted have this many bytes at most from now on.
    pub fn allow(&mut self, longest: usize) {
        self.longest = longest;
        if let Some(pace) = &mut self.pace {
            pace.reads = reads_for(longest);
        }
    }

    /// The next message with the descriptors that came with it; `None` when the other process has closed. Cancel-safe.
    ///
    /// # Errors
    /// When the socket fails, or what came is no message of this type.
    pub async fn receive<T: DeserializeOwned>(&mut self) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
        loop {
            let missing = self.missing()?;
            if missing == 0 {
                let message = serde_json::from_slice(self.bytes.get(HEAD..).unwrap_or_default());
                self.bytes.clear();
                return Ok(Some((message?, std::mem::take(&mut self.descriptors))));
            }
            if self.read(missing).await? == 0 {
                return if self.bytes.is_empty() { Ok(None) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
            }
        }
    }

    /// Bytes that the head, or then the rest of the frame, still lacks.
    fn missing(&self) -> io::Result<usize> {
        let Some((length, rest)) = self.bytes.split_first_chunk() else { return Ok(HEAD - self.bytes.len()) };
        let Some((descriptors, text)) = rest.split_first_chunk() else { return Ok(HEAD - self.bytes.len()) };
        let (length, descriptors) = (u32::from_be_bytes(*length) as usize, u32::from_be_bytes(*descriptors) as usize);
        if length == 0 || length > self.longest {
            return Err(invalid(format!("a message of {length} bytes: expected 1 to {}", self.longest)));
        }
        let missing = length.saturating_sub(text.len());
        if missing == 0 && self.descriptors.len() != descriptors {
            return Err(invalid(format!("{descriptors} descriptors expected, {} came", self.descriptors.len())));
        }
        Ok(missing)
    }

    async fn read(&mut self, most: usize) -> io::Result<usize> {
        if let Some(pace) = &mut self.pace {
            pace.wait().await;
        }
        let mut buffer = [0; READ];
        let buffer = &mut buffer[..most.min(READ)];
        let socket = self.stream.as_raw_fd();
        let takes_descriptors = self.pace.is_none();
        let (length, descriptors) =
            self.stream.async_io(Interest::READABLE, || receive_once(socket, buffer, takes_descriptors)).await?;
        self.bytes.extend_from_slice(buffer.get(..length).unwrap_or_default());
        self.descriptors.extend(descriptors);
        Ok(length)
    }
}

fn reads_for(longest: usize) -> usize {
    READS + 2 * longest.div_ceil(READ)
}

/// So many reads in each window.
struct Pace {
    reads: usize,
    left: usize,
    until: Instant,
}

impl Pace {
    /// Until another read is due. Cancel-safe.
    async fn wait(&mut self) {
        if self.left == 0 {
            sleep_until(self.until).await;
        }
        let now = Instant::now();
        if now >= self.until {
            (self.left, self.until) = (self.reads, now + WINDOW);
        }
        self.left = self.left.saturating_sub(1);
    }
}

#[allow(unsafe_code)]
fn receive_once(socket: RawFd, buffer: &mut [u8], takes_descriptors: bool) -> io::Result<(usize, Vec<OwnedFd>)> {
    // Where there is no space for them the kernel closes them.
    let mut space = takes_descriptors.then(|| cmsg_space!([RawFd; DESCRIPTORS_AT_ONCE]));
    let mut parts = [IoSliceMut::new(buffer)];
    let received = recvmsg::<()>(socket, &mut parts, space.as_deref_mut(), MsgFlags::MSG_CMSG_CLOEXEC)?;
    if received.flags.contains(MsgFlags::MSG_CTRUNC) {
        return Err(invalid(match takes_descriptors {
            true => "not every descriptor could be taken over: the limit of open files is too low".to_owned(),
            false => "descriptors came, which are not taken here".to_owned(),
        }));
    }
    let mut descriptors = Vec::new();
    for control in received.cmsgs()? {
        if let ControlMessageOwned::ScmRights(raw) = control {
            // SAFETY: the kernel has just made these descriptors for us, and nobody else knows them.
            descriptors.extend(raw.into_iter().map(|raw| unsafe { OwnedFd::from_raw_fd(raw) }));
        }
    }
    Ok((received.bytes, descriptors))
}

fn invalid(message: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    fn pair() -> (Sender, Receiver) {
        let (one, other) = UnixStream::pair().unwrap();
        (halves(one).0, halves(other).1)
    }

    #[tokio::test]
    async fn messages_arrive_in_order_each_with_its_descriptors() {
        let (mut sender, mut receiver) = pair();
        let (kept, given) = std::os::unix::net::UnixStream::pair().unwrap();
        sender.send(&"none", &[]).await.unwrap();
        sender.send(&"many", &vec![given.as_fd(); 600]).await.unwrap();
        sender.send(&"one", &[given.as_fd()]).await.unwrap();
        drop((sender, given));

        let (text, none) = receiver.receive::<String>().await.unwrap().unwrap();
        assert_eq!((text.as_str(), none.len()), ("none", 0));
        let (text, many) = receiver.receive::<String>().await.unwrap().unwrap();
        assert_eq!((text.as_str(), many.len()), ("many", 600));
        let (text, one) = receiver.receive::<String>().await.unwrap().unwrap();
        assert_eq!((text.as_str(), one.len()), ("one", 1));
        assert!(receiver.receive::<String>().await.unwrap().is_none());

        // Only the descriptors that were sent hold the other end now.
        use std::io::{Read, Write};
        drop(many);
        let mut taken = std::os::unix::net::UnixStream::from(one.into_iter().next().unwrap());
        taken.write_all(b"here").unwrap();
        drop(taken);
        let mut read = String::new();
        (&kept).read_to_string(&mut read).unwrap();
        assert_eq!(read, "here");
    }

    #[tokio::test]
    async fn a_long_message_arrives_whole() {
        let (mut sender, mut receiver) = pair();
        let long = "x".repeat(3 << 20);
        let (sent, received) = tokio::join!(sender.send(&long, &[]), receiver.receive::<String>());
        sent.unwrap();
        assert_eq!(received.unwrap().unwrap().0.len(), long.len());
    }

    #[tokio::test]
    async fn a_frame_cut_short_is_an_error() {
        let (one, other) = UnixStream::pair().unwrap();
        one.try_write(&[0, 0, 0, 9, 0, 0, 0, 0, b'"']).unwrap();
        drop(one);
        assert!(halves(other).1.receive::<String>().await.is_err());
    }

    #[tokio::test]
    async fn whoever_is_not_trusted_sends_no_long_message_and_no_descriptor() {
        let (mut sender, receiver) = pair();
        let mut receiver = receiver.distrust(10);
        sender.send(&"12345678", &[]).await.unwrap();
        assert_eq!(receiver.receive::<String>().await.unwrap().unwrap().0, "12345678");
        sender.send(&"123456789", &[]).await.unwrap();
        assert!(receiver.receive::<String>().await.unwrap_err().to_string().contains("11 bytes"));

        let (mut sender, receiver) = pair();
        let given = std::fs::File::open("/dev/null").unwrap();
        sender.send(&"", &[given.as_fd()]).await.unwrap();
        let error = receiver.distrust(10).receive::<String>().await.unwrap_err();
        assert!(error.to_string().contains("not taken here"), "{error}");
    }

    #[tokio::test]
    async fn a_flood_is_read_at_a_pace() {
        let (one, other) = UnixStream::pair().unwrap();
        let (mut sender, mut receiver) = (halves(one).0, halves(other).1.distrust(10));
        let flood = tokio::spawn(async move { while sender.send(&0, &[]).await.is_ok() {} });
        let begin = Instant::now();
        // Head and text are a read each.
        for _ in 0..2 * READS {
            receiver.receive::<u8>().await.unwrap().unwrap();
        }
        assert!(begin.elapsed() >= 2 * WINDOW, "{:?}", begin.elapsed());
        drop(receiver);
        flood.await.unwrap();
    }
}
