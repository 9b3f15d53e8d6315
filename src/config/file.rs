//! What is written: one struct for each table of the file, every key optional. What it means is in `validate`.
//!
//! Values keep their place ([`Spanned`]) where something can be wrong with them beside what they are themselves.

mod condition;
mod keep_alive;
mod persistence;
mod rule;

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use relevo_ha::VirtualAddress;
use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, Error, IntoDeserializer, MapAccess, Visitor};
use toml::Spanned;

use super::model::{
    AccessLog, ConnectionMode, Facility, HashMethod, LogDestination, LogLevel, LogLines, Mode, Network, Observe,
    Password, Reuse, ServerAddress, WhenAllDown,
};
use super::value::{
    Account, Algorithm, BindAddress, CookieValue, FromText, HeaderText, HostHeader, Interface, Name, Number, OnRefused,
    OneOrMany, Realm, RetryOn, SearchedText, SentText, StatusRange, Text, Token, UrlPath,
};
pub(super) use condition::{Condition, NamedTest, Route};
pub(super) use keep_alive::TcpKeepAlive;
pub(super) use persistence::{Cookie, Stick};
pub(super) use rule::{DenyBody, ForwardedFor, HeaderEdits, RateLimit, Redirect, RequestId, Respond, Rewrite, Rule};

/// Tables by name, each with the place of its name.
pub(super) type Named<T> = BTreeMap<Spanned<String>, Table<T>>;

/// A table: serde by itself would take a list of the values, too.
#[derive(Debug, Default)]
pub(super) struct Table<T>(pub(super) T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Table<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TableVisitor(PhantomData))
    }
}

struct TableVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for TableVisitor<T> {
    type Value = Table<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a table")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Table<T>, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map)).map(Table)
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct File {
    pub(super) node: Table<Node>,
    pub(super) process: Table<Process>,
    pub(super) log: Table<Log>,
    pub(super) timeouts: Table<Timeouts>,
    pub(super) errors: Option<Spanned<ErrorFiles>>,
    pub(super) frontends: Named<Frontend>,
    pub(super) backends: Named<Backend>,
    pub(super) vrrp: Named<VirtualRouter>,
    pub(super) peering: Option<Spanned<Table<Peering>>>,
    pub(super) stats: Option<Spanned<Table<Stats>>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Node {
    pub(super) name: Option<Spanned<Text<Name>>>,
    pub(super) control_socket: Option<Spanned<Text<PathBuf>>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Process {
    pub(super) user: Option<Text<Account>>,
    pub(super) group: Option<Text<Account>>,
    pub(super) chroot: Option<Text<PathBuf>>,
    pub(super) threads: Option<Number<1, 256>>,
    pub(super) max_connections: Option<Number<1, 1_000_000>>,
    pub(super) hard_stop_after: Option<Text<Duration>>,
    pub(super) stop_timeout: Option<Text<Duration>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Log {
    pub(super) format: Option<Text<AccessLog>>,
    pub(super) target: Option<Spanned<OneOrMany<TargetEntry>>>,
    pub(super) level: Option<Text<LogLevel>>,
}

/// A target: where it is, or a table that says more.
#[derive(Debug, Clone)]
pub(super) struct TargetEntry(pub(super) Target);

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Target {
    pub(super) to: Option<Text<LogDestination>>,
    pub(super) level: Option<Text<LogLevel>>,
    pub(super) facility: Option<Text<Facility>>,
    pub(super) lines: Option<Text<LogLines>>,
}

impl<'de> Deserialize<'de> for TargetEntry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TargetVisitor)
    }
}

struct TargetVisitor;

impl<'de> Visitor<'de> for TargetVisitor {
    type Value = TargetEntry;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, or a table with such a `to`", LogDestination::ACCEPTED)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<TargetEntry, E> {
        let to = Text::deserialize(text.into_deserializer())?;
        Ok(TargetEntry(Target { to: Some(to), ..Target::default() }))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<TargetEntry, A::Error> {
        Target::deserialize(MapAccessDeserializer::new(map)).map(TargetEntry)
    }
}

/// The defaults of all frontends and backends.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Timeouts {
    pub(super) connect: Option<Text<Duration>>,
    pub(super) client: Option<Text<Duration>>,
    pub(super) server: Option<Text<Duration>>,
    pub(super) http_request: Option<Text<Duration>>,
    pub(super) http_keep_alive: Option<Text<Duration>>,
    pub(super) queue: Option<Text<Duration>>,
    pub(super) tunnel: Option<Text<Duration>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Frontend {
    pub(super) bind: Option<Spanned<OneOrMany<BindEntry>>>,
    pub(super) mode: Option<Text<Mode>>,
    pub(super) default_backend: Option<Spanned<String>>,
    pub(super) forwarded_for: Option<Spanned<ForwardedFor>>,
    pub(super) forwarded: Option<Spanned<bool>>,
    pub(super) forwarded_proto: Option<Spanned<bool>>,
    pub(super) forwarded_host: Option<Spanned<bool>>,
    pub(super) trusted_proxies: Option<Spanned<OneOrMany<Text<Network>>>>,
    pub(super) request_id: Option<Spanned<Table<RequestId>>>,
    pub(super) max_connections: Option<Number<1, 1_000_000>>,
    pub(super) max_connections_per_source: Option<Number<1, 1_000_000>>,
    pub(super) timeouts: Table<ClientTimeouts>,
    pub(super) rules: Vec<Spanned<Table<Rule>>>,
    pub(super) routes: Vec<Spanned<Table<Route>>>,
    pub(super) stats: Option<Spanned<Table<FrontendStats>>>,
    pub(super) capture: Option<Spanned<Table<Capture>>>,
    pub(super) connection: Option<Spanned<Text<ConnectionMode>>>,
    pub(super) tcp_keep_alive: Option<Table<TcpKeepAlive>>,
    pub(super) errors: Option<Spanned<ErrorFiles>>,
}

/// `errors`: files by status.
pub(super) type ErrorFiles = BTreeMap<Spanned<String>, Spanned<Text<PathBuf>>>;

/// `[stats]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Stats {
    pub(super) listen: Option<Spanned<OneOrMany<BindEntry>>>,
    pub(super) users: Users,
}

