//! What goes wrong is said once and clearly, leaves nothing half done, and disturbs nobody who is served.

mod rig;

use std::fs::{Permissions, set_permissions};
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::num::NonZeroU8;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::MutexGuard;
use std::time::{Duration, Instant};

use relevo::lab::directory::Directory;
use relevo::lab::namespace::Namespace;
use relevo::lab::outage::Attempt;
use relevo::lab::pair::{FLOATING, NODE_ADDRESSES, Options, Pair, VIRTUAL_ROUTER_ID};
use relevo::status::NodeStatus;
use relevo_ha::State;
use relevo_ha::packet::{Advert, GROUP};
use socket2::{Domain, Protocol, Socket, Type};

use rig::http::get;
use rig::node::{BINARY, Relevo, relevo, run_refused, run_refused_by};
use rig::place::{free_port, is_root, own_loopback, own_network, switch};
use rig::server::Server;
use rig::wait_until;

const NOBODY: u32 = 65534;
const STRANGER: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 66);

/// A frontend at this address whose server nobody will ask.
fn minimal(web: SocketAddr) -> String {
    with_server(web, Server::nowhere())
}

/// A frontend at this address with this server.
fn with_server(web: SocketAddr, server: SocketAddr) -> String {
    format!(
        "[frontends.web]\nbind = \"{web}\"\ndefault_backend = \"app\"\n\
         [[backends.app.servers]]\nname = \"a\"\naddress = \"{server}\"\ncheck = false\n"
    )
}

/// A virtual router on this interface.
fn vrrp(interface: &str) -> String {
    format!(
        "[vrrp.main]\ninterface = \"{interface}\"\nvirtual_router_id = 51\npriority = 200\naddresses = [\"192.0.2.20/24\"]\n\
         advertisement_interval = \"50ms\"\n"
    )
}

/// The lines of the log that warn of something or worse, and have these words.
fn warnings(messages: &str, words: &str) -> Vec<String> {
    let is_warning = |line: &&str| line.contains(" WARN ") || line.contains(" ERROR ");
    messages.lines().filter(is_warning).filter(|line| line.contains(words)).map(str::to_owned).collect()
}

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
        status.node.vrrp[0].state == State::Fault && status.node.vrrp[0].reason.contains("interface eth9")
    });
    let status = node.status().unwrap().node;
    assert!(!status.can_take_over && status.cannot_take_over_because.contains("eth9"), "{status:#?}");
    assert_eq!(get(web, "/").status(), 200);
    // Its counters are looked after once a second: time enough to say it again.
    std::thread::sleep(Duration::from_millis(2200));
    let said: Vec<_> = node.messages().lines().filter(|line| line.contains("eth9 ")).map(str::to_owned).collect();
    assert_eq!(said.len(), 1, "{}", node.messages());
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
    let election = minimal(free_port()) + &vrrp("lo");
    run_refused_by(as_nobody(), &election).assert_clean(&["adverts", "privilege", "CAP_NET_RAW"]);
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

/// A running pair, its client, and a host that means ill.
struct Lab {
    pair: Pair,
    stranger: Namespace,
    directory: Directory,
    begin: Instant,
    _alone: MutexGuard<'static, ()>,
}

/// `None` where there can be no namespaces.
fn lab() -> Option<Lab> {
    let (_, alone) = switch()?;
    let directory = Directory::new().unwrap();
    let pair = Pair::start(&Options::new(Path::new(BINARY), directory.path())).unwrap();
    assert_eq!(pair.wait_ready(rig::PATIENCE).unwrap(), 0);
    let stranger = pair.switch.host("stranger", STRANGER).unwrap().namespace;
    Some(Lab { pair, stranger, directory, begin: Instant::now(), _alone: alone })
}

impl Lab {
    fn node(&self, number: usize) -> NodeStatus {
        self.pair.nodes[number].status().unwrap().node
    }

    fn messages(&self) -> String {
        self.pair.nodes.iter().map(|node| format!("--- {}\n{}", node.name, node.messages())).collect()
    }

    #[track_caller]
    fn wait_for(&self, what: &str, is_so: impl FnMut() -> bool) {
        wait_until(what, is_so, || self.messages());
    }

    fn is_linked(&self) -> bool {
        let is_linked = |node: &relevo::lab::node::Node| node.status().is_ok_and(|status| status.peers[0].connected);
        self.pair.nodes.iter().all(is_linked)
    }

