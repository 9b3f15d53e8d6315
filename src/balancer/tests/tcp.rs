//! TCP mode.

use tokio::io::AsyncReadExt as _;

use super::*;

fn tcp_config(servers: &[SocketAddr]) -> model::Balancer {
    let mut config = config(servers);
    config.frontends[0].mode = Mode::Tcp;
    config.access_log = AccessLog::HttpLog;
    config
}

#[test]
fn bytes_go_both_ways_and_each_side_finishes_for_itself() {
    on_worker(async || {
        let server = server(async |_, mut connection| {
            connection.send("hello").await;
            let said = connection.rest().await; // to the client's end
            connection.send(&format!(" {said} and bye")).await;
        })
        .await;
        let balancer = Balancer::start(tcp_config(&[server])).await;
        let mut client = balancer.connect().await;
        assert_eq!(client.body(5).await, "hello");
        client.send("me").await;
        client.finish_sending().await;
        assert_eq!(client.rest().await, " me and bye");

        let line = balancer.log_lines().await;
        let (before, after) = line.split_once("] ").unwrap();
        assert!(before.starts_with("127.0.0.1:"), "{line}");
        let fields: Vec<&str> = after.split_whitespace().collect();
        assert_eq!(fields.len(), 7, "{line}");
        assert_eq!([fields[0], fields[1], fields[3], fields[4]], ["web", "app/s0", "16", "--"]);
        assert_eq!([fields[5], fields[6]], ["1/1/0/0/0", "0/0"]);
    });
}

#[test]
fn a_server_that_refuses_is_not_the_end() {
    on_worker(async || {
        let server = server(async |_, mut connection| connection.send("here").await).await;
        let balancer = Balancer::start(tcp_config(&[nowhere().await, server])).await;
        for _ in 0..4 {
            assert_eq!(balancer.connect().await.rest().await, "here");
        }
    });
}

#[test]
fn much_passes_at_the_pace_of_whoever_reads() {
    const MUCH: usize = 20 << 20;
    on_worker(async || {
        let server = server(async |_, connection| {
            let (mut reader, mut writer) = connection.stream.into_inner().into_split();
            tokio::io::copy(&mut reader, &mut writer).await.unwrap();
        })
        .await;
        let balancer = Balancer::start(tcp_config(&[server])).await;
        let (mut reader, mut writer) = balancer.connect().await.stream.into_inner().into_split();
        tokio::task::spawn_local(async move {
            let bytes: Vec<u8> = (0..MUCH).map(|index| (index % 251) as u8).collect();
            writer.write_all(&bytes).await.unwrap();
        });
        tokio::time::sleep(Duration::from_millis(50)).await;
        let mut back = Vec::new();
        reader.read_to_end(&mut back).await.unwrap();
        assert_eq!(back.len(), MUCH);
        assert!(back.iter().enumerate().all(|(index, byte)| *byte == (index % 251) as u8));
    });
}

#[test]
fn a_quiet_connection_ends_after_the_tunnel_timeout() {
    on_worker(async || {
        let server = silent_server().await;
        let mut config = tcp_config(&[server]);
        config.backends[0].timeouts.tunnel = Duration::from_millis(100);
        let balancer = Balancer::start(config).await;
        assert_eq!(balancer.connect().await.rest().await, "");
        assert!(balancer.log_lines().await.contains(" cD "));
    });
}

#[test]
fn no_server_is_the_end() {
    on_worker(async || {
        let mut config = tcp_config(&[nowhere().await]);
        config.backends[0].retries = 0;
        let balancer = Balancer::start(config).await;
        assert_eq!(balancer.connect().await.rest().await, "");
        let line = balancer.log_lines().await;
        assert!(line.contains(" web app/s0 ") && line.contains(" SC "), "{line}");
    });
}
