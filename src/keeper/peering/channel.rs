//! A TCP connection made private and authentic with the shared key: Noise NNpsk0, in frames.
//!
//! A frame is a length (u16, network order) and as many bytes. The first frame of either side is its part of the
//! handshake; each later one is encrypted and holds one byte (1: the message ends here, 0: it goes on) and a piece of a
//! message. `psk0` makes even the first frame prove the key, before any costly arithmetic. It may be a replay though: who
//! dialled is known only when the first message after the handshake has been decrypted.

use bytes::{Buf, BytesMut};
use snow::{Builder, HandshakeState, TransportState};
use thiserror::Error;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::Key;
use super::message::{LONGEST, LONGEST_HELLO, Message, Refused};

const PATTERN: &str = "Noise_NNpsk0_25519_ChaChaPoly_BLAKE2s";

/// Binds the handshake to this use of the key. Never changes: another one looks like another key.
const PROLOGUE: &[u8] = b"relevo peer link";

/// An ephemeral public key and a tag: each part of the handshake.
const HANDSHAKE_FRAME: usize = 32 + TAG;
const TAG: usize = 16;
const LONGEST_FRAME: usize = u16::MAX as usize;
const LONGEST_PIECE: usize = LONGEST_FRAME - TAG - 1;

const MESSAGE_ENDS: u8 = 1;
const MESSAGE_GOES_ON: u8 = 0;

