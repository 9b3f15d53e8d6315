//! Addresses and host names.

use std::fmt::Display;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use relevo_ha::VirtualAddress;

use super::text::authority;
use super::{FromText, Hint};
use crate::config::model::ServerAddress;

/// Where a frontend listens.
#[derive(Debug, Clone, Copy)]
pub(in crate::config) struct BindAddress(pub(in crate::config) SocketAddr);

impl FromText for BindAddress {
    const ACCEPTED: &'static str =
        "an address with its port, such as \"*:80\" (every IPv4 address), \"192.0.2.1:80\" or \"[::]:80\"";

    fn from_text(text: &str) -> Result<Self, Hint> {
        let parse = |text: &str| match text.strip_prefix("*:") {
            Some(port) => port.parse().ok().map(|port| SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))),
            None => text.parse::<SocketAddr>().ok(),
        };
        if let Some(address) = parse(text) {
            if let Some(hint) = mapped(address) {
                return Err(Some(hint));
            }
            return if address.port() == 0 { Err(Some(PORT.to_owned())) } else { Ok(BindAddress(address)) };
        }
        if let Ok(address) = text.parse() {
            return Err(Some(port_is_missing(SocketAddr::new(address, 80))));
        }
        let port = text.strip_prefix(':').unwrap_or(text);
        if port.parse::<u16>().is_ok_and(|port| port > 0) {
            return Err(Some(format!("did you mean \"*:{port}\"?")));
        }
        Err(None)
    }
}

/// An IPv4 address in IPv6's clothes (RFC 4291 §2.5.5.2) means what the plain one does, and is another one wherever addresses are
/// compared or bound.
fn mapped(address: SocketAddr) -> Option<String> {
    let IpAddr::V6(written) = address.ip() else { return None };
    let plain = written.to_ipv4_mapped()?;
    Some(format!("write \"{}\"", SocketAddr::from((plain, address.port()))))
}

const PORT: &str = "the port is a number from 1 to 65535";

fn port_is_missing(whole: impl Display) -> String {
    format!("the port is missing: write \"{whole}\"")
}

impl FromText for SocketAddr {
    const ACCEPTED: &'static str = "an IP address with its port, such as \"192.0.2.1:8650\" or \"[2001:db8::1]:8650\"";

    fn from_text(text: &str) -> Result<Self, Hint> {
        match text.parse::<SocketAddr>() {
            Ok(address) if address.port() == 0 => Err(Some(PORT.to_owned())),
            Ok(address) => mapped(address).map_or(Ok(address), |hint| Err(Some(hint))),
            Err(_) => Err(text.parse().ok().map(|address| port_is_missing(SocketAddr::new(address, 8650)))),
        }
    }
}

impl FromText for IpAddr {
    const ACCEPTED: &'static str = "an IP address without port, such as \"192.0.2.1\"";

    fn from_text(text: &str) -> Result<Self, Hint> {
        let without_port =
            |_| text.parse::<SocketAddr>().ok().map(|address| format!("did you mean \"{}\"?", address.ip()));
        text.parse::<IpAddr>().map_err(without_port)
    }
}

impl FromText for Ipv4Addr {
    const ACCEPTED: &'static str = "an IPv4 address, such as \"192.0.2.1\"";

    fn from_text(text: &str) -> Result<Self, Hint> {
        match text.parse::<IpAddr>() {
            Ok(IpAddr::V4(address)) if !is_unicast(address) => Err(Some(NOT_UNICAST.to_owned())),
            Ok(IpAddr::V4(address)) => Ok(address),
            Ok(IpAddr::V6(_)) => Err(Some(NO_IPV6.to_owned())),
            Err(_) => Err(None),
        }
    }
}

const NO_IPV6: &str = "IPv6 is not supported in this version";
const NOT_UNICAST: &str = "it must be the address of one host";

fn is_unicast(address: Ipv4Addr) -> bool {
    !(address.is_unspecified() || address.is_multicast() || address.is_broadcast() || address.is_loopback())
}

/// The first address of a network or the last (RFC 1122 §3.2.1.3).
fn is_of_no_host(address: Ipv4Addr, prefix_length: u8) -> bool {
    let hosts = u32::MAX >> prefix_length;
    [0, hosts].contains(&(address.to_bits() & hosts))
}

impl FromText for VirtualAddress {
    const ACCEPTED: &'static str = "an address with the prefix length of its network, such as \"192.0.2.20/24\"";

