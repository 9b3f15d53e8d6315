//! The digest by which nodes see whether they run the same configuration.
//!
//! It covers what must be equal: all but the node's own sides ([node], [process], [log] and what frontends capture for it,
//! [stats], [peering], each virtual router's interface, priority and unicast peers). It must be the same in every version that
//! means the same: so what goes in is named here and not taken from the model's fields, and what has its default does not go
//! in. A key that a later version adds then changes no digest until somebody uses it.

mod condition;
mod failure;
mod persistence;
mod rule;

use relevo_ha::VirtualRouter;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::model::{
    Agent, Backend, Balance, Balancer, Capture, ClientTimeouts, Frontend, HashKey, HashMethod, HealthCheck, Mode,
    Observe, Password, Probe, Route, Server, ServerAddress, ServerTimeouts, Statistics, User, WhenAllDown,
};

/// SHA-256 in hex.
pub(super) fn of(balancer: &Balancer, virtual_routers: &[VirtualRouter]) -> String {
    let Balancer {
        node: _,
        threads: _,
        max_connections: _,
        idle_connections: _,
        hard_stop_after: _,
        access_log: _,
        frontends,
        backends,
    } = balancer;
    // By name: the order of these tables means nothing.
    let by_name = |list: Vec<(&String, Value)>| {
        list.into_iter().map(|(name, value)| (name.clone(), value)).collect::<Map<_, _>>()
    };
    let whole = json!({
        "frontends": by_name(frontends.iter().map(|it| (&it.name, frontend(it, backends))).collect()),
        "backends": by_name(backends.iter().map(|it| (&it.name, backend(it))).collect()),
        "vrrp": by_name(virtual_routers.iter().map(|it| (&it.name, virtual_router(it))).collect()),
    });
    hex(&Sha256::digest(canonical(&whole)))
}

