//! The metrics in Prometheus's text format (version 0.0.4, which every scraper reads).
//!
//! The library writes OpenMetrics, where a counter's family is named without `_total`. In the older format both have the
//! same name; so a counter is given its whole name here and written like a gauge.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use crate::stats::counters::{BUCKETS_MS, Event, HistogramTotals};
use crate::stats::snapshot::{Backend, Proxy, ProxyKind, Row, Server, Snapshot};
use crate::status::{ServerState, rivalries};

/// Of the answer.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The whole text.
pub fn render(snapshot: Snapshot) -> String {
    let mut registry = Registry::with_prefix("relevo");
    registry.register_collector(Box::new(Metrics(snapshot)));
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = prometheus_client::encoding::text::encode(&mut text, &registry);
    text
}

#[derive(Debug)]
struct Metrics(Snapshot);

type Labels<'a> = Vec<(&'static str, &'a str)>;
type Written = Result<(), fmt::Error>;

impl Collector for Metrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Written {
        let snapshot = &self.0;
        let mut one =
            |name, help, kind, value: f64| encoder.encode_descriptor(name, help, None, kind)?.encode_gauge(&value);
        use MetricType::{Counter, Gauge};
        one("process_uptime_seconds", "Since the balancer started", Gauge, snapshot.uptime.as_secs_f64())?;
        one("process_worker_threads", "Worker threads", Gauge, snapshot.threads as f64)?;
        one("process_connections", "Client connections now", Gauge, snapshot.connections.0 as f64)?;
        one("process_connections_limit", "Client connections at most", Gauge, snapshot.connections.1 as f64)?;
        one("process_requests_total", "Requests and TCP connections", Counter, snapshot.requests as f64)?;
        one(
            "log_lines_lost_total",
            "Lines for requests that a target of the log did not get, because it was away, full or too slow",
            Counter,
            snapshot.lost_log_lines as f64,
        )?;

        self.pair(&mut encoder)?;
        self.rows(&mut encoder, "frontend", &frontends(snapshot))?;
        self.rows(&mut encoder, "backend", &backends(snapshot))?;
        self.rows(&mut encoder, "server", &servers(snapshot))?;
        self.servers(&mut encoder)?;
        self.durations(&mut encoder)
    }
}

/// What rows of one kind have alike: a name, what it means, and the events whose sum it is.
const COUNTERS: [(&str, &str, &[Event]); 16] = [
    (
        "sessions_total",
        "Sessions since the balancer started: client connections of a frontend, requests or TCP connections of a backend or server",
        &[Event::Session],
    ),
    ("requests_total", "Requests", &[Event::Request]),
    ("bytes_in_total", "Bytes from clients", &[Event::BytesIn]),
    ("bytes_out_total", "Bytes to clients", &[Event::BytesOut]),
    ("request_errors_total", "What was no request, or never became complete", &[Event::RequestError]),
    ("connect_errors_total", "Requests for which no connection was had", &[Event::ConnectError]),
    ("response_errors_total", "Responses that were none, or broke off", &[Event::ResponseError]),
    ("retries_total", "What failed and was tried again at the same server", &[Event::Retry]),
    ("redispatches_total", "Requests that went to another server than they should have", &[Event::Redispatch]),
    ("retries_over_budget_total", "Requests that were not sent again because of the budget", &[Event::OverBudget]),
    ("denied_total", "Requests and responses that a rule denied", &[Event::DeniedRequest, Event::DeniedResponse]),
    (
        "connections_denied_total",
        "Connections that were closed because there were too many of their source",
        &[Event::DeniedConnection],
    ),
    ("client_aborts_total", "Requests that their clients ended", &[Event::ClientAbort]),
    ("server_aborts_total", "Responses that their servers ended", &[Event::ServerAbort]),
    ("connections_new_total", "New connections to servers", &[Event::Connect]),
    ("connections_reused_total", "Requests on connections that were kept", &[Event::Reuse]),
];

