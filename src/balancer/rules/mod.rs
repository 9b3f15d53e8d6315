//! What a frontend's rules make of a request before it is routed, in their order, and later of its response.

mod normal_path;
pub mod rate_limit;
mod rewrite;
mod template;

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use hyper::header::{CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue, LOCATION};
use hyper::http::request::Parts;
use hyper::{Response, StatusCode};

use crate::balancer::clock;
use crate::balancer::http::body::{ClientBody, ResponseBody};
use crate::balancer::http::client::Client;
use crate::balancer::http::forwarded::{host_changes, remove_disguised};
use crate::balancer::http::opening::Opening;
use crate::balancer::http::page::Refusal;
use crate::config::model::{Action, Condition, FieldName, HeaderEdits, LimitKey, RateLimit, Rule};
use rate_limit::RateLimiter;
use template::{Facts, Resolved};

/// What is to be done to the response of a request.
#[derive(Default)]
pub struct ResponseEdits(Vec<Pending>);

/// A rule for the response, with what the request contributes to it.
struct Pending {
    /// Its place among the frontend's rules.
    rule: usize,
    set: Vec<Resolved>,
    add: Vec<Resolved>,
}

/// The limits of a frontend's rules, by their places.
pub fn rate_limits(rules: &[Rule]) -> Box<[Option<Arc<RateLimiter>>]> {
    let limiter = |rule: &Rule| match &rule.action {
        Action::RateLimit(limit) => Some(Arc::new(RateLimiter::new(limit, clock::now()))),
        _ => None,
    };
    rules.iter().map(limiter).collect()
}

/// Applies the rules of the client's frontend; gives the answer, if a rule has one.
///
/// # Errors
/// When a rule refuses the request.
pub async fn apply(
    client: &Client,
    head: &mut Parts,
    body: &mut ClientBody,
    opening: &mut Opening,
    edits: &mut ResponseEdits,
) -> Result<Option<Response<ResponseBody>>, Refusal> {
    let session = &client.session;
    for (index, rule) in session.frontend().rules.iter().enumerate() {
        let source = client.source.get();
        let facts = Facts { session, source, head };
        if !is_for(&rule.when, &facts) {
            continue;
        }
        match &rule.action {
            Action::Deny(status) => return Err(denied(*status)),
            Action::Redirect { to, status } => {
                // Where nothing was to be replaced, it goes on.
                if let Some(location) = rewrite::location(to, &facts)? {
                    return Ok(Some(redirect(*status, location)));
                }
            }
            Action::Rewrite(rewrite) => {
                if let Some(uri) = rewrite::target(rewrite, &facts)? {
                    head.uri = uri;
                }
            }
            Action::RequestHeaders(HeaderEdits { remove, set, add }) => {
                let replaced = remove.iter().chain(set.iter().map(|(name, _)| name));
                remove_disguised(&mut head.headers, replaced.map(|name| &name.0));
                remove_all(&mut head.headers, remove);
                for (name, template) in set {
                    if name.0 == HOST {
                        host_changes(head);
                    }
                    let value = Facts { session, source, head }.value(template);
                    put(&mut head.headers, &name.0, value, true);
                }
                for (name, template) in add {
                    let value = Facts { session, source, head }.value(template);
                    put(&mut head.headers, &name.0, value, false);
                }
            }
            Action::ResponseHeaders { edits: HeaderEdits { set, add, .. }, .. } => {
                let resolve = |list: &[(_, _)]| list.iter().map(|(_, template)| facts.resolve(template)).collect();
                edits.0.push(Pending { rule: index, set: resolve(set), add: resolve(add) });
            }
            Action::Respond { status, content_type, body } => {
                let content_type = facts.value(content_type);
                return Ok(Some(fixed(*status, content_type, body)));
            }
            Action::RateLimit(limit) => {
                let limits = session.worker.shared.frontends.get(session.frontend);
                let limiter = limits.and_then(|frontend| frontend.rate_limits.get(index)).and_then(Option::as_ref);
                limiter.map_or(Ok(()), |limiter| admit(limiter, limit, source, &head.headers))?;
            }
            Action::DenyBody { pattern, first, status } => {
                let text = Box::pin(opening.read(body, client, *first)).await?;
                if pattern.is_match(text) {
                    return Err(denied(*status));
                }
            }
        }
    }
    Ok(None)
}

