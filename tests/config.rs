//! `relevo check` and `relevo key` as a person meets them: the built binary, its output and its exit status.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const EXAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/example.toml");
const REFERENCE: &str = include_str!("../docs/configuration.md");

const SMALLEST: &str = r#"
[frontends.web]
bind = ["*:80"]
default_backend = "app"

[backends.app]
servers = [{ name = "one", address = "192.0.2.21:80" }]
"#;

#[test]
fn the_example_is_accepted_and_explained() {
    let output = relevo(&["check", "-c", EXAMPLE]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(stderr(&output), "");
    let summary = stdout(&output);
    for line in [
        "node lb1: 2 worker threads",
        "virtual router main: 192.168.1.20/24 on eth1",
        "VRID 51, priority 254, an advert every 100ms to the multicast group",
        "peering on 192.168.1.11:8650 with lb2 (192.168.1.12:8650)",
        "frontend web: HTTP on 0.0.0.0:80, adds X-Forwarded-For",
        "path ends with .gif or .png → static",
        "host is static.example.com and path begins with /assets/ → static",
        "everything else → app",
        "checks: HEAD /index.php every 2s; up after 2, down after 3",
        "server backend1 at 192.168.1.21:80, weight 60, from 192.168.1.20 while this node is active",
        "server files at 192.168.1.23:8080, weight 1, not checked",
    ] {
        assert!(summary.contains(line), "{line:?} is not in\n{summary}");
    }
}

#[test]
fn one_frontend_one_backend_one_server_is_enough() {
    let output = check("smallest", SMALLEST);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(stdout(&output).contains("server one at 192.0.2.21:80, weight 1"));
}

#[test]
fn what_is_done_where_servers_fail_is_explained() {
    let text = SMALLEST.replace(
        "[backends.app]",
        "connection = \"server_close\"\n[backends.app]\nretry_on = [\"empty_response\", 503]\nbuffer_request = 4096\n\
         retry_non_idempotent = true\nretry_budget = { percent = 5 }\nreuse = \"never\"\nconnection = \"close\"",
    );
    let output = check("failure", &text);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let summary = stdout(&output);
    for line in [
        "  connections to servers are closed after each response\n",
        "  tried again on no response, 503, bodies of up to 4096 bytes too, whatever the method, \
         for 5 % of the requests and 10 a second\n",
        "  connections to servers are shared by no two clients\n",
        "  connections are closed after each response\n",
    ] {
        assert!(summary.contains(line), "{line:?} is not in\n{summary}");
    }
    let pages = directory("pages");
    let page = pages.join("503.html");
    fs::write(&page, "sorry").unwrap();
    let text = format!(
        "[errors]\n503 = {page:?}\n{SMALLEST}\n[frontends.tcp]\nmode = \"tcp\"\nbind = \"*:81\"\ndefault_backend = \"app\""
    );
    let output = check("pages-of-frontends", &text);
    let with_pages = stdout(&output).lines().filter(|line| *line == "  pages of its own for 503").count();
    assert_eq!(with_pages, 1, "mode tcp has none\n{}{}", stdout(&output), stderr(&output));
    let nothing = check("nothing", &SMALLEST.replace("[backends.app]", "[backends.app]\nretry_on = []"));
    assert!(stdout(&nothing).contains("  nothing is tried again\n"), "{}", stdout(&nothing));
}

/// Each line is put under a sound configuration and is all that is wrong with it: what is expected is the place of the
/// error, its title, and words of its explanation.
#[test]
fn every_error_says_where_what_and_what_instead() {
    let cases: &[(&str, &str, &[&str])] = &[
        // Unknown keys.
        ("[nod]", "10:2 nod: unknown key", &["did you mean `node`?", "accepted here: node, process, log"]),
        ("[process]\nthread = 1", "11:1 process.thread: unknown key", &["did you mean `threads`?"]),
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
        ("[node]\n\"a\\u001bb\" = 1", "11:1 node.\"a\\u{1b}b\": unknown key", &[]),
        // Values.
        (
            "[process]\nthreads = 0",
            "11:11 process.threads: expected a whole number from 1 to 256",
            &["found integer `0`"],
        ),
        ("[process]\nthreads = \"2\"", "11:11 process.threads: expected", &["write it without quotes: `2`"]),
        ("[timeouts]\nconnect = 5", "11:11 timeouts.connect: expected a time", &["write \"5s\" or \"5ms\""]),
        ("[timeouts]\nqueue = \"5 sec\"", "11:9 timeouts.queue: expected a time", &["did you mean \"5s\"?"]),
        ("[timeouts]\nqueue = \"0s\"", "11:9 timeouts.queue: expected a time", &["longer than zero"]),
        ("[log]\nformat = \"jsno\"", "11:10 log.format: expected \"httplog\"", &["did you mean \"json\"?"]),
        ("[log]\nformat = \"%ci %st\"", "11:10 log.format: expected", &["no field `%st`; did you mean `%ST`?"]),
        ("[frontends.web.capture]\nrequest = \"a b\"", "11:11 frontends.web.capture.request: expected", &[]),
        ("[log]\ntarget = \"syslogd\"", "11:10 log.target: expected", &["did you mean \"syslog\"?"]),
        ("[log]\ntarget = \"192.0.2.1:514\"", "11:10 log.target: expected", &["did you mean \"udp:192.0.2.1:514\"?"]),
        ("[log]\ntarget = []", "11:10 log.target: expected at least one target", &[]),
        ("[log]\ntarget = [\"stderr\", \"stderr\"]", "11:21 log.target[1]: every target is another one", &[]),
        ("[log]\ntarget = { level = \"info\" }", "11:10 log.target: `to` is missing", &[]),
        (
            "[log]\ntarget = { to = \"syslog\", facility = \"local9\" }",
            "11:38 log.target.facility: expected a syslog facility",
            &["did you mean \"local"],
        ),
        (
            "[log]\ntarget = { to = \"/var/log/r\", facility = \"local0\" }",
            "11:10 log.target: expected a target with facilities",
            &["leave `facility` out"],
        ),
        ("[log]\nlevel = \"wran\"", "11:9 log.level: expected", &["did you mean \"warn\"?"]),
        ("[node]\ncontrol_socket = \"relevo.sock\"", "11:18 node.control_socket: expected an absolute path", &[]),
        ("[node.name.x]", "10:7 node.name: expected a name", &["found a table"]),
        ("[[process]]", "10:1 process: expected a table", &["found a list", "write `[process]`, with single brackets"]),
        // A key under the header of another table, words of others, tables that are none.
        (
            "[[frontends.web.routes]]\npath = \"/\"\nbackend = \"app\"\nmax_connections = 5",
            "13:1 frontends.web.routes[0].max_connections: unknown key",
            &["it is a key of `frontends.web`: write it there, above the headers that follow"],
        ),
        (
            "[[backends.b.servers]]\nname = \"a\"\naddress = \"a:1\"\nbalance = \"first\"",
            "13:1 backends.b.servers[0].balance: unknown key",
            &["it is a key of `backends.b`"],
        ),
        (
            "[[frontends.web.rules]]\nwhen = { path = \"/\", deny = 403 }\nrewrite = { path = \"/\" }",
            "11:22 frontends.web.rules[0].when.deny: unknown key",
            &["it is a key of `frontends.web.rules[0]`"],
        ),
        (
            "[frontends.web.timeouts]\nserver = \"5s\"",
            "11:1 frontends.web.timeouts.server: unknown key",
            &["it is a key of `backends.NAME.timeouts`"],
        ),
        (
            "[[backends.b.servers]]\nname = \"a\"\naddress = \"a:1\"\nssl = true",
            "13:1 backends.b.servers[0].ssl: not supported in this version",
            &[],
        ),
        (
            "[backends.b]\nhealth = \"/alive\"\nservers = [{ name = \"a\", address = \"a:1\" }]",
            "11:10 backends.b.health: expected a table",
            &["found string \"/alive\"", "such as `{ method = \"HEAD\", path = \"/\" }`"],
        ),
        (
            "[backends.b]\nservers = [\"192.0.2.21:80\"]",
            "11:12 backends.b.servers[0]: expected a table",
            &["such as `{ name = \"one\", address = \"192.0.2.21:80\" }`"],
        ),
        (
            "[stats]\nlisten = \"127.0.0.1:8404\"\nusers = [\"admin:secret\"]",
            "12:9 stats.users: expected a table",
            &["found a list", "such as `{ admin = \"secret\" }`"],
        ),
        (
            "[[frontends.web.routes]]\ncookie = \"beta\"\nbackend = \"app\"",
            "11:10 frontends.web.routes[0].cookie: expected a table",
            &["such as `{ name = \"beta\", value = \"1\" }`"],
        ),
        (
            "[[backends.b.servers]]\nname = \"a\"\naddress = \"a:1\"\nbackup = \"true\"",
            "13:10 backends.b.servers[0].backup: expected `true` or `false`",
            &["write it without quotes: `true`"],
        ),
        (
            "[backends.b]\ncookie = [\"S\", \"insert\"]\nservers = [{ name = \"a\", address = \"a:1\" }]",
            "11:10 backends.b.cookie: expected a table",
            &["found a list"],
        ),
        ("[node]\nname = 2026-01-01", "11:8 node.name: expected a name", &["found a date or time"]),
        ("[timeouts]\nqueue = 07:32:00", "11:9 timeouts.queue: expected a time", &["found a date or time"]),
        ("[process]\nthreads = 2026-01-01T00:00:00Z", "11:11 process.threads: expected", &["found a date or time"]),
        (
            "[backends.b]\nhealth = 2026-01-01\nservers = [{ name = \"a\", address = \"a:1\" }]",
            "11:10 backends.b.health: no date or time is expected here",
            &["found a date or time"],
        ),
        // Retries, connections, pages.
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
        // Frontends.
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
        ("[[frontends.web.routes]]\nbackend = \"app\"", "10:1 frontends.web.routes[0]: a route has at least one", &[]),
        ("[[frontends.web.routes]]\npath = \"/\"", "10:1 frontends.web.routes[0]: `backend` is missing", &[]),
        (
            "[[frontends.web.routes]]\npath_suffix = []\nbackend = \"app\"",
            "11:15 frontends.web.routes[0].path_suffix: expected at least one value",
            &[],
        ),
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
            "[[frontends.web.rules]]\nrequest_headers = { set = { X-A = \"%[src]\" } }",
            "11:35 frontends.web.rules[0].request_headers.set.X-A: expected a line of text",
            &["a variable stands in braces, such as `{client}`"],
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
            "[[frontends.web.routes]]\npath_regex = [\"^/a$\", \"(a{1000}){1000}\"]\nbackend = \"app\"",
            "11:23 frontends.web.routes[0].path_regex[1]: expected a regular expression",
            &["compiled it takes more than 1024 KiB"],
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
        // Backends.
        ("[backends.b]", "10:11 backends.b: `servers` is missing: expected at least one `[[backends.b.servers]]`", &[]),
        (
            "[backends.b]\nservers = []",
            "11:11 backends.b.servers: expected at least one `[[backends.b.servers]]`",
            &["found an empty list"],
        ),
        (
            "[backends.b.servers]\nname = \"a\"\naddress = \"a:1\"",
            "10:1 backends.b.servers: expected a list",
            &["found a table", "write `[[backends.b.servers]]`"],
        ),
        ("[backends.b]\nservers = 5", "11:11 backends.b.servers: expected a list", &["found integer `5`"]),
        (
            "[backends.\"b c\"]\nservers = [{ name = \"a\", address = \"a:1\" }]",
            "10:11 backends.\"b c\": expected a name",
            &[],
        ),
        ("[[backends.b.servers]]\nname = \"a\"", "10:1 backends.b.servers[0]: `address` is missing", &[]),
        ("[[backends.b.servers]]\naddress = \"a:1\"", "10:1 backends.b.servers[0]: `name` is missing", &[]),
        (
            "[[backends.b.servers]]\nname = \"a\"\naddress = \"a:1\"\nweight = 257",
            "13:10 backends.b.servers[0].weight: expected a whole number from 0 to 256",
            &["found integer `257`"],
        ),
        (
            "[[backends.b.servers]]\nname = \"a\"\naddress = \"http://192.0.2.21:80/\"",
            "12:11 backends.b.servers[0].address: expected an address or a host name with its port",
            &["did you mean \"192.0.2.21:80\"?"],
        ),
        (
            "[[backends.b.servers]]\nname = \"a\"\naddress = \"http://app.example\"",
            "12:11 backends.b.servers[0].address: expected an address or a host name with its port",
            &["the port is missing: write \"app.example:80\""],
        ),
        (
            "[[backends.b.servers]]\nname = \"a\"\naddress = \"192.0.2.300:80\"",
            "12:11 backends.b.servers[0].address: expected an address or a host name with its port",
            &[],
        ),
        (
            "[[backends.b.servers]]\nname = \"a\"\naddress = \"app.example\"",
            "12:11 backends.b.servers[0].address: expected",
            &["the port is missing: write \"app.example:80\""],
        ),
        (
            "[[backends.b.servers]]\nname = \"a\"\naddress = \"192.168.1.21\"",
            "12:11 backends.b.servers[0].address: expected",
            &["the port is missing: write \"192.168.1.21:80\""],
        ),
        (
            "[backends.b]\nservers = [{ name = \"a\", address = \"a:1\" }, { name = \"a\", address = \"a:2\" }]",
            "11:54 backends.b.servers[1].name: every server of a backend has its own name",
            &["first here"],
        ),
        (
            "[backends.b]\nservers = [{ name = \"a\", address = \"a:1\", cookie = \"x\" }, { name = \"x\", address = \"a:2\" }]",
            "11:68 backends.b.servers[1].name: a server without `cookie` uses its name",
            &["first here"],
        ),
        (
            "[backends.b]\nbalance = \"leastconn\"\nservers = [{ name = \"a\", address = \"a:1\" }]",
            "11:11 backends.b.balance: expected \"round_robin\", \"static_round_robin\", \"least_connections\", \"first\"",
            &["did you mean \"least_connections\"?"],
        ),
        (&backend("balance = 3"), "11:11 backends.b.balance: expected", &["or a table with such an `algorithm`"]),
        (&backend("balance = {}"), "11:11 backends.b.balance: `algorithm` is missing", &[]),
        (
            &backend("balance = { algorithm = \"uri\", dept = 1 }"),
            "11:32 backends.b.balance.dept: unknown key",
            &["`depth`?"],
        ),
        (
            &backend("balance = \"header\""),
            "11:11 backends.b.balance: `name` is missing: expected a header's, as in `{ algorithm = \"header\", name = \"X-User\" }`",
            &[],
        ),
        (
            &backend("balance = { algorithm = \"source\", depth = 2 }"),
            "11:43 backends.b.balance.depth: this is a key of \"uri\" alone",
            &["the algorithm is another"],
        ),
        (
            &backend("balance = { algorithm = \"random\", draws = 0 }"),
            "11:43 backends.b.balance.draws: expected a whole number from 1 to 16",
            &[],
        ),
        (
            &backend("balance = { algorithm = \"source\", hash = \"consistant\" }"),
            "11:42 backends.b.balance.hash: expected \"map_based\" or \"consistent\"",
            &["did you mean \"consistent\"?"],
        ),
        (
            &format!(
                "{}\n[frontends.b]\nmode = \"tcp\"\nbind = \"*:81\"\ndefault_backend = \"b\"",
                backend("balance = \"uri\"")
            ),
            "11:11 backends.b.balance: servers are chosen by what is in a request in HTTP only",
            &["a frontend of mode \"tcp\" leads here"],
        ),
        (
            &format!(
                "{}\n[frontends.b]\nmode = \"tcp\"\nbind = \"*:81\"\ndefault_backend = \"app\"\n\
                 routes = [{{ source = \"::/0\", backend = \"b\" }}]",
                backend("balance = \"uri\"")
            ),
            "11:11 backends.b.balance: servers are chosen by what is in a request in HTTP only",
            &["a frontend of mode \"tcp\" leads here"],
        ),
        (
            &backend("when_all_down = \"try\""),
            "11:17 backends.b.when_all_down: expected \"reject\" or \"try_all\"",
            &[],
        ),
        (&backend("slow_start = 10"), "11:14 backends.b.slow_start: expected a time", &["write \"10s\""]),
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
        (&backend("stick = { by = \"header\" }"), "11:9 backends.b.stick: `name` is missing: expected a header's", &[]),
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
        (
            "[backends.b]\nhealth = { expect = [\"200-399\", \"99\"] }\nservers = [{ name = \"a\", address = \"a:1\" }]",
            "11:33 backends.b.health.expect[1]: expected a status or a range",
            &["statuses are 100 to 599"],
        ),
        // Virtual routers.
        ("[vrrp.a]\nvirtual_router_id = 1\naddresses = \"192.0.2.1/24\"", "10:7 vrrp.a: `interface` is missing", &[]),
        (&vrrp("priority = 256"), "14:12 vrrp.a.priority: expected a whole number from 1 to 255", &[]),
        (
            &vrrp("advertisement_interval = \"41s\""),
            "14:26 vrrp.a.advertisement_interval: expected \"10ms\" to \"40.95s\"",
            &[],
        ),
        (
            &vrrp("advertisement_interval = \"25ms\""),
            "14:26 vrrp.a.advertisement_interval: expected",
            &["in steps of 10ms"],
        ),
        (&vrrp("unicast_peers = [\"fe80::1\"]"), "14:18 vrrp.a.unicast_peers[0]: expected an IPv4 address", &["IPv6"]),
        (
            "[vrrp.a]\ninterface = \"eth1\"\nvirtual_router_id = 1\naddresses = [\"192.0.2.1\"]",
            "13:14 vrrp.a.addresses[0]: expected an address with the prefix length",
            &["write \"192.0.2.1/24\""],
        ),
        (
            &vrrp("[vrrp.b]\ninterface = \"eth1\"\nvirtual_router_id = 51\naddresses = \"192.0.2.2/24\""),
            "16:21 vrrp.b.virtual_router_id: every virtual router on an interface has its own VRID",
            &["is taken on eth1", "first here"],
        ),
        (
            &vrrp("[vrrp.b]\ninterface = \"eth2\"\nvirtual_router_id = 51\naddresses = \"192.0.2.20/32\""),
            "17:13 vrrp.b.addresses: an address belongs to one virtual router",
            &["first here"],
        ),
        // Peering.
        ("[peering]\nlisten = \"192.0.2.1:1\"", "10:1 peering: `peers` is missing", &[]),
        (
            "[peering]\nlisten = \"192.0.2.1\"\npeers = { b = \"192.0.2.2:1\" }",
            "11:10 peering.listen: expected",
            &["port is missing"],
        ),
        (
            "[node]\nname = \"lb1\"\n[peering]\nlisten = \"192.0.2.1:1\"\npeers = { lb1 = \"192.0.2.2:1\" }",
            "14:11 peering.peers.lb1: a peer is another node",
            &["this node has this name"],
        ),
        (
            "[peering]\nlisten = \"192.0.2.1:1\"\npeers = { b = \"192.0.2.1:1\" }",
            "12:15 peering.peers.b: a peer is another node",
            &["`peering.listen` is this address"],
        ),
        // Not TOML.
        ("[node]\nname = \"lb1", "11:12 invalid basic string", &[]),
        ("[node]\nname = lb1", "11:8 string values must be quoted", &[]),
        ("[node", "10:6 unclosed table", &[]),
        ("[backends.app]", "10:11 duplicate key", &[]),
        (
            "[log]\nlevel = [\n  \"info\",\nformat = \"off\"",
            "13:1 a list or a string is not closed",
            &["11 | level = [", "it is opened here"],
        ),
    ];
    for (number, (lines, expected, words)) in cases.iter().enumerate() {
        let output = check(&format!("case-{number}"), &format!("{SMALLEST}\n\n{lines}\n"));
        let message = stderr(&output);
        let (place, title) = expected.split_once(' ').unwrap();
        assert_eq!(output.status.code(), Some(1), "{lines}\n{message}");
        assert_eq!(stdout(&output), "", "{lines}");
        assert!(message.contains(&format!("error: {title}")), "{title:?} is not in\n{message}");
        assert!(message.contains(&format!("case-{number}.toml:{place}\n")), "{place} is not in\n{message}");
        assert!(message.ends_with(".toml: 1 error\n"), "more than one error of\n{lines}\n{message}");
        for word in *words {
            assert!(message.contains(word), "{word:?} is not in\n{message}");
        }
    }
}

#[test]
fn all_errors_are_reported_at_once_in_the_order_of_the_file() {
    let text = r#"
[process]
threads = "many"
colour = "green"

[frontends.web]
bind = ["*:80", "*:http", "*:80"]
default_backend = "apple"

[backends.app]
retries = -1
[[backends.app.servers]]
name = "one"
address = 80
weight = 1000
[[backends.app.servers]]
name = "one"
address = "192.0.2.22:80"
"#;
    let output = check("many", text);
    let message = stderr(&output);
    let titles: Vec<&str> = message
        .lines()
        .filter_map(|line| line.strip_prefix("error: ")?.split_once(": "))
        .map(|(path, _)| path)
        .collect();
    let expected = [
        "process.threads",
        "process.colour",
        "frontends.web.bind[1]",
        "frontends.web.bind[2]",
        "frontends.web.default_backend",
        "backends.app.retries",
        "backends.app.servers[0].address",
        "backends.app.servers[0].weight",
        "backends.app.servers[1].name",
    ];
    assert_eq!(titles, expected, "{message}");
    assert!(message.ends_with("many.toml: 9 errors\n"), "{message}");
}

#[test]
fn a_syntax_error_does_not_hide_the_others() {
    let output = check("syntax", "[node]\nname = \"lb1\n\n[process]\nthreads = 0\n\n[log\n\n[timeouts]\nqueue = 5\n");
    let message = stderr(&output);
    for title in ["invalid basic string", "process.threads: ", "unclosed table", "timeouts.queue: "] {
        assert!(message.contains(&format!("error: {title}")), "{title:?} is not in\n{message}");
    }
    assert!(message.ends_with(": 4 errors\n"), "{message}");
}

#[test]
fn an_empty_file_and_an_absent_one_are_errors() {
    let output = check("empty", "# nothing yet\n");
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("at least one frontend or one virtual router"), "{}", stderr(&output));

    let output = relevo(&["check", "-c", "/nowhere/relevo.toml"]);
    assert_eq!(output.status.code(), Some(1));
    let expected = "relevo: cannot read the configuration /nowhere/relevo.toml: No such file or directory";
    assert!(stderr(&output).starts_with(expected), "{}", stderr(&output));
}

