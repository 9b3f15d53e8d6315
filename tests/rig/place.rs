//! Where a test takes place: a network of its own where the kernel allows that, else the host's loopback.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::geteuid;
use relevo::lab::namespace::{Namespace, Process};
use relevo::lab::network::Switch;

/// A loopback that the test shares with nobody, if there is one; it goes away with the value.
pub(crate) struct Place {
    namespace: Option<Namespace>,
}

impl Place {
    /// Asserts that nothing of a node runs here any more, as far as that can be told from others' nodes.
    #[track_caller]
    pub(crate) fn assert_no_relevo(&self) {
        let processes = self.namespace.iter().flat_map(|namespace| namespace.processes().unwrap());
        let is_relevo =
            |process: &Process| process.arguments.first().is_some_and(|program| program.ends_with("relevo"));
        let left: Vec<_> = processes.filter(is_relevo).collect();
        assert!(left.is_empty(), "still running: {left:?}");
    }
}

/// Moves the test (its thread, and what that starts) into a network of its own. Without the right to, it stays.
pub(crate) fn own_loopback() -> Place {
    let namespace = Namespace::new("test").ok().filter(|namespace| namespace.move_in().is_ok());
    Place { namespace }
}

/// The same where the test cannot do without; `None` where it cannot be had, which CI does not accept.
pub(crate) fn own_network() -> Option<Place> {
    let namespace = Namespace::new("test").and_then(|namespace| namespace.move_in().map(|()| namespace));
    namespace.map_err(|error| cannot(&error)).ok().map(|namespace| Place { namespace: Some(namespace) })
}

/// A switch for a lab, and the right to be the only one with a lab: it takes all of a small machine. `None` where none can be
/// made, which CI does not accept.
pub(crate) fn switch() -> Option<(Switch, MutexGuard<'static, ()>)> {
    static ALONE: Mutex<()> = Mutex::new(());
    let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    Switch::new().map_err(|error| cannot(&error)).ok().map(|switch| (switch, alone))
}

/// Is this root, who can become somebody else? If not the test says so, which CI does not accept.
pub(crate) fn is_root() -> bool {
    if !geteuid().is_root() {
        cannot(&"this is not root, who can start a program as somebody else");
    }
    geteuid().is_root()
}

/// Puts `file` in the place of `path` for this thread and what it starts, and for nobody else.
pub(crate) fn replace_file(path: &Path, file: &Path) {
    let none = None::<&str>;
    unshare(CloneFlags::CLONE_NEWNS).unwrap();
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
    mount(Some(file), path, none, MsFlags::MS_BIND, none).unwrap();
}

/// A port on the loopback that nobody has at the moment, and that nobody is given again: neither by this nor by the kernel, whose
/// own choices (`ip_local_port_range`) are above.
pub(crate) fn free_port() -> SocketAddr {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let candidates = std::iter::repeat_with(|| {
        let number = std::process::id().wrapping_mul(97).wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
        10_000 + (number % 20_000) as u16
    });
    let free = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).and_then(|listener| listener.local_addr()).ok();
    candidates.take(20_000).find_map(free).expect("a port is free")
}

fn cannot(why: &dyn std::fmt::Display) {
    assert!(std::env::var_os("CI").is_none(), "CI has to run this test, and cannot: {why}");
    eprintln!("NOT TRIED: {why} (it needs root)");
}
