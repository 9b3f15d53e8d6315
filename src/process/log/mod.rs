//! The log of guard, keeper and balancer: lines to every configured target, each with a thread and a bounded channel of its own.
//!
//! Whoever logs never waits: while a target takes nothing, its lines are lost, and it is told how many once it takes some
//! again.

mod line;
mod outlet;
mod target;

use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tracing::level_filters::LevelFilter;
use tracing::{Level, Metadata, Subscriber};
use tracing_subscriber::fmt::MakeWriter;

pub use self::line::{LONGEST_JSON, shortened};
use self::line::{Line, Style};
pub use self::outlet::Kind;
use self::outlet::{Outlet, Trouble};
pub use self::target::zone;
use crate::config::model::{AccessLog, Config, LogLevel, LogTarget};

/// What still waits when a process ends may take this long to be written.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Every target of this process. Clones lead to the same threads.
#[derive(Clone)]
pub struct Log {
    outlets: Arc<[Outlet]>,
    trouble: Trouble,
    style: Style,
}

/// Keeps the log going; dropped, it writes what still waits, for about a second at most.
#[must_use = "the log ends with its guard"]
pub struct Guard(Log);

impl Guard {
    /// The log itself.
    pub fn log(&self) -> &Log {
        &self.0
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.finish(LAST_WORDS);
    }
}

/// Why a target cannot be had.
#[derive(Debug, thiserror::Error)]
#[error("log.target: cannot open {target}: {source}{}", target::what_to_do(source.kind()))]
pub struct Error {
    /// Which.
    target: String,
    /// What the system says.
    source: io::Error,
}

/// Opens the targets and starts the log of this process, which is the first of a node.
///
/// # Errors
/// When one of the targets cannot be opened.
pub fn init(config: &Config, process: &'static str) -> Result<Guard, Error> {
    let opened = config.log_targets.iter().map(|target| open(target).map(Some)).collect::<Result<_, _>>()?;
    Ok(init_with(&config.log_targets, config.balancer.access_log == AccessLog::Json, opened, process, true))
}

/// The same for one that comes later: a log that has become impossible is no reason not to serve. It is said, and tried again.
pub fn init_again(config: &Config, process: &'static str) -> Guard {
    let (opened, failed): (Vec<_>, Vec<_>) = config.log_targets.iter().map(open).map(or_error).unzip();
    let is_json = config.balancer.access_log == AccessLog::Json;
    let is_silent = opened.iter().all(Option::is_none);
    let guard = init_with(&config.log_targets, is_json, opened, process, true);
    for error in failed.into_iter().flatten() {
        let text = format!("{error}; what is logged there is lost until it can be opened");
        tracing::error!("{text}");
        if is_silent {
            // There is nothing else to say it on.
            let _ = writeln!(std::io::stderr(), "relevo: {text}");
        }
    }
    guard
}

fn or_error(opened: Result<OwnedFd, Error>) -> (Option<OwnedFd>, Option<Error>) {
    match opened {
        Ok(opened) => (Some(opened), None),
        Err(error) => (None, Some(error)),
    }
}

/// Opens a target. It can be handed to a process that could not have opened it.
///
/// # Errors
/// When it is not there, or not for this process.
pub fn open(target: &LogTarget) -> Result<OwnedFd, Error> {
    target::open(&target.to).map_err(|source| Error { target: target.to.to_string(), source })
}

/// Says which daemons are away whose targets the log has: by the targets that are there, or on stderr if none is.
pub fn say_who_is_away(targets: &[LogTarget]) {
    let away: Vec<_> = targets.iter().filter_map(|target| Some((target, target::absence(&target.to)?))).collect();
    for (target, error) in &away {
        let text = format!("log.target: {} is away ({error}): it gets what is logged once it is there", target.to);
        if away.len() == targets.len() {
            // There is nothing else to say it on.
            let _ = writeln!(std::io::stderr(), "relevo: {text}");
        } else {
            tracing::warn!("{text}");
        }
    }
}

