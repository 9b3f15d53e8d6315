//! The thread that talks to the kernel about addresses and interfaces, so that the thread of the elections never waits for
//! the kernel's lock: it opens and closes sockets, changes addresses in the order it is asked to, and tells what happens to
//! interfaces.

use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};
use tokio::sync::oneshot;
use tracing::{debug, error, info, warn};

use crate::address::{Addresses, Error};
use crate::advert_socket::{AdvertSockets, OpenedSockets};
use crate::announce::Announcer;
use crate::clock::InTime;
use crate::driver::StartError;
use crate::election::Event;
use crate::interface_settings;
use crate::link::{InterfaceState, Removed, Watcher, is_overrun};
use crate::prober::Prober;
use crate::router::VirtualAddress;

/// What a virtual router is told.
#[derive(Debug)]
pub(crate) enum Input {
    /// Its interface is as follows.
    Interface(InterfaceState),
    /// What it asked to be opened.
    Opened(io::Result<Opened>),
    /// Whether the kernel has taken the addresses, or why not.
    Leased {
        /// As asked.
        tenure: u64,
        answer: Result<(), String>,
    },
    /// The addresses are removed, or what is left of them ends with its lease.
    Removed {
        /// As asked.
        tenure: u64,
    },
    /// Its deadline has long been reached.
    Late,
    /// Where adverts of this installation's nodes come from.
    Nodes(Arc<[Ipv4Addr]>),
    /// Something for its election.
    Event(Event),
}

/// The sockets of a virtual router.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) interface_index: u32,
    pub(crate) adverts: OpenedSockets,
    pub(crate) announcer: Announcer,
    pub(crate) prober: Prober,
}

impl Opened {
    fn open(interface: &str, interface_index: u32) -> io::Result<Opened> {
        let adverts = OpenedSockets::open(interface, interface_index)?;
        let announcer = Announcer::open(interface_index)?;
        Ok(Opened { interface_index, adverts, announcer, prober: Prober::open(interface_index)? })
    }
}

/// A virtual router's wish.
#[derive(Debug)]
pub(crate) enum Command {
    /// Open its sockets; answered by [`Input::Opened`].
    Open { router: usize, interface_index: u32 },
    /// Close these, which leaves a group and a list of the kernel: that waits for its lock too.
    Close(AdvertSockets, Prober),
    /// Add or refresh every address; answered by [`Input::Leased`]. When it is too late none is there afterwards, and no answer is
    /// given: the election of a router that is too late knows by itself.
    Lease {
        /// Place in the subscriptions.
        router: usize,
        interface_index: u32,
        seconds: u32,
        /// Comes back with the answer.
        tenure: u64,
    },
    /// Remove every address; answered by [`Input::Removed`].
    Remove {
        /// Place in the subscriptions.
        router: usize,
        interface_index: u32,
        /// Comes back with the answer.
        tenure: u64,
    },
    /// End, when everything asked before is done.
    Finish { done: oneshot::Sender<()> },
}

/// What a virtual router wants to be told about, and where.
#[derive(Debug, Clone)]
pub(crate) struct Subscription {
    pub(crate) name: String,
    pub(crate) interface: String,
    pub(crate) addresses: Arc<[VirtualAddress]>,
    pub(crate) in_time: InTime,
    pub(crate) inbox: UnboundedSender<Input>,
}

impl Subscription {
    fn tell(&self, input: Input) {
        // It may have stopped.
        let _ = self.inbox.send(input);
    }
}

/// Before the kernel is asked anew after it failed.
const PAUSE: Duration = Duration::from_secs(1);

