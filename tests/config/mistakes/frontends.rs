//! Frontends and their routes.

use super::assert_each;

#[test]
fn each_mistake_in_a_frontend_or_a_route_is_explained() {
    assert_each(
        "frontends",
        &[
            (
                "[frontends.b]\nbind = []\ndefault_backend = \"app\"",
                "11:8 frontends.b.bind: expected a list of addresses",
                &["found an empty list"],
            ),
            (
                "[frontends.b]\nbind = \"80\"\ndefault_backend = \"app\"",
                "11:8 frontends.b.bind: expected an address",
                &["\"*:80\"?"],
            ),
            ("[frontends.b]\ndefault_backend = \"app\"", "10:12 frontends.b: `bind` is missing", &[]),
            ("[frontends.b]\nbind = \"*:81\"", "10:12 frontends.b: `default_backend` is missing", &[]),
            (
                "[frontends.b]\nbind = [{ address = \"192.0.2.1:80\" }]\ndefault_backend = \"app\"",
                "11:9 frontends.b.bind[0]: a port is listened on once",
                &["3 | bind = [\"*:80\"]", "is in use by frontends.web.bind[0]"],
            ),
            (
                "[peering]\nlisten = \"192.0.2.11:80\"\npeers = { lb2 = \"192.0.2.12:80\" }",
                "11:10 peering.listen: a port is listened on once",
                &["3 | bind = [\"*:80\"]", "is in use by frontends.web.bind[0]"],
            ),
            (
                "[frontends.b]\nbind = [{ address = \"*:443\", tls = {} }]\ndefault_backend = \"app\"",
                "11:30 frontends.b.bind[0].tls: not supported in this version",
                &[],
            ),
            (
                "[frontends.b]\nbind = \"*:81\"\ndefault_backend = \"ap\"",
                "12:19 frontends.b.default_backend: expected the name of a backend",
                &["there is no such backend", "did you mean \"app\"?"],
            ),
            (
                "[frontends.b]\nbind = \"*:81\"\ndefault_backend = \"app\"\nforwarded_for = 5",
                "13:17 frontends.b.forwarded_for: expected `true`, `false`, or a table",
                &[],
            ),
            (
                "[frontends.b]\nbind = \"*:81\"\ndefault_backend = \"app\"\nforwarded_for = { exept = \"::/0\" }",
                "13:19 frontends.b.forwarded_for.exept: unknown key",
                &["did you mean `except`?"],
            ),
            (
                "[frontends.b]\nbind = \"*:81\"\ndefault_backend = \"app\"\ntrusted_proxies = [\"proxy.example\"]",
                "13:20 frontends.b.trusted_proxies[0]: expected a network or an address",
                &[],
            ),
            (
                "[frontends.b]\nmode = \"tcp\"\nbind = \"*:81\"\ndefault_backend = \"app\"\nforwarded_for = true",
                "14:17 frontends.b.forwarded_for: only a frontend of mode \"http\" can do this",
                &[],
            ),
            (
                "[frontends.b]\nmode = \"tcp\"\nbind = \"*:81\"\ndefault_backend = \"b\"\n\
             [backends.b]\ncookie = { name = \"S\", mode = \"insert\" }\nservers = [{ name = \"a\", address = \"a:1\" }]",
                "15:10 backends.b.cookie: sessions are kept by cookie in HTTP only",
                &["13 | default_backend = \"b\"", "a frontend of mode \"tcp\" leads here"],
            ),
            (
                "[[frontends.web.routes]]\nbackend = \"app\"",
                "10:1 frontends.web.routes[0]: a route has at least one",
                &[],
            ),
            ("[[frontends.web.routes]]\npath = \"/\"", "10:1 frontends.web.routes[0]: `backend` is missing", &[]),
            (
                "[[frontends.web.routes]]\npath_suffix = []\nbackend = \"app\"",
                "11:15 frontends.web.routes[0].path_suffix: expected at least one value",
                &[],
            ),
            (
                "[[frontends.web.routes]]\npath_regex = [\"^/a$\", \"(a{1000}){1000}\"]\nbackend = \"app\"",
                "11:23 frontends.web.routes[0].path_regex[1]: expected a regular expression",
                &["compiled it takes more than 48 KiB"],
            ),
            (
                "[[frontends.web.routes]]\nhost_regex = \"www(\"\nbackend = \"app\"",
                "11:14 frontends.web.routes[0].host_regex: expected a regular expression",
                &["unclosed group"],
            ),
            (
                "[[frontends.web.routes]]\nhost_suffix = \"*.example.com\"\nbackend = \"app\"",
                "11:15 frontends.web.routes[0].host_suffix: expected the end of a host name",
                &["did you mean \".example.com\"?"],
            ),
            (
                "[[frontends.web.routes]]\nsource = [\"192.0.2.7/24\"]\nbackend = \"app\"",
                "11:11 frontends.web.routes[0].source[0]: expected a network or an address",
                &["did you mean \"192.0.2.0/24\"?"],
            ),
            (
                "[[frontends.web.routes]]\nmethod = \"get\"\nbackend = \"app\"",
                "11:10 frontends.web.routes[0].method: expected a method in capitals",
                &["did you mean \"GET\"?"],
            ),
            (
                "[[frontends.web.routes]]\nheader = { name = \"Accept:\", value = \"a\" }\nbackend = \"app\"",
                "11:19 frontends.web.routes[0].header.name: expected the name of a header",
                &["did you mean \"Accept\"?"],
            ),
            (
                "[[frontends.web.routes]]\ncookie = [{ name = \"a\" }, { value = \"1\" }]\nbackend = \"app\"",
                "11:27 frontends.web.routes[0].cookie[1]: `name` is missing",
                &[],
            ),
            (
                "[[frontends.web.routes]]\nquery = { name = \"a\", values = \"1\" }\nbackend = \"app\"",
                "11:23 frontends.web.routes[0].query.values: unknown key",
                &["did you mean `value`?", "accepted here: name, value, prefix, suffix, regex"],
            ),
            (
                "[[frontends.web.routes]]\ndestination_port = 70000\nbackend = \"app\"",
                "11:20 frontends.web.routes[0].destination_port: expected a whole number from 1 to 65535",
                &[],
            ),
            (
                "[[frontends.web.routes]]\nany = [{ path = \"/\" }, {}]\nbackend = \"app\"",
                "11:24 frontends.web.routes[0].any[1]: expected a condition",
                &["an empty one"],
            ),
            (
                "[[frontends.web.routes]]\nnot = { any = [{ pth = \"/\" }] }\nbackend = \"app\"",
                "11:18 frontends.web.routes[0].not.any[0].pth: unknown key",
                &["did you mean `path`?"],
            ),
            (
                "[frontends.b]\nmode = \"tcp\"\nbind = \"*:81\"\nroutes = [{ source = \"::/0\", not = { path = \"/\" }, backend = \"app\" }]",
                "13:45 frontends.b.routes[0].not.path: only a frontend of mode \"http\" can do this",
                &[],
            ),
            (
                "[[frontends.web.routes]]\nhost = [\"a.example\", \"b.example:80\"]\nbackend = \"app\"",
                "11:22 frontends.web.routes[0].host[1]: expected a host name",
                &["did you mean \"b.example\"?"],
            ),
            (
                "[[frontends.web.routes]]\npath = \"/\"\nbackend = \"app\"\nmax_connections = 5",
                "13:1 frontends.web.routes[0].max_connections: unknown key",
                &["it is a key of `frontends.web`: write it there, above the headers that follow"],
            ),
            (
                "[frontends.web.timeouts]\nserver = \"5s\"",
                "11:1 frontends.web.timeouts.server: unknown key",
                &["it is a key of `backends.NAME.timeouts`"],
            ),
            (
                "[[frontends.web.routes]]\ncookie = \"beta\"\nbackend = \"app\"",
                "11:10 frontends.web.routes[0].cookie: expected a table",
                &["such as `{ name = \"beta\", value = \"1\" }`"],
            ),
            (
                "[[frontends.web.routes]]\nhost = \"*.example.com\"\nbackend = \"app\"",
                "11:8 frontends.web.routes[0].host: expected a host name",
                &["write `host_suffix = \".example.com\"`"],
            ),
            (
                "[[frontends.web.routes]]\nhost = \"www*.example.com\"\nbackend = \"app\"",
                "11:8 frontends.web.routes[0].host: expected a host name",
                &["patterns are `host_suffix` and `host_regex`"],
            ),
            (
                "[[frontends.web.routes]]\nhost = \"https://www.example.com:443/\"\nbackend = \"app\"",
                "11:8 frontends.web.routes[0].host: expected a host name",
                &["did you mean \"www.example.com\"?"],
            ),
        ],
    );
}
