//! Configurations that are broken, or that ask for what is not there.

use std::fs::{Permissions, set_permissions};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use relevo::lab::directory::Directory;
use relevo_ha::State;

use crate::rig::http::get;
use crate::rig::node::{BINARY, Relevo, relevo, run_refused, run_refused_by};
use crate::rig::place::{free_port, is_root, own_loopback, own_network};
use crate::rig::server::Server;
use crate::{minimal, vrrp, warnings, with_server};

const NOBODY: u32 = 65534;

/// Everything that is wrong is said at once, each with its place, its path and what was probably meant; `check` and `run` say
/// the same and exit with 1.
#[test]
fn a_broken_configuration_is_refused_with_all_its_errors() {
    let _place = own_loopback();
    let text = "[frontends.web]\nbind = \"*:99999\"\ndefault_backend = \"ap\"\nforwarded_fro = true\n\n\
                [backends.app]\nbalance = \"least_conections\"\nhealth = { interval = \"2\" }\n\n\
                [[backends.app.servers]]\nname = \"a\"\n";
    let run = run_refused(text);
    assert_eq!(run.code, Some(1), "{}", run.messages);
    let directory = Directory::new().unwrap();
    let file = directory.path().join("broken.toml");
    std::fs::write(&file, text).unwrap();
    let check = relevo(&["check", "-c", &file.display().to_string()]);
    assert_eq!(check.status.code(), Some(1));
    assert!(check.stdout.is_empty());

    for messages in [run.messages.clone(), String::from_utf8(check.stderr).unwrap()] {
        for words in [
            "frontends.web.bind",
            "frontends.web.default_backend",
            "did you mean \"app\"?",
            "forwarded_fro",
            "did you mean `forwarded_for`?",
            "backends.app.balance",
            "\"least_connections\"",
            "backends.app.health.interval",
            "backends.app.servers[0]: `address` is missing",
            ": 6 errors",
        ] {
            assert!(messages.contains(words), "{words:?} is missing:\n{messages}");
        }
        assert_eq!(messages.matches("error: ").count(), 6, "{messages}");
    }

    let missing = relevo(&["check", "-c", "/nonexistent/relevo.toml"]);
    let said = String::from_utf8(missing.stderr).unwrap();
    assert_eq!(missing.status.code(), Some(1));
    assert!(said.contains("/nonexistent/relevo.toml") && said.contains("No such file"), "{said}");
}

/// A port in use: which one, wanted by which frontend, and what to do. Nothing of the node stays behind, whoever had the port
/// keeps it, and so it is where that is another node, which still serves.
#[test]
fn a_port_in_use_is_named() {
    let place = own_loopback();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let taken = listener.local_addr().unwrap();
    run_refused(&minimal(taken)).assert_clean(&["\"web\"", &taken.to_string(), "in use", "ss -ltnp"]);
    place.assert_no_relevo();

    let server = Server::named("a");
    let web = free_port();
    let first = Relevo::start(&with_server(web, server.address));
    assert_eq!(get(web, "/").status(), 200);
    run_refused(&minimal(web).replace("frontends.web", "frontends.shop")).assert_clean(&[
        "\"shop\"",
        &web.to_string(),
        "in use",
    ]);
    for _ in 0..20 {
        assert_eq!(get(web, "/").status(), 200, "{}", first.messages());
    }
    assert!(first.stop().success());
    place.assert_no_relevo();
}

/// An interface that is not there: said once, the virtual router is in fault and says why, and the balancer serves.
#[test]
fn a_missing_interface_is_a_fault_and_no_more() {
    let Some(_place) = own_network() else { return };
    let server = Server::named("a");
    let web = free_port();
    let text = with_server(web, server.address);
    let node = Relevo::start(&format!("{text}{}", vrrp("eth9")));
    node.wait_for("the router is in fault", |status| {
        status.node.vrrp[0].state == State::Fault
            && status.node.vrrp[0].reason.contains("interface eth9 does not exist")
    });
    let status = node.status().unwrap().node;
    assert!(!status.can_take_over && status.cannot_take_over_because.contains("eth9"), "{status:#?}");
    assert_eq!(get(web, "/").status(), 200);
    // Its counters are looked after once a second: time enough to say it again.
    std::thread::sleep(Duration::from_millis(2200));
    let said: Vec<_> = node.messages().lines().filter(|line| line.contains("eth9 ")).map(str::to_owned).collect();
    assert_eq!(said.len(), 1, "{}", node.messages());
    assert_eq!(warnings(&said[0], "correct the name (this host has none but the loopback)").len(), 1, "{said:?}");
}

