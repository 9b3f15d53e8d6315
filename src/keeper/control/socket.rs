//! The control socket in the file system: made, kept there, removed.

use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

/// Owner and group may ask.
const MODE: u32 = 0o660;
/// Nobody else may take the lock.
const LOCK_MODE: u32 = 0o600;

/// Why there is no control socket.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A live one.
    #[error("another relevo is running: it has the control socket {}; end it first, or set node.control_socket", .0.display())]
    Running(PathBuf),
    /// Not ours to remove.
    #[error("the control socket {} cannot be made: there is something else of that name; move it away", .0.display())]
    Occupied(PathBuf),
    /// Anything else.
    #[error("the control socket {} cannot be made: {source}; run as root, or set node.control_socket", path.display())]
    Other {
        /// Of the socket.
        path: PathBuf,
        /// What the kernel says.
        source: io::Error,
    },
}

/// The socket's name, which goes away with the value.
pub(in crate::keeper) struct ControlSocket(Arc<Mutex<Site>>);

/// Where the socket is to be found.
pub(super) struct Site {
    path: PathBuf,
    /// Of the socket that was made there last.
    file: FileId,
    /// Held while this keeper lives, so that of two that start at once only one takes the name.
    lock: Flock<File>,
    /// Why it could not be made again, once that was said.
    said: Option<String>,
}

/// Device and inode.
type FileId = (u64, u64);

impl ControlSocket {
    /// In place of one that a dead keeper left.
    pub(super) fn make(path: &Path) -> Result<(Self, UnixListener), Error> {
        make_directory(path)?;
        let lock = take_lock(path)?;
        let (listener, file) = bind(path)?;
        let site = Site { path: path.to_owned(), file, lock, said: None };
        Ok((ControlSocket(Arc::new(Mutex::new(site))), listener))
    }

    pub(super) fn site(&self) -> Arc<Mutex<Site>> {
        self.0.clone()
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        // One that is being looked at lies on a file system that hangs. Nothing can be done about a failure, and the next start
        // replaces what is left.
        if let Ok(site) = self.0.try_lock()
            && id_of(&site.path) == Some(site.file)
        {
            let _ = std::fs::remove_file(&site.path);
        }
    }
}

pub(super) fn lock(site: &Mutex<Site>) -> MutexGuard<'_, Site> {
    site.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Site {
    /// Makes the socket again where it is not there any more, or something else is. Says once what happened. Blocks.
    pub(super) fn look(&mut self) -> Option<UnixListener> {
        if id_of(&self.path) == Some(self.file) {
            self.said = None;
            return None;
        }
        match self.make_again() {
            Ok(listener) => {
                let path = self.path.display();
                tracing::warn!("the control socket {path} was removed or replaced, and was made again");
                self.said = None;
                Some(listener)
            }
            Err(error) => {
                let reason = error.to_string();
                if self.said.as_ref() != Some(&reason) {
                    tracing::error!("nobody can ask this node, whose control socket was removed or replaced: {reason}");
                    self.said = Some(reason);
                }
                None
            }
        }
    }

    fn make_again(&mut self) -> Result<UnixListener, Error> {
        make_directory(&self.path)?;
        let held = self.lock.metadata().ok().map(|metadata| id(&metadata));
        if held.is_none() || id_of(&lock_path(&self.path)) != held {
            // Another may have begun where this one's lock is not to be seen.
            self.lock = take_lock(&self.path)?;
        }
        let (listener, file) = bind(&self.path)?;
        self.file = file;
        Ok(listener)
    }
}

fn make_directory(path: &Path) -> Result<(), Error> {
    let Some(directory) = path.parent() else { return Ok(()) };
    std::fs::create_dir_all(directory).map_err(|source| Error::Other { path: path.to_owned(), source })
}

fn bind(path: &Path) -> Result<(UnixListener, FileId), Error> {
    remove_leftover(path)?;
    let bound = || {
        let listener = UnixListener::bind(path)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(MODE))?;
        listener.set_nonblocking(true)?;
        Ok((listener, id(&std::fs::symlink_metadata(path)?)))
    };
    bound().map_err(|source| Error::Other { path: path.to_owned(), source })
}

fn remove_leftover(path: &Path) -> Result<(), Error> {
    let Ok(metadata) = std::fs::symlink_metadata(path) else { return Ok(()) };
    if !metadata.file_type().is_socket() {
        return Err(Error::Occupied(path.to_owned()));
    }
    std::fs::remove_file(path).map_err(|source| Error::Other { path: path.to_owned(), source })
}

/// Beside the socket. It stays behind: who removes a lock that another waits for gives two the same.
fn lock_path(socket: &Path) -> PathBuf {
    let mut path = socket.as_os_str().to_owned();
    path.push(".lock");
    path.into()
}

fn take_lock(socket: &Path) -> Result<Flock<File>, Error> {
    let path = lock_path(socket);
    let file = OpenOptions::new().read(true).append(true).create(true).mode(LOCK_MODE).open(&path);
    let file = file.map_err(|source| Error::Other { path: path.clone(), source })?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, error)| match error {
        Errno::EWOULDBLOCK => Error::Running(socket.to_owned()),
        error => Error::Other { path, source: error.into() },
    })
}

fn id_of(path: &Path) -> Option<FileId> {
    std::fs::symlink_metadata(path).ok().map(|metadata| id(&metadata))
}

fn id(metadata: &Metadata) -> FileId {
    (metadata.dev(), metadata.ino())
}
