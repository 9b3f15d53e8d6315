//! The key that the nodes of a pair share: 32 random bytes, a line of hex in a file that nobody else reads.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::libc::O_NONBLOCK;
use serde::{Deserialize, Serialize};

/// Bytes of a key.
pub const KEY_LENGTH: usize = 32;

/// The shared key. It is not printed, not even by a debugger's format; the guard hands it to its keeper.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Key([u8; KEY_LENGTH]);

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum KeyError {
    #[error(
        "cannot read the key file {}: {source}; copy it from the other node, or, if no node has it yet, make one with \
         `relevo key {}`",
        path.display(), path.display()
    )]
    Missing { path: PathBuf, source: io::Error },
    #[error("cannot read the key file {}: {source}{}", path.display(), what_to_do(source.kind()))]
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

fn what_to_do(kind: io::ErrorKind) -> &'static str {
    match kind {
        io::ErrorKind::PermissionDenied => {
            "; run as root, or make it the file of the user that relevo runs as (`chown`)"
        }
        _ => "",
    }
}

impl Key {
    /// Of these bytes.
    pub fn new(bytes: [u8; KEY_LENGTH]) -> Key {
        Key(bytes)
    }

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
        let file = options.read(true).custom_flags(O_NONBLOCK).open(path).map_err(unreadable)?;
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
        options.write(true).create_new(true).mode(0o600);
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

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// Empty, and a test's own.
    fn directory(name: &str) -> PathBuf {
        let directory = std::env::temp_dir().join(format!("relevo-key-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&directory);
        fs::create_dir_all(&directory).expect("a temporary directory");
        directory
    }

    #[test]
    fn a_key_that_was_made_can_be_read_and_is_not_shown() {
        let directory = directory("made");
        let path = directory.join("pair.key");
        Key::make(&path).expect("a new file");
        let key = Key::read(&path).expect("the file just made");
        let hex: String = key.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(fs::read_to_string(&path).expect("the file"), format!("{hex}\n"));
        assert_eq!(format!("{key:?}"), "Key(…)");
        fs::remove_dir_all(directory).expect("our own directory");
    }

    #[test]
    fn what_is_no_secret_or_no_key_is_refused() {
        let directory = directory("refused");
        let path = directory.join("pair.key");
        let refusal = |mode: u32, text: &str| {
            fs::write(&path, text).expect("our own file");
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("our own file");
            Key::read(&path).expect_err("a refusal").to_string()
        };
        let whole = "5a".repeat(KEY_LENGTH);
        for mode in [0o640, 0o604, 0o620, 0o601] {
            let expected = format!("(mode {mode:04o}); `chmod 600 {}`", path.display());
            assert!(refusal(mode, &whole).ends_with(&expected));
        }
        for text in ["", "5a", &whole[1..], &format!("{whole}5a"), &whole.replace('a', "g"), &"5a".repeat(1000)] {
            assert!(refusal(0o600, text).contains("does not hold a key"), "{text}");
        }
        let refused = |path: &Path| Key::read(path).expect_err("a refusal").to_string();
        assert!(refused(&directory).ends_with("is not a regular file"));
        assert!(refused(&directory.join("absent")).contains("make one with `relevo key"));
        let pipe = directory.join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).expect("a pipe of our own");
        assert!(refused(&pipe).ends_with("is not a regular file"));
        fs::remove_dir_all(directory).expect("our own directory");
    }
}
