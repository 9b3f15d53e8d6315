//! How sessions are kept.

use super::{assert_each, backend};

#[test]
fn each_mistake_in_how_sessions_are_kept_is_explained() {
    assert_each(
        "sessions",
        &[
            (
                "[backends.b]\ncookie = { name = \"S\" }\nservers = [{ name = \"a\", address = \"a:1\" }]",
                "11:10 backends.b.cookie: `mode` is missing: expected \"prefix\", \"insert\" or \"rewrite\"",
                &[],
            ),
            (
                &backend("cookie = { name = \"S\", mode = \"prefix\", indirect = true }"),
                "11:52 backends.b.cookie.indirect: this is a key of mode \"insert\" alone",
                &["the cookie is the application's"],
            ),
            (
                &backend("cookie = { name = \"S\", mode = \"rewrite\", max_idle = \"5m\" }"),
                "11:53 backends.b.cookie.max_idle: this is a key of mode \"insert\" alone",
                &[],
            ),
            (
                &backend("cookie = { name = \"S\", mode = \"insert\", same_site = \"none\" }"),
                "11:53 backends.b.cookie.same_site: browsers take such a cookie with `secure` alone",
                &["add `secure = true`"],
            ),
            (
                &backend("cookie = { name = \"S\", mode = \"insert\", same_site = \"lux\" }"),
                "11:53 backends.b.cookie.same_site: expected \"strict\", \"lax\" or \"none\"",
                &["lax"],
            ),
            (
                &backend("cookie = { name = \"S\", mode = \"insert\", domain = \"com\" }"),
                "11:50 backends.b.cookie.domain: expected a domain of at least two labels",
                &[],
            ),
            (
                &backend("cookie = { name = \"S\", mode = \"insert\", max_life = \"300ms\" }"),
                "11:52 backends.b.cookie.max_life: expected at least one second",
                &["found 300ms"],
            ),
            (
                "[[backends.b.servers]]\nname = \"a\"\naddress = \"a:1\"\ncookie = \"a|b\"",
                "13:10 backends.b.servers[0].cookie: expected letters, digits, and",
                &[],
            ),
            (
                &backend("stick = { expire = \"5m\" }"),
                "11:9 backends.b.stick: `by` is missing: expected \"source\", \"header\" or \"cookie\"",
                &[],
            ),
            (
                &backend("stick = { by = \"header\" }"),
                "11:9 backends.b.stick: `name` is missing: expected a header's",
                &[],
            ),
            (
                &backend("stick = { by = \"source\", name = \"X\" }"),
                "11:33 backends.b.stick.name: this is a key of \"header\" and \"cookie\" alone",
                &[],
            ),
            (
                &backend("stick = { by = \"source\", size = 0 }"),
                "11:33 backends.b.stick.size: expected a whole number from 1 to 10000000",
                &[],
            ),
            (
                &backend("cookie = { name = \"S\", mode = \"prefix\" }\nstick = { by = \"cookie\", name = \"S\" }"),
                "12:33 backends.b.stick.name: the table goes by the application's cookie",
                &["this one carries the server"],
            ),
            (
                "[frontends.b]\nmode = \"tcp\"\nbind = \"*:81\"\ndefault_backend = \"b\"\n\
             [backends.b]\nstick = { by = \"header\", name = \"X\" }\nservers = [{ name = \"a\", address = \"a:1\" }]",
                "15:9 backends.b.stick: sessions are known by what is in a request in HTTP only",
                &["a frontend of mode \"tcp\" leads here"],
            ),
        ],
    );
}
