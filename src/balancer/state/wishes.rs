//! What people want of servers while the balancer runs, and what others know of them: the predecessor of this process, a peer.

use std::collections::BTreeSet;

use tracing::info;

use super::{Health, ServerShared, Shared};
use crate::config::model::BackendIndex;
use crate::process::messages::ServerWish;
use crate::status::{BackendStatus, ServerState, ServerStatus};
use crate::wish::{Admin, ServerName, Weight, Wish};

impl Shared {
    /// Heeds what people want of servers.
    pub fn heed_all(&self, wishes: &[ServerWish]) {
        for ServerWish { server, wish, node } in wishes {
            self.heed(server, *wish, &format!("asked for on {node}"));
        }
        // A server of two configurations is one: it may have heeded a wish under the other, whose choice alone knows that.
        let places = wishes.iter().filter_map(|wish| self.find(&wish.server));
        for index in places.map(|(backend, _)| backend.0).collect::<BTreeSet<_>>() {
            if let Some((config, state)) = self.config.backends.get(index).zip(self.backends.get(index)) {
                state.replan(config);
            }
        }
    }

    /// A wish of a server that is not there is of another configuration.
    fn heed(&self, server: &ServerName, wish: Wish, reason: &str) {
        let Some((backend, index)) = self.find(server) else { return };
        let Some(place) = self.server(backend, index) else { return };
        let before = place.state.standing_wishes();
        match wish {
            Wish::Admin(admin) => {
                let is_logged = self.set_admin(backend, index, admin, reason);
                if !is_logged && before.0 != admin {
                    let state = place.state.state().in_a_sentence();
                    info!("server {server} is {state}, and to be {}: {reason}", intention(admin));
                }
            }
            Wish::Weight(weight) => {
                self.change(backend, index, |facts| facts.weight = weight);
                if before.1 != weight {
                    let (weight, configured) = (place.state.weight(), place.server.weight);
                    info!("server {server} has the weight {weight}, its configured one is {configured}: {reason}");
                }
            }
        }
    }

    /// Takes from others what is not known here yet. `by` says who they are.
    pub fn believe(&self, known: &[BackendStatus], by: &str) {
        let servers = known.iter().flat_map(|backend| backend.servers.iter().map(|server| (&backend.name, server)));
        for (backend, known) in servers {
            let health = match known.state {
                ServerState::Up | ServerState::Drain => Health::Up,
                ServerState::Down => Health::Down,
                ServerState::Starting | ServerState::Maintenance => continue,
            };
            let name = ServerName { backend: backend.clone(), server: known.name.clone() };
            let Some((backend, index)) = self.find(&name) else { continue };
            let Some(place) = self.server(backend, index) else { continue };
            if place.state.is_to_be_told(known) {
                let reason = ServerStatus::reason_from(&format!("{} (told by {by})", known.reason));
                self.change(backend, index, |facts| facts.hearsay = Some((health, reason.into())));
            }
        }
    }

    fn find(&self, name: &ServerName) -> Option<(BackendIndex, usize)> {
        let backend = self.config.backends.iter().position(|backend| backend.name == name.backend)?;
        let server = self.config.backends.get(backend)?.servers.iter().position(|server| server.name == name.server)?;
        Some((BackendIndex(backend), server))
    }
}

impl ServerShared {
    /// Do people want it to be left alone? Then it is not checked either.
    pub fn is_in_maintenance(&self) -> bool {
        self.facts().operator == Admin::Maintenance
    }

    /// Waits while it is in maintenance by people's wish. Says whether it was.
    pub async fn end_of_maintenance(&self) -> bool {
        let mut was = false;
        loop {
            // First listened for, then looked at: nothing is missed.
            let mut returned = std::pin::pin!(self.returned.notified());
            returned.as_mut().enable();
            if !self.is_in_maintenance() {
                return was;
            }
            was = true;
            returned.await;
        }
    }

    /// Waits for the next time that people end its maintenance.
    pub async fn returns(&self) {
        self.returned.notified().await;
    }

    fn standing_wishes(&self) -> (Admin, Weight) {
        let facts = self.facts();
        (facts.operator, facts.weight)
    }

    /// Is its health unknown here, and is it where the others know it?
    fn is_to_be_told(&self, known: &ServerStatus) -> bool {
        let address = self.address.load();
        self.health() == Health::Starting
            && address.as_ref().is_some_and(|address| address.to_string() == known.address)
    }
}