/// Why a channel could not be made, or ended.
#[derive(Debug, Error)]
pub(super) enum ChannelError {
    /// Without a goodbye if it was established.
    #[error("the connection was closed")]
    Closed,
    #[error("{0}")]
    Io(std::io::Error),
    #[error("what it sent is not Relevo's peer link: something else uses this port")]
    NotAPeer,
    #[error("its key differs: copy the same key file to both nodes")]
    WrongKey,
    #[error("it did not finish its handshake in time")]
    TooSlow,
    /// It holds the key, and is none that we link with.
    #[error("{0}")]
    Refused(String),
    /// We hold the key, and it does not link with us.
    #[error("it refuses the link: {0}")]
    Refuses(String),
    #[error("a frame was forged or damaged")]
    Forged,
    #[error("a message is longer than {0} bytes")]
    TooLong(usize),
    #[error("a message is not understood: {0}")]
    NotUnderstood(#[from] serde_json::Error),
    #[error("Noise: {0}")]
    Noise(#[from] snow::Error),
}

impl From<std::io::Error> for ChannelError {
    fn from(error: std::io::Error) -> Self {
        use std::io::ErrorKind::{BrokenPipe, ConnectionReset};
        match error.kind() {
            BrokenPipe | ConnectionReset => ChannelError::Closed,
            _ => ChannelError::Io(error),
        }
    }
}

/// An established channel.
pub(super) struct Channel {
    stream: TcpStream,
    noise: TransportState,
    /// Read, not yet a whole frame.
    received: BytesMut,
    /// The pieces so far of a message that goes on.
    message: Vec<u8>,
    /// Of a message.
    longest: usize,
}

impl Channel {
    /// The side that dialled.
    pub(super) async fn initiate(mut stream: TcpStream, key: &Key) -> Result<Channel, ChannelError> {
        let mut noise = builder(key)?.build_initiator()?;
        let mut received = BytesMut::new();
        send_handshake(&mut stream, &mut noise).await?;
        receive_handshake(&mut stream, &mut noise, &mut received).await?;
        Channel::established(stream, noise, received)
    }

    /// The side that accepted.
    pub(super) async fn respond(mut stream: TcpStream, key: &Key) -> Result<Channel, ChannelError> {
        let mut noise = builder(key)?.build_responder()?;
        let mut received = BytesMut::new();
        receive_handshake(&mut stream, &mut noise, &mut received).await?;
        send_handshake(&mut stream, &mut noise).await?;
        Channel::established(stream, noise, received)
    }

    fn established(stream: TcpStream, noise: HandshakeState, received: BytesMut) -> Result<Channel, ChannelError> {
        let noise = noise.into_transport_mode()?;
        Ok(Channel { stream, noise, received, message: Vec::new(), longest: LONGEST_HELLO })
    }

    /// The other side has proved that it is here now: longer messages are welcome.
    pub(super) fn trust(&mut self) {
        self.longest = LONGEST;
    }

    /// The next message. Cancel safe: what was read stays in the channel.
    pub(super) async fn receive(&mut self) -> Result<Message, ChannelError> {
        loop {
            while let Some(frame) = take_frame(&mut self.received) {
                if let Some(message) = self.open(&frame)? {
                    return Ok(message);
                }
            }
            read_more(&mut self.stream, &mut self.received).await?;
        }
    }

    fn open(&mut self, frame: &[u8]) -> Result<Option<Message>, ChannelError> {
        let mut plain = vec![0; frame.len()];
        let length = self.noise.read_message(frame, &mut plain).map_err(|_| ChannelError::Forged)?;
        let Some((&mark, piece)) = plain.get(..length).and_then(<[u8]>::split_first) else {
            return Err(ChannelError::Forged);
        };
        if self.message.len() + piece.len() > self.longest {
            return Err(ChannelError::TooLong(self.longest));
        }
        self.message.extend_from_slice(piece);
        if mark == MESSAGE_GOES_ON {
            return Ok(None);
        }
        let message = std::mem::take(&mut self.message);
        Ok(Some(serde_json::from_slice(&message)?))
    }

    /// Sends a message. Not cancel safe: a channel whose sending was given up is of no use any more.
    ///
    /// # Errors
    /// [`ChannelError::TooLong`] before anything was sent; any other is the channel's end.
    pub(super) async fn send(&mut self, message: &Message) -> Result<(), ChannelError> {
        let text = serde_json::to_vec(message)?;
        if text.len() > LONGEST {
            return Err(ChannelError::TooLong(LONGEST));
        }
        self.send_text(&text).await
    }

    pub(super) async fn send_text(&mut self, text: &[u8]) -> Result<(), ChannelError> {
        let mut frames = Vec::with_capacity(text.len() + 64);
        let mut pieces = text.chunks(LONGEST_PIECE).peekable();
        let mut plain = Vec::new();
        let mut sealed = vec![0; LONGEST_FRAME.min(text.len() + 1 + TAG)];
        while let Some(piece) = pieces.next() {
            plain.clear();
            plain.push(if pieces.peek().is_some() { MESSAGE_GOES_ON } else { MESSAGE_ENDS });
            plain.extend_from_slice(piece);
            let length = self.noise.write_message(&plain, &mut sealed)?;
            put_frame(&mut frames, &sealed[..length]);
        }
        self.stream.write_all(&frames).await?;
        Ok(())
    }

    /// Tells the other side why there is no link, and waits until it has taken that.
    pub(super) async fn refuse(&mut self, reason: String) -> Result<(), ChannelError> {
        self.send(&Message::Refused(Refused { reason })).await?;
        self.close().await?;
        // A socket that is closed with something unread resets, and what was said may be lost.
        while self.receive().await.is_ok() {}
        Ok(())
    }

    /// Says that nothing more will come.
    pub(super) async fn close(&mut self) -> Result<(), ChannelError> {
        Ok(self.stream.shutdown().await?)
    }
}

fn builder(key: &Key) -> Result<Builder<'_>, ChannelError> {
    Ok(Builder::new(PATTERN.parse()?).psk(0, key.as_bytes())?.prologue(PROLOGUE)?)
}

async fn send_handshake(stream: &mut TcpStream, noise: &mut HandshakeState) -> Result<(), ChannelError> {
    let mut part = [0; HANDSHAKE_FRAME];
    let length = noise.write_message(&[], &mut part)?;
    let mut frame = Vec::with_capacity(2 + length);
    put_frame(&mut frame, &part[..length]);
    stream.write_all(&frame).await?;
    Ok(())
}

async fn receive_handshake(
    stream: &mut TcpStream,
    noise: &mut HandshakeState,
    received: &mut BytesMut,
) -> Result<(), ChannelError> {
    let frame = loop {
        // Anything but this length is somebody else's protocol; there is no need to wait for the rest of it.
        if received.get(..2).is_some_and(|length| length != (HANDSHAKE_FRAME as u16).to_be_bytes()) {
            return Err(ChannelError::NotAPeer);
        }
        if let Some(frame) = take_frame(received) {
            break frame;
        }
        read_more(stream, received).await?;
    };
    noise.read_message(&frame, &mut [0; HANDSHAKE_FRAME]).map_err(|_| ChannelError::WrongKey)?;
    Ok(())
}

/// `frame` is never longer than a u16 says: both callers' buffers are not.
fn put_frame(out: &mut Vec<u8>, frame: &[u8]) {
    out.extend_from_slice(&(frame.len() as u16).to_be_bytes());
    out.extend_from_slice(frame);
}

/// `None` until a whole frame is there.
fn take_frame(received: &mut BytesMut) -> Option<BytesMut> {
    let length = usize::from(u16::from_be_bytes([*received.first()?, *received.get(1)?]));
    if received.len() < 2 + length {
        return None;
    }
    received.advance(2);
    Some(received.split_to(length))
}

/// Bounded: it is only called while less than a frame has been received.
async fn read_more(stream: &mut TcpStream, received: &mut BytesMut) -> Result<(), ChannelError> {
    received.reserve(4096);
    match stream.read_buf(received).await? {
        0 => Err(ChannelError::Closed),
        _ => Ok(()),
    }
}