const RESPONSES: [(&str, Event); 6] = [
    ("1xx", Event::Response1xx),
    ("2xx", Event::Response2xx),
    ("3xx", Event::Response3xx),
    ("4xx", Event::Response4xx),
    ("5xx", Event::Response5xx),
    ("other", Event::ResponseOther),
];

impl Metrics {
    fn rows(&self, encoder: &mut DescriptorEncoder<'_>, kind: &str, rows: &[(Labels<'_>, &Row)]) -> Written {
        for (name, help, events) in COUNTERS {
            let name = format!("{kind}_{name}");
            let mut family = encoder.encode_descriptor(&name, help, None, MetricType::Counter)?;
            for (labels, row) in rows {
                let sum: u64 = events.iter().map(|event| row.totals[*event]).sum();
                value(&mut family, labels, sum as f64)?;
            }
        }
        let name = format!("{kind}_responses_total");
        let mut family = encoder.encode_descriptor(&name, "Responses by class", None, MetricType::Counter)?;
        for (labels, row) in rows {
            for (class, event) in RESPONSES {
                let labels = [labels.as_slice(), &[("code", class)]].concat();
                value(&mut family, &labels, row.totals[event] as f64)?;
            }
        }
        type Number = fn(&Row) -> f64;
        let gauges: [(&str, &str, Number); 4] = [
            // Not `sessions`: a counter's family is its name without `_total` (OpenMetrics), and two families need two names.
            ("current_sessions", "Sessions that are open now, counted as sessions_total is", |row| row.sessions as f64),
            ("sessions_most", "The most sessions that were open at a time since the balancer started", |row| {
                row.totals.most_sessions as f64
            }),
            ("queue", "Requests that wait for a server", |row| row.queue.0 as f64),
            ("queue_most", "The most requests that waited at a time since the balancer started", |row| {
                row.queue.1 as f64
            }),
        ];
        for (name, help, number) in gauges {
            let name = format!("{kind}_{name}");
            let mut family = encoder.encode_descriptor(&name, help, None, MetricType::Gauge)?;
            for (labels, row) in rows {
                value(&mut family, labels, number(row))?;
            }
        }
        Ok(())
    }

    fn servers(&self, encoder: &mut DescriptorEncoder<'_>) -> Written {
        type Number = fn(&Server) -> f64;
        use MetricType::{Counter, Gauge};
        let families: [(&str, &str, MetricType, Number); 7] = [
            ("server_up", "1: it gets traffic", Gauge, |server| (server.row.state == ServerState::Up).into()),
            (
                "server_weight",
                "The weight that counts now: what is configured or was given, times its agent's percentage",
                Gauge,
                |server| server.row.weight.into(),
            ),
            ("server_check_failures_total", "Checks that failed while it was up", Counter, |server| {
                server.row.checks.as_ref().map_or(0.0, |health| health.history.failures as f64)
            }),
            ("server_marked_down_total", "How often errors of its traffic took it down", Counter, |server| {
                server.row.checks.as_ref().map_or(0.0, |health| health.history.marked_down as f64)
            }),
            ("server_downs_total", "How often it went down", Counter, |server| {
                server.row.checks.as_ref().map_or(0.0, |health| health.history.downs as f64)
            }),
            ("server_downtime_seconds_total", "How long it was down", Counter, |server| {
                server.row.checks.as_ref().map_or(0.0, |health| health.downtime.as_secs_f64())
            }),
            ("server_check_duration_seconds", "How long the last check of its health took", Gauge, |server| {
                let last = server.row.checks.as_ref().and_then(|health| health.history.last);
                last.map_or(0.0, |last| last.duration.as_secs_f64())
            }),
        ];
        let servers: Vec<_> = all_servers(&self.0).collect();
        for (name, help, kind, number) in families {
            let mut family = encoder.encode_descriptor(name, help, None, kind)?;
            for (proxy, server) in &servers {
                value(&mut family, &server_labels(proxy, server), number(server))?;
            }
        }
        let help = "1 for the state that the server is in, 0 for the others";
        let mut family = encoder.encode_descriptor("server_state", help, None, Gauge)?;
        for (proxy, server) in &servers {
            for (word, state) in STATES {
                let labels = [server_labels(proxy, server), vec![("state", word)]].concat();
                value(&mut family, &labels, (server.row.state == state).into())?;
            }
        }
        Ok(())
    }

    fn durations(&self, encoder: &mut DescriptorEncoder<'_>) -> Written {
        type Histogram = fn(&Backend) -> &HistogramTotals;
        let families: [(&str, &str, Histogram); 2] = [
            (
                "backend_response_seconds",
                "From the request, sent to a server, to the head of its response",
                |backend| &backend.response,
            ),
            ("backend_request_seconds", "From the request's first byte to the response's last", |backend| {
                &backend.total
            }),
        ];
        for (name, help, histogram) in families {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Histogram)?;
            for proxy in &self.0.proxies {
                let ProxyKind::Backend(backend) = &proxy.kind else { continue };
                let totals = histogram(backend);
                let ends = BUCKETS_MS.iter().map(|end| *end as f64 / 1000.0).chain([f64::INFINITY]);
                let buckets: Vec<_> = ends.zip(totals.buckets).collect();
                family.encode_family(&[("backend", proxy.name.as_str())])?.encode_histogram::<NoLabelSet>(
                    totals.sum,
                    totals.buckets.iter().sum(),
                    &buckets,
                    None,
                )?;
            }
        }
        Ok(())
    }

    fn pair(&self, encoder: &mut DescriptorEncoder<'_>) -> Written {
        let Some(pair) = &self.0.pair else { return Ok(()) };
        let help = "1: this node is the active router";
        let mut family = encoder.encode_descriptor("vrrp_active", help, None, MetricType::Gauge)?;
        for router in &pair.node.vrrp {
            let labels = vec![("router", router.name.as_str())];
            value(&mut family, &labels, (router.state == relevo_ha::State::Active).into())?;
        }
        let help = "1: the link to the peer is up";
        let mut family = encoder.encode_descriptor("peer_connected", help, None, MetricType::Gauge)?;
        for peer in &pair.peers {
            value(&mut family, &vec![("peer", peer.name.as_str())], peer.connected.into())?;
        }
        let help = "1: the peer could take over now";
        let mut family = encoder.encode_descriptor("peer_can_take_over", help, None, MetricType::Gauge)?;
        for peer in &pair.peers {
            value(&mut family, &vec![("peer", peer.name.as_str())], peer.status.can_take_over.into())?;
        }
        let help = "1: the peer, whose link is up, runs the same configuration";
        let mut family = encoder.encode_descriptor("peer_configuration_matches", help, None, MetricType::Gauge)?;
        for peer in pair.peers.iter().filter(|peer| peer.connected) {
            value(&mut family, &vec![("peer", peer.name.as_str())], peer.config_matches.into())?;
        }
        let help = "1: this node and the peer are both active for an address";
        let mut family = encoder.encode_descriptor("peer_both_active", help, None, MetricType::Gauge)?;
        for peer in &pair.peers {
            let both = rivalries(&pair.node.vrrp, std::slice::from_ref(peer)).next().is_some();
            value(&mut family, &vec![("peer", peer.name.as_str())], both.into())?;
        }
        Ok(())
    }
}