    /// Since all was ready no client saw an error, and the address was always where it is now: at the first node alone.
    #[track_caller]
    fn assert_undisturbed(&self) {
        // Those that had begun before may have waited for a pair that was not ready yet.
        let attempts = || -> Vec<Attempt> {
            let attempts = self.pair.prober.attempts(self.begin);
            attempts.into_iter().filter(|attempt| attempt.start >= self.begin).collect()
        };
        self.wait_for("a hundred requests", || attempts().len() >= 100);
        let attempts = attempts();
        let failed: Vec<&Attempt> = attempts.iter().filter(|attempt| attempt.outcome.is_err()).collect();
        assert!(failed.is_empty(), "{} of {}: {:?}\n{}", failed.len(), attempts.len(), failed[0], self.messages());
        let history = self.pair.watch.history();
        let now = Instant::now();
        assert!(history.holds(0) && !history.holds(1), "{}", history.describe(self.begin));
        assert_eq!(history.longest_without_owner(self.begin, now), Duration::ZERO, "{}", history.describe(self.begin));
        assert_eq!(
            history.longest_with_two_owners(self.begin, now),
            Duration::ZERO,
            "{}",
            history.describe(self.begin)
        );
    }
}

/// A second instance on the active node, by mistake: refused, even with a control socket of its own; and it does not take the
/// first one's address away.
#[test]
fn a_second_instance_leaves_the_first_alone() {
    let Some(lab) = lab() else { return };
    let active = &lab.pair.nodes[0];
    let own = lab.directory.path().join("lb1.toml");
    let other = lab.directory.path().join("other.toml");
    let text = std::fs::read_to_string(&own).unwrap().replace("lb1.sock", "other.sock");
    std::fs::write(&other, text).unwrap();
    for (file, words) in [(&own, "another relevo is running"), (&other, "another relevo is running")] {
        let mut command = Command::new(BINARY);
        command.arg("run").arg("-c").arg(file).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let second = active.host.namespace.spawn(command).unwrap().wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&second.stderr);
        assert_eq!(second.status.code(), Some(1), "{said}");
        let refusals: Vec<_> = said.lines().filter(|line| line.starts_with("relevo: ")).collect();
        assert!(refusals.len() == 1 && refusals[0].contains(words), "{said}");
    }
    assert!(!lab.directory.path().join("other.sock").exists());
    let mut release = Command::new(BINARY);
    release.arg("release").stdout(Stdio::piped()).stderr(Stdio::piped());
    let release = active.host.namespace.spawn(release).unwrap().wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&release.stderr);
    assert!(release.status.code() == Some(1) && said.contains("refused: a node runs here"), "{said}");
    assert_eq!(active.host.namespace.processes().unwrap().len(), 3, "guard, keeper and balancer of the first");
    lab.assert_undisturbed();
}

/// Keys that differ: both nodes say so, once; there is no link, the election goes on without it, and clients are served.
#[test]
fn a_wrong_key_is_named_and_costs_the_link_alone() {
    let Some(mut lab) = lab() else { return };
    lab.pair.nodes[1].end().unwrap();
    let key = lab.directory.path().join("pair.key");
    std::fs::remove_file(&key).unwrap();
    assert!(relevo(&["key", &key.display().to_string()]).status.success());
    lab.pair.nodes[1].start().unwrap();
    const WORDS: &str = "the key of peer at";
    lab.wait_for("both complain of the other's key", || {
        lab.pair.nodes.iter().all(|node| node.messages().contains(WORDS))
    });
    lab.wait_for("the second is a backup", || {
        lab.pair.nodes[1].status().is_ok_and(|status| status.node.vrrp[0].state == State::Backup)
    });
    // Several attempts more.
    std::thread::sleep(Duration::from_secs(2));
    for (number, node) in lab.pair.nodes.iter().enumerate() {
        let messages = node.messages();
        let complaints = warnings(&messages, WORDS);
        let peer = NODE_ADDRESSES[1 - number].to_string();
        assert!(complaints.len() == 1 && complaints[0].contains(&peer), "{}:\n{messages}", node.name);
        assert!(complaints[0].contains("copy the same key file to both nodes"), "{complaints:?}");
        let peer = &node.status().unwrap().peers[0];
        assert!(!peer.connected && peer.link_error.contains("key"), "{}: {peer:#?}", node.name);
    }
    lab.assert_undisturbed();
}

/// An advert as it should be, of the highest priority: obeyed, it would take the address away.
fn sound() -> Vec<u8> {
    let advert = Advert {
        virtual_router_id: NonZeroU8::new(VIRTUAL_ROUTER_ID).unwrap(),
        priority: 255,
        advertisement_interval: Duration::from_millis(100),
        addresses: vec![FLOATING],
    };
    advert.encode(STRANGER, GROUP)
}

/// With the byte at this place of the IP packet changed; its checksum is not.
fn with_byte(place: usize, value: u8) -> Vec<u8> {
    let mut packet = sound();
    packet[place] = value;
    packet
}

