//! The configuration: from the text of a file to a model that is valid by construction, or every error in it at once.

pub mod changes;
mod diagnostic;
mod error_page;
mod file;
mod hash;
pub mod key;
pub mod log_format;
pub mod model;
pub(crate) mod nearest;
mod read;
mod syntax;
mod validate;
mod value;

use std::io;
use std::path::{Path, PathBuf};

use nix::sys::resource::{Resource, getrlimit};

pub use diagnostic::{Diagnostic, Diagnostics};
pub use model::Config;

/// Where the configuration is unless `-c` says otherwise.
pub const DEFAULT_PATH: &str = "/etc/relevo/relevo.toml";

/// Where the keeper answers unless `node.control_socket` says otherwise.
pub const DEFAULT_CONTROL_SOCKET: &str = "/run/relevo/control.sock";

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file itself.
    #[error("cannot read the configuration {}: {source}{}", path.display(), what_to_do(source.kind()))]
    Unreadable {
        /// As given.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// What is in it.
    #[error(transparent)]
    Invalid(#[from] Diagnostics),
}

fn what_to_do(kind: std::io::ErrorKind) -> &'static str {
    match kind {
        std::io::ErrorKind::NotFound => "; write it (docs/example.toml is one), or name another with -c",
        std::io::ErrorKind::PermissionDenied => "; run as root, or as a user who may read it",
        _ => "",
    }
}

/// Reads and checks a file.
///
/// # Errors
/// It cannot be read, or something in it is wrong: then everything that is.
pub fn load(path: &Path) -> Result<Config, LoadError> {
    load_for(path, &Machine::this())
}

/// The same, with the defaults of a given machine.
///
/// # Errors
/// It cannot be read, or something in it is wrong: then everything that is.
pub fn load_for(path: &Path, machine: &Machine) -> Result<Config, LoadError> {
    Ok(parse_for(&read_text(path)?, &path.display().to_string(), machine)?)
}

/// What defaults and files depend on.
#[derive(Debug, Clone)]
pub struct Machine {
    /// The default of `node.name`.
    pub host_name: String,
    /// The default of `process.threads`.
    pub cores: usize,
    /// How many files one process may have open, which limits the default of `process.max_connections`.
    pub open_files: u64,
    /// Reads a file that the configuration names.
    pub read: fn(&Path) -> io::Result<Vec<u8>>,
}

impl Machine {
    /// The one we run on.
    pub fn this() -> Self {
        let host_name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        Machine {
            host_name: if host_name.trim().is_empty() { "localhost".to_owned() } else { host_name.trim().to_owned() },
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            open_files: getrlimit(Resource::RLIMIT_NOFILE).map_or(u64::MAX, |(_, hard)| hard),
            read: error_page::read,
        }
    }
}

/// The control socket that a file names, whatever else is wrong in it: a node may run that was started with it when it was well.
///
/// # Errors
/// It cannot be read.
pub fn control_socket(path: &Path) -> Result<PathBuf, LoadError> {
    let text = read_text(path)?;
    let (toml, _) = syntax::well_formed(&text);
    let named = read::read(&toml).file.node.0.control_socket;
    Ok(named.map_or_else(|| DEFAULT_CONTROL_SOCKET.into(), |path| path.into_inner().0))
}

fn read_text(path: &Path) -> Result<String, LoadError> {
    std::fs::read_to_string(path).map_err(|source| LoadError::Unreadable { path: path.to_owned(), source })
}

/// Checks a text; `file_name` is for the errors.
///
/// # Errors
/// Everything that is wrong in it.
pub fn parse(text: &str, file_name: &str) -> Result<Config, Diagnostics> {
    parse_for(text, file_name, &Machine::this())
}

