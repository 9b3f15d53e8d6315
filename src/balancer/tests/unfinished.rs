//! Requests that never become whole: what their servers get of them, and who comes next on their servers' connections.

use super::*;

/// Answers the first connection's request before it has come whole, and ends the answer when told to; what else came on it is
/// told. Every other connection is answered with its number.
async fn early_server(end: Rc<Notify>, came: Rc<RefCell<String>>) -> SocketAddr {
    server(async move |number, mut connection| {
        connection.head().await;
        if number > 0 {
            return connection.send(&format!("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n{number}")).await;
        }
        connection.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n").await;
        end.notified().await;
        // It may have been closed meanwhile, which is as good.
        let _ = connection.stream.write_all(b"1\r\nb\r\n0\r\n\r\n").await;
        *came.borrow_mut() = connection.rest().await;
    })
    .await
}

#[test]
fn nobody_comes_after_a_request_that_was_cut_short() {
    let cases = [
        ("Content-Length: 1000", "only these"),
        ("Transfer-Encoding: chunked", "5\r\nhello\r\n"),
        ("Transfer-Encoding: chunked", "5\r\nhello\r\nno size\r\n"),
    ];
    for (framing, body) in cases {
        on_worker(async || {
            let (end, came) = (Rc::<Notify>::default(), Rc::<RefCell<String>>::default());
            let balancer = Balancer::start(config(&[early_server(end.clone(), came.clone()).await])).await;
            let mut client = balancer.connect().await;
            client.send(&format!("POST / HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n{body}")).await;
            client.head().await;
            client.body(6).await;
            client.finish_sending().await;
            // Nothing tells from outside when the balancer has seen that.
            tokio::time::sleep(Duration::from_millis(50)).await;
            end.notify_one();

            let mut next = balancer.connect().await;
            let (_, answer) = next.get("/").await;
            assert_eq!(answer, "1", "{framing} {body:?}: the next request came on the same connection");
            drop((client, next));
            while came.borrow().is_empty() {
                tokio::task::yield_now().await;
            }
            assert!(!came.borrow().contains("0\r\n\r\n"), "{framing}: a cut body looks whole: {:?}", came.borrow());
        });
    }
}

#[test]
fn trailers_of_a_request_go_no_further() {
    on_worker(async || {
        let server = server(async |_, mut connection| {
            connection.head().await;
            let body = connection.body(13).await;
            connection.send(&format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())).await;
        })
        .await;
        let balancer = Balancer::start(config(&[server])).await;
        let mut client = balancer.connect().await;
        let head = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTrailer: x-user\r\n\r\n";
        client.send(&format!("{head}3\r\none\r\n0\r\nX-User: admin\r\n\r\n")).await;
        assert_eq!(client.response().await.1, "3\r\none\r\n0\r\n\r\n");
    });
}

#[test]
fn a_client_sends_no_more_than_its_server_takes() {
    /// What the kernel holds for two connections may be much; what we hold is not.
    const MOST: usize = 64 * 1024 * 1024;
    on_worker(async || {
        let server = server(async |_, mut connection| {
            connection.head().await;
            std::future::pending().await
        })
        .await;
        let balancer = Balancer::start(config(&[server])).await;
        let mut client = balancer.connect().await;
        client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n").await;
        let chunks = format!("3e8\r\n{}\r\n", "x".repeat(1000)).repeat(100);
        let mut sent = 0;
        while let Ok(()) = tokio::time::timeout(Duration::from_millis(500), client.send(&chunks)).await {
            sent += chunks.len();
            assert!(sent < MOST, "it is all held somewhere");
        }
    });
}