fn intention(admin: Admin) -> &'static str {
    match admin {
        Admin::Ready => "ready",
        Admin::Drain => "drained",
        Admin::Maintenance => "in maintenance",
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use tokio::time::timeout;

    use super::super::tests::{one_backend, server, states};
    use super::*;
    use crate::config::model::{Balance, Server};

    const APP: BackendIndex = BackendIndex(0);

    /// One server, checked.
    fn checked() -> Arc<Shared> {
        Shared::new(one_backend(Balance::RoundRobin, vec![Server { check: true, ..server("a", 10) }]))
    }

    fn heed(shared: &Shared, name: &str, wish: Wish) {
        shared.heed(&ServerName { backend: "app".into(), server: name.into() }, wish, "asked for on lb2");
    }

    fn known(state: ServerState, address: &str) -> Vec<BackendStatus> {
        let status = |name: &str| ServerStatus {
            name: name.into(),
            address: address.into(),
            state,
            reason: "status 200".into(),
            ..ServerStatus::default()
        };
        let servers = vec![status("unknown"), status("a")];
        vec![BackendStatus { name: "app".into(), servers, ..BackendStatus::default() }]
    }

    #[test]
    fn what_others_know_counts_until_the_first_result_of_its_own() {
        use ServerState::{Down, Drain, Maintenance, Starting, Up};
        let rows = [
            (Up, "127.0.0.1:9", Up),
            (Drain, "127.0.0.1:9", Up),
            (Down, "127.0.0.1:9", Down),
            (Maintenance, "127.0.0.1:9", Starting),
            (Starting, "127.0.0.1:9", Starting),
            // It has moved since, or has not yet.
            (Up, "127.0.0.1:8", Starting),
        ];
        for (told, address, expected) in rows {
            let shared = checked();
            shared.believe(&known(told, address), "lb2");
            let (state, reason) = states(&shared).remove(0);
            assert_eq!(state, expected, "{told:?} {address}");
            assert_eq!(reason == "status 200 (told by lb2)", expected != Starting);
            // To the checks it is unknown still: the first one decides.
            assert_eq!(shared.backends[0].servers[0].health(), Health::Starting);
            shared.set_health(APP, 0, Health::Down, "connection refused");
            shared.believe(&known(Up, "127.0.0.1:9"), "lb2");
            assert_eq!(states(&shared), [(Down, "connection refused".to_owned())]);
        }
    }

    #[test]
    fn a_server_comes_out_of_maintenance_unproven() {
        let shared = checked();
        shared.set_health(APP, 0, Health::Up, "status 200");
        let state = || states(&shared).remove(0).0;
        heed(&shared, "a", Wish::Admin(Admin::Drain));
        assert_eq!(state(), ServerState::Drain);
        heed(&shared, "a", Wish::Admin(Admin::Ready));
        assert_eq!(state(), ServerState::Up, "it was checked all the time");
        heed(&shared, "a", Wish::Admin(Admin::Maintenance));
        shared.set_health(APP, 0, Health::Up, "a check that was under way");
        assert_eq!(state(), ServerState::Maintenance);
        heed(&shared, "a", Wish::Admin(Admin::Drain));
        assert_eq!(states(&shared), [(ServerState::Starting, "asked for on lb2".to_owned())]);
        heed(&shared, "gone", Wish::Admin(Admin::Maintenance));
    }

    #[test]
    fn weights_are_of_the_configured_one() {
        let shared = checked();
        let weight = |weight| {
            heed(&shared, "a", Wish::Weight(weight));
            shared.backends[0].servers[0].weight()
        };
        let weights = [Weight::Percent(50), Weight::Absolute(7), Weight::Percent(20), Weight::Default].map(weight);
        assert_eq!(weights, [5, 7, 2, 10]);
    }

    #[tokio::test]
    async fn whoever_waits_for_the_end_of_maintenance_is_told() {
        let shared = checked();
        let server = &shared.backends[0].servers[0];
        assert!(!server.end_of_maintenance().await);
        heed(&shared, "a", Wish::Admin(Admin::Maintenance));
        let waiting = async { tokio::join!(server.end_of_maintenance(), server.end_of_maintenance()) };
        let ending = async {
            tokio::task::yield_now().await;
            heed(&shared, "a", Wish::Admin(Admin::Ready));
        };
        let both = async { tokio::join!(waiting, ending).0 };
        assert_eq!(timeout(Duration::from_secs(10), both).await, Ok((true, true)));
    }
}
