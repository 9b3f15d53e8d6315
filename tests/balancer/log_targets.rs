//! Where the log goes: files that are moved away, daemons that listen, and the three formats.

use std::net::UdpSocket;
use std::os::unix::net::UnixDatagram;
use std::path::Path;

use relevo::status::BalancerState;

use crate::configuration;
use crate::rig::http::{Connection, get, response};
use crate::rig::node::Relevo;
use crate::rig::place::{free_port, is_root, own_loopback, own_network, replace_file};
use crate::rig::server::Server;
use crate::rig::wait_until;

/// Waits for a line with these words.
#[track_caller]
fn wait_for_line(file: &Path, words: &str) -> String {
    let text = || std::fs::read_to_string(file).unwrap_or_default();
    let find = || text().lines().find(|line| line.contains(words)).map(str::to_owned);
    wait_until(&format!("a line with {words:?} in {}", file.display()), || find().is_some(), text);
    find().unwrap()
}

/// logrotate moves a file and sends SIGUSR1: what comes after that is in a new one, from all three processes.
#[test]
fn a_file_that_was_moved_is_opened_again_on_sigusr1() {
    let _place = own_loopback();
    let directory = relevo::lab::directory::Directory::new().unwrap();
    let (file, moved) = (directory.path().join("relevo.log"), directory.path().join("relevo.log.1"));
    let server = Server::named("a");
    let (web, text) = configuration("", "", &[server.address]);
    let node = Relevo::start(&format!("[log]\ntarget = \"{}\"\n{text}", file.display()));
    get(web, "/before");
    wait_for_line(&file, "GET /before ");
    wait_for_line(&file, " INFO keeper: ready");

    std::fs::rename(&file, &moved).unwrap();
    node.signal(nix::sys::signal::Signal::SIGUSR1);
    wait_until("the file is there again", || file.exists(), String::new);
    // The balancer gets its own a little later.
    let mut number = 0;
    let arrives = || {
        number += 1;
        get(web, &format!("/after{number}"));
        std::fs::read_to_string(&file).unwrap_or_default().contains("GET /after")
    };
    wait_until("requests are in the new file", arrives, String::new);
    assert!(!std::fs::read_to_string(&file).unwrap().contains("GET /before"));
    assert_eq!(node.messages(), "", "stderr is no target");
    let balancer = node.balancer();
    nix::sys::signal::kill(balancer, nix::sys::signal::Signal::SIGKILL).unwrap();
    wait_for_line(&file, " ERROR keeper: the balancer is lost");
    wait_until(
        "a new balancer serves",
        || Connection::open(web).and_then(|mut it| it.get("/new")).is_ok(),
        String::new,
    );
    wait_for_line(&file, "GET /new ");
}

/// A file whose folder has gone does not keep the others from being opened again.
#[test]
fn a_file_that_cannot_be_opened_again_costs_no_other() {
    let _place = own_loopback();
    let directory = relevo::lab::directory::Directory::new().unwrap();
    let (folder, file) = (directory.path().join("folder"), directory.path().join("relevo.log"));
    std::fs::create_dir(&folder).unwrap();
    let server = Server::named("a");
    let (web, text) = configuration("", "", &[server.address]);
    let other = folder.join("relevo.log");
    let node = Relevo::start(&format!("[log]\ntarget = [\"{}\", \"{}\"]\n{text}", other.display(), file.display()));
    get(web, "/before");
    wait_for_line(&file, "GET /before ");

    std::fs::remove_dir_all(&folder).unwrap();
    std::fs::remove_file(&file).unwrap();
    node.signal(nix::sys::signal::Signal::SIGUSR1);
    let arrives = || {
        get(web, "/after");
        std::fs::read_to_string(&file).unwrap_or_default().contains("GET /after ")
    };
    wait_until("requests are in the new file", arrives, String::new);
    wait_for_line(&file, &format!("cannot open {}: No such file", other.display()));
}

