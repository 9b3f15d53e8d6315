//! `[[frontends.NAME.rules]]`: each has a condition, or none, and does one thing.

use std::collections::BTreeMap;
use std::ops::Range;

use hyper::header::{CONNECTION, CONTENT_LENGTH, HOST, HeaderName, TE, TRAILER, TRANSFER_ENCODING, UPGRADE};
use toml::Spanned;

use super::Checker;
use crate::config::file::{self, Table};
use crate::config::model::{
    Action, Condition, Destination, FieldName, HeaderEdits, LimitKey, Mode, Part, PrefixChange, RateLimit, Rewrite,
    Rule, Template, Variable,
};
use crate::config::value::{FromText, OneOrMany, Replacement, Text, leads_somewhere};

/// Headers that say where a message ends and what becomes of its connection: whoever changes them makes another message.
const FRAMING: [HeaderName; 8] = [
    CONNECTION,
    CONTENT_LENGTH,
    TRANSFER_ENCODING,
    UPGRADE,
    TE,
    TRAILER,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];

const ACTIONS: [&str; 8] =
    ["deny", "redirect", "rewrite", "request_headers", "response_headers", "respond", "rate_limit", "deny_body"];

/// Where a template is written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Moment {
    Request,
    Response,
}

impl Checker<'_> {
    /// `has_id`: requests of this frontend have an id.
    pub(super) fn rule(&mut self, written: Spanned<Table<file::Rule>>, has_id: bool) -> Option<Rule> {
        let place = written.span();
        let file::Rule {
            when,
            deny,
            redirect,
            rewrite,
            request_headers,
            response_headers,
            respond,
            rate_limit,
            deny_body,
        } = written.into_inner().0;
        let when = match when {
            Some(when) => self.nested(when, Mode::Http),
            None => Some(Condition::default()),
        };
        let written_at = [
            deny.as_ref().map(Spanned::span),
            redirect.as_ref().map(Spanned::span),
            rewrite.as_ref().map(Spanned::span),
            request_headers.as_ref().map(Spanned::span),
            response_headers.as_ref().map(Spanned::span),
            respond.as_ref().map(Spanned::span),
            rate_limit.as_ref().map(Spanned::span),
            deny_body.as_ref().map(Spanned::span),
        ];
        let mut written_at: Vec<Range<usize>> = written_at.into_iter().flatten().collect();
        written_at.sort_by_key(|place| place.start);
        match &written_at[..] {
            [] if self.is_refused_at(&place) => {}
            [] => {
                let hint = format!("add one of {}", ACTIONS.join(", "));
                self.problem_with_hint(place.clone(), "a rule does something", "this one does nothing", hint);
            }
            [_] => {}
            [first, second, ..] => {
                let message = "a rule does one thing; write one rule for each";
                self.conflict(second.clone(), message, "is the second", first.clone(), "first here");
            }
        }
        let mut checker = RuleChecker { checker: self, has_id };
        let action = None
            .or_else(|| deny.map(|status| Action::Deny(status.get_ref().0 as u16)))
            .or_else(|| redirect.and_then(|it| checker.redirect(it)))
            .or_else(|| rewrite.and_then(|it| checker.rewrite(it)))
            .or_else(|| request_headers.and_then(|it| checker.request_headers(it)))
            .or_else(|| response_headers.and_then(|it| checker.response_headers(it)))
            .or_else(|| respond.and_then(|it| checker.respond(it)))
            .or_else(|| rate_limit.and_then(|it| checker.rate_limit(it)))
            .or_else(|| deny_body.and_then(|it| checker.deny_body(it)));
        Some(Rule { when: when?, action: action? })
    }

    pub(super) fn may_change(&mut self, name: &HeaderName, place: Range<usize>) {
        if FRAMING.contains(name) {
            let message = "this header belongs to the connection: Relevo sets it as HTTP needs it";
            self.problem(place, message, "cannot be changed");
        }
    }
}

struct RuleChecker<'a, 'b> {
    checker: &'a mut Checker<'b>,
    has_id: bool,
}

