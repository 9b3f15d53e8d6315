//! A response's body as its server frames it: by length, in chunks, or until the connection ends (RFC 9112 §6).

use bytes::{Buf, Bytes, BytesMut};
use hyper::HeaderMap;
use hyper::body::Frame;

use super::Malformed;
use super::response::{MAX_HEADERS, headers_from};

/// Longest line with a chunk's size, extensions included.
const MAX_SIZE_LINE: usize = 4 * 1024;
/// Longest block of trailers.
const MAX_TRAILERS: usize = 16 * 1024;

/// How much of a body is still to come, and how it is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Decoder {
    /// So many bytes; with none left the body is over.
    Length(u64),
    /// In chunks.
    Chunked(Chunked),
    /// All that comes until the server closes.
    UntilClose,
}

/// What comes next of a body in chunks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Chunked {
    /// The line with a chunk's size.
    Size,
    /// So many bytes of a chunk.
    Data(u64),
    /// The end of the line behind a chunk.
    DataEnd,
    /// The trailers, and the line that ends them.
    Trailers,
}

impl Decoder {
    /// No body.
    pub(super) const NOTHING: Self = Self::Length(0);

    /// Is the body over?
    pub(super) fn is_over(&self) -> bool {
        *self == Self::NOTHING
    }

    /// How many bytes are still to come, where that is known.
    pub(super) fn remaining(&self) -> Option<u64> {
        if let Self::Length(length) = self { Some(*length) } else { None }
    }

    /// How many bytes come next just as they are to go on.
    pub(super) fn plain(&self) -> u64 {
        match self {
            Self::Length(remaining) | Self::Chunked(Chunked::Data(remaining)) => *remaining,
            Self::Chunked(_) | Self::UntilClose => 0,
        }
    }

    /// So many of them have gone on another way.
    pub(super) fn skip(&mut self, bytes: usize) {
        match self {
            Self::Length(remaining) => *remaining = remaining.saturating_sub(bytes as u64),
            Self::Chunked(chunked) => chunked.skip(bytes),
            Self::UntilClose => {}
        }
    }

    /// Takes the next piece from what has been received; `None`: more has to come first, or the body is over.
    ///
    /// # Errors
    /// When it is not framed as HTTP frames it: where it ends is then unknown.
    pub(super) fn decode(&mut self, received: &mut BytesMut) -> Result<Option<Frame<Bytes>>, Malformed> {
        match self {
            Self::Length(remaining) => {
                let data = take(*remaining, received);
                self.skip(data.as_ref().map_or(0, Bytes::len));
                Ok(data.map(Frame::data))
            }
            Self::UntilClose if received.is_empty() => Ok(None),
            Self::UntilClose => Ok(Some(Frame::data(received.split().freeze()))),
            Self::Chunked(chunked) => {
                let Some(step) = chunked.decode(received)? else { return Ok(None) };
                match step {
                    Step::Data(data) => Ok(Some(Frame::data(data))),
                    Step::End(trailers) => {
                        *self = Self::NOTHING;
                        Ok(trailers.map(Frame::trailers))
                    }
                }
            }
        }
    }
}

enum Step {
    Data(Bytes),
    End(Option<HeaderMap>),
}

impl Chunked {
    fn skip(&mut self, bytes: usize) {
        if let Self::Data(remaining) = self {
            *remaining = remaining.saturating_sub(bytes as u64);
            if *remaining == 0 {
                *self = Self::DataEnd;
            }
        }
    }

    fn decode(&mut self, received: &mut BytesMut) -> Result<Option<Step>, Malformed> {
        loop {
            match self {
                // The parser would take no digits for none to come, and end a line where an extension goes on.
                Self::Size if received.first().is_some_and(|digit| !digit.is_ascii_hexdigit()) => {
                    return Err(Malformed);
                }
                Self::Size => match httparse::parse_chunk_size(received).map_err(|_| Malformed)? {
                    httparse::Status::Complete((line, size)) => {
                        let is_one_line = received.iter().position(|byte| *byte == b'\n') == Some(line - 1);
                        if !is_one_line {
                            return Err(Malformed);
                        }
                        received.advance(line);
                        *self = if size == 0 { Self::Trailers } else { Self::Data(size) };
                    }
                    httparse::Status::Partial if received.len() > MAX_SIZE_LINE => return Err(Malformed),
                    httparse::Status::Partial => return Ok(None),
                },
                Self::Data(remaining) => {
                    let data = take(*remaining, received);
                    self.skip(data.as_ref().map_or(0, Bytes::len));
                    return Ok(data.map(Step::Data));
                }
                Self::DataEnd => match received.get(..2) {
                    Some(b"\r\n") => {
                        received.advance(2);
                        *self = Self::Size;
                    }
                    Some(_) => return Err(Malformed),
                    None => return Ok(None),
                },
                Self::Trailers => return trailers(received),
            }
        }
    }
}

fn take(most: u64, received: &mut BytesMut) -> Option<Bytes> {
    let length = received.len().min(usize::try_from(most).unwrap_or(usize::MAX));
    (length > 0).then(|| received.split_to(length).freeze())
}

