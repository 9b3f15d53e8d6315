//! Where a log can go, and what a line looks like there.

use std::cell::Cell;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, IsTerminal, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixDatagram;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use jiff::tz::TimeZone;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, SockaddrStorage, connect, send};

use crate::config::model::{LogDestination, LogLevel, LogTarget};
use crate::process::log::Kind;
use crate::process::log::line::LONGEST_JSON;

const SYSLOG: &str = "/dev/log";
const JOURNAL: &str = "/run/systemd/journal/socket";
/// Longest text of a datagram; a longer line is cut.
const LONGEST: usize = LONGEST_JSON;
/// How long some lines may wait for room at a daemon that is busy; only the target's own thread waits.
const PATIENCE: Duration = Duration::from_secs(1);
/// The kernel counts in milliseconds.
const SHORTEST_WAIT: Duration = Duration::from_millis(1);

/// Opens a target. What leads to a daemon that is away is a target all the same, which is broken from the beginning.
pub(super) fn open(destination: &LogDestination) -> io::Result<OwnedFd> {
    let datagram = |path: &str| -> io::Result<OwnedFd> {
        let socket = UnixDatagram::unbound()?;
        socket.connect(path).or_else(|error| if is_absence(&error) { Ok(()) } else { Err(error) })?;
        Ok(socket.into())
    };
    match destination {
        LogDestination::Stdout => io::stdout().as_fd().try_clone_to_owned(),
        LogDestination::Stderr => io::stderr().as_fd().try_clone_to_owned(),
        LogDestination::Syslog => datagram(SYSLOG),
        LogDestination::Journald => datagram(JOURNAL),
        LogDestination::Udp(address) => {
            let socket = udp_socket(*address)?;
            socket.connect(address).or_else(|error| if is_absence(&error) { Ok(()) } else { Err(error) })?;
            Ok(socket.into())
        }
        LogDestination::File(path) => {
            // Not to hang where it is a pipe that nobody reads.
            let flags = nix::libc::O_NONBLOCK | nix::libc::O_NOCTTY;
            let file = OpenOptions::new().append(true).create(true).mode(0o640).custom_flags(flags).open(path)?;
            Ok(file.into())
        }
    }
}

fn udp_socket(to: SocketAddr) -> io::Result<UdpSocket> {
    let any = if to.is_ipv4() { IpAddr::V4(Ipv4Addr::UNSPECIFIED) } else { Ipv6Addr::UNSPECIFIED.into() };
    UdpSocket::bind((any, 0))
}

/// Why the daemon that a target leads to cannot be reached now, though it may be later.
pub(super) fn absence(destination: &LogDestination) -> Option<io::Error> {
    let datagram = |path: &str| UnixDatagram::unbound().and_then(|socket| socket.connect(path));
    let reached = match destination {
        LogDestination::Syslog => datagram(SYSLOG),
        LogDestination::Journald => datagram(JOURNAL),
        LogDestination::Udp(address) => udp_socket(*address).and_then(|socket| socket.connect(address)),
        LogDestination::Stdout | LogDestination::Stderr | LogDestination::File(_) => return None,
    };
    reached.err().filter(is_absence)
}

/// No daemon, or no way to it.
fn is_absence(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::NotFound
            | ErrorKind::ConnectionRefused
            | ErrorKind::NetworkUnreachable
            | ErrorKind::HostUnreachable
            | ErrorKind::AddrNotAvailable
    )
}

pub(super) fn what_to_do(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::NotFound => "; is its folder there, or the daemon that listens there running?",
        ErrorKind::PermissionDenied if nix::unistd::geteuid().is_root() => {
            "; this root may not pass over permissions (it lacks CAP_DAC_OVERRIDE): give the file and its folder to root"
        }
        ErrorKind::PermissionDenied => "; run as root, or let this user write there",
        _ => "",
    }
}

/// The zone of local times, as it was when this was first called: who is in a chroot cannot look it up again.
pub fn zone() -> &'static TimeZone {
    static ZONE: OnceLock<TimeZone> = OnceLock::new();
    ZONE.get_or_init(|| TimeZone::try_system().unwrap_or(TimeZone::UTC))
}

/// An open target.
pub(super) struct Target {
    settings: LogTarget,
    file: File,
    has_colour: bool,
    host: String,
    /// Its daemon had no room for as long as may be waited: the next lines wait less.
    is_stuck: Cell<bool>,
}

