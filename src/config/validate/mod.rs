//! From what is written to what it means: defaults filled in, references followed, contradictions found.

mod backends;
mod balance;
mod conditions;
mod failure;
mod frontends;
mod health;
mod keep_alive;
mod log;
mod persistence;
mod rules;
mod stats;
mod vrrp;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

use relevo_ha::VirtualRouter;
use toml::Spanned;

use super::diagnostic::Diagnostic;
use super::file::{self, Named, Table};
use super::model::{self, AccessLog, Balancer, Config, LogLevel, Node, Peering, Process};
use super::read::{Reading, Tree};
use super::value::{FromText, Number, Text, is_name};
use super::{Machine, hash};

/// A configuration, or what is wrong with it.
pub(super) fn validate<'a>(reading: Reading<'a>, machine: &'a Machine) -> Result<Config, Vec<Diagnostic>> {
    let Reading { file, tree, refused, problems } = reading;
    let mut checker = Checker { tree, refused, problems, machine };
    let config = checker.config(file);
    match config {
        Some(config) if checker.problems.is_empty() => Ok(config),
        _ => Err(checker.problems),
    }
}

/// Where clients find the active node, whichever it is.
struct ActiveNode<'a> {
    virtual_addresses: Vec<IpAddr>,
    frontends: &'a [model::Frontend],
}

impl<'a> ActiveNode<'a> {
    fn of(virtual_routers: &[VirtualRouter], frontends: &'a [model::Frontend]) -> Self {
        let addresses = virtual_routers.iter().flat_map(|router| &router.addresses);
        Self { virtual_addresses: addresses.map(|address| address.address.into()).collect(), frontends }
    }

    /// Does a frontend listen there that sends to this backend?
    fn leads_to(&self, backend: model::BackendIndex, address: SocketAddr) -> bool {
        self.virtual_addresses.contains(&address.ip())
            && self.frontends.iter().any(|frontend| {
                frontend.backends().any(|other| other == backend)
                    && frontend.binds.iter().any(|bind| frontends::overlap(bind.address, address))
            })
    }
}

struct Checker<'a> {
    tree: Tree<'a>,
    refused: Vec<String>,
    problems: Vec<Diagnostic>,
    machine: &'a Machine,
}

