//! Sessions: what brings the requests of a client back to the server that knows it. A cookie says so, or else a table does.

pub mod cookie;
mod dates;
pub mod table;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use hyper::http::request::Parts;
use hyper::{HeaderMap, Method};

use crate::balancer::clock;
use crate::balancer::state::BackendState;
use crate::config::model::{Backend, CookiePersistence, Server, StickBy};
use cookie::{Answer, Claim, ClaimedServer, ResponseCookie};
use dates::Outdated;
use table::{Key, ServerId, Table};

/// A backend's stick table, and what it calls the servers that the backend has.
pub struct StickTable {
    table: Arc<Table>,
    /// By index of the server.
    servers: Box<[ServerId]>,
}

impl StickTable {
    /// The servers keep the sessions that those of their names had.
    pub fn new(table: Arc<Table>, servers: &[Server]) -> Self {
        let servers = servers.iter().map(|server| table.server(&server.name)).collect();
        Self { table, servers }
    }

    /// The same table for the servers of another configuration.
    pub fn succeeded_by(&self, servers: &[Server]) -> Self {
        Self::new(self.table.clone(), servers)
    }

    /// The table itself, which is told and learns where servers go by their names.
    pub fn table(&self) -> &Table {
        &self.table
    }

    /// The index of a server, if the backend has it.
    pub fn index_of(&self, server: ServerId) -> Option<usize> {
        self.servers.iter().position(|known| *known == server)
    }

    /// What the table calls the server of this index.
    pub fn id_of(&self, server: usize) -> Option<ServerId> {
        self.servers.get(server).copied()
    }

    fn find(&self, key: Key) -> Option<usize> {
        self.index_of(self.table.find(key, clock::now())?)
    }

    fn keep(&self, key: Key, server: usize) {
        if let Some(server) = self.servers.get(server) {
            self.table.keep(key, *server, clock::now());
        }
    }
}

/// What is known of the session of one request, or of one TCP connection.
pub struct Persistence<'a> {
    backend: &'a Backend,
    state: &'a BackendState,
    /// Seconds since 1970, where the cookie is dated.
    now: u64,
    claim: Option<Claim>,
    key: Option<Key>,
    /// Where the table has it.
    remembered: Option<usize>,
}

impl<'a> Persistence<'a> {
    /// By the request's cookie, and what the backend's table goes by. `client` is whom it comes from, where that is a proxy of
    /// ours: whom that one names.
    pub fn of_request(backend: &'a Backend, state: &'a BackendState, client: IpAddr, headers: &HeaderMap) -> Self {
        let now = match &backend.cookie {
            Some(cookie) if cookie.is_dated() => SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default(),
            _ => Default::default(),
        };
        let claim = |cookie: &CookiePersistence| cookie::claim(cookie, &backend.servers, headers, now.as_secs());
        let key = backend.stick.as_ref().and_then(|stick| match &stick.by {
            StickBy::Source => Some(Key::of_address(client)),
            StickBy::Header(name) => Key::of_value(headers.get(name)?.as_bytes()),
            StickBy::Cookie(name) => Key::of_value(cookie::value_in_request(name, headers)?),
        });
        Self::new(backend, state, now.as_secs(), backend.cookie.as_ref().map(claim), key)
    }

    /// By the client's address alone.
    pub fn of_connection(backend: &'a Backend, state: &'a BackendState, client: IpAddr) -> Self {
        let by_source = backend.stick.as_ref().filter(|stick| stick.by == StickBy::Source);
        Self::new(backend, state, 0, None, by_source.map(|_| Key::of_address(client)))
    }

    fn new(backend: &'a Backend, state: &'a BackendState, now: u64, claim: Option<Claim>, key: Option<Key>) -> Self {
        let remembered = state.stick.as_ref().zip(key).and_then(|(table, key)| table.find(key));
        Self { backend, state, now, claim, key, remembered }
    }

    /// The server that the session is at, be it down: one that the cookie names, or one that the table has, where that can
    /// be used and the cookie's cannot.
    pub fn server(&self) -> Option<usize> {
        let keeps_sessions =
            |server: &usize| self.state.servers.get(*server).is_some_and(|server| server.keeps_sessions());
        let claimed = self.claimed();
        let known = || [claimed, self.remembered].into_iter().flatten();
        known().find(keeps_sessions).or_else(|| known().next())
    }

    fn claimed(&self) -> Option<usize> {
        match self.claim?.server {
            ClaimedServer::Known(server) => Some(server),
            _ => None,
        }
    }

    /// From now on the session is there.
    pub fn goes_to(&mut self, server: usize) {
        if self.remembered == Some(server) {
            return;
        }
        if let Some((table, key)) = self.state.stick.as_ref().zip(self.key) {
            table.keep(key, server);
            self.remembered = Some(server);
        }
    }

    /// The log's letter for the request's cookie, when the request went to this server; `None`: there is no such thing here.
    pub fn request_letter(&self, server: Option<usize>) -> Option<u8> {
        Some(match self.claim?.server {
            ClaimedServer::None => b'N',
            ClaimedServer::Unknown => b'I',
            ClaimedServer::Outdated(Outdated::Idle) => b'E',
            ClaimedServer::Outdated(Outdated::Old) => b'O',
            ClaimedServer::Known(claimed) if Some(claimed) == server => b'V',
            ClaimedServer::Known(_) => b'D',
        })
    }

    /// Takes from the request what the server is not to see.
    pub fn prepare_request(&self, headers: &mut HeaderMap) {
        if let Some(cookie) = &self.backend.cookie {
            cookie::prepare_request(cookie, headers);
        }
    }

    /// Makes the client come back to the server that gave this response, and gives the log's letter for its cookie; `None`: there
    /// is no such thing here.
    pub fn prepare_response(&self, server: usize, request: &Parts, headers: &mut HeaderMap) -> Option<u8> {
        if let Some((table, stick)) = self.state.stick.as_ref().zip(self.backend.stick.as_ref())
            && let StickBy::Cookie(name) = &stick.by
            && let Some(key) = cookie::value_in_response(name, headers).and_then(Key::of_value)
        {
            table.keep(key, server);
        }
        let (cookie, claim) = self.backend.cookie.as_ref().zip(self.claim.as_ref())?;
        let was_claimed = self.claimed() == Some(server);
        let server = self.backend.servers.get(server)?;
        let is_to_post = request.method == Method::POST;
        let answer = Answer { server, request: &request.headers, was_claimed, is_to_post, now: self.now };
        Some(match cookie::prepare_response(cookie, claim, &answer, headers) {
            ResponseCookie::None => b'N',
            ResponseCookie::Inserted => b'I',
            ResponseCookie::Updated => b'U',
            ResponseCookie::Rewritten => b'R',
            ResponseCookie::Deleted => b'D',
        })
    }
}
