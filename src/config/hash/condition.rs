//! A condition as it goes into the digest: an object with the keys that are written.

use serde_json::{Map, Value, json};

use crate::config::model::{Condition, Pattern, Test, ValueTest};

pub(super) fn members(condition: &Condition) -> Map<String, Value> {
    condition.0.iter().map(|test| member(test)).map(|(key, value)| (key.to_owned(), value)).collect()
}

fn member(test: &Test) -> (&'static str, Value) {
    match test {
        Test::Host(list) => ("host", json!(list)),
        Test::HostSuffix(list) => ("host_suffix", json!(list)),
        Test::HostRegex(list) => ("host_regex", patterns(list)),
        Test::Path(list) => ("path", json!(list)),
        Test::PathPrefix(list) => ("path_prefix", json!(list)),
        Test::PathSuffix(list) => ("path_suffix", json!(list)),
        Test::PathDirectory(list) => ("path_directory", json!(list)),
        Test::PathRegex(list) => ("path_regex", patterns(list)),
        Test::Method(list) => ("method", list.iter().map(|method| method.0.as_str()).collect()),
        Test::Header(list) => ("header", list.iter().map(|test| named(test.name.0.as_str(), &test.value)).collect()),
        Test::Cookie(list) => ("cookie", list.iter().map(|test| named(&test.name, &test.value)).collect()),
        Test::Query(list) => ("query", list.iter().map(|test| named(&test.name, &test.value)).collect()),
        Test::Source(list) => ("source", list.iter().map(|network| network.to_string()).collect()),
        Test::DestinationPort(list) => ("destination_port", json!(list)),
        Test::Any(list) => ("any", list.iter().map(members).collect()),
        Test::All(list) => ("all", list.iter().map(members).collect()),
        Test::Not(condition) => ("not", members(condition).into()),
    }
}

fn patterns(list: &[Pattern]) -> Value {
    list.iter().map(Pattern::as_str).collect()
}

fn named(name: &str, test: &ValueTest) -> Value {
    let ValueTest { value, prefix, suffix, regex } = test;
    let regex: Vec<_> = regex.iter().map(|pattern| pattern.as_str().to_owned()).collect();
    let lists = [("value", value), ("prefix", prefix), ("suffix", suffix), ("regex", &regex)];
    let written = lists.into_iter().filter(|(_, list)| !list.is_empty());
    let members: Map<_, _> = written.map(|(key, list)| (key.to_owned(), json!(list))).collect();
    let mut object = Value::from(members);
    object["name"] = name.into();
    object
}
