//! A condition in words.

use std::fmt::Display;

use crate::config::model::{Condition, Pattern, Test, ValueTest};

/// Such as "host is www.example.com and path begins with /a/ or /b/".
pub(super) fn words(condition: &Condition) -> String {
    condition.0.iter().map(test).collect::<Vec<_>>().join(" and ")
}

fn test(test: &Test) -> String {
    match test {
        Test::Host(list) => either("host is", list),
        Test::HostSuffix(list) => either("host ends with", list),
        Test::HostRegex(list) => matches("host", list),
        Test::Path(list) => either("path is", list),
        Test::PathPrefix(list) => either("path begins with", list),
        Test::PathSuffix(list) => either("path ends with", list),
        Test::PathDirectory(list) => either("path goes through", list),
        Test::PathRegex(list) => matches("path", list),
        Test::Method(list) => either("method is", list.iter().map(|method| &method.0)),
        Test::Header(list) => any(list.iter().map(|test| named(&format!("header {}", test.name.0), &test.value))),
        Test::Cookie(list) => any(list.iter().map(|test| named(&format!("cookie {}", test.name), &test.value))),
        Test::Query(list) => any(list.iter().map(|test| named(&format!("parameter {}", test.name), &test.value))),
        Test::Source(list) => either("client is in", list),
        Test::DestinationPort(list) => either("port is", list),
        Test::Any(list) => any(list.iter().map(words)),
        Test::All(list) => list.iter().map(words).collect::<Vec<_>>().join(" and "),
        Test::Not(condition) => format!("not ({})", words(condition)),
    }
}

fn any(alternatives: impl Iterator<Item = String>) -> String {
    let alternatives: Vec<_> = alternatives.collect();
    if alternatives.len() == 1 { alternatives.concat() } else { format!("({})", alternatives.join(" or ")) }
}

fn either(what: &str, list: impl IntoIterator<Item: Display>) -> String {
    let list: Vec<_> = list.into_iter().map(|item| item.to_string()).collect();
    format!("{what} {}", list.join(" or "))
}

fn matches(what: &str, list: &[Pattern]) -> String {
    either(&format!("{what} matches"), list.iter().map(Pattern::as_str))
}

fn named(what: &str, test: &ValueTest) -> String {
    let ValueTest { value, prefix, suffix, regex } = test;
    let mut parts = Vec::new();
    for (verb, list) in [("is", value), ("begins with", prefix), ("ends with", suffix)] {
        if !list.is_empty() {
            parts.push(either(&format!("{what} {verb}"), list));
        }
    }
    if !regex.is_empty() {
        parts.push(matches(what, regex));
    }
    if parts.is_empty() { format!("{what} is there") } else { parts.join(" and ") }
}