    fn from_text(text: &str) -> Result<Self, Hint> {
        let (address, prefix_length) = text.split_once('/').map_or((text, None), |(a, length)| (a, Some(length)));
        let Ok(address) = address.parse::<IpAddr>() else { return Err(None) };
        let IpAddr::V4(address) = address else { return Err(Some(NO_IPV6.to_owned())) };
        let Some(prefix_length) = prefix_length else {
            return Err(Some(format!("the prefix length is missing: write \"{address}/24\" if its network is a /24")));
        };
        match prefix_length.parse() {
            Ok(1..) if !is_unicast(address) => Err(Some(NOT_UNICAST.to_owned())),
            // A /31 has no other addresses (RFC 3021), nor has a /32.
            Ok(prefix_length @ 1..=30) if is_of_no_host(address, prefix_length) => Err(Some(format!(
                "{NOT_UNICAST}: in a /{prefix_length} it stands for the network, or for all of its hosts"
            ))),
            Ok(prefix_length @ 1..=32) => Ok(VirtualAddress { address, prefix_length }),
            _ => Err(Some("the prefix length is a number from 1 to 32".to_owned())),
        }
    }
}

impl FromText for ServerAddress {
    const ACCEPTED: &'static str = "an address or a host name with its port, such as \"192.0.2.21:80\", \"[2001:db8::21]:80\" or \"app.example:80\"";

    fn from_text(text: &str) -> Result<Self, Hint> {
        if let Ok(address) = text.parse::<SocketAddr>() {
            return match mapped(address) {
                Some(hint) => Err(Some(hint)),
                None if address.port() == 0 => Err(Some(PORT.to_owned())),
                None => Ok(ServerAddress::Socket(address)),
            };
        }
        if let Ok(address) = text.parse() {
            return Err(Some(port_is_missing(SocketAddr::new(address, 80))));
        }
        if text.contains('/') {
            let authority = authority(text);
            return Err(
                Self::from_text(authority).map_or_else(|hint| hint, |_| Some(format!("did you mean \"{authority}\"?")))
            );
        }
        let Some((host, port)) = text.rsplit_once(':') else {
            return Err(is_host_name(text).then(|| port_is_missing(format_args!("{text}:80"))));
        };
        let port = match port.parse() {
            Ok(port @ 1..) => port,
            _ => return Err(Some(PORT.to_owned())),
        };
        if !is_host_name(host) {
            return Err(None);
        }
        Ok(ServerAddress::Name { host: host.to_owned(), port })
    }
}

/// RFC 1123 §2.1, and underscores, which people use. A last label of digits is an IPv4 address gone wrong.
pub(super) fn is_host_name(text: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    let name = text.strip_suffix('.').unwrap_or(text);
    let last_is_number = name.rsplit('.').next().is_some_and(|last| last.bytes().all(|byte| byte.is_ascii_digit()));
    name.len() <= 253 && name.split('.').all(is_label) && !last_is_number
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_names_are_not_misspelt_addresses() {
        for name in ["a", "app.example.com", "app.example.com.", "app_1", "4you.example", "xn--caf-dma.example"] {
            assert!(is_host_name(name), "{name}");
        }
        for name in ["", ".", "a..b", "-a", "a-", "a b", "192.168.1.300", "1.2.3", "café", "a/b"] {
            assert!(!is_host_name(name), "{name}");
        }
    }

    #[test]
    fn a_missing_port_is_said_with_how_to_write_it() {
        let hints = |text| {
            let bind = BindAddress::from_text(text).unwrap_err();
            [bind, SocketAddr::from_text(text).unwrap_err(), ServerAddress::from_text(text).unwrap_err()]
        };
        let missing = |whole: &str| Some(format!("the port is missing: write \"{whole}\""));
        let (at_80, at_8650) = (missing("192.168.1.21:80"), missing("192.168.1.21:8650"));
        assert_eq!(hints("192.168.1.21"), [at_80.clone(), at_8650, at_80]);
        let (at_80, at_8650) = (missing("[2001:db8::21]:80"), missing("[2001:db8::21]:8650"));
        assert_eq!(hints("2001:db8::21"), [at_80.clone(), at_8650, at_80]);
        assert_eq!(ServerAddress::from_text("app.example").unwrap_err(), missing("app.example:80"));
    }

    #[test]
    fn an_ipv4_address_is_written_as_one() {
        let hint = Some("write \"127.0.0.1:8080\"".to_owned());
        let mapped = "[::ffff:127.0.0.1]:8080";
        assert_eq!(BindAddress::from_text(mapped).unwrap_err(), hint);
        assert_eq!(SocketAddr::from_text(mapped).unwrap_err(), hint);
        assert_eq!(ServerAddress::from_text(mapped).unwrap_err(), hint);
        assert!(BindAddress::from_text("[::1]:8080").is_ok());
    }

    #[test]
    fn a_wildcard_is_every_ipv4_address() {
        let bind = |text| BindAddress::from_text(text).map(|bind| bind.0.to_string());
        assert_eq!(bind("*:80").as_deref(), Ok("0.0.0.0:80"));
        assert_eq!(bind("[::]:80").as_deref(), Ok("[::]:80"));
        for wrong in ["*", "*:0", "*:65536", "80", "example.com:80", "*:80 "] {
            assert!(bind(wrong).is_err(), "{wrong}");
        }
    }
}
