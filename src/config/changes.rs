//! What a configuration changes of the one that runs, and what of it needs a restart. Pure.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;
use serde_json::Value;

use super::model::{Backend, Balancer, Config, Frontend};

/// What comes, goes and changes when a configuration takes the place of another; as a sentence it is for the log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes(Vec<String>);

/// Keys of which a process takes notice only when it starts.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{} only when the node starts: restart it (of a pair one after the other, the backup first), or take that back", which_count(.0))]
pub struct NeedsRestart(Vec<String>);

fn which_count(keys: &[String]) -> String {
    format!("{} {}", keys.join(", "), if keys.len() == 1 { "counts" } else { "count" })
}

impl Changes {
    /// From `old`, which runs, to `new`.
    ///
    /// # Errors
    /// All keys that cannot change while it runs.
    pub fn between(old: &Config, new: &Config) -> Result<Self, NeedsRestart> {
        let keys = needing_restart(old, new);
        if !keys.is_empty() {
            return Err(NeedsRestart(keys));
        }
        let mut changes = Vec::new();
        if old.process.stop_timeout != new.process.stop_timeout {
            changes.push(format!("process.stop_timeout is {:?}", new.process.stop_timeout));
        }
        let (old, new) = (&old.balancer, &new.balancer);
        if old.max_connections != new.max_connections {
            changes.push(format!("process.max_connections is {}", new.max_connections));
        }
        if old.hard_stop_after != new.hard_stop_after {
            changes.push(format!("process.hard_stop_after is {:?}", new.hard_stop_after));
        }
        if old.access_log != new.access_log {
            changes.push("log.format changed".to_owned());
        }
        let frontends = |of: &Balancer| by_name(&of.frontends, |it| (&it.name, frontend(it, of)));
        changes.extend(compare("frontend", &frontends(old), &frontends(new)));
        let backends = |of: &Balancer| by_name(&of.backends, |it| (&it.name, backend(it)));
        changes.extend(compare("backend", &backends(old), &backends(new)));
        for backend in &new.backends {
            if let Some(before) = old.backends.iter().find(|before| before.name == backend.name) {
                let servers = |of: &Backend| by_name(&of.servers, |it| (format!("{}/{}", of.name, it.name), value(it)));
                changes.extend(compare("server", &servers(before), &servers(backend)));
            }
        }
        Ok(Changes(changes))
    }
}

impl Changes {
    /// Is it the same configuration?
    pub fn is_nothing(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for Changes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("nothing in it has changed");
        }
        f.write_str(&self.0.join("; "))
    }
}

fn needing_restart(old: &Config, new: &Config) -> Vec<String> {
    let mut keys = Vec::new();
    let mut look = |key: &str, is_same: bool| {
        if !is_same {
            keys.push(key.to_owned());
        }
    };
    look("node.name", old.node.name == new.node.name);
    look("node.control_socket", old.node.control_socket == new.node.control_socket);
    look("process.user", old.process.user == new.process.user);
    look("process.group", old.process.group == new.process.group);
    look("process.chroot", old.process.chroot == new.process.chroot);
    look("process.threads", old.balancer.threads == new.balancer.threads);
    let targets = |config: &Config| {
        config.log_targets.iter().map(|it| (it.to.clone(), it.facility, it.lines)).collect::<Vec<_>>()
    };
    let are_same_targets = targets(old) == targets(new);
    look("log.target", are_same_targets);
    look("log.level", !are_same_targets || old.log_targets == new.log_targets);
    match (&old.peering, &new.peering) {
        (Some(old), Some(new)) => {
            look("peering.listen", old.listen == new.listen);
            look("peering.key_file", old.key_file == new.key_file);
            look("peering.peers", old.peers == new.peers);
        }
        (old, new) => look("[peering]", old.is_none() && new.is_none()),
    }
    let routers = |config: &Config| by_name(&config.virtual_routers, |it| (&it.name, value(it)));
    let (old_routers, new_routers) = (routers(old), routers(new));
    for (name, before) in &old_routers {
        match new_routers.get(name) {
            Some(after) => keys.extend(differing_keys(before, after).map(|key| format!("vrrp.{name}.{key}"))),
            None => keys.push(format!("[vrrp.{name}]")),
        }
    }
    keys.extend(
        new_routers.keys().filter(|name| !old_routers.contains_key(*name)).map(|name| format!("[vrrp.{name}]")),
    );
    keys
}

fn differing_keys<'a>(before: &'a Value, after: &'a Value) -> impl Iterator<Item = &'a str> {
    let (before, after) = (before.as_object(), after.as_object());
    let members = before.into_iter().flatten();
    members
        .filter(move |(key, value)| after.and_then(|after| after.get(*key)) != Some(*value))
        .map(|(key, _)| key.as_str())
}

fn by_name<'a, T, N: AsRef<str>>(list: &'a [T], member: impl Fn(&'a T) -> (N, Value)) -> BTreeMap<String, Value> {
    list.iter().map(member).map(|(name, value)| (name.as_ref().to_owned(), value)).collect()
}

/// In words, what came, went and changed.
fn compare(what: &str, old: &BTreeMap<String, Value>, new: &BTreeMap<String, Value>) -> Vec<String> {
    let names = |names: Vec<&String>, verb: &str| {
        let plural = if names.len() == 1 { "" } else { "s" };
        let list: Vec<&str> = names.iter().map(|name| name.as_str()).collect();
        (!list.is_empty()).then(|| format!("{what}{plural} {} {verb}", list.join(", ")))
    };
    let came = new.keys().filter(|name| !old.contains_key(*name)).collect();
    let went = old.keys().filter(|name| !new.contains_key(*name)).collect();
    let changed = new.iter().filter(|(name, new)| old.get(*name).is_some_and(|old| old != *new)).map(|(name, _)| name);
    [names(came, "came"), names(went, "went"), names(changed.collect(), "changed")].into_iter().flatten().collect()
}

