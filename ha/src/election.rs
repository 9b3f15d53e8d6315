//! The state machine of one virtual router: RFC 9568 §6.4 and what goes beyond it. Pure: no clock, no socket, no async.
//!
//! It takes an event and the time, and returns actions and its next deadline. After [`Election::handle`] that deadline
//! lies in the future: what is due is done with any event, not with [`Event::Timer`] alone.
//!
//! | state  | event                               | what is done                                        | then   | section |
//! |--------|-------------------------------------|-----------------------------------------------------|--------|---------|
//! | Init   | link up and eligible, priority 255  | advert, lease                                       | Active | 6.4.1   |
//! | Init   | link up and eligible                | timer: active-down interval of our own interval     | Backup | 6.4.1   |
//! | Init   | one of them known to be wanting     |                                                     | Fault  | ours    |
//! | Backup | timer                               | advert, lease; announce when the addresses are held | Active | 6.4.2   |
//! | Backup | advert, priority 0                  | timer: skew time                                    | Backup | 6.4.2   |
//! | Backup | advert, not lower or not preempting | learn its interval; timer: active-down interval     | Backup | 6.4.2   |
//! | Backup | advert, lower and preempting        | nothing: the timer runs on                          | Backup | 6.4.2   |
//! | Backup | the active router is gone           | as if the timer had fired                           | Active | ours    |
//! | Backup | any, an interval after the timer    | drain; timer: active-down interval (once)           | Backup | ours    |
//! | Active | timer                               | what is due of: advert, lease, announcement         | Active | 6.4.3   |
//! | Active | advert, priority 0                  | advert at once; announce again                      | Active | 6.4.3   |
//! | Active | advert, greater (source breaks tie) | remove addresses, a last advert; its interval; timer | Backup | 6.4.3  |
//! | Active | advert, otherwise                   | advert at once; announce again                      | Active | 6.4.3   |
//! | Active | any, after we may have been replaced | remove addresses, drain; timer (the **fence**)     | Backup | ours    |
//! | Active | an address lost                     | lease and announce again                            | Active | ours    |
//! | Active | an advert did not leave, and we hear another router | remove addresses; its interval; timer | Backup | ours    |
//! | Active | lost too often, refused             | advert of priority 0, remove addresses; try later   | Fault  | ours    |
//! | Active | unanswered for as long as the lease | advert of priority 0, remove addresses              | Fault  | ours    |
//! | any    | unready                             | from now on our priority is 1                       |        | ours    |
//! | Backup | ready, priority 255                 | as if the timer had fired                           | Active | ours    |
//! | any    | ineligible                          | if active: advert of priority 0, remove addresses   | Fault  | ours    |
//! | any    | link down                           | if active: remove addresses                         | Fault  | ours    |
//! | Fault  | link up and eligible again          | as from Init                                        |        | ours    |
//! | Fault  | the kernel answers again            | as from Init                                        |        | ours    |
//! | any    | stop                                | if active: advert of priority 0, remove addresses   | Init   | 6.4     |

mod announcements;
mod backup;
mod event;
mod tenure;
#[cfg(test)]
mod tests;

use std::net::Ipv4Addr;
use std::time::Duration;

use backup::Backup;
use tenure::{Tenure, lease};

pub use self::event::{Action, Event, Received, Settings, Time, Transition};
use crate::router::State;

/// The priority of the router that owns the addresses (RFC 9568 §5.2.4).
const OWNER: u8 = 255;
/// Of an advert: the active router lets go (RFC 9568 §5.2.4).
const LETS_GO: u8 = 0;
/// Of a router that is not ready: it takes the addresses from nobody, and whoever is ready may have its own.
const LOWEST: u8 = 1;
const OWNS: &str = "owns the addresses (priority 255)";
/// In fault after the kernel refused the addresses, or somebody kept removing them.
const PAUSE: Duration = Duration::from_secs(5);
/// After such a pause we take over from a router that has failed, but disturb none that works: for this long, doubled each
/// time up to [`YIELD_LIMIT`].
const YIELD: Duration = Duration::from_secs(10);
const YIELD_LIMIT: Duration = Duration::from_secs(300);

