//! The key that the nodes of a pair share: 32 random bytes, a line of hex in a file that nobody else reads.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::libc::{O_CLOEXEC, O_NOFOLLOW, O_NONBLOCK};

/// Bytes of a key.
pub const KEY_LENGTH: usize = 32;

/// The shared key. It is not printed, not even by a debugger's format.
#[derive(Clone, PartialEq, Eq)]
pub struct Key([u8; KEY_LENGTH]);

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum KeyError {
    #[error("cannot read the key file {}: {source}; make one with `relevo key {}`", path.display(), path.display())]
    Missing { path: PathBuf, source: io::Error },
    #[error("cannot read the key file {}: {source}", path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("the key file {} is not a regular file", path.display())]
    NotAFile { path: PathBuf },
    #[error("the key file {} can be read by others (mode {mode:04o}); `chmod 600 {}`", path.display(), path.display())]
    ReadByOthers { path: PathBuf, mode: u32 },
    #[error(
        "the key file {} does not hold a key: expected one line of 64 hexadecimal digits; make one with `relevo key FILE` \
         and copy it to every node",
        path.display()
    )]
    NotAKey { path: PathBuf },
    #[error("{} exists and is not overwritten; give another name, or remove it first", path.display())]
    Exists { path: PathBuf },
    #[error("cannot write the key file {}: {source}", path.display())]
    Unwritable { path: PathBuf, source: io::Error },
    #[error("no random bytes from /dev/urandom: {0}")]
    NoRandomness(io::Error),
}

impl Key {
    /// Reads a key file.
    ///
    /// # Errors
    /// It is not there, not a regular file, not a key, or group or others may read or write it.
    pub fn read(path: &Path) -> Result<Key, KeyError> {
        let unreadable = |source: io::Error| match source.kind() {
            io::ErrorKind::NotFound => KeyError::Missing { path: path.to_owned(), source },
            _ => KeyError::Unreadable { path: path.to_owned(), source },
        };
        // Not to hang where the path is a pipe.
        let mut options = OpenOptions::new();
        let file = options.read(true).custom_flags(O_NONBLOCK | O_CLOEXEC).open(path).map_err(unreadable)?;
        let metadata = file.metadata().map_err(unreadable)?;
        if !metadata.is_file() {
            return Err(KeyError::NotAFile { path: path.to_owned() });
        }
        if metadata.mode() & 0o077 != 0 {
            return Err(KeyError::ReadByOthers { path: path.to_owned(), mode: metadata.mode() & 0o7777 });
        }
        let mut text = Vec::new();
        file.take(4 * KEY_LENGTH as u64).read_to_end(&mut text).map_err(unreadable)?;
        Key::from_hex(text.trim_ascii()).ok_or_else(|| KeyError::NotAKey { path: path.to_owned() })
    }

    /// Makes a key and writes it to a new file of mode 0600.
    ///
    /// # Errors
    /// The file exists, or cannot be written.
    pub fn make(path: &Path) -> Result<(), KeyError> {
        let mut bytes = [0; KEY_LENGTH];
        File::open("/dev/urandom")
            .and_then(|mut random| random.read_exact(&mut bytes))
            .map_err(KeyError::NoRandomness)?;
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();

        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(0o600).custom_flags(O_NOFOLLOW | O_CLOEXEC);
        let mut file = options.open(path).map_err(|source| match source.kind() {
            io::ErrorKind::AlreadyExists => KeyError::Exists { path: path.to_owned() },
            _ => KeyError::Unwritable { path: path.to_owned(), source },
        })?;
        let written = file.write_all(format!("{hex}\n").as_bytes()).and_then(|()| file.sync_all());
        written.map_err(|source| {
            // Half a key is worse than none.
            let _ = std::fs::remove_file(path);
            KeyError::Unwritable { path: path.to_owned(), source }
        })
    }

    /// The secret itself.
    pub fn as_bytes(&self) -> &[u8; KEY_LENGTH] {
        &self.0
    }

    fn from_hex(text: &[u8]) -> Option<Key> {
        let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        if text.len() != 2 * KEY_LENGTH {
            return None;
        }
        let mut key = [0; KEY_LENGTH];
        for (byte, pair) in key.iter_mut().zip(text.chunks_exact(2)) {
            let [high, low] = pair else { return None };
            *byte = digit(*high)? << 4 | digit(*low)?;
        }
        Some(Key(key))
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(…)")
    }
}
