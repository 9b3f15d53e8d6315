//! What reaches the server, what reaches the client, over which connections.

use super::*;

#[test]
fn connections_are_kept_on_both_sides() {
    on_worker(async || {
        let balancer = Balancer::start(config(&[echoing_server().await])).await;
        let mut first = balancer.connect().await;
        for _ in 0..3 {
            let (head, body) = first.get("/").await;
            assert_eq!(status(&head), "200");
            assert!(body.starts_with("connection 0\n"), "{body}");
        }
        // Another client's request takes the connection that waits.
        let (_, body) = balancer.connect().await.get("/").await;
        assert!(body.starts_with("connection 0\n"), "{body}");
    });
}

#[test]
fn no_more_connections_wait_than_descriptors_were_counted_for() {
    on_worker(async || {
        let servers = [echoing_server().await, echoing_server().await, echoing_server().await];
        let balancer = Balancer::start(model::Balancer { idle_connections: 2, ..config(&servers) }).await;
        let mut client = balancer.connect().await;
        let mut bodies = Vec::new();
        for _ in 0..6 {
            bodies.push(client.get("/").await.1);
        }
        let new = bodies.iter().skip(3).filter(|body| body.starts_with("connection 1\n")).count();
        assert_eq!(new, 1, "{bodies:?}");
    });
}

#[test]
fn a_client_that_closes_does_not_close_the_servers_side() {
    on_worker(async || {
        let balancer = Balancer::start(config(&[echoing_server().await])).await;
        for _ in 0..3 {
            let mut client = balancer.connect().await;
            client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
            let (head, body) = client.response().await;
            assert_eq!(header(&head, "connection"), Some("close"));
            assert!(body.starts_with("connection 0\n"), "{body}");
            assert_eq!(header(&body, "connection"), None);
            assert_eq!(client.rest().await, "");
        }
    });
}

#[test]
fn requests_alternate_between_servers() {
    on_worker(async || {
        let servers = [answering("a").await, answering("b").await];
        let balancer = Balancer::start(config(&servers)).await;
        let mut client = balancer.connect().await;
        let mut bodies = String::new();
        for _ in 0..6 {
            bodies += &client.get("/").await.1;
        }
        assert!(bodies == "ababab" || bodies == "bababa", "{bodies}");
    });
}

async fn answering(text: &'static str) -> SocketAddr {
    server(async move |_, mut connection| {
        while !connection.head().await.is_empty() {
            connection.send(&format!("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n{text}")).await;
        }
    })
    .await
}

#[test]
fn the_server_is_told_the_client_and_not_what_was_meant_for_us() {
    on_worker(async || {
        let balancer = Balancer::start(config(&[echoing_server().await])).await;
        let mut client = balancer.connect().await;
        client
            .send(
                "GET http://site.example/a?b HTTP/1.1\r\nHost: site.example\r\nX-Forwarded-For: 192.0.2.1\r\n\
                 Connection: keep-alive, X-Mine\r\nKeep-Alive: timeout=9\r\nX-Mine: 1\r\nTE: trailers\r\nX-Yours: 2\r\n\r\n",
            )
            .await;
        let (_, got) = client.response().await;
        assert!(got.contains("\nGET /a?b HTTP/1.1\r\n"), "{got}");
        assert_eq!(header(&got, "host"), Some("site.example"));
        assert_eq!(header(&got, "x-forwarded-for"), Some("192.0.2.1, 127.0.0.1"));
        assert_eq!(header(&got, "te"), Some("trailers"));
        assert_eq!(header(&got, "x-yours"), Some("2"));
        for name in ["connection", "keep-alive", "x-mine"] {
            assert_eq!(header(&got, name), None, "{name}");
        }
    });
}

#[test]
fn the_response_passes_as_it_is_but_for_the_hop() {
    on_worker(async || {
        let server = server(async |_, mut connection| {
            connection.head().await;
            connection
                .send(
                    "HTTP/1.1 299 Odd Thing\r\nDate: then\r\nServer: theirs\r\nKeep-Alive: timeout=5\r\n\
                     Connection: keep-alive\r\nContent-Length: 2\r\n\r\nok",
                )
                .await;
            connection.head().await;
        })
        .await;
        let balancer = Balancer::start(config(&[server])).await;
        let (head, body) = balancer.connect().await.get("/").await;
        assert_eq!(head, "HTTP/1.1 299 Odd Thing\r\ndate: then\r\nserver: theirs\r\ncontent-length: 2\r\n\r\n");
        assert_eq!(body, "ok");
    });
}

#[test]
fn a_request_that_is_not_clear_about_its_host_is_refused() {
    on_worker(async || {
        let balancer = Balancer::start(config(&[echoing_server().await])).await;
        for head in [
            "GET / HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
            "GET http://a/ HTTP/1.1\r\nHost: b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n",
            "GET http://user@a/ HTTP/1.0\r\n\r\n",
        ] {
            let mut client = balancer.connect().await;
            client.send(head).await;
            let answer = client.rest().await;
            assert_eq!(status(&answer), "400", "{head}");
            assert_eq!(header(&answer, "connection"), Some("close"));
        }
        let mut client = balancer.connect().await;
        client.send("CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n").await;
        assert_eq!(status(&client.rest().await), "405");
        assert_eq!(
            balancer.worker.shared.backends[0].servers[0].requests.load(std::sync::atomic::Ordering::Relaxed),
            0
        );
    });
}

