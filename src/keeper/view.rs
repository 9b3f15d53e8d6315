//! What this node makes of the pair: its own status, and who acts when a router is gone. Pure.

use std::net::Ipv4Addr;

use relevo_ha::{RouterStatus, State};

use crate::status::{BalancerState, NodeStatus, PeerStatus, ServerState};

/// Could this node take over now? The error says why not.
pub(super) fn can_take_over(balancer: BalancerState, routers: &[RouterStatus]) -> Result<(), String> {
    match balancer {
        BalancerState::Serving => {}
        BalancerState::Starting => return Err("its balancer is starting".to_owned()),
        BalancerState::Down => return Err("its balancer is down, and its log says why".to_owned()),
    }
    if routers.is_empty() {
        return Err("it has no virtual router".to_owned());
    }
    match routers.iter().find(|router| !matches!(router.state, State::Backup | State::Active)) {
        Some(router) => Err(format!("virtual router {}: {}", router.name, router.reason)),
        None => Ok(()),
    }
}

/// What the node does, for the service manager: `main: active; balancer: serving, 2 of 3 servers up`.
pub(super) fn in_a_line(node: &NodeStatus) -> String {
    let routers: Vec<_> = node.vrrp.iter().map(|router| format!("{}: {}", router.name, router.state)).collect();
    let servers = || node.backends.iter().flat_map(|backend| &backend.servers);
    let up = servers().filter(|server| server.state == ServerState::Up).count();
    let balancer = format!("balancer: {}, {up} of {} servers up", node.balancer.state, servers().count());
    [routers.join(", "), balancer].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("; ")
}

/// May this node go on holding its addresses without a balancer? Only where giving them up would help nobody: it has
/// peers, and none of them could take over.
pub(super) fn may_hold_on(routers: &[RouterStatus], peers: Option<&[PeerStatus]>) -> bool {
    let holds = routers.iter().any(|router| router.state == State::Active);
    let helped = peers.is_none_or(|peers| peers.iter().any(|peer| peer.connected && peer.status.can_take_over));
    holds && !helped
}

/// The routers of a peer: by what address its adverts come, for each virtual router.
pub(super) fn routers_of(peer: &NodeStatus) -> Vec<(u8, Ipv4Addr)> {
    peer.vrrp.iter().filter_map(|router| Some((router.virtual_router_id, router.own_address?))).collect()
}

/// The virtual routers that a peer runs too: ours, the peer's name, its own.
pub(super) fn shared<'a>(
    routers: &'a [RouterStatus],
    peers: &'a [PeerStatus],
) -> impl Iterator<Item = (&'a RouterStatus, &'a str, &'a RouterStatus)> {
    peers.iter().filter(|peer| peer.connected).flat_map(move |peer| {
        peer.status.vrrp.iter().filter_map(move |its| {
            let own = routers.iter().find(|own| own.virtual_router_id == its.virtual_router_id)?;
            Some((own, peer.name.as_str(), its))
        })
    })
}

/// With several backups only the one of highest priority takes over at once (rule 3); the others let their timers run.
/// `gone` is the name of the peer that is gone.
pub(super) fn is_first_in_line(own: &RouterStatus, gone: &str, peers: &[PeerStatus]) -> bool {
    let own_rank = (own.effective_priority, own.own_address);
    let better = |router: &RouterStatus| {
        router.virtual_router_id == own.virtual_router_id
            && router.state == State::Backup
            && (router.effective_priority, router.own_address) > own_rank
    };
    !peers.iter().any(|peer| peer.connected && peer.name != gone && peer.status.vrrp.iter().any(better))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::{BackendStatus, ServerStatus};

    fn router(state: State, priority: u8, last: u8) -> RouterStatus {
        RouterStatus {
            name: "main".to_owned(),
            virtual_router_id: 51,
            state,
            priority,
            effective_priority: priority,
            own_address: Some(Ipv4Addr::new(192, 0, 2, last)),
            reason: "no carrier".to_owned(),
            ..RouterStatus::default()
        }
    }

    fn peer(name: &str, connected: bool, router: RouterStatus) -> PeerStatus {
        let can_take_over = router.state == State::Backup;
        let status = NodeStatus { vrrp: vec![router], can_take_over, ..NodeStatus::default() };
        PeerStatus { name: name.to_owned(), connected, status, ..PeerStatus::default() }
    }

    #[test]
    fn taking_over_needs_a_balancer_and_every_router() {
        let backup = [router(State::Backup, 100, 1)];
        assert_eq!(can_take_over(BalancerState::Serving, &backup), Ok(()));
        assert!(can_take_over(BalancerState::Starting, &backup).is_err());
        assert!(can_take_over(BalancerState::Down, &backup).is_err());
        assert!(can_take_over(BalancerState::Serving, &[]).is_err());
        let [backup] = backup;
        let reason = can_take_over(BalancerState::Serving, &[backup, router(State::Fault, 0, 1)]).unwrap_err();
        assert_eq!(reason, "virtual router main: no carrier");
    }

    #[test]
    fn a_node_in_a_line() {
        let server = |state| ServerStatus { state, ..ServerStatus::default() };
        let servers = vec![server(ServerState::Up), server(ServerState::Down)];
        let mut node = NodeStatus {
            vrrp: vec![
                router(State::Active, 200, 1),
                RouterStatus { name: "web".into(), ..router(State::Fault, 0, 1) },
            ],
            backends: vec![BackendStatus { name: "app".into(), servers, ..BackendStatus::default() }],
            ..NodeStatus::default()
        };
        node.balancer.state = BalancerState::Serving;
        assert_eq!(in_a_line(&node), "main: active, web: fault; balancer: serving, 1 of 2 servers up");
        node.vrrp.clear();
        assert_eq!(in_a_line(&node), "balancer: serving, 1 of 2 servers up");
    }

    #[test]
    fn addresses_stay_only_where_nobody_else_could_serve() {
        let active = [router(State::Active, 200, 1)];
        let able = [peer("lb2", true, router(State::Backup, 100, 2))];
        let cut_off = [peer("lb2", false, router(State::Backup, 100, 2))];
        let broken = [peer("lb2", true, router(State::Fault, 0, 2))];
        assert!(!may_hold_on(&active, Some(&able)));
        assert!(may_hold_on(&active, Some(&cut_off)));
        assert!(may_hold_on(&active, Some(&broken)));
        assert!(!may_hold_on(&active, None), "who the others are is not known: let the election decide");
        assert!(!may_hold_on(&[router(State::Backup, 100, 1)], Some(&broken)), "a backup does not reach for them");
    }

    #[test]
    fn only_the_best_backup_takes_over_at_once() {
        let own = router(State::Backup, 100, 2);
        let gone = peer("lb1", true, router(State::Backup, 200, 1));
        let line = |third: PeerStatus| is_first_in_line(&own, "lb1", &[gone.clone(), third]);
        assert!(line(peer("lb3", true, router(State::Backup, 90, 3))));
        assert!(!line(peer("lb3", true, router(State::Backup, 101, 3))));
        assert!(line(peer("lb3", false, router(State::Backup, 101, 3))), "not connected");
        assert!(line(peer("lb3", true, router(State::Fault, 101, 3))), "cannot");
        assert!(!line(peer("lb3", true, router(State::Backup, 100, 3))), "a tie goes to the greater address");
        assert!(line(peer("lb3", true, router(State::Backup, 100, 1))));
    }
}
