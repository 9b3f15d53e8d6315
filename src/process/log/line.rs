//! What a process says of itself, as a line: `2026-01-01T00:00:00.000000Z INFO keeper: a sentence field=value`, its time in the
//! zone of the lines for requests; or, where those are JSON, a JSON object as well.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use jiff::Timestamp;
use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use super::target::zone;

/// Longest line of JSON: whole, it goes into one datagram.
pub const LONGEST_JSON: usize = 60_000;

/// Are lines JSON? It may change while the process runs.
#[derive(Clone, Default)]
pub(super) struct Style(Arc<AtomicBool>);

impl Style {
    pub(super) fn new(is_json: bool) -> Self {
        Self(Arc::new(AtomicBool::new(is_json)))
    }

    pub(super) fn set(&self, is_json: bool) {
        self.0.store(is_json, Relaxed);
    }

    /// A line that the log itself has to say, with its newline.
    pub(super) fn warning(&self, text: &str, lines: u64) -> String {
        let (level, process) = ("WARN", "log");
        match self.0.load(Relaxed) {
            true => {
                let fields = Map::from_iter([("message".to_owned(), text.into()), ("lines".to_owned(), lines.into())]);
                json(level, process, fields) + "\n"
            }
            false => format!("{} {level} {process}: {text} lines={lines}\n", now()),
        }
    }
}

/// Makes lines of events.
pub(super) struct Line {
    pub(super) process: &'static str,
    pub(super) style: Style,
}

impl<S, N> FormatEvent<S, N> for Line
where
    S: Subscriber + for<'lookup> LookupSpan<'lookup>,
    N: for<'writer> FormatFields<'writer> + 'static,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut line: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let level = event.metadata().level();
        if self.style.0.load(Relaxed) {
            let mut fields = Fields::default();
            event.record(&mut fields);
            return writeln!(line, "{}", json(level.as_str(), self.process, fields.0));
        }
        write!(line, "{} {level} {}: ", now(), self.process)?;
        context.field_format().format_fields(line.by_ref(), event)?;
        writeln!(line)
    }
}

/// In the zone of the host.
fn now() -> String {
    let now = Timestamp::now().to_zoned(zone().clone());
    let zone = if now.offset().is_zero() { "Z".to_owned() } else { now.strftime("%:z").to_string() };
    format!("{}{zone}", now.strftime("%Y-%m-%dT%H:%M:%S%.6f"))
}

/// In UTC, as the times of requests are. What is too long for a line is cut.
fn json(level: &str, process: &str, fields: Map<String, Value>) -> String {
    let mut object = Map::from_iter([
        ("time".to_owned(), format!("{:.6}", Timestamp::now()).into()),
        ("level".to_owned(), level.to_lowercase().into()),
        ("process".to_owned(), process.into()),
    ]);
    object.extend(fields);
    let text = serde_json::to_string(&object).unwrap_or_default();
    if text.len() <= LONGEST_JSON {
        return text;
    }
    let most = LONGEST_JSON / 8 / object.len();
    for value in object.values_mut() {
        if let Value::String(text) = value {
            *text = shortened(text, most).to_owned();
        }
    }
    object.insert("cut".to_owned(), true.into());
    serde_json::to_string(&object).unwrap_or_default()
}

/// At most so many bytes of a text, in whole characters.
pub fn shortened(text: &str, most: usize) -> &str {
    let end = (0..=most.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    end.map_or("", |end| &text[..end])
}

#[derive(Default)]
struct Fields(Map<String, Value>);

impl Fields {
    fn insert(&mut self, field: &Field, value: impl Into<Value>) {
        self.0.insert(field.name().to_owned(), value.into());
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.insert(field, format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.insert(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.insert(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.insert(field, value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.insert(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.insert(field, value);
    }
}
