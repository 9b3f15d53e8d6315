//! The configuration: from the text of a file to a model that is valid by construction, or every error in it at once.

mod diagnostic;
mod file;
mod hash;
pub mod key;
pub mod model;
mod nearest;
mod read;
mod validate;
mod value;

use std::path::{Path, PathBuf};

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
    #[error("cannot read the configuration {}: {source}", path.display())]
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

/// Reads and checks a file.
///
/// # Errors
/// It cannot be read, or something in it is wrong: then everything that is.
pub fn load(path: &Path) -> Result<Config, LoadError> {
    let text =
        std::fs::read_to_string(path).map_err(|source| LoadError::Unreadable { path: path.to_owned(), source })?;
    Ok(parse(&text, &path.display().to_string())?)
}

/// Checks a text; `file_name` is for the errors.
///
/// # Errors
/// Everything that is wrong in it.
pub fn parse(text: &str, file_name: &str) -> Result<Config, Diagnostics> {
    parse_for(text, file_name, &Machine::this())
}

/// What defaults depend on.
#[derive(Debug, Clone)]
pub struct Machine {
    /// The default of `node.name`.
    pub host_name: String,
    /// The default of `process.threads`.
    pub cores: usize,
}

impl Machine {
    /// The one we run on.
    pub fn this() -> Self {
        let host_name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        Machine {
            host_name: if host_name.trim().is_empty() { "localhost".to_owned() } else { host_name.trim().to_owned() },
            cores: std::thread::available_parallelism().map_or(1, usize::from),
        }
    }
}

/// Checks a text for a given machine: pure.
///
/// # Errors
/// Everything that is wrong in it.
pub fn parse_for(text: &str, file_name: &str, machine: &Machine) -> Result<Config, Diagnostics> {
    validate::validate(read::read(text), machine).map_err(|mut list| {
        list.sort_by_key(|diagnostic| diagnostic.span.start);
        Diagnostics { file_name: file_name.to_owned(), text: text.to_owned(), list }
    })
}
