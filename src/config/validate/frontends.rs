//! `[frontends.NAME]`: where clients come in, and where their requests go.

use std::net::SocketAddr;
use std::ops::Range;

use hyper::header::HeaderName;
use toml::Spanned;

use super::{Checker, in_file_order, into_file_order, plain, timeout};
use crate::config::file::{self, Named, Table};
use crate::config::model::{
    BackendIndex, Bind, Capture, ClientTimeouts, ErrorPages, FieldName, ForwardedFor, Forwarding, Frontend, Mode,
    Network, Observe, RequestId, Route,
};
use crate::config::nearest::nearest;
use crate::config::value::{BindAddress, FromText, OneOrMany, Text, Token};

/// What is listened on so far, and where that is written.
pub(super) type Bound = Vec<(SocketAddr, Range<usize>)>;

impl Checker<'_> {
    pub(super) fn frontends(
        &mut self,
        written: Named<file::Frontend>,
        defaults: &file::Timeouts,
        errors: &ErrorPages,
        bound: &mut Bound,
    ) -> Vec<Frontend> {
        let mut frontends = Vec::new();
        for (name, written) in into_file_order(written) {
            self.name(&name);
            frontends.extend(self.frontend(name, written, defaults, errors, bound));
        }
        frontends
    }

    fn frontend(
        &mut self,
        name: Spanned<String>,
        written: file::Frontend,
        defaults: &file::Timeouts,
        errors: &ErrorPages,
        bound: &mut Bound,
    ) -> Option<Frontend> {
        let place = name.span();
        let mode = plain(written.mode.clone()).unwrap_or(Mode::Http);
        if mode == Mode::Tcp {
            self.http_keys_in_tcp(&written);
        }
        let binds = self.binds(written.bind, &place, bound);
        let has_default = written.default_backend.is_some() || self.is_refused(&place, "default_backend");
        let has_routes = !written.routes.is_empty() || self.is_refused(&place, "routes");
        if !has_default && !has_routes {
            self.missing(&place, "default_backend", "the name of a backend");
        }
        let default_backend = written.default_backend.and_then(|backend| self.backend_index(&backend));
        let routes = written.routes.into_iter().filter_map(|route| self.route(route, mode)).collect();
        let statistics = written.stats.and_then(|stats| self.statistics(stats));
        let request_id = written.request_id.map(|written| self.request_id(written.into_inner().0));
        let rules = written.rules.into_iter().filter_map(|rule| self.rule(rule, request_id.is_some())).collect();
        let is_on = |key: Option<Spanned<bool>>| key.is_some_and(Spanned::into_inner);
        let forwarding = Forwarding {
            forwarded_for: written.forwarded_for.and_then(|written| forwarded_for(written.into_inner())),
            forwarded: is_on(written.forwarded),
            proto: is_on(written.forwarded_proto),
            host: is_on(written.forwarded_host),
        };
        let own_errors = self.error_pages(written.errors.as_ref());
        let own = written.timeouts.0;
        let (http_request, http_keep_alive) = (own.http_request.as_ref(), own.http_keep_alive.as_ref());
        let timeouts = ClientTimeouts {
            client: timeout(own.client.as_ref(), &defaults.client, 50),
            http_request: timeout(http_request.map(Spanned::get_ref), &defaults.http_request, 10),
            http_keep_alive: timeout(http_keep_alive.map(Spanned::get_ref), &defaults.http_keep_alive, 10),
        };
        Some(Frontend {
            name: name.into_inner(),
            binds: binds?,
            mode,
            rules,
            routes,
            default_backend,
            forwarding: (forwarding != Forwarding::default()).then_some(forwarding),
            trusted_proxies: networks(written.trusted_proxies.map(Spanned::into_inner)),
            request_id,
            max_connections: written.max_connections.map(|most| most.0),
            max_connections_per_source: written.max_connections_per_source.map(|most| most.0),
            timeouts,
            capture: written.capture.map(|capture| self::capture(capture.into_inner().0)).unwrap_or_default(),
            statistics,
            connection: written.connection.map(|mode| mode.into_inner().0).unwrap_or_default(),
            tcp_keep_alive: self.tcp_keep_alive(written.tcp_keep_alive),
            errors: errors.clone().into_iter().chain(own_errors).collect(),
        })
    }

    fn http_keys_in_tcp(&mut self, written: &file::Frontend) {
        let places = [
            written.forwarded_for.as_ref().map(Spanned::span),
            written.forwarded.as_ref().map(Spanned::span),
            written.forwarded_proto.as_ref().map(Spanned::span),
            written.forwarded_host.as_ref().map(Spanned::span),
            written.trusted_proxies.as_ref().map(Spanned::span),
            written.request_id.as_ref().map(Spanned::span),
            written.rules.first().map(Spanned::span),
            written.timeouts.0.http_request.as_ref().map(Spanned::span),
            written.timeouts.0.http_keep_alive.as_ref().map(Spanned::span),
            written.stats.as_ref().map(Spanned::span),
            written.capture.as_ref().map(Spanned::span),
            written.connection.as_ref().map(Spanned::span),
            written.errors.as_ref().map(Spanned::span),
        ];
        for place in places.into_iter().flatten() {
            self.only_http(place);
        }
    }

    pub(super) fn binds(
        &mut self,
        written: Option<Spanned<OneOrMany<file::BindEntry>>>,
        place: &Range<usize>,
        bound: &mut Bound,
    ) -> Option<Vec<Bind>> {
        let written = written.map(OneOrMany::elements).unwrap_or_default();
        if written.is_empty() {
            self.missing(place, "bind", "a list of addresses, such as `bind = [\"*:80\"]`");
            return None;
        }
        let mut binds = Vec::new();
        for bind in written {
            let span = bind.span();
            let Some(BindAddress(address)) = bind.into_inner().0 else {
                self.missing(&span, "address", BindAddress::ACCEPTED);
                continue;
            };
            if !self.is_listened_on(address, &span, bound) {
                bound.push((address, span));
            }
            binds.push(Bind { address });
        }
        Some(binds)
    }

    /// Says so if an earlier one, or the wildcard, has that port.
    pub(super) fn is_listened_on(&mut self, address: SocketAddr, span: &Range<usize>, bound: &Bound) -> bool {
        let Some((_, first)) = bound.iter().find(|(other, _)| overlap(*other, address)) else { return false };
        let found = format!("is in use by {}", self.tree.path_of(first));
        self.conflict(span.clone(), "a port is listened on once", &found, first.clone(), "this one");
        true
    }

    fn route(&mut self, written: Spanned<Table<file::Route>>, mode: Mode) -> Option<Route> {
        let place = written.span();
        let (backend, condition) = written.into_inner().0.split();
        let when = self.condition(condition, mode);
        if when.is_none() && !self.is_refused_at(&place) {
            let hint = "add one, such as `path_prefix` or `host`; what no route matches goes to `default_backend`";
            self.problem_with_hint(place.clone(), "a route has at least one condition", "this one has none", hint);
        }
        let backend = self.required(backend, &place, "backend", "the name of a backend");
        Some(Route { backend: self.backend_index(&backend?)?, when: when? })
    }

    fn request_id(&mut self, written: file::RequestId) -> RequestId {
        let header = match written.header {
            Some(header) => {
                self.may_change(&header.get_ref().0.0, header.span());
                header.into_inner().0
            }
            None => FieldName(HeaderName::from_static("x-request-id")),
        };
        RequestId { header, keep: written.keep.unwrap_or(true) }
    }

    pub(super) fn backend_index(&mut self, reference: &Spanned<String>) -> Option<BackendIndex> {
        let names = self.tree.names("backends");
        let index = names.iter().position(|name| name.get_ref() == reference.get_ref());
        if index.is_none() {
            let name = reference.get_ref();
            let hint = match nearest(name, names.iter().map(|name| name.get_ref().as_str())) {
                Some(meant) => format!("did you mean \"{meant}\"?"),
                None => format!("add a table `[backends.{}]`", name.escape_debug()),
            };
            self.problem_with_hint(
                reference.span(),
                "expected the name of a backend",
                "there is no such backend",
                hint,
            );
        }
        index.map(BackendIndex)
    }

    /// What a backend has that the mode of a frontend cannot do.
    pub(super) fn conflicts_of_backends(&mut self, frontends: &Named<file::Frontend>, backends: &Named<file::Backend>) {
        for (_, Table(frontend)) in in_file_order(frontends) {
            if frontend.mode.as_ref().is_none_or(|mode| mode.0 != Mode::Tcp) {
                continue;
            }
            let routed = frontend.routes.iter().filter_map(|route| route.get_ref().0.backend.as_ref());
            for reference in routed.chain(&frontend.default_backend) {
                let backend = backends.iter().find(|(name, _)| name.get_ref() == reference.get_ref());
                let Some((_, Table(backend))) = backend else { continue };
                let cookie = backend.cookie.as_ref().map(Spanned::span);
                let balance = backend.balance.as_ref().filter(|balance| balance.get_ref().needs_a_request());
                let answers = "only in HTTP there is an answer to wait for";
                let requests = "only in HTTP there are requests to send again";
                let kept = "connections are used again in HTTP only";
                let stick = backend.stick.as_ref().filter(|stick| stick.get_ref().0.needs_a_request());
                let observe = backend.health.0.observe.as_ref();
                let observe = observe.filter(|observe| observe.get_ref().0 == Observe::Layer7);
                for (span, message) in [
                    (stick.map(Spanned::span), "sessions are known by what is in a request in HTTP only"),
                    (cookie, "sessions are kept by cookie in HTTP only"),
                    (balance.map(Spanned::span), "servers are chosen by what is in a request in HTTP only"),
                    (observe.map(Spanned::span), "answers are observed in HTTP only"),
                    (super::failure::retried_after_an_answer(backend), answers),
                    (backend.retry_non_idempotent.as_ref().map(Spanned::span), requests),
                    (backend.retry_budget.as_ref().map(Spanned::span), requests),
                    (backend.buffer_request.as_ref().map(Spanned::span), requests),
                    (backend.reuse.as_ref().map(Spanned::span), kept),
                    (backend.connection.as_ref().map(Spanned::span), kept),
                    (backend.errors.as_ref().map(Spanned::span), "only in HTTP there are pages"),
                ] {
                    let Some(span) = span else { continue };
                    let (found, label) = ("has no effect in mode \"tcp\"", "a frontend of mode \"tcp\" leads here");
                    self.conflict(span, message, found, reference.span(), label);
                }
            }
        }
    }
}

