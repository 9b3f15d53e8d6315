//! The thread that talks to the kernel about addresses and interfaces, so that the thread of the elections never waits for
//! the kernel's lock: it changes addresses in the order it is asked to, and tells what happens to interfaces.

use std::io;
use std::sync::Arc;

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};
use tokio::sync::oneshot;
use tracing::{error, info, warn};

use crate::address::{Addresses, Error};
use crate::clock::InTime;
use crate::driver::StartError;
use crate::election::Event;
use crate::link::{InterfaceState, Removed, Watcher, is_overrun};
use crate::router::VirtualAddress;

/// What a virtual router is told.
#[derive(Debug)]
pub(crate) enum Input {
    /// Its interface is as follows.
    Interface(InterfaceState),
    /// Something for its election.
    Event(Event),
}

/// A virtual router's wish.
#[derive(Debug)]
pub(crate) enum Command {
    /// Add or refresh every address; answered by an event. When it is too late none is there afterwards, and no answer is
    /// given: the election of a router that is too late knows by itself.
    Lease {
        /// Place in the subscriptions.
        router: usize,
        interface_index: u32,
        seconds: u32,
    },
    /// Remove every address.
    Remove { router: usize, interface_index: u32 },
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

/// The thread's life. `started` is told when every router has the state of its interface in its inbox.
pub(crate) async fn run(
    subscriptions: Vec<Subscription>,
    commands: UnboundedReceiver<Command>,
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
    if let Err(error) = netlink.serve(commands).await {
        error!(%error, "the kernel tells no more of interfaces and addresses; this node can hold none until it is restarted");
        let reason = format!("netlink failed: {error}");
        for subscription in &netlink.subscriptions {
            subscription.tell(Input::Interface(InterfaceState::Unusable { reason: reason.clone() }));
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
}

impl Netlink {
    async fn start(subscriptions: Vec<Subscription>) -> Result<Netlink, StartError> {
        let mut netlink = Netlink {
            addresses: Addresses::open().map_err(StartError::Netlink)?,
            watcher: Watcher::open().map_err(StartError::Netlink)?,
            virtual_addresses: subscriptions.iter().flat_map(|subscription| subscription.addresses.to_vec()).collect(),
            told: vec![None; subscriptions.len()],
            subscriptions,
        };
        netlink.watcher.resync(netlink.addresses.handle()).await.map_err(StartError::Netlink)?;
        netlink.remove_strangers().await?;
        netlink.tell_changes();
        Ok(netlink)
    }

    /// Removes virtual addresses that somebody gave an interface for good: they would stay while another router is active.
    async fn remove_strangers(&self) -> Result<(), StartError> {
        for subscription in &self.subscriptions {
            let Some(index) = self.watcher.table().index(&subscription.interface) else { continue };
            for &address in subscription.addresses.iter() {
                let Subscription { name, interface, .. } = subscription;
                if self.addresses.remove(index, address).await.map_err(StartError::Remove)? {
                    warn!(router = name, interface, %address, "removed a virtual address that was there already; only the active router may hold it");
                }
            }
        }
        Ok(())
    }

    async fn serve(&mut self, mut commands: UnboundedReceiver<Command>) -> io::Result<()> {
        loop {
            tokio::select! {
                biased;
                command = commands.recv() => match command {
                    Some(Command::Lease { router, interface_index, seconds }) => {
                        self.lease(router, interface_index, seconds).await;
                    }
                    Some(Command::Remove { router, interface_index }) => self.remove(router, interface_index).await,
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

    async fn lease(&self, router: usize, interface_index: u32, seconds: u32) {
        let Some(subscription) = self.subscriptions.get(router) else { return };
        for &address in subscription.addresses.iter() {
            match self.addresses.lease(interface_index, address, seconds, &subscription.in_time).await {
                Ok(()) => (),
                Err(error @ Error::TooLate(_)) => {
                    let Subscription { name, interface, .. } = subscription;
                    info!(router = name, interface, %error, "a virtual address is not taken");
                    return self.remove(router, interface_index).await;
                }
                Err(error) => {
                    return subscription.tell(Input::Event(Event::AddressRefused { reason: error.to_string() }));
                }
            }
        }
        subscription.tell(Input::Event(Event::AddressesTaken));
    }

    async fn remove(&self, router: usize, interface_index: u32) {
        let Some(subscription) = self.subscriptions.get(router) else { return };
        for &address in subscription.addresses.iter() {
            if let Err(error) = self.addresses.remove(interface_index, address).await {
                let Subscription { name, interface, .. } = subscription;
                error!(router = name, interface, %error, "a virtual address stays until its lease runs out");
            }
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
        self.tell_changes();
        Ok(())
    }

    fn tell_removed(&self, removed: Removed) {
        if removed.by_port == self.addresses.port {
            return;
        }
        for subscription in &self.subscriptions {
            let is_its_interface = self.watcher.table().index(&subscription.interface) == Some(removed.interface_index);
            if is_its_interface && subscription.addresses.contains(&removed.address) {
                subscription.tell(Input::Event(Event::AddressLost(removed.address)));
            }
        }
    }

    fn tell_changes(&mut self) {
        for (subscription, told) in self.subscriptions.iter().zip(&mut self.told) {
            let state = self.watcher.table().state(&subscription.interface, &self.virtual_addresses);
            if told.as_ref() != Some(&state) {
                subscription.tell(Input::Interface(state.clone()));
                *told = Some(state);
            }
        }
    }
}
