//! The line for each request is HAProxy's.

use super::*;

#[test]
fn a_request_gives_haproxys_line() {
    on_worker(async || {
        let mut config = config(&[echoing_server().await]);
        config.access_log = AccessLog::HttpLog;
        let balancer = Balancer::start(config).await;
        let mut client = balancer.connect().await;
        let port = client.stream.get_ref().local_addr().unwrap().port();
        let (head, body) = client.get("/a?b=c").await;
        let line = balancer.log_lines().await;

        let (before, after) = line.split_once("] ").unwrap();
        let (address, date) = before.split_once(" [").unwrap();
        assert_eq!(address, format!("127.0.0.1:{port}"));
        let (day, millis) = date.rsplit_once('.').unwrap();
        assert!(jiff::civil::DateTime::strptime("%d/%b/%Y:%H:%M:%S", day).is_ok(), "{date}");
        assert!(millis.len() == 3 && millis.parse::<u16>().is_ok(), "{date}");

        let (fields, request) = after.split_once(" \"").unwrap();
        assert_eq!(request, "GET /a?b=c HTTP/1.1\"\n");
        let fields: Vec<&str> = fields.split(' ').collect();
        assert_eq!(fields[..2], ["web", "app/s0"]);
        let timers: Vec<u64> = fields[2].split('/').map(|timer| timer.parse().unwrap()).collect();
        assert_eq!((timers.len(), timers[1]), (5, 0));
        assert!(timers[4] >= timers[0] + timers[2] + timers[3], "{line}");
        let sent = (head.len() + body.len()).to_string();
        assert_eq!(fields[3..], ["200", sent.as_str(), "-", "-", "----", "1/1/0/0/0", "0/0"]);
    });
}

#[test]
fn each_request_of_a_connection_has_its_line() {
    on_worker(async || {
        let mut config = config(&[echoing_server().await]);
        config.access_log = AccessLog::HttpLog;
        config.frontends[0].routes =
            vec![Route { when: Condition(vec![Test::PathPrefix(vec!["/a".to_owned()])]), backend: BackendIndex(0) }];
        config.frontends[0].default_backend = None;
        let balancer = Balancer::start(config).await;
        let mut client = balancer.connect().await;
        for path in ["/a1", "/b", "/a2"] {
            client.get(path).await;
        }
        let mut lines = String::new();
        while lines.lines().count() < 3 {
            lines += &balancer.log_lines().await;
        }
        let ends: Vec<&str> = lines.lines().map(|line| line.rsplit_once(" \"").unwrap().1).collect();
        assert_eq!(ends, ["GET /a1 HTTP/1.1\"", "GET /b HTTP/1.1\"", "GET /a2 HTTP/1.1\""]);
        let refused = lines.lines().nth(1).unwrap();
        assert!(refused.contains(" web web/<NOSRV> 0/-1/-1/-1/") && refused.contains(" 404 "), "{refused}");
        assert!(refused.contains(" PR-- "), "{refused}");
    });
}

#[test]
fn what_is_no_request_is_logged_as_such() {
    on_worker(async || {
        let mut config = config(&[echoing_server().await]);
        config.access_log = AccessLog::HttpLog;
        let balancer = Balancer::start(config).await;
        let mut client = balancer.connect().await;
        client.send("nonsense\r\n\r\n").await;
        assert_eq!(status(&client.rest().await), "400");
        let line = balancer.log_lines().await;
        assert!(line.contains(" web web/<NOSRV> -1/-1/-1/-1/") && line.contains(" 400 "), "{line}");
        assert!(line.ends_with("\"<BADREQ>\"\n"), "{line}");
    });
}

#[test]
fn a_log_that_nobody_reads_stops_nobody() {
    on_worker(async || {
        let mut config = config(&[echoing_server().await]);
        config.access_log = AccessLog::HttpLog;
        let balancer = Balancer::start(config).await;
        // More batches than may wait: one each tick.
        let mut client = balancer.connect().await;
        for _ in 0..20 {
            assert_eq!(status(&client.get("/").await.0), "200");
            tokio::time::sleep(clock::TICK).await;
        }
    });
}
