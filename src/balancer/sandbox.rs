//! Takes from this process all that it does not need to carry traffic. Called while it has a single thread.

use std::path::Path;

use caps::CapSet;
use nix::errno::Errno;
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::unistd::{Gid, Pid, Uid, chdir, chroot, getppid, setgroups, setresgid, setresuid, setsid};

use crate::process::messages::Identity;

/// Of an ordinary thread, in nanoseconds (timer_slack in time(7)).
const TIMER_SLACK: u64 = 50_000;

/// A step that failed: the process must not go on with more rights than it should have.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("cannot lock itself into {}: {error}; is the folder there, and may the keeper chroot?", .folder.display())]
    Chroot { folder: std::path::PathBuf, error: Errno },
    #[error("cannot become user {uid} and group {gid}: {error}")]
    Identity { uid: u32, gid: u32, error: Errno },
    #[error("cannot give up its capabilities: {0}")]
    Capabilities(#[from] caps::errors::CapsError),
    #[error("{step} failed: {error}")]
    Prctl { step: &'static str, error: Errno },
    #[error("the keeper is gone")]
    ParentGone,
}

/// Locks this process in. `parent` is the process that started it.
///
/// # Errors
/// When a step fails that the process must not go on without; the steps before it stay done.
pub(super) fn enter(root: Option<&Path>, user: Option<Identity>, parent: Pid) -> Result<(), Error> {
    if let Some(folder) = root {
        let failed = |error| Error::Chroot { folder: folder.to_owned(), error };
        chroot(folder).map_err(failed)?;
        chdir("/").map_err(failed)?;
    }
    // What no capability is left to use is no loss where it cannot be taken away (CAP_SETPCAP may be missing).
    let _ = caps::clear(None, CapSet::Bounding);
    if let Some(identity) = user {
        become_user(identity).map_err(|error| Error::Identity { uid: identity.uid, gid: identity.gid, error })?;
    }
    let _ = caps::clear(None, CapSet::Ambient); // the kernel may be too old to have it
    for set in [CapSet::Effective, CapSet::Permitted, CapSet::Inheritable] {
        caps::clear(None, set)?;
    }

    let step = |step| move |error| Error::Prctl { step, error };
    prctl::set_no_new_privs().map_err(step("PR_SET_NO_NEW_PRIVS"))?;
    prctl::set_dumpable(false).map_err(step("PR_SET_DUMPABLE"))?;
    // A real-time keeper's is zero: no timer would ever wait for another, and each would wake this process by itself.
    let _ = prctl::set_timerslack(TIMER_SLACK);
    // Without a controlling terminal nobody can type into it. (Who leads a session already has none of the keeper's.)
    let _ = setsid();
    // A change of user clears it: it comes after that. And the parent may have died before it.
    prctl::set_pdeathsig(Signal::SIGKILL).map_err(step("PR_SET_PDEATHSIG"))?;
    if getppid() != parent {
        return Err(Error::ParentGone);
    }
    Ok(())
}

fn become_user(Identity { uid, gid }: Identity) -> nix::Result<()> {
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    setgroups(&[gid])?;
    setresgid(gid, gid, gid)?;
    setresuid(uid, uid, uid)
}
