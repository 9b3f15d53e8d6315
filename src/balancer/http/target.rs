//! Is it clear what a request is for (RFC 9110 §7.2, RFC 9112 §3.2)?

use std::net::SocketAddr;

use hyper::header::{HOST, HeaderValue};
use hyper::http::request::Parts;
use hyper::http::uri::PathAndQuery;
use hyper::{Method, Uri, Version};

use crate::balancer::http::page::Refusal;

/// Looks at the target and the host; brings the target into origin form.
///
/// # Errors
/// When the host is missing, repeated, malformed, or not the one of an absolute target, or the target has a form that is for
/// other methods (RFC 9112 §3.2).
pub(super) fn check(request: &mut Parts) -> Result<(), Refusal> {
    if request.method == Method::CONNECT {
        return Err(Refusal::Connect);
    }
    let mut hosts = request.headers.get_all(HOST).iter();
    let host = hosts.next();
    if hosts.next().is_some() || !host.is_none_or(|host| host.as_bytes().iter().all(|byte| may_be_in_host(*byte))) {
        return Err(Refusal::BadHost);
    }
    if host.is_none() && request.version != Version::HTTP_10 {
        return Err(Refusal::BadHost);
    }
    let Some(authority) = request.uri.authority() else {
        let is_clear = request.uri.path() != "*" || request.method == Method::OPTIONS;
        return if is_clear { Ok(()) } else { Err(Refusal::BadTarget) };
    };
    if request.uri.scheme().is_none() {
        return Err(Refusal::BadTarget); // a host alone is what CONNECT asks for
    }
    match host {
        Some(host) if !is_same(host.as_bytes(), authority.as_str().as_bytes(), request.uri.scheme_str()) => {
            return Err(Refusal::BadHost);
        }
        Some(_) => {}
        None => {
            let authority = authority.as_str();
            if !authority.bytes().all(may_be_in_host) {
                return Err(Refusal::BadHost);
            }
            request.headers.insert(HOST, HeaderValue::from_str(authority).map_err(|_| Refusal::BadHost)?);
        }
    }
    // An absolute target may do without a path, and have a query all the same.
    let path = match request.uri.path_and_query() {
        Some(path) if path.as_str().starts_with('/') => path.clone(),
        Some(query) => PathAndQuery::try_from(format!("/{}", query.as_str())).map_err(|_| Refusal::BadHost)?,
        None => PathAndQuery::from_static("/"),
    };
    request.uri = Uri::from(path);
    Ok(())
}

/// Do both name one origin? The port of the scheme may be left out, or its digits (RFC 9110 §4.2.3).
fn is_same(host: &[u8], authority: &[u8], scheme: Option<&str>) -> bool {
    if host.eq_ignore_ascii_case(authority) {
        return true;
    }
    let default: &[u8] = if scheme.is_some_and(|scheme| scheme.eq_ignore_ascii_case("https")) { b"443" } else { b"80" };
    let without_default = |host| match split_port(host) {
        (name, Some(port)) if port.is_empty() || port == default => (name, None),
        parts => parts,
    };
    let ((host, host_port), (authority, port)) = (without_default(host), without_default(authority));
    host.eq_ignore_ascii_case(authority) && host_port == port
}

/// A colon in the brackets of an IPv6 address is none before a port.
fn split_port(host: &[u8]) -> (&[u8], Option<&[u8]>) {
    match host.iter().rposition(|byte| matches!(byte, b':' | b']')) {
        Some(at) if host[at] == b':' => (&host[..at], Some(&host[at + 1..])),
        _ => (host, None),
    }
}

/// The Host of a request that may do without (RFC 9112 §3.3): where its client connected to.
pub(super) fn host_of(destination: SocketAddr) -> Option<HeaderValue> {
    let host = match destination {
        SocketAddr::V4(address) if address.port() == 80 => address.ip().to_string(),
        SocketAddr::V6(address) if address.port() == 80 => format!("[{}]", address.ip()),
        address => address.to_string(),
    };
    HeaderValue::from_str(&host).ok()
}

fn may_be_in_host(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~:[]%!$&'()*+;=".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balancer::http::headers::tests::{Headers, request};

    #[test]
    fn the_host_must_be_clear() {
        let bad: [(&str, Headers); 9] = [
            ("/", &[]),
            ("/", &[("host", "a"), ("host", "a")]),
            ("/", &[("host", "a, b")]),
            ("/", &[("host", "user@a")]),
            ("http://a/", &[("host", "b")]),
            ("http://a:8080/", &[("host", "a")]),
            ("http://a:443/", &[("host", "a")]),
            ("https://a:80/", &[("host", "a")]),
            ("http://[2001:db8::1]/", &[("host", "[2001:db8:]:1")]),
        ];
        for (target, headers) in bad {
            assert_eq!(check(&mut request(target, headers)), Err(Refusal::BadHost), "{target} {headers:?}");
        }
        let good: [(&str, Headers, &str); 11] = [
            ("/x?y", &[("host", "a.example:8080")], "/x?y"),
            ("/", &[("host", "[2001:db8::1]:80")], "/"),
            ("http://A/x?y", &[("host", "a")], "/x?y"),
            ("http://a", &[("host", "a")], "/"),
            ("http://a?x", &[("host", "a")], "/?x"),
            ("http://a:80/", &[("host", "A")], "/"),
            ("http://a/", &[("host", "a:80")], "/"),
            ("https://a:443/", &[("host", "a")], "/"),
            ("http://a:/", &[("host", "a")], "/"),
            ("http://a/", &[("host", "a:")], "/"),
            ("http://[2001:db8::1]/", &[("host", "[2001:DB8::1]:80")], "/"),
        ];
        for (target, headers, origin) in good {
            let mut request = request(target, headers);
            assert_eq!(check(&mut request), Ok(()), "{target} {headers:?}");
            assert_eq!(request.uri.to_string(), origin);
        }
    }

    #[test]
    fn the_target_has_the_form_of_its_method() {
        let outcome = |method: &str, target: &str| {
            let mut request = request(target, &[("host", "a")]);
            request.method = method.parse().unwrap();
            check(&mut request)
        };
        assert_eq!(outcome("OPTIONS", "*"), Ok(()));
        for (method, target) in [("GET", "*"), ("GET", "a"), ("GET", "a:80"), ("OPTIONS", "a")] {
            assert_eq!(outcome(method, target), Err(Refusal::BadTarget), "{method} {target}");
        }
    }

    #[test]
    fn http_1_0_needs_no_host() {
        let mut request = request("/", &[]);
        request.version = Version::HTTP_10;
        assert_eq!(check(&mut request), Ok(()));
        for (destination, host) in [
            ("192.0.2.20:80", "192.0.2.20"),
            ("192.0.2.20:8080", "192.0.2.20:8080"),
            ("[2001:db8::20]:80", "[2001:db8::20]"),
            ("[2001:db8::20]:8080", "[2001:db8::20]:8080"),
        ] {
            assert_eq!(host_of(destination.parse().unwrap()).unwrap(), host);
        }
    }

    #[test]
    fn connect_is_refused() {
        let mut request = request("a:443", &[("host", "a:443")]);
        request.method = Method::CONNECT;
        assert_eq!(check(&mut request), Err(Refusal::Connect));
    }
}
