//! The reference of the configuration, beside what the program accepts.

use crate::{check, stderr};

const REFERENCE: &str = include_str!("../../docs/configuration.md");

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
        "[frontends.x.tcp_keep_alive]",
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