/// Starts the log of this process with targets that somebody opened, or could not; `may_open`: this process can open them again
/// by itself.
pub fn init_with(
    targets: &[LogTarget],
    is_json: bool,
    opened: Vec<Option<OwnedFd>>,
    process: &'static str,
    may_open: bool,
) -> Guard {
    let log = Log::start(targets, is_json, opened, may_open);
    let level = targets.iter().map(|target| target.level).max().unwrap_or(LogLevel::Error);
    let _ = tracing::subscriber::set_global_default(subscriber(level, process, log.clone()));
    Guard(log)
}

impl Log {
    fn start(targets: &[LogTarget], is_json: bool, opened: Vec<Option<OwnedFd>>, may_open: bool) -> Self {
        let (trouble, style) = (Trouble::default(), Style::new(is_json));
        let outlet = |(target, opened): (&LogTarget, Option<OwnedFd>)| {
            Outlet::start(target.clone(), opened, may_open, trouble.clone(), style.clone())
        };
        Self { outlets: targets.iter().zip(opened).map(outlet).collect(), trouble, style }
    }

    /// Whether lines of the process are JSON from now on, as those for requests are.
    pub fn set_json(&self, is_json: bool) {
        self.style.set(is_json);
    }

    /// Hands lines over to every target that wants them.
    pub fn send(&self, level: LogLevel, kind: Kind, lines: &Arc<[u8]>) {
        self.outlets
            .iter()
            .filter(|outlet| outlet.wants(level, kind))
            .for_each(|outlet| outlet.send(level, kind, lines));
    }

    /// Does any target take the lines for requests?
    pub fn wants_requests(&self) -> bool {
        self.outlets.iter().any(|outlet| outlet.wants(LogLevel::Info, Kind::Access))
    }

    /// Opens the targets again: files have been moved.
    pub fn reopen(&self) {
        self.outlets.iter().for_each(|outlet| outlet.reopen(None));
    }

    /// Takes targets, by their places, that another process opened again.
    pub fn replace(&self, opened: impl Iterator<Item = (usize, OwnedFd)>) {
        for (target, descriptor) in opened {
            if let Some(outlet) = self.outlets.get(target) {
                outlet.reopen(Some(descriptor));
            }
        }
    }

    /// Has a target that this process cannot open by itself gone away since this was last asked?
    pub fn was_broken(&self) -> bool {
        self.trouble.is_broken.swap(false, Ordering::Relaxed)
    }

    /// Lines of requests that were lost; each counts once for every target that did not get it.
    pub fn lost_requests(&self) -> u64 {
        self.trouble.lost_requests.load(Ordering::Relaxed)
    }

