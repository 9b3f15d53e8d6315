//! What is in the digest and what is not: nodes of different versions compare it.

use crate::config::parse_for;
use crate::config::tests::{EXAMPLE, machine};

fn hash(text: &str) -> String {
    parse_for(text, "test", &machine()).unwrap_or_else(|errors| panic!("{errors}")).hash
}

#[test]
fn the_digest_of_the_example_is_what_it_always_was() {
    // It had this VRID once.
    let example = EXAMPLE.replace("virtual_router_id = 71", "virtual_router_id = 51");
    assert_eq!(hash(&example), "641689ee824d731bfa84187b975790132ecae7c7645470e4e224d386aee39231");
}

#[test]
fn what_belongs_to_the_node_is_not_in_the_digest() {
    let second = EXAMPLE
        .replace("name = \"lb1\"", "name = \"lb2\"")
        .replace("threads = 2", "threads = 8")
        .replace("\"httplog\"", "\"off\"")
        .replace("priority = 254", "priority = 253")
        .replace("\"eth1\"", "\"eth2\"")
        .replace("addresses =", "unicast_peers = \"192.168.1.11\"\naddresses =")
        .replace("listen = \"192.168.1.11:8650\"", "listen = \"192.168.1.12:8650\"")
        .replace("{ lb2 = \"192.168.1.12:8650\" }", "{ lb1 = \"192.168.1.11:8650\" }");
    assert_eq!(hash(&second), hash(EXAMPLE));
}

#[test]
fn defaults_and_the_order_of_tables_make_no_difference() {
    let smallest = "[frontends.b]\nbind = '*:80'\ndefault_backend = 'a'\n\
                    [backends.a]\nservers = [{ name = 'x', address = 'a:1' }]\n";
    let explicit = "[backends.a]\nretries = 3\nhealth = { interval = '2000ms', timeout = '2s' }\n\
                    servers = [{ name = 'x', address = 'a:1', weight = 1, check = true, cookie = 'x' }]\n\
                    [timeouts]\nclient = '50s'\ntunnel = '60m'\n\
                    [frontends.b]\nbind = ['0.0.0.0:80']\nmode = 'http'\ndefault_backend = 'a'\n";
    assert_eq!(hash(smallest), hash(explicit));
}

#[test]
fn everything_else_is() {
    for (written, other) in [
        ("*:80", "*:81"),
        ("forwarded_for = true", "forwarded_for = false"),
        ("\".gif\", \".png\"", "\".png\", \".gif\""),
        ("client = \"50s\"", "client = \"51s\""),
        ("mode = \"prefix\"", "mode = \"insert\""),
        ("rise = 2", "rise = 1"),
        ("weight = 60", "weight = 61"),
        ("check = false", "check = true"),
        ("source = \"192.168.1.20\"", ""),
        ("virtual_router_id = 71", "virtual_router_id = 72"),
        ("192.168.1.20/24", "192.168.1.20/25"),
        ("\"100ms\"", "\"200ms\""),
    ] {
        let changed = EXAMPLE.replace(written, other);
        assert_ne!(changed, EXAMPLE, "{written} is not in the example");
        assert_ne!(hash(&changed), hash(EXAMPLE), "{other}");
    }
}

/// Of a backend with these lines and a server with these keys.
fn hash_of_backend(lines: &str, server: &str) -> String {
    hash(&format!(
        "[frontends.b]\nbind = '*:80'\ndefault_backend = 'a'\n\
         [backends.a]\n{lines}\nservers = [{{ name = 'x', address = '192.0.2.1:1'{server} }}]\n"
    ))
}

