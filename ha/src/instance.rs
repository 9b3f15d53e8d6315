//! One virtual router on this node: its election, the sockets that election acts through, and what is told of both.

mod claims;
mod sending;

use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;

use tokio::sync::{mpsc::UnboundedSender, watch};
use tracing::{info, warn};

use crate::advert_socket::{AdvertSockets, LONGEST_PACKET};
use crate::announce::Announcer;
use crate::clock::{self, InTime};
use crate::conflict::Conflicts;
use crate::election::{Action, Election, Event, Settings, Time, Transition};
use crate::link::{Interface, InterfaceState};
use crate::netlink::{Command, Input, Opened};
use crate::prober::Prober;
use crate::reception::Reception;
use crate::router::{RouterStatus, State, VirtualRouter};

/// Adverts handled at one go: a flood of them must not keep the timer waiting.
const BATCH: usize = 32;
/// A receive queue holds no more than some hundred packets; a flood might refill it while it is drained.
const DRAINED_AT_MOST: usize = 4096;
/// Why there is nothing yet.
const STARTING: &str = "starting";

/// See the first line.
pub(crate) struct Instance {
    router: VirtualRouter,
    /// Place in the status and among the subscriptions of the netlink thread.
    place: usize,
    election: Election,
    actions: Vec<Action>,
    interface: InterfaceState,
    sockets: Option<Sockets>,
    /// Counts how often the addresses were given up: an answer about those of an earlier time is no news.
    tenure: u64,
    in_time: InTime,
    commands: UnboundedSender<Command>,
    status: watch::Sender<Vec<RouterStatus>>,
    shown: RouterStatus,
    reception: Reception,
    /// Where adverts of this installation's nodes come from, as far as it is known otherwise.
    nodes: Arc<[Ipv4Addr]>,
    /// The same, by their adverts.
    routers_heard: Vec<Ipv4Addr>,
    conflicts: Conflicts,
    /// It was never active, and never heard an active router.
    is_starting: bool,
    /// In fault, since another host has an address.
    held_back: bool,
    /// The error numbers that were logged, until it works again.
    send_error: Option<i32>,
    announce_error: Option<i32>,
}

struct Sockets {
    interface: Interface,
    adverts: AdvertSockets,
    announcer: Announcer,
    prober: Prober,
}

impl Instance {
    pub(crate) fn new(
        router: VirtualRouter,
        place: usize,
        in_time: InTime,
        commands: UnboundedSender<Command>,
        status: watch::Sender<Vec<RouterStatus>>,
    ) -> Instance {
        let settings = Settings {
            priority: router.priority,
            advertisement_interval: router.advertisement_interval,
            preempt: router.preempt,
        };
        let election = Election::new(settings, clock::now());
        let shown = RouterStatus {
            name: router.name.clone(),
            virtual_router_id: router.virtual_router_id.get(),
            interface: router.interface.clone(),
            state: election.state(),
            priority: router.priority.get(),
            addresses: router.addresses.iter().map(ToString::to_string).collect(),
            since: timestamp(),
            reason: STARTING.to_owned(),
            ..RouterStatus::default()
        };
        let interface = InterfaceState::Unusable { reason: STARTING.to_owned() };
        let mut instance = Instance {
            router,
            place,
            election,
            actions: Vec::new(),
            interface,
            sockets: None,
            tenure: 0,
            in_time,
            commands,
            status,
            shown,
            reception: Reception::default(),
            nodes: Arc::default(),
            routers_heard: Vec::new(),
            conflicts: Conflicts::default(),
            is_starting: true,
            held_back: false,
            send_error: None,
            announce_error: None,
        };
        instance.handle(Event::Ineligible { reason: STARTING.to_owned() });
        instance.publish();
        instance
    }

    pub(crate) fn next_deadline(&self) -> Option<Time> {
        self.election.next_deadline()
    }

    /// Takes what the inbox held.
    pub(crate) fn input(&mut self, input: Input) {
        match input {
            Input::Interface(state) => {
                self.interface = state;
                self.follow_interface();
            }
            Input::Opened(opened) => self.opened(opened),
            Input::Leased { tenure, .. } | Input::Removed { tenure } if tenure != self.tenure => return,
            Input::Removed { .. } => self.handle(Event::AddressesRemoved),
            Input::Leased { answer: Ok(()), .. } => self.handle(Event::AddressesTaken),
            Input::Leased { answer: Err(reason), .. } => self.handle(Event::AddressRefused { reason }),
            Input::Event(event) => {
                self.say_what_is_lost(&event);
                self.handle(event);
            }
            Input::Nodes(nodes) => self.nodes = nodes,
            Input::Late => self.deadline_reached(&mut [0; LONGEST_PACKET]),
        }
        self.publish();
    }