/// Every target gets what its level lets through, in its own form.
#[test]
fn several_targets_each_have_their_level_and_facility() {
    let _place = own_loopback();
    let directory = relevo::lab::directory::Directory::new().unwrap();
    let file = directory.path().join("errors.log");
    let daemon = UdpSocket::bind("127.0.0.1:0").unwrap();
    daemon.set_read_timeout(Some(crate::rig::PATIENCE)).unwrap();
    let server = Server::named("a");
    let (web, text) = configuration("", "", &[server.address]);
    let _node = Relevo::start(&format!(
        "[log]\ntarget = [\"stderr\", {{ to = \"udp:{}\", facility = \"local1\" }}, \
         {{ to = \"{}\", level = \"warn\" }}]\n{text}",
        daemon.local_addr().unwrap(),
        file.display(),
    ));
    get(web, "/one");
    let mut buffer = [0; 2000];
    let line = loop {
        let length = daemon.recv(&mut buffer).unwrap();
        let datagram = String::from_utf8(buffer[..length].to_vec()).unwrap();
        if datagram.contains("GET /one ") {
            break datagram;
        }
    };
    // local1 is 17, info is 6.
    assert!(line.starts_with("<142>") && line.contains(" relevo["), "{line}");
    assert!(line.contains("]: 127.0.0.1:") && line.ends_with("\"GET /one HTTP/1.1\""), "{line}");
    let errors = std::fs::read_to_string(&file).unwrap();
    assert!(!errors.contains("INFO") && !errors.contains("GET /one"), "{errors}");
}

/// A request that ends under a configuration that was replaced has its line, though nothing else is left of that.
#[test]
fn the_last_request_of_an_old_configuration_has_its_line() {
    let _place = own_loopback();
    let (answers, held) = std::sync::mpsc::channel::<()>();
    let held = std::sync::Mutex::new(held);
    let server = Server::answering(move |_| {
        let _ = held.lock().unwrap().recv();
        response("200 OK", "Connection: close\r\n", "late")
    });
    let (web, text) = configuration("", "", &[server.address]);
    let node = Relevo::start(&text);
    for number in 1..6 {
        let mut connection = Connection::open(web).unwrap();
        connection.send(format!("GET /held{number} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")).unwrap();
        wait_until(
            "it is under way",
            || node.status().unwrap().node.backends[0].servers[0].connections == 1,
            || node.messages(),
        );
        node.reload_with(&format!("[log]\nformat = '%r, {number}'\n{text}"));
        answers.send(()).unwrap();
        assert_eq!(connection.receive().unwrap().text(), "late");
        node.wait_for_message(&format!("GET /held{number} "));
    }
}

/// Lines that a target refuses are lost, and counted: here its disk is full.
#[test]
fn lost_lines_are_counted() {
    let _place = own_loopback();
    let server = Server::named("a");
    let stats = free_port();
    let (web, text) = configuration("", "", &[server.address]);
    let _node = Relevo::start(&format!("[log]\ntarget = \"/dev/full\"\n[stats]\nlisten = \"{stats}\"\n{text}"));
    (0..3).for_each(|_| drop(get(web, "/")));
    let lost = || {
        let metrics = get(stats, "/metrics").text();
        let line = metrics.lines().find_map(|line| line.strip_prefix("relevo_log_lines_lost_total "));
        line.unwrap().parse::<f64>().unwrap()
    };
    wait_until("the lines are counted", || lost() >= 3.0, || get(stats, "/metrics").text());
    assert!(get(stats, "/").text().contains("log lines lost"));
}

/// A syslog daemon of the network need not be reachable when the node starts: it gets what is logged once it is.
#[test]
fn a_network_may_come_later() {
    let Some(_place) = own_network() else { return };
    let server = Server::named("a");
    let (web, text) = configuration("", "", &[server.address]);
    let node = Relevo::start(&format!("[log]\ntarget = [\"stderr\", \"udp:192.0.2.7:514\"]\n{text}"));
    get(web, "/before");
    node.wait_for_message("GET /before ");

    let added = std::process::Command::new("ip").args(["address", "add", "192.0.2.7/32", "dev", "lo"]).status();
    assert!(added.expect("iproute2 has to be installed: tests/run does that").success());
    let daemon = UdpSocket::bind("192.0.2.7:514").unwrap();
    daemon.set_nonblocking(true).unwrap();
    let arrives = || {
        get(web, "/after");
        let mut buffer = [0; 2000];
        daemon.recv(&mut buffer).is_ok_and(|length| String::from_utf8_lossy(&buffer[..length]).contains("GET /after "))
    };
    wait_until("requests arrive", arrives, || node.messages());
}

