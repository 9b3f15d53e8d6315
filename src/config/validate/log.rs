//! `[log]`: where the log goes.

use toml::Spanned;

use super::{Checker, plain};
use crate::config::file::TargetEntry;
use crate::config::model::{Facility, LogDestination, LogLevel, LogLines, LogTarget};
use crate::config::value::{FromText, OneOrMany};

impl Checker<'_> {
    /// `level` is that of targets without one of their own.
    pub(super) fn log_targets(
        &mut self,
        written: Option<Spanned<OneOrMany<TargetEntry>>>,
        level: LogLevel,
    ) -> Vec<LogTarget> {
        let target = |to| LogTarget { to, level, facility: Facility::DAEMON, lines: LogLines::All };
        let Some(written) = written else { return vec![target(LogDestination::Stderr)] };
        let place = written.span();
        let mut targets: Vec<LogTarget> = Vec::new();
        let entries = OneOrMany::elements(written);
        if entries.is_empty() && !self.is_refused_at(&place) {
            self.problem(place, "expected at least one target", "a list without any");
        }
        for entry in entries {
            let span = entry.span();
            let TargetEntry(entry) = entry.into_inner();
            let is_for_syslog = |to: &LogDestination| {
                !matches!(to, LogDestination::Stdout | LogDestination::Stderr | LogDestination::File(_))
            };
            let Some(to) = self.required(plain(entry.to), &span, "to", LogDestination::ACCEPTED) else { continue };
            if entry.facility.is_some() && !is_for_syslog(&to) {
                let message = "expected a target with facilities";
                self.problem_with_hint(span.clone(), message, "this one has none", "leave `facility` out");
            }
            let target = LogTarget {
                level: plain(entry.level).unwrap_or(level),
                facility: plain(entry.facility).unwrap_or(Facility::DAEMON),
                lines: plain(entry.lines).unwrap_or(LogLines::All),
                to,
            };
            // As haproxy.cfg has it: `/dev/log` for everything, and again for what matters, under another facility.
            if targets.contains(&target) {
                self.problem(span, "every target is another one", "this one is written twice");
            }
            targets.push(target);
        }
        targets
    }
}
