//! The machines themselves: what the other tests take for granted of them.

use std::net::Ipv4Addr;
use std::process::Command;

use crate::containers::Site;

const LB1: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 11);
const LB2: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 12);

#[test]
fn a_machine_boots_restarts_and_loses_its_power() {
    let site = Site::start(&[("lb1", LB1), ("lb2", LB2)]);
    let lb1 = site.machine("lb1");
    let ssh = |command: &str| {
        let mut ssh = Command::new("ssh");
        ssh.arg("-F").arg(site.ssh_config()).args(["admin@lb1", command]);
        site.run(ssh)
    };
    assert_eq!(String::from_utf8_lossy(&ssh("sudo id -un; hostname").stdout), "root\nlb1\n");
    lb1.write("/root/kept", "on disk");
    lb1.write("/run/lost", "in memory");
    lb1.reboot();
    assert_eq!(lb1.shell("cat /root/kept; ls /run/lost 2>/dev/null || true"), "on disk");
    lb1.power_off();
    assert!(!ssh("true").status.success());
    lb1.power_on();
    assert!(ssh("true").status.success());
}
