//! Names of servers to addresses, again as their time to live runs out.
//!
//! The texts of resolv.conf and hosts are handed in: the process sees no file system. A name that does not resolve yet is a
//! server that is down; an error later changes nothing, the last known address stays. But a server without checks ends with its
//! name: nothing else would ever tell that it is gone.

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ResolveHosts, ResolverConfig, ResolverOpts};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::rr::RecordType;
use hickory_resolver::system_conf::parse_resolv_conf;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tracing::{info, warn};

use crate::balancer::lack::is_ours;
use crate::balancer::state::{Health, NOT_CHECKED, Place, Shared};
use crate::config::model::{BackendIndex, Server, ServerAddress};

/// Resolve every server's name, on the control thread; never ends. `resolv_conf` and `hosts` are those files' texts.
pub async fn watch(shared: Arc<Shared>, resolv_conf: String, hosts: String) {
    let named = |server: &Server| matches!(server.address, ServerAddress::Name { .. });
    if shared.config.backends.iter().any(|backend| backend.servers.iter().any(named)) {
        let dns = parse_resolv_conf(&resolv_conf).and_then(|(config, options)| dns(config, options));
        let dns = dns.inspect_err(|error| {
            warn!(%error, "names of servers are looked up in /etc/hosts alone: no name server in /etc/resolv.conf is usable: {error}");
        });
        keep_resolving(shared, Names { hosts: parse_hosts(&hosts), dns: dns.ok() }, PACE).await;
    }
    std::future::pending().await
}

/// How often a name is asked for.
#[derive(Clone, Copy)]
struct Pace {
    /// An answer's time to live counts between these.
    time_to_live: (Duration, Duration),
    /// After a failure; each further failure doubles it up to the second.
    retry: (Duration, Duration),
    /// A name that has not been there for so long is gone.
    gone: Duration,
}

const PACE: Pace = Pace {
    time_to_live: (Duration::from_secs(1), Duration::from_secs(300)),
    retry: (Duration::from_secs(1), Duration::from_secs(30)),
    // HAProxy's `hold nx`.
    gone: Duration::from_secs(30),
};

async fn keep_resolving(shared: Arc<Shared>, names: Names, pace: Pace) {
    let names = Arc::new(names);
    let mut tasks = JoinSet::new();
    for (backend, config) in shared.config.backends.iter().enumerate() {
        for (server, _) in config.servers.iter().enumerate() {
            tasks.spawn(keep_resolving_server(shared.clone(), names.clone(), pace, BackendIndex(backend), server));
        }
    }
    while tasks.join_next().await.is_some() {}
}

/// Until the process ends, or at once if the server has no name.
async fn keep_resolving_server(
    shared: Arc<Shared>,
    names: Arc<Names>,
    pace: Pace,
    backend: BackendIndex,
    index: usize,
) {
    let Some(Place { server, state, .. }) = shared.server(backend, index) else { return };
    let ServerAddress::Name { host, port } = &server.address else { return };

    let mut failures: u32 = 0;
    // Since when the name servers have said that there is no such name.
    let mut missing_since: Option<Instant> = None;
    loop {
        let known = state.address.load_full();
        let pause = match names.look_up(host).await {
            Ok(answer) => {
                if failures > 0 && known.is_some() {
                    info!(host, "{host} resolves again");
                }
                failures = 0;
                missing_since = None;
                let address = SocketAddr::new(answer.choose(known.as_deref().map(SocketAddr::ip)), *port);
                if known.as_deref() != Some(&address) {
                    move_to(&shared, backend, index, address);
                }
                answer.time_to_live.clamp(pace.time_to_live.0, pace.time_to_live.1)
            }
            Err(failure) => {
                let since = matches!(failure, Failure::NoSuchName).then(|| missing_since.unwrap_or_else(Instant::now));
                missing_since = since;
                let is_gone = since.is_some_and(|since| since.elapsed() >= pace.gone) && !server.check;
                match known {
                    Some(_) if is_gone => {
                        state.address.store(None);
                        let reason = format!("its name {host} is gone: {failure} for {} s", pace.gone.as_secs());
                        shared.set_health(backend, index, Health::Down, &reason);
                    }
                    None if failure.is_ours() => {
                        shared.not_checked(backend, index, &format!("its name {host} cannot be asked for: {failure}"));
                    }
                    None => {
                        let reason = format!("its name {host} does not resolve: {failure}");
                        shared.set_health(backend, index, Health::Down, &reason);
                    }
                    Some(known) if failures == 0 => {
                        warn!(host, "{host} no longer resolves ({failure}): {known} is kept");
                    }
                    Some(_) => {}
                }
                failures = failures.saturating_add(1);
                pace.retry.0.saturating_mul(1 << (failures - 1).min(16)).min(pace.retry.1)
            }
        };
        sleep(pause).await;
    }
}

