//! What keepers say to each other, as JSON: nodes one version apart ignore what they do not know and have a default for
//! what is absent.

use serde::{Deserialize, Serialize};

use crate::process::wishes::StampedWish;
use crate::status::NodeStatus;

/// Raised when an older node would misunderstand a newer one.
pub(super) const PROTOCOL: u32 = 1;

/// Longest message, in bytes of JSON.
pub(super) const LONGEST: usize = 1 << 20;

/// Longest message before the other side has proved with a [`Hello`] that it holds the key now (and is no replay).
pub(super) const LONGEST_HELLO: usize = 16 << 10;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum Message {
    /// The first of either side.
    Hello(Hello),
    /// Its whole state: at once when a role or its readiness changes, and every second.
    State(Box<NodeStatus>),
    /// What people want of servers: all that the peer may not know when it links, then what is new.
    Wishes(Wishes),
    /// Sessions of stick tables, as one balancer writes them for another.
    Sessions(Sessions),
    /// The last: the link closes and this is why.
    Goodbye(Goodbye),
    /// The last, and all that comes behind a [`Hello`]: there is no link. Whoever hears anything else has one.
    Refused(Refused),
    /// Of a later version.
    #[serde(other)]
    Unknown,
}

/// Who speaks.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Hello {
    /// [`PROTOCOL`] of its version.
    pub(super) protocol: u32,
    /// Relevo's version.
    pub(super) version: String,
    /// The node's name.
    pub(super) node: String,
    /// Random, one for each keeper process: tells a restarted one from one that lives on.
    pub(super) instance: String,
    /// Of everything that must be equal on both nodes.
    pub(super) config_hash: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Goodbye {
    pub(super) reason: String,
    /// Somebody asked for it.
    pub(super) is_planned: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Refused {
    /// For the one that reads it: `here` is there.
    pub(super) reason: String,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Wishes {
    pub(super) wishes: Vec<Told>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub(super) enum Told {
    Wish(StampedWish),
    /// Of a later version.
    Unknown(serde_json::Value),
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Sessions {
    pub(super) batch: String,
}

impl Hello {
    /// Nodes one protocol apart still link: that is how a pair is upgraded.
    pub(super) fn speaks_our_protocol(&self) -> bool {
        self.protocol.abs_diff(PROTOCOL) <= 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wish::{Admin, ServerName, Wish};

    #[test]
    fn a_newer_peer_is_understood() {
        let hello =
            r#"{"type":"hello","protocol":2,"version":"9.0","node":"lb2","instance":"a","colour":{"is":["red"]}}"#;
        let Ok(Message::Hello(hello)) = serde_json::from_str(hello) else { panic!("not a hello") };
        assert_eq!((hello.node.as_str(), hello.config_hash.as_str()), ("lb2", ""));
        assert!(hello.speaks_our_protocol());

        let state = r#"{"type":"state","node":"lb2","weather":"fine","vrrp":[{"state":"active","virtual_router_id":51,"x":1}]}"#;
        let Ok(Message::State(state)) = serde_json::from_str(state) else { panic!("not a state") };
        assert_eq!(state.vrrp[0].state, relevo_ha::State::Active);

        let later = r#"{"type":"prepare","deadline_ms":5}"#;
        assert_eq!(serde_json::from_str::<Message>(later).unwrap(), Message::Unknown);
    }

    #[test]
    fn a_far_away_protocol_is_not() {
        assert!(!Hello { protocol: PROTOCOL + 2, ..Hello::default() }.speaks_our_protocol());
    }

    fn wish() -> StampedWish {
        let server = ServerName { backend: "app".into(), server: "a".into() };
        StampedWish { server, wish: Wish::Admin(Admin::Drain), at: 5, node: "lb2".into() }
    }

    #[test]
    fn a_wish_that_is_not_known_yet_keeps_no_other_from_being_heard() {
        let newer = r#"{"type":"wishes","wishes":[
            {"server":{"backend":"app","server":"a"},"wish":{"max_connections":5},"at":6,"node":"lb2"},
            {"server":{"backend":"app","server":"a"},"wish":{"admin":"drain"},"at":5,"node":"lb2","colour":"red"}]}"#;
        let Ok(Message::Wishes(newer)) = serde_json::from_str(newer) else { panic!("no wishes") };
        assert!(matches!(newer.wishes[0], Told::Unknown(_)));
        assert_eq!(newer.wishes[1], Told::Wish(wish()));
    }

    #[test]
    fn survives_the_way() {
        let mut status = NodeStatus { node: "lb1".into(), uptime_s: 1.5, ..NodeStatus::default() };
        status.vrrp.push(relevo_ha::RouterStatus {
            own_address: Some([10, 0, 0, 1].into()),
            ..relevo_ha::RouterStatus::default()
        });
        for message in [
            Message::State(Box::new(status)),
            Message::Hello(Hello { node: "lb1".into(), ..Hello::default() }),
            Message::Goodbye(Goodbye { reason: "stopping".into(), is_planned: true }),
            Message::Refused(Refused { reason: "who are you".into() }),
            Message::Wishes(Wishes { wishes: vec![Told::Wish(wish())] }),
            Message::Sessions(Sessions { batch: "AAEC".into() }),
        ] {
            let text = serde_json::to_string(&message).unwrap();
            assert_eq!(serde_json::from_str::<Message>(&text).unwrap(), message);
        }
    }
}
