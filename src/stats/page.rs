//! The page for people: one file without scripts, pictures or anything else to fetch; its text is `page.html`.

use askama::Template;
use relevo_ha::State;

use crate::stats::checks::Outcome;
use crate::stats::counters::{Event, Phase};
use crate::stats::figures::{bytes, grouped, short, span};
use crate::stats::snapshot::{Backend, Condition, Proxy, ProxyKind, Row, Server, Snapshot};
use crate::status::{BalancerState, NodeStatus, PairStatus, ServerState};

/// Of the answer.
pub const CONTENT_TYPE: &str = "text/html; charset=utf-8";
/// What the page may do: show its own style, and nothing else.
pub const SECURITY_POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; \
                                   form-action 'none'; frame-ancestors 'none'";

/// Seconds that can be chosen on the page; the address takes others as well.
const REFRESHES: [u32; 3] = [2, 5, 30];

/// The columns behind name and state: the head of each in a table, and its name where it stands alone.
const GROUPS: [(&str, &[(&str, &str)]); 7] = [
    (
        "sessions",
        &[("now", "sessions"), ("most", "most sessions"), ("total", "sessions in all"), ("rate", "per second")],
    ),
    ("queue", &[("now", "queue"), ("most", "longest queue")]),
    ("bytes", &[("in", "bytes in"), ("out", "bytes out")]),
    ("responses", &[("2xx", "2xx"), ("3xx", "3xx"), ("4xx", "4xx"), ("5xx", "5xx")]),
    (
        "errors",
        &[
            ("request", "bad requests"),
            ("connect", "not connected"),
            ("response", "bad responses"),
            ("retries", "retries"),
        ],
    ),
    ("average ms", &[("connect", "connect ms"), ("response", "response ms"), ("total", "total ms")]),
    ("down", &[("times", "times down")]),
];

/// With name and state.
const COLUMNS: usize = {
    let (mut count, mut group) = (2, 0);
    while group < GROUPS.len() {
        count += GROUPS[group].1.len();
        group += 1;
    }
    count
};