impl ResponseEdits {
    /// Changes a response as the rules said that were passed on the request's way, whoever gives it.
    pub fn apply(self, client: &Client, response: &mut Response<ResponseBody>) {
        if self.0.is_empty() {
            return;
        }
        let session = &client.session;
        let record = client.record.borrow();
        let backend = record.backend.map(|backend| session.backend(backend));
        let server = record.server.and_then(|server| backend?.servers.get(server));
        let (backend, server) = (backend.map_or("", |backend| &backend.name), server.map_or("", |server| &server.name));
        let code = response.status().as_u16();
        let headers = response.headers_mut();
        for pending in self.0 {
            let rule = session.frontend().rules.get(pending.rule);
            let Some(Action::ResponseHeaders { status, edits }) = rule.map(|rule| &rule.action) else { continue };
            if !status.is_empty() && !status.iter().any(|(first, last)| (first..=last).contains(&&code)) {
                continue;
            }
            remove_all(headers, &edits.remove);
            for ((name, _), value) in edits.set.iter().zip(pending.set) {
                put(headers, &name.0, value.finish(backend, server), true);
            }
            for ((name, _), value) in edits.add.iter().zip(pending.add) {
                put(headers, &name.0, value.finish(backend, server), false);
            }
        }
    }
}

fn is_for(condition: &Condition, facts: &Facts<'_>) -> bool {
    facts.subject().fulfils(condition)
}

fn admit(limiter: &RateLimiter, limit: &RateLimit, source: IpAddr, headers: &HeaderMap) -> Result<(), Refusal> {
    let now = clock::now();
    let admitted = match &limit.by {
        LimitKey::Header(name) => limiter.admit(headers.get(&name.0).map(HeaderValue::as_bytes), now),
        LimitKey::Source => limiter.admit(network_of_client(source), now),
    };
    // Whole seconds, so that who waits as long as told is admitted.
    admitted.map_err(|wait| Refusal::TooMany { retry_after: wait.as_secs() + u64::from(wait.subsec_nanos() > 0) })
}

/// An IPv6 client has at least a whole /64 of addresses to choose from.
fn network_of_client(source: IpAddr) -> u128 {
    match source {
        IpAddr::V4(address) => u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits() >> 64 << 64,
    }
}

fn denied(status: u16) -> Refusal {
    Refusal::Denied(StatusCode::from_u16(status).unwrap_or(StatusCode::FORBIDDEN))
}

fn redirect(status: u16, location: HeaderValue) -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::Empty);
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::FOUND);
    response.headers_mut().insert(LOCATION, location);
    response
}

fn fixed(status: u16, content_type: Option<HeaderValue>, body: &str) -> Response<ResponseBody> {
    let body = match body {
        "" => ResponseBody::Empty,
        body => ResponseBody::Page(Some(Bytes::copy_from_slice(body.as_bytes()))),
    };
    let has_body = !matches!(body, ResponseBody::Empty);
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or_default();
    if let Some(content_type) = content_type.filter(|_| has_body) {
        response.headers_mut().insert(CONTENT_TYPE, content_type);
    }
    response
}

fn remove_all(headers: &mut HeaderMap, names: &[FieldName]) {
    for name in names {
        headers.remove(&name.0);
    }
}

/// Nothing is added where there is no room left, or nothing to say; what was to be replaced goes all the same, but for the
/// Host, which every request has.
fn put(headers: &mut HeaderMap, name: &HeaderName, value: Option<HeaderValue>, replaces: bool) {
    match (value, replaces) {
        (Some(value), true) => drop(headers.try_insert(name, value)),
        (Some(value), false) => drop(headers.try_append(name, value)),
        (None, true) if *name != HOST => drop(headers.remove(name)),
        (None, _) => {}
    }
}
