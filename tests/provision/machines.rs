//! The machines themselves: what the other tests take for granted of them.

use std::io::{BufRead, BufReader};
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

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

/// Runs this test's program once more, holding its machine, and kills it.
#[test]
fn machines_do_not_outlive_a_test_that_is_killed() {
    if std::env::var_os("RELEVO_HOLD").is_some() {
        drop(Site::start(&[("lb1", LB1)]));
        return;
    }
    let mut test = Command::new("/proc/self/exe")
        .args(["--exact", "--nocapture", "machines::machines_do_not_outlive_a_test_that_is_killed"])
        .env("RELEVO_HOLD", "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(test.stderr.take().unwrap()).lines().map_while(Result::ok);
    let how_to_get_in = lines.find(|line| line.contains("nsenter")).expect("it says how to get in");
    let process: u32 = how_to_get_in.split_whitespace().nth(2).unwrap().parse().unwrap();
    let namespace = |process: u32| std::fs::read_link(format!("/proc/{process}/ns/pid"));
    assert_ne!(
        namespace(process).unwrap(),
        namespace(std::process::id()).unwrap(),
        "its end ends all that is in there"
    );
    test.kill().unwrap();
    test.wait().unwrap();
    let end = Instant::now() + Duration::from_secs(10);
    while Path::new("/proc").join(process.to_string()).exists() {
        assert!(Instant::now() < end, "the machines are still there");
        std::thread::sleep(Duration::from_millis(10));
    }
}
