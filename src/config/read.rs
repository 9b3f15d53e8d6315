//! From TOML to what is written, with every unknown key and unacceptable value on the way.
//!
//! serde stops at the first error. So the value it stopped at is taken out of the tree, and the rest is read again,
//! until nothing is left to complain about.

use std::borrow::Cow;
use std::ops::Range;

use serde::Deserialize;
use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue, ValueDeserializer};

use super::diagnostic::Diagnostic;
use super::file::File;
use super::nearest::nearest;

/// What could be read of a file.
pub(super) struct Reading<'a> {
    pub(super) file: File,
    pub(super) tree: Tree<'a>,
    /// Paths of what had to be taken out: they are there, though not in `file`.
    pub(super) refused: Vec<String>,
    pub(super) problems: Vec<Diagnostic>,
}

/// `text` is TOML.
pub(super) fn read(text: &str) -> Reading<'_> {
    let (tree, _) = DeTable::parse_recoverable(text);
    let tree = Tree(tree);
    let mut readable = tree.clone();
    let mut refused = Vec::new();
    let mut problems: Vec<Diagnostic> = Vec::new();
    let file = loop {
        let error = match File::deserialize(ValueDeserializer::from(readable.value())) {
            Ok(file) => break file,
            Err(error) => error,
        };
        let span = error.span().unwrap_or_default();
        let steps = readable.steps_to(&span).unwrap_or_default();
        let mut problem = value_problem(&error, span.clone(), tree.path_of(&span), &steps);
        // To serde a date is a table with a key of a strange name.
        if matches!(readable.value_at(&steps), Some(value) if value.get_ref().is_datetime()) {
            if !problem.message.starts_with("expected ") {
                problem.message = "no date or time is expected here".to_owned();
            }
            (problem.found, problem.hint) = ("found a date or time".to_owned(), None);
        }
        // A list of tables has the place of its first table: that one went before, but it was the list that was meant.
        if problems.pop_if(|last| last.span == span && last.message == problem.message).is_some() {
            problem.path = path(&steps);
        }
        refused.push(problem.path.clone());
        problems.push(problem);
        if !readable.remove(&steps) {
            break File::default();
        }
    };
    Reading { file, tree, refused, problems }
}

/// The text as tables and values with their places.
#[derive(Clone)]
pub(super) struct Tree<'a>(Spanned<DeTable<'a>>);

/// From a table or list to something in it.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    Key(String),
    Index(usize),
}

impl<'a> Tree<'a> {
    /// The keys of a table at the top, in the order of the file.
    pub(super) fn names(&self, table: &str) -> Vec<Spanned<String>> {
        let Some(DeValue::Table(table)) = self.0.get_ref().get(table).map(Spanned::get_ref) else { return Vec::new() };
        let name = |key: &Spanned<Cow<'_, str>>| Spanned::new(key.span(), key.get_ref().to_string());
        let mut names: Vec<_> = table.keys().map(name).collect();
        names.sort_by_key(|name| name.span().start);
        names
    }

    /// The path of the key or value at this place.
    pub(super) fn path_of(&self, span: &Range<usize>) -> String {
        path(&self.steps_to(span).unwrap_or_default())
    }

    /// An empty list or table that is written under this key of the table at `place`: where, and what it is.
    pub(super) fn empty(&self, place: &Range<usize>, key: &str) -> Option<(Range<usize>, &'static str)> {
        let mut steps = self.steps_to(place)?;
        steps.push(Step::Key(key.to_owned()));
        let value = self.value_at(&steps)?;
        match value.get_ref() {
            DeValue::Array(list) if list.is_empty() => Some((value.span(), "an empty list")),
            DeValue::Table(table) if table.is_empty() => Some((value.span(), "an empty table")),
            _ => None,
        }
    }

    fn value_at(&self, steps: &[Step]) -> Option<&Spanned<DeValue<'a>>> {
        let [Step::Key(key), rest @ ..] = steps else { return None };
        rest.iter().try_fold(self.0.get_ref().get(key.as_str())?, |value, step| match (value.get_ref(), step) {
            (DeValue::Table(table), Step::Key(key)) => table.get(key.as_str()),
            (DeValue::Array(list), Step::Index(index)) => list.get(*index),
            _ => None,
        })
    }

    fn value(&self) -> Spanned<DeValue<'a>> {
        Spanned::new(self.0.span(), DeValue::Table(self.0.get_ref().clone()))
    }

    fn steps_to(&self, span: &Range<usize>) -> Option<Vec<Step>> {
        steps_in_table(self.0.get_ref(), span)
    }

    /// Whether there was something to remove.
    fn remove(&mut self, steps: &[Step]) -> bool {
        remove_from_table(self.0.get_mut(), steps)
    }
}

/// As people write it: `backends.app.servers[1].weight`.
fn path(steps: &[Step]) -> String {
    let mut path = String::new();
    for step in steps {
        match step {
            Step::Index(index) => path.push_str(&format!("[{index}]")),
            Step::Key(key) => {
                let dot = if path.is_empty() { "" } else { "." };
                let is_bare = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
                let is_bare = !key.is_empty() && key.bytes().all(is_bare);
                path.push_str(&if is_bare { format!("{dot}{key}") } else { format!("{dot}{key:?}") });
            }
        }
    }
    path
}

