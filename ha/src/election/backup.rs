//! What a backup keeps: whom it hears, and when it takes over.

use std::net::Ipv4Addr;

use super::event::{Received, Time};

/// Listening for an active router.
#[derive(Debug)]
pub(super) struct Backup {
    pub(super) active_down_at: Time,
    /// Source of the last advert that we obeyed.
    pub(super) active_router: Option<Ipv4Addr>,
    /// It has sent priority 0 since.
    pub(super) let_go: bool,
    /// The last advert that we did not obey: its router is about to be preempted.
    pub(super) outranked: Option<Received>,
    /// The timer has fired late before, and nothing has been heard since: the next time it counts.
    pub(super) was_late: bool,
}

impl Backup {
    pub(super) fn listening(until: Time) -> Self {
        Self { active_down_at: until, active_router: None, let_go: false, outranked: None, was_late: false }
    }

    /// In words.
    pub(super) fn why_it_ended(&self) -> String {
        if let Some(Received { source, priority, .. }) = self.outranked {
            return format!("preempted {source}, which adverts with priority {priority}");
        }
        match self.active_router {
            Some(address) if self.let_go => format!("{address} let go"),
            Some(address) => format!("no advert from {address} in the active-down interval"),
            None => "no active router was heard in the active-down interval".into(),
        }
    }
}