fn hex(digest: &[u8]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Keys in order, no spaces, strings as JSON.
fn canonical(value: &Value) -> String {
    match value {
        Value::Object(object) => {
            let mut members: Vec<_> = object.iter().collect();
            members.sort_by_key(|(key, _)| key.as_str());
            let members =
                members.into_iter().map(|(key, value)| format!("{}:{}", Value::from(key.as_str()), canonical(value)));
            format!("{{{}}}", members.collect::<Vec<_>>().join(","))
        }
        Value::Array(list) => format!("[{}]", list.iter().map(canonical).collect::<Vec<_>>().join(",")),
        other => other.to_string(),
    }
}

/// The keys of a table that differ from their defaults.
struct Table(Map<String, Value>);

impl Table {
    fn new() -> Self {
        Table(Map::new())
    }

    fn with(mut self, key: &str, value: impl Into<Value>, default: impl Into<Value>) -> Self {
        let value = value.into();
        if value != default.into() {
            self.0.insert(key.to_owned(), value);
        }
        self
    }

    fn done(self) -> Value {
        Value::Object(self.0)
    }
}

fn frontend(frontend: &Frontend, backends: &[Backend]) -> Value {
    let Frontend {
        name: _,
        binds,
        mode,
        rules,
        routes,
        default_backend,
        forwarding,
        trusted_proxies,
        request_id,
        max_connections,
        max_connections_per_source,
        timeouts,
        capture,
        statistics,
        connection,
        tcp_keep_alive,
        errors,
    } = frontend;
    // The log is each node's own.
    let Capture { request: _, response: _, length: _ } = capture;
    let forwarding = forwarding.clone().unwrap_or_default();
    let backend_name = |index: usize| backends.get(index).map(|backend| backend.name.clone());
    let route = |route: &Route| {
        let Route { when, backend } = route;
        Table(condition::members(when)).with("backend", backend_name(backend.0), Value::Null).done()
    };
    let ClientTimeouts { client, http_request, http_keep_alive } = *timeouts;
    let mode = match mode {
        Mode::Http => "http",
        Mode::Tcp => "tcp",
    };
    Table::new()
        .with("bind", binds.iter().map(|bind| bind.address.to_string()).collect::<Vec<_>>(), Value::Null)
        .with("mode", mode, "http")
        .with("routes", routes.iter().map(route).collect::<Vec<_>>(), Value::Array(Vec::new()))
        .with("default_backend", default_backend.and_then(|index| backend_name(index.0)), Value::Null)
        .with("forwarded_for", forwarding.forwarded_for.as_ref().map_or(false.into(), rule::forwarded_for), false)
        .with("forwarded", forwarding.forwarded, false)
        .with("forwarded_proto", forwarding.proto, false)
        .with("forwarded_host", forwarding.host, false)
        .with("trusted_proxies", rule::networks(trusted_proxies), Value::Array(Vec::new()))
        .with("request_id", request_id.as_ref().map(rule::request_id), Value::Null)
        .with("max_connections", *max_connections, Value::Null)
        .with("max_connections_per_source", *max_connections_per_source, Value::Null)
        .with("rules", rules.iter().map(rule::rule).collect::<Vec<_>>(), Value::Array(Vec::new()))
        .with("timeouts.client", microseconds(client), 50_000_000)
        .with("timeouts.http_request", microseconds(http_request), 10_000_000)
        .with("timeouts.http_keep_alive", microseconds(http_keep_alive), 10_000_000)
        .with("connection", failure::connection(*connection), "keep_alive")
        .with("tcp_keep_alive", tcp_keep_alive.as_ref().map(failure::tcp_keep_alive), Value::Null)
        .with("errors", failure::errors(errors), json!({}))
        .with("stats", statistics.as_ref().map(self::statistics), Value::Null)
        .done()
}

/// Passwords by digest: what this is made into is compared between nodes, and kept by none.
fn statistics(statistics: &Statistics) -> Value {
    let Statistics { path, realm, users } = statistics;
    let user = |user: &User| {
        let (Password::Plain(secret) | Password::ShaCrypt(secret)) = &user.password;
        (user.name.clone(), Value::from(hex(&Sha256::digest(secret))))
    };
    json!({ "path": path, "realm": realm, "users": users.iter().map(user).collect::<Map<_, _>>() })
}

fn backend(backend: &Backend) -> Value {
    let Backend {
        name: _,
        balance,
        slow_start,
        all_backups,
        when_all_down,
        cookie,
        stick,
        health,
        agent,
        retries,
        redispatch,
        max_queue,
        retry,
        reuse,
        connection,
        tcp_keep_alive,
        errors,
        timeouts,
        servers,
    } = backend;
    let when_all_down = match when_all_down {
        WhenAllDown::Reject => "reject",
        WhenAllDown::TryAll => "try_all",
    };
    let ServerTimeouts { connect, server, queue, tunnel } = *timeouts;
    Table::new()
        .with("balance", self::balance(balance), "round_robin")
        .with("slow_start", slow_start.map(microseconds), Value::Null)
        .with("all_backups", *all_backups, false)
        .with("when_all_down", when_all_down, "reject")
        .with("cookie", cookie.as_ref().map(persistence::cookie), Value::Null)
        .with("stick", stick.as_ref().map(persistence::stick), Value::Null)
        .with("health", health_check(health), json!({}))
        .with("agent", agent.as_ref().map(self::agent), Value::Null)
        .with("retries", *retries, 3)
        .with("redispatch", *redispatch, true)
        .with("max_queue", *max_queue, Value::Null)
        .with("retry", failure::retry(retry), json!({}))
        .with("reuse", failure::reuse(*reuse), "safe")
        .with("connection", failure::connection(*connection), "keep_alive")
        .with("tcp_keep_alive", tcp_keep_alive.as_ref().map(failure::tcp_keep_alive), Value::Null)
        .with("errors", failure::errors(errors), json!({}))
        .with("timeouts.connect", microseconds(connect), 5_000_000)
        .with("timeouts.server", microseconds(server), 50_000_000)
        .with("timeouts.queue", microseconds(queue), 5_000_000)
        .with("timeouts.tunnel", microseconds(tunnel), 3_600_000_000_u64)
        .with("servers", servers.iter().map(self::server).collect::<Vec<_>>(), Value::Null)
        .done()
}

fn balance(balance: &Balance) -> Value {
    let (key, method) = match balance {
        Balance::RoundRobin => return "round_robin".into(),
        Balance::StaticRoundRobin => return "static_round_robin".into(),
        Balance::LeastConnections => return "least_connections".into(),
        Balance::First => return "first".into(),
        Balance::Random { draws } => {
            return Table::new().with("algorithm", "random", Value::Null).with("draws", *draws, 2).done();
        }
        Balance::Hash { key, method } => (key, method),
    };
    let table = match key {
        HashKey::Source => Table::new().with("algorithm", "source", Value::Null),
        HashKey::Uri { whole, length, depth } => Table::new()
            .with("algorithm", "uri", Value::Null)
            .with("whole", *whole, false)
            .with("length", *length, Value::Null)
            .with("depth", *depth, Value::Null),
        HashKey::Header(name) => {
            Table::new().with("algorithm", "header", Value::Null).with("name", name.as_str(), Value::Null)
        }
        HashKey::Parameter(name) => {
            Table::new().with("algorithm", "parameter", Value::Null).with("name", name.as_str(), Value::Null)
        }
    };
    let method = match method {
        HashMethod::MapBased => "map_based",
        HashMethod::Consistent => "consistent",
    };
    table.with("hash", method, "map_based").done()
}

fn health_check(health: &HealthCheck) -> Value {
    let HealthCheck {
        probe,
        port,
        interval,
        fast_interval,
        down_interval,
        spread,
        timeout,
        rise,
        fall,
        observe,
        error_limit,
        refused_marks_down,
    } = health;
    let observe = match observe {
        Observe::Off => "off",
        Observe::Layer4 => "layer4",
        Observe::Layer7 => "layer7",
    };
    let default = HealthCheck::every(*interval);
    let table = Table::new()
        .with("port", *port, Value::Null)
        .with("interval", microseconds(*interval), 2_000_000)
        .with("fast_interval", microseconds(*fast_interval), microseconds(default.fast_interval))
        .with("down_interval", microseconds(*down_interval), microseconds(default.down_interval))
        .with("spread", *spread, 3)
        .with("timeout", microseconds(*timeout), microseconds(*interval))
        .with("rise", *rise, 2)
        .with("fall", *fall, 3)
        .with("observe", observe, "off")
        .with("error_limit", *error_limit, 10)
        .with("on_refused", if *refused_marks_down { "mark_down" } else { "retry" }, "retry");
    match probe {
        Probe::Tcp => table.done(),
        Probe::Http { method, path, host, headers, expect, expect_body } => {
            let expect: Vec<_> = expect.iter().map(|(first, last)| format!("{first}-{last}")).collect();
            let headers: Map<_, _> =
                headers.iter().map(|(name, value)| (name.clone(), Value::from(value.as_str()))).collect();
            table
                .with("http", true, false)
                .with("method", method.as_str(), "GET")
                .with("path", path.as_str(), "/")
                .with("host", host.clone(), Value::Null)
                .with("headers", headers, json!({}))
                .with("expect", expect, json!(["200-399"]))
                .with("expect_body", expect_body.clone(), Value::Null)
                .done()
        }
    }
}

fn agent(agent: &Agent) -> Value {
    let Agent { port, interval, send } = agent;
    Table::new()
        .with("port", *port, Value::Null)
        .with("interval", microseconds(*interval), 2_000_000)
        .with("send", send.as_str(), "")
        .done()
}

fn server(server: &Server) -> Value {
    let Server {
        name,
        address,
        weight,
        max_connections,
        max_queue,
        cookie,
        backup,
        check,
        check_address,
        check_port,
        source,
        source_is_virtual: _,
    } = server;
    let address = match address {
        ServerAddress::Socket(address) => address.to_string(),
        ServerAddress::Name { host, port } => format!("{host}:{port}"),
    };
    Table::new()
        .with("name", name.as_str(), Value::Null)
        .with("address", address, Value::Null)
        .with("weight", *weight, 1)
        .with("max_connections", *max_connections, Value::Null)
        .with("max_queue", *max_queue, Value::Null)
        .with("cookie", cookie.as_str(), name.as_str())
        .with("backup", *backup, false)
        .with("check", *check, true)
        .with("check_address", check_address.map(|address| address.to_string()), Value::Null)
        .with("check_port", *check_port, Value::Null)
        .with("source", source.map(|source| source.to_string()), Value::Null)
        .done()
}

fn virtual_router(router: &VirtualRouter) -> Value {
    let VirtualRouter {
        name: _,
        interface: _,
        virtual_router_id,
        priority: _,
        addresses,
        advertisement_interval,
        preempt,
        unicast_peers: _,
        obey_other_addresses,
    } = router;
    Table::new()
        .with("virtual_router_id", virtual_router_id.get(), Value::Null)
        .with("addresses", addresses.iter().map(ToString::to_string).collect::<Vec<_>>(), Value::Null)
        .with("advertisement_interval", microseconds(*advertisement_interval), 1_000_000)
        .with("preempt", *preempt, true)
        .with("obey_other_addresses", *obey_other_addresses, false)
        .done()
}

fn microseconds(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
