//! Backends, their servers and how one of them is chosen.

use super::{assert_each, backend};

#[test]
fn each_mistake_in_a_backend_or_a_server_is_explained() {
    assert_each(
        "backends",
        &[
            (
                "[backends.b]",
                "10:11 backends.b: `servers` is missing: expected at least one `[[backends.b.servers]]`",
                &[],
            ),
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
                &backend("tcp_keep_alive = { idle = \"1500ms\" }"),
                "11:27 backends.b.tcp_keep_alive.idle: expected whole seconds, from 1s to 9h",
                &["found 1.5s"],
            ),
            (
                &backend("tcp_keep_alive = { interval = \"10h\" }"),
                "11:31 backends.b.tcp_keep_alive.interval: expected whole seconds, from 1s to 9h",
                &["found 36000s"],
            ),
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
                &backend("when_all_down = \"try\""),
                "11:17 backends.b.when_all_down: expected \"reject\" or \"try_all\"",
                &[],
            ),
            (&backend("slow_start = 10"), "11:14 backends.b.slow_start: expected a time", &["write \"10s\""]),
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
                "[[backends.b.servers]]\nname = \"a\"\naddress = \"a:1\"\nbalance = \"first\"",
                "13:1 backends.b.servers[0].balance: unknown key",
                &["it is a key of `backends.b`"],
            ),
            (
                "[[backends.b.servers]]\nname = \"a\"\naddress = \"a:1\"\nssl = true",
                "13:1 backends.b.servers[0].ssl: not supported in this version",
                &[],
            ),
            (
                "[backends.b]\nservers = [\"192.0.2.21:80\"]",
                "11:12 backends.b.servers[0]: expected a table",
                &["such as `{ name = \"one\", address = \"192.0.2.21:80\" }`"],
            ),
            (
                "[[backends.b.servers]]\nname = \"a\"\naddress = \"a:1\"\nbackup = \"true\"",
                "13:10 backends.b.servers[0].backup: expected `true` or `false`",
                &["write it without quotes: `true`"],
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
        ],
    );
}
