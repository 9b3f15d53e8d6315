//! The example from five bare machines to five bare machines, the balancers behind a firewall.

use std::process::Command;
use std::time::{Duration, Instant};

use super::contents::Contents;
use super::{Control, EXAMPLE};
use crate::containers::{Machine, Site, package};
use crate::exercises::the_exercises_print_what_their_text_says;

const FLOATING: &str = "10.77.0.20";

/// Lets nothing in but ssh.
const FIREWALL: &str = "#!/usr/sbin/nft -f
flush ruleset
table inet filter {
	chain input {
		type filter hook input priority filter; policy drop;
		ct state established,related accept
		iif lo accept
		tcp dport 22 accept
		counter drop
	}
}
";

#[test]
fn the_example_from_nothing_to_nothing() {
    let site = Site::start(&EXAMPLE);
    let package = package::make(site.directory(), 1);
    let mut control = Control::new(&site, Some(&package));
    control.variables.push(r#"{"relevo_firewall_ports": [80]}"#.to_owned());
    for name in ["lb1", "lb2"] {
        site.machine(name).shell("apt-get install -qq nftables >/dev/null");
        site.machine(name).write("/etc/nftables.conf", FIREWALL);
        site.machine(name).shell("systemctl enable -q --now nftables");
    }
    let before = Contents::of(&site);

    // A dry run on bare hosts goes through and changes nothing.
    let dry = control.play("site.yml", &["--check", "--diff"]);
    assert!(dry.changed() > 0, "it should say what would change:\n{}", dry.text);
    assert_eq!(Contents::of(&site).changes(&before), "", "a dry run changed something");
    assert!(!site.directory().join("keys").exists(), "a dry run made a key");

    control.play("site.yml", &[]);
    let again = control.play("site.yml", &[]);
    assert_eq!(again.changed(), 0, "the second run changed something:\n{}", again.text);

    let verified = control.play("verify.yml", &[]);
    assert_eq!(verified.changed(), 0);
    assert!(verified.text.contains("backend1 backend2 backend1") && verified.text.contains("kept a session"));

    a_dry_run_tells_of_a_change_and_makes_none(&control);
    a_changed_variable_reaches_the_traffic(&control);
    what_a_node_cannot_follow_restarts_nothing(&control);
    an_active_node_stays_where_nobody_could_take_over(&control);
    what_a_run_left_undone_the_next_one_does(&control);
    a_pair_with_a_dead_node_can_be_changed(&control);
    the_program_may_take_the_place_of_the_package(&control);
    the_active_node_fails_over(&control);
    the_exercises_print_what_their_text_says(&site);

    // What others have made since the last boot, and a firewalld that was opened, and has gone since.
    let [lb1, lb2] = ["lb1", "lb2"].map(|name| site.machine(name));
    lb2.shell("nft add table inet others");
    lb1.shell("mkdir -p /etc/firewalld/services /etc/firewalld/zones && echo '<service/>' >/etc/firewalld/services/relevo.xml");
    lb1.write(
        "/etc/firewalld/zones/public.xml",
        "<zone>\n  <service name=\"ssh\"/>\n  <service name=\"relevo\"/>\n</zone>\n",
    );
    control.play("remove.yml", &["-e", "remove_packages=true"]);
    let zone = lb1.shell("cat /etc/firewalld/zones/public.xml; ls /etc/firewalld/services");
    assert_eq!(zone, "<zone>\n  <service name=\"ssh\"/>\n</zone>\n");
    lb1.shell("rm -r /etc/firewalld");
    let left = Contents::of(&site).without_kernel().changes(&before.without_kernel());
    assert_eq!(left, "", "something was left, or taken that was there before");
    assert_eq!(site.machine("lb1").shell("cat /etc/nftables.conf"), FIREWALL);
    let rules = lb2.shell("nft list ruleset");
    assert!(!rules.contains("relevo") && rules.contains("table inet others"), "{rules}");
    assert!(site.directory().join("keys/pair.key").exists(), "the key is the operator's");
}

/// Nothing but the configuration, and what follows from it.
const ALONE: &[&str] = &["--limit", "balancers", "--tags", "config"];

/// Sends nothing to the second web server any more.
const CHANGE: &[&str] = &[
    "-e",
    r#"{"relevo_backends": {
        "app": {"cookie": {"name": "PHPSESSID", "mode": "prefix"}, "servers": [
            {"name": "backend1", "address": "10.77.0.21:80", "cookie": "A"},
            {"name": "backend2", "address": "10.77.0.22:80", "cookie": "B", "weight": 0}]},
        "static": {"servers": [{"name": "static1", "address": "10.77.0.31:80"}]}}}"#,
];

