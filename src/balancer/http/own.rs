//! The connections to servers that are one client's alone.
//!
//! What a server knows of whoever is at the other end of a connection it holds for true of every request on it. NTLM and
//! Negotiate (RFC 4559 §6) authenticate a connection, not a request: on one of those another client would be taken for the
//! first. Such a connection is *bound*: it stays with its client's, and is closed with it.

use std::collections::VecDeque;

use hyper::HeaderMap;
use hyper::header::{AUTHORIZATION, HeaderName, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, WWW_AUTHENTICATE};

use crate::balancer::clock::Millis;
use crate::balancer::pool::{Keep, Upstream};
use crate::balancer::state::Shared;
use crate::config::model::BackendIndex;

/// As many as HAProxy keeps for one client: more have only those who go from one server to the next.
const MOST: usize = 5;

/// What says that a connection stays authenticated.
pub(super) const PERSISTENT_AUTH: HeaderName = HeaderName::from_static("persistent-auth");

/// The schemes that authenticate a connection.
const SCHEMES: [&[u8]; 5] = [b"ntlm", b"negotiate", b"nego2", b"kerberos", b"credssp"];

/// Those of one client. Most have none, and most clients are at rest: so it is a pointer.
#[derive(Default)]
pub struct Own(Option<Box<Connections>>);

/// The one that was used last at the end.
#[derive(Default)]
struct Connections(VecDeque<Box<Upstream>>);

impl Own {
    /// One that leads to this server and can serve again.
    pub(super) fn take(&mut self, shared: &Shared, to: (BackendIndex, usize), now: Millis) -> Option<Box<Upstream>> {
        let Connections(all) = self.0.as_deref_mut()?;
        let index = all.iter().rposition(|upstream| upstream.place() == to)?;
        all.remove(index)?.waking(shared, now)
    }

    /// One that has done its work; the oldest go if there are too many. Descriptors are counted on one for each client: there are
    /// more only while clients are few.
    pub(super) fn put(&mut self, upstream: Box<Upstream>, shared: &Shared, now: Millis) {
        let Some(upstream) = upstream.resting(now) else { return };
        let are_clients_few = shared.connections.count() * 4 < shared.config.max_connections as u64;
        let most = if are_clients_few { MOST } else { 1 };
        let Connections(all) = self.0.get_or_insert_default().as_mut();
        all.push_back(upstream);
        all.drain(..all.len().saturating_sub(most));
    }

    /// Where the client is known by its connection, if a request to this backend can go there: at another server it would have
    /// to say again who it is, in the middle of saying so.
    pub(super) fn bound_to(&self, shared: &Shared, backend: BackendIndex) -> Option<usize> {
        let Connections(all) = self.0.as_deref()?;
        let known = all.iter().rev().filter(|upstream| upstream.keep == Keep::Bound && upstream.connection.is_quiet());
        let mut servers = known.map(|upstream| upstream.place()).filter(|(to, _)| *to == backend);
        let (_, server) = servers.find(|(_, server)| shared.backends[backend.0].servers[*server].keeps_sessions())?;
        Some(server)
    }

    /// Under another configuration: those whose server is there go on.
    pub(super) fn move_to(&mut self, from: &Shared, to: &Shared) {
        if let Some(Connections(all)) = self.0.as_deref_mut() {
            all.retain_mut(|upstream| upstream.moves(from, to));
        }
    }
}

/// Does a request say who its client is in a way that holds for the connection?
#[cold]
pub(super) fn request_binds(headers: &HeaderMap) -> bool {
    [AUTHORIZATION, PROXY_AUTHORIZATION].iter().any(|name| names_scheme(headers, name))
}

/// Does a response ask for that, go on with it, or say that it holds?
#[cold]
pub(super) fn response_binds(headers: &HeaderMap) -> bool {
    [WWW_AUTHENTICATE, PROXY_AUTHENTICATE].iter().any(|name| names_scheme(headers, name))
        || headers.get_all(PERSISTENT_AUTH).iter().any(|value| value.as_bytes().eq_ignore_ascii_case(b"true"))
}

/// Several challenges may stand in one line (RFC 9110 §11.6.1). What only looks like one, in quotes, costs a client a
/// connection of its own, and no more.
fn names_scheme(headers: &HeaderMap, name: &HeaderName) -> bool {
    let challenges = headers.get_all(name).iter().flat_map(|line| line.as_bytes().split(|byte| *byte == b','));
    challenges
        .filter_map(|challenge| challenge.trim_ascii_start().split(u8::is_ascii_whitespace).next())
        .any(|word| SCHEMES.iter().any(|scheme| word.eq_ignore_ascii_case(scheme)))
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;

    #[test]
    fn schemes_that_authenticate_a_connection() {
        let rows = [
            ("NTLM", true),
            ("NTLM TlRMTVNTUAAB", true),
            ("negotiate", true),
            ("Negotiate oYG1MIGy", true),
            ("Nego2", true),
            ("Basic realm=\"a, b\", NTLM", true),
            ("Basic realm=x,Negotiate", true),
            ("Digest realm=\"NTLM\", nonce=\"x\"", false),
            ("Basic realm=\"Negotiate\"", false),
            ("Bearer ntlm", false),
            ("NTLMv9", false),
            ("", false),
            (",", false),
        ];
        for (value, binds) in rows {
            for name in [WWW_AUTHENTICATE, PROXY_AUTHENTICATE, AUTHORIZATION, PROXY_AUTHORIZATION] {
                let mut headers = HeaderMap::new();
                headers.append(&name, HeaderValue::from_static("Basic realm=\"first\""));
                headers.append(&name, HeaderValue::from_static(value));
                let is_request = [AUTHORIZATION, PROXY_AUTHORIZATION].contains(&name);
                let found = (request_binds(&headers), response_binds(&headers));
                assert_eq!(found, (binds && is_request, binds && !is_request), "{name}: {value}");
            }
        }
        let persistent = |value| HeaderMap::from_iter([(PERSISTENT_AUTH, HeaderValue::from_static(value))]);
        assert!(response_binds(&persistent("true")) && !response_binds(&persistent("false")));
    }
}