fn value(part: &impl Serialize) -> Value {
    serde_json::to_value(part).unwrap_or_default()
}

/// Its backends by name: their places mean nothing.
fn frontend(frontend: &Frontend, of: &Balancer) -> Value {
    let name = |index: usize| Value::from(of.backends.get(index).map(|backend| backend.name.as_str()));
    let mut value = value(frontend);
    for (route, place) in frontend.routes.iter().zip(value["routes"].as_array_mut().into_iter().flatten()) {
        place["backend"] = name(route.backend.0);
    }
    if let Some(backend) = frontend.default_backend {
        value["default_backend"] = name(backend.0);
    }
    value
}

/// Without its servers, of which is told one by one.
fn backend(backend: &Backend) -> Value {
    value(&Backend { servers: Vec::new(), ..backend.clone() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Machine, parse_for};

    const EXAMPLE: &str = include_str!("../../docs/example.toml");

    fn config(text: &str) -> Config {
        let machine = Machine { host_name: "lb1".to_owned(), cores: 4, ..Machine::this() };
        parse_for(text, "test", &machine).unwrap_or_else(|errors| panic!("{errors}"))
    }

    const SMALL: &str = "[frontends.f]\nbind = '*:1'\ndefault_backend = 'a'\nroutes = [{ path = '/b', backend = 'b' }]\n\
                         [backends.a]\nservers = [{ name = 'x', address = '192.0.2.1:1' }]\n\
                         [backends.b]\nservers = [{ name = 'x', address = '192.0.2.1:1' }]\n";

    fn changes(replacements: &[(&str, &str)]) -> String {
        let changed = replacements.iter().fold(SMALL.to_owned(), |text, (from, to)| {
            assert!(text.contains(from), "{from}");
            text.replacen(from, to, 1)
        });
        Changes::between(&config(SMALL), &config(&changed)).unwrap().to_string()
    }

    #[test]
    fn what_comes_goes_and_changes_is_named() {
        let rows: &[(&[(&str, &str)], &str)] = &[
            (&[], "nothing in it has changed"),
            (&[("'*:1'", "'*:2'")], "frontend f changed"),
            (&[("path = '/b'", "path = '/c'")], "frontend f changed"),
            (&[("[backends.a]", "[backends.a]\nretries = 1")], "backend a changed"),
            (&[("192.0.2.1:1' }]\n[backends.b]", "192.0.2.2:1' }]\n[backends.b]")], "server a/x changed"),
            (&[("[{ name", "[{ name = 'y', address = '192.0.2.2:1' }, { name")], "server a/y came"),
            (&[("name = 'x'", "name = 'y'")], "server a/y came; server a/x went"),
            (&[("[frontends.f]", "[process]\nstop_timeout = '7s'\n[frontends.f]")], "process.stop_timeout is 7s"),
            (&[("[frontends.f]", "[process]\nmax_connections = 7\n[frontends.f]")], "process.max_connections is 7"),
            (
                &[("[frontends.f]", "[log]\nformat = 'off'\n[process]\nhard_stop_after = '5s'\n[frontends.f]")],
                "process.hard_stop_after is 5s; log.format changed",
            ),
            // The places of the others move, which is no change.
            (
                &[("[backends.a]", "[backends.0]\nservers = [{ name = 'x', address = '192.0.2.1:1' }]\n[backends.a]")],
                "backend 0 came",
            ),
            (
                &[(
                    "[frontends.f]",
                    "[frontends.h]\nbind = '*:3'\ndefault_backend = 'a'\n[frontends.g]\nbind = '*:2'\ndefault_backend = 'a'\n[frontends.f]",
                )],
                "frontends g, h came",
            ),
        ];
        for (replacements, expected) in rows {
            assert_eq!(changes(replacements), *expected, "{replacements:?}");
        }
    }

    #[test]
    fn what_needs_a_restart_is_named_and_everything_else_does_not() {
        let rows = [
            ("name = \"lb1\"", "name = \"lb9\"", "node.name"),
            ("threads = 2", "threads = 3", "process.threads"),
            ("\"eth1\"", "\"eth2\"", "vrrp.main.interface"),
            ("priority = 254", "priority = 253", "vrrp.main.priority"),
            ("listen = \"192.168.1.11:8650\"", "listen = \"192.168.1.13:8650\"", "peering.listen"),
            ("{ lb2 = ", "{ lb3 = ", "peering.peers"),
            ("[vrrp.main]", "[vrrp.other]", "[vrrp.main], [vrrp.other]"),
            ("[log]", "[log]\ntarget = \"/tmp/x\"", "log.target"),
            ("level = \"info\"", "level = \"debug\"", "log.level"),
        ];
        for (from, to, keys) in rows {
            let changed = EXAMPLE.replacen(from, to, 1);
            assert_ne!(changed, EXAMPLE, "{from} is not in the example");
            let refused = Changes::between(&config(EXAMPLE), &config(&changed)).unwrap_err().to_string();
            let verb = if keys.contains(',') { "count" } else { "counts" };
            assert!(refused.starts_with(&format!("{keys} {verb} only when the node starts: restart it")), "{refused}");
        }
    }
}