fn a_dry_run_tells_of_a_change_and_makes_none(control: &Control) {
    let pids = |name| control.site.machine(name).shell("cat /etc/relevo/relevo.toml; pgrep -x relevo");
    let before = ["lb1", "lb2"].map(pids);
    let run = control.play("site.yml", &[CHANGE, ALONE, &["--check", "--diff"]].concat());
    assert!(run.text.contains("+weight = 0"), "the difference is not shown:\n{}", run.text);
    // The file; whether a reload is enough is not known yet.
    assert_eq!(["lb1", "lb2"].map(|node| run.count(node, "changed")), [1, 1], "{}", run.text);
    assert_eq!(["lb1", "lb2"].map(pids), before);
    assert_eq!(asked(control, 4), ["backend1", "backend2", "backend1", "backend2"]);
}

/// Without a restart: no process is another one, and the floating address has not moved.
fn a_changed_variable_reaches_the_traffic(control: &Control) {
    let [lb1, lb2] = ["lb1", "lb2"].map(|name| control.site.machine(name));
    let runs = |node: &Machine| {
        let routers = node.status().unwrap().node.vrrp.into_iter();
        (node.shell("pgrep -x relevo"), routers.map(|router| (router.state, router.transitions)).collect::<Vec<_>>())
    };
    wait(control, "lb1 is active", || lb1.shell("ip -4 address show eth0").contains(FLOATING));
    let before = [lb1, lb2].map(runs);
    let run = control.play("site.yml", &[CHANGE, ALONE].concat());
    assert_eq!([lb1, lb2].map(runs), before, "{}", run.text);
    let shown = lb1.shell("relevo status");
    assert!(shown.contains("configuration: the same"), "{shown}");
    assert_eq!(asked(control, 6), ["backend1"; 6]);
    let position = |host: &str| run.text.find(&format!("changed: [{host}]")).unwrap();
    assert!(position("lb2") < position("lb1"), "the backup comes first:\n{}", run.text);
    let again = control.play("site.yml", &[CHANGE, ALONE].concat());
    assert_eq!(again.changed(), 0, "the second run changed something:\n{}", again.text);
}

/// sshd has this port.
const TAKEN: &[&str] =
    &["-e", r#"{"relevo_frontends": {"web": {"bind": ["*:80", "*:22"], "default_backend": "app"}}}"#];

/// A restart would end in a node that does not start.
fn what_a_node_cannot_follow_restarts_nothing(control: &Control) {
    let lb2 = control.site.machine("lb2");
    let before = guard(lb2);
    let file = || lb2.shell("cat /etc/relevo/relevo.toml; ls /etc/relevo");
    let on_disk = file();
    let run = control.try_play("site.yml", &[TAKEN, ALONE].concat());
    assert!(!run.succeeded && run.text.contains("the port is in use"), "{}", run.text);
    assert_eq!(guard(lb2), before, "{}", run.text);
    assert_eq!(file(), on_disk, "the next start would end in the refused file");
    assert_eq!(run.count("lb1", "changed"), 0, "the active node comes after it:\n{}", run.text);
    control.play("site.yml", &[CHANGE, ALONE].concat());
    assert_eq!(guard(lb2), before);
}

/// What only a restart brings.
const INTERVAL: &[&str] = &["-e", "relevo_advertisement_interval=90ms"];

/// Between the nodes, before all other rules: adverts pass, the peer link does not.
const CUT: &str = "table inet cut {
	chain input {
		type filter hook input priority -10;
		tcp dport 8650 drop
		tcp sport 8650 drop
	}
}
";

