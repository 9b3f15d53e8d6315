//! What is on the machines of a site, and what has come and gone since.

use std::collections::{BTreeMap, BTreeSet};

use crate::containers::{Machine, Site};

/// Files with their owners and modes, packages, users, units and kernel settings that a role could have left, a line each. What
/// machines write by themselves is left out.
const LOOK: &str = r"find / -xdev \( -path /proc -o -path /sys -o -path /run -o -path /tmp -o -path /dev -o -path /var/log \
    -o -path /home -o -path /root -o -path /var/cache -o -path /var/lib/apt -o -path /var/lib/systemd -o -path /srv \) -prune \
    -o ! -name '*.pyc' ! -name __pycache__ ! -path '/var/lib/dpkg/*' ! -path '/var/lib/ucf/*.[0-9]' ! -name '*-' \
    ! -name '*.old' -type f -printf '%p %m %u %g\n'
    dpkg-query -W; getent passwd; getent group; systemctl list-unit-files --no-legend
    sysctl -a 2>/dev/null | grep -E '^net.(core.somaxconn|ipv4.ip_local_port_range)'";

/// Lines by the machine's name.
pub(super) struct Contents(BTreeMap<String, BTreeSet<String>>);

impl Contents {
    /// Looks at all machines that are on, at the same time.
    pub(super) fn of(site: &Site) -> Self {
        let look = |machine: &Machine| machine.shell(LOOK).lines().map(str::to_owned).collect();
        std::thread::scope(|scope| {
            let machines = site.machines().iter().filter(|machine| machine.is_on());
            let looks: Vec<_> =
                machines.map(|machine| (machine.name().to_owned(), scope.spawn(move || look(machine)))).collect();
            Self(looks.into_iter().map(|(name, look)| (name, look.join().unwrap())).collect())
        })
    }

    /// But for kernel settings, which stay until the next boot.
    pub(super) fn without_kernel(mut self) -> Self {
        self.0.values_mut().for_each(|lines| lines.retain(|line| !line.starts_with("net.")));
        self
    }

    /// What has come since and what has gone, for people; empty if nothing has.
    pub(super) fn changes(&self, since: &Self) -> String {
        let mut text = String::new();
        for (name, lines) in &self.0 {
            let before = &since.0[name];
            text.extend(lines.difference(before).map(|line| format!("{name}: + {line}\n")));
            text.extend(before.difference(lines).map(|line| format!("{name}: - {line}\n")));
        }
        text
    }
}
