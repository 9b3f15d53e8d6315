//! Runs the elections of a node: the only file with tasks and timers.
//!
//! One task for each virtual router owns its [`Instance`] and waits for four things: its inbox, its deadline, a packet, and
//! the second in which counters are shown. Whichever wait is given up loses nothing: an inbox keeps its messages, a deadline
//! is absolute, a packet stays in its socket. Everything that may have to wait for the kernel happens on the netlink thread.

use std::io;
use std::net::Ipv4Addr;
use std::num::NonZeroU8;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;
use tracing::{error, warn};

use crate::advert_socket::{self, LONGEST_PACKET};
use crate::clock::{Alarm, InTime};
use crate::election::Event;
use crate::instance::Instance;
use crate::netlink::{self, Command, Input, Subscription};
use crate::rescue::{Charges, Due};
use crate::router::{RouterStatus, VirtualRouter};
use crate::thread_priority::ThreadPriority;

/// How long a handover may keep the process from ending.
const STOP_TIMEOUT: Duration = Duration::from_millis(100);
/// After a whole batch of packets: a flood of them leaves the thread to the timers, to the peer link and to other processes
/// (a real-time thread that never rests is killed by its limit).
const BREATH: Duration = Duration::from_millis(1);
/// Counters are shown as often.
const TICK: Duration = Duration::from_secs(1);

