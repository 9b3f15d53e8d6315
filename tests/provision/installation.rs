//! The package on a machine that never had it: installed, configured, upgraded, removed, purged.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::process::Command;

use caps::{CapSet, Capability};

use crate::containers::{Machine, Site, package, succeed};

const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 11);

/// Smallest, and of a machine alone.
const CONFIGURATION: &str = r#"
[frontends.web]
bind = ["*:80"]
default_backend = "app"

[backends.app]
servers = [{ name = "backend1", address = "192.0.2.1:80", check = false }]
"#;

#[test]
fn the_package_comes_and_goes_without_a_trace() {
    let site = Site::start(&[("lb1", ADDRESS)]);
    let machine = site.machine("lb1");
    let [first, second] = [1, 2].map(|revision| package::make(site.directory(), revision));
    succeed(Command::new("lintian").args(["--allow-root", "--fail-on=error"]).arg(&first));

    let before = files(machine);
    machine.install(&first);
    assert_eq!(unit(machine, "UnitFileState"), "enabled");
    assert_eq!(unit(machine, "ActiveState"), "inactive", "there is nothing to run yet, and that is no failure");
    assert_eq!(machine.shell("systemctl is-system-running").trim(), "running");
    machine.shell("systemd-analyze verify /lib/systemd/system/relevo.service");
    machine.shell("relevo check -c /usr/share/doc/relevo/examples/relevo.toml");
    machine.shell("test -d /etc/relevo && relevo key /etc/relevo/pair.key");

    machine.write("/etc/relevo/relevo.toml", CONFIGURATION);
    machine.shell("systemctl start relevo");
    assert_eq!(unit(machine, "ActiveState"), "active");
    let id = machine.shell("id relevo");
    // Some machines that tests run on let nobody protect a process.
    let may_protect = caps::has_cap(None, CapSet::Effective, Capability::CAP_SYS_RESOURCE).unwrap();
    // Nobody else may read what crosses the memory of guard and keeper, and the balancer can do nothing.
    for process in machine.relevo() {
        let is_balancer = process.arguments.get(1).is_some_and(|role| role == "balancer");
        let status = std::fs::read_to_string(format!("/proc/{}/status", process.pid)).unwrap();
        let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().trim();
        let user = field("Uid:").split_whitespace().next().unwrap_or_default();
        assert_eq!(is_balancer, id.contains(&format!("uid={user}(relevo)")), "{process:?}");
        assert_eq!(is_balancer, u64::from_str_radix(field("CapEff:"), 16).unwrap() == 0, "{process:?}");
        let protection = std::fs::read_to_string(format!("/proc/{}/oom_score_adj", process.pid)).unwrap();
        let expected = if is_balancer || !may_protect { "0" } else { "-900" };
        assert_eq!(protection.trim(), expected, "{process:?}");
        assert_eq!((field("NoNewPrivs:"), field("Seccomp:")), ("1", "2"), "{process:?}");
    }
    let messages = machine.shell("journalctl --unit=relevo --output=cat");
    assert!(!messages.contains("restricted mode"), "it has not all it needs\n{messages}");
    // systemd's own scale, from 0 to 100. It was 32; what widens the sandbox has to be wanted.
    machine.shell("systemd-analyze security --no-pager --threshold=33 relevo.service");

    // systemd waits for a reload, and knows when it comes to nothing.
    let guard = unit(machine, "MainPID");
    let reload = |configuration: &str| {
        machine.write("/etc/relevo/relevo.toml", configuration);
        machine.shell("systemctl reload relevo >/dev/null 2>&1 && echo done || echo refused").trim().to_owned()
    };
    assert_eq!(reload("[frontends"), "refused");
    assert_eq!(reload(&CONFIGURATION.replace("*:80", "*:81")), "done");
    assert_eq!((unit(machine, "ActiveState"), unit(machine, "MainPID")), ("active".to_owned(), guard.clone()));
    let messages = machine.shell("journalctl --unit=relevo --output=cat");
    for words in ["the configuration stays as it is: ", "the configuration was reloaded: frontend web changed"] {
        assert!(messages.contains(words), "{words}\n{messages}");
    }
    assert_eq!(reload(CONFIGURATION), "done");

    machine.install(&second);
    assert_eq!(machine.shell("dpkg-query --show --showformat='${Version}' relevo").rsplit('-').next(), Some("2"));
    assert_eq!(unit(machine, "ActiveState"), "active");
    assert_ne!(unit(machine, "MainPID"), guard, "the new version runs");

    machine.shell("apt-get remove -qq relevo");
    assert!(machine.relevo().is_empty());
    machine.shell("test -e /etc/relevo/relevo.toml && test -e /etc/relevo/pair.key");
    machine.install(&second);
    assert_eq!(unit(machine, "ActiveState"), "active", "the configuration was kept, and is what it runs on");

    machine.shell("apt-get purge -qq relevo");
    assert!(machine.relevo().is_empty());
    assert_eq!(machine.shell("systemctl is-system-running").trim(), "running");
    let after = files(machine);
    let left: Vec<_> = after.difference(&before).collect();
    let lost: Vec<_> = before.difference(&after).collect();
    assert!(left.is_empty() && lost.is_empty(), "left behind: {left:#?}\nlost: {lost:#?}");
}

/// Every file but those that a system writes by itself; the user stays, as Debian wants it.
fn files(machine: &Machine) -> BTreeSet<String> {
    let list = machine.shell(
        "find / -xdev \\( -path /proc -o -path /sys -o -path /dev -o -path /run -o -path /tmp -o -path /var/tmp \
         -o -path /var/log -o -path /var/cache -o -path /var/lib/apt -o -path /var/lib/systemd/timers \\) -prune -o -print",
    );
    // Copies of what was there before a user was added.
    let is_backup = |path: &&str| ["/etc/passwd-", "/etc/group-", "/etc/shadow-", "/etc/gshadow-"].contains(path);
    list.lines().filter(|path| !is_backup(path)).map(str::to_owned).collect()
}

fn unit(machine: &Machine, property: &str) -> String {
    machine.shell(&format!("systemctl show --value --property={property} relevo")).trim().to_owned()
}
