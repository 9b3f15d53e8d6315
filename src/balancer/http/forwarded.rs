//! Who a request comes from, and how its server is told: X-Forwarded-For and its kin, Forwarded (RFC 7239), a request's id.

use std::cell::Cell;
use std::fmt::Write;
use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, SocketAddr};

use bytes::{BufMut, Bytes, BytesMut};
use hyper::HeaderMap;
use hyper::header::{FORWARDED, HOST, HeaderName, HeaderValue};
use hyper::http::request::Parts;

use crate::balancer::http::client::Client;
use crate::config::model::{ForwardedFor, Forwarding, Network, RequestId};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
/// An id that is longer is not kept.
const LONGEST_ID: usize = 128;

/// The client that a request comes from: whoever connected, or, if that is a proxy of ours, whom it names; if that is one as
/// well, whom that one names. The last that is none counts: what stands before it may be anybody's invention.
pub(super) fn client_address(peer: IpAddr, headers: &HeaderMap, trusted: &[Network]) -> IpAddr {
    let is_trusted = |address: IpAddr| trusted.iter().any(|network| network.contains(address));
    let mut client = peer;
    let lines = headers.get_all(X_FORWARDED_FOR).iter().rev();
    let named = lines.flat_map(|line| line.as_bytes().rsplit(|byte| *byte == b',').map(<[u8]>::trim_ascii));
    // RFC 9110 §5.6.1.2: an empty element is none.
    let named = named.filter(|name| !name.is_empty());
    for name in named {
        if !is_trusted(client) {
            break;
        }
        // One that cannot be understood ends what can be believed.
        let Some(address) = std::str::from_utf8(name).ok().and_then(address) else { break };
        client = address;
    }
    client
}

/// With or without port and brackets, as different proxies write it.
fn address(text: &str) -> Option<IpAddr> {
    let parsed = text.parse::<IpAddr>().or_else(|_| text.parse::<SocketAddr>().map(|address| address.ip()));
    let bare = || text.strip_prefix('[')?.strip_suffix(']')?.parse().ok();
    parsed.ok().or_else(bare).map(|address| address.to_canonical())
}

/// The Host that a client asked for, where a rule has put another in its place.
#[derive(Clone)]
struct AskedHost(Option<HeaderValue>);

/// A rule is about to change the Host.
pub(in crate::balancer) fn host_changes(request: &mut Parts) {
    if request.extensions.get::<AskedHost>().is_none() {
        request.extensions.insert(AskedHost(request.headers.get(HOST).cloned()));
    }
}

/// Tells the server of the client.
pub(super) fn add(client: &Client, forwarding: &Forwarding, request: &mut Parts) {
    let Forwarding { forwarded_for, forwarded, proto, host } = forwarding;
    let Parts { headers, extensions, .. } = request;
    let frontend = client.session.frontend();
    let peer = client.session.client.ip().to_canonical();
    let is_trusted = frontend.trusted_proxies.iter().any(|network| network.contains(peer));
    let asked = extensions.get::<AskedHost>();
    let asked_host = |headers: &HeaderMap| asked.map_or_else(|| headers.get(HOST).cloned(), |asked| asked.0.clone());
    remove_disguised(headers, &[X_FORWARDED_FOR, X_FORWARDED_PROTO, X_FORWARDED_HOST]);
    if let Some(how) = forwarded_for {
        add_forwarded_for(headers, how, client.source.get(), &client.address);
    }
    if *forwarded {
        let element = element(peer, asked_host(headers).as_ref(), client.session.scheme());
        append_to_list(headers, FORWARDED, &element);
    }
    // A proxy of ours knows better; nobody else does.
    if *proto && !(is_trusted && headers.contains_key(X_FORWARDED_PROTO)) {
        headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static(client.session.scheme()));
    }
    if *host && !(is_trusted && headers.contains_key(X_FORWARDED_HOST)) {
        match asked_host(headers) {
            Some(host) => headers.insert(X_FORWARDED_HOST, host),
            None => headers.remove(X_FORWARDED_HOST),
        };
    }
}

/// Removes what a server of the CGI tradition (PHP, WSGI) could take for one of these: to it `X_Name` and `X-Name` are the same.
pub(in crate::balancer) fn remove_disguised<'a>(
    headers: &mut HeaderMap,
    names: impl IntoIterator<Item = &'a HeaderName> + Clone,
) {
    let is_disguised = |name: &HeaderName| {
        let name = name.as_str();
        name.contains('_') && names.clone().into_iter().any(|ours| is_same_to_cgi(name, ours.as_str()))
    };
    while let Some(name) = headers.keys().find(|name| is_disguised(name)).cloned() {
        headers.remove(name);
    }
}