#[test]
fn how_servers_are_chosen_and_checked_is_in_the_digest() {
    let lines = [
        "",
        "balance = 'static_round_robin'",
        "balance = 'least_connections'",
        "balance = 'first'",
        "balance = 'random'",
        "balance = { algorithm = 'random', draws = 3 }",
        "balance = 'source'",
        "balance = { algorithm = 'source', hash = 'consistent' }",
        "balance = 'uri'",
        "balance = { algorithm = 'uri', whole = true }",
        "balance = { algorithm = 'uri', length = 3 }",
        "balance = { algorithm = 'uri', depth = 3 }",
        "balance = { algorithm = 'header', name = 'x' }",
        "balance = { algorithm = 'parameter', name = 'x' }",
        "balance = { algorithm = 'parameter', name = 'y' }",
        "slow_start = '10s'",
        "all_backups = true",
        "when_all_down = 'try_all'",
        "health = { port = 81 }",
        "health = { fast_interval = '100ms' }",
        "health = { down_interval = '100ms' }",
        "health = { spread = 10 }",
        "health = { observe = 'layer4' }",
        "health = { observe = 'layer7' }",
        "health = { observe = 'layer7', error_limit = 3 }",
        "health = { on_refused = 'mark_down' }",
        "health = { headers = { x = 'a' } }",
        "health = { headers = { x = 'b' } }",
        "health = { expect_body = 'a' }",
        "agent = { port = 81 }",
        "agent = { port = 81, interval = '1s' }",
        "agent = { port = 81, send = 'x' }",
        "retry_on = []",
        "retry_on = 'empty_response'",
        "retry_on = 'junk_response'",
        "retry_on = 'response_timeout'",
        "retry_on = 503",
        "retry_on = [502, 503]",
        "retry_on = 'all_retryable_errors'",
        "retry_budget = { percent = 30 }",
        "retry_budget = { min_per_second = 30 }",
        "retry_non_idempotent = true",
        "buffer_request = 1000",
        "reuse = 'never'",
        "reuse = 'always'",
        "connection = 'server_close'",
        "connection = 'close'",
        "errors = { 503 = '/errors/a.html' }",
        "errors = { 503 = '/errors/b.html' }",
        "errors = { 504 = '/errors/a.html' }",
        "cookie = { name = 'S', mode = 'prefix' }",
        "cookie = { name = 'S', mode = 'rewrite' }",
        "cookie = { name = 'S', mode = 'insert' }",
        "cookie = { name = 'S', mode = 'insert', indirect = false }",
        "cookie = { name = 'S', mode = 'insert', nocache = true }",
        "cookie = { name = 'S', mode = 'insert', postonly = true }",
        "cookie = { name = 'S', mode = 'insert', httponly = true }",
        "cookie = { name = 'S', mode = 'insert', secure = true }",
        "cookie = { name = 'S', mode = 'insert', domain = 'a.example' }",
        "cookie = { name = 'S', mode = 'insert', same_site = 'lax' }",
        "tcp_keep_alive = {}",
        "tcp_keep_alive = { idle = '30s' }",
        "tcp_keep_alive = { interval = '30s' }",
        "tcp_keep_alive = { count = 3 }",
        "cookie = { name = 'S', mode = 'prefix', httponly = false }",
        "cookie = { name = 'S', mode = 'prefix', secure = true, same_site = 'none' }",
        "cookie = { name = 'S', mode = 'insert', max_idle = '1m' }",
        "cookie = { name = 'S', mode = 'insert', max_life = '1m' }",
        "stick = { by = 'source' }",
        "stick = { by = 'source', expire = '1m' }",
        "stick = { by = 'source', size = 100 }",
        "stick = { by = 'header', name = 'x' }",
        "stick = { by = 'cookie', name = 'x' }",
    ];
    let servers = [", backup = true", ", check_port = 81", ", check_address = '192.0.2.2'"];
    let mut digests: Vec<_> = lines.iter().map(|lines| hash_of_backend(lines, "")).collect();
    digests.extend(servers.iter().map(|server| hash_of_backend("", server)));
    digests.sort_unstable();
    digests.dedup();
    assert_eq!(digests.len(), lines.len() + servers.len());
}

#[test]
fn their_defaults_are_not() {
    for (written, same) in [
        ("balance = 'round_robin'", ""),
        ("balance = { algorithm = 'round_robin' }", ""),
        ("balance = { algorithm = 'random', draws = 2 }", "balance = 'random'"),
        ("balance = { algorithm = 'uri', hash = 'map_based', whole = false }", "balance = 'uri'"),
        ("balance = { algorithm = 'header', name = 'X' }", "balance = { algorithm = 'header', name = 'x' }"),
        ("all_backups = false\nwhen_all_down = 'reject'", ""),
        ("health = { fast_interval = '500ms', down_interval = '2s', spread = 3 }", ""),
        ("health = { observe = 'off', on_refused = 'retry' }", ""),
        ("health = { interval = '8s', fast_interval = '1s', down_interval = '8s' }", "health = { interval = '8s' }"),
        ("agent = { port = 1, interval = '2s', send = '' }", "agent = { port = 1 }"),
        ("retry_on = 'connection_failure'\nretry_budget = { percent = 20, min_per_second = 10 }", ""),
        ("retry_on = [503, 502, 503]", "retry_on = [502, 503]"),
        (
            "retry_on = 'all_retryable_errors'",
            "retry_on = ['connection_failure', 'empty_response', 'junk_response', 'response_timeout', 500, 502, 503, 504]",
        ),
        ("retry_non_idempotent = false\nreuse = 'safe'\nconnection = 'keep_alive'\nerrors = {}", ""),
        (
            "cookie = { name = 'S', mode = 'insert', indirect = true, nocache = false, postonly = false, \
             httponly = false, secure = false }",
            "cookie = { name = 'S', mode = 'insert' }",
        ),
        (
            "cookie = { name = 'S', mode = 'prefix', httponly = true, secure = false }",
            "cookie = { name = 'S', mode = 'prefix' }",
        ),
        ("stick = { by = 'source', expire = '30m', size = 100000 }", "stick = { by = 'source' }"),
        ("stick = { by = 'header', name = 'X' }", "stick = { by = 'header', name = 'x' }"),
    ] {
        assert_eq!(hash_of_backend(written, ", backup = false"), hash_of_backend(same, ""), "{written}");
    }
}

