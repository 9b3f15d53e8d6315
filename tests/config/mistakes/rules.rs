//! Rules.

use super::assert_each;

#[test]
fn each_mistake_in_a_rule_is_explained() {
    assert_each(
        "rules",
        &[
            (
                "[[frontends.web.rules]]\nwhen = { path = \"/\" }",
                "10:1 frontends.web.rules[0]: a rule does something",
                &["add one of deny, redirect"],
            ),
            (
                "[[frontends.web.rules]]\ndeny = 403\nrewrite = { path = \"/\" }",
                "12:11 frontends.web.rules[0].rewrite: a rule does one thing",
                &["11 | deny = 403", "first here"],
            ),
            (
                "[[frontends.web.rules]]\ndeny = 200",
                "11:8 frontends.web.rules[0].deny: expected a whole number from 400 to 599",
                &[],
            ),
            (
                "[[frontends.web.rules]]\ndenny = 403",
                "11:1 frontends.web.rules[0].denny: unknown key",
                &["did you mean `deny`?"],
            ),
            (
                "[[frontends.web.rules]]\nwhen = {}\ndeny = 403",
                "11:8 frontends.web.rules[0].when: expected a condition",
                &["an empty one"],
            ),
            (
                "[[frontends.web.rules]]\nredirect = { prefix = \"/a/\", scheme = \"https\" }",
                "11:12 frontends.web.rules[0].redirect: expected one of `prefix`, `location`, `scheme`",
                &[],
            ),
            (
                "[[frontends.web.rules]]\nredirect = { prefix = \"//evil.example\" }",
                "11:23 frontends.web.rules[0].redirect.prefix: expected the beginning of a path or of a URL",
                &[],
            ),
            (
                "[[frontends.web.rules]]\nredirect = { location = \"www.example.com{path}\" }",
                "11:25 frontends.web.rules[0].redirect.location: expected a path or a URL",
                &[],
            ),
            (
                "[[frontends.web.rules]]\nredirect = { scheme = \"https\", status = 200 }",
                "11:41 frontends.web.rules[0].redirect.status: expected 301, 302, 303, 307 or 308",
                &[],
            ),
            (
                "[[frontends.web.rules]]\nrewrite = { regex = \"^/a\" }",
                "11:11 frontends.web.rules[0].rewrite: `with` is missing",
                &[],
            ),
            (
                "[[frontends.web.rules]]\nrewrite = { normalize = true, path = \"/\" }",
                "11:11 frontends.web.rules[0].rewrite: expected one of `prefix`, `path`, `regex`, `normalize`",
                &[],
            ),
            (
                "[[frontends.web.rules]]\nrewrite = { regex = \"^/(a)/\", with = \"/$1b/\" }",
                "11:38 frontends.web.rules[0].rewrite.with: the regular expression has no group `1b`",
                &["`${1}` before a letter"],
            ),
            (
                "[[frontends.web.rules]]\nrewrite = { normalize = false }",
                "11:25 frontends.web.rules[0].rewrite.normalize: expected `true`",
                &[],
            ),
            (
                "[[frontends.web.rules]]\nrewrite = { path = \"/a\", replace = \"/b\" }",
                "11:36 frontends.web.rules[0].rewrite.replace: `replace` is for `prefix`",
                &[],
            ),
            (
                "[[frontends.web.rules]]\nrequest_headers = { set = { X-A = \"{hots}\" } }",
                "11:35 frontends.web.rules[0].request_headers.set.X-A: expected a line of text",
                &["there is no variable `{hots}`: did you mean `{host}`?"],
            ),
            (
                "[[frontends.web.rules]]\nrequest_headers = { set = { X-A = \"a\\r\\nB: c\" } }",
                "11:35 frontends.web.rules[0].request_headers.set.X-A: expected a line of text",
                &["it has control characters"],
            ),
            (
                "[[frontends.web.rules]]\nrequest_headers = { set = { X-A = \"{server}\" } }",
                "11:35 frontends.web.rules[0].request_headers.set.X-A: `{server}` is known only in `response_headers`",
                &[],
            ),
            (
                "[[frontends.web.rules]]\nresponse_headers = { add = { X-A = \"{request_id}\" } }",
                "11:36 frontends.web.rules[0].response_headers.add.X-A: requests of this frontend have no id",
                &["add `request_id = {}`"],
            ),
            (
                "[[frontends.web.rules]]\nrequest_headers = { remove = [\"Cookie\", \"Content-Length\"] }",
                "11:41 frontends.web.rules[0].request_headers.remove[1]: this header belongs to the connection",
                &[],
            ),
            (
                "[[frontends.web.rules]]\nrequest_headers = { remove = [\"Cookie\", \"host\"] }",
                "11:41 frontends.web.rules[0].request_headers.remove[1]: a request has one Host",
                &["`set` it"],
            ),
            (
                "[[frontends.web.rules]]\nrequest_headers = { add = { Host = \"a\" } }",
                "11:29 frontends.web.rules[0].request_headers.add.Host: a request has one Host",
                &[],
            ),
            (
                "[[frontends.web.rules]]\nrequest_headers = { status = \"200\", remove = [\"Cookie\"] }",
                "11:30 frontends.web.rules[0].request_headers.status: `status` is for `response_headers`",
                &[],
            ),
            (
                "[[frontends.web.rules]]\nrespond = { status = 204, body = \"a\" }",
                "11:34 frontends.web.rules[0].respond.body: a response with status 204 has no body",
                &[],
            ),
            (
                "[[frontends.web.rules]]\nrate_limit = { per = \"1s\" }",
                "11:14 frontends.web.rules[0].rate_limit: `requests` is missing",
                &[],
            ),
            (
                "[[frontends.web.rules]]\ndeny_body = { regex = \"a\", first = 100000 }",
                "11:36 frontends.web.rules[0].deny_body.first: expected a whole number from 1 to 65536",
                &[],
            ),
            (
                "[frontends.b]\nmode = \"tcp\"\nbind = \"*:81\"\ndefault_backend = \"app\"\nrules = [{ deny = 403 }]",
                "14:10 frontends.b.rules[0]: only a frontend of mode \"http\" can do this",
                &[],
            ),
            (
                "[[frontends.web.rules]]\nwhen = { path = \"/\", deny = 403 }\nrewrite = { path = \"/\" }",
                "11:22 frontends.web.rules[0].when.deny: unknown key",
                &["it is a key of `frontends.web.rules[0]`"],
            ),
            (
                "[[frontends.web.rules]]\nrequest_headers = { set = { X-A = \"%[src]\" } }",
                "11:35 frontends.web.rules[0].request_headers.set.X-A: expected a line of text",
                &["a variable stands in braces, such as `{client}`"],
            ),
        ],
    );
}