/// Packets that pretend to be adverts of highest priority, cut off at every byte, too long, or wrong in some field: each one
/// is ignored and counted by both nodes, one message in ten seconds tells of it, and nothing moves.
#[test]
fn adverts_that_are_not_sound_change_nothing() {
    let Some(lab) = lab() else { return };
    const IP: usize = 20;
    let whole = sound();
    let mut packets: Vec<Vec<u8>> = (IP + 2..whole.len()).map(|length| whole[..length].to_vec()).collect();
    packets.extend([1, 3, 27, 29, 1000].map(|excess| [&whole[..], &vec![0xff; excess]].concat()));
    packets.extend([
        with_byte(8, 64),       // TTL: it comes from another network
        with_byte(8, 254),      // the same, from next door
        with_byte(IP, 0x21),    // version 2
        with_byte(IP, 0x32),    // type 2
        with_byte(IP + 3, 0),   // no address
        with_byte(IP + 3, 255), // more addresses than there are
        with_byte(IP + 5, 0),   // interval 0
        with_byte(IP + 6, 0),   // checksum
        with_byte(IP + 11, 99), // an address that the checksum does not cover
    ]);
    let before = [0, 1].map(|number| lab.node(number).vrrp[0].clone());
    let socket = lab
        .stranger
        .run(|| {
            let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(nix::libc::IPPROTO_RAW))).unwrap();
            socket.set_multicast_if_v4(&STRANGER).unwrap();
            socket
        })
        .unwrap();
    let group = SocketAddr::from((GROUP, 0)).into();
    for packet in &packets {
        assert_eq!(socket.send_to(packet, &group).unwrap(), packet.len());
    }

    let rejected = |number: usize| lab.node(number).vrrp[0].adverts_rejected - before[number].adverts_rejected;
    lab.wait_for("both have counted them", || [0, 1].map(rejected).iter().all(|count| *count >= packets.len() as u64));
    for (number, before) in before.iter().enumerate() {
        let after = lab.node(number).vrrp[0].clone();
        assert_eq!((after.state, after.transitions), (before.state, before.transitions));
        assert_eq!(rejected(number), packets.len() as u64);
        let messages = lab.pair.nodes[number].messages();
        let said = warnings(&messages, "ignored a packet that is no advert");
        assert!((1..=2).contains(&said.len()) && said[0].contains(&STRANGER.to_string()), "{messages}");
    }
    lab.assert_undisturbed();
}

/// Whatever a stranger sends to the peer link (noise, frames of any length, another protocol, half a handshake, nothing at all
/// on many connections): the link of the pair stands, few messages tell of it, and nothing moves. Even while all those
/// connections are open a node that comes back is let in.
#[test]
fn garbage_on_the_peer_link_is_shut_out() {
    let Some(mut lab) = lab() else { return };
    let noise: Vec<u8> = (0..100_000_u32).map(|number| (number.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let handshake = [&[0, 48][..], &noise[..48]].concat();
    let garbage: [&[u8]; 9] = [
        b"",
        &[0],
        &[0, 0],
        &noise,
        &[&[0xff, 0xff][..], &noise].concat(),
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        &handshake,
        &handshake[..20],
    ];
    let connect = |node: usize| {
        let address = SocketAddr::from((NODE_ADDRESSES[node], 8650));
        lab.stranger.run(|| TcpStream::connect_timeout(&address, rig::PATIENCE)).unwrap().unwrap()
    };
    let mut half_open = Vec::new();
    for node in [0, 1] {
        for _ in 0..3 {
            for bytes in garbage {
                let mut connection = connect(node);
                // It may have been closed already.
                let _ = connection.write_all(bytes);
                if bytes.len() < 100 {
                    half_open.push(connection);
                }
            }
        }
        half_open.extend((0..20).map(|_| connect(node)));
    }
    // Longer than a handshake may take, and longer than a silent link is trusted.
    let end = Instant::now() + Duration::from_secs(4);
    while Instant::now() < end {
        assert!(lab.is_linked(), "{}", lab.messages());
        std::thread::sleep(Duration::from_millis(50));
    }
    for node in &lab.pair.nodes {
        let messages = node.messages();
        let said = warnings(&messages, "");
        assert!(said.iter().any(|line| line.contains(&STRANGER.to_string())), "{messages}");
        // Each of the kinds (a wrong key, no peer at all, too many) once in ten seconds.
        let said: Vec<_> = said.iter().filter(|line| line.contains("peer")).collect();
        assert!(said.len() <= 6, "{} messages:\n{messages}", said.len());
    }

    lab.pair.nodes[1].end().unwrap();
    half_open.extend((0..20).map(|_| connect(0)));
    lab.pair.nodes[1].start().unwrap();
    lab.wait_for("they are linked again", || lab.is_linked());
    lab.assert_undisturbed();
}
