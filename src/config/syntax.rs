//! What of a text is not TOML: every such place, and the text without them.
//!
//! A parser that goes on behind an error mostly reports what follows from it. So the statement that is broken is blanked
//! out, which leaves all places as they are, and the rest is parsed again.

use std::ops::Range;

use toml::de::DeTable;

use super::diagnostic::Diagnostic;

/// Who has more has given us something that is no configuration at all.
const MOST_PROBLEMS: usize = 20;
/// A statement that is longer is not looked for the beginning of.
const MOST_LINES: usize = 200;

/// The text with broken statements blanked out, and what is wrong with them.
pub(super) fn well_formed(text: &str) -> (String, Vec<Diagnostic>) {
    let mut well_formed = text.to_owned();
    let mut problems = Vec::new();
    while let Some((span, message)) = first_error(&well_formed) {
        let broken = statement_around(&well_formed, span.start);
        let begins_before = well_formed[broken.start..span.start].contains('\n');
        // Where the statement ends before the line of the error, that line is sound: what it met is not.
        let (message, found) = if begins_before && broken.end <= span.start && span.start < text.len() {
            ("a list or a string is not closed", "something new begins here")
        } else {
            message.split_once(", ").unwrap_or((&message, ""))
        };
        problems.push(Diagnostic {
            path: String::new(),
            message: message.to_owned(),
            found: found.to_owned(),
            hint: None,
            span,
            other: begins_before.then(|| (broken.clone(), "it is opened here".to_owned())),
        });
        if problems.len() == MOST_PROBLEMS {
            return (String::new(), problems);
        }
        let blank =
            well_formed[broken.clone()].chars().map(|c| if c == '\n' { c.into() } else { " ".repeat(c.len_utf8()) });
        let blank: String = blank.collect();
        well_formed.replace_range(broken, &blank);
    }
    (well_formed, problems)
}

fn first_error(text: &str) -> Option<(Range<usize>, String)> {
    let (_, errors) = DeTable::parse_recoverable(text);
    let places =
        errors.iter().map(|error| (error.span().unwrap_or(text.len()..text.len()), error.message().to_owned()));
    places.min_by_key(|(span, _)| span.start)
}

/// From where the text before is whole to the next line, at or behind the error, that begins something new. A header
/// goes with all that is under it.
fn statement_around(text: &str, error: usize) -> Range<usize> {
    let line_of = |offset: usize| text[..offset].rfind('\n').map_or(0, |newline| newline + 1);
    let error_line = line_of(error);
    let mut start = error_line;
    for _ in 0..MOST_LINES {
        if start == 0 || first_error(&text[..start]).is_none() {
            break;
        }
        start = line_of(start - 1);
    }
    let header = is_header(&text[start..]);
    let mut end = start;
    for line in text[start..].split_inclusive('\n') {
        if end > start && end >= error_line && (is_header(line) || !header && is_assignment(line)) {
            break;
        }
        end += line.len();
    }
    start..end
}

fn is_header(line: &str) -> bool {
    line.trim_start().starts_with('[')
}

fn is_assignment(line: &str) -> bool {
    let in_key = |c: char| c.is_alphanumeric() || "-_.\"' \t".contains(c);
    line.split_once('=').is_some_and(|(key, _)| !key.trim().is_empty() && key.chars().all(in_key))
}