    /// The deadline was reached. What arrived before is heard first: a process that the scheduler kept waiting must not
    /// mistake its own lateness for its peer's silence.
    pub(crate) fn deadline_reached(&mut self, buffer: &mut [u8; LONGEST_PACKET]) {
        self.receive_waiting(buffer);
        let is_due = self.election.next_deadline().is_some_and(|deadline| deadline <= clock::now());
        if is_due && !self.is_held_back() {
            self.handle(Event::Timer);
        }
    }

    /// Waits for a packet. Nothing is lost when the wait is given up.
    pub(crate) async fn received<'a>(&self, buffer: &'a mut [u8; LONGEST_PACKET]) -> io::Result<&'a [u8]> {
        match &self.sockets {
            Some(sockets) => sockets.adverts.received(buffer).await,
            None => std::future::pending().await,
        }
    }

    /// Takes what [`received`](Self::received) returned.
    pub(crate) fn receive(&mut self, received: io::Result<&[u8]>) {
        match received {
            Ok(packet) => self.packet(packet),
            Err(error) => {
                self.link_down(format!("cannot receive adverts on {}: {error}", self.router.interface));
                self.close();
            }
        }
    }

    /// Takes what waits behind it, up to a batch; true if even more may wait.
    pub(crate) fn receive_waiting(&mut self, buffer: &mut [u8; LONGEST_PACKET]) -> bool {
        for _ in 0..BATCH {
            match self.sockets.as_ref().map(|sockets| sockets.adverts.waiting(buffer)) {
                Some(Ok(Some(packet))) => self.packet(packet),
                Some(Err(error)) => {
                    self.receive(Err(error));
                    return false;
                }
                Some(Ok(None)) | None => return false,
            }
        }
        true
    }

    /// Once a second: what failed is tried again, and the counters are shown.
    pub(crate) fn tick(&mut self) {
        if self.sockets.is_none() {
            self.follow_interface();
        }
        self.reception.others.look(&self.router, clock::now());
        self.shown.other_routers = self.reception.others.shown();
        self.look_for_claims();
        self.publish();
    }

    fn say_what_is_lost(&self, event: &Event) {
        let Event::AddressLost(address) = event else { return };
        if self.election.state() == State::Active {
            let VirtualRouter { name, interface, .. } = &self.router;
            warn!(router = name, interface, %address, "another program has removed a virtual address, which is put back");
        }
    }

    fn follow_interface(&mut self) {
        let interface = match &self.interface {
            InterfaceState::Usable(interface) => *interface,
            InterfaceState::Unusable { reason } => return self.link_down(reason.clone()),
        };
        if self.sockets.as_ref().is_some_and(|sockets| sockets.interface.index != interface.index) {
            self.link_down(format!("interface {} was replaced by another of the same name", self.router.interface));
            self.close();
        }
        let Some(sockets) = &mut self.sockets else {
            return self.ask(Command::Open { router: self.place, interface_index: interface.index });
        };
        let moved = sockets.interface.hardware_address != interface.hardware_address;
        sockets.interface = interface;
        if moved && self.shown.state == State::Active {
            self.announce();
        }
        if !self.held_back && self.shown.own_address != Some(interface.own_address) {
            self.shown.own_address = Some(interface.own_address);
            self.handle(Event::LinkUp { own_address: interface.own_address });
        }
    }

    fn opened(&mut self, opened: io::Result<Opened>) {
        let InterfaceState::Usable(interface) = self.interface else { return };
        let watched = opened.and_then(|opened| {
            let Opened { interface_index, adverts, announcer, prober } = opened;
            Ok((interface_index, Sockets { interface, adverts: AdvertSockets::watch(adverts)?, announcer, prober }))
        });
        match watched {
            Ok((index, sockets)) if index == interface.index && self.sockets.is_none() => {
                self.sockets = Some(sockets);
                self.follow_interface();
            }
            // Asked for twice, or for an interface that has been replaced since.
            Ok((_, sockets)) => self.ask(Command::Close(sockets.adverts, sockets.prober)),
            Err(error) => {
                self.link_down(format!("cannot open the sockets for adverts on {}: {error}", self.router.interface));
            }
        }
    }

    /// Hands over.
    pub(crate) fn stop(&mut self) {
        self.handle(Event::Stop);
        self.close();
    }

    fn close(&mut self) {
        if let Some(sockets) = self.sockets.take() {
            self.ask(Command::Close(sockets.adverts, sockets.prober));
        }
    }

    fn link_down(&mut self, reason: String) {
        self.shown.own_address = None;
        self.handle(Event::LinkDown { reason });
    }

    pub(crate) fn handle(&mut self, event: Event) {
        let mut actions = std::mem::take(&mut self.actions);
        self.election.handle(event, clock::now(), &mut actions);
        self.in_time.set(self.election.replaceable_at());
        let mut unsent = None;
        for action in actions.drain(..) {
            unsent = self.act(action).err().or(unsent);
        }
        self.actions = actions;
        if let Some(reason) = unsent
            && self.election.state() == State::Active
        {
            self.handle(Event::AdvertNotSent { reason });
        }
        if self.election.active_router() != self.shown.active_router {
            self.publish();
        }
    }

    /// The error: an advert could be sent to nobody.
    fn act(&mut self, action: Action) -> Result<(), String> {
        match action {
            Action::SendAdvert { priority } => return self.send_advert(priority),
            // How late it may be carried out is told by `in_time`, as of then.
            Action::Lease { seconds } => {
                let tenure = self.tenure;
                self.command(|router, interface_index| Command::Lease { router, interface_index, seconds, tenure });
            }
            Action::RemoveAddresses => {
                self.tenure += 1;
                let tenure = self.tenure;
                self.command(|router, interface_index| Command::Remove { router, interface_index, tenure });
            }
            Action::Announce => self.announce(),
            Action::DrainReceived => self.drain(),
            Action::Changed(transition) => self.changed(transition),
        }
        Ok(())
    }

    fn command(&self, command: impl FnOnce(usize, u32) -> Command) {
        let Some(sockets) = &self.sockets else { return };
        self.ask(command(self.place, sockets.interface.index));
    }

    fn ask(&self, command: Command) {
        // The thread ends only after it has told every router that its interface cannot be used.
        let _ = self.commands.send(command);
    }

    fn drain(&mut self) {
        let Some(sockets) = &self.sockets else { return };
        let mut buffer = [0; LONGEST_PACKET];
        for _ in 0..DRAINED_AT_MOST {
            if !matches!(sockets.adverts.waiting(&mut buffer), Ok(Some(_))) {
                return;
            }
        }
    }

    fn packet(&mut self, packet: &[u8]) {
        let judged = self.reception.judge(packet, &self.router, &self.nodes, self.shown.own_address, clock::now());
        if let Some(advert) = judged {
            if advert.priority > 0 && Some(advert.source) != self.shown.own_address {
                self.active_one_heard(advert.source);
            }
            self.handle(Event::Advert(advert));
        }
    }

    fn changed(&mut self, transition: Transition) {
        let Transition { from, to, reason } = transition;
        let VirtualRouter { name, interface, .. } = &self.router;
        // That it waited for its balancer was no fault.
        let from = if self.shown.reason == STARTING { State::Init } else { from };
        match &self.interface {
            _ if reason == STARTING => info!(router = name, interface, "virtual router {name} starts"),
            InterfaceState::Unusable { .. } if to == State::Fault => {
                warn!(router = name, interface, %from, %to, reason, "virtual router {name} is now {to}");
            }
            _ => info!(router = name, interface, %from, %to, reason, "virtual router {name} is now {to}"),
        }
        self.shown.state = to;
        self.shown.since = timestamp();
        self.shown.reason = reason;
        self.shown.transitions += 1;
        self.is_starting &= to != State::Active;
        if to == State::Backup {
            self.probe();
        }
        self.publish();
    }

    /// Shows the present state, where it is not shown already.
    fn publish(&mut self) {
        if let (State::Fault, Some(obstacle)) = (self.shown.state, self.election.obstacle())
            && self.shown.reason != obstacle
        {
            self.shown.reason = obstacle.to_owned();
        }
        self.shown.adverts_received = self.reception.accepted;
        self.shown.adverts_rejected = self.reception.rejected;
        self.shown.adverts_of_others = self.reception.others.adverts;
        self.shown.active_router = self.election.active_router();
        self.shown.effective_priority = if self.shown.state == State::Fault { 0 } else { self.election.priority() };
        self.shown.unready_because = self.election.unready_because().map(str::to_owned);
        self.status.send_if_modified(|routers| match routers.get_mut(self.place) {
            Some(shown) if *shown != self.shown => {
                shown.clone_from(&self.shown);
                true
            }
            _ => false,
        });
    }
}

/// Now, by the calendar.
fn timestamp() -> String {
    format!("{:.3}", jiff::Timestamp::now())
}
