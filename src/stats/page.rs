//! The page for people: one file without scripts, pictures or anything else to fetch; its text is `page.html`.

use std::time::Duration;

use askama::Template;
use relevo_ha::State;

use crate::stats::checks::Outcome;
use crate::stats::counters::{Event, Phase};
use crate::stats::snapshot::{Backend, Condition, Health, Proxy, ProxyKind, Row, Server, Snapshot};
use crate::status::{BalancerState, NodeStatus, PairStatus, ServerState};

/// Of the answer.
pub const CONTENT_TYPE: &str = "text/html; charset=utf-8";
/// What the page may do: show its own style, and nothing else.
pub const SECURITY_POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; \
                                   form-action 'none'; frame-ancestors 'none'";

/// Seconds that can be chosen on the page; the address takes others as well.
const REFRESHES: [u32; 3] = [2, 5, 30];

/// The columns behind name and state.
const GROUPS: [(&str, &[&str]); 7] = [
    ("sessions", &["now", "most", "total", "rate"]),
    ("queue", &["now", "most"]),
    ("bytes", &["in", "out"]),
    ("responses", &["2xx", "3xx", "4xx", "5xx"]),
    ("errors", &["request", "connect", "response", "retries"]),
    ("average ms", &["connect", "response", "total"]),
    ("down", &["times", "for"]),
];

const LEGEND: [(&str, &str); 7] = [
    ("up", "up"),
    ("falling", "going down"),
    ("rising", "going up"),
    ("down", "down"),
    ("upkeep", "maintenance"),
    ("drained", "drain"),
    ("plain", "not checked"),
];

/// The whole page. `path` is its own; `refresh`: it comes again after so many seconds.
pub fn render(snapshot: &Snapshot, path: &str, refresh: Option<u32>) -> String {
    let page = Page {
        node: &snapshot.node,
        version: env!("CARGO_PKG_VERSION"),
        pid: snapshot.pid,
        uptime: span(snapshot.uptime),
        path,
        metrics: format!("{}/metrics", path.trim_end_matches('/')),
        refresh,
        nodes: snapshot.pair.as_ref().map(nodes).unwrap_or_default(),
        connections: grouped(snapshot.connections.0),
        connections_limit: grouped(snapshot.connections.1),
        requests: grouped(snapshot.requests),
        lost_log_lines: snapshot.lost_log_lines,
        tables: tables(&snapshot.proxies),
    };
    // Writing to a string does not fail.
    page.render().unwrap_or_default()
}

#[derive(Template)]
#[template(path = "page.html", config = "src/stats/askama.toml")]
struct Page<'a> {
    node: &'a str,
    version: &'a str,
    pid: u32,
    uptime: String,
    path: &'a str,
    metrics: String,
    refresh: Option<u32>,
    nodes: Vec<Node>,
    connections: String,
    connections_limit: String,
    requests: String,
    lost_log_lines: u64,
    tables: Vec<Table>,
}

/// One of the pair.
struct Node {
    name: String,
    relation: &'static str,
    class: &'static str,
    role: String,
    sentence: String,
    routers: Vec<String>,
}

struct Table {
    id: String,
    name: String,
    detail: String,
    lines: Vec<Line>,
}

struct Line {
    class: &'static str,
    is_sum: bool,
    name: String,
    detail: String,
    state: String,
    reason: String,
    cells: Vec<Cell>,
}

struct Cell {
    label: String,
    text: String,
    is_first: bool,
    is_bad: bool,
}

fn nodes(pair: &PairStatus) -> Vec<Node> {
    let own = node(&pair.node, &pair.node.node, "this node", None);
    let peers = pair.peers.iter().map(|peer| {
        let lost = (!peer.connected).then(|| format!("not connected: {}", peer.link_error));
        let mut node = node(&peer.status, &peer.name, "peer", lost);
        if peer.connected && !peer.config_matches {
            node.sentence.push_str("; its configuration is another one");
        }
        node
    });
    std::iter::once(own).chain(peers).collect()
}

