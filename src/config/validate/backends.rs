//! `[backends.NAME]`: the servers and how their sessions are kept.

use std::net::IpAddr;
use std::ops::Range;

use toml::Spanned;

use super::{ActiveNode, Checker, into_file_order, plain, port, timeout};
use crate::config::file::{self, Named, Table};
use crate::config::model::{Backend, BackendIndex, Balance, Server, ServerAddress, ServerTimeouts, WhenAllDown};
use crate::config::value::{FromText, Number, Text};

impl Checker<'_> {
    pub(super) fn backends(
        &mut self,
        written: Named<file::Backend>,
        defaults: &file::Timeouts,
        active: &ActiveNode<'_>,
    ) -> Vec<Backend> {
        let mut backends = Vec::new();
        for (name, written) in into_file_order(written) {
            self.name(&name);
            backends.extend(self.backend(name, written, defaults, active));
        }
        backends
    }

    fn backend(
        &mut self,
        name: Spanned<String>,
        written: file::Backend,
        defaults: &file::Timeouts,
        active: &ActiveNode<'_>,
    ) -> Option<Backend> {
        let index = self.backend_index(&name);
        let retry = super::failure::retry(&written);
        let cookie_name = written.cookie.as_ref().and_then(|cookie| cookie.get_ref().0.name.as_ref());
        let cookie_name = cookie_name.map(|name| (name.span(), name.get_ref().0.0.clone()));
        let cookie = written.cookie.map(|cookie| self.cookie(cookie));
        let stick = written.stick.map(|stick| {
            let cookie_name = cookie_name.as_ref().map(|(place, name)| (place.clone(), name.as_str()));
            self.stick(stick, cookie_name)
        });
        let balance = written.balance.map_or(Some(Balance::RoundRobin), |balance| self.balance(balance));
        let health = self.health(written.health.0);
        let agent = written.agent.map(|agent| self.agent(agent));
        if written.servers.is_empty() {
            let accepted = format!("at least one `[[{}.servers]]`", self.tree.path_of(&name.span()));
            self.missing(&name.span(), "servers", &accepted);
        }
        let servers = self.servers(written.servers, index, active);
        let has_limit = servers.iter().any(|server| server.max_connections.is_some());
        let has_limit = has_limit || self.is_refused(&name.span(), "servers");
        let max_queue = self.max_queue(written.max_queue, has_limit, "a server with `max_connections`");
        let errors = self.error_pages(written.errors.as_ref());
        let own = written.timeouts.0;
        let timeouts = ServerTimeouts {
            connect: timeout(own.connect.as_ref(), &defaults.connect, 5),
            server: timeout(own.server.as_ref(), &defaults.server, 50),
            queue: timeout(own.queue.as_ref(), &defaults.queue, 5),
            tunnel: timeout(own.tunnel.as_ref(), &defaults.tunnel, 3600),
        };
        Some(Backend {
            name: name.into_inner(),
            balance: balance?,
            slow_start: plain(written.slow_start),
            all_backups: written.all_backups.unwrap_or(false),
            when_all_down: plain(written.when_all_down).unwrap_or(WhenAllDown::Reject),
            cookie: match cookie {
                Some(cookie) => Some(cookie?),
                None => None,
            },
            stick: match stick {
                Some(stick) => Some(stick?),
                None => None,
            },
            health,
            agent: match agent {
                Some(agent) => Some(agent?),
                None => None,
            },
            retries: written.retries.map_or(3, |retries| retries.0),
            redispatch: written.redispatch.unwrap_or(true),
            max_queue,
            retry,
            reuse: written.reuse.map(|reuse| reuse.into_inner().0).unwrap_or_default(),
            connection: written.connection.map(|mode| mode.into_inner().0).unwrap_or_default(),
            tcp_keep_alive: self.tcp_keep_alive(written.tcp_keep_alive),
            errors,
            timeouts,
            servers,
        })
    }

    fn servers(
        &mut self,
        written: Vec<Spanned<Table<file::Server>>>,
        index: Option<BackendIndex>,
        active: &ActiveNode<'_>,
    ) -> Vec<Server> {
        let mut names: Vec<(String, Range<usize>)> = Vec::new();
        let mut cookies: Vec<(String, Range<usize>)> = Vec::new();
        let mut servers = Vec::new();
        for server in written {
            let place = server.span();
            let Table(server) = server.into_inner();
            let name = self.required(server.name, &place, "name", "a name, unique in its backend");
            let address = self.required(server.address, &place, "address", ServerAddress::ACCEPTED);
            let Some(name) = name else { continue };
            let name_span = name.span();
            let name = name.into_inner().0.0;
            let own_name = self.unique(&mut names, &name, &name_span, "every server of a backend has its own name");

            let cookie_message = match server.cookie {
                Some(_) => "every server of a backend has its own cookie",
                None => "a server without `cookie` uses its name, but every server has its own",
            };
            let is_another = own_name || server.cookie.is_some();
            let cookie_span = server.cookie.as_ref().map_or(name_span, Spanned::span);
            let cookie = server.cookie.map_or_else(|| name.clone(), |cookie| cookie.into_inner().0.0);
            if is_another {
                self.unique(&mut cookies, &cookie, &cookie_span, cookie_message);
            }
            let Some(address) = plain(address) else { continue };
            if let ServerAddress::Socket(address) = address
                && index.is_some_and(|index| active.leads_to(index, address))
            {
                let hint = "a frontend there sends to this backend, every request would come back: write the server's own address";
                self.problem_with_hint(place.clone(), "a server is another host", "has a virtual address", hint);
            }
            let source = server.source.and_then(|source| self.of_same_family(source, &address));
            let check_address = server.check_address.and_then(|other| self.of_same_family(other, &address));
            let max_connections = server.max_connections.map(|most| most.0);
            let has_limit = max_connections.is_some() || self.is_refused(&place, "max_connections");
            let max_queue = self.max_queue(server.max_queue, has_limit, "`max_connections` beside it");
            servers.push(Server {
                name,
                address,
                weight: server.weight.map_or(1, |weight| weight.0),
                max_connections,
                max_queue,
                cookie,
                backup: server.backup.unwrap_or(false),
                check: server.check.unwrap_or(true),
                check_address,
                check_port: port(server.check_port),
                source,
                source_is_virtual: source.is_some_and(|source| active.virtual_addresses.contains(&source)),
            });
        }
        servers
    }

    /// Nobody waits where there is no limit.
    fn max_queue(
        &mut self,
        written: Option<Spanned<Number<0, 1_000_000>>>,
        has_limit: bool,
        needed: &str,
    ) -> Option<u32> {
        let written = written?;
        if !has_limit {
            self.problem(written.span(), format!("expected {needed}"), "without a limit nobody waits");
        }
        Some(written.into_inner().0)
    }

    /// A `source` has to reach what is checked.
    fn of_same_family(&mut self, written: Spanned<Text<IpAddr>>, server: &ServerAddress) -> Option<IpAddr> {
        let span = written.span();
        let address = written.into_inner().0;
        if matches!(server, ServerAddress::Socket(server) if server.is_ipv4() != address.is_ipv4()) {
            self.problem(span, "expected an address of the same family as the server's", "found the other");
            return None;
        }
        Some(address)
    }

    /// Whether nobody has it yet.
    fn unique(
        &mut self,
        seen: &mut Vec<(String, Range<usize>)>,
        value: &str,
        span: &Range<usize>,
        message: &str,
    ) -> bool {
        let first = seen.iter().find(|(other, _)| other == value).map(|(_, first)| first.clone());
        let is_new = first.is_none();
        match first {
            Some(first) => self.conflict(span.clone(), message, "is taken", first, "first here"),
            None => seen.push((value.to_owned(), span.clone())),
        }
        is_new
    }
}
