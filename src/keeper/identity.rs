//! What the balancer's process becomes: which user, locked in where. Found by trying, not by asking what should be possible.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use caps::{CapSet, Capability};
use nix::unistd::{Group, User, geteuid};

use crate::config::model::Process;
use crate::process::messages::Identity;

const DEFAULT_USER: &str = "relevo";
/// Every system has it, and nothing should belong to it.
const FALLBACK_USER: &str = "nobody";
/// To try with where the user is not there.
const ANYBODY: Identity = Identity { uid: 65534, gid: 65534 };
const DEFAULT_CHROOT: &str = "/var/lib/relevo";
/// Where the default is not there: a directory that every Linux has, that nobody can write to, and that shows nothing but
/// the numbers of the process's own descriptors.
const FALLBACK_CHROOT: &str = "/proc/self/fdinfo";

/// What the balancer becomes.
#[derive(Debug)]
pub(super) struct Confinement {
    /// `None`: it stays who it is (restricted mode).
    pub(super) user: Option<Identity>,
    /// `None`: nowhere (restricted mode).
    pub(super) chroot: Option<PathBuf>,
    /// In words, what could not be had.
    pub(super) missing: Vec<String>,
}

/// Why the balancer cannot become what was configured.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No such user.
    #[error("process.user: there is no user {name:?}; {how}", name = .0, how = how_to_make(.0))]
    NoUser(String),
    /// No such group.
    #[error("process.group: there is no group {0:?}; make it: groupadd --system {0}")]
    NoGroup(String),
    /// No such directory.
    #[error("process.chroot: {} is not a directory; make it: mkdir -p {}", .0.display(), .0.display())]
    NoDirectory(PathBuf),
    /// Whoever can write there can put files where the balancer looks for them.
    #[error("process.chroot: others than root can write to {path}; make it root's: chown root: {path} && chmod 755 {path}", path = .0.display())]
    OpenDirectory(PathBuf),
    /// The balancer would have to be root.
    #[error("process.user: the balancer never runs as root; name another user")]
    Root,
    /// The lookup failed.
    #[error("the user database cannot be read: {0}")]
    Database(#[from] nix::Error),
}

fn how_to_make(user: &str) -> String {
    format!("make it: useradd --system --user-group --no-create-home --shell /usr/sbin/nologin {user}")
}

/// Finds out what the balancer can become.
pub(super) fn find(process: &Process) -> Result<Confinement, Error> {
    let mut missing = Vec::new();
    let user = user(process, &mut missing)?;
    let chroot = chroot(process.chroot.as_deref(), &mut missing)?;
    Ok(Confinement { user, chroot, missing })
}

fn user(process: &Process, missing: &mut Vec<String>) -> Result<Option<Identity>, Error> {
    let (name, user) = match &process.user {
        Some(name) => (name.as_str(), User::from_name(name)?),
        None => match User::from_name(DEFAULT_USER)? {
            Some(user) => (DEFAULT_USER, Some(user)),
            None => (FALLBACK_USER, User::from_name(FALLBACK_USER)?),
        },
    };
    let identity = user.map(|user| Identity { uid: user.uid.as_raw(), gid: user.gid.as_raw() });
    // Without the right to become anybody it does not matter who is missing.
    if let Err(error) = can_become(identity.unwrap_or(ANYBODY)) {
        missing.push(format!("the balancer cannot change its user and stays user {} ({error})", geteuid()));
        return Ok(None);
    }
    let identity = identity.ok_or_else(|| Error::NoUser(name.to_owned()))?;
    if identity.uid == 0 {
        return Err(Error::Root);
    }
    if identity.uid == geteuid().as_raw() {
        missing.push(format!("the balancer has the keeper's own user {name:?}"));
        return Ok(None);
    }
    if process.user.is_none() && name == FALLBACK_USER {
        tracing::warn!(
            "there is no user {DEFAULT_USER:?}, so that the balancer runs as {FALLBACK_USER:?}, whom it may share with \
             others; {}",
            how_to_make(DEFAULT_USER)
        );
    }
    match &process.group {
        None => Ok(Some(identity)),
        Some(name) => {
            let group = Group::from_name(name)?.ok_or_else(|| Error::NoGroup(name.clone()))?;
            Ok(Some(Identity { gid: group.gid.as_raw(), ..identity }))
        }
    }
}

/// Lets a child try. It fails without the capabilities, and also where a user namespace does not know the user.
fn can_become(identity: Identity) -> io::Result<()> {
    let attempt = Command::new("/proc/self/exe")
        .arg("--version")
        .uid(identity.uid)
        .gid(identity.gid)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    match attempt {
        Ok(mut child) => child.wait().map(drop),
        // It was somebody else already when it could not execute the file.
        Err(error)
            if error.kind() == io::ErrorKind::PermissionDenied && error.raw_os_error() == Some(nix::libc::EACCES) =>
        {
            Ok(())
        }
        Err(error) => Err(error),
    }
}

fn chroot(configured: Option<&Path>, missing: &mut Vec<String>) -> Result<Option<PathBuf>, Error> {
    if !caps::has_cap(None, CapSet::Effective, Capability::CAP_SYS_CHROOT).unwrap_or(false) {
        missing.push("the balancer cannot be locked into a directory (no capability SYS_CHROOT)".to_owned());
        return Ok(None);
    }
    match configured {
        Some(path) if !path.is_dir() => Err(Error::NoDirectory(path.to_owned())),
        Some(path) if !is_closed(path) => Err(Error::OpenDirectory(path.to_owned())),
        Some(path) => Ok(Some(path.to_owned())),
        None => Ok([DEFAULT_CHROOT, FALLBACK_CHROOT].iter().map(PathBuf::from).find(|path| is_closed(path))),
    }
}

/// A directory that nobody but this user can write to.
fn is_closed(path: &Path) -> bool {
    std::fs::metadata(path)
        .is_ok_and(|found| found.is_dir() && found.uid() == geteuid().as_raw() && found.mode() & 0o022 == 0)
}
