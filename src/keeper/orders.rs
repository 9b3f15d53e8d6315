//! `relevo server` on the control socket: which servers are meant, and what is said about them. Pure.

use crate::config::model;
use crate::config::nearest::nearest;
use crate::status::{BackendStatus, PeerStatus, ServerStatus};
use crate::wish::{ServerName, Wish};

/// So many names fit in a message.
const SHOWN: usize = 10;

/// What comes behind `server` in a line.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Order {
    /// What is wanted.
    pub(super) wish: Wish,
    /// Of these servers, as they were written.
    pub(super) names: Vec<String>,
}

impl Order {
    /// The error says what is accepted.
    pub(super) fn parse(words: &str) -> Result<Order, String> {
        let mut words = words.split_ascii_whitespace();
        let wish = Wish::take_from(&mut words)?;
        let names: Vec<String> = words.map(str::to_owned).collect();
        if names.is_empty() {
            return Err("no server is named: expected BACKEND/SERVER".to_owned());
        }
        Ok(Order { wish, names })
    }

    /// Each server once.
    ///
    /// # Errors
    /// Each name that is none, with the one that may be meant: nothing is to be done then.
    pub(super) fn servers(&self, config: &model::Balancer) -> Result<Vec<ServerName>, String> {
        let mut servers = Vec::new();
        let mut complaints = Vec::new();
        for name in &self.names {
            match all(config).find(|server| server.to_string() == *name) {
                Some(server) if servers.contains(&server) => {}
                Some(server) => servers.push(server),
                None => complaints.push(unknown(name, config)),
            }
        }
        if complaints.is_empty() { Ok(servers) } else { Err(complaints.join("\n")) }
    }
}

/// How these servers are now, a line for each, and who does not know of it yet. `None`: no balancer runs.
pub(super) fn answer(servers: &[ServerName], backends: Option<&[BackendStatus]>, peers: &[PeerStatus]) -> String {
    let find = |name: &ServerName| {
        let backend = backends?.iter().find(|backend| backend.name == name.backend)?;
        backend.servers.iter().find(|server| server.name == name.server)
    };
    let server = |name: &ServerName| match find(name) {
        Some(server) => format!("{name} is {}\n", sentence(server)),
        None => format!("{name}: no balancer serves now, the next one begins with this\n"),
    };
    let absent = peers.iter().filter(|peer| !peer.connected);
    let peer = |peer: &PeerStatus| format!("{} is not linked now and hears of this when it is\n", peer.name);
    servers.iter().map(server).chain(absent.map(peer)).collect()
}

fn sentence(server: &ServerStatus) -> String {
    let state = server.state.in_a_sentence();
    let (weight, connections) = (server.weight, server.connections);
    let weight = match server.configured_weight {
        configured if configured == weight => format!("weight {weight}"),
        configured => format!("weight {weight} (configured: {configured})"),
    };
    let noun = if connections == 1 { "connection" } else { "connections" };
    format!("{state}, {weight}, {connections} {noun} now")
}

fn all(config: &model::Balancer) -> impl Iterator<Item = ServerName> {
    config.backends.iter().flat_map(|backend| {
        let name = |server: &model::Server| ServerName { backend: backend.name.clone(), server: server.name.clone() };
        backend.servers.iter().map(name)
    })
}

fn unknown(name: &str, config: &model::Balancer) -> String {
    let known: Vec<String> = all(config).map(|server| server.to_string()).collect();
    let of_that_name: Vec<String> =
        all(config).filter(|server| server.server == name).map(|server| server.to_string()).collect();
    let of_that_backend: Vec<String> =
        all(config).filter(|server| server.backend == name).map(|server| server.to_string()).collect();
    let advice = match nearest(name, known.iter().map(String::as_str)) {
        _ if !of_that_backend.is_empty() => format!("that is a backend; its servers are {}", listed(&of_that_backend)),
        _ if !of_that_name.is_empty() => format!("did you mean {}?", listed(&of_that_name)),
        Some(nearest) => format!("did you mean {nearest}?"),
        None => format!("there are {}", listed(&known)),
    };
    format!("no server {name:.200}; {advice}")
}

fn listed(names: &[String]) -> String {
    let shown = names.get(..SHOWN).unwrap_or(names).join(", ");
    match names.len().saturating_sub(SHOWN) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Machine, parse_for};
    use crate::status::ServerState;
    use crate::wish::{Admin, Weight};

    fn config(servers: usize) -> model::Balancer {
        let servers: Vec<String> = (1..=servers)
            .map(|number| format!("{{ name = 'backend{number}', address = '192.0.2.{number}:80' }}"))
            .collect();
        let text = format!(
            "[frontends.f]\nbind = '*:80'\ndefault_backend = 'app'\n[backends.app]\nservers = [{}]\n\
             [backends.static]\nservers = [{{ name = 'nginx', address = '192.0.2.99:80' }}]",
            servers.join(", ")
        );
        let machine = Machine { host_name: "lb1".to_owned(), cores: 1, ..Machine::this() };
        parse_for(&text, "test", &machine).unwrap().balancer
    }

    fn servers(words: &str, config: &model::Balancer) -> Result<Vec<String>, String> {
        let servers = Order::parse(words)?.servers(config)?;
        Ok(servers.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn several_servers_each_once() {
        let config = config(3);
        let words = "drain app/backend2 static/nginx  app/backend2";
        assert_eq!(servers(words, &config).unwrap(), ["app/backend2", "static/nginx"]);
        let order = Order::parse("weight 50% app/backend1").unwrap();
        assert_eq!(order, Order { wish: Wish::Weight(Weight::Percent(50)), names: vec!["app/backend1".into()] });
        assert_eq!(Order::parse("ready a/b").unwrap().wish, Wish::Admin(Admin::Ready));
        assert!(Order::parse("drain").unwrap_err().contains("expected BACKEND/SERVER"));
        assert!(Order::parse("stop app/backend1").unwrap_err().contains("expected ready, drain"));
    }

    #[test]
    fn what_is_no_server_is_told_from_what_there_is() {
        let three = config(3);
        let error = |words| servers(words, &three).unwrap_err();
        assert_eq!(error("drain app/bakcend1"), "no server app/bakcend1; did you mean app/backend1?");
        assert_eq!(error("drain nginx"), "no server nginx; did you mean static/nginx?");
        assert_eq!(error("drain static"), "no server static; that is a backend; its servers are static/nginx");
        assert_eq!(
            error("drain x/y app/backend1 q"),
            "no server x/y; there are app/backend1, app/backend2, app/backend3, static/nginx\n\
             no server q; there are app/backend1, app/backend2, app/backend3, static/nginx"
        );
        assert!(servers("drain x/y", &config(50)).unwrap_err().ends_with("app/backend10 and 41 more"));
    }

    #[test]
    fn the_answer_says_how_it_is_now() {
        let name = ServerName { backend: "app".into(), server: "a".into() };
        let server = ServerStatus {
            name: "a".into(),
            state: ServerState::Drain,
            weight: 30,
            configured_weight: 60,
            connections: 1,
            ..ServerStatus::default()
        };
        let backends = [BackendStatus { name: "app".into(), servers: vec![server], ..BackendStatus::default() }];
        let peers = [PeerStatus { name: "lb2".into(), ..PeerStatus::default() }];
        assert_eq!(
            answer(std::slice::from_ref(&name), Some(&backends), &peers),
            "app/a is drained, weight 30 (configured: 60), 1 connection now\n\
             lb2 is not linked now and hears of this when it is\n"
        );
        assert_eq!(answer(&[name], None, &[]), "app/a: no balancer serves now, the next one begins with this\n");
    }
}
