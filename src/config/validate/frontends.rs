//! `[frontends.NAME]`: where clients come in, and where their requests go.

use std::net::SocketAddr;
use std::ops::Range;

use toml::Spanned;

use super::{Checker, in_file_order, into_file_order, plain, timeout};
use crate::config::file::{self, Named, Table};
use crate::config::model::{BackendIndex, Bind, Capture, ClientTimeouts, Frontend, Mode, Route};
use crate::config::nearest::nearest;
use crate::config::value::{BindAddress, FromText, OneOrMany, Text, Token};

/// What is listened on so far, and where that is written.
pub(super) type Bound = Vec<(SocketAddr, Range<usize>)>;

impl Checker<'_> {
    pub(super) fn frontends(
        &mut self,
        written: Named<file::Frontend>,
        defaults: &file::Timeouts,
        bound: &mut Bound,
    ) -> Vec<Frontend> {
        let mut frontends = Vec::new();
        for (name, written) in into_file_order(written) {
            self.name(&name);
            frontends.extend(self.frontend(name, written, defaults, bound));
        }
        frontends
    }

    fn frontend(
        &mut self,
        name: Spanned<String>,
        written: file::Frontend,
        defaults: &file::Timeouts,
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
        if !has_default && (mode == Mode::Tcp || !has_routes) {
            self.missing(&place, "default_backend", "the name of a backend");
        }
        let default_backend = written.default_backend.and_then(|backend| self.backend_index(&backend));
        let routes = written.routes.into_iter().filter_map(|route| self.route(route)).collect();
        let statistics = written.stats.and_then(|stats| self.statistics(stats));
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
            routes,
            default_backend,
            forwarded_for: written.forwarded_for.is_some_and(Spanned::into_inner),
            timeouts,
            capture: written.capture.map(|capture| self::capture(capture.into_inner().0)).unwrap_or_default(),
            statistics,
        })
    }

    fn http_keys_in_tcp(&mut self, written: &file::Frontend) {
        let places = [
            written.forwarded_for.as_ref().map(Spanned::span),
            written.timeouts.0.http_request.as_ref().map(Spanned::span),
            written.timeouts.0.http_keep_alive.as_ref().map(Spanned::span),
            written.routes.first().map(Spanned::span),
            written.stats.as_ref().map(Spanned::span),
            written.capture.as_ref().map(Spanned::span),
        ];
        for place in places.into_iter().flatten() {
            let message = "only a frontend of mode \"http\" can do this";
            let hint = "remove it, or set `mode = \"http\"`";
            self.problem_with_hint(place, message, "this one has mode \"tcp\"", hint);
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
            match bound.iter().find(|(other, _)| overlap(*other, address)) {
                Some((_, first)) => {
                    let first = first.clone();
                    self.conflict(span, "a port is listened on once", "is in use", first, "by this one");
                }
                None => bound.push((address, span)),
            }
            binds.push(Bind { address });
        }
        Some(binds)
    }

    fn route(&mut self, written: Spanned<Table<file::Route>>) -> Option<Route> {
        let place = written.span();
        let Table(file::Route { host, path_prefix, path_suffix, path, backend }) = written.into_inner();
        let keys = ["host", "path_prefix", "path_suffix", "path"];
        let is_written = host.is_some() || path_prefix.is_some() || path_suffix.is_some() || path.is_some();
        if !is_written && !keys.iter().any(|key| self.is_refused(&place, key)) {
            let hint =
                "add `host`, `path`, `path_prefix` or `path_suffix`; what no route matches goes to `default_backend`";
            self.problem_with_hint(place.clone(), "a route has at least one condition", "this one has none", hint);
        }
        let backend = self.required(backend, &place, "backend", "the name of a backend");
        Some(Route {
            host: self.conditions(host, |host| host.0),
            path_prefix: self.conditions(path_prefix, |path| path.0),
            path_suffix: self.conditions(path_suffix, |suffix| suffix.0),
            path: self.conditions(path, |path| path.0),
            backend: self.backend_index(&backend?)?,
        })
    }

    /// An empty list would match nothing.
    fn conditions<T>(&mut self, list: Option<Spanned<OneOrMany<Text<T>>>>, text: fn(T) -> String) -> Vec<String> {
        let Some(list) = list else { return Vec::new() };
        let span = list.span();
        let values = list.into_inner().values();
        if values.is_empty() && !self.is_refused_at(&span) {
            self.problem(span, "expected at least one value", "an empty list matches nothing");
        }
        values.into_iter().map(|value| text(value.0)).collect()
    }

    fn backend_index(&mut self, reference: &Spanned<String>) -> Option<BackendIndex> {
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
            let is_tcp = frontend.mode.as_ref().is_some_and(|mode| mode.0 == Mode::Tcp);
            let Some(reference) = frontend.default_backend.as_ref().filter(|_| is_tcp) else { continue };
            let Some((_, Table(backend))) = backends.iter().find(|(name, _)| name.get_ref() == reference.get_ref())
            else {
                continue;
            };
            if let Some(cookie) = &backend.cookie {
                self.conflict(
                    cookie.span(),
                    "sessions are kept by cookie in HTTP only",
                    "has no effect in mode \"tcp\"",
                    reference.span(),
                    "a frontend of mode \"tcp\" leads here",
                );
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

/// IPv6 sockets are IPv6 only, so the wildcards of the two families do not meet.
fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    let is_wildcard = |address: SocketAddr| address.ip().is_unspecified();
    one.port() == other.port()
        && one.is_ipv4() == other.is_ipv4()
        && (one.ip() == other.ip() || is_wildcard(one) || is_wildcard(other))
}