const LEGEND: [(&str, &str); 7] = [
    ("up", "up, open, active"),
    ("falling", "going down"),
    ("rising", "going up"),
    ("down", "down"),
    ("upkeep", "maintenance"),
    ("drained", "drain, backup"),
    ("plain", "not checked, starting"),
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
        proxies: groups(&snapshot.proxies),
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
    proxies: Vec<Group>,
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

/// All frontends, or a backend.
struct Group {
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

/// A value, and what stands smaller under it.
#[derive(Default)]
struct Cell {
    label: &'static str,
    class: String,
    text: String,
    note: String,
    /// Where `text` is rounded.
    exact: String,
}

fn nodes(pair: &PairStatus) -> Vec<Node> {
    let own = node(&pair.node, &pair.node.node, "this node", None);
    let peers = pair.peers.iter().map(|peer| {
        let lost = (!peer.connected).then(|| format!("not connected: {}", peer.link_error));
        let mut node = node(&peer.status, &peer.name, "peer", lost);
        if peer.connected && !peer.config_matches {
            node.sentence.push_str("; its configuration differs from this node's");
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

fn groups(proxies: &[Proxy]) -> Vec<Group> {
    let mut groups = Vec::new();
    let mut frontends = Vec::new();
    for proxy in proxies {
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
            ProxyKind::Backend(backend) => groups.push(Group {
                name: proxy.name.clone(),
                detail: describe(proxy, backend),
                lines: backend.servers.iter().map(server).chain([sum(proxy, backend)]).collect(),
            }),
        }
    }
    if !frontends.is_empty() {
        groups.insert(0, Group { name: "Frontends".to_owned(), detail: String::new(), lines: frontends });
    }
    groups
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
        outcome => format!(" ({} in {}\u{a0}ms)", outcome.code(), last.duration.as_millis()),
    });
    let agent = server.last_answer().map_or(String::new(), |answer| {
        format!("; agent: {} ({} in {}\u{a0}ms)", answer.words, answer.outcome.code(), answer.duration.as_millis())
    });
    let is_plain = server.thresholds.is_none() && server.agent.is_none() && server.row.state == ServerState::Up;
    let reason = if is_plain { String::new() } else { format!("{since}: {}{took}{agent}", server.reason) };
    let whole = server.throttle.map_or(String::new(), |_| format!(" of {}, rising", server.whole_weight));
    let backup = if server.is_backup { ", backup" } else { "" };
    Line {
        class,
        is_sum: false,
        name: server.name.clone(),
        detail: format!("{}, weight\u{a0}{}{whole}{backup}", server.address, server.row.weight),
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

/// The values of all columns; what a frontend, or a backend, does not have stays empty.
fn cells(row: &Row, is_frontend: bool) -> Vec<Cell> {
    let totals = &row.totals;
    let event = |event: Event| number(totals[event]);
    let average = |phase| number(totals.average_ms(phase));
    let of_frontend = |cell: Cell| if is_frontend { cell } else { Cell::default() };
    let of_backend = |cell: Cell| if is_frontend { Cell::default() } else { cell };
    let of = |limit: Option<u64>| limit.map_or(String::new(), |limit| format!("of\u{a0}{}", short(limit)));
    let downs = row.checks.as_ref().map_or_else(Cell::default, |health| Cell {
        note: if health.downtime.is_zero() { String::new() } else { span(health.downtime) },
        ..number(health.history.downs)
    });
    let values = [
        Cell { note: of(row.session_limit), ..number(row.sessions) },
        number(totals.most_sessions),
        event(Event::Session),
        number(row.rate.sessions),
        of_backend(Cell { note: of(row.queue_limit), ..number(row.queue.0) }),
        of_backend(number(row.queue.1)),
        Cell { text: bytes(totals[Event::BytesIn]), ..Cell::default() },
        Cell { text: bytes(totals[Event::BytesOut]), ..Cell::default() },
        event(Event::Response2xx),
        event(Event::Response3xx),
        event(Event::Response4xx),
        event(Event::Response5xx),
        of_frontend(event(Event::RequestError)),
        of_backend(event(Event::ConnectError)),
        of_backend(event(Event::ResponseError)),
        of_backend(number(totals[Event::Retry] + totals[Event::Redispatch])),
        of_backend(average(Phase::Connect)),
        of_backend(average(Phase::Response)),
        of_backend(average(Phase::Total)),
        downs,
    ];
    let columns = GROUPS.iter().flat_map(|(group, columns)| {
        columns.iter().enumerate().map(move |(index, (column, label))| (*group, *column, *label, index == 0))
    });
    let cell = |((group, column, label, is_first), value): ((&str, &str, &'static str, bool), Cell)| {
        let is_bad = column == "5xx" || group == "errors" && column != "retries";
        let classes = [
            ("group", is_first),
            // Where there is no table, these groups begin a line.
            ("line", is_first && !matches!(group, "bytes" | "down")),
            ("none", value.text.is_empty()),
            ("zero", matches!(value.text.as_str(), "0" | "0 B")),
            ("bad", is_bad && !matches!(value.text.as_str(), "" | "0")),
        ];
        let class = classes.iter().filter(|(_, is_so)| *is_so).map(|(class, _)| *class).collect::<Vec<_>>().join(" ");
        Cell { label, class, ..value }
    };
    columns.zip(values).map(cell).collect()
}

fn number(number: u64) -> Cell {
    let (text, exact) = (short(number), grouped(number));
    Cell { exact: if text == exact { String::new() } else { exact }, text, ..Cell::default() }
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
            assert!(row.contains(&format!("class=\"row {class}\"")), "{row}");
            assert!(row.contains(&format!("<span class=\"pill {class}\">{word}</span>")), "{row}");
        }
        for words in [
            "192.0.2.31:80, weight\u{a0}3 of 10, rising</small>",
            "192.0.2.32:80, weight\u{a0}10, backup</small>",
            "its agent says down: night (L7OK in 3\u{a0}ms); agent: down # night (L7STS in 2\u{a0}ms)",
            "the last: status 500 (HANA)",
            "4 of 12 take new sessions, 1 for backup",
        ] {
            assert!(page.contains(words), "{words} is not in {page}");
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
    fn the_legend_has_every_state_that_the_example_shows() {
        let page = render(&example(), "/stats", None);
        let legend = page.split("class=\"legend\"").nth(1).unwrap().split("</p>").next().unwrap();
        for word in
            ["open", "active", "backup", "up", "going down", "going up", "down", "maintenance", "drain", "not checked"]
        {
            assert!(page.replace(legend, "").contains(word) && legend.contains(word), "{word:?} is not in {legend}");
        }
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
}