#[test]
fn colour_is_for_terminals_that_want_it() {
    let file = write("colour", "[nod]\n");
    let on_terminal = |no_color: &str| {
        let terminal = nix::pty::openpty(None, None).unwrap();
        let mut command = command(&["check", "-c", file.to_str().unwrap()]);
        let mut child = command.env("NO_COLOR", no_color).stderr(terminal.slave).spawn().unwrap();
        // It fits the terminal's buffer, which is gone when its last user is: read it before.
        child.wait().unwrap();
        drop(command);
        let mut bytes = [0; 4096];
        let length = nix::unistd::read(&terminal.master, &mut bytes).unwrap();
        String::from_utf8(bytes[..length].to_vec()).unwrap()
    };
    assert!(on_terminal("").contains("\x1b["));
    assert!(!on_terminal("1").contains('\x1b'));
    assert!(!stderr(&relevo(&["check", "-c", file.to_str().unwrap()])).contains('\x1b'));
}

/// What a table accepts is what an unknown key in it is answered with.
#[test]
fn the_reference_names_every_key() {
    let tables = [
        "[node]",
        "[process]",
        "[log]",
        "[timeouts]",
        "[frontends.x]",
        "[frontends.x.forwarded_for]",
        "[frontends.x.request_id]",
        "[[frontends.x.rules]]",
        "[[frontends.x.rules]]\n[frontends.x.rules.when]",
        "[[frontends.x.rules]]\n[frontends.x.rules.redirect]",
        "[[frontends.x.rules]]\n[frontends.x.rules.rewrite]",
        "[[frontends.x.rules]]\n[frontends.x.rules.response_headers]",
        "[[frontends.x.rules]]\n[frontends.x.rules.respond]",
        "[[frontends.x.rules]]\n[frontends.x.rules.rate_limit]",
        "[[frontends.x.rules]]\n[frontends.x.rules.deny_body]",
        "[[frontends.x.routes]]",
        "[[frontends.x.routes]]\n[frontends.x.routes.not]",
        "[[frontends.x.routes]]\n[frontends.x.routes.header]",
        "[frontends.x.timeouts]",
        "[backends.x]",
        "[backends.x.balance]",
        "[backends.x.cookie]",
        "[backends.x.stick]",
        "[backends.x.health]",
        "[backends.x.agent]",
        "[stats]",
        "[frontends.x.stats]",
        "[frontends.x.capture]",
        "[[log.target]]",
        "[backends.x.timeouts]",
        "[[backends.x.servers]]",
        "[vrrp.x]",
        "[peering]",
    ];
    for (number, table) in tables.iter().enumerate() {
        let output = check(&format!("reference-{number}"), &format!("{table}\nzzz = 1\n"));
        let message = stderr(&output);
        let (_, accepted) = message.split_once("accepted here: ").unwrap_or_else(|| panic!("{message}"));
        for key in accepted.lines().next().unwrap().split(", ") {
            assert!(REFERENCE.contains(&format!("| `{key}` |")), "`{key}` of {table} is not in the reference");
        }
    }
}