fn trailers(received: &mut BytesMut) -> Result<Option<Step>, Malformed> {
    let mut room = [httparse::EMPTY_HEADER; MAX_HEADERS];
    match httparse::parse_headers(received, &mut room).map_err(|_| Malformed)? {
        httparse::Status::Complete((length, parsed)) => {
            let places = super::response::places(received, parsed);
            let block = received.split_to(length).freeze();
            let trailers = headers_from(&block, &places)?;
            Ok(Some(Step::End((!trailers.is_empty()).then_some(trailers))))
        }
        httparse::Status::Partial if received.len() > MAX_TRAILERS => Err(Malformed),
        httparse::Status::Partial => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A body, its trailers, and what came behind it.
    type Decoded = (Vec<u8>, Option<HeaderMap>, Vec<u8>);

    /// Feeds `wire` in pieces of `step` bytes.
    fn decode(mut decoder: Decoder, wire: &[u8], step: usize) -> Result<Decoded, Malformed> {
        let (mut body, mut trailers, mut received) = (Vec::new(), None, BytesMut::new());
        for piece in wire.chunks(step) {
            received.extend_from_slice(piece);
            while let Some(frame) = decoder.decode(&mut received)? {
                match frame.into_data() {
                    Ok(data) => body.extend_from_slice(&data),
                    Err(frame) => trailers = frame.into_trailers().ok(),
                }
            }
        }
        assert!(decoder.is_over() || decoder == Decoder::UntilClose, "not over: {decoder:?}");
        Ok((body, trailers, received.to_vec()))
    }

    const CHUNKED: Decoder = Decoder::Chunked(Chunked::Size);

    #[test]
    fn a_body_is_the_same_however_it_is_cut() {
        let cases: [(Decoder, &str, &str, &str); 6] = [
            (Decoder::Length(5), "hello", "hello", ""),
            (Decoder::Length(5), "helloHTTP", "hello", "HTTP"),
            (Decoder::UntilClose, "hello", "hello", ""),
            (CHUNKED, "5\r\nhello\r\n0\r\n\r\n", "hello", ""),
            (CHUNKED, "2;name=value\r\nhe\r\n3\r\nllo\r\n0\r\n\r\nHTTP", "hello", "HTTP"),
            (CHUNKED, "0\r\n\r\n", "", ""),
        ];
        for (decoder, wire, body, rest) in cases {
            for step in 1..=wire.len() {
                let (found, trailers, left) = decode(decoder, wire.as_bytes(), step).unwrap();
                assert_eq!(
                    (found.as_slice(), left.as_slice()),
                    (body.as_bytes(), rest.as_bytes()),
                    "{wire:?} by {step}"
                );
                assert_eq!(trailers, None);
            }
        }
    }

    #[test]
    fn trailers_come_last() {
        let wire = "1\r\nx\r\n0\r\nX-Sum: 7\r\nX-More: a b\r\n\r\n";
        for step in 1..=wire.len() {
            let (body, trailers, _) = decode(CHUNKED, wire.as_bytes(), step).unwrap();
            let trailers = trailers.unwrap();
            assert_eq!(
                (body.as_slice(), &trailers["x-sum"], &trailers["x-more"]),
                (&b"x"[..], &"7".parse().unwrap(), &"a b".parse().unwrap())
            );
        }
    }

    #[test]
    fn what_is_not_framed_well_is_refused() {
        let endless_extension = format!("5;{}", "x".repeat(MAX_SIZE_LINE + 1));
        let endless_trailers = format!("0\r\nX: {}", "x".repeat(MAX_TRAILERS + 1));
        let cases = [
            "x\r\n",
            "\r\n",
            ";a\r\n",
            "5;a\nb\r\n",
            "-1\r\n",
            "11112222333344445\r\n",
            "5\r\nhelloXX",
            "5\r\nhello\n\n",
            "0\r\nno colon\r\n\r\n",
            &endless_extension,
            &endless_trailers,
        ];
        for wire in cases {
            let mut received = BytesMut::from(wire);
            let mut decoder = CHUNKED;
            let result = loop {
                match decoder.decode(&mut received) {
                    Ok(Some(_)) => {}
                    result => break result,
                }
            };
            assert!(result.is_err(), "{:?}", &wire[..wire.len().min(40)]);
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic_or_run_on(bytes: Vec<u8>, length: u64) {
            for mut decoder in [CHUNKED, Decoder::Length(length), Decoder::UntilClose] {
                let mut received = BytesMut::from(bytes.as_slice());
                let pieces = std::iter::from_fn(|| decoder.decode(&mut received).ok().flatten()).count();
                prop_assert!(pieces <= bytes.len());
            }
        }

        #[test]
        fn chunks_of_any_size_come_back(chunks: Vec<Vec<u8>>, step in 1usize..50) {
            let mut wire = Vec::new();
            for chunk in chunks.iter().filter(|chunk| !chunk.is_empty()) {
                wire.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
                wire.extend_from_slice(chunk);
                wire.extend_from_slice(b"\r\n");
            }
            wire.extend_from_slice(b"0\r\n\r\n");
            let (body, _, rest) = decode(CHUNKED, &wire, step).unwrap();
            prop_assert_eq!((body, rest), (chunks.concat(), vec![]));
        }
    }
}
