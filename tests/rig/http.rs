//! HTTP/1.1 by hand: for what no well-behaved client or server would send, and for seeing every byte that arrives.

use std::fmt;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};

use super::PATIENCE;

/// One side's end of a connection.
pub(crate) struct Connection {
    reader: BufReader<TcpStream>,
}

/// A request or a response.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Message {
    /// The request line or the status line, and the headers, without the empty line at the end.
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Connection {
    pub(crate) fn open(address: SocketAddr) -> io::Result<Self> {
        Self::new(TcpStream::connect_timeout(&address, PATIENCE)?)
    }

    pub(crate) fn new(stream: TcpStream) -> io::Result<Self> {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        Ok(Self { reader: BufReader::new(stream) })
    }

    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.reader.get_mut().write_all(bytes.as_ref())
    }

    /// Nothing more will be sent.
    pub(crate) fn finish(&mut self) -> io::Result<()> {
        self.reader.get_ref().shutdown(Shutdown::Write)
    }

    pub(crate) fn stream(&self) -> &TcpStream {
        self.reader.get_ref()
    }

    /// A request's head and body; the response to one that was not HEAD.
    pub(crate) fn receive(&mut self) -> io::Result<Message> {
        let mut message = Message { head: self.receive_head()?, body: Vec::new() };
        message.body = self.receive_body(&message)?;
        Ok(message)
    }

    /// `UnexpectedEof` where the other side has closed.
    pub(crate) fn receive_head(&mut self) -> io::Result<String> {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if self.reader.read_line(&mut head)? == 0 {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, format!("closed after {head:?}")));
            }
        }
        head.truncate(head.len() - 4);
        Ok(head)
    }

    fn receive_body(&mut self, message: &Message) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        if message.header("transfer-encoding").is_some_and(|coding| coding.eq_ignore_ascii_case("chunked")) {
            loop {
                let mut size = String::new();
                self.reader.read_line(&mut size)?;
                let size = usize::from_str_radix(size.trim(), 16).map_err(io::Error::other)?;
                let begin = body.len();
                body.resize(begin + size + 2, 0);
                self.reader.read_exact(&mut body[begin..])?;
                body.truncate(begin + size);
                if size == 0 {
                    return Ok(body);
                }
            }
        }
        match message.header("content-length") {
            Some(length) => {
                body.resize(length.parse().map_err(io::Error::other)?, 0);
                self.reader.read_exact(&mut body)?;
            }
            None if message.head.starts_with("HTTP/") && !matches!(message.status(), 101 | 204 | 304) => {
                self.reader.read_to_end(&mut body)?;
            }
            None => {}
        }
        Ok(body)
    }

    /// Exactly so many bytes.
    pub(crate) fn receive_bytes(&mut self, count: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; count];
        self.reader.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    /// Whatever comes until the other side closes; a reset is an end as well.
    pub(crate) fn receive_rest(&mut self) -> io::Result<Vec<u8>> {
        let mut rest = Vec::new();
        match self.reader.read_to_end(&mut rest) {
            Err(error) if error.kind() != io::ErrorKind::ConnectionReset => Err(error),
            _ => Ok(rest),
        }
    }

    /// Sends a GET and returns the answer.
    pub(crate) fn get(&mut self, path: &str) -> io::Result<Message> {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n"))?;
        self.receive()
    }
}

impl Message {
    /// A header's value, without regard to the case of its name.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers(name).next()
    }

    /// All values of a header.
    pub(crate) fn headers<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a str> {
        self.head.lines().skip(1).filter_map(move |line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    /// Of a response.
    pub(crate) fn status(&self) -> u16 {
        self.head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_default()
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.head)?;
        match self.body.len() {
            0..1000 => write!(f, "{}", self.text()),
            length => write!(f, "({length} bytes)"),
        }
    }
}

/// One request on a connection of its own.
pub(crate) fn get(address: SocketAddr, path: &str) -> Message {
    Connection::open(address).and_then(|mut connection| connection.get(path)).unwrap()
}

/// Sends these bytes as they are and returns the answer.
pub(crate) fn exchange(address: SocketAddr, request: impl AsRef<[u8]>) -> Message {
    let mut connection = Connection::open(address).unwrap();
    connection.send(request).unwrap();
    connection.receive().unwrap()
}

/// A response with a body.
pub(crate) fn response(status: &str, headers: &str, body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n{headers}\r\n", body.len());
    [head.as_bytes(), body].concat()
}