/// Headers have no case.
fn capture(written: file::Capture) -> Capture {
    let names = |list: Option<OneOrMany<Text<Token>>>| {
        let names = list.map(OneOrMany::values).unwrap_or_default();
        names.into_iter().map(|name| name.0.0.to_ascii_lowercase()).collect()
    };
    Capture {
        request: names(written.request),
        response: names(written.response),
        length: written.length.map_or(128, |length| length.0 as usize),
    }
}

fn networks(written: Option<OneOrMany<Text<Network>>>) -> Vec<Network> {
    written.map(OneOrMany::values).unwrap_or_default().into_iter().map(|network| network.0).collect()
}

fn forwarded_for(written: file::ForwardedFor) -> Option<ForwardedFor> {
    match written {
        file::ForwardedFor::Whether(whether) => whether.then(ForwardedFor::default),
        file::ForwardedFor::How { except, only_if_absent } => {
            Some(ForwardedFor { except: networks(except), only_if_absent })
        }
    }
}

/// IPv6 sockets are IPv6 only, so the wildcards of the two families do not meet.
pub(super) fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    let is_wildcard = |address: SocketAddr| address.ip().is_unspecified();
    one.port() == other.port()
        && one.is_ipv4() == other.is_ipv4()
        && (one.ip() == other.ip() || is_wildcard(one) || is_wildcard(other))
}