/// The election of one virtual router on this node.
#[derive(Debug)]
pub struct Election {
    settings: Settings,
    role: Role,
    /// `None`: not known yet.
    link: Option<Result<Ipv4Addr, String>>,
    /// `None`: not known yet.
    eligible: Option<Result<(), String>>,
    ready: Result<(), String>,
    /// Active_Adver_Interval of RFC 9568 §6.1.
    active_interval: Duration,
    yield_until: Time,
    yielded_for: Duration,
    stopped: bool,
}

/// The state, with what only that state has.
#[derive(Debug)]
enum Role {
    Init,
    Backup(Backup),
    Active(Tenure),
    Fault(Retry),
}

/// What must happen before a router in fault looks at its link and eligibility again.
#[derive(Debug)]
enum Retry {
    /// One of them changes.
    WhenChanged,
    /// The addresses could not be held.
    At(Time),
    /// The kernel answered nothing, and now has removed the addresses.
    WhenRemoved,
}

impl Election {
    /// In state Init until both the link and eligibility are known.
    pub fn new(settings: Settings, now: Time) -> Self {
        Self {
            active_interval: settings.advertisement_interval,
            settings,
            role: Role::Init,
            link: None,
            eligible: None,
            ready: Ok(()),
            yield_until: now,
            yielded_for: Duration::ZERO,
            stopped: false,
        }
    }

    /// Appends what is to be done about `event` to `actions`.
    pub fn handle(&mut self, event: Event, now: Time, actions: &mut Vec<Action>) {
        if self.stopped {
            return;
        }
        let stale = self.was_absent(now, actions);
        match event {
            Event::Timer => {}
            // It was read before our absence was noticed.
            Event::Advert(_) if stale => {}
            Event::Advert(received) => self.advert_received(received, now, actions),
            Event::LinkUp { own_address } => {
                self.link = Some(Ok(own_address));
                self.conditions_changed(now, actions);
            }
            Event::LinkDown { reason } => {
                self.link = Some(Err(reason));
                self.conditions_changed(now, actions);
            }
            Event::Eligible => {
                self.eligible = Some(Ok(()));
                self.conditions_changed(now, actions);
            }
            Event::Ineligible { reason } => {
                self.eligible = Some(Err(reason));
                self.conditions_changed(now, actions);
            }
            Event::Ready => self.rank_changed(Ok(()), now, actions),
            Event::Unready { reason } => self.rank_changed(Err(reason), now, actions),
            Event::AddressesTaken => {
                let rival_lease = lease(self.active_interval);
                if let Role::Active(tenure) = &mut self.role {
                    tenure.addresses_taken(now, rival_lease);
                }
            }
            Event::AddressRefused { reason } => self.give_up(Retry::At(now + PAUSE), reason, now, actions),
            Event::AddressesRemoved => {
                if let Role::Fault(retry @ Retry::WhenRemoved) = &mut self.role {
                    *retry = Retry::WhenChanged;
                    self.conditions_changed(now, actions);
                }
            }
            Event::AdvertNotSent { reason } => self.advert_not_sent(&reason, now, actions),
            Event::AddressLost(address) => {
                if let Role::Active(tenure) = &mut self.role {
                    if tenure.address_lost(address, now) {
                        let reason = format!("somebody keeps removing {address}");
                        self.give_up(Retry::At(now + PAUSE), reason, now, actions);
                    } else {
                        tenure.lease_requested(now);
                        actions.push(tenure.lease_action());
                    }
                }
            }
            Event::RouterGone { address, reason } => {
                if let Role::Backup(backup) = &self.role
                    && backup.active_router == Some(address)
                {
                    self.become_active(format!("{address} is gone: {reason}"), now, actions);
                }
            }
            Event::Stop => {
                self.stopped = true;
                self.let_go(actions);
                self.change(Role::Init, "stopped".into(), actions);
            }
        }
        self.do_what_is_due(now, actions);
    }