const STATES: [(&str, ServerState); 5] = [
    ("starting", ServerState::Starting),
    ("up", ServerState::Up),
    ("down", ServerState::Down),
    ("drain", ServerState::Drain),
    ("maintenance", ServerState::Maintenance),
];

fn value(family: &mut MetricEncoder<'_>, labels: &Labels<'_>, value: f64) -> Written {
    family.encode_family(labels)?.encode_gauge(&value)
}

fn frontends(snapshot: &Snapshot) -> Vec<(Labels<'_>, &Row)> {
    let frontends = snapshot.proxies.iter().filter(|proxy| matches!(proxy.kind, ProxyKind::Frontend { .. }));
    frontends.map(|proxy| (vec![("frontend", proxy.name.as_str())], &proxy.own)).collect()
}

fn backends(snapshot: &Snapshot) -> Vec<(Labels<'_>, &Row)> {
    let backends = snapshot.proxies.iter().filter(|proxy| matches!(proxy.kind, ProxyKind::Backend(_)));
    backends.map(|proxy| (vec![("backend", proxy.name.as_str())], &proxy.own)).collect()
}

fn servers(snapshot: &Snapshot) -> Vec<(Labels<'_>, &Row)> {
    all_servers(snapshot).map(|(proxy, server)| (server_labels(proxy, server), &server.row)).collect()
}

