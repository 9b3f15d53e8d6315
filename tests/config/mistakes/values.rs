//! What is no TOML, keys that are not known, and values of any table.

use super::assert_each;

#[test]
fn each_mistake_in_syntax_keys_and_values_is_explained() {
    assert_each(
        "values",
        &[
            ("[nod]", "10:2 nod: unknown key", &["did you mean `node`?", "accepted here: node, process, log"]),
            ("[process]\nthread = 1", "11:1 process.thread: unknown key", &["did you mean `threads`?"]),
            ("[node]\n\"a\\u001bb\" = 1", "11:1 node.\"a\\u{1b}b\": unknown key", &[]),
            ("[node]\nname = \"lb1", "11:12 invalid basic string", &[]),
            ("[node]\nname = lb1", "11:8 string values must be quoted", &[]),
            ("[node", "10:6 unclosed table", &[]),
            ("[backends.app]", "10:11 duplicate key", &[]),
            (
                "[log]\nlevel = [\n  \"info\",\nformat = \"off\"",
                "13:1 a list or a string is not closed",
                &["11 | level = [", "it is opened here"],
            ),
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
            (
                "[log]\ntarget = \"192.0.2.1:514\"",
                "11:10 log.target: expected",
                &["did you mean \"udp:192.0.2.1:514\"?"],
            ),
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
            (
                "[[process]]",
                "10:1 process: expected a table",
                &["found a list", "write `[process]`, with single brackets"],
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
        ],
    );
}