/// A target that is not there is said before anything is begun.
#[test]
fn a_target_that_cannot_be_opened_is_said() {
    let _place = own_loopback();
    let (_, text) = configuration("", "", &[Server::nowhere()]);
    let refused = crate::rig::node::run_refused(&format!("[log]\ntarget = \"/nowhere/relevo.log\"\n{text}"));
    refused.assert_clean(&["log.target: cannot open /nowhere/relevo.log", "is its folder there"]);
}

/// A daemon may start after the node: it gets the lines from then on, and hears how many it has missed.
#[test]
fn a_daemon_that_comes_later_gets_what_is_logged_then() {
    if !is_root() {
        return;
    }
    let _place = own_loopback();
    let directory = relevo::lab::directory::Directory::new().unwrap();
    let journal = directory.path().join("systemd/journal");
    std::fs::create_dir_all(&journal).unwrap();
    replace_file(Path::new("/run"), directory.path());
    let server = Server::named("a");
    let (web, text) = configuration("", "", &[server.address]);
    let node = Relevo::start(&format!("[log]\ntarget = [\"journald\", \"stderr\"]\n{text}"));
    node.wait_for_message(" WARN guard: log.target: journald is away (No such file");
    get(web, "/before");

    let daemon = UnixDatagram::bind(journal.join("socket")).unwrap();
    daemon.set_nonblocking(true).unwrap();
    let lines = std::cell::RefCell::new(String::new());
    let has = |words: &str| {
        let mut buffer = [0; 2000];
        while let Ok(length) = daemon.recv(&mut buffer) {
            lines.borrow_mut().push_str(&String::from_utf8_lossy(&buffer[..length]));
        }
        lines.borrow().contains(words)
    };
    let arrives = || {
        get(web, "/after");
        has("GET /after ")
    };
    wait_until("requests arrive", arrives, || node.messages());
    wait_until("it hears what it has missed", || has("lines were lost: this target was away"), || node.messages());
    assert!(!lines.borrow().contains("GET /before "), "{}", lines.borrow());
    // It looks for the daemon once a second.
    let keeper_speaks = || {
        let serving = node.status().filter(|status| status.node.balancer.state == BalancerState::Serving);
        if let Some(pid) = serving.and_then(|status| i32::try_from(status.node.balancer.pid).ok()) {
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
        }
        has("MESSAGE=keeper: the balancer is lost")
    };
    wait_until("the keeper's lines arrive as well", keeper_speaks, || node.messages());
}

/// syslog(3)'s daemon, from within a chroot and as nobody, and again after the daemon was restarted.
#[test]
fn syslog_gets_what_a_locked_in_balancer_logs() {
    if !is_root() {
        return;
    }
    let _place = own_loopback();
    let directory = relevo::lab::directory::Directory::new().unwrap();
    let (devices, empty) = (directory.path().join("dev"), directory.path().join("empty"));
    [&devices, &empty].into_iter().for_each(|path| std::fs::create_dir(path).unwrap());
    for device in ["null", "urandom"] {
        let place = devices.join(device);
        std::fs::write(&place, "").unwrap();
        replace_file(&place, &Path::new("/dev").join(device));
    }
    replace_file(Path::new("/dev"), &devices);
    let socket = Path::new("/dev/log");
    let listen = || {
        let _ = std::fs::remove_file(socket);
        let daemon = UnixDatagram::bind(socket).unwrap();
        daemon.set_nonblocking(true).unwrap();
        daemon
    };
    let daemon = listen();
    let server = Server::named("a");
    let (web, text) = configuration("", "", &[server.address]);
    let process = format!("[process]\nuser = \"nobody\"\nchroot = \"{}\"\n", empty.display());
    let target = "[log]\ntarget = { to = \"syslog\", facility = \"local3\" }\n";
    let node = Relevo::start(&format!("{process}{target}{text}"));
    let gets = |daemon: &UnixDatagram, path: &str| {
        let mut buffer = [0; 2000];
        get(web, path);
        while let Ok(length) = daemon.recv(&mut buffer) {
            let datagram = String::from_utf8_lossy(&buffer[..length]);
            if datagram.contains(path) {
                // local3 is 19, info is 6.
                return datagram.starts_with("<158>") && datagram.contains(&format!(" relevo[{}]: ", node.balancer()));
            }
        }
        false
    };
    wait_until("requests arrive", || gets(&daemon, "/one"), || node.messages());
    drop(daemon);
    let daemon = listen();
    wait_until("they arrive again", || gets(&daemon, "/two"), || node.messages());
}

