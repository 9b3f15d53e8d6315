//! The CSV and the metrics as those read them who were made for HAProxy's and for Prometheus's.

use std::io::Write;
use std::process::{Command, Stdio};

use crate::Place;
use crate::rig::http::get;
use crate::rig::place::{free_port, own_loopback};
use crate::rig::server::Server;
use crate::rig::wait_until;

/// The columns are those of the real HAProxy, in its order; behind `-` come those of its modules.
#[test]
fn the_csv_has_haproxys_columns() {
    let _place = own_loopback();
    let server = Server::named("one");
    let place = Place::start(&server);
    let theirs = haproxy_header();
    let (theirs, _) = theirs.split_once(",-,").expect("HAProxy's modules come behind `-`");
    let text = get(place.stats, "/;csv").text();
    assert_eq!(text.lines().next().unwrap(), format!("{theirs},"));
}

/// Those who scrape HAProxy by its CSV go on as they did: Prometheus's exporter for HAProxy reads every line of it.
#[test]
fn the_exporter_for_haproxy_reads_the_csv() {
    let _place = own_loopback();
    let server = Server::named("one");
    let place = Place::start(&server);
    (0..3).for_each(|_| drop(get(place.web, "/")));
    place.wait_for("web/FRONTEND", "req_tot", "3");
    let listen = free_port();
    let mut command = Command::new("prometheus-haproxy-exporter");
    command.arg(format!("--haproxy.scrape-uri=http://admin:secret@{}/stats;csv", place.web));
    command.arg(format!("--web.listen-address={listen}"));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut exporter = command.spawn().expect("prometheus-haproxy-exporter has to be installed: tests/run does that");
    let is_there = || std::net::TcpStream::connect(listen).is_ok();
    wait_until("the exporter listens", is_there, String::new);
    let text = get(listen, "/metrics").text();
    exporter.kill().unwrap();
    exporter.wait().unwrap();
    for line in [
        "haproxy_up 1",
        "haproxy_exporter_csv_parse_failures_total 0",
        "haproxy_frontend_http_requests_total{frontend=\"web\"} 3",
        "haproxy_backend_up{backend=\"app\"} 1",
        "haproxy_server_up{backend=\"app\",server=\"one\"} 1",
        "haproxy_server_up{backend=\"app\",server=\"two\"} 0",
        "haproxy_server_http_responses_total{backend=\"app\",code=\"2xx\",server=\"one\"} 3",
    ] {
        assert!(text.lines().any(|it| it == line), "{line} is not in\n{text}");
    }
}

/// The first line of HAProxy's own CSV.
fn haproxy_header() -> String {
    let directory = relevo::lab::directory::Directory::new().unwrap();
    let listen = free_port();
    let file = directory.path().join("haproxy.cfg");
    let text = format!(
        "defaults\n mode http\n timeout client 5s\n timeout server 5s\n timeout connect 5s\n\
         listen stats\n bind {listen}\n stats enable\n stats uri /\n"
    );
    std::fs::write(&file, text).unwrap();
    let mut command = Command::new("haproxy");
    command.arg("-db").arg("-f").arg(&file).stdin(Stdio::null()).stderr(Stdio::null());
    let mut haproxy = command.spawn().expect("haproxy has to be installed: tests/run does that");
    let is_there = || std::net::TcpStream::connect(listen).is_ok();
    wait_until("HAProxy listens", is_there, String::new);
    let text = get(listen, "/;csv").text();
    haproxy.kill().unwrap();
    haproxy.wait().unwrap();
    text.lines().next().unwrap().to_owned()
}

/// Prometheus's own checker reads the metrics and finds nothing to complain of.
#[test]
fn promtool_has_no_complaint() {
    let _place = own_loopback();
    let server = Server::named("one");
    let place = Place::start(&server);
    for _ in 0..3 {
        get(place.web, "/");
    }
    place.wait_for("web/FRONTEND", "req_tot", "3");
    let metrics = get(place.stats, "/metrics");
    assert_eq!(metrics.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    let text = metrics.text();
    for line in [
        "relevo_frontend_requests_total{frontend=\"web\"} 3.0",
        "relevo_server_up{backend=\"app\",server=\"two\"} 0.0",
        "relevo_backend_response_seconds_count{backend=\"app\"} 3",
    ] {
        assert!(text.lines().any(|it| it == line), "{line} is not in\n{text}");
    }

    let mut command = Command::new("promtool");
    command.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut promtool = command.spawn().expect("prometheus has to be installed: tests/run does that");
    promtool.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = promtool.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success() && said.is_empty(), "{}", String::from_utf8_lossy(&said));
}
