//! The statistics, on their own listener and at a frontend's path.

use super::assert_each;

#[test]
fn each_mistake_in_the_statistics_is_explained() {
    assert_each(
        "statistics",
        &[
            (
                "[stats]\nlisten = \"127.0.0.1:8404\"\nsocket = { path = \"/run/a\" }",
                "12:1 stats.socket: not supported in this version",
                &[],
            ),
            ("[stats]", "10:1 stats: `listen` is missing", &["127.0.0.1:8404"]),
            ("[stats]\nlisten = \"*:8404\"", "10:1 stats: `users` is missing", &["only shown on the loopback"]),
            ("[stats]\nlisten = \"127.0.0.1:80\"", "3:9 frontends.web.bind[0]: a port is listened on once", &[]),
            (
                "[frontends.stats]\nbind = \"*:81\"\ndefault_backend = \"app\"\n[stats]\nlisten = \"127.0.0.1:8404\"",
                "10:12 frontends.stats: every frontend has its own name",
                &["this makes a frontend of that name"],
            ),
            ("[frontends.web.stats]\npath = \"/stats\"", "10:1 frontends.web.stats: `users` is missing", &[]),
            ("[frontends.web.stats]\nusers = { a = \"b\" }", "10:1 frontends.web.stats: `path` is missing", &[]),
            (
                "[frontends.web.stats]\npath = \"/s?a\"\nusers = { a = \"b\" }",
                "11:8 frontends.web.stats.path: expected the path of the page",
                &["without `?`"],
            ),
            (
                "[frontends.web.stats]\npath = \"/s\"\nusers = { a = \"$1$salt$hash\" }",
                "12:15 frontends.web.stats.users.a: expected a password",
                &["make one with `openssl passwd -6`"],
            ),
            (
                "[frontends.web.stats]\npath = \"/s\"\nusers = { a = \"$6$salt\" }",
                "12:15 frontends.web.stats.users.a: expected a password",
                &["this hash is not complete"],
            ),
            (
                "[stats]\nlisten = \"127.0.0.1:8404\"\nusers = [\"admin:secret\"]",
                "12:9 stats.users: expected a table",
                &["found a list", "such as `{ admin = \"secret\" }`"],
            ),
        ],
    );
}