/// The thread's life. `started` is told when every router has the state of its interface in its inbox.
pub(crate) async fn run(
    subscriptions: Vec<Subscription>,
    mut commands: UnboundedReceiver<Command>,
    started: oneshot::Sender<Result<(), StartError>>,
) {
    let mut netlink = match Netlink::start(subscriptions).await {
        Ok(netlink) => netlink,
        Err(error) => {
            let _ = started.send(Err(error));
            return;
        }
    };
    let _ = started.send(Ok(()));
    while let Err(error) = netlink.serve(&mut commands).await {
        error!(%error, "the kernel does not tell of interfaces and addresses; this node holds none until it does");
        netlink.fail(&format!("netlink failed: {error}"));
        tokio::time::sleep(PAUSE).await;
        while let Err(error) = netlink.reopen().await {
            debug!(%error, "the kernel still does not tell of interfaces and addresses");
            tokio::time::sleep(PAUSE).await;
        }
    }
}

struct Netlink {
    addresses: Addresses,
    watcher: Watcher,
    subscriptions: Vec<Subscription>,
    /// Of all routers: none of them is an interface's own address.
    virtual_addresses: Vec<VirtualAddress>,
    /// What each router was told last.
    told: Vec<Option<InterfaceState>>,
    /// By router: its addresses are to be there.
    holds: Vec<bool>,
}

impl Netlink {
    async fn start(subscriptions: Vec<Subscription>) -> Result<Netlink, StartError> {
        let mut netlink = Netlink {
            addresses: Addresses::open().map_err(StartError::Netlink)?,
            watcher: Watcher::open().map_err(StartError::Netlink)?,
            virtual_addresses: subscriptions.iter().flat_map(|subscription| subscription.addresses.to_vec()).collect(),
            told: vec![None; subscriptions.len()],
            holds: vec![false; subscriptions.len()],
            subscriptions,
        };
        netlink.watcher.resync(netlink.addresses.handle()).await.map_err(StartError::Netlink)?;
        netlink.tell_changes().await.map_err(StartError::Remove)?;
        Ok(netlink)
    }

    /// Removes virtual addresses that somebody gave an interface, while its router does not hold them: they would stay while
    /// another one is active. Not from an interface that has no other: that takes a host off its network, and is a mistake in
    /// the configuration.
    async fn remove_strangers(&self) -> Result<(), crate::address::Error> {
        for (subscription, (told, holds)) in self.subscriptions.iter().zip(self.told.iter().zip(&self.holds)) {
            if *holds {
                continue;
            }
            let takes_part = matches!(told, Some(InterfaceState::Usable(_)));
            let table = self.watcher.table();
            let Some(index) = table.index(&subscription.interface) else { continue };
            for address in table.dispensable(index, &subscription.addresses, &self.virtual_addresses) {
                let Subscription { name, interface, .. } = subscription;
                if !self.addresses.remove(index, address).await? {
                    continue;
                }
                match takes_part {
                    true => {
                        warn!(router = name, interface, %address, "removed a virtual address that another program has added; only the active router may hold it")
                    }
                    false => {
                        warn!(router = name, interface, %address, "removed a virtual address that was there already; only the active router may hold it")
                    }
                }
            }
        }
        Ok(())
    }

    /// Every router lets go; what it asks for is done when the kernel answers again, and until then the leases run out.
    fn fail(&mut self, reason: &str) {
        for (subscription, told) in self.subscriptions.iter().zip(&mut self.told) {
            let state = InterfaceState::Unusable { reason: reason.to_owned() };
            subscription.tell(Input::Interface(state.clone()));
            *told = Some(state);
        }
    }

    async fn reopen(&mut self) -> io::Result<()> {
        self.addresses = Addresses::open()?;
        self.watcher = Watcher::open()?;
        self.watcher.resync(self.addresses.handle()).await?;
        self.tell_changes().await.map_err(io::Error::other)
    }

    /// Until it is to end.
    async fn serve(&mut self, commands: &mut UnboundedReceiver<Command>) -> io::Result<()> {
        loop {
            tokio::select! {
                biased;
                command = commands.recv() => match command {
                    Some(Command::Open { router, interface_index }) => self.open(router, interface_index).await,
                    Some(Command::Close(adverts, prober)) => drop((adverts, prober)),
                    Some(Command::Lease { router, interface_index, seconds, tenure }) => {
                        self.lease(router, interface_index, seconds, tenure).await;
                    }
                    Some(Command::Remove { router, interface_index, tenure }) => {
                        self.remove(router, interface_index).await;
                        if let Some(subscription) = self.subscriptions.get(router) {
                            subscription.tell(Input::Removed { tenure });
                        }
                    }
                    Some(Command::Finish { done }) => {
                        let _ = done.send(());
                        return Ok(());
                    }
                    None => return Ok(()),
                },
                event = self.watcher.received() => self.event(event).await?,
            }
        }
    }

