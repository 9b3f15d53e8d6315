//! A connection that rests between its requests is as good as one that does not.

use super::*;
use crate::balancer::http::rest::WAKEFUL;
use crate::config::log_format::LogFormat;

/// A quiet connection rests by then, also on a machine that is busy.
const QUIET: Duration = WAKEFUL.saturating_add(clock::TICK.saturating_mul(5));
/// A timeout that ends while a connection rests.
const LONG: Duration = QUIET.saturating_mul(2);

async fn until_it_rests() {
    tokio::time::sleep(QUIET).await;
}

/// Tasks of this thread, the test's own among them.
fn tasks() -> usize {
    tokio::runtime::Handle::current().metrics().num_alive_tasks()
}

/// Waits for it; the test's own time limit ends that.
async fn until(is_so: impl Fn() -> bool) {
    while !is_so() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

fn stop(balancer: &Balancer) {
    balancer.worker.is_stopping.set(true);
    balancer.worker.clock.wake_all();
}

#[test]
fn it_goes_on_as_the_same_connection() {
    on_worker(async || {
        let mut config = config(&[echoing_server().await]);
        config.access_log = AccessLog::Custom(LogFormat::parse("%ci:%cp|%ac|%Ti").unwrap());
        let balancer = Balancer::start(config).await;
        let mut client = balancer.connect().await;
        let address = client.stream.get_ref().local_addr().unwrap();
        for _ in 0..2 {
            until_it_rests().await;
            let (head, body) = client.get("/").await;
            assert_eq!(status(&head), "200");
            assert!(body.contains("x-forwarded-for: 127.0.0.1\r\n"), "{body}");
            let line = balancer.log_lines().await;
            let (client, idle) = line.trim_end().rsplit_once('|').unwrap();
            assert_eq!(client, format!("{address}|1"));
            assert!(idle.parse::<u128>().unwrap() >= (QUIET - clock::TICK).as_millis(), "{line}");
        }
        assert_eq!(balancer.worker.connections.get(), 1);
    });
}

/// At every moment around the one at which a connection comes to rest, whole and in pieces.
#[test]
fn a_request_that_comes_just_then_is_not_lost() {
    on_worker(async || {
        let balancer = Balancer::start(config(&[echoing_server().await])).await;
        let first = (WAKEFUL - clock::TICK).as_millis() as u64;
        let last = (WAKEFUL + 3 * clock::TICK).as_millis() as u64;
        let ask = async move |pause: u64, pieces: Vec<&'static str>| {
            let mut client = balancer.connect().await;
            for _ in 0..2 {
                assert_eq!(status(&client.get("/").await.0), "200");
                for piece in &pieces {
                    tokio::time::sleep(Duration::from_millis(pause)).await;
                    client.send(piece).await;
                }
                assert_eq!(status(&client.response().await.0), "200", "after {pause} ms");
            }
        };
        let ask = Rc::new(ask);
        let tasks: Vec<_> = (first..last)
            .flat_map(|pause| {
                let whole = vec!["GET /whole HTTP/1.1\r\nHost: a\r\n\r\n"];
                let pieces = vec!["GET /pieces HT", "TP/1.1\r\nHost: a\r\n\r\n"];
                [(pause, whole), (pause, pieces)]
            })
            .map(|(pause, pieces)| {
                let ask = ask.clone();
                tokio::task::spawn_local(async move { ask(pause, pieces).await })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
    });
}

#[test]
fn the_beginning_of_a_request_that_came_with_the_one_before_is_not_lost() {
    on_worker(async || {
        let balancer = Balancer::start(config(&[echoing_server().await])).await;
        let mut client = balancer.connect().await;
        let whole = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n");
        client.send(&[&whole("/1"), &whole("/2"), "GET /3 HT"].concat()).await;
        for path in ["/1", "/2"] {
            assert!(client.response().await.1.contains(path));
        }
        until_it_rests().await;
        client.send("TP/1.1\r\nHost: a\r\n\r\n").await;
        assert!(client.response().await.1.contains("GET /3 HTTP/1.1"));
        until_it_rests().await;
        assert_eq!(status(&client.get("/4").await.0), "200");
    });
}

#[test]
fn a_body_goes_on_after_any_pause() {
    on_worker(async || {
        let server = server(async |_, mut connection| {
            loop {
                if connection.head().await.is_empty() {
                    return;
                }
                let body = connection.body(4).await;
                connection.send(&format!("HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n{body}")).await;
                tokio::time::sleep(QUIET).await;
                connection.send(&body).await;
            }
        })
        .await;
        let balancer = Balancer::start(config(&[server])).await;
        let mut client = balancer.connect().await;
        for body in ["love", "hate"] {
            client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n").await;
            for piece in [&body[..2], &body[2..]] {
                until_it_rests().await;
                client.send(piece).await;
            }
            assert_eq!(client.response().await.1, body.repeat(2));
        }
    });
}

#[test]
fn a_head_that_stalls_after_it_is_408() {
    on_worker(async || {
        let mut config = config(&[echoing_server().await]);
        config.frontends[0].timeouts.http_request = LONG;
        config.access_log = AccessLog::HttpLog;
        let balancer = Balancer::start(config).await;
        let mut client = balancer.connect().await;
        client.get("/").await;
        balancer.log_lines().await;
        until_it_rests().await;
        let since = std::time::Instant::now();
        client.send("GET / HTTP/1.1\r\nHo").await;
        assert_eq!(status(&client.rest().await), "408");
        assert!(since.elapsed() >= LONG - clock::TICK);
        let line = balancer.log_lines().await;
        assert!(line.contains(" 408 ") && line.contains(" cR-- ") && line.ends_with("\"<BADREQ>\"\n"), "{line}");
        until(|| balancer.worker.connections.get() == 0).await;
    });
}

#[test]
fn a_head_that_stalls_behind_another_request_is_408() {
    on_worker(async || {
        let mut config = config(&[echoing_server().await]);
        config.frontends[0].timeouts.http_request = LONG;
        let balancer = Balancer::start(config).await;
        let mut client = balancer.connect().await;
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HT").await;
        assert_eq!(status(&client.response().await.0), "200");
        assert_eq!(status(&client.rest().await), "408");
    });
}

#[test]
fn it_is_closed_in_silence_when_no_request_follows() {
    on_worker(async || {
        let mut config = config(&[echoing_server().await]);
        config.frontends[0].timeouts.http_keep_alive = LONG;
        config.access_log = AccessLog::HttpLog;
        let balancer = Balancer::start(config).await;
        let mut client = balancer.connect().await;
        client.get("/").await;
        balancer.log_lines().await;
        until_it_rests().await;
        client.get("/").await; // the time begins anew
        balancer.log_lines().await;
        let since = std::time::Instant::now();
        assert_eq!(client.rest().await, "");
        assert!(since.elapsed() >= LONG - clock::TICK);
        until(|| balancer.worker.connections.get() == 0).await;
        tokio::time::sleep(2 * clock::TICK).await;
        assert!(balancer.log.try_recv().is_err(), "a line for no request");
    });
}

#[test]
fn nothing_is_left_of_clients_that_leave() {
    on_worker(async || {
        let balancer = Balancer::start(config(&[echoing_server().await])).await;
        let before = tasks();
        let mut clients = Vec::new();
        for number in 0..30 {
            let mut client = balancer.connect().await;
            if number % 3 > 0 {
                client.get("/").await;
            }
            clients.push(client);
        }
        until_it_rests().await;
        assert_eq!(balancer.worker.connections.get(), 30);
        for (number, client) in clients.into_iter().enumerate() {
            if number % 2 > 0 {
                // With a reset instead of an end.
                client.stream.get_ref().set_zero_linger().unwrap();
            }
        }
        until(|| balancer.worker.connections.get() == 0).await;
        // The servers' sides end when the pool lets go of theirs.
        let later = balancer.worker.clock.after(Duration::from_secs(60));
        balancer.worker.pool.sweep(later);
        until(|| tasks() == before).await;
    });
}

#[test]
fn it_is_closed_at_once_when_the_worker_stops() {
    on_worker(async || {
        let balancer = Balancer::start(config(&[echoing_server().await])).await;
        let (mut silent, mut rests, mut asks) =
            (balancer.connect().await, balancer.connect().await, balancer.connect().await);
        rests.get("/").await;
        asks.get("/").await;
        until_it_rests().await;
        let mut awake = balancer.connect().await;
        awake.get("/").await;

        // A request that comes at the last moment is served.
        asks.ask("/last").await;
        tokio::task::yield_now().await;
        let since = std::time::Instant::now();
        stop(&balancer);
        for client in [&mut silent, &mut rests, &mut awake] {
            assert_eq!(client.rest().await, "");
        }
        let (head, body) = asks.response().await;
        assert_eq!(header(&head, "connection"), Some("close"), "{head}");
        assert!(body.contains("GET /last "), "{body}");
        assert_eq!(asks.rest().await, "");
        assert!(since.elapsed() < Duration::from_secs(5), "{:?}", since.elapsed());
        assert_eq!(balancer.worker.connections.get(), 0);
    });
}
