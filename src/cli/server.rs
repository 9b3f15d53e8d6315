//! `relevo server`: takes servers of the running node out of service and back, changes their weights, and lists them.

use std::io::{self, IsTerminal};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};

use super::control::{self, ControlSocket};
use super::output;
use super::status::{self, text};
use crate::config::nearest::nearest;
use crate::status::{NodeStatus, PairStatus};
use crate::wish::{Admin, LONGEST_LINE, Weight, Wish};

/// For the whole answer.
const PATIENCE: Duration = Duration::from_secs(3);
/// Between two looks whether servers are idle.
const LOOK: Duration = Duration::from_millis(200);

/// List servers, take them out of service and back, change their weights, while the node runs
///
/// What is asked for on one node of a pair holds on the other too, until somebody asks for something else or all nodes have been
/// stopped.
#[derive(Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    action: Action,
    #[command(flatten)]
    control: ControlSocket,
}

#[derive(Subcommand)]
enum Action {
    /// Show the servers of all backends or of one: state, weight, connections, requests
    List {
        /// As JSON, for scripts
        #[arg(long)]
        json: bool,
        /// Of this backend alone
        #[arg(value_name = "BACKEND")]
        backend: Option<String>,
    },
    /// Give servers traffic again; after maintenance a check comes first
    #[command(visible_alias = "enable")]
    Ready(Servers),
    /// Send no new sessions to servers: they keep those that they have
    Drain(Leaving),
    /// Send nothing to servers, and do not check them: connections that are open go on
    #[command(visible_aliases = ["maint", "disable"])]
    Maintenance(Leaving),
    /// Change the weights of servers
    Weight {
        #[command(flatten)]
        servers: Servers,
        /// 0 to 256 (0: no new sessions), a share of the configured one like 50%, or default
        #[arg(value_name = "N|N%|default")]
        weight: Weight,
    },
}

#[derive(Args)]
struct Leaving {
    #[command(flatten)]
    servers: Servers,
    /// Return when no node has a request or a connection at them any more
    #[arg(long)]
    wait: bool,
}

#[derive(Args)]
struct Servers {
    /// One or more
    #[arg(value_name = "BACKEND/SERVER", required = true, value_parser = server_name)]
    servers: Vec<String>,
}

/// Whether there is one of that name, the node says.
fn server_name(text: &str) -> Result<String, &'static str> {
    match text.is_empty() || text.contains(|c: char| c.is_whitespace() || c.is_control()) {
        true => Err("expected BACKEND/SERVER"),
        false => Ok(text.to_owned()),
    }
}

/// Why nothing was done, or there is nothing to show.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Control(#[from] control::Error),
    #[error(transparent)]
    Status(#[from] status::StatusError),
    #[error("too many servers at once: name fewer")]
    TooMany,
    #[error("{0}")]
    Refused(String),
}

pub(super) fn run(arguments: &Arguments) -> ExitCode {
    match answer(arguments) {
        Ok(text) if matches!(arguments.action, Action::List { .. }) => output::show(&text),
        Ok(text) => output::report(&text),
        Err(error) => {
            output::complain(error);
            ExitCode::FAILURE
        }
    }
}

fn answer(arguments: &Arguments) -> Result<String, Error> {
    let change = |wish, servers: &Servers| change(&arguments.control, wish, &servers.servers);
    match &arguments.action {
        Action::List { json, backend } => list(&arguments.control, *json, backend.as_deref()),
        Action::Ready(servers) => change(Wish::Admin(Admin::Ready), servers),
        Action::Drain(Leaving { servers, wait }) => change(Wish::Admin(Admin::Drain), servers)
            .and_then(|done| wait_for(&arguments.control, servers, *wait, done)),
        Action::Maintenance(Leaving { servers, wait }) => change(Wish::Admin(Admin::Maintenance), servers)
            .and_then(|done| wait_for(&arguments.control, servers, *wait, done)),
        Action::Weight { servers, weight } => change(Wish::Weight(*weight), servers),
    }
}

fn change(control: &ControlSocket, wish: Wish, servers: &[String]) -> Result<String, Error> {
    let line = format!("server {wish} {}", servers.join(" "));
    if line.len() as u64 >= LONGEST_LINE {
        return Err(Error::TooMany);
    }
    let answer = control::ask(&control.path()?, &line, PATIENCE)?;
    let answer = String::from_utf8_lossy(&answer);
    match answer.strip_prefix("error: ") {
        Some(error) => Err(Error::Refused(error.trim_end().to_owned())),
        None if answer.is_empty() => Err(Error::Refused(
            "the node gave no answer: its balancer hangs, or it ends; `relevo server list` tells what became of it"
                .to_owned(),
        )),
        None => Ok(answer.into_owned()),
    }
}

