//! Which backend a request goes to: the frontend's routes in order, then its default.

use crate::config::model::{BackendIndex, Frontend, Route};

/// The first route whose every list has a match, else the default backend; `None` is answered with 404.
///
/// `host` is what the request named, with or without port, in any case; `path` has no query and is compared byte by byte,
/// its percent-encoding left alone.
pub fn route(frontend: &Frontend, host: Option<&str>, path: &str) -> Option<BackendIndex> {
    let host = host.map(host_name).unwrap_or_default();
    let matching = frontend.routes.iter().find(|route| matches(route, host, path));
    matching.map(|route| route.backend).or(frontend.default_backend)
}

fn matches(route: &Route, host: &str, path: &str) -> bool {
    let one_of = |list: &[String], holds: &dyn Fn(&str) -> bool| list.is_empty() || list.iter().any(|item| holds(item));

    one_of(&route.host, &|name| host_name(name).eq_ignore_ascii_case(host))
        && one_of(&route.path_prefix, &|prefix| path.starts_with(prefix))
        && one_of(&route.path_suffix, &|suffix| path.ends_with(suffix))
        && one_of(&route.path, &|whole| path == whole)
}

/// Without port, without the root's dot; an IPv6 literal with or without its brackets.
fn host_name(host: &str) -> &str {
    if let Some((literal, _port)) = host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        return literal;
    }
    let name = match host.split_once(':') {
        Some((_, more)) if more.contains(':') => return host,
        Some((name, _port)) => name,
        None => host,
    };
    name.strip_suffix('.').unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::model::{Capture, ClientTimeouts, Mode};

    fn list(items: &[&str]) -> Vec<String> {
        items.iter().map(|item| (*item).to_owned()).collect()
    }

    fn to(backend: usize) -> Route {
        let none = Vec::new;
        Route { host: none(), path_prefix: none(), path_suffix: none(), path: none(), backend: BackendIndex(backend) }
    }

    fn frontend(routes: Vec<Route>, default: Option<usize>) -> Frontend {
        let second = Duration::from_secs(1);
        Frontend {
            name: "web".into(),
            binds: Vec::new(),
            mode: Mode::Http,
            routes,
            default_backend: default.map(BackendIndex),
            forwarded_for: false,
            timeouts: ClientTimeouts { client: second, http_request: second, http_keep_alive: second },
            capture: Capture::default(),
            statistics: None,
        }
    }

    #[test]
    fn the_first_route_that_matches_wins() {
        const DEFAULT: usize = 9;
        let web = frontend(
            vec![
                Route { path: list(&["/exact", "/"]), ..to(0) },
                Route { host: list(&["api.example", "v2.example"]), path_prefix: list(&["/v1/", "/v2/"]), ..to(1) },
                Route { host: list(&["api.example"]), ..to(2) },
                Route { path_prefix: list(&["/img/"]), path_suffix: list(&[".png", ".gif"]), ..to(3) },
                Route { path_suffix: list(&[".gif"]), ..to(4) },
                Route { host: list(&["2001:db8::1"]), ..to(5) },
            ],
            Some(DEFAULT),
        );
        let rows = [
            // Whole paths: neither longer, nor shorter, nor in another case, nor decoded.
            (Some("www.example"), "/exact", 0),
            (Some("www.example"), "/", 0),
            (Some("www.example"), "/exact/", DEFAULT),
            (Some("www.example"), "/EXACT", DEFAULT),
            (Some("www.example"), "/%65xact", DEFAULT),
            // Keys are AND, lists are OR, the first wins.
            (Some("api.example"), "/v1/users", 1),
            (Some("v2.example"), "/v2/", 1),
            (Some("v2.example"), "/v3/", DEFAULT),
            (Some("api.example"), "/v3/", 2),
            (Some("api.example"), "/exact", 0),
            // The host: any case, with or without port and final dot, and all of it.
            (Some("API.Example:8080"), "/v3/", 2),
            (Some("api.example.:80"), "/v3/", 2),
            (Some("api.example:"), "/v3/", 2),
            (Some("xapi.example"), "/v3/", DEFAULT),
            (Some("api.example.org"), "/v3/", DEFAULT),
            (Some("[2001:DB8::1]:80"), "/v3/", 5),
            (Some("[2001:db8::1]"), "/v3/", 5),
            (Some("2001:db8::1"), "/v3/", 5),
            (Some(""), "/v3/", DEFAULT),
            (Some(":80"), "/v3/", DEFAULT),
            (None, "/v3/", DEFAULT),
            // Beginnings and ends.
            (None, "/img/a.png", 3),
            (None, "/img/a.gif", 3),
            (None, "/a.gif", 4),
            (None, "/a.png", DEFAULT),
            (None, "/img/a.png/", DEFAULT),
            (None, "", DEFAULT),
        ];
        for (host, path, expected) in rows {
            assert_eq!(route(&web, host, path), Some(BackendIndex(expected)), "{host:?} {path:?}");
        }
    }

    #[test]
    fn without_match_and_default_there_is_no_backend() {
        assert_eq!(route(&frontend(vec![Route { path: list(&["/a"]), ..to(0) }], None), None, "/b"), None);
        assert_eq!(route(&frontend(vec![], None), Some("www.example"), "/"), None);
    }
}
