//! Servers that refuse, close, break off or talk nonsense.

use super::*;

#[test]
fn a_connection_that_is_refused_goes_to_another_server() {
    on_worker(async || {
        let balancer = Balancer::start(config(&[nowhere().await, echoing_server().await])).await;
        let mut client = balancer.connect().await;
        for _ in 0..4 {
            assert_eq!(status(&client.get("/").await.0), "200");
        }
    });
}

#[test]
fn without_redispatch_the_same_server_is_tried_again_and_then_503() {
    on_worker(async || {
        let mut config = config(&[nowhere().await, nowhere().await]);
        config.backends[0].redispatch = false;
        config.backends[0].retries = 1;
        config.backends[0].timeouts.connect = Duration::from_millis(50);
        config.access_log = AccessLog::HttpLog;
        let balancer = Balancer::start(config).await;
        let mut client = balancer.connect().await;
        let (head, body) = client.get("/").await;
        assert_eq!(status(&head), "503");
        assert!(body.contains("503 Service Unavailable"), "{body}");
        let line = balancer.log_lines().await;
        assert!(line.contains(" web app/s0 "), "{line}");
        assert!(line.contains(" 503 ") && line.contains(" - - SC-- ") && line.contains("/1 0/0 "), "{line}");
    });
}

#[test]
fn no_server_up_is_503_at_once() {
    on_worker(async || {
        let balancer = Balancer::start(config(&[echoing_server().await])).await;
        balancer.worker.shared.set_health(BackendIndex(0), 0, crate::balancer::state::Health::Down, "a test");
        let mut client = balancer.connect().await;
        assert_eq!(status(&client.get("/").await.0), "503");
        balancer.worker.shared.set_health(BackendIndex(0), 0, crate::balancer::state::Health::Up, "a test");
        assert_eq!(status(&client.get("/").await.0), "200");
    });
}

#[test]
fn a_server_that_closes_without_an_answer_is_502() {
    on_worker(async || {
        let server = server(async |_, mut connection| drop(connection.head().await)).await;
        let balancer = Balancer::start(config(&[server])).await;
        let mut client = balancer.connect().await;
        assert_eq!(status(&client.get("/").await.0), "502");
    });
}

#[test]
fn nonsense_from_the_server_is_502() {
    on_worker(async || {
        let balancer = Balancer::start(config(&[answering_server("SSH-2.0-OpenSSH_9.2\r\n\r\n").await])).await;
        assert_eq!(status(&balancer.connect().await.get("/").await.0), "502");
    });
}

#[test]
fn another_protocol_that_nobody_asked_for_is_502() {
    on_worker(async || {
        let balancer = Balancer::start(config(&[answering_server(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n",
        )
        .await]))
        .await;
        assert_eq!(status(&balancer.connect().await.get("/").await.0), "502");
    });
}

/// Answers a connection's first request and closes it on its second, having read it.
async fn forgetful_server() -> SocketAddr {
    server(async |number, mut connection| {
        connection.head().await;
        connection.send(&format!("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n{number}")).await;
        connection.head().await;
    })
    .await
}

#[test]
fn the_keep_alive_race_is_hidden() {
    on_worker(async || {
        let balancer = Balancer::start(config(&[forgetful_server().await])).await;
        let mut client = balancer.connect().await;
        for number in 0..4 {
            assert_eq!(client.get("/").await.1, number.to_string());
        }
        let retries = balancer.worker.shared.backends[0].servers[0].connections.count();
        assert_eq!(retries, 0);
    });
}

#[test]
fn a_request_that_may_have_had_its_effect_is_not_sent_twice() {
    on_worker(async || {
        let balancer = Balancer::start(config(&[forgetful_server().await])).await;
        let mut client = balancer.connect().await;
        assert_eq!(client.get("/").await.1, "0");
        client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n").await;
        assert_eq!(status(&client.response().await.0), "502");
    });
}