/// The nodes do not hear of each other whether they are well; a change that needs a restart of the active one is refused, until
/// they do. The backup, which may be restarted at any time, has the change by then.
fn an_active_node_stays_where_nobody_could_take_over(control: &Control) {
    let [lb1, lb2] = ["lb1", "lb2"].map(|name| control.site.machine(name));
    wait(control, "lb1 is active", || lb1.shell("ip -4 address show eth0").contains(FLOATING));
    for node in [lb1, lb2] {
        node.write("/run/cut.nft", CUT);
        node.shell("nft -f /run/cut.nft");
    }
    let alone = |node: &Machine| node.status().is_ok_and(|pair| pair.peers.iter().all(|peer| !peer.connected));
    wait(control, "the link is cut", || alone(lb1) && alone(lb2));
    let before = [lb1, lb2].map(guard);
    let run = control.try_play("site.yml", &[INTERVAL, ALONE].concat());
    let text = run.text.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(!run.succeeded && text.contains("lb1 is active and no other node can take over"), "{}", run.text);
    assert_eq!(guard(lb1), before[0], "lb1 was restarted:\n{}", run.text);
    assert_ne!(guard(lb2), before[1], "lb2 was not:\n{}", run.text);
    assert_eq!(asked(control, 4), ["backend1"; 4], "the change back was made:\n{}", run.text);
    for node in [lb1, lb2] {
        node.shell("nft delete table inet cut");
    }
    control.play("site.yml", &[INTERVAL, ALONE].concat());
    assert_ne!(guard(lb1), before[0]);
    assert_eq!(asked(control, 4).iter().filter(|server| *server == "backend2").count(), 2);
}

