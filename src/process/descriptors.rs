//! Messages in frames, and descriptors with them, over the unix stream socketpair of two processes of one program.
//!
//! A frame is two numbers of four bytes, big-endian (the length of the text, the count of descriptors), then the message
//! as JSON. Its descriptors travel with its first bytes (SCM_RIGHTS), so they are all there when the frame is.

use std::collections::VecDeque;
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;

use nix::cmsg_space;
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::Interest;
use tokio::net::UnixStream;

/// The kernel's limit for one sendmsg (SCM_MAX_FD).
const DESCRIPTORS_AT_ONCE: usize = 253;
/// Longest message: a configuration with thousands of servers stays far below.
const LONGEST: usize = 64 << 20;
const HEAD: usize = 8;

/// The two halves of one end of a socketpair. The socket closes when both are gone.
pub fn halves(stream: UnixStream) -> (Sender, Receiver) {
    let stream = Arc::new(stream);
    (Sender { stream: stream.clone() }, Receiver { stream, bytes: Vec::new(), descriptors: VecDeque::new() })
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
    bytes: Vec<u8>,
    descriptors: VecDeque<OwnedFd>,
}

impl Receiver {
    /// The next message with the descriptors that came with it; `None` when the other process has closed. Cancel-safe.
    ///
    /// # Errors
    /// When the socket fails, or what came is no message of this type.
    pub async fn receive<T: DeserializeOwned>(&mut self) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
        loop {
            if let Some((length, descriptors)) = self.complete_frame()? {
                let message = serde_json::from_slice(&self.bytes[HEAD..HEAD + length])?;
                self.bytes.drain(..HEAD + length);
                return Ok(Some((message, self.descriptors.drain(..descriptors).collect())));
            }
            if self.read().await? == 0 {
                return if self.bytes.is_empty() { Ok(None) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
            }
        }
    }

    /// Length and count of descriptors of the first frame, if all of it is there.
    fn complete_frame(&self) -> io::Result<Option<(usize, usize)>> {
        let Some((length, rest)) = self.bytes.split_first_chunk() else { return Ok(None) };
        let Some((descriptors, text)) = rest.split_first_chunk() else { return Ok(None) };
        let (length, descriptors) = (u32::from_be_bytes(*length) as usize, u32::from_be_bytes(*descriptors) as usize);
        if length > LONGEST {
            return Err(invalid(format!("a message of {length} bytes is too long")));
        }
        if text.len() < length {
            return Ok(None);
        }
        if self.descriptors.len() < descriptors {
            return Err(invalid(format!("{descriptors} descriptors expected, {} came", self.descriptors.len())));
        }
        Ok(Some((length, descriptors)))
    }

    async fn read(&mut self) -> io::Result<usize> {
        let mut buffer = [0; 16 * 1024];
        let socket = self.stream.as_raw_fd();
        let (length, descriptors) =
            self.stream.async_io(Interest::READABLE, || receive_once(socket, &mut buffer)).await?;
        self.bytes.extend_from_slice(&buffer[..length]);
        self.descriptors.extend(descriptors);
        Ok(length)
    }
}

#[allow(unsafe_code)]
fn receive_once(socket: RawFd, buffer: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut space = cmsg_space!([RawFd; DESCRIPTORS_AT_ONCE]);
    let mut parts = [IoSliceMut::new(buffer)];
    let received = recvmsg::<()>(socket, &mut parts, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC)?;
    let mut descriptors = Vec::new();
    for control in received.cmsgs()? {
        if let ControlMessageOwned::ScmRights(raw) = control {
            // SAFETY: the kernel has just made these descriptors for us, and nobody else knows them.
            descriptors.extend(raw.into_iter().map(|raw| unsafe { OwnedFd::from_raw_fd(raw) }));
        }
    }
    if received.flags.contains(MsgFlags::MSG_CTRUNC) {
        return Err(invalid("not every descriptor could be taken over: the limit of open files is too low".to_owned()));
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
}
