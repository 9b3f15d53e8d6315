//! Where the demo lives: namespaces for processes, mounts and network (and users, where this is not root), left behind
//! by nothing. Its inner process is the first of its process namespace: when that ends, however, all end.

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{SigSet, Signal};
use nix::unistd::{getegid, geteuid};

use super::error::{Context, Error, Result};
use super::netlink;
use super::terminal::Terminal;

/// Directories that a private file system may be mounted on: they exist everywhere, and the demo needs nothing in them.
const MOUNT_POINTS: [&str; 4] = ["/mnt", "/media", "/srv", "/tmp"];

/// Runs this program again with `arguments` and [`INNER`]`=PID`, isolated, and waits for its end.
///
/// # Errors
/// If the kernel allows it neither as we are nor in a user namespace.
pub fn run_isolated(arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Result<ExitStatus> {
    // Put back when the inner process could not do it itself.
    let _terminal = Terminal::remember();
    // ^C goes to both; the inner one decides.
    let keyboard = SigSet::from_iter([Signal::SIGINT, Signal::SIGQUIT]);
    keyboard.thread_block().context(|| "cannot block a signal".into())?;
    isolate()?;
    Command::new("/proc/self/exe")
        .args(arguments)
        .arg(format!("--{INNER}={}", std::process::id()))
        .status()
        .context(|| "cannot start the demo's inner process".into())
}

/// The hidden option that tells the inner process its parent.
pub const INNER: &str = "inner";

fn isolate() -> Result<()> {
    let flags =
        CloneFlags::CLONE_NEWPID | CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWIPC;
    let (user, group) = (geteuid(), getegid());
    let Err(refused) = unshare(flags) else { return Ok(()) };
    unshare(flags | CloneFlags::CLONE_NEWUSER)
        .map_err(io::Error::from)
        .and_then(|()| std::fs::write("/proc/self/setgroups", "deny"))
        .and_then(|()| std::fs::write("/proc/self/uid_map", format!("0 {user} 1")))
        .and_then(|()| std::fs::write("/proc/self/gid_map", format!("0 {group} 1")))
        .map_err(|no_user_namespace| {
            Error::new(
                "cannot make namespaces",
                format!(
                    "as this user: {}; in a user namespace: {no_user_namespace}. Run it as root (sudo), or allow user \
                     namespaces for everybody (sysctl user.max_user_namespaces, kernel.unprivileged_userns_clone, \
                     kernel.apparmor_restrict_unprivileged_userns); in a container, allow CAP_SYS_ADMIN and CAP_NET_ADMIN",
                    refused.desc()
                ),
            )
        })
}

/// What the inner process does first, while it has a single thread; `parent` is the outer process's id as that sees it.
/// Returns an empty directory that nobody else sees, and the terminal.
///
/// # Errors
/// If the isolation is not what it should be.
pub fn settle(parent: u32) -> Result<(PathBuf, Terminal)> {
    let terminal = Terminal::remember();
    end_on_signal(terminal.clone())?;
    set_pdeathsig(Signal::SIGTERM).context(|| "cannot tie the demo to its parent".into())?;
    // /proc is still that of the outer namespace, where our parent has a number.
    if super::namespace::parent_of("self") != i32::try_from(parent).ok().map(nix::unistd::Pid::from_raw) {
        return Err(Error::new("the demo ends", "its outer process is gone"));
    }
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)
        .context(|| "cannot make the mounts private".into())?;
    mount(
        Some("proc"),
        "/proc",
        Some("proc"),
        MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC,
        None::<&str>,
    )
    .context(|| "cannot mount /proc (run it as root; a container must be privileged)".into())?;
    let directory = mount_point()?;
    mount(Some("tmpfs"), directory, Some("tmpfs"), MsFlags::MS_NOSUID | MsFlags::MS_NODEV, Some("mode=0755"))
        .context(|| format!("cannot mount a file system on {}", directory.display()))?;
    netlink::set_up("lo")?;
    Ok((directory.into(), terminal))
}

/// Is every user of the host one here too, or at least nobody?
pub fn has_user_nobody() -> bool {
    const NOBODY: u64 = 65534;
    let maps = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    geteuid().is_root() && maps.lines().any(|line| {
        let mut fields = line.split_whitespace().map_while(|field| field.parse::<u64>().ok());
        matches!((fields.next(), fields.nth(1)), (Some(first), Some(count)) if (first..first + count).contains(&NOBODY))
    })
}

/// Whatever else this process does, a signal puts the terminal back and ends it, and with it all of its namespace.
fn end_on_signal(terminal: Terminal) -> Result<()> {
    let ends = SigSet::from_iter([Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT]);
    let mut blocked = ends;
    // A shell may have the terminal back already when its state is restored.
    blocked.add(Signal::SIGTTOU);
    blocked.thread_block().context(|| "cannot block a signal".into())?;
    std::thread::Builder::new()
        .name("signals".into())
        .spawn(move || {
            let signal = ends.wait();
            terminal.restore();
            std::process::exit(signal.map_or(1, |signal| 128 + signal as i32));
        })
        .map(drop)
        .context(|| "cannot start a thread".into())
}

fn mount_point() -> Result<&'static Path> {
    let program = std::env::current_exe().context(|| "cannot find this program".into())?;
    let mut candidates = MOUNT_POINTS.iter().map(Path::new);
    candidates
        .find(|directory| directory.is_dir() && !program.starts_with(directory))
        .ok_or_else(|| Error::new("cannot find a place for private files", format!("tried {MOUNT_POINTS:?}")))
}
