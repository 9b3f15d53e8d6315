//! `backends.NAME.health` and `backends.NAME.agent`: how servers are checked, and what they say of themselves.

use std::time::Duration;

use hyper::header::{CONNECTION, CONTENT_LENGTH, HOST, HeaderName, TRANSFER_ENCODING};
use toml::Spanned;

use super::{Checker, plain, port};
use crate::config::file::{self, Table};
use crate::config::model::{Agent, HealthCheck, Observe, Probe};
use crate::config::value::{HeaderText, OnRefused, OneOrMany, SearchedText, Text};

impl Checker<'_> {
    pub(super) fn health(&mut self, written: file::Health) -> HealthCheck {
        let file::Health {
            method,
            path,
            host,
            headers,
            expect,
            expect_body,
            port: check_port,
            interval,
            fast_interval,
            down_interval,
            spread,
            timeout,
            rise,
            fall,
            observe,
            error_limit,
            on_refused,
        } = written;
        let is_http = method.is_some() || path.is_some() || host.is_some() || headers.is_some();
        let probe = if is_http || expect.is_some() || expect_body.is_some() {
            let method = plain(method).map_or_else(|| "GET".to_owned(), |method| method.0);
            Probe::Http {
                expect_body: expect_body.map(|text| self.expected_body(text, &method)),
                method,
                path: plain(path).map_or_else(|| "/".to_owned(), |path| path.0),
                host: plain(host).map(|host| host.0),
                headers: headers.map(|Table(headers)| self.check_headers(headers)).unwrap_or_default(),
                expect: expect.map_or_else(|| vec![(200, 399)], |expect| self.expected(expect)),
            }
        } else {
            Probe::Tcp
        };
        let observe = observe.map_or(Observe::Off, |observe| observe.into_inner().0);
        if let (Some(limit), Observe::Off) = (&error_limit, observe) {
            let hint = "add `observe = \"layer4\"` or `observe = \"layer7\"`, or remove it";
            self.problem_with_hint(limit.span(), "errors are counted where they are observed", "nothing is", hint);
        }

        let default = HealthCheck::every(plain(interval).unwrap_or(Duration::from_secs(2)));
        HealthCheck {
            probe,
            port: port(check_port),
            interval: default.interval,
            fast_interval: plain(fast_interval).unwrap_or(default.fast_interval),
            down_interval: plain(down_interval).unwrap_or(default.down_interval),
            spread: spread.map_or(default.spread, |spread| spread.0),
            timeout: plain(timeout).unwrap_or(default.timeout),
            rise: rise.map_or(default.rise, |rise| rise.0),
            fall: fall.map_or(default.fall, |fall| fall.0),
            observe,
            error_limit: error_limit.map_or(default.error_limit, |limit| limit.into_inner().0),
            refused_marks_down: plain(on_refused) == Some(OnRefused::MarkDown),
        }
    }

    pub(super) fn agent(&mut self, written: Spanned<Table<file::Agent>>) -> Option<Agent> {
        let place = written.span();
        let Table(file::Agent { port: agent_port, interval, send }) = written.into_inner();
        let agent_port = self.required(agent_port, &place, "port", "the agent's TCP port");
        Some(Agent {
            port: port(agent_port)?,
            interval: plain(interval).unwrap_or(Duration::from_secs(2)),
            send: plain(send).map(|send| send.0).unwrap_or_default(),
        })
    }

    fn expected(&mut self, written: Spanned<file::Expect>) -> Vec<(u16, u16)> {
        let span = written.span();
        let ranges: Vec<_> =
            OneOrMany::values(written.into_inner()).into_iter().map(|range| (range.0.0, range.0.1)).collect();
        if ranges.is_empty() && !self.is_refused_at(&span) {
            self.problem(span, "expected at least one status", "no answer would be good enough");
        }
        ranges
    }

    fn expected_body(&mut self, written: Spanned<Text<SearchedText>>, method: &str) -> String {
        if method == "HEAD" {
            let hint = "use `method = \"GET\"`, or remove it";
            self.problem_with_hint(written.span(), "an answer to HEAD has no body", "so it is never found", hint);
        }
        written.into_inner().0.0
    }

    fn check_headers(&mut self, written: file::CheckHeaders) -> Vec<(String, String)> {
        let mut headers = Vec::new();
        for (name, Text(HeaderText(value))) in written {
            match HeaderName::from_bytes(name.get_ref().as_bytes()) {
                Err(_) => self.problem(name.span(), "expected the name of a header", ""),
                Ok(HOST) => {
                    self.problem_with_hint(name.span(), "this header has its own key", "", "write `host = …` instead");
                }
                Ok(CONNECTION | CONTENT_LENGTH | TRANSFER_ENCODING) => {
                    self.problem(name.span(), "this header is the check's own", "a check has one connection, no body");
                }
                Ok(name) => headers.push((name.as_str().to_owned(), value)),
            }
        }
        headers
    }
}
