//! Every timeout ends what it is for, and only that.

use tokio::sync::Notify;

use super::*;

/// The timeout under test.
const SHORT: Duration = Duration::from_millis(500);
/// Well within it, also on a machine that is busy.
const PAUSE: Duration = Duration::from_millis(100);

#[test]
fn a_head_that_does_not_come_is_408() {
    on_worker(async || {
        let mut config = config(&[echoing_server().await]);
        config.frontends[0].timeouts.http_request = SHORT;
        config.access_log = AccessLog::HttpLog;
        let balancer = Balancer::start(config).await;
        let mut client = balancer.connect().await;
        client.send("GET / HTTP/1.1\r\nHo").await;
        assert_eq!(status(&client.rest().await), "408");
        let line = balancer.log_lines().await;
        assert!(line.contains("web/<NOSRV> ") && line.contains(" 408 ") && line.contains(" cR-- "), "{line}");
        assert!(line.ends_with("\"<BADREQ>\"\n"), "{line}");
    });
}

#[test]
fn a_connection_without_a_request_is_closed_in_silence() {
    on_worker(async || {
        let mut config = config(&[echoing_server().await]);
        config.frontends[0].timeouts.http_request = SHORT;
        let balancer = Balancer::start(config).await;
        assert_eq!(balancer.connect().await.rest().await, "");
    });
}

#[test]
fn a_kept_connection_is_closed_when_no_request_follows() {
    on_worker(async || {
        let mut config = config(&[echoing_server().await]);
        config.frontends[0].timeouts.http_keep_alive = SHORT;
        let balancer = Balancer::start(config).await;
        let mut client = balancer.connect().await;
        client.get("/").await;
        tokio::time::sleep(PAUSE).await;
        client.get("/").await; // the time begins anew
        let since = std::time::Instant::now();
        assert_eq!(client.rest().await, "");
        assert!(since.elapsed() >= SHORT - PAUSE / 2);
    });
}

#[test]
fn a_server_that_does_not_answer_is_504() {
    on_worker(async || {
        let mut config = config(&[silent_server().await]);
        config.backends[0].timeouts.server = SHORT;
        config.access_log = AccessLog::HttpLog;
        let balancer = Balancer::start(config).await;
        let mut client = balancer.connect().await;
        let (head, body) = client.get("/").await;
        assert_eq!(status(&head), "504");
        assert!(body.contains("504 Gateway Timeout"));
        let line = balancer.log_lines().await;
        assert!(line.contains(" web app/s0 ") && line.contains(" 504 ") && line.contains(" sH-- "), "{line}");
    });
}

#[test]
fn a_server_that_falls_silent_in_its_response_ends_it() {
    on_worker(async || {
        let server = server(async |_, mut connection| {
            connection.head().await;
            connection.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n1").await;
            for _ in 0..6 {
                tokio::time::sleep(PAUSE).await;
                connection.send("2").await;
            }
            connection.rest().await;
        })
        .await;
        let mut config = config(&[server]);
        config.backends[0].timeouts.server = SHORT;
        config.access_log = AccessLog::HttpLog;
        let balancer = Balancer::start(config).await;
        let mut client = balancer.connect().await;
        client.ask("/").await;
        client.head().await;
        assert_eq!(client.rest().await, "1222222");
        let line = balancer.log_lines().await;
        assert!(line.contains(" 200 ") && line.contains(" sD-- "), "{line}");
    });
}

#[test]
fn a_client_that_does_not_send_its_body_is_408() {
    on_worker(async || {
        let mut config = config(&[silent_server().await]);
        config.frontends[0].timeouts.client = SHORT;
        let balancer = Balancer::start(config).await;
        let mut client = balancer.connect().await;
        client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbo").await;
        assert_eq!(status(&client.rest().await), "408");
    });
}

#[test]
fn a_slow_upload_is_not_held_against_the_server() {
    on_worker(async || {
        let server = server(async |_, mut connection| {
            connection.head().await;
            connection.body(4).await;
            connection.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
            connection.rest().await;
        })
        .await;
        let mut config = config(&[server]);
        config.backends[0].timeouts.server = SHORT;
        let balancer = Balancer::start(config).await;
        let mut client = balancer.connect().await;
        client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n").await;
        for part in ["bo", "dy"] {
            tokio::time::sleep(SHORT + 2 * PAUSE).await;
            client.send(part).await;
        }
        assert_eq!(status(&client.head().await), "200");
    });
}

#[test]
fn a_client_that_does_not_read_is_closed() {
    on_worker(async || {
        let server = server(async |_, mut connection| {
            use tokio::io::AsyncWriteExt as _;
            connection.head().await;
            connection.send("HTTP/1.1 200 OK\r\n\r\n").await;
            while connection.stream.write_all(&[b'x'; 64 * 1024]).await.is_ok() {}
        })
        .await;
        let mut config = config(&[server]);
        config.frontends[0].timeouts.client = SHORT;
        config.access_log = AccessLog::HttpLog;
        let balancer = Balancer::start(config).await;
        let mut client = balancer.connect().await;
        client.ask("/").await;
        let line = balancer.log_lines().await;
        assert!(line.contains(" 200 ") && line.contains(" cD-- "), "{line}");
    });
}

#[test]
fn a_server_that_cannot_be_reached_in_time_is_503() {
    on_worker(async || {
        // A queue of one that is full: the kernel answers no further connection.
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
        socket.listen(0).unwrap();
        let address = socket.local_addr().unwrap().as_socket().unwrap();
        let _fills_it = std::net::TcpStream::connect(address).unwrap();

        let mut config = config(&[address]);
        config.backends[0].timeouts.connect = SHORT;
        config.backends[0].retries = 0;
        config.access_log = AccessLog::HttpLog;
        let balancer = Balancer::start(config).await;
        assert_eq!(status(&balancer.connect().await.get("/").await.0), "503");
        let line = balancer.log_lines().await;
        assert!(line.contains(" sC-- "), "{line}");
    });
}

#[test]
fn a_quiet_tunnel_ends() {
    on_worker(async || {
        let server =
            answering_server("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n").await;
        let mut config = config(&[server]);
        config.backends[0].timeouts.tunnel = SHORT;
        let balancer = Balancer::start(config).await;
        let mut client = balancer.connect().await;
        client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n").await;
        assert_eq!(status(&client.head().await), "101");
        assert_eq!(client.rest().await, "");
    });
}

#[test]
fn a_worker_that_stops_finishes_what_is_under_way_and_keeps_nothing() {
    on_worker(async || {
        let (asked, answer) = (Rc::new(Notify::new()), Rc::new(Notify::new()));
        let (was_asked, may_answer) = (asked.clone(), answer.clone());
        let server = server(async move |_, mut connection| {
            connection.head().await;
            asked.notify_one();
            may_answer.notified().await;
            connection.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone").await;
            connection.rest().await;
        })
        .await;
        let balancer = Balancer::start(config(&[server])).await;
        let mut idle = balancer.connect().await;
        while balancer.worker.connections.get() < 1 {
            tokio::task::yield_now().await;
        }
        let mut busy = balancer.connect().await;
        busy.ask("/").await;
        was_asked.notified().await;
        balancer.worker.is_stopping.set(true);
        balancer.worker.clock.wake_all();
        assert_eq!(idle.rest().await, "");
        answer.notify_one();
        let (head, body) = busy.response().await;
        assert_eq!((header(&head, "connection"), body.as_str()), (Some("close"), "done"));
        assert_eq!(busy.rest().await, "");
        assert_eq!(balancer.worker.connections.get(), 0);
    });
}
