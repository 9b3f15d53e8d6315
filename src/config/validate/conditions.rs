//! From the keys of a condition to its tests, cheap ones first.

use std::ops::Range;

use toml::Spanned;

use super::Checker;
use crate::config::file::{self, Table};
use crate::config::model::{Condition, HeaderTest, Mode, NamedTest, Test, ValueTest};
use crate::config::value::{OneOrMany, Text};

type Values<T> = Option<Spanned<OneOrMany<T>>>;

impl Checker<'_> {
    /// `None` where nothing is written; `place` is of the table it is written in.
    pub(super) fn condition(&mut self, written: file::Condition, mode: Mode) -> Option<Condition> {
        let mut tests = Tests { checker: self, mode, tests: Vec::new() };
        tests.add(written);
        let tests = tests.tests;
        (!tests.is_empty()).then_some(Condition(tests))
    }

    pub(super) fn nested(&mut self, written: Spanned<Table<file::Condition>>, mode: Mode) -> Option<Condition> {
        let place = written.span();
        let condition = self.condition(written.into_inner().0, mode);
        if condition.is_none() && !self.is_refused_at(&place) {
            self.problem(place, "expected a condition, such as `{ path_prefix = \"/old/\" }`", "an empty one");
        }
        condition
    }

    /// An empty list would match nothing.
    pub(super) fn values<T, V>(&mut self, list: Values<T>, value: impl FnMut(T) -> V) -> Vec<V> {
        let Some(list) = list else { return Vec::new() };
        let span = list.span();
        let values = list.into_inner().values();
        if values.is_empty() && !self.is_refused_at(&span) {
            self.problem(span, "expected at least one value", "an empty list matches nothing");
        }
        values.into_iter().map(value).collect()
    }

    pub(super) fn only_http(&mut self, place: Range<usize>) {
        let message = "only a frontend of mode \"http\" can do this";
        let hint = "remove it, or set `mode = \"http\"`";
        self.problem_with_hint(place, message, "this one has mode \"tcp\"", hint);
    }
}

struct Tests<'a, 'b> {
    checker: &'a mut Checker<'b>,
    mode: Mode,
    tests: Vec<Test>,
}

impl Tests<'_, '_> {
    fn add(&mut self, written: file::Condition) {
        let file::Condition {
            host,
            host_suffix,
            host_regex,
            path,
            path_prefix,
            path_suffix,
            path_directory,
            path_regex,
            method,
            header,
            cookie,
            query,
            source,
            destination_port,
            any,
            all,
            not,
        } = written;
        self.of_connection(source, |network| network.0, Test::Source);
        self.of_connection(destination_port, |port| port.0 as u16, Test::DestinationPort);
        self.of_request(method, |method| method.0, Test::Method);
        self.of_request(host, |host| host.0.0, Test::Host);
        self.of_request(host_suffix, |suffix| suffix.0.0, Test::HostSuffix);
        self.of_request(path, |path| path.0.0, Test::Path);
        self.of_request(path_prefix, |prefix| prefix.0.0, Test::PathPrefix);
        self.of_request(path_suffix, |suffix| suffix.0.0, Test::PathSuffix);
        self.of_request(path_directory, |directory| directory.0.0, Test::PathDirectory);
        self.named(header, |name, value| HeaderTest { name, value }, Test::Header);
        self.named(cookie, |name, value| NamedTest { name: name.0, value }, Test::Cookie);
        self.named(query, |name, value| NamedTest { name: name.0, value }, Test::Query);
        self.of_request(host_regex, |pattern| pattern.0.0, Test::HostRegex);
        self.of_request(path_regex, |pattern| pattern.0, Test::PathRegex);
        self.nested(any, Test::Any);
        self.nested(all, Test::All);
        if let Some(condition) = not.and_then(|written| self.checker.nested(*written, self.mode)) {
            self.tests.push(Test::Not(Box::new(condition)));
        }
    }

    fn of_connection<T, V>(&mut self, list: Values<T>, value: impl FnMut(T) -> V, test: fn(Vec<V>) -> Test) {
        if list.is_some() {
            let values = self.checker.values(list, value);
            self.tests.push(test(values));
        }
    }

    fn of_request<T, V>(&mut self, list: Values<T>, value: impl FnMut(T) -> V, test: fn(Vec<V>) -> Test) {
        if let (Mode::Tcp, Some(list)) = (self.mode, &list) {
            self.checker.only_http(list.span());
        }
        self.of_connection(list, value, test);
    }

    fn named<N, V>(
        &mut self,
        list: Values<Table<file::NamedTest<N>>>,
        named: impl Fn(N, ValueTest) -> V,
        test: fn(Vec<V>) -> Test,
    ) {
        let Some(list) = list else { return };
        if self.mode == Mode::Tcp {
            self.checker.only_http(list.span());
        }
        let checker = &mut *self.checker;
        let mut tests = Vec::new();
        for written in OneOrMany::elements(list) {
            let place = written.span();
            let file::NamedTest { name, value, prefix, suffix, regex } = written.into_inner().0;
            let name = checker.required(name, &place, "name", "the name whose value is tested");
            let value = ValueTest {
                value: checker.values(value, |value: Text<_>| value.0.0),
                prefix: checker.values(prefix, |prefix| prefix.0.0),
                suffix: checker.values(suffix, |suffix| suffix.0.0),
                regex: checker.values(regex, |pattern| pattern.0),
            };
            tests.extend(name.map(|name| named(name.0, value)));
        }
        self.tests.push(test(tests));
    }

    fn nested(
        &mut self,
        list: Option<Spanned<Vec<Spanned<Table<file::Condition>>>>>,
        test: fn(Vec<Condition>) -> Test,
    ) {
        let Some(list) = list else { return };
        let place = list.span();
        let list = list.into_inner();
        if list.is_empty() && !self.checker.is_refused_at(&place) {
            self.checker.problem(place, "expected at least one condition", "an empty list");
        }
        let conditions = list.into_iter().filter_map(|written| self.checker.nested(written, self.mode)).collect();
        self.tests.push(test(conditions));
    }
}