/// A run right after the power failed, while connections to the dead host are kept, refuses, and says how to go on without it.
fn a_pair_with_a_dead_node_can_be_changed(control: &Control) {
    let [lb1, lb2] = ["lb1", "lb2"].map(|name| control.site.machine(name));
    let begin = Instant::now();
    lb2.power_off();
    let run = control.try_play("site.yml", &[CHANGE, INTERVAL, ALONE].concat());
    assert!(!run.succeeded && run.text.contains(r#"-e '{\"relevo_absent\": [\"lb2\"]}'"#), "{}", run.text);
    assert!(begin.elapsed() < Duration::from_secs(120), "{:?}", begin.elapsed());
    let peering = || lb1.shell("sed -n '/peering/,$p' /etc/relevo/relevo.toml");
    let before = peering();
    control.play("site.yml", &[CHANGE, INTERVAL, ALONE, &["-e", r#"{"relevo_absent": ["lb2"]}"#]].concat());
    assert_eq!(asked(control, 6), ["backend1"; 6]);
    assert!(peering() == before && before.contains("10.77.0.12:8650"), "{before}{}", peering());
    lb2.power_on();
    let linked = |node: &Machine| node.status().is_ok_and(|pair| pair.peers.iter().all(|peer| peer.connected));
    wait(control, "the pair is whole", || linked(lb1) && linked(lb2));
    control.play("site.yml", ALONE);
    assert_eq!(asked(control, 4).iter().filter(|server| *server == "backend2").count(), 2);
}

/// As the refusal says how: `apt remove` leaves the unit masked.
fn the_program_may_take_the_place_of_the_package(control: &Control) {
    let program = package::program(control.site.directory());
    let program = format!(r#"{{"relevo_package": "", "relevo_binary": "{}"}}"#, program.display());
    for name in ["lb2", "lb1"] {
        control.site.machine(name).shell("apt-get remove -qq relevo >/dev/null");
    }
    control.play("site.yml", &["--limit", "balancers", "-e", &program]);
    let state = |name| control.site.machine(name).shell("systemctl is-enabled relevo; systemctl is-active relevo");
    assert_eq!(["lb1", "lb2"].map(state), ["enabled\nactive\n"; 2]);
}

fn guard(node: &Machine) -> String {
    node.shell("systemctl show --property=MainPID relevo")
}

/// Runs that were cut off, say: a file was written, and neither node nor Apache has read it; the firewall was loaded without the
/// file's end. What others have in the firewall stays.
fn what_a_run_left_undone_the_next_one_does(control: &Control) {
    let [lb1, lb2, backend1] = ["lb1", "lb2", "backend1"].map(|name| control.site.machine(name));
    let configured = || lb2.status().unwrap().node.configured;
    let (before, since) = ([lb1, lb2].map(guard), configured());
    for (node, file) in [(lb1, "pair.key"), (lb2, "relevo.toml")] {
        node.shell(&format!("cd /etc/relevo && cp -p {file} new && mv new {file}"));
    }
    let site = "/etc/apache2/sites-available/relevo-web.conf";
    backend1.shell(&format!("cp -p {site} /root/new && mv /root/new {site}"));
    let reloaded = || backend1.shell("systemctl show --property=StateChangeTimestampMonotonic apache2");
    let loaded = reloaded();
    lb1.write("/run/firewall.nft", FIREWALL);
    lb1.shell("nft -f /run/firewall.nft");
    for node in [lb1, lb2] {
        node.shell("nft add table inet others");
    }
    let run = control.play("site.yml", &["--limit", "balancers:webservers", "--tags", "firewall,service,pages"]);
    let changed = ["lb1", "lb2", "backend1", "backend2"].map(|host| run.count(host, "changed"));
    assert_eq!(changed, [2, 1, 1, 0], "{}", run.text);
    // A key needs a restart, the configuration none.
    assert_ne!(guard(lb1), before[0]);
    assert!(guard(lb2) == before[1] && configured() > since);
    assert_ne!(reloaded(), loaded);
    let rules = lb1.shell("nft list ruleset");
    assert!(rules.contains("VRRP from 10.77.0.12") && rules.contains("table inet others"), "{rules}");
}

fn the_active_node_fails_over(control: &Control) {
    let lb1 = control.site.machine("lb1");
    wait(control, "lb1 is active", || lb1.shell("ip -4 address show eth0").contains(FLOATING));
    let run = control.play("failover.yml", &[]);
    let numbers = run.text.lines().find(|line| line.contains("the longest outage was")).unwrap_or_default();
    println!("{}", numbers.trim());
    assert!(numbers.contains("lb1 was killed"), "{}", run.text);
}

/// The servers that answer requests to the floating address, in turn.
fn asked(control: &Control, requests: usize) -> Vec<String> {
    let ask = || {
        let mut curl = Command::new("curl");
        curl.args(["-sS", "--max-time", "5", "-o", "/dev/null", "-w", "%header{x-served-by}"]);
        control.site.execute({
            curl.arg(format!("http://{FLOATING}/"));
            curl
        })
    };
    let mut answers: Vec<String> = (0..requests).map(|_| ask()).collect();
    // Whose turn it is when this begins does not matter.
    if answers.first().is_some_and(|first| first == "backend2") {
        answers.rotate_left(1);
    }
    answers
}

#[track_caller]
fn wait(control: &Control, what: &str, mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !is_so() {
        assert!(
            Instant::now() < end,
            "not within 20 s: {what}\n{}",
            control.site.machine("lb2").shell("relevo status")
        );
        std::thread::sleep(Duration::from_millis(50));
    }
}
