//! Control groups: systemd in a container wants one of its own, in every hierarchy it uses, or two containers share one.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// systemd's hierarchies, whichever of them this machine has.
const HIERARCHIES: [&str; 3] = ["/sys/fs/cgroup", "/sys/fs/cgroup/systemd", "/sys/fs/cgroup/unified"];

const PREFIX: &str = "relevo-provision-";

/// A group for one run of one machine; it goes away with the value.
pub(super) struct ControlGroup(Vec<PathBuf>);

impl ControlGroup {
    pub(super) fn new(name: &str) -> Self {
        let hierarchies = HIERARCHIES.iter().map(Path::new).filter(|path| path.join("cgroup.procs").exists());
        let group = |path: &Path| path.join(format!("{PREFIX}{}-{name}", std::process::id()));
        let groups: Vec<PathBuf> = hierarchies.map(group).collect();
        assert!(!groups.is_empty(), "systemd in a container needs control groups, and /sys/fs/cgroup has none");
        for group in &groups {
            std::fs::create_dir(group).unwrap_or_else(|error| panic!("cannot make {}: {error}", group.display()));
        }
        Self(groups)
    }

    /// What a process writes 0 to in order to join.
    pub(super) fn doors(&self) -> Vec<PathBuf> {
        self.0.iter().map(|group| group.join("cgroup.procs")).collect()
    }
}

impl Drop for ControlGroup {
    fn drop(&mut self) {
        for group in &self.0 {
            // Its last processes may still be on their way out.
            let end = Instant::now() + Duration::from_secs(2);
            while remove(group).is_err() && Instant::now() < end {
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    }
}

/// Removes what a test that was killed has left.
pub(super) fn remove_leftovers() {
    let groups = HIERARCHIES.iter().filter_map(|path| std::fs::read_dir(path).ok()).flatten().flatten();
    for group in groups {
        let name = group.file_name().to_string_lossy().into_owned();
        let owner = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next());
        if owner.is_some_and(|owner| !Path::new("/proc").join(owner).exists()) {
            let _ = remove(&group.path());
        }
    }
}

/// A group and those in it: its files are the kernel's and go with it.
fn remove(group: &Path) -> std::io::Result<()> {
    // All of them first: a listing that is changed while it is read may skip some.
    for entry in std::fs::read_dir(group)?.collect::<Vec<_>>().into_iter().flatten() {
        if entry.file_type()?.is_dir() {
            remove(&entry.path())?;
        }
    }
    std::fs::remove_dir(group)
}
