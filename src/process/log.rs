//! The log of guard, keeper and balancer: lines to stderr, through a bounded channel and an ordinary thread.
//!
//! Whoever logs never waits: while nobody reads stderr, lines are lost and the program goes on.

use std::fmt;
use std::io::{IsTerminal, Write};

use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Subscriber};
use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, MakeWriter};
use tracing_subscriber::registry::LookupSpan;

use crate::config::model::LogLevel;

/// Lines that wait for stderr.
const WAITING_LINES: usize = 4096;

/// Keeps the log going; dropped, it writes what still waits, for about a second at most.
#[must_use = "the log ends with its guard"]
pub struct Guard(#[expect(dead_code, reason = "for its drop")] WorkerGuard);

/// Starts the log of this process. `process` is `"guard"`, `"keeper"` or `"balancer"`. A log that runs already goes on.
pub fn init(level: LogLevel, process: &'static str) -> Guard {
    let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let (writer, guard) = unhurried(std::io::stderr());
    let _ = tracing::subscriber::set_global_default(subscriber(level, process, colour, writer));
    Guard(guard)
}

fn unhurried<W: Write + Send + 'static>(target: W) -> (tracing_appender::non_blocking::NonBlocking, WorkerGuard) {
    NonBlockingBuilder::default().lossy(true).buffered_lines_limit(WAITING_LINES).thread_name("log").finish(target)
}

fn subscriber<W>(level: LogLevel, process: &'static str, colour: bool, writer: W) -> impl Subscriber + Send + Sync
where
    W: for<'writer> MakeWriter<'writer> + Send + Sync + 'static,
{
    let level = match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    tracing_subscriber::fmt()
        .with_max_level(level)
        .with_ansi(colour)
        .with_writer(writer)
        .event_format(Line { process })
        .finish()
}

/// `2026-01-01T00:00:00.000000Z INFO keeper: a sentence field=value`
struct Line {
    process: &'static str,
}

impl<S, N> FormatEvent<S, N> for Line
where
    S: Subscriber + for<'lookup> LookupSpan<'lookup>,
    N: for<'writer> FormatFields<'writer> + 'static,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut line: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let level = *event.metadata().level();
        SystemTime.format_time(&mut line)?;
        if line.has_ansi_escapes() {
            write!(line, " \x1b[{}m{level}\x1b[0m {}: ", colour_of(level), self.process)?;
        } else {
            write!(line, " {level} {}: ", self.process)?;
        }
        context.field_format().format_fields(line.by_ref(), event)?;
        writeln!(line)
    }
}

fn colour_of(level: Level) -> u8 {
    match level {
        Level::ERROR => 31,
        Level::WARN => 33,
        Level::INFO => 32,
        _ => 2,
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Read;
    use std::time::{Duration, Instant};

    use tracing::{debug, info, warn};

    use super::*;

    #[test]
    fn a_line_says_when_who_what() {
        let (mut reader, writer) = pipe();
        let (writer, guard) = unhurried(writer);
        tracing::subscriber::with_default(subscriber(LogLevel::Info, "keeper", false, writer), || {
            debug!("not at this level");
            info!(peer = "lb2", port = 8650, "the peer link is up");
        });
        drop(guard);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        let (timestamp, rest) = text.split_once(' ').unwrap();
        assert!(timestamp.parse::<jiff::Timestamp>().is_ok(), "{timestamp}");
        assert_eq!(rest, "INFO keeper: the peer link is up peer=\"lb2\" port=8650\n");
    }

    #[test]
    fn a_full_pipe_stops_nobody() {
        let (reader, writer) = pipe();
        let (writer, guard) = unhurried(writer);
        let start = Instant::now();
        tracing::subscriber::with_default(subscriber(LogLevel::Info, "keeper", false, writer), || {
            for number in 0..20_000 {
                warn!(number, "nobody reads this line, which is long enough to fill a pipe soon");
            }
        });
        drop(guard);
        assert!(start.elapsed() < Duration::from_secs(10));
        drop(reader);
    }

    fn pipe() -> (File, File) {
        let (reader, writer) = nix::unistd::pipe().unwrap();
        (reader.into(), writer.into())
    }
}
