//! Checks, agents, and what is done where servers fail.

use super::{assert_each, backend};

#[test]
fn each_mistake_in_checks_and_what_is_done_where_servers_fail_is_explained() {
    assert_each(
        "health",
        &[
            (
                &backend("health = { error_limit = 5 }"),
                "11:26 backends.b.health.error_limit: errors are counted where they are observed",
                &["add `observe = \"layer4\"`"],
            ),
            (
                &backend("health = { observe = \"layer6\" }"),
                "11:22 backends.b.health.observe: expected \"off\", \"layer4\" or \"layer7\"",
                &[],
            ),
            (
                &backend("health = { on_refused = \"down\" }"),
                "11:25 backends.b.health.on_refused: expected \"retry\" or \"mark_down\"",
                &[],
            ),
            (
                &backend("health = { method = \"HEAD\", expect_body = \"ok\" }"),
                "11:43 backends.b.health.expect_body: an answer to HEAD has no body",
                &["use `method = \"GET\"`"],
            ),
            (
                &backend("health = { headers = { Host = \"a\" } }"),
                "11:24 backends.b.health.headers.Host: this header has its own key",
                &["write `host = …` instead"],
            ),
            (
                &backend("health = { headers = { \"a b\" = \"a\" } }"),
                "11:24 backends.b.health.headers.\"a b\": expected the name of a header",
                &[],
            ),
            (
                &backend("health = { headers = { a = \"b\\r\\nc: d\" } }"),
                "11:28 backends.b.health.headers.a: expected a header's value",
                &[],
            ),
            (
                &backend("health = { spread = 51 }"),
                "11:21 backends.b.health.spread: expected a whole number from 0 to 50",
                &[],
            ),
            (&backend("agent = { interval = \"1s\" }"), "11:9 backends.b.agent: `port` is missing", &[]),
            (
                "[[backends.b.servers]]\nname = \"a\"\naddress = \"192.0.2.1:1\"\ncheck_address = \"::1\"",
                "13:17 backends.b.servers[0].check_address: expected an address of the same family",
                &[],
            ),
            (
                "[backends.b]\nhealth = { expect = [\"200-399\", \"99\"] }\nservers = [{ name = \"a\", address = \"a:1\" }]",
                "11:33 backends.b.health.expect[1]: expected a status or a range",
                &["statuses are 100 to 599"],
            ),
            (
                "[backends.b]\nretry_on = \"conn_failure\"\nservers = [{ name = \"a\", address = \"a:1\" }]",
                "11:12 backends.b.retry_on: expected \"connection_failure\"",
                &[],
            ),
            (
                "[backends.b]\nretry_on = [\"empty_respons\"]\nservers = [{ name = \"a\", address = \"a:1\" }]",
                "11:13 backends.b.retry_on[0]: expected \"connection_failure\"",
                &["did you mean \"empty_response\"?"],
            ),
            (
                "[backends.b]\nretry_on = [\"503\"]\nservers = [{ name = \"a\", address = \"a:1\" }]",
                "11:13 backends.b.retry_on[0]: expected",
                &["write it without quotes: `503`"],
            ),
            (
                "[backends.b]\nretry_on = 200\nservers = [{ name = \"a\", address = \"a:1\" }]",
                "11:12 backends.b.retry_on: expected",
                &["a status from 400 to 599"],
            ),
            (
                "[backends.b]\nreuse = \"aggressive\"\nservers = [{ name = \"a\", address = \"a:1\" }]",
                "11:9 backends.b.reuse: expected \"never\", \"safe\" or \"always\"",
                &[],
            ),
            (
                "[backends.b]\nerrors = { 503 = \"sorry.html\" }\nservers = [{ name = \"a\", address = \"a:1\" }]",
                "11:18 backends.b.errors.503: expected an absolute path",
                &[],
            ),
            (
                "[frontends.t]\nbind = \"*:81\"\nmode = \"tcp\"\ndefault_backend = \"b\"\nconnection = \"close\"\n\
             [backends.b]\nservers = [{ name = \"a\", address = \"a:1\" }]",
                "14:14 frontends.t.connection: only a frontend of mode \"http\" can do this",
                &[],
            ),
            (
                "[frontends.t]\nbind = \"*:81\"\nmode = \"tcp\"\ndefault_backend = \"b\"\n\
             [backends.b]\nretry_on = 503\nservers = [{ name = \"a\", address = \"a:1\" }]",
                "15:12 backends.b.retry_on: only in HTTP there is an answer to wait for",
                &["a frontend of mode \"tcp\" leads here"],
            ),
            (
                "[frontends.t]\nbind = \"*:81\"\nmode = \"tcp\"\ndefault_backend = \"b\"\n\
             [backends.b]\nreuse = \"never\"\nservers = [{ name = \"a\", address = \"a:1\" }]",
                "15:9 backends.b.reuse: connections are used again in HTTP only",
                &[],
            ),
            (
                "[backends.b]\nhealth = \"/alive\"\nservers = [{ name = \"a\", address = \"a:1\" }]",
                "11:10 backends.b.health: expected a table",
                &["found string \"/alive\"", "such as `{ method = \"HEAD\", path = \"/\" }`"],
            ),
        ],
    );
}