    /// Waits until all that was handed over is written, but not for a target that takes nothing.
    pub fn finish(&self, patience: Duration) {
        let end = std::time::Instant::now() + patience;
        while self.outlets.iter().any(Outlet::is_waiting) && std::time::Instant::now() < end {
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

fn subscriber(level: LogLevel, process: &'static str, log: Log) -> impl Subscriber + Send + Sync {
    let style = log.style.clone();
    let level = match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    tracing_subscriber::fmt()
        .with_max_level(level)
        .with_ansi(false)
        .with_writer(log)
        .event_format(Line { process, style })
        .finish()
}

/// Takes the line of one event.
pub struct Entry<'log> {
    log: &'log Log,
    level: LogLevel,
}

impl<'log> MakeWriter<'log> for Log {
    type Writer = Entry<'log>;

    fn make_writer(&'log self) -> Entry<'log> {
        Entry { log: self, level: LogLevel::Info }
    }

    fn make_writer_for(&'log self, event: &Metadata<'_>) -> Entry<'log> {
        let level = match *event.level() {
            Level::ERROR => LogLevel::Error,
            Level::WARN => LogLevel::Warn,
            Level::INFO => LogLevel::Info,
            Level::DEBUG => LogLevel::Debug,
            Level::TRACE => LogLevel::Trace,
        };
        Entry { log: self, level }
    }
}

impl Write for Entry<'_> {
    /// The whole line at once.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.log.send(self.level, Kind::Process, &line.into());
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Read;
    use std::time::Instant;

    use tracing::{debug, info, warn};

    use super::*;
    use crate::config::model::{Facility, LogDestination, LogLines};

    fn target(level: LogLevel) -> LogTarget {
        LogTarget { to: LogDestination::Stderr, level, facility: Facility::DAEMON, lines: LogLines::All }
    }

    fn log_to(targets: &[LogTarget], opened: Vec<File>) -> Log {
        Log::start(targets, false, opened.into_iter().map(|file| Some(file.into())).collect(), false)
    }

    #[test]
    fn a_line_says_when_who_what_to_every_target_that_wants_its_level() {
        let ((mut all, one), (mut warnings, other)) = (pipe(), pipe());
        let log = log_to(&[target(LogLevel::Info), target(LogLevel::Warn)], vec![one, other]);
        tracing::subscriber::with_default(subscriber(LogLevel::Info, "keeper", log.clone()), || {
            debug!("not at this level");
            info!(peer = "lb2", port = 8650, "the peer link is up");
            warn!("careful");
        });
        log.finish(LAST_WORDS);
        drop(log);
        let read = |file: &mut File| {
            let mut text = String::new();
            file.read_to_string(&mut text).unwrap();
            text
        };
        let text = read(&mut all);
        let (timestamp, rest) = text.lines().next().unwrap().split_once(' ').unwrap();
        assert!(timestamp.parse::<jiff::Timestamp>().is_ok(), "{timestamp}");
        assert_eq!(rest, "INFO keeper: the peer link is up peer=\"lb2\" port=8650");
        assert_eq!(text.lines().count(), 2);
        let text = read(&mut warnings);
        assert!(text.ends_with(" WARN keeper: careful\n") && text.lines().count() == 1, "{text}");
    }

    #[test]
    fn a_full_pipe_stops_nobody_and_is_told_what_it_missed() {
        let (mut reader, writer) = pipe();
        let log = log_to(&[target(LogLevel::Info)], vec![writer]);
        let start = Instant::now();
        let count = 100_000;
        tracing::subscriber::with_default(subscriber(LogLevel::Info, "keeper", log.clone()), || {
            for number in 0..count {
                warn!(number, "nobody reads this line, which is long enough to fill a pipe soon");
            }
        });
        assert!(start.elapsed() < Duration::from_secs(20));
        let read = std::thread::spawn(move || {
            let mut text = String::new();
            reader.read_to_string(&mut text).unwrap();
            text
        });
        while log.outlets.iter().any(Outlet::is_waiting) {
            std::thread::sleep(Duration::from_millis(5));
        }
        log.send(LogLevel::Info, Kind::Process, &Arc::from(&b"x INFO keeper: after\n"[..]));
        log.finish(LAST_WORDS);
        drop(log);
        let text = read.join().unwrap();
        let written = text.lines().filter(|line| line.contains("nobody reads")).count();
        let lost: usize = text.lines().filter_map(|line| line.split_once("lines=")?.1.parse::<usize>().ok()).sum();
        assert!(written < count && written + lost == count, "{written} written, {lost} told to be lost");
    }

    #[test]
    fn a_daemon_that_was_restarted_gets_lines_again_once_somebody_has_opened_it() {
        use std::os::unix::net::UnixDatagram;
        let (ours, theirs) = UnixDatagram::pair().unwrap();
        let syslog = LogTarget { to: LogDestination::Syslog, ..target(LogLevel::Info) };
        let log = log_to(&[syslog], vec![OwnedFd::from(ours).into()]);
        let send = |text: &str| {
            log.send(LogLevel::Info, Kind::Access, &Arc::from(text.as_bytes()));
            log.finish(LAST_WORDS);
        };
        let received = |socket: &UnixDatagram| {
            let mut buffer = [0; 500];
            let length = socket.recv(&mut buffer).unwrap();
            String::from_utf8(buffer[..length].to_vec()).unwrap()
        };
        send("one\n");
        assert!(received(&theirs).ends_with("]: one"));
        assert!(!log.was_broken());

        drop(theirs);
        send("two\n");
        assert!(log.was_broken() && !log.was_broken());
        let (ours, theirs) = UnixDatagram::pair().unwrap();
        log.replace([(0, ours.into())].into_iter());
        send("three\n");
        let told = received(&theirs);
        assert!(told.contains("lines were lost") && told.ends_with("lines=1"), "{told}");
        assert!(received(&theirs).ends_with("]: three"));
        assert_eq!(log.lost_requests(), 1);
    }

    fn pipe() -> (File, File) {
        let (reader, writer) = nix::unistd::pipe().unwrap();
        (reader.into(), writer.into())
    }
}
