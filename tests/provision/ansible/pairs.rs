//! Two pairs, from a playbook of one's own as ansible/README.md has it.

use std::net::Ipv4Addr;

use super::{Control, directory};
use crate::containers::{Site, package};

const MACHINES: [(&str, Ipv4Addr); 4] = [
    ("north1", Ipv4Addr::new(10, 77, 0, 41)),
    ("north2", Ipv4Addr::new(10, 77, 0, 42)),
    ("south1", Ipv4Addr::new(10, 77, 0, 51)),
    ("south2", Ipv4Addr::new(10, 77, 0, 52)),
];

const INVENTORY: &str = "
north:
  hosts: { north1: { ansible_host: 10.77.0.41 }, north2: { ansible_host: 10.77.0.42 } }
  vars: { relevo_group: north, relevo_virtual_addresses: [10.77.0.40/24], relevo_virtual_router_id: 40 }
south:
  hosts: { south1: { ansible_host: 10.77.0.51 }, south2: { ansible_host: 10.77.0.52 } }
  vars: { relevo_group: south, relevo_virtual_addresses: [10.77.0.50/24], relevo_virtual_router_id: 50, relevo_unicast: true }
all:
  vars:
    relevo_frontends: { web: { bind: ['*:80'], default_backend: app } }
    relevo_backends: { app: { servers: [{ name: one, address: '10.77.0.99:80' }] } }
    relevo_chrony: false
";

const PLAYBOOK: &str = "
- hosts: north:south
  become: true
  any_errors_fatal: true
  tasks:
    - ansible.builtin.include_role: { name: relevo, tasks_from: check }
    - ansible.builtin.include_role: { name: relevo, tasks_from: order }

- hosts: relevo_first:relevo_last
  become: true
  serial: 1
  any_errors_fatal: true
  gather_facts: false
  roles: [relevo]
";

#[test]
fn each_pair_has_a_key_of_its_own() {
    let site = Site::start(&MACHINES);
    let control = Control::new(&site, None);
    let file = |name: &str, content: &str| {
        let path = site.directory().join(name);
        std::fs::write(&path, content).unwrap();
        path
    };
    let inventory = file("pairs.yml", INVENTORY);
    let playbook = file("own.yml", PLAYBOOK);
    let program = package::program(site.directory());
    let play = || {
        let mut command = control.playbook(&[inventory.clone(), site.directory().join("machines.yml")]);
        command.env("ANSIBLE_ROLES_PATH", directory().join("roles"));
        command.arg("-e").arg(format!("relevo_binary={}", program.display())).arg(&playbook);
        let run = control.run(command);
        assert!(run.succeeded, "{}", run.text);
        run
    };
    play();
    assert_eq!(play().changed(), 0);

    let keys = MACHINES
        .map(|(name, _)| site.machine(name).shell("stat -c '%a %U' /etc/relevo/pair.key; cat /etc/relevo/pair.key"));
    assert_eq!(keys[0], keys[1]);
    assert_eq!(keys[2], keys[3]);
    assert_ne!(keys[0], keys[2]);
    assert!(keys.iter().all(|key| key.starts_with("600 root\n")), "{keys:?}");
    for (pair, on_node) in [("north", &keys[0]), ("south", &keys[2])] {
        // Beside the playbook, where the operator keeps it.
        let path = site.directory().join(format!("keys/{pair}.key"));
        let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&path).unwrap().permissions());
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(&format!("600 root\n{}", std::fs::read_to_string(&path).unwrap()), on_node);
    }
    // The first of each group is active, and its peer could take over.
    for (active, backup) in [("north1", "north2"), ("south1", "south2")] {
        let status = site.machine(active).shell("relevo status");
        assert!(status.contains(&format!("takeover: {backup} could take over now")), "{status}");
        assert!(status.contains("configuration: the same"), "{status}");
    }
}