#[test]
fn a_key_is_made_once_and_for_its_owner() {
    let directory = directory("key");
    let file = directory.join("pair.key");
    let file_name = file.to_str().unwrap();
    assert_eq!(relevo(&["key", file_name]).status.code(), Some(0));
    let key = fs::read_to_string(&file).unwrap();
    assert_eq!(key.len(), 65);
    assert!(key.trim_end().bytes().all(|byte| byte.is_ascii_hexdigit()));
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o7777, 0o600);

    let again = relevo(&["key", file_name]);
    assert_eq!(again.status.code(), Some(1));
    assert!(stderr(&again).contains("exists and is not overwritten"), "{}", stderr(&again));
    assert_eq!(fs::read_to_string(&file).unwrap(), key);

    let other = directory.join("other.key");
    assert_eq!(relevo(&["key", other.to_str().unwrap()]).status.code(), Some(0));
    assert_ne!(fs::read_to_string(&other).unwrap(), key);

    let nowhere = relevo(&["key", "/nowhere/pair.key"]);
    assert_eq!(nowhere.status.code(), Some(1));
    assert!(stderr(&nowhere).contains("cannot write the key file /nowhere/pair.key"), "{}", stderr(&nowhere));
}

#[test]
fn help_and_version_everywhere_and_2_for_wrong_usage() {
    for command in [&[][..], &["check"], &["key"]] {
        for option in ["--help", "--version"] {
            let output = relevo(&[command, &[option]].concat());
            assert_eq!(output.status.code(), Some(0), "{command:?} {option}");
            assert!(!stdout(&output).is_empty());
        }
    }
    assert!(stdout(&relevo(&["--version"])).contains(env!("CARGO_PKG_VERSION")));
    for wrong in [&["chek"][..], &["key"], &["check", "--colour"], &[]] {
        assert_eq!(relevo(wrong).status.code(), Some(2), "{wrong:?}");
    }
}

/// A backend of one server with this line.
fn backend(line: &str) -> String {
    format!("[backends.b]\n{line}\nservers = [{{ name = \"a\", address = \"a:1\" }}]")
}

/// A line more for a sound virtual router, whose own are 10 to 13.
fn vrrp(line: &str) -> String {
    format!("[vrrp.a]\ninterface = \"eth1\"\nvirtual_router_id = 51\naddresses = [\"192.0.2.20/24\"]\n{line}")
}

fn check(name: &str, text: &str) -> Output {
    relevo(&["check", "-c", write(name, text).to_str().unwrap()])
}

fn write(name: &str, text: &str) -> PathBuf {
    let file = directory(name).join(format!("{name}.toml"));
    fs::write(&file, text).unwrap();
    file
}

/// Empty, and a test's own.
fn directory(name: &str) -> PathBuf {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("config").join(name);
    let _ = fs::remove_dir_all(&directory);
    fs::create_dir_all(&directory).unwrap();
    directory
}

fn relevo(arguments: &[&str]) -> Output {
    command(arguments).output().unwrap()
}

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_relevo"));
    command.args(arguments).env_remove("NO_COLOR");
    command
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}