/// A checked server has to prove itself at its new address; the checks are told and begin at once.
fn move_to(shared: &Shared, backend: BackendIndex, index: usize, address: SocketAddr) {
    let Some(Place { backend: config, server, state, .. }) = shared.server(backend, index) else { return };

    state.address.store(Some(Arc::new(address)));
    let found = format!("{} is now {address}", server.address);
    let (after, reason) = match server.check {
        true => (Health::Starting, found),
        false => (Health::Up, format!("{NOT_CHECKED}; {found}")),
    };
    if !shared.set_health(backend, index, after, &reason) {
        info!("server {}/{}: {reason}", config.name, server.name);
    }
    state.address_changed.notify_one();
}

/// Where names are looked up: hosts first, then DNS if there is a name server.
struct Names {
    hosts: HashMap<String, Vec<IpAddr>>,
    dns: Option<TokioResolver>,
}

/// At least one address.
struct Answer {
    first: IpAddr,
    others: Vec<IpAddr>,
    time_to_live: Duration,
}

impl Answer {
    fn new(addresses: impl IntoIterator<Item = IpAddr>, time_to_live: Duration) -> Option<Self> {
        let mut addresses = addresses.into_iter();
        Some(Self { first: addresses.next()?, others: addresses.collect(), time_to_live })
    }

    /// The one in use while it is among them: name servers like to turn their answers around.
    fn choose(&self, in_use: Option<IpAddr>) -> IpAddr {
        in_use.filter(|address| self.others.contains(address)).unwrap_or(self.first)
    }
}

/// Why a name has no address.
enum Failure {
    NoSuchName,
    NoAddress,
    NoNameServer,
    Dns(NetError),
}

impl Failure {
    /// It is this node that cannot ask.
    fn is_ours(&self) -> bool {
        matches!(self, Self::Dns(NetError::Io(error)) if is_ours(error))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSuchName => f.write_str("NXDOMAIN, there is no such name"),
            Self::NoAddress => f.write_str("the name has no address"),
            Self::NoNameServer => f.write_str("it is not in /etc/hosts, and /etc/resolv.conf names no server to ask"),
            Self::Dns(NetError::Dns(DnsError::ResponseCode(code))) => write!(f, "the name server answered {code}"),
            Self::Dns(NetError::Timeout) => f.write_str("no answer from the name servers"),
            Self::Dns(error) => error.fmt(f),
        }
    }
}

impl Names {
    async fn look_up(&self, host: &str) -> Result<Answer, Failure> {
        let name = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
        let local = self.hosts.get(&name).cloned().unwrap_or_default();
        if let Some(answer) = Answer::new(local, Duration::MAX) {
            return Ok(answer);
        }
        let dns = self.dns.as_ref().ok_or(Failure::NoNameServer)?;
        // IPv6 only where there is no IPv4: an error in between must not move a server to its other address.
        match ask(dns, host, RecordType::A).await {
            Err(Failure::NoAddress) => ask(dns, host, RecordType::AAAA).await,
            answer => answer,
        }
    }
}

async fn ask(dns: &TokioResolver, host: &str, record_type: RecordType) -> Result<Answer, Failure> {
    let lookup = match dns.lookup(host, record_type).await {
        Ok(lookup) => lookup,
        Err(error) if error.is_nx_domain() => return Err(Failure::NoSuchName),
        Err(error) if error.is_no_records_found() => return Err(Failure::NoAddress),
        Err(error) => return Err(Failure::Dns(error)),
    };
    let time_to_live = lookup.valid_until().saturating_duration_since(Instant::now());
    let addresses = lookup.answers().iter().filter_map(|record| record.data.ip_addr());
    Answer::new(addresses, time_to_live).ok_or(Failure::NoAddress)
}

/// Asks every time: when is ours to decide, so nothing is cached, least of all that there is no such name.
fn dns(config: ResolverConfig, mut options: ResolverOpts) -> Result<TokioResolver, NetError> {
    options.cache_size = 0;
    options.use_hosts_file = ResolveHosts::Never;
    let builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
    builder.with_options(options).build()
}