impl RuleChecker<'_, '_> {
    fn redirect(&mut self, written: Spanned<Table<file::Redirect>>) -> Option<Action> {
        let place = written.span();
        let file::Redirect { prefix, replace, location, scheme, status } = written.into_inner().0;
        let written = [prefix.is_some(), location.is_some(), scheme.is_some()];
        self.only_one(&place, &["prefix", "location", "scheme"], &written);
        self.only_with(replace.as_ref().map(Spanned::span), prefix.is_some(), "`replace` is for `prefix`");
        let prefix = prefix.map(|prefix| PrefixChange {
            replace: replace.map(|replace| replace.into_inner().0.0),
            prefix: prefix.into_inner().0.0,
        });
        let location = location.and_then(|location| {
            let span = location.span();
            let template = self.template(location, Moment::Request)?;
            let leads = match template.parts() {
                [Part::Variable(Variable::Path | Variable::Uri), ..] => true,
                [Part::Variable(Variable::Scheme), Part::Text(text), ..] => text.starts_with("://"),
                [Part::Text(text), rest @ ..] => leads_somewhere(text) || !rest.is_empty() && is_scheme(text),
                _ => false,
            };
            if !leads {
                let accepted = "expected a path or a URL, such as \"/new{path}\" or \"https://{host}{uri}\"";
                self.checker.problem(span, accepted, "");
            }
            Some(template)
        });
        let to = prefix
            .map(Destination::Prefix)
            .or(location.map(Destination::Location))
            .or(scheme.map(|scheme| Destination::Scheme(scheme.into_inner().0.0.to_owned())));
        Some(Action::Redirect { to: to?, status: status.map_or(302, |status| status.0.0) })
    }

    fn rewrite(&mut self, written: Spanned<Table<file::Rewrite>>) -> Option<Action> {
        let place = written.span();
        let file::Rewrite { prefix, replace, path, regex, with, normalize } = written.into_inner().0;
        let written = [prefix.is_some(), path.is_some(), regex.is_some(), normalize.is_some()];
        self.only_one(&place, &["prefix", "path", "regex", "normalize"], &written);
        self.only_with(replace.as_ref().map(Spanned::span), prefix.is_some(), "`replace` is for `prefix`");
        self.only_with(with.as_ref().map(Spanned::span), regex.is_some(), "`with` is for `regex`");
        if let Some(prefix) = prefix {
            let replace = replace.map(|replace| replace.into_inner().0.0);
            return Some(Action::Rewrite(Rewrite::Prefix(PrefixChange { replace, prefix: prefix.into_inner().0.0 })));
        }
        if let Some(path) = path {
            let span = path.span();
            let template = self.template(path, Moment::Request)?;
            let begins = match template.parts().first() {
                Some(Part::Text(text)) => text.starts_with('/') && text.bytes().all(|byte| byte.is_ascii_graphic()),
                Some(Part::Variable(Variable::Path | Variable::Uri)) => true,
                _ => false,
            };
            if !begins {
                self.checker.problem(span, "expected a path that starts with `/`, such as \"/v2{path}\"", "");
            }
            return Some(Action::Rewrite(Rewrite::Path(template)));
        }
        if let Some(normalize) = normalize {
            if !normalize.get_ref() {
                self.checker.problem(normalize.span(), "expected `true`, or no such rule", "does nothing");
            }
            return Some(Action::Rewrite(Rewrite::Normalize));
        }
        let regex = regex?;
        let accepted = "what the regular expression's find becomes, such as \"/v2/$1\"";
        let with = self.checker.required(with, &place, "with", accepted)?;
        let (pattern, span) = (regex.into_inner().0, with.span());
        let Text(Replacement(with)) = with.into_inner();
        if let Some(group) = pattern.missing_group(&with) {
            let hint = "`$1` is the first group, `${1}` before a letter, digit or `_`, `$$` a dollar";
            let message = format!("the regular expression has no group `{group}`");
            self.checker.problem_with_hint(span, &message, "", hint);
        }
        Some(Action::Rewrite(Rewrite::Regex { pattern, with }))
    }

    fn request_headers(&mut self, written: Spanned<Table<file::HeaderEdits>>) -> Option<Action> {
        let place = written.span();
        let written = written.into_inner().0;
        let status = written.status.as_ref().map(Spanned::span);
        self.only_with(status, false, "`status` is for `response_headers`");
        self.edits(&place, written, Moment::Request).map(Action::RequestHeaders)
    }

    fn response_headers(&mut self, written: Spanned<Table<file::HeaderEdits>>) -> Option<Action> {
        let place = written.span();
        let mut written = written.into_inner().0;
        let status = self.checker.values(written.status.take(), |range| (range.0.0, range.0.1));
        let edits = self.edits(&place, written, Moment::Response)?;
        Some(Action::ResponseHeaders { status, edits })
    }