    /// When to call [`Election::handle`] with [`Event::Timer`], unless another event comes first.
    pub fn next_deadline(&self) -> Option<Time> {
        match &self.role {
            Role::Init => None,
            Role::Backup(backup) => Some(backup.active_down_at),
            Role::Active(tenure) => Some(tenure.next_deadline()),
            Role::Fault(Retry::At(retry_at)) => Some(*retry_at),
            Role::Fault(Retry::WhenChanged | Retry::WhenRemoved) => None,
        }
    }

    /// Our role now.
    pub fn state(&self) -> State {
        self.role.state()
    }

    /// The source address of the active router's adverts, if it is known: our own, or that of the last one we obeyed.
    pub fn active_router(&self) -> Option<Ipv4Addr> {
        match &self.role {
            Role::Active(_) => self.own_address(),
            Role::Backup(backup) => backup.active_router,
            Role::Init | Role::Fault(_) => None,
        }
    }

    /// While active: from when on another router may have taken over, unless an advert is sent before. An address that was
    /// removed is put back no later than this.
    pub fn replaceable_at(&self) -> Option<Time> {
        match &self.role {
            Role::Active(tenure) => Some(tenure.replaceable_at()),
            Role::Init | Role::Backup(_) | Role::Fault(_) => None,
        }
    }

    /// What keeps this router out: its link, or else the node.
    pub fn obstacle(&self) -> Option<&str> {
        let link = self.link.as_ref().and_then(|link| link.as_ref().err());
        link.or(self.eligible.as_ref().and_then(|eligible| eligible.as_ref().err())).map(String::as_str)
    }

    /// The priority of our adverts (RFC 9568 §5.2.4).
    pub fn priority(&self) -> u8 {
        if self.ready.is_ok() { self.settings.priority.get() } else { LOWEST }
    }

    /// Why it is not the one that was configured.
    pub fn unready_because(&self) -> Option<&str> {
        self.ready.as_ref().err().map(String::as_str)
    }

    /// The source address of our adverts, while the link is up.
    pub fn own_address(&self) -> Option<Ipv4Addr> {
        self.link.as_ref().and_then(|link| link.as_ref().ok().copied())
    }

    /// The fence. Whether this router was not there when something should have happened: suspended, frozen, starved. What
    /// it knows, and what waits to be read, is older than its absence. So it lets go before it looks at anything else, and
    /// listens for an active-down interval before it acts.
    ///
    /// A backup is given that time once: one that is always late must take over all the same.
    fn was_absent(&mut self, now: Time, actions: &mut Vec<Action>) -> bool {
        match &self.role {
            Role::Active(tenure) if tenure.lapsed(now) => {
                actions.extend([Action::RemoveAddresses, Action::DrainReceived]);
                // The interval of whoever took over is unknown; that of the last active router is the best guess.
                self.active_interval = self.active_interval.max(self.settings.advertisement_interval);
                let backup = Backup::listening(now + self.active_down());
                self.change(Role::Backup(backup), "woke up after it may have been replaced".into(), actions);
                true
            }
            Role::Backup(backup) if !backup.was_late && now >= backup.active_down_at + self.active_interval => {
                actions.push(Action::DrainReceived);
                self.role = Role::Backup(Backup { was_late: true, ..Backup::listening(now + self.active_down()) });
                true
            }
            _ => false,
        }
    }