impl Checker<'_> {
    fn config(&mut self, file: file::File) -> Option<Config> {
        let machine = self.machine;
        let file::File { node, process, log, timeouts, errors, frontends, backends, vrrp, peering, stats } = file;
        let (Table(node), Table(process), Table(log), Table(timeouts)) = (node, process, log, timeouts);
        if self.problems.is_empty() && frontends.is_empty() && vrrp.is_empty() {
            let hint = "a configuration has at least one frontend or one virtual router";
            self.problem_with_hint(0..0, "there is nothing to run", "", hint);
        }
        let virtual_routers = self.virtual_routers(vrrp);
        self.conflicts_of_backends(&frontends, &backends);
        let mut bound = Vec::new();
        let stats = stats.map(|stats| self.frontend_of_stats(&frontends, stats, &timeouts, &mut bound));
        let errors = self.error_pages(errors.as_ref());
        let frontends = self.frontends(frontends, &timeouts, &errors, &mut bound);
        let active = ActiveNode::of(&virtual_routers, &frontends);
        let backends = self.backends(backends, &timeouts, &active);

        let log_targets = self.log_targets(log.target, plain(log.level).unwrap_or(LogLevel::Info));
        let name = node.name.map_or_else(|| machine.host_name.clone(), |name| name.into_inner().0.0);
        let peering = peering.and_then(|peering| self.peering(peering, &name, &bound, &active));
        let control_socket = node.control_socket.and_then(|path| self.socket_path(path));
        let mut balancer = Balancer {
            node: name.clone(),
            threads: process.threads.map_or(machine.cores, |threads| threads.0 as usize),
            max_connections: 0,
            idle_connections: 0,
            hard_stop_after: plain(process.hard_stop_after).unwrap_or(model::HARD_STOP_AFTER),
            access_log: plain(log.format).unwrap_or(AccessLog::HttpLog),
            frontends,
            backends,
        };
        let hash = hash::of(&balancer, &virtual_routers);
        balancer.frontends.extend(stats.flatten());
        balancer.max_connections = process
            .max_connections
            .map_or_else(|| balancer.default_connections(machine.open_files), |connections| connections.0 as usize);
        balancer.idle_connections = balancer.max_connections;
        Some(Config {
            node: Node { name, control_socket: control_socket.unwrap_or_else(|| super::DEFAULT_CONTROL_SOCKET.into()) },
            process: Process {
                user: plain(process.user).map(|user| user.0),
                group: plain(process.group).map(|group| group.0),
                chroot: plain(process.chroot),
                stop_timeout: plain(process.stop_timeout).unwrap_or(model::STOP_TIMEOUT),
            },
            balancer,
            log_targets,
            virtual_routers,
            peering,
            hash,
            read_at: String::new(),
        })
    }

    /// A Unix socket's path has to fit `sockaddr_un`, 108 bytes with the final zero.
    fn socket_path(&mut self, path: Spanned<Text<PathBuf>>) -> Option<PathBuf> {
        let span = path.span();
        let path = path.into_inner().0;
        let length = path.as_os_str().len();
        if length > 107 {
            self.problem(span, "expected a path of at most 107 bytes", format!("found {length} bytes"));
            return None;
        }
        Some(path)
    }

    fn peering(
        &mut self,
        written: Spanned<Table<file::Peering>>,
        node: &str,
        bound: &frontends::Bound,
        active: &ActiveNode<'_>,
    ) -> Option<Peering> {
        let place = written.span();
        let Table(written) = written.into_inner();
        let listen = self.required(written.listen, &place, "listen", SocketAddr::ACCEPTED);
        let listen_address = listen.as_ref().map(|listen| listen.get_ref().0);
        if let Some(listen) = &listen {
            self.is_listened_on(listen.get_ref().0, &listen.span(), bound);
            self.is_a_nodes_own(listen.get_ref().0, listen.span(), active);
        }
        if written.peers.is_empty() {
            self.missing(&place, "peers", "the other nodes, such as `peers = { lb2 = \"192.0.2.12:8650\" }`");
        }
        let mut seen: Vec<(SocketAddr, Range<usize>)> = Vec::new();
        for (name, address) in in_file_order(&written.peers) {
            self.name(name);
            if name.get_ref() == node {
                let hint = "leave it out, or give this node another name in `node.name`";
                self.problem_with_hint(name.span(), "a peer is another node", "this node has this name", hint);
            }
            let span = address.span();
            let address = address.get_ref().0;
            self.is_a_nodes_own(address, span.clone(), active);
            if address.ip().is_unspecified() {
                self.problem(span, "expected the address of one host", "found the wildcard");
            } else if listen_address == Some(address) {
                self.problem(span, "a peer is another node", "`peering.listen` is this address");
            } else if let Some((_, first)) = seen.iter().find(|(other, _)| *other == address) {
                let first = first.clone();
                self.conflict(span, "every peer has its own address", "written twice", first, "first here");
            } else {
                seen.push((address, span));
            }
        }
        Some(Peering {
            listen: listen_address?,
            key_file: plain(written.key_file).unwrap_or_else(|| "/etc/relevo/pair.key".into()),
            peers: written.peers.into_iter().map(|(name, peer)| (name.into_inner(), peer.into_inner().0)).collect(),
        })
    }

    /// A virtual address is at one node after the other, and is removed where it is for good.
    fn is_a_nodes_own(&mut self, address: SocketAddr, span: Range<usize>, active: &ActiveNode<'_>) {
        if active.virtual_addresses.contains(&address.ip()) {
            let hint =
                "give the node an address of its own, and `addresses` of the virtual router one that no host has";
            self.problem_with_hint(span, "expected an address that stays with its node", "found a virtual one", hint);
        }
    }

    /// Tables' names go into logs, cookies and commands.
    fn name(&mut self, name: &Spanned<String>) {
        if !is_name(name.get_ref()) {
            self.problem(name.span(), "expected a name of letters, digits, `-`, `_`, `.` and `:`", "");
        }
    }

    fn required<T>(&mut self, value: Option<T>, place: &Range<usize>, key: &str, accepted: &str) -> Option<T> {
        if value.is_none() {
            self.missing(place, key, accepted);
        }
        value
    }

    /// The table at `place` lacks a key, or has an empty list or table there.
    fn missing(&mut self, place: &Range<usize>, key: &str, accepted: &str) {
        if self.is_refused(place, key) {
            return;
        }
        if let Some((span, found)) = self.tree.empty(place, key) {
            self.problem(span, format!("expected {accepted}"), format!("found {found}"));
        } else {
            self.problem(place.clone(), format!("`{key}` is missing: expected {accepted}"), "");
        }
    }

    /// Whether a key, or something in it, is written but could not be read: then nothing is said of its absence.
    fn is_refused(&self, place: &Range<usize>, key: &str) -> bool {
        self.is_refused_under(&format!("{}.{key}", self.tree.path_of(place)))
    }

    /// The same of the value at `place`.
    fn is_refused_at(&self, place: &Range<usize>) -> bool {
        self.is_refused_under(&self.tree.path_of(place))
    }

    fn is_refused_under(&self, path: &str) -> bool {
        let is_under =
            |refused: &String| refused.strip_prefix(path).map(|rest| rest.is_empty() || rest.starts_with(['.', '[']));
        self.refused.iter().any(|refused| is_under(refused) == Some(true))
    }

    /// Two places contradict each other.
    fn conflict(&mut self, span: Range<usize>, message: &str, found: &str, other: Range<usize>, label: &str) {
        let path = self.tree.path_of(&span);
        let other = Some((other, label.to_owned()));
        self.problems.push(Diagnostic { path, message: message.into(), found: found.into(), hint: None, span, other });
    }

    fn problem(&mut self, span: Range<usize>, message: impl Into<String>, found: impl Into<String>) {
        let path = self.tree.path_of(&span);
        self.problems.push(Diagnostic {
            path,
            message: message.into(),
            found: found.into(),
            hint: None,
            span,
            other: None,
        });
    }

    fn problem_with_hint(&mut self, span: Range<usize>, message: &str, found: &str, hint: impl Into<String>) {
        let (path, hint) = (self.tree.path_of(&span), Some(hint.into()));
        self.problems.push(Diagnostic { path, message: message.into(), found: found.into(), hint, span, other: None });
    }
}

/// The value without its place.
fn plain<T>(value: Option<Text<T>>) -> Option<T> {
    value.map(|text| text.0)
}

fn port(written: Option<Number<1, 65535>>) -> Option<u16> {
    written.and_then(|port| u16::try_from(port.0).ok())
}

/// A table's own, the file's, or the default in seconds.
fn timeout(own: Option<&Text<Duration>>, file: &Option<Text<Duration>>, default: u64) -> Duration {
    own.or(file.as_ref()).map_or(Duration::from_secs(default), |written| written.0)
}

/// The map has them by name.
fn in_file_order<T>(named: &BTreeMap<Spanned<String>, T>) -> Vec<(&Spanned<String>, &T)> {
    let mut list: Vec<_> = named.iter().collect();
    list.sort_by_key(|(name, _)| name.span().start);
    list
}

fn into_file_order<T>(named: Named<T>) -> Vec<(Spanned<String>, T)> {
    let mut list: Vec<_> = named.into_iter().map(|(name, Table(table))| (name, table)).collect();
    list.sort_by_key(|(name, _)| name.span().start);
    list
}