/// hosts(5). Loopback is known even where the file is missing (RFC 6761 §6.3).
fn parse_hosts(text: &str) -> HashMap<String, Vec<IpAddr>> {
    let mut hosts = HashMap::<String, Vec<IpAddr>>::new();
    for line in text.lines() {
        let mut words = line.split('#').next().unwrap_or_default().split_whitespace();
        let Some(address) = words.next().and_then(|word| word.parse().ok()) else { continue };
        for name in words {
            hosts.entry(name.to_ascii_lowercase()).or_default().push(address);
        }
    }
    hosts.entry("localhost".to_owned()).or_insert_with(|| vec![Ipv4Addr::LOCALHOST.into()]);
    hosts
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::AtomicUsize;
    use std::sync::atomic::Ordering::SeqCst;

    use hickory_resolver::config::{ConnectionConfig, NameServerConfig};
    use hickory_resolver::proto::op::{Message, MessageType, ResponseCode};
    use hickory_resolver::proto::rr::{RData, Record};
    use tokio::net::UdpSocket;

    use super::*;
    use crate::balancer::state::tests::{one_backend, server, states, until};
    use crate::config::model::Balance;
    use crate::status::ServerState;

    const FAST: Pace = Pace {
        time_to_live: (Duration::from_millis(5), Duration::from_millis(5)),
        retry: (Duration::from_millis(5), Duration::from_millis(10)),
        gone: Duration::from_millis(200),
    };

    /// What a name server says of any name.
    #[derive(Clone)]
    enum Says {
        Addresses(Vec<IpAddr>),
        Error(ResponseCode),
        Garbage,
        Nothing,
    }

    /// What it says now, and how often it was asked.
    struct Zone {
        answer: Mutex<Says>,
        asked: AtomicUsize,
    }

    impl Zone {
        fn new(answer: Says) -> Arc<Self> {
            Arc::new(Self { answer: Mutex::new(answer), asked: AtomicUsize::new(0) })
        }

        fn set(&self, answer: Says) {
            *self.answer.lock().unwrap() = answer;
        }

        /// Until the present answer was given in several look-ups (of up to three questions each).
        async fn asked_again(&self) {
            let before = self.asked.load(SeqCst);
            until(|| self.asked.load(SeqCst) >= before + 8).await;
        }
    }

    /// A name server on loopback, and names looked up there.
    async fn name_server(zone: Arc<Zone>) -> Names {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let mut connection = ConnectionConfig::udp();
        connection.port = socket.local_addr().unwrap().port();
        tokio::spawn(async move {
            let mut buffer = [0; 512];
            while let Ok((length, client)) = socket.recv_from(&mut buffer).await {
                let question = Message::from_vec(&buffer[..length]).unwrap();
                zone.asked.fetch_add(1, SeqCst);
                let says = zone.answer.lock().unwrap().clone();
                let answer = match says {
                    Says::Addresses(addresses) => answer(&question, Ok(addresses)),
                    Says::Error(code) => answer(&question, Err(code)),
                    Says::Garbage => b"\0SSH-2.0-OpenSSH_9.2".to_vec(),
                    Says::Nothing => continue,
                };
                socket.send_to(&answer, client).await.unwrap();
            }
        });
        let server = NameServerConfig::new(Ipv4Addr::LOCALHOST.into(), true, vec![connection]);
        let config = ResolverConfig::from_parts(None, Vec::new(), vec![server]);
        let mut options = ResolverOpts::default();
        (options.timeout, options.attempts) = (Duration::from_millis(50), 1);
        Names { hosts: parse_hosts(""), dns: Some(dns(config, options).unwrap()) }
    }

    fn answer(question: &Message, known: Result<Vec<IpAddr>, ResponseCode>) -> Vec<u8> {
        let mut answer = question.clone();
        answer.metadata.message_type = MessageType::Response;
        let query = question.queries[0].clone();
        match known {
            Err(code) => answer.metadata.response_code = code,
            Ok(addresses) => {
                let records = addresses
                    .into_iter()
                    .map(|address| Record::from_rdata(query.name().clone(), 60, RData::from(address)));
                answer.answers.extend(records.filter(|record| record.record_type() == query.query_type()));
            }
        }
        answer.to_vec().unwrap()
    }

    fn shared(check: bool) -> Arc<Shared> {
        let address = ServerAddress::Name { host: "web.example".into(), port: 80 };
        Shared::new(one_backend(Balance::RoundRobin, vec![Server { address, check, ..server("web", 1) }]))
    }

    fn address(shared: &Shared) -> Option<String> {
        shared.backends[0].servers[0].address.load_full().map(|address| address.to_string())
    }

    #[tokio::test]
    async fn a_name_that_does_not_resolve_is_a_server_that_is_down_until_it_does() {
        let zone = Zone::new(Says::Error(ResponseCode::NXDomain));
        let shared = shared(true);
        tokio::spawn(keep_resolving(shared.clone(), name_server(zone.clone()).await, FAST));

        let down = |cause: &str| {
            let reason = format!("its name web.example does not resolve: {cause}");
            let shared = shared.clone();
            async move { until(|| states(&shared)[0] == (ServerState::Down, reason.clone())).await }
        };
        down("NXDOMAIN, there is no such name").await;
        zone.set(Says::Error(ResponseCode::ServFail));
        down("the name server answered Server Failure").await;
        zone.set(Says::Addresses(vec![]));
        down("the name has no address").await;
        assert_eq!(address(&shared), None);

        zone.set(Says::Addresses(vec!["2001:db8::1".parse().unwrap()]));
        until(|| address(&shared).as_deref() == Some("[2001:db8::1]:80")).await;
        let unproven = (ServerState::Starting, "web.example:80 is now [2001:db8::1]:80".to_owned());
        assert_eq!(states(&shared)[0], unproven);
    }

    #[tokio::test]
    async fn the_address_follows_the_name_and_outlives_errors() {
        let addresses = |list: &[&str]| Says::Addresses(list.iter().map(|address| address.parse().unwrap()).collect());
        let zone = Zone::new(addresses(&["192.0.2.1", "2001:db8::1"]));
        let shared = shared(true);
        let changed = || shared.backends[0].servers[0].address_changed.notified();
        tokio::spawn(keep_resolving(shared.clone(), name_server(zone.clone()).await, FAST));
        changed().await;
        assert_eq!(address(&shared).as_deref(), Some("192.0.2.1:80"));
        shared.set_health(BackendIndex(0), 0, Health::Up, "connection accepted");

        // Turned around, no longer there, or nothing that could be understood: nothing changes.
        let error = Says::Error;
        let turned = addresses(&["192.0.2.2", "192.0.2.1"]);
        let errors = [error(ResponseCode::NXDomain), error(ResponseCode::ServFail), Says::Garbage, Says::Nothing];
        for still in [turned].into_iter().chain(errors) {
            zone.set(still);
            zone.asked_again().await;
            assert_eq!(address(&shared).as_deref(), Some("192.0.2.1:80"));
            assert_eq!(states(&shared)[0].0, ServerState::Up);
        }

        zone.set(addresses(&["192.0.2.2"]));
        changed().await;
        assert_eq!(address(&shared).as_deref(), Some("192.0.2.2:80"));
        let unproven = (ServerState::Starting, "web.example:80 is now 192.0.2.2:80".to_owned());
        assert_eq!(states(&shared)[0], unproven);
    }

    /// With checks these say what becomes of it.
    #[tokio::test]
    async fn a_server_without_checks_ends_with_its_name_and_comes_back_with_it() {
        let addresses = || Says::Addresses(vec!["192.0.2.1".parse().unwrap()]);
        let zone = Zone::new(addresses());
        let shared = shared(false);
        tokio::spawn(keep_resolving(shared.clone(), name_server(zone.clone()).await, FAST));
        until(|| states(&shared)[0].0 == ServerState::Up).await;
        // That nobody answers says nothing of the name.
        zone.set(Says::Error(ResponseCode::ServFail));
        tokio::time::sleep(2 * FAST.gone).await;
        assert_eq!(states(&shared)[0].0, ServerState::Up);
        zone.set(Says::Error(ResponseCode::NXDomain));
        zone.asked_again().await;
        assert_eq!(states(&shared)[0].0, ServerState::Up, "it may be a mistake that is mended in a moment");
        until(|| states(&shared)[0].0 == ServerState::Down).await;
        assert_eq!(address(&shared), None);
        zone.set(addresses());
        until(|| states(&shared)[0].0 == ServerState::Up).await;
        assert_eq!(address(&shared).as_deref(), Some("192.0.2.1:80"));
    }

    #[tokio::test]
    async fn hosts_are_enough_and_a_server_without_checks_is_up_with_its_address() {
        let hosts = "# comment\n\n192.0.2.7\tWEB.example web # another\nnonsense web.example\n";
        for resolv_conf in ["", "search example\n", "nonsense", "nameserver 300.1.1.1"] {
            let shared = shared(false);
            let watching = tokio::spawn(watch(shared.clone(), resolv_conf.to_owned(), hosts.to_owned()));
            until(|| states(&shared)[0].0 == ServerState::Up).await;
            assert_eq!(address(&shared).as_deref(), Some("192.0.2.7:80"));
            assert_eq!(states(&shared)[0].1, "not checked; web.example:80 is now 192.0.2.7:80");
            watching.abort();
        }

        let shared = shared(true);
        tokio::spawn(watch(shared.clone(), String::new(), String::new()));
        until(|| states(&shared)[0].0 == ServerState::Down).await;
        let reason = "its name web.example does not resolve: it is not in /etc/hosts, and /etc/resolv.conf names no server to ask";
        assert_eq!(states(&shared)[0].1, reason);
    }

    #[tokio::test]
    async fn loopback_is_known_without_a_file() {
        for (text, expected) in [("", "127.0.0.1"), ("::1 localhost", "::1"), ("127.0.0.9 LocalHost", "127.0.0.9")] {
            let names = Names { hosts: parse_hosts(text), dns: None };
            let answer = names.look_up("localhost.").await.map_err(|failure| failure.to_string()).unwrap();
            assert_eq!(answer.choose(None).to_string(), expected);
        }
    }
}