    async fn open(&self, router: usize, interface_index: u32) {
        let Some(subscription) = self.subscriptions.get(router) else { return };
        // Now already, so that a takeover need not wait for it.
        if let Err(error) = interface_settings::apply(self.addresses.handle(), interface_index).await {
            let Subscription { name, interface, .. } = subscription;
            warn!(router = name, interface, %error, "cannot set arp_announce and promote_secondaries of the interface");
        }
        subscription.tell(Input::Opened(Opened::open(&subscription.interface, interface_index)));
    }

    async fn lease(&mut self, router: usize, interface_index: u32, seconds: u32, tenure: u64) {
        let Some(subscription) = self.subscriptions.get(router).cloned() else { return };
        self.set_holds(router, true);
        for &address in subscription.addresses.iter() {
            match self.addresses.lease(interface_index, address, seconds, &subscription.in_time).await {
                Ok(()) => (),
                Err(error @ Error::TooLate(_)) => {
                    let Subscription { name, interface, .. } = subscription;
                    info!(router = name, interface, %error, "a virtual address is not taken");
                    return self.remove(router, interface_index).await;
                }
                Err(error) => {
                    return subscription.tell(Input::Leased { tenure, answer: Err(error.to_string()) });
                }
            }
        }
        subscription.tell(Input::Leased { tenure, answer: Ok(()) });
    }

    async fn remove(&mut self, router: usize, interface_index: u32) {
        self.set_holds(router, false);
        let Some(subscription) = self.subscriptions.get(router) else { return };
        for &address in subscription.addresses.iter() {
            if let Err(error) = self.addresses.remove(interface_index, address).await {
                let Subscription { name, interface, .. } = subscription;
                error!(router = name, interface, %error, "a virtual address stays until its lease runs out");
            }
        }
    }

    fn set_holds(&mut self, router: usize, holds: bool) {
        if let Some(held) = self.holds.get_mut(router) {
            *held = holds;
        }
    }

    async fn event(&mut self, event: io::Result<Vec<u8>>) -> io::Result<()> {
        match event.and_then(|datagram| self.watcher.apply(&datagram)) {
            Ok(removed) => removed.into_iter().for_each(|removed| self.tell_removed(removed)),
            Err(error) if is_overrun(&error) => {
                info!("the kernel's events came faster than they were read; all interfaces are read anew");
                self.watcher.resync(self.addresses.handle()).await?;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => (),
            Err(error) => return Err(error),
        }
        self.tell_changes().await.map_err(io::Error::other)
    }

    /// By whomever: with the first address of a subnet the kernel removes those that were added after it, so our own
    /// removal for one router may cost another its address. A router that has let go does not mind.
    fn tell_removed(&self, removed: Removed) {
        let is_back = |address| address == removed.address;
        if self.watcher.table().entries(removed.interface_index, removed.address.address).any(is_back) {
            return;
        }
        for subscription in &self.subscriptions {
            let is_its_interface = self.watcher.table().index(&subscription.interface) == Some(removed.interface_index);
            if is_its_interface && subscription.addresses.contains(&removed.address) {
                subscription.tell(Input::Event(Event::AddressLost(removed.address)));
            }
        }
    }

    async fn tell_changes(&mut self) -> Result<(), crate::address::Error> {
        self.remove_strangers().await?;
        for (subscription, told) in self.subscriptions.iter().zip(&mut self.told) {
            let state = self.watcher.table().state(&subscription.interface, &self.virtual_addresses);
            if told.as_ref() != Some(&state) {
                subscription.tell(Input::Interface(state.clone()));
                *told = Some(state);
            }
        }
        Ok(())
    }
}
