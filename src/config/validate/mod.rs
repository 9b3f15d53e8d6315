//! From what is written to what it means: defaults filled in, references followed, contradictions found.

mod backends;
mod frontends;
mod vrrp;

use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::path::PathBuf;

use toml::Spanned;

use super::diagnostic::Diagnostic;
use super::file::{self, Named};
use super::model::{AccessLog, Balancer, Config, LogLevel, Node, Peering, Process};
use super::read::{Reading, Tree};
use super::value::{FromText, Text, is_name};
use super::{Machine, hash};

/// A configuration, or what is wrong with it.
pub(super) fn validate(reading: Reading<'_>, machine: &Machine) -> Result<Config, Vec<Diagnostic>> {
    let Reading { file, tree, refused, problems, has_syntax_errors } = reading;
    if has_syntax_errors {
        return Err(problems);
    }
    let mut checker = Checker { tree, refused, problems };
    let config = checker.config(file, machine);
    match config {
        Some(config) if checker.problems.is_empty() => Ok(config),
        _ => Err(checker.problems),
    }
}

struct Checker<'a> {
    tree: Tree<'a>,
    refused: Vec<String>,
    problems: Vec<Diagnostic>,
}

impl Checker<'_> {
    fn config(&mut self, file: file::File, machine: &Machine) -> Option<Config> {
        if self.tree.names("frontends").is_empty() && self.tree.names("vrrp").is_empty() {
            let problem = self.problem(0..0, "there is nothing to run", "");
            problem.hint = Some("a file has at least one frontend or one virtual router".to_owned());
        }
        let virtual_routers = self.virtual_routers(file.vrrp);
        let virtual_addresses: Vec<IpAddr> = virtual_routers
            .iter()
            .flat_map(|router| router.addresses.iter().map(|virtual_address| virtual_address.address.into()))
            .collect();
        self.conflicts_of_backends(&file.frontends, &file.backends);
        let frontends = self.frontends(file.frontends, &file.timeouts);
        let backends = self.backends(file.backends, &file.timeouts, &virtual_addresses);

        let name = file.node.name.map_or_else(|| machine.host_name.clone(), |name| name.into_inner().0.0);
        let peering = file.peering.and_then(|peering| self.peering(peering, &name));
        let control_socket = file.node.control_socket.and_then(|path| self.socket_path(path));
        let balancer = Balancer {
            node: name.clone(),
            threads: file.process.threads.map_or(machine.cores, |threads| threads.0 as usize),
            max_connections: file.process.max_connections.map_or(20_000, |connections| connections.0 as usize),
            access_log: plain(file.log.format).unwrap_or(AccessLog::HttpLog),
            frontends,
            backends,
        };
        let hash = hash::of(&balancer, &virtual_routers);
        Some(Config {
            node: Node { name, control_socket: control_socket.unwrap_or_else(|| super::DEFAULT_CONTROL_SOCKET.into()) },
            process: Process {
                user: plain(file.process.user).map(|user| user.0),
                group: plain(file.process.group).map(|group| group.0),
                chroot: plain(file.process.chroot),
            },
            balancer,
            log_level: plain(file.log.level).unwrap_or(LogLevel::Info),
            virtual_routers,
            peering,
            hash,
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

    fn peering(&mut self, written: Spanned<file::Peering>, node: &str) -> Option<Peering> {
        let place = written.span();
        let written = written.into_inner();
        let listen = self.required(written.listen, &place, "listen", SocketAddr::ACCEPTED);
        let listen_address = listen.as_ref().map(|listen| listen.get_ref().0);
        if written.peers.is_empty() {
            self.missing(&place, "peers", "the other nodes, such as `peers = { lb2 = \"192.0.2.12:8650\" }`");
        }
        let mut seen: Vec<(SocketAddr, Range<usize>)> = Vec::new();
        for (name, address) in in_file_order(&written.peers) {
            self.name(name);
            if name.get_ref() == node {
                let problem = self.problem(name.span(), "a peer is another node", "this node has this name");
                problem.hint = Some("leave it out, or set another `node.name`".to_owned());
            }
            let span = address.span();
            let address = address.get_ref().0;
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

    /// The table at `place` lacks a key.
    fn missing(&mut self, place: &Range<usize>, key: &str, accepted: &str) {
        if !self.is_refused(place, key) {
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

    fn conflict(
        &mut self,
        span: Range<usize>,
        message: impl Into<String>,
        found: impl Into<String>,
        other: Range<usize>,
        label: &str,
    ) {
        self.problem(span, message, found).other = Some((other, label.to_owned()));
    }

    fn problem(&mut self, span: Range<usize>, message: impl Into<String>, found: impl Into<String>) -> &mut Diagnostic {
        let path = self.tree.path_of(&span);
        let (message, found) = (message.into(), found.into());
        self.problems.push(Diagnostic { path, message, found, hint: None, span, other: None });
        let last = self.problems.len() - 1;
        &mut self.problems[last]
    }
}

/// The value without its place.
fn plain<T>(value: Option<Text<T>>) -> Option<T> {
    value.map(|text| text.0)
}

/// The map has them by name.
fn in_file_order<T>(named: &Named<T>) -> Vec<(&Spanned<String>, &T)> {
    let mut list: Vec<_> = named.iter().collect();
    list.sort_by_key(|(name, _)| name.span().start);
    list
}

fn into_file_order<T>(named: Named<T>) -> Vec<(Spanned<String>, T)> {
    let mut list: Vec<_> = named.into_iter().collect();
    list.sort_by_key(|(name, _)| name.span().start);
    list
}