/// Are these two names that differ, and only in what CGI does not tell apart (RFC 3875 §4.1.18)?
fn is_same_to_cgi(one: &str, other: &str) -> bool {
    let folded = |byte: u8| if byte == b'-' { b'_' } else { byte };
    one != other && one.len() == other.len() && one.bytes().map(folded).eq(other.bytes().map(folded))
}

/// Adds whoever connected to the list of those the request came through.
fn add_forwarded_for(headers: &mut HeaderMap, how: &ForwardedFor, client: IpAddr, peer: &HeaderValue) {
    let ForwardedFor { except, only_if_absent } = how;
    if except.iter().any(|network| network.contains(client)) {
        return;
    }
    if *only_if_absent && headers.contains_key(X_FORWARDED_FOR) {
        return;
    }
    append_to_list(headers, X_FORWARDED_FOR, peer);
}

/// RFC 7239 §4. An IPv6 address and a host are quoted; a Host that was accepted has no quote and no backslash in it.
fn element(peer: IpAddr, host: Option<&HeaderValue>, scheme: &str) -> HeaderValue {
    let mut element = match peer {
        IpAddr::V4(address) => format!("for={address}"),
        IpAddr::V6(address) => format!("for=\"[{address}]\""),
    };
    if let Some(host) = host.and_then(|host| host.to_str().ok()) {
        // Writing into memory does not fail.
        let _ = write!(element, ";host=\"{host}\"");
    }
    element.push_str(";proto=");
    element.push_str(scheme);
    HeaderValue::from_maybe_shared(Bytes::from(element)).unwrap_or(HeaderValue::from_static("for=unknown"))
}

/// One line with all that was in the list before, and this.
fn append_to_list(headers: &mut HeaderMap, name: HeaderName, element: &HeaderValue) {
    let before = headers.get(&name).map(|_| {
        let mut list = BytesMut::new();
        for element in headers.get_all(&name).iter().flat_map(elements) {
            list.put_slice(element);
            list.put_slice(b", ");
        }
        list.put_slice(element.as_bytes());
        list.freeze()
    });
    let value = before.and_then(|list| HeaderValue::from_maybe_shared(list).ok());
    headers.insert(name, value.unwrap_or_else(|| element.clone()));
}

/// Those of a line that are not empty (RFC 9110 §5.6.1.2). Where something is quoted, which may hold commas, the line is one.
fn elements(line: &HeaderValue) -> impl Iterator<Item = &[u8]> {
    let is_quoted = line.as_bytes().contains(&b'"');
    let elements = line.as_bytes().split(move |byte| *byte == b',' && !is_quoted).map(<[u8]>::trim_ascii);
    elements.filter(|element| !element.is_empty())
}

/// Gives a request an id, unless it has one that may stay.
pub(super) fn identify(headers: &mut HeaderMap, id: &RequestId) {
    thread_local! {
        static IDS: Ids = Ids::new(RandomState::new().hash_one(0));
    }
    remove_disguised(headers, [&id.header.0]);
    let mut values = headers.get_all(&id.header.0).iter();
    let may_stay = matches!((values.next(), values.next()), (Some(one), None) if is_id(one));
    if !(id.keep && may_stay) {
        headers.insert(&id.header.0, IDS.with(Ids::next));
    }
}

fn is_id(value: &HeaderValue) -> bool {
    (1..=LONGEST_ID).contains(&value.len()) && value.as_bytes().iter().all(u8::is_ascii_graphic)
}

/// The ids of a thread: what it alone has, and a number. No two are the same; they are no secret.
struct Ids {
    own: u64,
    next: Cell<u64>,
}

impl Ids {
    fn new(random: u64) -> Self {
        Self { own: random, next: Cell::new(0) }
    }