/// `[frontends.NAME.stats]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct FrontendStats {
    pub(super) path: Option<Spanned<Text<UrlPath>>>,
    pub(super) realm: Option<Text<Realm>>,
    pub(super) users: Users,
}

/// `[frontends.NAME.capture]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Capture {
    pub(super) request: Option<OneOrMany<Text<Token>>>,
    pub(super) response: Option<OneOrMany<Text<Token>>>,
    pub(super) length: Option<Number<1, 8192>>,
}

/// Passwords by name.
pub(super) type Users = BTreeMap<Spanned<String>, Text<Password>>;

/// A bind: an address, or a table that has one.
#[derive(Debug, Clone)]
pub(super) struct BindEntry(pub(super) Option<BindAddress>);

impl<'de> Deserialize<'de> for BindEntry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(BindVisitor)
    }
}

struct BindVisitor;

impl<'de> Visitor<'de> for BindVisitor {
    type Value = BindEntry;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, or a table with such an `address`", BindAddress::ACCEPTED)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<BindEntry, E> {
        Text::deserialize(text.into_deserializer()).map(|address| BindEntry(Some(address.0)))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<BindEntry, E> {
        Text::deserialize(number.into_deserializer()).map(|address| BindEntry(Some(address.0)))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<BindEntry, A::Error> {
        let table = BindTable::deserialize(MapAccessDeserializer::new(map))?;
        Ok(BindEntry(table.address.map(|address| address.0)))
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct BindTable {
    address: Option<Text<BindAddress>>,
}

/// `[frontends.NAME.timeouts]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct ClientTimeouts {
    pub(super) client: Option<Text<Duration>>,
    pub(super) http_request: Option<Spanned<Text<Duration>>>,
    pub(super) http_keep_alive: Option<Spanned<Text<Duration>>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Backend {
    pub(super) balance: Option<Spanned<BalanceEntry>>,
    pub(super) slow_start: Option<Text<Duration>>,
    pub(super) all_backups: Option<bool>,
    pub(super) when_all_down: Option<Text<WhenAllDown>>,
    pub(super) cookie: Option<Spanned<Table<Cookie>>>,
    pub(super) stick: Option<Spanned<Table<Stick>>>,
    pub(super) health: Table<Health>,
    pub(super) agent: Option<Spanned<Table<Agent>>>,
    pub(super) retries: Option<Number<0, 100>>,
    pub(super) redispatch: Option<bool>,
    pub(super) max_queue: Option<Spanned<Number<0, 1_000_000>>>,
    pub(super) retry_on: Option<Spanned<OneOrMany<Text<RetryOn>>>>,
    pub(super) retry_non_idempotent: Option<Spanned<bool>>,
    pub(super) retry_budget: Option<Spanned<Table<RetryBudget>>>,
    pub(super) buffer_request: Option<Spanned<Number<1, 1_048_576>>>,
    pub(super) reuse: Option<Spanned<Text<Reuse>>>,
    pub(super) connection: Option<Spanned<Text<ConnectionMode>>>,
    pub(super) tcp_keep_alive: Option<Table<TcpKeepAlive>>,
    pub(super) errors: Option<Spanned<ErrorFiles>>,
    pub(super) timeouts: Table<ServerTimeouts>,
    pub(super) servers: Vec<Spanned<Table<Server>>>,
}

/// An algorithm, or a table that has one.
#[derive(Debug)]
pub(super) struct BalanceEntry(pub(super) BalanceTable);

impl BalanceEntry {
    /// What mode `"tcp"` does not have.
    pub(super) fn needs_a_request(&self) -> bool {
        let algorithm = self.0.algorithm.as_ref().map(|algorithm| algorithm.0);
        matches!(algorithm, Some(Algorithm::Uri | Algorithm::Header | Algorithm::Parameter))
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct BalanceTable {
    pub(super) algorithm: Option<Text<Algorithm>>,
    pub(super) hash: Option<Spanned<Text<HashMethod>>>,
    pub(super) draws: Option<Spanned<Number<1, 16>>>,
    pub(super) whole: Option<Spanned<bool>>,
    pub(super) length: Option<Spanned<Number<1, 65536>>>,
    pub(super) depth: Option<Spanned<Number<1, 1000>>>,
    pub(super) name: Option<Spanned<Text<Token>>>,
}

impl<'de> Deserialize<'de> for BalanceEntry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(BalanceVisitor)
    }
}

struct BalanceVisitor;

impl<'de> Visitor<'de> for BalanceVisitor {
    type Value = BalanceEntry;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, or a table with such an `algorithm`", Algorithm::ACCEPTED)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<BalanceEntry, E> {
        let algorithm = Text::deserialize(text.into_deserializer())?;
        Ok(BalanceEntry(BalanceTable { algorithm: Some(algorithm), ..BalanceTable::default() }))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<BalanceEntry, A::Error> {
        BalanceTable::deserialize(MapAccessDeserializer::new(map)).map(BalanceEntry)
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Health {
    pub(super) method: Option<Text<Token>>,
    pub(super) path: Option<Text<UrlPath>>,
    pub(super) host: Option<Text<HostHeader>>,
    pub(super) headers: Option<Table<CheckHeaders>>,
    pub(super) expect: Option<Spanned<Expect>>,
    pub(super) expect_body: Option<Spanned<Text<SearchedText>>>,
    pub(super) port: Option<Number<1, 65535>>,
    pub(super) interval: Option<Text<Duration>>,
    pub(super) fast_interval: Option<Text<Duration>>,
    pub(super) down_interval: Option<Text<Duration>>,
    pub(super) spread: Option<Number<0, 50>>,
    pub(super) timeout: Option<Text<Duration>>,
    pub(super) rise: Option<Number<1, 1000>>,
    pub(super) fall: Option<Number<1, 1000>>,
    pub(super) observe: Option<Spanned<Text<Observe>>>,
    pub(super) error_limit: Option<Spanned<Number<1, 1_000_000>>>,
    pub(super) on_refused: Option<Text<OnRefused>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Agent {
    pub(super) port: Option<Number<1, 65535>>,
    pub(super) interval: Option<Text<Duration>>,
    pub(super) send: Option<Text<SentText>>,
}

/// `health.headers`
pub(super) type CheckHeaders = BTreeMap<Spanned<String>, Text<HeaderText>>;

/// `health.expect`
pub(super) type Expect = OneOrMany<Text<StatusRange>>;

/// `retry_budget`
#[derive(Debug, Default, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RetryBudget {
    pub(super) percent: Option<Number<0, 1000>>,
    pub(super) min_per_second: Option<Number<0, 1_000_000>>,
}

/// `[backends.NAME.timeouts]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct ServerTimeouts {
    pub(super) connect: Option<Text<Duration>>,
    pub(super) server: Option<Text<Duration>>,
    pub(super) queue: Option<Text<Duration>>,
    pub(super) tunnel: Option<Text<Duration>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Server {
    pub(super) name: Option<Spanned<Text<Name>>>,
    pub(super) address: Option<Text<ServerAddress>>,
    pub(super) weight: Option<Number<0, 256>>,
    pub(super) max_connections: Option<Number<1, 1_000_000>>,
    pub(super) max_queue: Option<Spanned<Number<0, 1_000_000>>>,
    pub(super) cookie: Option<Spanned<Text<CookieValue>>>,
    pub(super) backup: Option<bool>,
    pub(super) check: Option<bool>,
    pub(super) check_address: Option<Spanned<Text<IpAddr>>>,
    pub(super) check_port: Option<Number<1, 65535>>,
    pub(super) source: Option<Spanned<Text<IpAddr>>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct VirtualRouter {
    pub(super) interface: Option<Text<Interface>>,
    pub(super) virtual_router_id: Option<Spanned<Number<1, 255>>>,
    pub(super) priority: Option<Number<1, 255>>,
    pub(super) addresses: Option<Spanned<OneOrMany<Text<VirtualAddress>>>>,
    pub(super) advertisement_interval: Option<Spanned<Text<Duration>>>,
    pub(super) preempt: Option<bool>,
    pub(super) unicast_peers: Option<Spanned<OneOrMany<Text<Ipv4Addr>>>>,
    pub(super) obey_other_addresses: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Peering {
    pub(super) listen: Option<Spanned<Text<SocketAddr>>>,
    pub(super) key_file: Option<Text<PathBuf>>,
    pub(super) peers: BTreeMap<Spanned<String>, Spanned<Text<SocketAddr>>>,
}