#[test]
fn a_request_whose_answer_has_begun_is_not_sent_twice() {
    on_worker(async || {
        let server = server(async |number, mut connection| {
            connection.head().await;
            connection.send(&format!("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n{number}")).await;
            connection.head().await;
            connection.send("HTTP/1.1 2").await;
        })
        .await;
        let balancer = Balancer::start(config(&[server])).await;
        let mut client = balancer.connect().await;
        assert_eq!(client.get("/").await.1, "0");
        assert_eq!(status(&client.get("/").await.0), "502");
    });
}

#[test]
fn an_answer_before_the_request_is_whole_reaches_the_client() {
    on_worker(async || {
        let server = server(async |_, mut connection| {
            connection.head().await;
            connection.send("HTTP/1.1 413 Content Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").await;
        })
        .await;
        let balancer = Balancer::start(config(&[server])).await;
        let mut client = balancer.connect().await;
        client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\nbegun").await;
        assert_eq!(status(&client.response().await.0), "413");
    });
}

#[test]
fn a_kept_connection_that_was_closed_meanwhile_costs_nothing() {
    on_worker(async || {
        let server = server(async |number, mut connection| {
            connection.head().await;
            connection.send(&format!("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n{number}")).await;
        })
        .await;
        let balancer = Balancer::start(config(&[server])).await;
        let mut client = balancer.connect().await;
        for number in 0..3 {
            // Even with a body: nothing of it was sent on the closed connection.
            client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody").await;
            assert_eq!(client.response().await.1, number.to_string());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
}

#[test]
fn a_response_that_breaks_off_breaks_off_for_the_client() {
    on_worker(async || {
        let server = server(async |_, mut connection| {
            connection.head().await;
            connection.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf").await;
        })
        .await;
        let mut config = config(&[server]);
        config.access_log = AccessLog::HttpLog;
        let balancer = Balancer::start(config).await;
        let mut client = balancer.connect().await;
        client.ask("/").await;
        client.head().await;
        assert_eq!(client.rest().await, "half");
        let line = balancer.log_lines().await;
        assert!(line.contains(" 200 ") && line.contains(" - - SD-- "), "{line}");
    });
}

#[test]
fn a_client_that_leaves_takes_its_servers_connection_with_it() {
    on_worker(async || {
        let (closed, mut was_closed) = tokio::sync::mpsc::unbounded_channel();
        let server = server(async move |_, mut connection| {
            connection.head().await;
            connection.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf").await;
            connection.rest().await;
            closed.send(()).unwrap();
        })
        .await;
        let balancer = Balancer::start(config(&[server])).await;
        let mut client = balancer.connect().await;
        client.ask("/").await;
        client.head().await;
        drop(client);
        was_closed.recv().await.unwrap();
    });
}

#[test]
fn above_its_limit_a_client_waits_until_another_has_gone() {
    on_worker(async || {
        let mut config = config(&[echoing_server().await]);
        config.max_connections = 1;
        let balancer = Balancer::start(config).await;
        let mut first = balancer.connect().await;
        first.get("/").await;
        let mut second = balancer.connect().await;
        second.ask("/").await;
        let waits = tokio::time::timeout(Duration::from_millis(100), second.head()).await;
        assert!(waits.is_err());
        drop(first);
        assert_eq!(status(&second.head().await), "200");
    });
}

#[test]
fn a_client_that_leaves_before_the_answer_is_in_the_log() {
    on_worker(async || {
        let (asked, mut was_asked) = tokio::sync::mpsc::unbounded_channel();
        let server = server(async move |_, mut connection| {
            connection.head().await;
            asked.send(()).unwrap();
            connection.rest().await;
        })
        .await;
        let mut config = config(&[server]);
        config.access_log = AccessLog::HttpLog;
        let balancer = Balancer::start(config).await;
        let mut client = balancer.connect().await;
        client.ask("/").await;
        was_asked.recv().await.unwrap();
        drop(client);
        let line = balancer.log_lines().await;
        assert!(line.contains(" web app/s0 0/0/") && line.contains(" -1 0 - - CH-- "), "{line}");
    });
}