    fn advert_received(&mut self, received: Received, now: Time, actions: &mut Vec<Action>) {
        // Our own, sent back by the network.
        let own_address = self.own_address();
        if Some(received.source) == own_address {
            return;
        }
        let own_priority = self.priority();
        let obeyed = received.priority >= own_priority || !self.preempts(now);
        let skew = self.skew();
        match &mut self.role {
            // §6.4.2
            Role::Backup(backup) if received.priority == LETS_GO => {
                backup.active_down_at = now + skew;
                backup.let_go = true;
            }
            // §6.4.2
            Role::Backup(_) if obeyed => self.role = self.obey(received, now),
            // §6.4.2: the timer runs on, and ends with us being active.
            Role::Backup(backup) => backup.outranked = Some(received),
            // §6.4.3
            Role::Active(_) if (received.priority, Some(received.source)) > (own_priority, own_address) => {
                actions.push(Action::RemoveAddresses);
                let reason = format!("{} adverts with priority {}", received.source, received.priority);
                // Ours: the other may never have heard of us, and the segment believes us. Now it hears, and announces.
                actions.push(Action::SendAdvert { priority: own_priority });
                let backup = self.obey(received, now);
                self.change(backup, reason, actions);
            }
            // §6.4.3, for priority 0 and for lower priority alike.
            Role::Active(tenure) => {
                tenure.rival_heard(now, lease(received.advertisement_interval));
                if tenure.may_answer(now) {
                    tenure.advert_sent(now);
                    actions.push(Action::SendAdvert { priority: own_priority });
                }
                tenure.rival = (received.priority != LETS_GO).then_some(received);
            }
            Role::Init | Role::Fault(_) => {}
        }
    }

    /// A router that nobody can hear gives way to any that it hears, whatever the priorities, and stands back for a while. One
    /// that hears nobody may be the last that there is, and carries on.
    fn advert_not_sent(&mut self, why: &str, now: Time, actions: &mut Vec<Action>) {
        let Role::Active(Tenure { rival: Some(rival), since, .. }) = self.role else { return };
        actions.push(Action::RemoveAddresses);
        self.stand_back(since, now);
        let Received { source, priority, .. } = rival;
        let reason = format!("{source} adverts with priority {priority}, and our own adverts do not leave: {why}");
        let backup = self.obey(rival, now);
        self.change(backup, reason, actions);
    }

    fn obey(&mut self, received: Received, now: Time) -> Role {
        self.active_interval = received.advertisement_interval;
        let active_router = Some(received.source);
        Role::Backup(Backup { active_router, ..Backup::listening(now + self.active_down()) })
    }

    /// Link and eligibility are independent: either alone keeps this router out.
    fn conditions_changed(&mut self, now: Time, actions: &mut Vec<Action>) {
        if self.link.is_none() || self.eligible.is_none() {
            return;
        }
        match (self.obstacle().map(str::to_owned), &self.role) {
            (Some(reason), Role::Init | Role::Backup(_) | Role::Active(_)) => {
                self.let_go(actions);
                self.change(Role::Fault(Retry::WhenChanged), reason, actions);
            }
            (None, Role::Init | Role::Fault(Retry::WhenChanged)) => self.start(now, actions),
            (Some(_), Role::Fault(_)) | (None, Role::Fault(_) | Role::Backup(_) | Role::Active(_)) => {}
        }
    }

    /// It counts from the next advert on, ours or another's. The owner waits for none (§6.4.1).
    fn rank_changed(&mut self, ready: Result<(), String>, now: Time, actions: &mut Vec<Action>) {
        self.ready = ready;
        if matches!(self.role, Role::Backup(_)) && self.claims_at_once(now) {
            self.become_active(OWNS.into(), now, actions);
        }
    }

    fn claims_at_once(&self, now: Time) -> bool {
        self.priority() == OWNER && self.preempts(now)
    }

    /// §6.4.1
    fn start(&mut self, now: Time, actions: &mut Vec<Action>) {
        if self.claims_at_once(now) {
            self.become_active(OWNS.into(), now, actions);
            return;
        }
        self.active_interval = self.settings.advertisement_interval;
        let backup = Backup::listening(now + self.active_down());
        self.change(Role::Backup(backup), "ready, listening for an active router".into(), actions);
    }