fn remove_from_table(table: &mut DeTable<'_>, steps: &[Step]) -> bool {
    match steps {
        [Step::Key(key)] => table.remove(key.as_str()).is_some(),
        [Step::Key(key), rest @ ..] => table.get_mut(key.as_str()).is_some_and(|value| remove_from_value(value, rest)),
        _ => false,
    }
}

fn remove_from_value(value: &mut Spanned<DeValue<'_>>, steps: &[Step]) -> bool {
    match (value.get_mut(), steps) {
        (DeValue::Table(table), _) => remove_from_table(table, steps),
        (DeValue::Array(list), [Step::Index(index)]) if *index < list.len() => {
            let all = std::mem::replace(list, DeArray::new()).into_iter().enumerate();
            *list = all.filter(|(place, _)| place != index).map(|(_, value)| value).collect();
            true
        }
        (DeValue::Array(list), [Step::Index(index), rest @ ..]) => {
            list.get_mut(*index).is_some_and(|value| remove_from_value(value, rest))
        }
        _ => false,
    }
}

fn steps_in_table(table: &DeTable<'_>, span: &Range<usize>) -> Option<Vec<Step>> {
    table.iter().find_map(|(key, value)| {
        let steps = if key.span() == *span { Some(Vec::new()) } else { steps_in_value(value, span) };
        steps.map(|steps| [vec![Step::Key(key.get_ref().to_string())], steps].concat())
    })
}

/// What is inside comes first: an implicit table has the place of the one that implies it.
fn steps_in_value(value: &Spanned<DeValue<'_>>, span: &Range<usize>) -> Option<Vec<Step>> {
    let inside = match value.get_ref() {
        DeValue::Table(table) => steps_in_table(table, span),
        DeValue::Array(list) => list.iter().enumerate().find_map(|(index, value)| {
            steps_in_value(value, span).map(|steps| [vec![Step::Index(index)], steps].concat())
        }),
        _ => None,
    };
    inside.or_else(|| (value.span() == *span).then(Vec::new))
}

/// Keys whose value is a list of tables.
const LISTS_OF_TABLES: [&str; 3] = ["routes", "rules", "servers"];

/// Turns serde's sentence into ours.
fn value_problem(error: &toml::de::Error, span: Range<usize>, path: String, steps: &[Step]) -> Diagnostic {
    let (sentence, hint) =
        error.message().split_once('\n').map_or((error.message(), None), |(sentence, hint)| (sentence, Some(hint)));
    let problem = |message: String, found: String, hint: Option<String>| Diagnostic {
        path: path.clone(),
        message,
        found,
        hint,
        span,
        other: None,
    };

    let refused = sentence.strip_prefix("invalid type: ").or_else(|| sentence.strip_prefix("invalid value: "));
    if let Some((found, accepted)) = refused.and_then(|refused| refused.rsplit_once(", expected ")) {
        let hint = match (found, accepted, steps.last()) {
            ("map", "a sequence", Some(Step::Key(key))) if LISTS_OF_TABLES.contains(&key.as_str()) => {
                Some(format!("write `[[{path}]]`, once for each of them"))
            }
            _ => hint.map(str::to_owned),
        };
        let found = match found {
            "map" => "a table",
            "sequence" => "a list",
            other => other.trim_end_matches(" as i128"),
        };
        let accepted = match accepted {
            "a map" => "a table",
            "a sequence" => "a list",
            "a boolean" => "`true` or `false`",
            other => other,
        };
        return problem(format!("expected {accepted}"), format!("found {found}"), hint);
    }
    if let (true, Some(Step::Key(key))) = (sentence.starts_with("unknown field"), steps.last()) {
        if is_for_later(steps) {
            return problem("not supported in this version".to_owned(), "planned for a later one".to_owned(), None);
        }
        let known: Vec<&str> = sentence.split('`').skip(3).step_by(2).collect();
        let found = nearest(key, known.iter().copied()).map(|known| format!("did you mean `{known}`?"));
        let accepted = (!known.is_empty()).then(|| format!("accepted here: {}", known.join(", ")));
        return problem("unknown key".to_owned(), found.unwrap_or_default(), accepted);
    }
    problem(sentence.to_owned(), String::new(), hint.map(str::to_owned))
}

/// Keys of the design that a later release brings. `*` is any name.
const LATER: [&[&str]; 4] = [
    &["stats", "socket"],
    &["frontends", "*", "bind", "tls"],
    &["frontends", "*", "bind", "accept_proxy"],
    &["backends", "*", "servers", "max_connections"],
];

fn is_for_later(steps: &[Step]) -> bool {
    let keys = steps.iter().filter_map(|step| match step {
        Step::Key(key) => Some(key.as_str()),
        Step::Index(_) => None,
    });
    let keys: Vec<&str> = keys.collect();
    let is_same = |pattern: &[&str]| {
        pattern.len() == keys.len() && pattern.iter().zip(&keys).all(|(pattern, key)| *pattern == "*" || pattern == key)
    };
    LATER.iter().any(|pattern| is_same(pattern))
}