fn node(status: &NodeStatus, name: &str, relation: &'static str, lost: Option<String>) -> Node {
    let is = |state| status.vrrp.iter().any(|router| router.state == state);
    let serves = status.balancer.state == BalancerState::Serving;
    let (class, role) = match () {
        () if lost.is_some() => ("down", "unknown"),
        () if !serves => ("down", "no balancer"),
        () if is(State::Fault) => ("down", "fault"),
        () if is(State::Active) => ("up", "active"),
        () if is(State::Backup) => ("drained", "backup"),
        () if status.vrrp.is_empty() => ("up", "serving"),
        () => ("plain", "starting"),
    };
    let sentence = match lost {
        Some(lost) => lost,
        None if status.vrrp.is_empty() => "on its own: there is no virtual router".to_owned(),
        None if status.can_take_over => "could take over".to_owned(),
        None => format!("could not take over: {}", status.cannot_take_over_because),
    };
    // The active one has nothing to take over.
    let sentence =
        if class == "up" && sentence == "could take over" { "carries the traffic".to_owned() } else { sentence };
    let routers = status.vrrp.iter().map(|router| {
        let addresses = router.addresses.join(", ");
        format!("{}: {} with {addresses}, priority {}", router.name, router.state, router.priority)
    });
    Node { name: name.to_owned(), relation, class, role: role.to_owned(), sentence, routers: routers.collect() }
}

fn tables(proxies: &[Proxy]) -> Vec<Table> {
    let mut tables = Vec::new();
    let mut frontends = Vec::new();
    for (index, proxy) in proxies.iter().enumerate() {
        match &proxy.kind {
            ProxyKind::Frontend { binds } => frontends.push(Line {
                class: "up",
                is_sum: false,
                name: proxy.name.clone(),
                detail: format!("{} on {}", proxy.mode, binds.join(", ")),
                state: "open".to_owned(),
                reason: String::new(),
                cells: cells(&proxy.own, true),
            }),
            ProxyKind::Backend(backend) => tables.push(Table {
                id: format!("proxy-{index}"),
                name: proxy.name.clone(),
                detail: describe(proxy, backend),
                lines: backend.servers.iter().map(server).chain([sum(proxy, backend)]).collect(),
            }),
        }
    }
    if !frontends.is_empty() {
        let (name, detail) = ("Frontends".to_owned(), String::new());
        tables.insert(0, Table { id: "frontends".to_owned(), name, detail, lines: frontends });
    }
    tables
}

fn describe(proxy: &Proxy, backend: &Backend) -> String {
    let cookie = backend.cookie.as_ref().map_or(String::new(), |cookie| format!(", sessions by the cookie {cookie}"));
    format!("{}, {}{cookie}", proxy.mode, backend.algorithm)
}

fn server(server: &Server) -> Line {
    let (class, state) = match server.condition() {
        Condition::Up => ("up", "up".to_owned()),
        Condition::GoingDown(failures, fall) => ("falling", format!("up, going down {failures}/{fall}")),
        Condition::GoingUp(successes, rise) => ("rising", format!("down, going up {successes}/{rise}")),
        Condition::Down => ("down", "down".to_owned()),
        Condition::DownByAgent => ("down", "down by its agent".to_owned()),
        Condition::Maintenance => ("upkeep", "maintenance".to_owned()),
        Condition::Drain => ("drained", "drain".to_owned()),
        Condition::DrainByAgent => ("drained", "drain by its agent".to_owned()),
        Condition::Starting => ("plain", "starting".to_owned()),
        Condition::NotChecked => ("plain", "not checked".to_owned()),
    };
    let health = server.row.checks.as_ref();
    let since = health.map_or(String::new(), |health| format!("for {}", span(health.unchanged_for)));
    let took = server.last_check().map_or(String::new(), |last| match last.outcome {
        Outcome::Traffic => format!(" ({})", last.outcome.code()),
        outcome => format!(" ({} in {} ms)", outcome.code(), last.duration.as_millis()),
    });
    let agent = server.last_answer().map_or(String::new(), |answer| {
        format!("; agent: {} ({} in {} ms)", answer.words, answer.outcome.code(), answer.duration.as_millis())
    });
    let is_plain = server.thresholds.is_none() && server.agent.is_none() && server.row.state == ServerState::Up;
    let reason = if is_plain { String::new() } else { format!("{since}: {}{took}{agent}", server.reason) };
    let whole = server.throttle.map_or(String::new(), |_| format!(" of {}, rising", server.whole_weight));
    let backup = if server.is_backup { ", backup" } else { "" };
    Line {
        class,
        is_sum: false,
        name: server.name.clone(),
        detail: format!("{}, weight {}{whole}{backup}", server.address, server.row.weight),
        state,
        reason,
        cells: cells(&server.row, false),
    }
}

