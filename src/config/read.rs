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
        if let (true, Some(hint)) = (problem.message == UNKNOWN, other_place(&steps)) {
            (problem.found, problem.hint) = (String::new(), Some(hint));
        }
        // A list of tables has the place of its first table: that one went before, but it was the list that was meant.
        if problems.pop_if(|last| last.span == span && last.message == problem.message).is_some() {
            problem.path = path(&steps);
            problem.hint = Some(format!("write `[{}]`, with single brackets", problem.path));
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

const UNKNOWN: &str = "unknown key";

/// Where a key that is not known here would be: in a table around this one, which it left behind the header of another, or
/// in the same table of a backend instead of a frontend's, or the other way round.
fn other_place(steps: &[Step]) -> Option<String> {
    let (key, table) = steps.split_last()?;
    let is_table = |length: &usize| matches!(table.get(*length), Some(Step::Key(_)));
    let mut around = (2..table.len()).rev().filter(is_table).filter_map(|length| table.get(..length));
    if let Some(owner) = around.find(|table| is_known(table, key)) {
        return Some(format!("it is a key of `{}`: write it there, above the headers that follow", path(owner)));
    }
    let [Step::Key(kind), Step::Key(_), rest @ ..] = table else { return None };
    let kind = match kind.as_str() {
        "frontends" => "backends",
        "backends" => "frontends",
        _ => return None,
    };
    let other = [&[Step::Key(kind.to_owned()), Step::Key("NAME".to_owned())], rest].concat();
    is_known(&other, key).then(|| format!("it is a key of `{}`", path(&other)))
}

/// Does a table at this place have such a key?
fn is_known(table: &[Step], key: &Step) -> bool {
    let nothing = Spanned::new(0..0, DeValue::Boolean(true));
    let file = table.iter().chain([key]).rfold(nothing, |inner, step| {
        let outer = match step {
            Step::Key(key) => DeValue::Table([(Spanned::new(0..0, Cow::from(key)), inner)].into_iter().collect()),
            Step::Index(_) => DeValue::Array([inner].into_iter().collect()),
        };
        Spanned::new(0..0, outer)
    });
    let read = File::deserialize(ValueDeserializer::from(file));
    !read.is_err_and(|error| error.message().starts_with("unknown field"))
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
            (_, "a table" | "a map", _) => example(steps).map(|example| format!("such as `{example}`")),
            ("string \"true\"", "a boolean", _) => Some("write it without quotes: `true`".to_owned()),
            ("string \"false\"", "a boolean", _) => Some("write it without quotes: `false`".to_owned()),
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
        return problem(UNKNOWN.to_owned(), found.unwrap_or_default(), accepted);
    }
    problem(sentence.to_owned(), String::new(), hint.map(str::to_owned))
}

/// A table that may stand where something else was written.
fn example(steps: &[Step]) -> Option<&'static str> {
    let keys = |step: &Step| match step {
        Step::Key(key) => Some(key.clone()),
        Step::Index(_) => None,
    };
    let keys: Vec<String> = steps.iter().filter_map(keys).collect();
    Some(match (keys.first()?.as_str(), keys.last()?.as_str()) {
        (_, "timeouts") => "{ connect = \"5s\" }",
        (_, "errors") => "{ 503 = \"/etc/relevo/errors/503.html\" }",
        (_, "users") => "{ admin = \"secret\" }",
        ("frontends", "stats") => "{ path = \"/stats\", users = { admin = \"secret\" } }",
        ("frontends", "capture") => "{ request = [\"User-Agent\"] }",
        ("frontends", "request_id") => "{ header = \"X-Request-ID\" }",
        ("frontends", "routes") => "{ path_prefix = \"/static/\", backend = \"static\" }",
        ("frontends", "rules") => "{ when = { path_prefix = \"/admin/\" }, deny = 403 }",
        ("frontends", "when" | "not" | "any" | "all") => "{ path_prefix = \"/admin/\" }",
        ("frontends", "header" | "cookie" | "query") => "{ name = \"beta\", value = \"1\" }",
        ("frontends", "redirect") => "{ scheme = \"https\" }",
        ("frontends", "rewrite") => "{ prefix = \"/\", replace = \"/api/\" }",
        ("frontends", "request_headers" | "response_headers") => "{ set = { X-Node = \"{node}\" } }",
        ("frontends", "respond") => "{ status = 200, body = \"fine\" }",
        ("frontends", "rate_limit") => "{ requests = 5, per = \"1m\" }",
        ("frontends", "deny_body") => "{ regex = \"<script\" }",
        ("backends", "servers") => "{ name = \"one\", address = \"192.0.2.21:80\" }",
        ("backends", "health") => "{ method = \"HEAD\", path = \"/\" }",
        ("backends", "agent") => "{ port = 9707 }",
        ("backends", "cookie") => "{ name = \"SESSION\", mode = \"insert\" }",
        ("backends", "stick") => "{ by = \"source\" }",
        ("backends", "retry_budget") => "{ percent = 20 }",
        ("peering", "peers") => "{ lb2 = \"192.0.2.12:8650\" }",
        _ => return None,
    })
}

/// Is it a key of the design that a later release brings, or what HAProxy calls it?
fn is_for_later(steps: &[Step]) -> bool {
    match steps {
        [Step::Key(stats), Step::Key(socket)] => stats == "stats" && socket == "socket",
        [Step::Key(_), Step::Key(_), .., Step::Key(key)] => {
            ["tls", "ssl", "accept_proxy", "send_proxy"].contains(&key.as_str())
        }
        _ => false,
    }
}