    fn next(&self) -> HeaderValue {
        let number = self.next.replace(self.next.get().wrapping_add(1));
        let id = format!("{:016x}{number:016x}", self.own);
        HeaderValue::from_maybe_shared(Bytes::from(id)).unwrap_or(HeaderValue::from_static("0"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::model::FieldName;

    fn headers(name: &HeaderName, values: &[&str]) -> HeaderMap {
        values.iter().map(|value| (name.clone(), HeaderValue::from_str(value).unwrap())).collect()
    }

    #[test]
    fn the_peer_comes_last_in_the_list() {
        let (peer, client) = (HeaderValue::from_static("192.0.2.9"), "192.0.2.9".parse().unwrap());
        let mut headers = HeaderMap::new();
        add_forwarded_for(&mut headers, &ForwardedFor::default(), client, &peer);
        assert_eq!(headers[X_FORWARDED_FOR], "192.0.2.9");
        headers.append(X_FORWARDED_FOR, HeaderValue::from_static("198.51.100.1"));
        add_forwarded_for(&mut headers, &ForwardedFor::default(), client, &peer);
        assert_eq!(headers[X_FORWARDED_FOR], "192.0.2.9, 198.51.100.1, 192.0.2.9");
        assert_eq!(headers.get_all(X_FORWARDED_FOR).iter().count(), 1);

        let only_if_absent = ForwardedFor { only_if_absent: true, ..ForwardedFor::default() };
        add_forwarded_for(&mut headers, &only_if_absent, client, &peer);
        assert_eq!(headers[X_FORWARDED_FOR], "192.0.2.9, 198.51.100.1, 192.0.2.9");
        headers.clear();
        let except = vec![Network::parse("192.0.2.0/24").unwrap()];
        add_forwarded_for(&mut headers, &ForwardedFor { except, only_if_absent: false }, client, &peer);
        assert!(headers.is_empty());
    }

    #[test]
    fn only_what_proxies_of_ours_say_of_the_client_is_believed() {
        let trusted = ["10.0.0.0/8", "2001:db8::/32"].map(|network| Network::parse(network).unwrap());
        let rows: [(&str, &[&str], &str); 13] = [
            ("192.0.2.1", &[], "192.0.2.1"),
            ("192.0.2.1", &["198.51.100.7"], "192.0.2.1"),
            ("10.0.0.1", &["198.51.100.7"], "198.51.100.7"),
            ("10.0.0.1", &["203.0.113.9, 198.51.100.7"], "198.51.100.7"),
            ("10.0.0.1", &["203.0.113.9, 198.51.100.7, 10.0.0.2"], "198.51.100.7"),
            ("10.0.0.1", &["203.0.113.9", "198.51.100.7,10.0.0.2", "10.0.0.3"], "198.51.100.7"),
            ("10.0.0.1", &["10.0.0.2"], "10.0.0.2"),
            ("10.0.0.1", &["198.51.100.7:4711"], "198.51.100.7"),
            ("2001:db8::1", &["[2001:db9::7]:80, [2001:db8::2]"], "2001:db9::7"),
            ("10.0.0.1", &["198.51.100.7, unknown, 10.0.0.2"], "10.0.0.2"),
            ("10.0.0.1", &["", ",,"], "10.0.0.1"),
            ("10.0.0.1", &["198.51.100.7, "], "198.51.100.7"),
            ("10.0.0.1", &["203.0.113.9", ",198.51.100.7,,\t10.0.0.2,", ""], "198.51.100.7"),
        ];
        for (peer, lines, expected) in rows {
            let headers = headers(&X_FORWARDED_FOR, lines);
            let client = client_address(peer.parse().unwrap(), &headers, &trusted);
            assert_eq!(client.to_string(), expected, "{peer} {lines:?}");
        }
    }

    #[test]
    fn forwarded_is_written_as_the_rfc_has_it() {
        let host = HeaderValue::from_static("a.example:80");
        let element = |peer: &str, host| element(peer.parse().unwrap(), host, "http");
        assert_eq!(element("192.0.2.1", Some(&host)), "for=192.0.2.1;host=\"a.example:80\";proto=http");
        assert_eq!(element("2001:db8::1", None), "for=\"[2001:db8::1]\";proto=http");
    }

    #[test]
    fn what_some_servers_take_for_ours_goes() {
        let lines = [
            "x_forwarded_for",
            "x-forwarded_for",
            "x_forwarded_for",
            "x-forwarded-for",
            "x_forwarded_fox",
            "x_for",
            "y_z",
        ];
        let mut headers: HeaderMap =
            lines.iter().map(|name| (HeaderName::from_static(name), HeaderValue::from_static("a"))).collect();
        remove_disguised(
            &mut headers,
            &[X_FORWARDED_FOR, HeaderName::from_static("y-z"), HeaderName::from_static("x_for")],
        );
        let mut left: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["x-forwarded-for", "x_for", "x_forwarded_fox"]);
    }

    #[test]
    fn an_id_is_made_unless_a_fit_one_may_stay() {
        let name = HeaderName::from_static("x-request-id");
        let after = |values: &[&str], keep| {
            let mut headers = headers(&name, values);
            identify(&mut headers, &RequestId { header: FieldName(name.clone()), keep });
            assert_eq!(headers.get_all(&name).iter().count(), 1);
            headers[&name].to_str().unwrap().to_owned()
        };
        let is_ours = |id: &str| id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
        assert_eq!(after(&["theirs-1"], true), "theirs-1");
        for (values, keep) in [
            (&[][..], true),
            (&["theirs"], false),
            (&["a", "b"], true),
            (&[""], true),
            (&["a b"], true),
            (&["x".repeat(129).as_str()], true),
        ] {
            assert!(is_ours(&after(values, keep)), "{values:?}");
        }
        assert_ne!(after(&[], true), after(&[], true));
    }
}
