//! A log that is slow, away or impossible: nobody waits for it, no line is lost without need, and no node stays dead for it.

use std::net::UdpSocket;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::thread::{sleep, spawn};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};

use crate::configuration;
use crate::rig::PATIENCE;
use crate::rig::http::{Connection, get};
use crate::rig::node::Relevo;
use crate::rig::place::{free_port, is_root, own_loopback, own_network, replace_file};
use crate::rig::server::Server;
use crate::rig::wait_until;

/// A daemon of this test's own at `/dev/log`, with a queue as short as those of new namespaces and containers.
fn own_syslog(directory: &Path) -> UnixDatagram {
    let devices = directory.join("dev");
    std::fs::create_dir(&devices).unwrap();
    for device in ["null", "urandom"] {
        let place = devices.join(device);
        std::fs::write(&place, "").unwrap();
        replace_file(&place, &Path::new("/dev").join(device));
    }
    replace_file(Path::new("/dev"), &devices);
    std::fs::write("/proc/sys/net/unix/max_dgram_qlen", "10").unwrap();
    UnixDatagram::bind("/dev/log").unwrap()
}

fn lost_lines(stats: std::net::SocketAddr) -> u64 {
    let metrics = get(stats, "/metrics").text();
    let line = metrics.lines().find_map(|line| line.strip_prefix("relevo_log_lines_lost_total "));
    line.unwrap().parse::<f64>().unwrap() as u64
}

/// 50 ms of lines come at once, and a daemon reads one after the other.
#[test]
fn a_daemon_that_reads_gets_every_line() {
    if !is_root() {
        return;
    }
    let Some(_place) = own_network() else { return };
    let directory = relevo::lab::directory::Directory::new().unwrap();
    let daemon = own_syslog(directory.path());
    daemon.set_read_timeout(Some(PATIENCE)).unwrap();
    let (server, stats) = (Server::named("a"), free_port());
    let (web, text) = configuration("", "", &[server.address]);
    let _node = Relevo::start(&format!("[log]\ntarget = \"syslog\"\n[stats]\nlisten = \"{stats}\"\n{text}"));
    const REQUESTS: usize = 1200;
    let reads = spawn(move || {
        let (mut buffer, mut seen) = ([0; 2000], 0);
        while seen < REQUESTS {
            let length = daemon.recv(&mut buffer).unwrap_or_else(|error| panic!("{seen} of {REQUESTS}: {error}"));
            seen += usize::from(String::from_utf8_lossy(&buffer[..length]).contains("GET /line"));
            sleep(Duration::from_micros(300));
        }
    });
    let mut client = Connection::open(web).unwrap();
    for number in 0..REQUESTS {
        assert_eq!(client.get(&format!("/line{number}")).unwrap().status(), 200);
    }
    reads.join().unwrap();
    assert_eq!(lost_lines(stats), 0);
}

/// It hangs for a while, and is then told how many lines that has cost: what was counted, and what it did not get.
#[test]
fn a_daemon_that_hung_hears_how_many_lines_it_has_missed() {
    if !is_root() {
        return;
    }
    let Some(_place) = own_network() else { return };
    let directory = relevo::lab::directory::Directory::new().unwrap();
    let daemon = own_syslog(directory.path());
    daemon.set_nonblocking(true).unwrap();
    let (server, stats) = (Server::named("a"), free_port());
    let (web, text) = configuration("", "", &[server.address]);
    let target = "{ to = \"syslog\", lines = \"requests\" }";
    let node = Relevo::start(&format!("[log]\ntarget = {target}\n[stats]\nlisten = \"{stats}\"\n{text}"));
    let mut client = Connection::open(web).unwrap();
    const REQUESTS: usize = 500;
    (0..REQUESTS).for_each(|_| drop(client.get("/line").unwrap()));
    wait_until("it is waited for no longer", || lost_lines(stats) > 0, || node.messages());

    let mut told = 0;
    // Asking is a request, too, and what it lost is known a second later.
    let is_told = || {
        let mut buffer = [0; 2000];
        while let Ok(length) = daemon.recv(&mut buffer) {
            let line = String::from_utf8_lossy(&buffer[..length]);
            told += line.split_once("lines were lost").map_or(0, |(_, rest)| {
                rest.split_once("lines=").and_then(|(_, lines)| lines.parse::<usize>().ok()).unwrap()
            });
        }
        sleep(Duration::from_millis(100));
        told > 0 && told as u64 == lost_lines(stats)
    };
    wait_until("it has heard of every line that was lost", is_told, || node.messages());
}

