//! What people want of servers while the balancer runs, and what others know of them: the predecessor of this process, a peer.

use tracing::info;

use super::{Health, ServerShared, Shared, word};
use crate::config::model::BackendIndex;
use crate::process::messages::ServerWish;
use crate::status::{BackendStatus, ServerState, ServerStatus};
use crate::wish::{Admin, ServerName, Wish};

impl Shared {
    /// Heeds what people want of servers.
    pub fn heed_all(&self, wishes: &[ServerWish]) {
        for ServerWish { server, wish, node } in wishes {
            self.heed(server, *wish, &format!("asked for on {node}"));
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
                    let state = word(place.state.state());
                    info!("server {server} is {state}, and to be {}: {reason}", intention(admin));
                }
            }
            Wish::Weight(weight) => {
                let weight = weight.of(place.server.weight);
                self.set_weight(backend, index, weight);
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

    fn standing_wishes(&self) -> (Admin, Option<u32>) {
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
