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
pub(crate) mod text;
mod validate;
mod value;

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use nix::sys::resource::{Resource, getrlimit};

pub use diagnostic::{Diagnostic, Diagnostics};
pub use model::Config;

/// Where the configuration is unless `-c` says otherwise.
pub const DEFAULT_PATH: &str = "/etc/relevo/relevo.toml";

/// Where the keeper answers unless `node.control_socket` says otherwise.
pub const DEFAULT_CONTROL_SOCKET: &str = "/run/relevo/control.sock";

/// The times of files come from a clock of the kernel that is behind by so much at most (a tick, with 100 of them in a second).
const FILE_CLOCK: Duration = Duration::from_millis(10);

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
        std::io::ErrorKind::NotFound => {
            "; write it (examples: docs/example.toml, /usr/share/doc/relevo/examples/relevo.toml), or name another with -c"
        }
        std::io::ErrorKind::PermissionDenied => "; run as root, or as a user who may read it",
        _ => "",
    }
}

/// Reads and checks a file.
///
/// # Errors
/// It cannot be read, or something in it is wrong: then everything that is.
pub fn load(path: &Path) -> Result<Config, LoadError> {
    load_by(text::of_anything, path, &Machine::this())
}

/// The same of a regular file, for a node that runs and waits for nothing; with the defaults of a given machine.
///
/// # Errors
/// It cannot be read, is something else, or something in it is wrong: then everything that is.
pub fn load_again(path: &Path, machine: &Machine) -> Result<Config, LoadError> {
    load_by(text::of_regular_file, path, machine)
}

type Read = fn(&Path, u64) -> io::Result<Vec<u8>>;

fn load_by(read: Read, path: &Path, machine: &Machine) -> Result<Config, LoadError> {
    let read_at = format!("{:.3}", Timestamp::now() - FILE_CLOCK);
    let config = parse_for(&read_text(read, path)?, &path.display().to_string(), machine)?;
    Ok(Config { read_at, ..config })
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
    let text = read_text(text::of_regular_file, path)?;
    let (toml, _) = syntax::well_formed(&text);
    let named = read::read(&toml).file.node.0.control_socket;
    Ok(named.map_or_else(|| DEFAULT_CONTROL_SOCKET.into(), |path| path.into_inner().0))
}

fn read_text(read: Read, path: &Path) -> Result<String, LoadError> {
    let unreadable = |source| LoadError::Unreadable { path: path.to_owned(), source };
    String::from_utf8(read(path, text::LONGEST).map_err(unreadable)?).map_err(|error| {
        let line =
            1 + error.as_bytes().iter().take(error.utf8_error().valid_up_to()).filter(|byte| **byte == b'\n').count();
        unreadable(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("line {line} is no text in UTF-8: save it as that (a comment counts, too)"),
        ))
    })
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

    pub(in crate::config) const EXAMPLE: &str = include_str!("../../docs/example.toml");

    pub(in crate::config) fn machine() -> Machine {
        let read = |path: &Path| match path.to_str() {
            Some(path) if path.starts_with("/errors/") => Ok(path.as_bytes().to_vec()),
            _ => Err(io::ErrorKind::NotFound.into()),
        };
        Machine { host_name: "lb1".to_owned(), cores: 4, open_files: u64::MAX, read }
    }

    #[test]
    fn the_default_of_connections_is_what_the_limit_of_open_files_allows() {
        let balancer = |process: &str, open_files| {
            let text = format!(
                "[process]\n{process}\n[frontends.f]\nbind = '*:1'\ndefault_backend = 'b'\n\
                                [backends.b]\nservers = [{{ name = 's', address = 'a:1' }}]\n"
            );
            parse_for(&text, "test", &Machine { open_files, ..machine() }).unwrap().balancer
        };
        assert_eq!(balancer("", u64::MAX).max_connections, 20_000);
        for open_files in [20_000, 4_096, 1_024, 256] {
            let balancer = balancer("", open_files);
            let connections = balancer.max_connections as u64;
            assert!((open_files / 6..20_000).contains(&connections), "{connections}");
            assert!(3 * connections <= open_files - (open_files / 2).min(2_048), "{connections}");
        }
        let written = balancer("max_connections = 20000", 1_024);
        assert_eq!(written.max_connections, 20_000, "the file may be for another machine: it is limited where it runs");
        for open_files in [20_000, 4_096, 1_024, 256] {
            let mut limited = written.clone();
            limited.limit_to(open_files);
            let (clients, idle) = (limited.max_connections as u64, limited.idle_connections as u64);
            let kept_back = (open_files / 2).min(2_048);
            assert!(clients >= open_files / 5 && idle >= open_files / 17, "{clients} {idle} of {open_files}");
            assert!(2 * clients + idle <= open_files - kept_back, "{clients} {idle} of {open_files}");
        }
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
