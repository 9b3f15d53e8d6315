//! Which backend a request, or in TCP mode a connection, goes to: the frontend's routes in order, then its default.

pub mod condition;

use crate::balancer::routing::condition::Subject;
use crate::config::model::{BackendIndex, Frontend};

/// The first route whose condition holds, else the default backend; `None` is answered with 404 (TCP: closed).
pub fn route(frontend: &Frontend, subject: &Subject<'_>) -> Option<BackendIndex> {
    let matching = frontend.routes.iter().find(|route| subject.fulfils(&route.when));
    matching.map(|route| route.backend).or(frontend.default_backend)
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use hyper::Request;

    use super::*;
    use crate::config::model::Config;

    fn configuration(routes: &str) -> Config {
        let backends: String =
            (0..10).map(|number| format!("[[backends.b{number}.servers]]\nname = 's'\naddress = 'a:1'\n")).collect();
        crate::config::parse(&format!("[frontends.f]\nbind = '*:80'\n{routes}\n{backends}"), "test")
            .unwrap_or_else(|errors| panic!("{errors}"))
    }

    /// The number of the backend; the head is written as on the wire.
    fn routed(config: &Config, head: &str) -> Option<usize> {
        let mut lines = head.lines();
        let (method, target) = lines.next().and_then(|line| line.split_once(' ')).unwrap();
        let mut builder = Request::builder().method(method).uri(target);
        for (name, value) in lines.filter_map(|line| line.split_once(": ")) {
            builder = builder.header(name, value);
        }
        let request = builder.body(()).unwrap().into_parts().0;
        let source = Ipv4Addr::new(192, 0, 2, 7).into();
        route(&config.balancer.frontends[0], &Subject { source, destination_port: 80, request: Some(&request) })
            .map(|backend| backend.0)
    }

    #[test]
    fn the_first_route_that_matches_wins() {
        let config = configuration(
            "default_backend = 'b9'\nroutes = [\
             { path = ['/exact', '/'], backend = 'b0' },\
             { host = ['api.example', 'v2.example'], path_prefix = ['/v1/', '/v2/'], backend = 'b1' },\
             { host = 'api.example', backend = 'b2' },\
             { path_prefix = '/img/', path_suffix = ['.png', '.gif'], backend = 'b3' },\
             { path_suffix = '.gif', backend = 'b4' },\
             { host = ['2001:db8::1', '[2001:DB8:0::2]', 'final.example.'], backend = 'b5' }]",
        );
        let rows = [
            // Whole paths: neither longer, nor shorter, nor in another case, nor decoded.
            ("www.example", "/exact", 0),
            ("www.example", "/", 0),
            ("www.example", "/exact/", 9),
            ("www.example", "/EXACT", 9),
            ("www.example", "/%65xact", 9),
            // Keys are AND, lists are OR, the first wins.
            ("api.example", "/v1/users", 1),
            ("v2.example", "/v2/", 1),
            ("v2.example", "/v3/", 9),
            ("api.example", "/v3/", 2),
            ("api.example", "/exact", 0),
            // The host: any case, with or without port and final dot, and all of it.
            ("API.Example:8080", "/v3/", 2),
            ("api.example.:80", "/v3/", 2),
            ("api.example:", "/v3/", 2),
            ("xapi.example", "/v3/", 9),
            ("api.example.org", "/v3/", 9),
            ("[2001:DB8::1]:80", "/v3/", 5),
            ("[2001:db8::1]", "/v3/", 5),
            ("2001:db8::1", "/v3/", 5),
            ("[2001:db8::2]:80", "/v3/", 5),
            ("final.example", "/v3/", 5),
            ("final.example.", "/v3/", 5),
            (":80", "/v3/", 9),
            // Beginnings and ends.
            ("", "/img/a.png", 3),
            ("", "/img/a.gif?x=.png", 3),
            ("", "/a.gif", 4),
            ("", "/a.png", 9),
            ("", "/img/a.png/", 9),
        ];
        for (host, path, expected) in rows {
            assert_eq!(routed(&config, &format!("GET {path}\nHost: {host}")), Some(expected), "{host:?} {path:?}");
            if host.is_empty() {
                assert_eq!(routed(&config, &format!("GET {path}")), Some(expected), "no host, {path:?}");
            }
        }
    }

    #[test]
    fn without_match_and_default_there_is_no_backend() {
        let config = configuration("routes = [{ path = '/a', backend = 'b0' }]");
        assert_eq!(routed(&config, "GET /b"), None);
        assert_eq!(routed(&config, "GET /a"), Some(0));
    }

    #[test]
    fn hosts_and_paths_match_by_parts_and_patterns() {
        let config = configuration(
            "routes = [\
             { host_suffix = ['.Example.org', 'internal'], backend = 'b1' },\
             { host_regex = '^www[0-9]+\\.example\\.net$', backend = 'b2' },\
             { path_directory = ['/images/', 'a/b'], backend = 'b3' },\
             { path_regex = ['^/user/[0-9]+$', '(?i)\\.php$'], backend = 'b4' }]",
        );
        for (head, expected) in [
            ("GET /\nHost: www.example.ORG:81", Some(1)),
            ("GET /\nHost: example.org", None),
            ("GET /\nHost: a.internal", Some(1)),
            ("GET /\nHost: WWW12.example.net.:80", Some(2)),
            ("GET /\nHost: www.example.net", None),
            ("GET /\nHost: www1.example.net.evil.test", None),
            ("GET /images", Some(3)),
            ("GET /x/images/y", Some(3)),
            ("GET /ximages/y", None),
            ("GET /imagesx", None),
            ("GET /imagesx/images", Some(3)),
            ("GET /x?/images/", None),
            ("GET /a/b", Some(3)),
            ("GET /a/bc/a/b/c", Some(3)),
            ("GET /a/x/b", None),
            ("GET /user/12", Some(4)),
            ("GET /user/12/x", None),
            ("GET /user/x", None),
            ("GET /x/INDEX.PHP?y", Some(4)),
        ] {
            assert_eq!(routed(&config, head), expected, "{head}");
        }
    }

    #[test]
    fn methods_headers_cookies_and_parameters_match() {
        let config = configuration(
            "routes = [\
             { method = ['PUT', 'PATCH'], backend = 'b1' },\
             { header = { name = 'Upgrade' }, backend = 'b2' },\
             { header = [{ name = 'accept', value = 'a/b' }, { name = 'X-Kind', prefix = ['a', 'b'], suffix = 'z' }], backend = 'b3' },\
             { header = { name = 'User-Agent', regex = '(?i)bot\\b' }, backend = 'b4' },\
             { cookie = { name = 'beta', value = ['1', 'yes'] }, backend = 'b5' },\
             { query = { name = 'v', prefix = '2' }, backend = 'b6' },\
             { query = { name = 'debug' }, backend = 'b7' }]",
        );
        for (head, expected) in [
            ("PATCH /", Some(1)),
            ("GET /\nupgrade: anything", Some(2)),
            ("GET /\nAccept: x/y\nAccept: a/b", Some(3)),
            ("GET /\nAccept: a/b, x/y", None),
            ("GET /\nx-kind: bz", Some(3)),
            ("GET /\nx-kind: b\nx-kind: z", None),
            ("GET /\nUser-Agent: GoodBot/1", Some(4)),
            ("GET /\nUser-Agent: botany", None),
            ("GET /\nCookie: a=1; beta=yes", Some(5)),
            ("GET /\nCookie: a=1\nCookie: beta=\"1\" ", Some(5)),
            ("GET /\nCookie: beta=no; xbeta=1; beta", None),
            ("GET /\nCookie: Beta=1", None),
            ("GET /?v=2.1", Some(6)),
            ("GET /?a=1&v=1&v=2", Some(6)),
            ("GET /?a=v=2", None),
            ("GET /v=2", None),
            ("GET /?debug", Some(7)),
            ("GET /?x&debug=&y", Some(7)),
            ("GET /?debugger=1", None),
            ("GET /?", None),
        ] {
            assert_eq!(routed(&config, head), expected, "{head}");
        }
    }

    #[test]
    fn any_all_and_not_combine_and_nest() {
        let config = configuration(
            "routes = [\
             { path_prefix = '/a', any = [{ method = 'PUT' }, { header = { name = 'X-A' }, cookie = { name = 'c' } }], backend = 'b1' },\
             { not = { any = [{ source = '192.0.2.0/24' }, { method = 'GET' }] }, backend = 'b2' },\
             { all = [{ header = { name = 'X-A' } }, { header = { name = 'X-B' } }], backend = 'b3' },\
             { path = '/n', not = { not = { destination_port = [80, 81] } }, backend = 'b4' }]",
        );
        for (head, expected) in [
            ("PUT /a", Some(1)),
            ("PUT /b", None),
            ("GET /a\nX-A: 1\nCookie: c=1", Some(1)),
            ("GET /a\nX-A: 1", None),
            ("GET /\nX-A: 1\nX-B: 2", Some(3)),
            ("GET /n", Some(4)),
        ] {
            assert_eq!(routed(&config, head), expected, "{head}");
        }
    }

    #[test]
    fn a_connection_is_routed_by_where_it_comes_from_and_goes_to() {
        let config = configuration(
            "mode = 'tcp'\ndefault_backend = 'b0'\nroutes = [\
             { source = ['192.0.2.0/24', '2001:db8::1'], destination_port = [5432, 5433], backend = 'b1' },\
             { not = { source = ['192.0.2.0/24', '::/0'] }, backend = 'b2' }]",
        );
        let frontend = &config.balancer.frontends[0];
        let routed = |source: &str, destination_port| {
            let source: IpAddr = source.parse().unwrap();
            route(frontend, &Subject { source, destination_port, request: None }).map(|backend| backend.0)
        };
        assert_eq!(routed("192.0.2.200", 5432), Some(1));
        assert_eq!(routed("2001:db8::1", 5433), Some(1));
        assert_eq!(routed("2001:db8::2", 5433), Some(0));
        assert_eq!(routed("192.0.2.200", 5434), Some(0));
        assert_eq!(routed("192.0.3.1", 5432), Some(2));
    }
}