/// JSON: every line is an object, whatever the request was.
#[test]
fn a_line_can_be_json() {
    let _place = own_loopback();
    let server = Server::answering(|_| response("200 OK", "X-Kind: text\r\n", "x".repeat(1000)));
    let capture = "capture = { request = [\"User-Agent\", \"Referer\"], response = \"X-Kind\" }\nrequest_id = {}";
    let (web, text) = configuration(capture, "", &[server.address]);
    let node = Relevo::start(&format!("[log]\nformat = \"json\"\n{text}"));
    let mut connection = Connection::open(web).unwrap();
    connection.send("GET /a\"?b HTTP/1.1\r\nHost: test\r\nUser-Agent: \"quoted\" \\ \u{e9}\r\nX-Request-ID: from-the-client\r\n\r\n").unwrap();
    connection.receive().unwrap();
    let line = node.wait_for_message("\"target\"");
    let json: serde_json::Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
    assert_eq!((json["method"].as_str(), json["target"].as_str()), (Some("GET"), Some("/a\"?b")));
    assert_eq!(
        (json["status"].as_u64(), json["backend"].as_str(), json["server"].as_str()),
        (Some(200), Some("app"), Some("a"))
    );
    assert_eq!(json["client"], "127.0.0.1");
    assert_eq!(json["client_port"], connection.stream().local_addr().unwrap().port());
    assert!(json["time"].as_str().unwrap().parse::<jiff::Timestamp>().is_ok(), "{line}");
    assert!(json["request_headers"]["user-agent"].as_str().unwrap().eq("\"quoted\" \\ \u{e9}"), "{line}");
    assert!(json["request_headers"].get("referer").is_none(), "{line}");
    assert_eq!(json["response_headers"]["x-kind"], "text");
    assert_eq!(json["request_id"], "from-the-client", "{line}");
    assert!(json["bytes_received"].as_u64().unwrap() > 50 && json["bytes_sent"].as_u64().unwrap() > 1000, "{line}");
    assert!(json["total_ms"].as_f64().unwrap() >= json["response_ms"].as_f64().unwrap(), "{line}");
}

/// The id in the log is the one that the server was told.
#[test]
fn a_line_can_have_the_requests_id() {
    let _place = own_loopback();
    let server = Server::named("a");
    let (web, text) = configuration("request_id = { keep = false }", "", &[server.address]);
    let node = Relevo::start(&format!("[log]\nformat = '%ID %r'\n{text}"));
    let mut connection = Connection::open(web).unwrap();
    connection.send("GET /a HTTP/1.1\r\nHost: test\r\nX-Request-ID: mine\r\n\r\n").unwrap();
    let answer = connection.receive().unwrap();
    let id = answer.text().lines().find_map(|line| line.strip_prefix("x-request-id: ")).unwrap().to_owned();
    assert_eq!(node.wait_for_message("GET /a"), format!("{id} GET /a HTTP/1.1"));
    connection.send("nonsense\r\n\r\n").unwrap();
    node.wait_for_message("- <BADREQ>");
}

/// A format of one's own, in HAProxy's language.
#[test]
fn a_line_can_have_any_of_haproxys_fields() {
    let _place = own_loopback();
    let server = Server::named("a");
    let (web, text) = configuration("capture.request = \"X-Id\"", "", &[server.address]);
    let format = "%HM|%HP|%HQ|%HU|%HV %% %f %b/%s %si:%sp %ST %hr %hs %{+Q}r %ci %tsc %H %Th";
    let node = Relevo::start(&format!("[log]\nformat = '{format}'\n{text}"));
    let mut connection = Connection::open(web).unwrap();
    connection.send("GET /a/b?c=d HTTP/1.1\r\nHost: test\r\nX-Id: 7\r\n\r\n").unwrap();
    connection.receive().unwrap();
    let expected = format!(
        "GET|/a/b|?c=d|/a/b?c=d|HTTP/1.1 % web app/a {} 200 {{7}} \"GET /a/b?c=d HTTP/1.1\" 127.0.0.1 ---- lb1 0",
        server.address
    );
    assert_eq!(node.wait_for_message("GET|"), expected);
}
