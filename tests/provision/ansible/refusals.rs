//! What cannot work is refused before anything is changed on any host, and the refusal says what to do.

use std::net::Ipv4Addr;
use std::sync::Mutex;

use super::contents::Contents;
use super::{Control, EXAMPLE, Run};
use crate::containers::Site;

/// What is wrong, the arguments that make it so, and what the answer has to say.
const REFUSED: &[(&str, &[&str], &[&str])] = &[
    (
        "a variable that is not set",
        &["-e", r#"{"relevo_virtual_addresses": []}"#],
        &["relevo_virtual_addresses is not set for lb", "192.168.1.20/24"],
    ),
    (
        "a variable that another one needs",
        &["-e", r#"{"floating_address": "{{ not_there }}"}"#],
        &["'not_there' is undefined"],
    ),
    (
        "a text for a list",
        &["-e", "relevo_virtual_addresses=10.77.0.20/24"],
        &["relevo_virtual_addresses of lb1 has to be a list, such as ", ", and is a text"],
    ),
    ("a variable of another type", &["-e", "relevo_priority=high"], &["relevo_priority", "int"]),
    ("nothing to install", &["-e", "relevo_binary="], &["relevo_package", "relevo_binary", "cargo deb"]),
    (
        "a file that is not there",
        &["-e", "relevo_binary=/no/relevo"],
        &["/no/relevo is not there on the control machine"],
    ),
    (
        "an interface that is not there",
        &["-e", "relevo_interface=eth9"],
        &["has no interface eth9: it has eth0, lo; correct relevo_interface, relevo_address or"],
    ),
    (
        "an address that the node does not have",
        &["-e", "relevo_address=10.77.0.99"],
        &["does not have the address 10.77.0.99: it has 10.77.0.1", "correct relevo_address"],
    ),
    (
        "two hosts with the same priority",
        &["-e", "relevo_priority=200"],
        &["lb1 and lb2 have the same relevo_priority, 200: give each node its own in host_vars/"],
    ),
    (
        "an address outside the interface's network",
        &["-e", r#"{"relevo_virtual_addresses": ["10.77.0.20/24", "10.78.0.20/24"]}"#],
        &["10.78.0.20/24 is in no network of eth0", "relevo_virtual_addresses"],
    ),
    (
        "a node's own address that is to move",
        &["-e", r#"{"relevo_virtual_addresses": ["10.77.0.12/24"]}"#],
        &["10.77.0.12 is a node's own address and cannot move", "relevo_virtual_addresses"],
    ),
    (
        "a configuration that relevo refuses",
        &["-e", r#"{"relevo_timeouts": {"conect": "5s"}}"#],
        &["`relevo check` refuses the configuration of lb", "conect", "did you mean", "correct the variables"],
    ),
    (
        "a backend that is not there",
        &["-e", r#"{"relevo_frontends": {"web": {"bind": ["*:80"], "default_backend": "ap"}}}"#],
        &["`relevo check` refuses the configuration of lb", "app"],
    ),
    (
        "an IPv6 address that is to move",
        &["-e", r#"{"relevo_virtual_addresses": ["10.77.0.20/24", "2001:db8::20/64"]}"#],
        &["2001:db8::20/64 is an IPv6 address, which cannot move yet"],
    ),
    (
        "a kernel setting that is not there",
        &["-e", r#"{"relevo_sysctls": {"net.core.somaxcon": 8192}}"#],
        &["does not have all kernel settings of relevo_sysctls", "net/core/somaxcon", "correct their names"],
    ),
    (
        "a chain that is not there",
        &["-e", "relevo_nftables_chain='inet filter in'"],
        &["cannot have rules in the chain inet filter in", "let relevo_nftables_chain name the family"],
    ),
    ("a node left out", &["--limit", "lb1"], &["lb2 was not checked together with lb1", "--limit"]),
];

/// One of each kind is enough, and quicker.
const MACHINES: [(&str, Ipv4Addr); 3] = [EXAMPLE[0], EXAMPLE[1], EXAMPLE[2]];
const THESE: &[&str] = &["--limit", "lb1:lb2:backend1"];

/// Another package of that name.
const PACKAGE: &str = "mkdir -p /run/relevo-package/DEBIAN && cd /run/relevo-package &&
    printf 'Package: relevo\nVersion: 0\nArchitecture: all\nMaintainer: nobody\nDescription: a test\n' >DEBIAN/control &&
    dpkg-deb --build . /run/relevo.deb >/dev/null && dpkg --install /run/relevo.deb >/dev/null";

#[test]
fn what_cannot_work_is_refused_before_anything_is_changed() {
    let site = Site::start(&MACHINES);
    let control = Control::new(&site, None);
    let lb1 = site.machine("lb1");
    lb1.shell("apt-get install -qq nftables >/dev/null && systemctl start nftables");
    let before = Contents::of(&site);
    // A run that was killed has left it.
    lb1.shell("mkdir /var/tmp/relevo-check-old && echo >/var/tmp/relevo-check-old/relevo.toml");
    lb1.shell("touch -d yesterday /var/tmp/relevo-check-old");
    let refused = |what: &str, run: &Run, answer: &[&str]| {
        assert!(!run.succeeded, "{what} was accepted:\n{}", run.text);
        let text = run.text.split_whitespace().collect::<Vec<_>>().join(" ");
        for part in answer {
            assert!(text.contains(part), "{what}: the answer does not say {part:?}:\n{}", run.text);
        }
        assert_eq!(run.changed(), 0, "{what}:\n{}", run.text);
    };
    // Two at a time: they wait for machines more than they compute.
    let next = Mutex::new(REFUSED.iter());
    let work = || {
        while let Some((what, arguments, answer)) = { next.lock().unwrap().next() } {
            refused(what, &control.try_play("site.yml", &[THESE, arguments].concat()), answer);
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(work);
        work();
    });
    assert_eq!(Contents::of(&site).changes(&before), "");
    // What a person has begun by hand, and what hides the program that is installed.
    lb1.shell("cp /bin/sleep /var/tmp/relevo && (setsid /var/tmp/relevo 600 >/dev/null 2>&1 &)");
    let run = control.try_play("site.yml", THESE);
    refused(
        "a node that runs already",
        &run,
        &["Relevo runs on lb1 already, started by hand (", "/var/tmp/relevo 600"],
    );
    lb1.shell("kill $(pgrep -x relevo); rm /var/tmp/relevo");
    lb1.shell("printf '#!/bin/sh\n' >/usr/local/sbin/relevo && chmod +x /usr/local/sbin/relevo");
    let run = control.try_play("site.yml", THESE);
    refused(
        "a program before ours",
        &run,
        &["lb1 has a program /usr/local/sbin/relevo, which is found before /usr/bin/relevo"],
    );
    lb1.shell("rm /usr/local/sbin/relevo");
    assert_eq!(Contents::of(&site).changes(&before), "");
    lb1.shell(PACKAGE);
    let before = Contents::of(&site);
    let run = control.try_play("site.yml", THESE);
    refused(
        "a package's files",
        &run,
        &["lb1 has Relevo from a package", "set relevo_package instead", "apt remove relevo"],
    );
    assert_eq!(Contents::of(&site).changes(&before), "");
    site.machine("backend1").power_off();
    let run = control.try_play("site.yml", &[THESE, &["-T", "3"]].concat());
    refused(
        "a host that cannot be reached",
        &run,
        &["backend1 cannot be reached, and nothing was changed on any host", "--limit 'all:!backend1'"],
    );
    assert_eq!(Contents::of(&site).changes(&before), "");
}