/// Until they are idle, here and at the peers, or their node does not answer any more.
fn wait_for(control: &ControlSocket, servers: &Servers, wait: bool, done: String) -> Result<String, Error> {
    while wait && is_busy(&status::ask(&control.path()?)?, &servers.servers) {
        std::thread::sleep(LOOK);
    }
    Ok(done)
}

/// Does any node of the pair have something under way at one of these servers?
fn is_busy(pair: &PairStatus, names: &[String]) -> bool {
    let linked = pair.peers.iter().filter(|peer| peer.connected).map(|peer| &peer.status);
    let backends = linked.chain([&pair.node]).flat_map(|node| &node.backends);
    let mut busy = backends.flat_map(|backend| {
        let busy = backend.servers.iter().filter(|server| server.connections > 0);
        busy.map(|server| format!("{}/{}", backend.name, server.name))
    });
    busy.any(|name| names.contains(&name))
}

fn list(control: &ControlSocket, json: bool, backend: Option<&str>) -> Result<String, Error> {
    let mut node = status::ask(&control.path()?)?.node;
    if let Some(name) = backend {
        select(&mut node, name)?;
    }
    Ok(match json {
        true => serde_json::to_string_pretty(&node.backends).unwrap_or_default() + "\n",
        false => text::servers(&node, super::colour(io::stdout().is_terminal())),
    })
}

/// Leaves this backend alone.
fn select(node: &mut NodeStatus, name: &str) -> Result<(), Error> {
    let known: Vec<String> = node.backends.iter().map(|backend| backend.name.clone()).collect();
    node.backends.retain(|backend| backend.name == name);
    if !node.backends.is_empty() {
        return Ok(());
    }
    let advice = match nearest(name, known.iter().map(String::as_str)) {
        Some(nearest) => format!("did you mean {nearest}?"),
        None => format!("there are {}", known.join(", ")),
    };
    Err(Error::Refused(format!("no backend {name}; {advice}")))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        arguments: Arguments,
    }

    fn parse(line: &str) -> Option<Action> {
        let words = ["server"].into_iter().chain(line.split(' '));
        Line::try_parse_from(words).ok().map(|line| line.arguments.action)
    }

    #[test]
    fn the_weight_comes_behind_the_servers() {
        let Some(Action::Weight { servers, weight }) = parse("weight app/a app/b 50%") else {
            panic!("not understood")
        };
        assert_eq!((servers.servers, weight), (vec!["app/a".into(), "app/b".into()], Weight::Percent(50)));
        for line in ["weight app/a", "weight app/a heavy", "weight 5", "drain", "stop app/a", "list app other"] {
            assert!(parse(line).is_none(), "{line}");
        }
    }

    /// HAProxy's words, and those of its runtime API.
    #[test]
    fn other_words_say_the_same() {
        assert!(matches!(parse("enable app/a"), Some(Action::Ready(_))));
        for word in ["maint", "disable"] {
            assert!(matches!(parse(&format!("{word} app/a")), Some(Action::Maintenance(_))), "{word}");
        }
    }

    #[test]
    fn the_node_is_named_before_or_behind_what_it_shall_do() {
        let asked = |words: &[&str]| {
            let line = Line::try_parse_from(words).map_err(|error| error.kind())?;
            Ok::<_, clap::error::ErrorKind>(line.arguments.control.path().unwrap())
        };
        for words in [
            &["server", "--socket", "/run/a", "drain", "app/a"][..],
            &["server", "drain", "--socket", "/run/a", "app/a"],
            &["server", "drain", "app/a", "--socket", "/run/a"],
            &["server", "weight", "app/a", "50%", "--socket", "/run/a"],
            &["server", "list", "--socket", "/run/a", "app"],
        ] {
            assert_eq!(asked(words), Ok("/run/a".into()), "{words:?}");
        }
        let both = ["server", "list", "-c", "/etc/a.toml", "--socket", "/run/a"];
        assert_eq!(asked(&both), Err(clap::error::ErrorKind::ArgumentConflict));
    }

    #[test]
    fn a_backend_that_is_not_there_is_told_from_what_there_is() {
        let backend =
            |name: &str| crate::status::BackendStatus { name: name.into(), servers: Vec::new(), ..Default::default() };
        let node = || NodeStatus { backends: vec![backend("app"), backend("static")], ..NodeStatus::default() };
        let mut one = node();
        select(&mut one, "static").unwrap();
        assert_eq!(one.backends, [backend("static")]);
        let error = |name| select(&mut node(), name).unwrap_err().to_string();
        assert_eq!(error("statik"), "no backend statik; did you mean static?");
        assert_eq!(error("q"), "no backend q; there are app, static");
    }
}
