//! The mutations.

/// One rule broken.
pub(crate) struct Mutation {
    pub(crate) what: &'static str,
    /// Under ha/src.
    pub(crate) file: &'static str,
    pub(crate) from: &'static str,
    pub(crate) to: &'static str,
}

const ELECTION: &str = "election.rs";
const TENURE: &str = "election/tenure.rs";
const ANNOUNCEMENTS: &str = "election/announcements.rs";

pub(crate) const MUTATIONS: &[Mutation] = &[
    Mutation {
        what: "no fence",
        file: TENURE,
        from: "now >= self.replaceable_at() || (absent && now >= self.leased_until)",
        to: "false",
    },
    Mutation {
        what: "a fence that comes late",
        file: TENURE,
        from: "self.advert_sent + 3 * self.interval",
        to: "self.advert_sent + 9 * self.interval",
    },
    Mutation {
        what: "what was received before the fence is not thrown away",
        file: ELECTION,
        from: "[Action::RemoveAddresses, Action::DrainReceived]",
        to: "[Action::RemoveAddresses]",
    },
    Mutation {
        what: "the advert that woke a late router still counts",
        file: ELECTION,
        from: "Event::Advert(_) if stale => {}",
        to: "Event::Advert(_) if stale && false => {}",
    },
    Mutation {
        what: "a removed address put back without looking at the clock",
        file: ELECTION,
        from: "let stale = self.was_absent(now, actions);",
        to: "let stale = !matches!(event, Event::AddressLost(_)) && self.was_absent(now, actions);",
    },
    Mutation {
        what: "a late backup takes over without listening",
        file: ELECTION,
        from: "if !backup.was_late && now >=",
        to: "if false && now >=",
    },
    Mutation {
        what: "a lease may be taken at any time",
        file: ELECTION,
        from: "Role::Active(tenure) => Some(tenure.replaceable_at()),",
        to: "Role::Active(_) => Some(Time(u64::MAX)),",
    },
    Mutation {
        what: "the lease is not refreshed",
        file: ELECTION,
        from: "if tenure.refresh_due(now) {",
        to: "if false {",
    },
    Mutation { what: "the lease is too long", file: TENURE, from: ".div_ceil(1_000_000)", to: ".div_ceil(100_000)" },
    Mutation {
        what: "priority 0 ignored by a backup",
        file: ELECTION,
        from: "backup.active_down_at = now + skew;",
        to: "",
    },
    Mutation {
        what: "priority 0 not answered by an active router",
        file: ELECTION,
        from: "{\n                    tenure.advert_sent(now);\n                    actions.push(Action::SendAdvert { priority: own_priority });",
        to: "{\n                    tenure.advert_sent(now);\n                    if received.priority != LETS_GO { actions.push(Action::SendAdvert { priority: own_priority }) }",
    },
    Mutation {
        what: "no priority 0 when it lets go",
        file: ELECTION,
        from: "actions.push(Action::SendAdvert { priority: LETS_GO });",
        to: "",
    },
    Mutation {
        what: "no skew",
        file: ELECTION,
        from: "self.active_interval * (256 - u32::from(self.settings.priority.get())) / 256",
        to: "Duration::ZERO",
    },
    Mutation {
        what: "the interval of the active router is not learned",
        file: ELECTION,
        from: "self.active_interval = received.advertisement_interval;",
        to: "",
    },
    Mutation {
        what: "a tie broken the wrong way",
        file: ELECTION,
        from: "(received.priority, Some(received.source)) > (own_priority, own_address)",
        to: "(received.priority, own_address) > (own_priority, Some(received.source))",
    },
    Mutation {
        what: "an active router that does not give way",
        file: ELECTION,
        from: "Role::Active(_) if (received.priority,",
        to: "Role::Active(_) if false && (received.priority,",
    },
    Mutation {
        what: "a router that gives way keeps the addresses",
        file: ELECTION,
        from: "                actions.push(Action::RemoveAddresses);\n                let reason",
        to: "                let reason",
    },
    Mutation {
        what: "no last advert of a router that is overruled",
        file: ELECTION,
        from: "actions.push(Action::SendAdvert { priority: own_priority });\n                let backup",
        to: "let backup",
    },
    Mutation {
        what: "a router that nobody can hear gives way to nobody",
        file: ELECTION,
        from: "self.advert_not_sent(&reason, now, actions)",
        to: "drop(reason)",
    },
    Mutation {
        what: "a router that nobody can hear gives way although it hears nobody",
        file: TENURE,
        from: "self.rival = None;",
        to: "",
    },
    Mutation {
        what: "a router that nobody can hear does not stand back",
        file: ELECTION,
        from: "self.stand_back(since, now);",
        to: "",
    },
    Mutation {
        what: "lower priority obeyed",
        file: ELECTION,
        from: "received.priority >= own_priority || !self.preempts(now)",
        to: "true",
    },
    Mutation {
        what: "preempt inverted",
        file: ELECTION,
        from: "(self.settings.preempt || ",
        to: "(!self.settings.preempt || ",
    },
    Mutation {
        what: "a router that is gone is ignored",
        file: ELECTION,
        from: "&& backup.active_router == Some(address)",
        to: "&& false",
    },
    Mutation {
        what: "any router that is gone is taken for the active one",
        file: ELECTION,
        from: "&& backup.active_router == Some(address)",
        to: "",
    },
    Mutation {
        what: "a node that may not be active takes part",
        file: ELECTION,
        from: "link.or(self.eligible.as_ref().and_then(|eligible| eligible.as_ref().err()))",
        to: "link",
    },
    Mutation {
        what: "a refused address makes no difference",
        file: ELECTION,
        from: "Event::AddressRefused { reason } => self.give_up(Retry::At(now + PAUSE), reason, now, actions),",
        to: "Event::AddressRefused { .. } => {}",
    },
    Mutation {
        what: "an unanswered lease makes no difference",
        file: ELECTION,
        from: "if tenure.lease_unanswered(now) =>",
        to: "if false =>",
    },
    Mutation {
        what: "a kernel that answers again makes no difference",
        file: ELECTION,
        from: "if let Role::Fault(retry @ Retry::WhenRemoved) = &mut self.role {",
        to: "if false && let Role::Fault(retry @ Retry::WhenRemoved) = &mut self.role {",
    },
    Mutation {
        what: "a lost address is not put back",
        file: ELECTION,
        from: "                    } else {\n                        tenure.lease_requested(now);\n                        actions.push(tenure.lease_action());",
        to: "                    } else {",
    },
    Mutation {
        what: "no pause after the addresses could not be held",
        file: ELECTION,
        from: "const PAUSE: Duration = Duration::from_secs(5);",
        to: "const PAUSE: Duration = Duration::ZERO;",
    },
    Mutation {
        what: "no announcement after an advert of lower priority",
        file: ELECTION,
        from: "tenure.rival_heard(now, lease(received.advertisement_interval));",
        to: "",
    },
    Mutation {
        what: "announced only once",
        file: ANNOUNCEMENTS,
        from: "BURST.into_iter().map(|delay| now + delay).collect()",
        to: "vec![now]",
    },
    Mutation {
        what: "not announced after the rival's lease has ended",
        file: ANNOUNCEMENTS,
        from: "now + rival_lease + delay",
        to: "now + SLOW + delay",
    },
    Mutation {
        what: "each rival's advert is an announcement",
        file: ANNOUNCEMENTS,
        from: "if now >= next_burst {",
        to: "if now >= self.began {",
    },
];