/// Why no election could be started.
#[derive(Debug, Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum StartError {
    #[error(
        "adverts cannot be sent without privilege: run as root, or with the capabilities CAP_NET_RAW and CAP_NET_ADMIN"
    )]
    NoPrivilege,
    #[error("cannot open a raw socket for adverts: {0}")]
    RawSocket(#[source] io::Error),
    #[error("cannot ask the kernel about interfaces: {0}")]
    Netlink(#[source] io::Error),
    #[error("cannot remove a virtual address that is left on an interface: {0}")]
    Remove(#[source] crate::address::Error),
    #[error("cannot start the netlink thread: {0}")]
    Thread(#[source] io::Error),
    #[error("cannot make a timer: {0}")]
    Timer(#[source] io::Error),
}

/// The elections of this node, running.
pub struct Driver {
    inboxes: Vec<Inbox>,
    commands: UnboundedSender<Command>,
    status: watch::Receiver<Vec<RouterStatus>>,
    tasks: JoinSet<()>,
    /// Looked after for as long as this is here.
    _charges: Arc<Charges>,
}

struct Inbox {
    name: String,
    virtual_router_id: NonZeroU8,
    sender: UnboundedSender<Input>,
}

impl Driver {
    /// Opens what the routers need and starts their elections on the current runtime. Virtual addresses that are on their
    /// interfaces already are removed, marked or not, where it is not all that an interface has: only an active router may hold
    /// them.
    ///
    /// An interface that is not there is no error: its router is in fault, says so, and takes part as soon as it appears.
    ///
    /// # Errors
    /// No election is possible here; nothing runs.
    pub async fn start(routers: Vec<VirtualRouter>) -> Result<Driver, StartError> {
        if !routers.is_empty() {
            advert_socket::permitted().map_err(|error| match error.kind() {
                io::ErrorKind::PermissionDenied => StartError::NoPrivilege,
                _ => StartError::RawSocket(error),
            })?;
        }
        let (commands, commands_receiver) = mpsc::unbounded_channel();
        let (status_sender, status) = watch::channel(vec![RouterStatus::default(); routers.len()]);
        let (mut inboxes, mut subscriptions, mut waiting) = (Vec::new(), Vec::new(), Vec::new());
        let mut charges = Charges::of_this_thread();
        for (place, router) in routers.into_iter().enumerate() {
            let (sender, receiver) = mpsc::unbounded_channel();
            let in_time = InTime::default();
            subscriptions.push(Subscription {
                name: router.name.clone(),
                interface: router.interface.clone(),
                addresses: router.addresses.as_slice().into(),
                in_time: in_time.clone(),
                inbox: sender.clone(),
            });
            let due = charges.add(router.advertisement_interval, sender.clone());
            inboxes.push(Inbox { name: router.name.clone(), virtual_router_id: router.virtual_router_id, sender });
            let instance = Instance::new(router, place, in_time, commands.clone(), status_sender.clone());
            waiting.push((instance, receiver, Alarm::new().map_err(StartError::Timer)?, due));
        }
        let priority = ThreadPriority::current().map_err(StartError::Thread)?;
        start_netlink_thread(priority, subscriptions, commands_receiver).await?;
        let mut tasks = JoinSet::new();
        for (instance, inbox, alarm, due) in waiting {
            tasks.spawn(run(instance, inbox, alarm, due));
        }
        let _charges = charges.look_after(priority).map_err(StartError::Thread)?;
        Ok(Driver { inboxes, commands, status, tasks, _charges })
    }

    /// Whether this node may be active: `Err` says why not. At first it may not.
    pub fn set_eligible(&self, eligible: Result<(), String>) {
        let event = match eligible {
            Ok(()) => Event::Eligible,
            Err(reason) => Event::Ineligible { reason },
        };
        self.tell(|_inbox| true, &event);
    }

    /// Whether this node may take the addresses of the router of this name from one that works, by its priority: `Err` says why
    /// not. At first it may.
    pub fn set_ready(&self, name: &str, ready: Result<(), String>) {
        let event = match ready {
            Ok(()) => Event::Ready,
            Err(reason) => Event::Unready { reason },
        };
        self.tell(|inbox| inbox.name == name, &event);
    }

    /// The router that adverts from `address` has let go, or is gone: known otherwise than by its adverts.
    pub fn router_gone(&self, virtual_router_id: NonZeroU8, address: Ipv4Addr, reason: &str) {
        let event = Event::RouterGone { address, reason: reason.to_owned() };
        self.tell(|inbox| inbox.virtual_router_id == virtual_router_id, &event);
    }

    /// Where adverts of this installation's nodes come from, as far as that is known otherwise than by those: they are obeyed even
    /// if they list other addresses.
    pub fn set_nodes(&self, nodes: &[Ipv4Addr]) {
        let nodes: Arc<[Ipv4Addr]> = nodes.into();
        for inbox in &self.inboxes {
            let _ = inbox.sender.send(Input::Nodes(nodes.clone()));
        }
    }

    /// Do all elections run, and the thread that changes addresses? One whose timer failed, or that panicked, does not.
    pub fn is_whole(&mut self) -> bool {
        while self.tasks.try_join_next().is_some() {}
        self.tasks.len() == self.inboxes.len() && !self.commands.is_closed()
    }

    /// What the routers are doing, in the order they were given: at once after each change of state, and counters within a
    /// second.
    pub fn status(&self) -> watch::Receiver<Vec<RouterStatus>> {
        self.status.clone()
    }

    /// Hands over: returns when the adverts that say so are sent and the addresses removed, or after 100 ms.
    pub async fn stop(mut self) {
        self.tell(|_inbox| true, &Event::Stop);
        let handed_over = async {
            while self.tasks.join_next().await.is_some() {}
            let (done, finished) = oneshot::channel();
            // If the thread is gone there is nobody to wait for.
            let _ = self.commands.send(Command::Finish { done });
            let _ = finished.await;
        };
        if tokio::time::timeout(STOP_TIMEOUT, handed_over).await.is_err() {
            warn!(
                "the kernel is slow to remove the virtual addresses; at the latest they go when their lease runs out"
            );
        }
    }

    fn tell(&self, whom: impl Fn(&Inbox) -> bool, event: &Event) {
        for inbox in self.inboxes.iter().filter(|inbox| whom(inbox)) {
            // A router whose timer failed has stopped, and logged why.
            let _ = inbox.sender.send(Input::Event(event.clone()));
        }
    }
}

async fn run(mut instance: Instance, mut inbox: UnboundedReceiver<Input>, mut alarm: Alarm, due: Due) {
    let mut buffer = [0; LONGEST_PACKET];
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut flooded = false;
    loop {
        let deadline = instance.next_deadline();
        due.show(deadline);
        tokio::select! {
            biased;
            input = inbox.recv() => match input {
                Some(Input::Event(Event::Stop)) | None => {
                    due.show(None);
                    return instance.stop();
                }
                Some(input) => instance.input(input),
            },
            reached = alarm.reached(deadline) => match reached {
                Ok(()) => instance.deadline_reached(&mut buffer),
                Err(error) => {
                    error!(%error, "a virtual router stops: its timer failed");
                    due.show(None);
                    return instance.stop();
                }
            },
            _ = tick.tick() => instance.tick(),
            () = tokio::time::sleep(BREATH), if flooded => flooded = false,
            received = instance.received(&mut buffer), if !flooded => {
                instance.receive(received);
                flooded = instance.receive_waiting(&mut buffer);
            }
        }
    }
}

async fn start_netlink_thread(
    priority: ThreadPriority,
    subscriptions: Vec<Subscription>,
    commands: UnboundedReceiver<Command>,
) -> Result<(), StartError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(StartError::Thread)?;
    let (started, has_started) = oneshot::channel();
    let life = move || {
        if let Err(error) = priority.adopt() {
            warn!(%error, "the netlink thread runs without real-time priority; under load a takeover may be late");
        }
        runtime.block_on(netlink::run(subscriptions, commands, started));
    };
    std::thread::Builder::new().name("netlink".to_owned()).spawn(life).map_err(StartError::Thread)?;
    let ended = |_closed| StartError::Thread(io::Error::other("it ended at once"));
    has_started.await.map_err(ended)?
}
