//! Addresses of the configuration that this host should have and does not: nobody reaches what listens there, and nothing can be
//! sent from there. They may still come, so that this is no reason not to start; it is said, once, and shown while it is so.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::{IpAddr, UdpSocket};

use tokio::task::{JoinHandle, spawn_blocking};

use crate::config::model::Config;

/// What is wrong now.
#[derive(Default)]
pub(super) struct Foreign {
    looking: Option<JoinHandle<BTreeSet<String>>>,
    /// A sentence each.
    found: BTreeSet<String>,
}

impl Foreign {
    /// Looks, on a thread that has the time, unless it looks already.
    pub(super) fn look(&mut self, config: &Config) {
        let expected = expected(config);
        if self.looking.is_none() && !(expected.is_empty() && self.found.is_empty()) {
            self.looking = Some(spawn_blocking(move || missing(expected, is_here)));
        }
    }

    /// What was found, once it was looked. Cancel-safe.
    pub(super) async fn looked(&mut self) -> BTreeSet<String> {
        let Some(looking) = &mut self.looking else { return std::future::pending().await };
        let found = looking.await.unwrap_or_default();
        self.looking = None;
        found
    }

    /// Says what is new. Has anything changed?
    pub(super) fn found(&mut self, found: BTreeSet<String>) -> bool {
        for sentence in found.difference(&self.found) {
            tracing::warn!("{sentence}");
        }
        for sentence in self.found.difference(&found) {
            tracing::info!("no longer so: {sentence}");
        }
        let changed = self.found != found;
        self.found = found;
        changed
    }

    /// For `relevo status`.
    pub(super) fn sentences(&self) -> Vec<String> {
        self.found.iter().cloned().collect()
    }
}

/// Which addresses have to be the host's own, and what for. The virtual ones come and go.
fn expected(config: &Config) -> Vec<(IpAddr, String)> {
    let mut expected = Vec::new();
    for frontend in &config.balancer.frontends {
        let name = &frontend.name;
        expected.extend(
            frontend
                .binds
                .iter()
                .map(|bind| (bind.address.ip(), format!("nobody reaches frontend {name:?} at {}", bind.address))),
        );
    }
    let peering = config.peering.as_ref().map(|peering| peering.listen);
    expected.extend(peering.map(|listen| (listen.ip(), format!("no peer reaches peering.listen at {listen}"))));
    for backend in &config.balancer.backends {
        for server in &backend.servers {
            let place = format!("{}/{}", backend.name, server.name);
            expected
                .extend(server.source.map(|source| (source, format!("server {place} cannot be asked from {source}"))));
        }
    }
    let is_virtual = |address: &IpAddr| {
        let addresses = config.virtual_routers.iter().flat_map(|router| &router.addresses);
        addresses.into_iter().any(|it| IpAddr::V4(it.address) == *address)
    };
    expected.retain(|(address, _)| !address.is_unspecified() && !is_virtual(address));
    expected
}

fn missing(expected: Vec<(IpAddr, String)>, is_here: impl Fn(IpAddr) -> bool) -> BTreeSet<String> {
    let sentence = |(address, what)| format!("{what}: {address} is neither an address of this host nor a virtual one");
    expected.into_iter().filter(|(address, _)| !is_here(*address)).map(sentence).collect()
}

/// The kernel lets a socket have the addresses of the host alone, unless `ip_nonlocal_bind` says otherwise. Only that there is no
/// such address counts.
fn is_here(address: IpAddr) -> bool {
    !UdpSocket::bind((address, 0)).is_err_and(|error| error.kind() == ErrorKind::AddrNotAvailable)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Machine, parse_for};

    #[test]
    fn neither_a_virtual_address_nor_the_wildcard_has_to_be_here() {
        let text = "[frontends.f]\nbind = ['*:81', '192.0.2.1:80', '192.0.2.10:80', '[2001:db8::1]:80']\n\
                    default_backend = 'b'\n[stats]\nlisten = '192.0.2.3:8404'\nusers = { admin = 'secret' }\n\
                    [backends.b]\nservers = [{ name = 's', address = '192.0.2.9:80', source = '192.0.2.4' }]\n\
                    [vrrp.main]\ninterface = 'eth0'\nvirtual_router_id = 7\npriority = 100\naddresses = ['192.0.2.10/24']\n\
                    [peering]\nlisten = '192.0.2.5:8650'\nkey_file = '/k'\npeers = { lb2 = '192.0.2.6:8650' }\n";
        let machine = Machine { host_name: "lb1".to_owned(), cores: 1, ..Machine::this() };
        let config = parse_for(text, "test", &machine).unwrap();
        let found: Vec<_> =
            missing(expected(&config), |address| address.to_string() == "192.0.2.1").into_iter().collect();
        let neither = |what: &str, address: &str| {
            format!("{what}: {address} is neither an address of this host nor a virtual one")
        };
        assert_eq!(
            found,
            [
                neither("no peer reaches peering.listen at 192.0.2.5:8650", "192.0.2.5"),
                neither("nobody reaches frontend \"f\" at [2001:db8::1]:80", "2001:db8::1"),
                neither("nobody reaches frontend \"stats\" at 192.0.2.3:8404", "192.0.2.3"),
                neither("server b/s cannot be asked from 192.0.2.4", "192.0.2.4"),
            ]
        );
    }
}
