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
    #[error("process.chroot: it cannot lock itself into {}: {error}; is the folder there, and may the keeper chroot?", .folder.display())]
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
    give_up_protection(Path::new("/proc/self/oom_score_adj"));
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

/// A service manager protects the keeper (OOMScoreAdjust). The balancer, whose clients decide how much memory it takes, is for
/// the kernel to kill like any other process: the keeper then hands over and starts the next one.
fn give_up_protection(oom_score_adj: &Path) {
    let adjustment = std::fs::read_to_string(oom_score_adj).ok().and_then(|text| text.trim().parse::<i32>().ok());
    if adjustment.is_some_and(|adjustment| adjustment < 0) {
        // To be killed sooner needs no right.
        let _ = std::fs::write(oom_score_adj, "0");
    }
}

fn become_user(Identity { uid, gid }: Identity) -> nix::Result<()> {
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    setgroups(&[gid])?;
    setresgid(gid, gid, gid)?;
    setresuid(uid, uid, uid)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::directory::Directory;

    #[test]
    fn of_the_adjustment_for_want_of_memory_only_protection_is_given_up() {
        let directory = Directory::new().unwrap();
        let file = directory.path().join("oom_score_adj");
        for (before, after) in [("-900\n", "0"), ("0\n", "0\n"), ("500\n", "500\n")] {
            std::fs::write(&file, before).unwrap();
            give_up_protection(&file);
            assert_eq!(std::fs::read_to_string(&file).unwrap(), after);
        }
    }
}