impl Target {
    pub(super) fn new(settings: LogTarget, opened: OwnedFd) -> Self {
        let file = File::from(opened);
        let wants_colour = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        let is_output = matches!(settings.to, LogDestination::Stdout | LogDestination::Stderr);
        let has_colour = is_output && file.is_terminal() && wants_colour;
        let host = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok()).unwrap_or_default();
        Self { settings, file, has_colour, host, is_stuck: Cell::new(false) }
    }

    /// Writes whole lines, each with its newline.
    ///
    /// # Errors
    /// When it has gone away. Datagrams that nobody took at once are no error: so many lines are lost.
    pub(super) fn write(&mut self, level: LogLevel, kind: Kind, lines: &[u8]) -> io::Result<u64> {
        match &self.settings.to {
            LogDestination::Stdout | LogDestination::Stderr if self.has_colour && kind == Kind::Process => {
                self.file.write_all(&coloured(level, lines)).map(|()| 0)
            }
            LogDestination::Stdout | LogDestination::Stderr | LogDestination::File(_) => {
                self.file.write_all(lines).map(|()| 0)
            }
            LogDestination::Udp(_) => {
                self.datagrams(kind, lines, |this, text| this.syslog(level, Some(&this.host), text))
            }
            LogDestination::Syslog => self.datagrams(kind, lines, |this, text| this.syslog(level, None, text)),
            LogDestination::Journald => self.datagrams(kind, lines, |this, text| this.journal(level, text)),
        }
    }

    /// A datagram for each line.
    fn datagrams(&self, kind: Kind, lines: &[u8], datagram: impl Fn(&Self, &[u8]) -> Vec<u8>) -> io::Result<u64> {
        let patience = if self.is_stuck.get() { SHORTEST_WAIT } else { PATIENCE };
        let (mut lost, until) = (0, Instant::now() + patience);
        for line in lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            let text = if kind == Kind::Process { without_time_and_level(line) } else { line };
            let datagram = datagram(self, cut(text));
            match self.send_in_time(&datagram, until) {
                Ok(_) => self.is_stuck.set(false),
                // Whoever listens for datagrams of UDP may come and go.
                Err(_) if matches!(self.settings.to, LogDestination::Udp(_)) => lost += 1,
                Err(Errno::EAGAIN) => {
                    self.is_stuck.set(true);
                    lost += 1;
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(lost)
    }

    /// A daemon reads some lines, and then others: it has room again in a moment.
    fn send_in_time(&self, datagram: &[u8], until: Instant) -> nix::Result<usize> {
        loop {
            let sent = self.send(datagram);
            let left = until.saturating_duration_since(Instant::now());
            if sent != Err(Errno::EAGAIN) || left.is_zero() {
                return sent;
            }
            let mut room = [PollFd::new(self.file.as_fd(), PollFlags::POLLOUT)];
            let timeout = PollTimeout::try_from(left.max(SHORTEST_WAIT)).unwrap_or(PollTimeout::ZERO);
            if poll(&mut room, timeout)? == 0 {
                return sent;
            }
        }
    }

    fn send(&self, datagram: &[u8]) -> nix::Result<usize> {
        let socket = self.file.as_raw_fd();
        let send = || send(socket, datagram, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL);
        match (send(), &self.settings.to) {
            // There was no way to it when the socket was made.
            (Err(Errno::EDESTADDRREQ), LogDestination::Udp(address)) => {
                connect(socket, &SockaddrStorage::from(*address))?;
                send()
            }
            (sent, _) => sent,
        }
    }

    /// RFC 3164, as syslog(3) writes it; the host's name goes over the network alone.
    fn syslog(&self, level: LogLevel, host: Option<&String>, text: &[u8]) -> Vec<u8> {
        let priority = self.settings.facility.number() * 8 + severity(level);
        let now = Timestamp::now().to_zoned(zone().clone());
        let host = host.map_or(String::new(), |host| format!("{host} "));
        let pid = std::process::id();
        [format!("<{priority}>{} {host}relevo[{pid}]: ", now.strftime("%b %e %H:%M:%S")).as_bytes(), text].concat()
    }

    /// The journal's own protocol: fields, one a line.
    fn journal(&self, level: LogLevel, text: &[u8]) -> Vec<u8> {
        let (priority, facility) = (severity(level), self.settings.facility.number());
        let fields = format!("PRIORITY={priority}\nSYSLOG_FACILITY={facility}\nSYSLOG_IDENTIFIER=relevo\nMESSAGE=");
        [fields.as_bytes(), text, b"\n"].concat()
    }
}

/// RFC 5424 §6.2.1.
fn severity(level: LogLevel) -> u8 {
    match level {
        LogLevel::Error => 3,
        LogLevel::Warn => 4,
        LogLevel::Info => 6,
        LogLevel::Debug | LogLevel::Trace => 7,
    }
}

/// Not within a character.
fn cut(text: &[u8]) -> &[u8] {
    let is_within = |end: &usize| text.get(*end).is_some_and(|byte| byte & 0xc0 == 0x80);
    let end = (LONGEST.saturating_sub(3)..=LONGEST).rev().find(|end| !is_within(end)).unwrap_or(LONGEST);
    text.get(..end).unwrap_or(text)
}

/// Whoever gets a datagram has both already. JSON stays whole.
fn without_time_and_level(line: &[u8]) -> &[u8] {
    if line.starts_with(b"{") {
        return line;
    }
    line.splitn(3, |byte| *byte == b' ').nth(2).unwrap_or(line)
}

/// With its level in colour.
fn coloured(level: LogLevel, line: &[u8]) -> Vec<u8> {
    let colour = match level {
        LogLevel::Error => 31,
        LogLevel::Warn => 33,
        LogLevel::Info => 32,
        LogLevel::Debug | LogLevel::Trace => 2,
    };
    let mut words = line.splitn(3, |byte| *byte == b' ');
    let (Some(time), Some(word), Some(rest)) = (words.next(), words.next(), words.next()) else { return line.to_vec() };
    let colour = format!(" \x1b[{colour}m");
    [time, colour.as_bytes(), word, b"\x1b[0m ", rest].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::model::{Facility, LogLines};

    /// What a datagram target sends for these lines.
    fn sent(to: LogDestination, level: LogLevel, kind: Kind, lines: &str) -> Vec<String> {
        let (ours, theirs) = UnixDatagram::pair().unwrap();
        let facility = "local3".parse::<Facility>().unwrap();
        let mut target =
            Target::new(LogTarget { to, level: LogLevel::Info, facility, lines: LogLines::All }, ours.into());
        target.write(level, kind, lines.as_bytes()).unwrap();
        theirs.set_nonblocking(true).unwrap();
        let mut datagrams = Vec::new();
        let mut buffer = [0; 1000];
        while let Ok(length) = theirs.recv(&mut buffer) {
            datagrams.push(String::from_utf8(buffer[..length].to_vec()).unwrap());
        }
        datagrams
    }

    #[test]
    fn syslog_gets_a_datagram_for_each_line_with_its_priority() {
        let pid = std::process::id();
        let datagrams = sent(LogDestination::Syslog, LogLevel::Info, Kind::Access, "one\ntwo\n");
        assert_eq!(datagrams.len(), 2);
        assert!(
            datagrams[0].starts_with("<158>") && datagrams[0].ends_with(&format!(" relevo[{pid}]: one")),
            "{datagrams:?}"
        );
        let datagrams = sent(LogDestination::Syslog, LogLevel::Error, Kind::Process, "time ERROR keeper: it broke\n");
        assert!(datagrams[0].starts_with("<155>") && datagrams[0].ends_with("]: keeper: it broke"), "{datagrams:?}");
        let time = datagrams[0][5..].split(" relevo").next().unwrap();
        assert!(jiff::civil::DateTime::strptime("%Y %b %e %H:%M:%S", format!("2026 {time}")).is_ok(), "{time}");
    }

    #[test]
    fn the_journal_gets_fields() {
        let datagrams = sent(LogDestination::Journald, LogLevel::Warn, Kind::Process, "time WARN guard: careful\n");
        let expected = "PRIORITY=4\nSYSLOG_FACILITY=19\nSYSLOG_IDENTIFIER=relevo\nMESSAGE=guard: careful\n";
        assert_eq!(datagrams, [expected]);
    }

    #[test]
    fn only_the_level_is_coloured() {
        let line = coloured(LogLevel::Warn, b"time WARN keeper: careful, please\n");
        assert_eq!(line, b"time \x1b[33mWARN\x1b[0m keeper: careful, please\n");
    }
}