/// Checks a text for a given machine: pure; `file_name` is for the errors.
///
/// # Errors
/// Everything that is wrong in it.
pub fn parse_for(text: &str, file_name: &str, machine: &Machine) -> Result<Config, Diagnostics> {
    let (toml, mut problems) = syntax::well_formed(text);
    let reading = read::read(&toml);
    let config = if problems.is_empty() {
        validate::validate(reading, machine)
    } else {
        // What seems to be missing may be in what is broken: so only what is there is judged.
        problems.extend(reading.problems);
        Err(problems)
    };
    config.map_err(|mut list| {
        list.sort_by_key(|diagnostic| diagnostic.span.start);
        Diagnostics { file_name: file_name.to_owned(), text: text.to_owned(), list }
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const EXAMPLE: &str = include_str!("../../docs/example.toml");

    fn machine() -> Machine {
        let read = |path: &Path| match path.to_str() {
            Some(path) if path.starts_with("/errors/") => Ok(path.as_bytes().to_vec()),
            _ => Err(io::ErrorKind::NotFound.into()),
        };
        Machine { host_name: "lb1".to_owned(), cores: 4, open_files: u64::MAX, read }
    }

    fn hash(text: &str) -> String {
        parse_for(text, "test", &machine()).unwrap_or_else(|errors| panic!("{errors}")).hash
    }

    #[test]
    fn the_digest_of_the_example_is_what_it_always_was() {
        assert_eq!(hash(EXAMPLE), "641689ee824d731bfa84187b975790132ecae7c7645470e4e224d386aee39231");
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
            ("virtual_router_id = 51", "virtual_router_id = 52"),
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
            (
                "health = { interval = '8s', fast_interval = '1s', down_interval = '8s' }",
                "health = { interval = '8s' }",
            ),
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
            "rules = [{ deny_body = { regex = 'a' } }]",
            "rules = [{ deny_body = { regex = 'a', first = 1 } }]",
        ];
        let digests: std::collections::BTreeSet<_> = all.iter().map(|lines| with(lines)).collect();
        assert_eq!(digests.len(), all.len());
    }

    #[test]
    fn the_default_of_connections_is_what_the_limit_of_open_files_allows() {
        let connections = |process: &str, open_files| {
            let text = format!(
                "[process]\n{process}\n[frontends.f]\nbind = '*:1'\ndefault_backend = 'b'\n\
                                [backends.b]\nservers = [{{ name = 's', address = 'a:1' }}]\n"
            );
            let config = parse_for(&text, "test", &Machine { open_files, ..machine() }).unwrap();
            config.balancer.max_connections
        };
        assert_eq!(connections("", u64::MAX), 20_000);
        let fewer = connections("", 20_000);
        assert!((1_000..20_000).contains(&fewer) && model::open_files_for(fewer) <= 20_000, "{fewer}");
        assert_eq!(connections("", 1_024), 100, "so few files that it says so when it starts");
        assert_eq!(connections("max_connections = 20000", 1_024), 20_000, "who writes it down means it");
    }

    #[test]
    fn defaults_come_from_the_machine() {
        let config = parse_for(
            "[frontends]\n[vrrp.a]\ninterface='i'\nvirtual_router_id=1\naddresses='192.0.2.1/24'",
            "",
            &machine(),
        );
        let config = config.unwrap_or_else(|errors| panic!("{errors}"));
        assert_eq!((config.node.name.as_str(), config.balancer.threads), ("lb1", 4));
    }

    proptest! {
        /// Whatever is done to a file, there is a configuration, or errors that can be printed.
        #[test]
        fn no_text_is_too_broken_to_be_explained(
            cuts in proptest::collection::vec((any::<prop::sample::Index>(), 0..40usize, "[\\[\\]{}=\"'a-c,.#\n\r\t é5-]{0,3}"), 0..6),
        ) {
            let mut characters: Vec<char> = EXAMPLE.chars().collect();
            for (place, length, insertion) in cuts {
                let start = place.index(characters.len());
                let end = (start + length).min(characters.len());
                characters.splice(start..end, insertion.chars());
                prop_assume!(!characters.is_empty());
            }
            let text: String = characters.into_iter().collect();
            if let Err(errors) = parse_for(&text, "test", &machine()) {
                prop_assert!(errors.iter().len() > 0);
                prop_assert!(errors.render(true).contains("test"));
            }
        }

        #[test]
        fn nor_is_any_noise(text in "\\PC{0,60}|[\\[\\]{}=\"'a-c,.#\n\r\t 5-]{0,60}") {
            if let Err(errors) = parse_for(&text, "test", &machine()) {
                prop_assert!(errors.to_string().contains("test"));
            }
        }
    }
}
