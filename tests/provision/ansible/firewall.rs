//! A node behind a firewall that lets nothing in but ssh.

use super::{Control, EXAMPLE};
use crate::containers::Site;

const STRICT: &str = "#!/usr/sbin/nft -f
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
fn a_pair_behind_nftables_finds_itself_and_its_clients_find_it() {
    let site = Site::start(&EXAMPLE);
    let control = Control::new(&site);
    for name in ["lb1", "lb2"] {
        site.machine(name).shell("apt-get install -qq nftables >/dev/null");
        site.machine(name).write("/etc/nftables.conf", STRICT);
        site.machine(name).shell("systemctl enable --now nftables");
    }
    let open: &[&str] = &["-e", r#"{"relevo_firewall_ports": [80]}"#];
    control.play("site.yml", open);
    assert_eq!(control.play("site.yml", open).changed(), 0);
    control.play("verify.yml", &[]);
    let rules = || site.machine("lb1").shell("nft list chain inet filter input");
    assert!(rules().contains("10.77.0.12") && rules().contains("policy drop"), "{}", rules());
    // What the firewall forgot, it learns again.
    site.machine("lb1").shell("nft flush chain inet filter input && nft add rule inet filter input tcp dport 22 accept");
    assert!(control.play("site.yml", open).count("lb1", "changed") == 1);
    control.play("remove.yml", &[]);
    assert_eq!(site.machine("lb1").shell("cat /etc/nftables.conf"), STRICT);
    assert!(!rules().contains("relevo"), "{}", rules());
}
