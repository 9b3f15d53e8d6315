//! Bodies of every framing and size pass as they come.

use tokio::io::AsyncReadExt as _;

use super::*;

const LARGE: usize = 10 << 20;

/// Bytes that show when one is missing or moved.
fn large() -> Vec<u8> {
    (0..LARGE).map(|index| (index % 251) as u8).collect()
}

#[test]
fn ten_mebibytes_come_back() {
    on_worker(async || {
        let server = server(async |_, mut connection| {
            connection.head().await;
            connection.send(&format!("HTTP/1.1 200 OK\r\nContent-Length: {LARGE}\r\n\r\n")).await;
            connection.send_bytes(&large()).await;
        })
        .await;
        let balancer = Balancer::start(config(&[server])).await;
        let mut client = balancer.connect().await;
        client.ask("/").await;
        assert_eq!(header(&client.head().await, "content-length"), Some(LARGE.to_string().as_str()));
        let mut body = vec![0; LARGE];
        client.stream.read_exact(&mut body).await.unwrap();
        assert!(body == large());
    });
}

#[test]
fn ten_mebibytes_go_up() {
    on_worker(async || {
        let server = server(async |_, mut connection| {
            let head = connection.head().await;
            assert_eq!(header(&head, "content-length"), Some(LARGE.to_string().as_str()));
            let mut body = vec![0; LARGE];
            connection.stream.read_exact(&mut body).await.unwrap();
            let text = if body == large() { "same" } else { "else" };
            connection.send(&format!("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n{text}")).await;
        })
        .await;
        let balancer = Balancer::start(config(&[server])).await;
        let mut client = balancer.connect().await;
        client.send(&format!("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: {LARGE}\r\n\r\n")).await;
        client.send_bytes(&large()).await;
        assert_eq!(client.response().await.1, "same");
    });
}

#[test]
fn chunks_and_trailers_pass_both_ways_as_they_come() {
    on_worker(async || {
        let server = server(async |_, mut connection| {
            let head = connection.head().await;
            assert_eq!(header(&head, "transfer-encoding"), Some("chunked"));
            // What the client has not finished is here already.
            assert_eq!(connection.body(8).await, "3\r\none\r\n");
            connection
                .send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: x-sum\r\n\r\n3\r\ntwo\r\n")
                .await;
            assert_eq!(connection.body(5 + 5).await, "1\r\n!\r\n0\r\n\r");
            connection.send("0\r\nx-sum: 7\r\n\r\n").await;
            connection.rest().await;
        })
        .await;
        let balancer = Balancer::start(config(&[server])).await;
        let mut client = balancer.connect().await;
        // A body is no less there for a method that mostly has none.
        client
            .send("GET / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n")
            .await;
        let head = client.head().await;
        assert_eq!(header(&head, "transfer-encoding"), Some("chunked"));
        assert_eq!(client.body(8).await, "3\r\ntwo\r\n");
        client.send("1\r\n!\r\n0\r\n\r\n").await;
        assert_eq!(client.body(5 + 10).await, "0\r\nx-sum: 7\r\n\r\n");
    });
}

#[test]
fn a_body_that_ends_with_its_connection_is_framed_for_the_client() {
    on_worker(async || {
        let server = server(async |_, mut connection| {
            connection.head().await;
            connection.send("HTTP/1.0 200 OK\r\n\r\nall").await;
        })
        .await;
        let balancer = Balancer::start(config(&[server])).await;
        let mut client = balancer.connect().await;
        for _ in 0..2 {
            client.ask("/").await;
            assert_eq!(header(&client.head().await, "transfer-encoding"), Some("chunked"));
            assert_eq!(client.body(8 + 5).await, "3\r\nall\r\n0\r\n\r\n");
        }
    });
}

#[test]
fn responses_without_a_body_have_none() {
    on_worker(async || {
        let server = server(async |_, mut connection| {
            while let head = connection.head().await
                && !head.is_empty()
            {
                let response = match head.split(' ').nth(1) {
                    Some("/204") => "HTTP/1.1 204 No Content\r\n\r\n",
                    Some("/304") => "HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\n\r\n",
                    _ => "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n",
                };
                connection.send(response).await;
            }
        })
        .await;
        let balancer = Balancer::start(config(&[server])).await;
        let mut client = balancer.connect().await;
        for (request, status_code, length) in
            [("HEAD /", "200", Some("1000")), ("GET /204", "204", None), ("GET /304", "304", None)]
        {
            client.send(&format!("{request} HTTP/1.1\r\nHost: a\r\n\r\n")).await;
            let head = client.head().await;
            assert_eq!((status(&head), header(&head, "content-length")), (status_code, length));
        }
        assert_eq!(
            balancer.worker.shared.backends[0].servers[0].requests.load(std::sync::atomic::Ordering::Relaxed),
            3
        );
    });
}

#[test]
fn a_client_that_expects_continue_is_told_to() {
    on_worker(async || {
        let server = server(async |_, mut connection| {
            connection.head().await;
            let body = connection.body(4).await;
            connection.send(&format!("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n{body}")).await;
            connection.rest().await;
        })
        .await;
        let balancer = Balancer::start(config(&[server])).await;
        let mut client = balancer.connect().await;
        client.send("POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n").await;
        assert_eq!(client.head().await, "HTTP/1.1 100 Continue\r\n\r\n");
        client.send("body").await;
        assert_eq!(client.response().await.1, "body");
    });
}
