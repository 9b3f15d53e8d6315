//! What `relevo check` says of a sound configuration.

use std::fs;

use crate::{SMALLEST, check, directory, relevo, stderr, stdout};

const EXAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/example.toml");

#[test]
fn the_example_is_accepted_and_explained() {
    let output = relevo(&["check", "-c", EXAMPLE]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(stderr(&output), "");
    let summary = stdout(&output);
    for line in [
        "node lb1: 2 worker threads",
        "virtual router main: 192.168.1.20/24 on eth1",
        "VRID 71, priority 254, an advert every 100ms to the multicast group",
        "peering on 192.168.1.11:8650 with lb2 (192.168.1.12:8650)",
        "frontend web: HTTP on 0.0.0.0:80, adds X-Forwarded-For",
        "path ends with .gif or .png → static",
        "host is static.example.com and path begins with /assets/ → static",
        "everything else → app",
        "checks: HEAD /index.php every 2s; up after 2, down after 3",
        "server backend1 at 192.168.1.21:80, weight 60, from 192.168.1.20 while this node is active",
        "server files at 192.168.1.23:8080, weight 1, not checked",
    ] {
        assert!(summary.contains(line), "{line:?} is not in\n{summary}");
    }
}

#[test]
fn one_frontend_one_backend_one_server_is_enough() {
    let output = check("smallest", SMALLEST);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(stdout(&output).contains("server one at 192.0.2.21:80, weight 1"));
}

#[test]
fn what_is_done_where_servers_fail_is_explained() {
    let text = SMALLEST.replace(
        "[backends.app]",
        "connection = \"server_close\"\n[backends.app]\nretry_on = [\"empty_response\", 503]\nbuffer_request = 4096\n\
         retry_non_idempotent = true\nretry_budget = { percent = 5 }\nreuse = \"never\"\nconnection = \"close\"",
    );
    let output = check("failure", &text);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let summary = stdout(&output);
    for line in [
        "  connections to servers are closed after each response\n",
        "  tried again on no response, 503, bodies of up to 4096 bytes too, whatever the method, \
         for 5 % of the requests and 10 a second\n",
        "  connections to servers are shared by no two clients\n",
        "  connections are closed after each response\n",
    ] {
        assert!(summary.contains(line), "{line:?} is not in\n{summary}");
    }
    let pages = directory("pages");
    let page = pages.join("503.html");
    fs::write(&page, "sorry").unwrap();
    let text = format!(
        "[errors]\n503 = {page:?}\n{SMALLEST}\n[frontends.tcp]\nmode = \"tcp\"\nbind = \"*:81\"\ndefault_backend = \"app\""
    );
    let output = check("pages-of-frontends", &text);
    let with_pages = stdout(&output).lines().filter(|line| *line == "  pages of its own for 503").count();
    assert_eq!(with_pages, 1, "mode tcp has none\n{}{}", stdout(&output), stderr(&output));
    let nothing = check("nothing", &SMALLEST.replace("[backends.app]", "[backends.app]\nretry_on = []"));
    assert!(stdout(&nothing).contains("  nothing is tried again\n"), "{}", stdout(&nothing));
}