/// The backend itself, under its servers.
fn sum(proxy: &Proxy, backend: &Backend) -> Line {
    let row = &proxy.own;
    let (class, state) = match row.state {
        ServerState::Up => ("up", "up"),
        ServerState::Starting => ("plain", "starting"),
        _ => ("down", "down"),
    };
    let standing_by = backend.servers.iter().filter(|server| server.is_usable() && !server.is_eligible).count();
    let standing_by = if standing_by > 0 { format!(", {standing_by} for backup") } else { String::new() };
    let (eligible, count) = (backend.eligible().count(), backend.servers.len());
    Line {
        class,
        is_sum: true,
        name: "all servers".to_owned(),
        detail: format!("weight {}", backend.weight()),
        state: state.to_owned(),
        reason: format!("{eligible} of {count} take new sessions{standing_by}"),
        cells: cells(row, false),
    }
}

fn cells(row: &Row, is_frontend: bool) -> Vec<Cell> {
    let totals = &row.totals;
    let number = |event: Event| grouped(totals[event]);
    let behind = |text: String| if is_frontend { String::new() } else { text };
    let average = |phase| behind(grouped(totals.average_ms(phase)));
    let health = |text: fn(&Health) -> String| row.checks.as_ref().map_or(String::new(), text);
    let limit = row.session_limit.map_or(String::new(), |limit| format!(" / {}", grouped(limit)));
    let waiting = row.queue_limit.map_or(String::new(), |limit| format!(" / {}", grouped(limit)));
    let texts = [
        format!("{}{limit}", grouped(row.sessions)),
        grouped(totals.most_sessions),
        number(Event::Session),
        grouped(row.rate.sessions),
        behind(format!("{}{waiting}", grouped(row.queue.0))),
        behind(grouped(row.queue.1)),
        bytes(totals[Event::BytesIn]),
        bytes(totals[Event::BytesOut]),
        number(Event::Response2xx),
        number(Event::Response3xx),
        number(Event::Response4xx),
        number(Event::Response5xx),
        if is_frontend { number(Event::RequestError) } else { String::new() },
        behind(number(Event::ConnectError)),
        behind(number(Event::ResponseError)),
        behind(grouped(totals[Event::Retry] + totals[Event::Redispatch])),
        average(Phase::Connect),
        average(Phase::Response),
        average(Phase::Total),
        health(|health| grouped(health.history.downs)),
        health(|health| span(health.downtime)),
    ];
    let columns = GROUPS.iter().flat_map(|(group, columns)| columns.iter().map(move |column| (*group, *column)));
    let cell = |((group, column), text): ((&str, &str), String)| Cell {
        label: format!("{group} {column}"),
        is_first: GROUPS.iter().any(|(name, columns)| *name == group && columns[0] == column),
        is_bad: !text.is_empty() && text != "0" && (column == "5xx" || group == "errors" && column != "retries"),
        text,
    };
    columns.zip(texts).map(cell).collect()
}