    fn edits(&mut self, place: &Range<usize>, written: file::HeaderEdits, moment: Moment) -> Option<HeaderEdits> {
        let file::HeaderEdits { set, add, remove, status: _ } = written;
        let remove = remove.map(OneOrMany::elements).unwrap_or_default();
        if set.is_empty() && add.is_empty() && remove.is_empty() && !self.checker.is_refused_at(place) {
            let message = "expected at least one of `set`, `add` and `remove`";
            self.checker.problem(place.clone(), message, "nothing is changed");
        }
        if moment == Moment::Request {
            let removed = remove.iter().map(|name| (name.span(), name.get_ref().0.0 == HOST));
            let added = add.keys().map(|name| (name.span(), name.get_ref().eq_ignore_ascii_case("host")));
            for (place, _) in removed.chain(added).filter(|(_, is_host)| *is_host) {
                self.checker.problem(place, "a request has one Host: `set` it", "");
            }
        }
        let remove = remove.into_iter().map(|name| {
            self.checker.may_change(&name.get_ref().0.0, name.span());
            name.into_inner().0
        });
        Some(HeaderEdits { remove: remove.collect(), set: self.fields(set, moment), add: self.fields(add, moment) })
    }

    fn fields(
        &mut self,
        fields: BTreeMap<Spanned<String>, Spanned<Text<Template>>>,
        moment: Moment,
    ) -> Vec<(FieldName, Template)> {
        let mut list = Vec::new();
        for (name, value) in fields {
            match FieldName::from_text(name.get_ref()) {
                Ok(parsed) => {
                    self.checker.may_change(&parsed.0, name.span());
                    list.extend(self.template(value, moment).map(|template| (parsed, template)));
                }
                Err(_) => {
                    self.checker.problem(name.span(), format!("expected {}", FieldName::ACCEPTED), "");
                }
            }
        }
        list
    }

    fn respond(&mut self, written: Spanned<Table<file::Respond>>) -> Option<Action> {
        let file::Respond { status, content_type, body } = written.into_inner().0;
        let status = status.map_or(200, |status| status.0 as u16);
        if let (204 | 205 | 304, Some(body)) = (status, &body) {
            let message = format!("a response with status {status} has no body");
            self.checker.problem(body.span(), message, "remove it");
        }
        let content_type = match content_type {
            Some(content_type) => self.template(content_type, Moment::Request)?,
            None => Template::parse("text/plain; charset=utf-8").ok()?,
        };
        Some(Action::Respond { status, content_type, body: body.map(Spanned::into_inner).unwrap_or_default() })
    }

    fn rate_limit(&mut self, written: Spanned<Table<file::RateLimit>>) -> Option<Action> {
        let place = written.span();
        let file::RateLimit { requests, per, burst, header, size } = written.into_inner().0;
        let requests = self.checker.required(requests, &place, "requests", "a whole number from 1 to 1000000")?.0;
        Some(Action::RateLimit(RateLimit {
            requests,
            per: per.map_or(std::time::Duration::from_secs(1), |per| per.0),
            burst: burst.map_or(requests, |burst| burst.0),
            by: header.map_or(LimitKey::Source, |header| LimitKey::Header(header.0)),
            size: size.map_or(65_536, |size| size.0 as usize),
        }))
    }

    fn deny_body(&mut self, written: Spanned<Table<file::DenyBody>>) -> Option<Action> {
        let place = written.span();
        let file::DenyBody { regex, first, status } = written.into_inner().0;
        let pattern = self.checker.required(regex, &place, "regex", "a regular expression")?.0;
        let first = first.map_or(4096, |first| first.0 as usize);
        Some(Action::DenyBody { pattern, first, status: status.map_or(403, |status| status.0 as u16) })
    }

    fn template(&mut self, written: Spanned<Text<Template>>, moment: Moment) -> Option<Template> {
        let span = written.span();
        let template = written.into_inner().0;
        let variables: Vec<_> = template.variables().collect();
        if let Some(late) = variables.iter().find(|variable| moment == Moment::Request && variable.is_of_response()) {
            let message = format!("`{{{}}}` is known only in `response_headers`", late.name());
            self.checker.problem(span, message, "no server is chosen yet");
            return None;
        }
        if !self.has_id && variables.contains(&Variable::RequestId) {
            let hint = "add `request_id = {}` to the frontend";
            self.checker.problem_with_hint(span, "requests of this frontend have no id", "there is none", hint);
            return None;
        }
        Some(template)
    }

    fn only_one(&mut self, place: &Range<usize>, keys: &[&str], written: &[bool]) {
        let is_refused = keys.iter().any(|key| self.checker.is_refused(place, key));
        if written.iter().filter(|is_written| **is_written).count() != 1 && !is_refused {
            let keys: Vec<_> = keys.iter().map(|key| format!("`{key}`")).collect();
            self.checker.problem(place.clone(), format!("expected one of {}", keys.join(", ")), "");
        }
    }

    fn only_with(&mut self, place: Option<Range<usize>>, is_with: bool, message: &str) {
        if let Some(place) = place.filter(|_| !is_with) {
            self.checker.problem(place, message, "has no effect here");
        }
    }
}

/// The host follows from a variable.
fn is_scheme(text: &str) -> bool {
    text == "http://" || text == "https://"
}