    fn become_active(&mut self, reason: String, now: Time, actions: &mut Vec<Action>) {
        let rival = if let Role::Backup(backup) = &self.role { backup.outranked } else { None };
        let tenure = Tenure::begin(self.settings.advertisement_interval, rival, now);
        actions.push(Action::SendAdvert { priority: self.priority() });
        actions.push(tenure.lease_action());
        self.change(Role::Active(tenure), reason, actions);
    }

    /// The addresses cannot be held: let another router try, and do not take them back from it for a while.
    fn give_up(&mut self, retry: Retry, reason: String, now: Time, actions: &mut Vec<Action>) {
        let Role::Active(tenure) = &self.role else { return };
        self.stand_back(tenure.since, now);
        self.let_go(actions);
        self.change(Role::Fault(retry), reason, actions);
    }

    fn stand_back(&mut self, active_since: Time, now: Time) {
        let was_long = now >= active_since + YIELD_LIMIT;
        self.yielded_for = if was_long { YIELD } else { (2 * self.yielded_for).clamp(YIELD, YIELD_LIMIT) };
        self.yield_until = now + PAUSE + self.yielded_for;
    }

    /// §6.4.3, the shutdown event.
    fn let_go(&mut self, actions: &mut Vec<Action>) {
        if !matches!(self.role, Role::Active(_)) {
            return;
        }
        if self.own_address().is_some() {
            actions.push(Action::SendAdvert { priority: LETS_GO });
        }
        actions.push(Action::RemoveAddresses);
    }

    fn do_what_is_due(&mut self, now: Time, actions: &mut Vec<Action>) {
        let priority = self.priority();
        match &mut self.role {
            Role::Backup(backup) if now >= backup.active_down_at => {
                let reason = backup.why_it_ended();
                self.become_active(reason, now, actions);
            }
            Role::Active(tenure) if tenure.lease_unanswered(now) => {
                let reason = "the kernel did not answer in the time of a lease".into();
                self.give_up(Retry::WhenRemoved, reason, now, actions);
            }
            Role::Active(tenure) => {
                if tenure.advert_due(now) {
                    tenure.advert_sent(now);
                    actions.push(Action::SendAdvert { priority });
                }
                if tenure.refresh_due(now) {
                    tenure.lease_requested(now);
                    actions.push(tenure.lease_action());
                }
                if tenure.take_announcement_due(now) {
                    actions.push(Action::Announce);
                }
            }
            Role::Fault(Retry::At(retry_at)) if now >= *retry_at => {
                self.role = Role::Fault(Retry::WhenChanged);
                self.conditions_changed(now, actions);
            }
            Role::Init | Role::Backup(_) | Role::Fault(_) => {}
        }
    }

    fn change(&mut self, role: Role, reason: String, actions: &mut Vec<Action>) {
        let (from, to) = (self.role.state(), role.state());
        self.role = role;
        if from != to {
            actions.push(Action::Changed(Transition { from, to, reason }));
        }
    }

    /// Whether we take over from an active router of lower priority (RFC 9568 §6.1: the owner always does). Whatever else
    /// must keep a router from taking the addresses back, such as a switchover on purpose, belongs here.
    fn preempts(&self, now: Time) -> bool {
        now >= self.yield_until && (self.settings.preempt || self.settings.priority.get() == OWNER)
    }

    /// Skew_Time (RFC 9568 §6.1), ready or not: of several backups the same one comes first.
    fn skew(&self) -> Duration {
        self.active_interval * (256 - u32::from(self.settings.priority.get())) / 256
    }

    /// Active_Down_Interval (RFC 9568 §6.1).
    fn active_down(&self) -> Duration {
        3 * self.active_interval + self.skew()
    }
}

impl Role {
    fn state(&self) -> State {
        match self {
            Self::Init => State::Init,
            Self::Backup(_) => State::Backup,
            Self::Active(_) => State::Active,
            Self::Fault(_) => State::Fault,
        }
    }
}