/// `1,234,567`
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1.4 GiB`
fn bytes(number: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut value = number as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < units.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{number} B") } else { format!("{value:.1} {}", units[unit]) }
}

/// The two largest units: `1 d 2 h`.
fn span(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let units = [("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1)];
    let Some(first) = units.iter().position(|(_, length)| seconds >= *length) else { return "0 s".to_owned() };
    let (unit, length) = units[first];
    let rest = units.get(first + 1).map(|(unit, smaller)| (seconds % length / smaller, *unit));
    match rest {
        Some((rest, smaller)) if rest > 0 => format!("{} {unit} {rest} {smaller}", seconds / length),
        _ => format!("{} {unit}", seconds / length),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::snapshot::tests::example;

    #[test]
    fn every_state_has_its_colour_and_its_word() {
        let page = render(&example(), "/stats", None);
        for (server, class, word) in [
            ("up", "up", "up"),
            ("falling", "falling", "up, going down 1/3"),
            ("rising", "rising", "down, going up 1/2"),
            ("down", "down", "down"),
            ("upkeep", "upkeep", "maintenance"),
            ("drained", "drained", "drain"),
            ("plain", "plain", "not checked"),
            ("asleep", "down", "down by its agent"),
            ("leaving", "drained", "drain by its agent"),
            ("failing", "down", "down"),
        ] {
            let row = page.split("<tr ").find(|row| row.contains(&format!("scope=\"row\">{server} <small>"))).unwrap();
            assert!(row.contains(&format!("class=\"{class}\"")), "{row}");
            assert!(row.contains(&format!("<span class=\"pill {class}\">{word}</span>")), "{row}");
        }
        for words in [
            "192.0.2.31:80, weight 3 of 10, rising</small>",
            "192.0.2.32:80, weight 10, backup</small>",
            "its agent says down: night (L7OK in 3 ms); agent: down # night (L7STS in 2 ms)",
            "the last: status 500 (HANA)",
            "4 of 12 take new sessions, 1 for backup",
        ] {
            assert!(page.contains(words), "{words} is not in {page}");
        }
        if let Some(path) = std::env::var_os("RELEVO_WRITE_PAGE") {
            std::fs::write(path, page).unwrap();
        }
    }

    #[test]
    fn the_pair_is_on_top() {
        let page = render(&example(), "/stats", None);
        let pair = page.split("<section class=\"pair\"").nth(1).unwrap().split("</section>").next().unwrap();
        for words in ["lb1 <small>this node", ">active</span>", "lb2 <small>peer", ">backup</span>", "192.0.2.20/24"] {
            assert!(pair.contains(words), "{words:?} is not in {pair}");
        }
        let mut alone = example();
        let peer = &mut alone.pair.as_mut().unwrap().peers[0];
        (peer.connected, peer.link_error) = (false, "connection refused".to_owned());
        assert!(render(&alone, "/", None).contains("not connected: connection refused"));
    }

    #[test]
    fn it_comes_again_without_a_script_and_what_is_foreign_stays_text() {
        assert!(!render(&example(), "/stats", None).contains("http-equiv"));
        let mut snapshot = example();
        let ProxyKind::Backend(backend) = &mut snapshot.proxies[1].kind else { unreachable!() };
        backend.servers[0].reason = "<script>alert(1)</script>".to_owned();
        let page = render(&snapshot, "/stats", Some(7));
        assert!(page.contains("<meta http-equiv=\"refresh\" content=\"7\">"));
        assert!(page.contains("href=\"/stats;csv\"") && page.contains("href=\"/stats/metrics\""));
        assert!(!page.contains("<script"), "{page}");
    }

    #[test]
    fn numbers_are_for_people() {
        assert_eq!([0, 999, 1_000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!([0, 1023, 1024, 1_600_000_000].map(bytes), ["0 B", "1023 B", "1.0 KiB", "1.5 GiB"]);
        let spans = [0, 59, 60, 3_700, 86_400, 93_784].map(|seconds| span(Duration::from_secs(seconds)));
        assert_eq!(spans, ["0 s", "59 s", "1 min", "1 h 1 min", "1 d", "1 d 2 h"]);
    }
}