#[test]
fn routes_lead_to_backends_and_nowhere_is_404() {
    on_worker(async || {
        let (app, pages) = (answering("a").await, answering("p").await);
        let mut config = config(&[app]);
        let mut other = config.backends[0].clone();
        other.name = "pages".to_owned();
        other.servers[0].address = ServerAddress::Socket(pages);
        config.backends.push(other);
        config.frontends[0].default_backend = None;
        let route = |tests: Vec<Test>, backend| Route { when: Condition(tests), backend: BackendIndex(backend) };
        let app = [Test::Host(vec!["site.example".to_owned()]), Test::PathPrefix(vec!["/app".to_owned()])];
        config.frontends[0].routes =
            vec![route(vec![Test::PathSuffix(vec![".html".to_owned()])], 1), route(app.to_vec(), 0)];
        let balancer = Balancer::start(config).await;
        let mut client = balancer.connect().await;
        assert_eq!(client.get("/app/x").await.1, "a");
        assert_eq!(client.get("/app/x.html?y").await.1, "p");
        let (head, body) = client.get("/else").await;
        assert_eq!(status(&head), "404");
        assert!(body.contains("404 Not Found"));
        // That page closes nothing.
        assert_eq!(client.get("/app").await.1, "a");
    });
}

#[test]
fn http_1_0_is_understood() {
    on_worker(async || {
        let balancer = Balancer::start(config(&[echoing_server().await])).await;
        let mut client = balancer.connect().await;
        client.send("GET / HTTP/1.0\r\n\r\n").await;
        let answer = client.rest().await;
        assert_eq!(status(&answer), "200");
        assert!(answer.contains("GET / HTTP/1.1\r\n"), "{answer}");
    });
}

#[test]
fn counters_go_up_and_come_down() {
    use std::sync::atomic::Ordering::Relaxed;
    on_worker(async || {
        let server = server(async |_, mut connection| {
            while !connection.head().await.is_empty() {
                connection.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no").await;
                connection.body(4).await; // the rest of the response only when all was asked
                connection.send("k").await;
            }
        })
        .await;
        let balancer = Balancer::start(config(&[server])).await;
        let shared = balancer.worker.shared.clone();
        let mut client = balancer.connect().await;
        client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n").await;
        client.head().await;
        let counts = || {
            let (backend, frontend) = (&shared.backends[0], &shared.frontends[0]);
            let server = &backend.servers[0];
            let (requests, at_backend) = (server.requests.load(Relaxed), backend.connections.load(Relaxed));
            let clients = [shared.connections.count(), frontend.connections.count()];
            [clients[0], clients[1], at_backend, server.connections.count(), requests]
        };
        assert_eq!(counts(), [1, 1, 1, 1, 1]);
        client.send("body").await;
        client.body(2).await;
        assert_eq!(counts()[2..], [0, 0, 1]);
        drop(client);
        while counts()[..2] != [0, 0] {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(shared.requests(), 1);
    });
}

#[test]
fn a_websocket_passes_and_its_bytes_go_both_ways() {
    on_worker(async || {
        let server = server(async |_, mut connection| {
            let head = connection.head().await;
            assert_eq!((header(&head, "upgrade"), header(&head, "connection")), (Some("websocket"), Some("upgrade")));
            connection
                .send(
                    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                     Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\nhello",
                )
                .await;
            let said = connection.body(4).await;
            connection.send(&said.to_uppercase()).await;
            assert_eq!(connection.rest().await, "");
        })
        .await;
        let balancer = Balancer::start(config(&[server])).await;
        let mut client = balancer.connect().await;
        client
            .send(
                "GET /chat HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                 Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
            )
            .await;
        let head = client.head().await;
        assert_eq!(status(&head), "101");
        assert_eq!((header(&head, "upgrade"), header(&head, "connection")), (Some("websocket"), Some("upgrade")));
        assert_eq!(client.body(5).await, "hello");
        client.send("ping").await;
        assert_eq!(client.body(4).await, "PING");
        client.finish_sending().await;
        assert_eq!(client.rest().await, "");
    });
}

#[test]
fn traffic_comes_from_a_virtual_address_only_while_it_is_ours() {
    on_worker(async || {
        let server = server(async |_, mut connection| {
            while !connection.head().await.is_empty() {
                let peer = connection.stream.get_ref().peer_addr().unwrap().ip();
                connection.send(&format!("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{peer}")).await;
            }
        })
        .await;
        let source = std::net::IpAddr::from([127, 0, 0, 2]);
        let mut config = config(&[server]);
        config.backends[0].servers[0].source = Some(source);
        config.backends[0].servers[0].source_is_virtual = true;
        let balancer = Balancer::start(config).await;
        let mut client = balancer.connect().await;
        assert_eq!(client.get("/").await.1, "127.0.0.1");
        balancer.worker.shared.held.store(std::sync::Arc::new(vec![source]));
        assert_eq!(client.get("/").await.1, "127.0.0.2");
        balancer.worker.shared.held.store(std::sync::Arc::default());
        assert_eq!(client.get("/").await.1, "127.0.0.1");
    });
}
