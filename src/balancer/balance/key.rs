//! The key of a request, by which hashing chooses its server.

use std::net::IpAddr;

use hyper::{HeaderMap, Uri};

use crate::config::model::{Balance, HashKey};

/// The key of a request as the frontend's rules leave it; `None` where the algorithm needs none, or the request does not have
/// what it is made of. `client` is whom it comes from, where that is a proxy of ours: whom that one names.
pub fn of_request(balance: &Balance, client: IpAddr, uri: &Uri, headers: &HeaderMap) -> Option<u64> {
    let Balance::Hash { key, .. } = balance else { return None };
    match key {
        HashKey::Source => Some(of_address(client)),
        HashKey::Uri { whole, length, depth } => {
            let path = uri.path_and_query().map_or("/", |both| if *whole { both.as_str() } else { both.path() });
            Some(of_bytes(beginning(path.as_bytes(), *length, *depth)))
        }
        HashKey::Header(name) => headers.get(name).map(|value| of_bytes(value.as_bytes())),
        HashKey::Parameter(name) => parameter(uri.query()?, name).map(|value| of_bytes(value.as_bytes())),
    }
}

/// The key of a TCP connection: there is its client's address, and nothing else.
pub fn of_client(balance: &Balance, client: IpAddr) -> Option<u64> {
    matches!(balance, Balance::Hash { key: HashKey::Source, .. }).then(|| of_address(client))
}

fn of_address(address: IpAddr) -> u64 {
    match address.to_canonical() {
        IpAddr::V4(address) => of_bytes(&address.octets()),
        IpAddr::V6(address) => of_bytes(&address.octets()),
    }
}

/// At most `length` bytes, and at most so many directories: it ends before the slash behind them.
fn beginning(path: &[u8], length: Option<u32>, depth: Option<u32>) -> &[u8] {
    let path = length.and_then(|length| path.get(..length as usize)).unwrap_or(path);
    let slashes = || path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(place, _)| place);
    let end = depth.and_then(|depth| slashes().nth(depth as usize));
    end.and_then(|end| path.get(..end)).unwrap_or(path)
}

/// The first value of this name, as it is written.
fn parameter<'query>(query: &'query str, name: &str) -> Option<&'query str> {
    query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
}

/// The same in every version and on every machine: both nodes of a pair send a key to the same server. FNV-1a, mixed so that
/// every bit of it depends on every byte.
pub(super) fn of_bytes(bytes: &[u8]) -> u64 {
    let fnv = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    mix(bytes.iter().fold(0xcbf2_9ce4_8422_2325, fnv))
}

/// SplitMix64's finish: numbers that are close to each other become unlike each other.
pub(super) fn mix(number: u64) -> u64 {
    let number = (number ^ number >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ number >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ number >> 31
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::model::HashMethod;

    fn balance(key: HashKey) -> Balance {
        Balance::Hash { key, method: HashMethod::Consistent }
    }

    fn of(key: HashKey, client: &str, uri: &str, headers: &[(&'static str, &str)]) -> Option<u64> {
        let headers =
            headers.iter().map(|(name, value)| ((*name).try_into().unwrap(), value.parse().unwrap())).collect();
        of_request(&balance(key), client.parse().unwrap(), &uri.parse().unwrap(), &headers)
    }

    fn path_key(whole: bool, length: Option<u32>, depth: Option<u32>) -> HashKey {
        HashKey::Uri { whole, length, depth }
    }

    #[test]
    fn keys_are_equal_where_what_they_are_made_of_is() {
        let path = || path_key(false, None, None);
        let whole = || path_key(true, None, None);
        let length = || path_key(false, Some(4), None);
        let depth = |depth| path_key(false, None, Some(depth));
        /// What the key is made of, two targets, and whether they have the same key.
        type Row<'a> = (HashKey, &'a str, &'a str, bool);
        let rows: Vec<Row<'_>> = vec![
            (path(), "/a?x", "/a?y", true),
            (path(), "/a", "/b", false),
            (path(), "http://site.example/a", "/a", true),
            (path(), "http://site.example", "/", true),
            (whole(), "/a?x", "/a?y", false),
            (whole(), "/a?x", "/a?x", true),
            (length(), "/img1", "/img2", true),
            (length(), "/imb", "/img", false),
            (length(), "/", "/", true),
            (depth(1), "/a/b", "/a/c", true),
            (depth(1), "/a/b", "/a", true),
            (depth(1), "/a/b", "/b/b", false),
            (depth(2), "/a/b/c", "/a/b/d", true),
            (depth(2), "/a/b/c", "/a/c/c", false),
            (depth(9), "/a/b", "/a/b", true),
            (path_key(false, Some(3), Some(1)), "/ab/c", "/ac/d", false),
            (path_key(false, Some(3), Some(1)), "/a/bc", "/a/cd", true),
            (HashKey::Parameter("user".into()), "/?user=1&x=2", "/p?x=3&user=1", true),
            (HashKey::Parameter("user".into()), "/?user=1", "/?user=2", false),
            (HashKey::Source, "/a", "/b", true),
        ];
        for (key, one, other, is_same) in rows {
            let keys = [one, other].map(|uri| of(key.clone(), "192.0.2.1", uri, &[]).unwrap());
            assert_eq!(keys[0] == keys[1], is_same, "{key:?} {one} {other}");
        }
    }

    #[test]
    fn a_request_that_lacks_it_has_no_key() {
        let parameter = || HashKey::Parameter("user".into());
        for uri in ["/", "/?", "/?users=1", "/?xuser=1", "/?x=user=1", "/?user"] {
            assert_eq!(of(parameter(), "192.0.2.1", uri, &[]), None, "{uri}");
        }
        let header = || HashKey::Header("x-user".into());
        assert_eq!(of(header(), "192.0.2.1", "/", &[("x-users", "1")]), None);
        let twice = of(header(), "192.0.2.1", "/", &[("x-user", "1"), ("x-user", "2")]);
        assert!(twice.is_some() && twice == of(header(), "192.0.2.2", "/x", &[("x-user", "1")]));
        assert_eq!(of_request(&Balance::RoundRobin, [192, 0, 2, 1].into(), &Uri::default(), &HeaderMap::new()), None);
    }

    #[test]
    fn an_address_is_the_same_however_it_comes() {
        let source = || balance(HashKey::Source);
        let v4 = of_client(&source(), "192.0.2.1".parse().unwrap());
        assert_eq!(v4, of_client(&source(), "::ffff:192.0.2.1".parse().unwrap()));
        assert_eq!(v4, of(HashKey::Source, "192.0.2.1", "/", &[]));
        assert_ne!(v4, of_client(&source(), "192.0.2.2".parse().unwrap()));
        assert_eq!(of_client(&balance(path_key(false, None, None)), "192.0.2.1".parse().unwrap()), None);
    }

    /// Both nodes, and the next version, have to find the same server.
    #[test]
    fn a_key_is_what_it_always_was() {
        assert_eq!(of_bytes(b""), 0xf52a_15e9_a9b5_e89b);
        assert_eq!(of_bytes(b"/index.php"), 0x7ca6_a71f_ed99_3b1a);
    }
}