/// A copy of the program where anybody can run it.
fn for_anybody(directory: &Directory) -> PathBuf {
    let copy = directory.path().join("relevo");
    std::fs::copy(BINARY, &copy).unwrap();
    set_permissions(&copy, Permissions::from_mode(0o755)).unwrap();
    set_permissions(directory.path(), Permissions::from_mode(0o755)).unwrap();
    copy
}

/// Without privilege: a port below 1024 and an election are refused, each with what it would take; without them the node runs,
/// and one warning says what is missing.
#[test]
fn without_privilege_it_says_what_it_would_take() {
    let Some(place) = own_network() else { return };
    if !is_root() {
        return;
    }
    let directory = Directory::new().unwrap();
    let copy = for_anybody(&directory);
    let as_nobody = || {
        let mut command = Command::new(&copy);
        command.uid(NOBODY).gid(NOBODY);
        command
    };
    let low = (Ipv4Addr::LOCALHOST, 80).into();
    run_refused_by(as_nobody(), &minimal(low)).assert_clean(&["\"web\"", "127.0.0.1:80", "root", "NET_BIND_SERVICE"]);
    let election = minimal(free_port()) + &vrrp("eth0");
    run_refused_by(as_nobody(), &election).assert_clean(&["adverts", "privilege", "CAP_NET_RAW"]);
    // Only root can read it, as it should be where root runs the node.
    let key = directory.path().join("pair.key");
    assert!(relevo(&["key", &key.display().to_string()]).status.success());
    let peering = format!(
        "[peering]\nlisten = \"{}\"\nkey_file = \"{}\"\npeers = {{ lb2 = \"127.0.0.2:1\" }}\n",
        free_port(),
        key.display()
    );
    run_refused_by(as_nobody(), &(minimal(free_port()) + &peering)).assert_clean(&[
        &key.display().to_string(),
        "Permission denied",
        "run as root",
        "chown",
    ]);
    place.assert_no_relevo();

    let server = Server::named("a");
    let web = free_port();
    // So few that the limit of open files is no matter.
    let text = format!("[process]\nmax_connections = 100\n{}", with_server(web, server.address));
    let node = Relevo::launch_by(as_nobody(), &text);
    node.wait_for_servers(1);
    assert_eq!(get(web, "/").status(), 200);
    assert_eq!(warnings(&node.messages(), "restricted mode").len(), 1, "{}", node.messages());
    assert_eq!(warnings(&node.messages(), "").len(), 1, "{}", node.messages());
}

/// A user, a group, a directory that the balancer is to have and that is not there: which, and how to make it. Without the
/// right to become another user that is no error.
#[test]
fn a_missing_user_is_named() {
    if !is_root() {
        return;
    }
    let place = own_loopback();
    let refused = |process: &str| run_refused(&format!("[process]\n{process}\n{}", minimal(free_port())));
    refused("user = \"nobody-knows\"").assert_clean(&["process.user", "\"nobody-knows\"", "useradd"]);
    refused("user = \"nobody\"\ngroup = \"no-such-group\"").assert_clean(&[
        "process.group",
        "\"no-such-group\"",
        "groupadd",
    ]);
    refused("user = \"root\"").assert_clean(&["process.user", "root"]);
    refused("user = \"nobody\"\nchroot = \"/no/such/dir\"").assert_clean(&["process.chroot", "/no/such/dir", "mkdir"]);
    place.assert_no_relevo();
}

/// The key that the nodes share: others may not read it; it must be there, and be a key.
#[test]
fn a_key_file_that_others_can_read_is_refused() {
    let place = own_loopback();
    let directory = Directory::new().unwrap();
    let key = directory.path().join("pair.key");
    let path = key.display().to_string();
    let text = format!(
        "{}[peering]\nlisten = \"{}\"\nkey_file = \"{path}\"\npeers = {{ lb2 = \"127.0.0.2:1\" }}\n",
        minimal(free_port()),
        free_port()
    );
    run_refused(&text).assert_clean(&[&path, "No such file", "relevo key"]);

    assert!(relevo(&["key", &path]).status.success());
    let again = relevo(&["key", &path]);
    assert_eq!(again.status.code(), Some(1), "a key is never overwritten");
    for mode in [0o644, 0o640, 0o604, 0o620] {
        set_permissions(&key, Permissions::from_mode(mode)).unwrap();
        run_refused(&text).assert_clean(&[&path, "read by others", &format!("{mode:04o}"), "chmod 600"]);
    }

    std::fs::write(&key, "not a key\n").unwrap();
    set_permissions(&key, Permissions::from_mode(0o600)).unwrap();
    let refused = run_refused(&text);
    refused.assert_clean(&[&path, "does not hold a key", "64"]);
    assert!(!refused.messages.contains("not a key\n"), "a secret may be in it");
    place.assert_no_relevo();
}