/// logrotate makes the next file somebody else's, or a folder goes: the node lives, says so, and logs there again once it can.
#[test]
fn no_process_stays_dead_for_a_file_that_cannot_be_opened() {
    let _place = own_loopback();
    let directory = relevo::lab::directory::Directory::new().unwrap();
    let folder = directory.path().join("folder");
    let file = folder.join("relevo.log");
    std::fs::create_dir(&folder).unwrap();
    let server = Server::named("a");
    let (web, text) = configuration("", "", &[server.address]);
    let node = Relevo::start(&format!("[log]\ntarget = \"{}\"\n{text}", file.display()));
    get(web, "/before");
    std::fs::rename(&folder, directory.path().join("gone")).unwrap();

    let served = |path: &str| Connection::open(web).and_then(|mut it| it.get(path)).is_ok_and(|it| it.status() == 200);
    let keeper = node.keeper();
    kill(keeper, Signal::SIGKILL).unwrap();
    let is_another = || node.status().is_some() && node.keeper() != keeper && served("/without");
    wait_until("another keeper and its balancer serve", is_another, || node.messages());
    let complaint = format!("log.target: cannot open {}: No such file", file.display());
    wait_until("that is said where it can be", || node.messages().contains(&complaint), || node.messages());

    std::fs::create_dir(&folder).unwrap();
    let logged = |words: &str| std::fs::read_to_string(&file).unwrap_or_default().contains(words);
    let is_logged = || served("/again") && logged("GET /again ");
    wait_until("requests are logged again", is_logged, || node.messages());
    // It looks once a second.
    let keeper_speaks = || {
        let _ = kill(node.balancer(), Signal::SIGKILL);
        wait_until("another balancer serves", || served("/more"), || node.messages());
        logged("ERROR keeper: the balancer is lost")
    };
    wait_until("so is what the keeper says", keeper_speaks, || node.messages());
}

/// One that cannot be had from the beginning is refused.
#[test]
fn root_without_its_rights_is_told_whose_the_file_has_to_be() {
    if !is_root() {
        return;
    }
    let _place = own_loopback();
    let directory = relevo::lab::directory::Directory::new().unwrap();
    let file: PathBuf = directory.path().join("relevo.log");
    std::fs::write(&file, "").unwrap();
    nix::unistd::chown(&file, Some(65534.into()), Some(65534.into())).unwrap();
    std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o640)).unwrap();
    let (_, text) = configuration("", "", &[Server::nowhere()]);
    let mut command = std::process::Command::new("capsh");
    command.args([
        "--drop=cap_dac_override,cap_dac_read_search",
        "--",
        "-c",
        "exec \"$0\" \"$@\"",
        crate::rig::node::BINARY,
    ]);
    let refused = crate::rig::node::run_refused_by(command, &format!("[log]\ntarget = \"{}\"\n{text}", file.display()));
    refused.assert_clean(&["lacks CAP_DAC_OVERRIDE", "give the file and its folder to root"]);
}

/// As haproxy.cfg has it: everything to one facility, what matters to another as well; and requests where others look for them.
#[test]
fn one_daemon_may_be_two_targets_and_requests_may_go_elsewhere() {
    let _place = own_loopback();
    let directory = relevo::lab::directory::Directory::new().unwrap();
    let file = directory.path().join("requests.log");
    let daemon = UdpSocket::bind("127.0.0.1:0").unwrap();
    daemon.set_nonblocking(true).unwrap();
    let server = Server::named("a");
    let (web, text) = configuration("", "", &[server.address]);
    let address = daemon.local_addr().unwrap();
    let node = Relevo::start(&format!(
        "[log]\ntarget = [{{ to = \"udp:{address}\", facility = \"local0\", lines = \"processes\" }}, \
         {{ to = \"udp:{address}\", facility = \"local1\", level = \"error\" }}, {{ to = \"{}\", lines = \"requests\" }}]\n{text}",
        file.display()
    ));
    get(web, "/one");
    wait_until(
        "requests are in the file",
        || std::fs::read_to_string(&file).unwrap().contains("GET /one "),
        String::new,
    );
    kill(node.balancer(), Signal::SIGKILL).unwrap();
    let lines = std::cell::RefCell::new(Vec::new());
    let has = |words: &str| {
        let mut buffer = [0; 2000];
        while let Ok(length) = daemon.recv(&mut buffer) {
            lines.borrow_mut().push(String::from_utf8_lossy(&buffer[..length]).into_owned());
        }
        lines.borrow().iter().any(|line| line.starts_with(words) && line.contains("the balancer is lost"))
    };
    // local0 is 16, local1 is 17, error is 3.
    wait_until("one target has it", || has("<131>"), || node.messages());
    wait_until("so has the other", || has("<139>"), || node.messages());
    assert!(lines.borrow().iter().all(|line| !line.contains("GET /one")), "{lines:?}");
    let requests = std::fs::read_to_string(&file).unwrap();
    assert!(requests.lines().all(|line| !line.contains("keeper")), "{requests}");
}

