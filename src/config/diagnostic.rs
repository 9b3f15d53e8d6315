//! What is wrong with a configuration, and how a person is told.

use std::fmt;
use std::ops::Range;

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};

/// One error in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// The key's path, such as `backends.app.servers[1].weight`; empty where the text is not TOML.
    pub path: String,
    /// What is wrong, or what is accepted.
    pub message: String,
    /// What was found, said at its place; may be empty.
    pub found: String,
    /// What was probably meant, or what to do.
    pub hint: Option<String>,
    /// In bytes of the text.
    pub(super) span: Range<usize>,
    /// The other place of a conflict, and what it is.
    pub(super) other: Option<(Range<usize>, String)>,
}

/// All errors of a file, in its order.
#[derive(Debug, Clone)]
pub struct Diagnostics {
    pub(super) file_name: String,
    pub(super) text: String,
    pub(super) list: Vec<Diagnostic>,
}

impl Diagnostics {
    /// Each error.
    pub fn iter(&self) -> std::slice::Iter<'_, Diagnostic> {
        self.list.iter()
    }

    /// The first error in a line, and how many there are.
    pub fn in_a_line(&self) -> String {
        let Some(first) = self.list.first() else { return format!("{}: no error", self.file_name) };
        let line = 1 + self.text.as_bytes().iter().take(first.span.start).filter(|byte| **byte == b'\n').count();
        let path = if first.path.is_empty() { String::new() } else { format!("{}: ", first.path) };
        let found = if first.found.is_empty() { String::new() } else { format!(" ({})", first.found) };
        let others = match self.list.len() - 1 {
            0 => String::new(),
            1 => "; and another error".to_owned(),
            others => format!("; and {others} other errors"),
        };
        format!("{}, line {line}: {path}{}{found}{others}", self.file_name, first.message)
    }

    /// One block for each error, with its line and a caret; in colour for a terminal.
    pub fn render(&self, colour: bool) -> String {
        let renderer = if colour { Renderer::styled() } else { Renderer::plain() };
        let blocks = self.list.iter().map(|diagnostic| renderer.render(&[self.block(diagnostic)]));
        blocks.collect::<Vec<_>>().join("\n\n")
    }

    fn block<'a>(&'a self, diagnostic: &'a Diagnostic) -> Group<'a> {
        let title = match diagnostic.path.as_str() {
            "" => diagnostic.message.clone(),
            path => format!("{path}: {}", diagnostic.message),
        };
        let primary = AnnotationKind::Primary.span(self.on_one_line(&diagnostic.span));
        let snippet = Snippet::source(self.text.as_str())
            .path(self.file_name.as_str())
            .annotation(if diagnostic.found.is_empty() { primary } else { primary.label(diagnostic.found.as_str()) })
            .annotations(
                diagnostic
                    .other
                    .iter()
                    .map(|(span, label)| AnnotationKind::Context.span(self.on_one_line(span)).label(label.as_str())),
            );
        let block = Level::ERROR.primary_title(title).element(snippet);
        block.elements(diagnostic.hint.iter().map(|hint| Level::HELP.message(hint.as_str())))
    }

    /// A caret under one line is read; a bracket around a whole table is not.
    fn on_one_line(&self, span: &Range<usize>) -> Range<usize> {
        let marked = self.text.get(span.clone()).unwrap_or_default();
        let length = marked.find('\n').unwrap_or(marked.len());
        let start = span.start.min(self.text.len());
        start..start + marked[..length].trim_end().len()
    }
}

/// Without colour.
impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl std::error::Error for Diagnostics {}