#[test]
fn so_is_all_that_is_asked_of_and_done_to_a_request() {
    let with = |lines: &str| {
        hash(&format!(
            "[frontends.f]\nbind = '*:1'\ndefault_backend = 'b'\n{lines}\n\
             [backends.b]\nservers = [{{ name = 's', address = 'a:1' }}]\n"
        ))
    };
    for (one, same) in [
        ("", "rules = []"),
        ("", "forwarded_for = false\nforwarded = false\ntrusted_proxies = []"),
        ("forwarded_for = true", "forwarded_for = { only_if_absent = false }"),
        ("request_id = {}", "request_id = { header = 'X-Request-ID', keep = true }"),
        (
            "rules = [{ rate_limit = { requests = 5 } }]",
            "rules = [{ rate_limit = { requests = 5, burst = 5, per = '1000ms' } }]",
        ),
        (
            "routes = [{ method = 'GET', path = '/', backend = 'b' }]",
            "routes = [{ backend = 'b', path = ['/'], method = ['GET'] }]",
        ),
    ] {
        assert_eq!(with(one), with(same), "{same}");
    }
    let all = [
        "",
        "forwarded_for = true",
        "forwarded_for = { only_if_absent = true }",
        "forwarded_for = { except = '::1' }",
        "forwarded = true",
        "forwarded_proto = true",
        "forwarded_host = true",
        "trusted_proxies = ['::1']",
        "request_id = {}",
        "request_id = { keep = false }",
        "routes = [{ path_regex = 'a', backend = 'b' }]",
        "routes = [{ path_regex = 'b', backend = 'b' }]",
        "routes = [{ host_regex = 'a', backend = 'b' }]",
        "routes = [{ not = { path = '/' }, backend = 'b' }]",
        "routes = [{ any = [{ path = '/' }], backend = 'b' }]",
        "routes = [{ all = [{ path = '/' }], backend = 'b' }]",
        "routes = [{ header = { name = 'a' }, backend = 'b' }]",
        "routes = [{ header = { name = 'a', value = 'b' }, backend = 'b' }]",
        "routes = [{ header = { name = 'a', prefix = 'b' }, backend = 'b' }]",
        "routes = [{ cookie = { name = 'a', prefix = 'b' }, backend = 'b' }]",
        "routes = [{ query = { name = 'a', regex = 'b' }, backend = 'b' }]",
        "routes = [{ source = '::1', backend = 'b' }]",
        "routes = [{ destination_port = 1, backend = 'b' }]",
        "connection = 'close'",
        "errors = { 503 = '/errors/a.html' }",
        "rules = [{ deny = 403 }]",
        "rules = [{ deny = 403, when = { path = '/' } }]",
        "rules = [{ redirect = { prefix = '/a' } }]",
        "rules = [{ redirect = { prefix = '/a', status = 301 } }]",
        "rules = [{ redirect = { prefix = '/a', replace = '/' } }]",
        "rules = [{ redirect = { location = '/a' } }]",
        "rules = [{ redirect = { scheme = 'https' } }]",
        "rules = [{ rewrite = { prefix = '/a' } }]",
        "rules = [{ rewrite = { path = '/a' } }]",
        "rules = [{ rewrite = { regex = 'a', with = 'b' } }]",
        "rules = [{ request_headers = { set = { a = 'b' } } }]",
        "rules = [{ request_headers = { add = { a = 'b' } } }]",
        "rules = [{ request_headers = { remove = ['a'] } }]",
        "rules = [{ response_headers = { set = { a = 'b' } } }]",
        "rules = [{ response_headers = { set = { a = 'b' }, status = 500 } }]",
        "rules = [{ respond = {} }]",
        "rules = [{ respond = { body = 'a' } }]",
        "rules = [{ rate_limit = { requests = 5, burst = 6 } }]",
        "rules = [{ rate_limit = { requests = 5, header = 'a' } }]",
        "rules = [{ rewrite = { normalize = true } }]",
        "rules = [{ deny_body = { regex = 'a' } }]",
        "rules = [{ deny_body = { regex = 'a', first = 1 } }]",
    ];
    let digests: std::collections::BTreeSet<_> = all.iter().map(|lines| with(lines)).collect();
    assert_eq!(digests.len(), all.len());
}