/// The same on standard output, all of it JSON, from a reload on that says so; times of text are local ones.
#[test]
fn what_processes_say_looks_like_what_they_say_of_requests() {
    let _place = own_loopback();
    let directory = relevo::lab::directory::Directory::new().unwrap();
    let output = directory.path().join("output");
    let server = Server::named("a");
    let (web, text) = configuration("", "", &[server.address]);
    let mut command = std::process::Command::new("sh");
    let script = format!("exec \"$0\" \"$@\" >{}", output.display());
    command.args(["-c", &script, crate::rig::node::BINARY]).env("TZ", "<+05>-5");
    let node = Relevo::launch_by(command, &format!("[log]\ntarget = \"stdout\"\n{text}"));
    let lines = || std::fs::read_to_string(&output).unwrap_or_default();
    wait_until("it serves", || lines().contains("INFO keeper: ready"), lines);
    get(web, "/one");
    wait_until("requests are logged", || lines().contains("GET /one "), lines);
    let ready = lines().lines().find(|line| line.contains("INFO keeper: ready")).unwrap().to_owned();
    let time = ready.split(' ').next().unwrap();
    assert!(time.ends_with("+05:00") && time.parse::<jiff::Timestamp>().is_ok(), "{ready}");

    node.reload_with(&format!("[log]\nformat = \"json\"\ntarget = \"stdout\"\n{text}"));
    let before = lines().len();
    get(web, "/two");
    let has = |words: &str| lines()[before..].contains(words);
    wait_until("requests are there", || has("/two"), lines);
    kill(node.balancer(), Signal::SIGKILL).unwrap();
    wait_until("so is what the keeper says", || has("the balancer is lost"), lines);
    let text = lines()[before..].to_owned();
    for line in text.lines() {
        let json: serde_json::Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert!(json["time"].as_str().unwrap().parse::<jiff::Timestamp>().is_ok(), "{line}");
        let lost = json["message"] == "the balancer is lost";
        assert!(
            !lost || (json["level"] == "error" && json["process"] == "keeper" && json["reason"].is_string()),
            "{line}"
        );
    }
}

/// A datagram has an end: what is too long in a line is cut so that JSON stays JSON.
#[test]
fn a_line_of_json_is_whole_however_long_the_request_was() {
    let _place = own_loopback();
    let daemon = UdpSocket::bind("127.0.0.1:0").unwrap();
    daemon.set_read_timeout(Some(PATIENCE)).unwrap();
    let server = Server::named("a");
    let capture = "capture = { request = [\"X-One\", \"X-Two\"], length = 8000 }";
    let (web, text) = configuration(capture, "", &[server.address]);
    let target = format!("udp:{}", daemon.local_addr().unwrap());
    let _node = Relevo::start(&format!("[log]\nformat = \"json\"\ntarget = \"{target}\"\n{text}"));
    for (path, one, two) in [(40_000, 10, 10), (36_000, 8000, 8000), (30_000, 8000, 8000)] {
        let mut client = Connection::open(web).unwrap();
        let (one, two) = ("\u{e9}".repeat(one / 2), "\"".repeat(two));
        client
            .send(format!(
                "GET /{}\" HTTP/1.1\r\nHost: test\r\nX-One: {one}\r\nX-Two: {two}\r\n\r\n",
                "x\"".repeat(path / 2)
            ))
            .unwrap();
        assert_eq!(client.receive().unwrap().status(), 200);
        let mut buffer = vec![0; 70_000];
        let json = loop {
            let length = daemon.recv(&mut buffer).unwrap();
            let datagram = String::from_utf8(buffer[..length].to_vec()).unwrap();
            let text = &datagram[datagram.find('{').unwrap()..];
            let json: serde_json::Value = serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"));
            if json["status"] == 200 {
                break json;
            }
        };
        assert!(json["target"].as_str().unwrap().starts_with("/x\"") && json["method"] == "GET", "{json}");
        assert_eq!(json["cut"], true);
    }
}