fn all_servers(snapshot: &Snapshot) -> impl Iterator<Item = (&Proxy, &Server)> {
    snapshot.proxies.iter().flat_map(|proxy| match &proxy.kind {
        ProxyKind::Backend(backend) => backend.servers.iter().map(|server| (proxy, server)).collect(),
        ProxyKind::Frontend { .. } => Vec::new(),
    })
}

fn server_labels<'a>(proxy: &'a Proxy, server: &'a Server) -> Labels<'a> {
    vec![("backend", &proxy.name), ("server", &server.name)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::snapshot::tests::example;

    /// As by readers that know a family without what a sample's name ends in (OpenMetrics).
    #[test]
    fn no_two_families_have_one_name() {
        let text = render(example());
        let names = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
        let families: Vec<_> = names.map(|name| name.strip_suffix("_total").unwrap_or(name)).collect();
        for (place, family) in families.iter().enumerate() {
            let others =
                ["", "_total", "_created", "_count", "_sum", "_bucket", "_info"].map(|end| format!("{family}{end}"));
            let is_taken =
                families.iter().enumerate().any(|(other, name)| other != place && others.contains(&(*name).to_owned()));
            assert!(!is_taken, "{family}");
        }
        assert!(families.len() > 50, "{families:?}");
    }

    #[test]
    fn a_counter_and_a_histogram_are_as_scrapers_expect_them() {
        let text = render(example());
        for line in [
            "# TYPE relevo_frontend_requests_total counter",
            "# HELP relevo_server_current_sessions Sessions that are open now, counted as sessions_total is",
            "relevo_frontend_requests_total{frontend=\"web\"} 28000084.0",
            "relevo_server_responses_total{backend=\"app\",server=\"up\",code=\"5xx\"} 10.0",
            "relevo_server_state{backend=\"app\",server=\"down\",state=\"down\"} 1.0",
            "relevo_server_up{backend=\"app\",server=\"upkeep\"} 0.0",
            "relevo_server_marked_down_total{backend=\"app\",server=\"failing\"} 1.0",
            "relevo_server_weight{backend=\"app\",server=\"warming\"} 3.0",
            "# TYPE relevo_backend_response_seconds histogram",
            "relevo_backend_response_seconds_bucket{le=\"0.005\",backend=\"app\"} 0",
            "relevo_backend_response_seconds_bucket{le=\"0.01\",backend=\"app\"} 1",
            "relevo_backend_response_seconds_bucket{le=\"+Inf\",backend=\"app\"} 2",
            "relevo_backend_response_seconds_count{backend=\"app\"} 2",
            "relevo_vrrp_active{router=\"main\"} 1.0",
            "relevo_peer_can_take_over{peer=\"lb2\"} 1.0",
            "relevo_peer_configuration_matches{peer=\"lb2\"} 1.0",
            "relevo_peer_both_active{peer=\"lb2\"} 0.0",
        ] {
            assert!(text.lines().any(|it| it == line), "{line} is not in\n{text}");
        }
    }
}
