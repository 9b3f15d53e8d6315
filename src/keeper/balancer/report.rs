//! What a balancer reports: how long that may be, and whether it can be so. Pure.

use crate::config::model;
use crate::process::messages::{Beat, LONGEST_BATCH};
use crate::status::{BackendStatus, ServerStatus};

/// What a beat or a batch of sessions needs, with room to spare: a balancer that was taken over must not fill its keeper's memory
/// and time.
pub(super) fn longest_message(config: &model::Balancer) -> usize {
    let backend = |backend: &model::Backend| {
        let names = backend.servers.iter().map(|server| server.name.len()).sum::<usize>();
        256 + backend.name.len() + names + backend.servers.len() * (512 + 2 * 4 * ServerStatus::LONGEST_TEXT)
    };
    1024 + LONGEST_BATCH + config.threads * 32 + config.backends.iter().map(backend).sum::<usize>()
}

/// Does it speak of the workers and servers that there are, in words that a log, a terminal and a peer can take?
pub(super) fn fits(beat: &Beat, config: &model::Balancer) -> bool {
    let is_plain =
        |text: &str| text.chars().count() <= ServerStatus::LONGEST_TEXT && !text.chars().any(char::is_control);
    let is_server = |(status, server): (&ServerStatus, &model::Server)| {
        status.name == server.name && is_plain(&status.address) && is_plain(&status.reason)
    };
    let is_backend = |(status, backend): (&BackendStatus, &model::Backend)| {
        status.name == backend.name
            && status.servers.len() == backend.servers.len()
            && status.servers.iter().zip(&backend.servers).all(is_server)
    };
    beat.worker_silence_ms.len() == config.threads
        && beat.backends.len() == config.backends.len()
        && beat.backends.iter().zip(&config.backends).all(is_backend)
}

/// Did a server change its state?
pub(super) fn differ(before: &[BackendStatus], after: &[BackendStatus]) -> bool {
    let states = |backends: &[BackendStatus]| -> Vec<_> {
        backends.iter().flat_map(|backend| &backend.servers).map(|server| server.state).collect()
    };
    states(before) != states(after)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Machine, parse_for};
    use crate::process::messages::FromBalancer;
    use crate::status::ServerState;

    #[test]
    fn a_report_speaks_of_the_workers_and_servers_there_are_in_one_line_each() {
        let text = "[process]\nthreads = 2\n[frontends.f]\nbind = '*:80'\ndefault_backend = 'b'\n\
                    [backends.b]\nservers = [{ name = 's', address = '192.0.2.1:80' }]\n";
        let machine = Machine { host_name: "lb1".to_owned(), cores: 1, ..Machine::this() };
        let config = parse_for(text, "test", &machine).unwrap().balancer;
        let beat = |silences: &[u64], servers: &[(&str, &str)]| {
            let server = |(name, reason): &(&str, &str)| ServerStatus {
                name: (*name).to_owned(),
                reason: (*reason).to_owned(),
                state: ServerState::Down,
                ..ServerStatus::default()
            };
            let servers = servers.iter().map(server).collect();
            let backends = vec![BackendStatus { name: "b".to_owned(), servers, ..BackendStatus::default() }];
            Beat { worker_silence_ms: silences.to_vec(), backends, ..Beat::default() }
        };
        let long = ServerStatus::reason_from(&"\u{1f480}\n".repeat(1000));
        assert!(fits(&beat(&[0, 0], &[("s", "connection refused")]), &config));
        let longest = beat(&[u64::MAX, u64::MAX], &[("s", &long)]);
        assert!(fits(&longest, &config));
        assert!(serde_json::to_vec(&FromBalancer::Beat(longest)).unwrap().len() <= longest_message(&config));

        assert!(!fits(&Beat::default(), &config), "no worker, no backend");
        assert!(!fits(&beat(&[0], &[("s", "")]), &config), "a worker too few");
        assert!(!fits(&beat(&[0, 0], &[("t", "")]), &config), "an unknown server");
        assert!(!fits(&beat(&[0, 0], &[("s", ""), ("s", "")]), &config), "a server too many");
        assert!(!fits(&beat(&[0, 0], &[("s", "\x1b[2J")]), &config), "something for a terminal");
        assert!(!fits(&beat(&[0, 0], &[("s", &"x".repeat(501))]), &config), "a novel");
    }
}
