//! Why a node that holds the key is none to link with, in the words of either side. Pure.

use std::net::{IpAddr, SocketAddr};

use super::Identity;
use super::message::Hello;

/// The same reason twice.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Objection {
    /// For this node's log and `relevo status`.
    pub(super) here: String,
    /// For the other node's, which is told.
    pub(super) there: String,
}

/// To the node that answers at `address`, where `name` should be.
pub(super) fn to_dialled(identity: &Identity, name: &str, address: SocketAddr, hello: &Hello) -> Option<Objection> {
    let (own, other) = (&identity.node, &hello.node);
    if hello.instance == identity.instance {
        let here = format!("{address} is this node itself, not {name:?}: correct peering.peers");
        return Some(Objection { there: here.clone(), here });
    }
    if other != name {
        return Some(Objection {
            here: format!(
                "the node at {address} is {other:?}, not {name:?}: correct peering.peers here, or node.name there"
            ),
            there: format!(
                "peering.peers of {own:?} has {name:?} at {address}, and not {other:?}: correct it there, or node.name here"
            ),
        });
    }
    protocol(hello)
}

/// To the node that dialled from `address`.
pub(super) fn to_dialler(identity: &Identity, address: IpAddr, hello: &Hello) -> Option<Objection> {
    let (own, other) = (&identity.node, &hello.node);
    if hello.instance == identity.instance {
        let here = "this node dials itself: correct peering.peers".to_owned();
        return Some(Objection { there: here.clone(), here });
    }
    if own == other {
        let both = format!("both nodes are named {own:?}: each needs a node.name of its own");
        return Some(Objection { there: both.clone(), here: format!("{both} (the other is at {address})") });
    }
    if !identity.peers.contains_key(other) {
        let known: Vec<_> = identity.peers.keys().map(|name| format!("{name:?}")).collect();
        return Some(Objection {
            here: format!(
                "the node at {address} holds the key, but its name {other:?} is not among our peers: add it to peering.peers"
            ),
            there: format!(
                "peering.peers of {own:?} has {}, and not {other:?}: add it there, or correct node.name here",
                known.join(", ")
            ),
        });
    }
    protocol(hello)
}

/// Two nodes of one name: the one that is where `peering.peers` says keeps its link, and the other has to hear of it.
pub(super) fn to_double(name: &str, first: IpAddr, second: IpAddr) -> Objection {
    Objection {
        here: format!(
            "there are two nodes named {name:?}, at {first} and at {second}: each needs a node.name of its own"
        ),
        there: format!("another node, at {first}, is named {name:?} too: each needs a node.name of its own"),
    }
}

fn protocol(hello: &Hello) -> Option<Objection> {
    let version = env!("CARGO_PKG_VERSION");
    let too_far = |its: &str, other: &str| {
        format!("it runs version {its}, too far from {other}, which runs here: upgrade one step at a time")
    };
    (!hello.speaks_our_protocol())
        .then(|| Objection { here: too_far(&hello.version, version), there: too_far(version, &hello.version) })
}
