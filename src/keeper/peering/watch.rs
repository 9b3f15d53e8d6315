//! Watches one peer over the connection this node dialled: its states, its goodbye, its death.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, timeout};
use tracing::{info, warn};

use super::channel::{Channel, ChannelError};
use super::liveness::Liveness;
use super::message::{Goodbye, Hello, Message, Refused, Sessions, Told, Wishes};
use super::retry::{Failure, Retry};
use super::{Identity, PeerEvent, objection, socket};
use crate::status::{NodeStatus, PeerStatus};

/// For a connection, and again for the handshake and the peer's [`Hello`].
const PATIENCE: Duration = Duration::from_secs(1);

/// Three states that did not come: the peer hangs, or the way to it does.
const SILENCE: Duration = Duration::from_millis(3500);

/// It is looked so often whether one came: what is longer between two looks is this process's own absence, and no silence.
const LOOK: Duration = Duration::from_millis(500);

/// For a peer that starts with this node.
pub(super) const START: Duration = Duration::from_secs(10);

/// Reasons that are remembered as logged.
const REASONS: usize = 8;

/// One watched peer.
pub(super) struct Watch {
    pub(super) identity: Arc<Identity>,
    pub(super) name: String,
    pub(super) address: SocketAddr,
    /// Its place in `peers`.
    pub(super) index: usize,
    pub(super) peers: Arc<watch::Sender<Vec<PeerStatus>>>,
    pub(super) events: mpsc::Sender<PeerEvent>,
    /// Why it need not be there.
    pub(super) excuse: Excuse,
    /// A keeper was met at this address.
    pub(super) was_linked: bool,
    /// Since the link was up: a host that is off is silent, then unreachable, then silent again.
    pub(super) logged: Vec<String>,
}

/// Of a peer that is not there. That it is not is then no warning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Excuse {
    None,
    /// It was never up, and may start a little later than this node: until then.
    Starts(Instant),
    /// It has said goodbye.
    SaidGoodbye,
}

/// What came, or why nothing can come.
type Received = Result<Message, ChannelError>;

/// A link that is up.
struct Linked {
    channel: Channel,
    hello: Hello,
    /// What it said first.
    first: Received,
}

/// How a link that was established ended.
enum End {
    Goodbye(Goodbye),
    Lost(ChannelError),
}

impl Watch {
    /// Never returns.
    pub(super) async fn run(mut self) {
        let mut liveness = Liveness::new(self.name.clone());
        let mut retry = Retry::default();
        loop {
            let pause = match self.dial().await {
                Ok(Linked { channel, hello, first }) => {
                    let since = Instant::now();
                    liveness.linked(&hello);
                    info!(peer = self.name, address = %self.address, version = hello.version, "the peer link is up");
                    self.logged.clear();
                    (self.excuse, self.was_linked) = (Excuse::None, true);
                    self.publish(|peer| welcome(peer, &self.identity, &hello));
                    match self.follow(channel, first, &mut liveness).await {
                        End::Goodbye(Goodbye { reason, is_planned }) => {
                            self.says_goodbye(&reason, is_planned);
                            self.publish(|peer| (peer.gone, peer.goodbye) = (true, reason.clone()));
                            self.emit(liveness.said_goodbye(&reason)).await;
                            retry.after_goodbye()
                        }
                        End::Lost(error) => {
                            self.down(format!("the link was lost: {error}"));
                            retry.after_loss(since.elapsed())
                        }
                    }
                }
                Err((failure, reason)) => {
                    let refused = failure == Failure::Refused;
                    let is_absent = refused || failure == Failure::Absent;
                    match self.excuse {
                        Excuse::Starts(limit) if is_absent && Instant::now() < limit => self.not_yet_up(reason),
                        Excuse::SaidGoodbye if is_absent => self.publish_lost(&reason),
                        Excuse::Starts(_) | Excuse::SaidGoodbye | Excuse::None => self.down(reason),
                    }
                    // Where none was ever met nobody knows whether it runs: the address may be wrong.
                    self.publish_gone(refused && self.was_linked);
                    if refused {
                        self.emit(liveness.refused()).await;
                    }
                    retry.after(failure)
                }
            };
            // Even a timer that has run out may cost a millisecond, and a death is to be seen within one.
            if !pause.is_zero() {
                sleep(pause).await;
            }
        }
    }

    /// A link that the peer has accepted, or why there is none, in words too.
    async fn dial(&self) -> Result<Linked, (Failure, String)> {
        let address = self.address;
        let silent = |_| {
            (Failure::Absent, format!("{address} does not answer: its host is down, or a firewall drops that port"))
        };
        let connecting = socket::connect(self.identity.source, address, self.identity.first_descriptor);
        let stream = timeout(PATIENCE, connecting).await.map_err(silent)?.map_err(|error| match error.kind() {
            ErrorKind::ConnectionRefused => (Failure::Refused, format!("nothing listens at {address}: relevo does not run there, or its peering.listen is not what peering.peers says here")),
            ErrorKind::ConnectionReset => (Failure::ClosedAtOnce, format!("{address} closed the connection at once: it stops, or another program has that port")),
            ErrorKind::AddrNotAvailable => {
                (Failure::Other, format!("{} is not an address of this host: see peering.listen", self.identity.source))
            }
            _ => (Failure::Absent, format!("{address}: {error}")),
        })?;
        let greeting = timeout(PATIENCE, self.greet(stream)).await.map_err(silent)?;
        let (mut channel, hello) = greeting.map_err(|error| match error {
            ChannelError::Closed => (
                Failure::ClosedAtOnce,
                format!(
                    "{address} ended the handshake: it stops, or its key differs (copy the same key file to both nodes)"
                ),
            ),
            error => (Failure::Other, format!("{address}: {error}")),
        })?;
        let other = |reason| (Failure::Other, reason);
        if let Some(objection) = objection::to_dialled(&self.identity, &self.name, address, &hello) {
            let _ = timeout(PATIENCE, channel.refuse(objection.there)).await;
            return Err(other(objection.here));
        }
        // What it says next says that there is a link, or that there is none.
        match timeout(PATIENCE, channel.receive()).await {
            Ok(Ok(Message::Refused(Refused { reason }))) => Err(other(ChannelError::Refuses(reason).to_string())),
            Ok(first @ (Ok(_) | Err(ChannelError::NotUnderstood(_)))) => Ok(Linked { channel, hello, first }),
            Ok(Err(ChannelError::Closed)) => Err((
                Failure::ClosedAtOnce,
                format!("{address} closed the connection before it told its state: it stops"),
            )),
            Ok(Err(error)) => Err(other(format!("{address}: {error}"))),
            Err(_) => Err(other(format!(
                "{address} takes connections, and its state does not arrive: it hangs, or what is between the nodes drops \
                 large packets (MTU)"
            ))),
        }
    }

    async fn greet(&self, stream: tokio::net::TcpStream) -> Result<(Channel, Hello), ChannelError> {
        let mut channel = Channel::initiate(stream, &self.identity.key).await?;
        channel.send(&Message::Hello(self.identity.hello())).await?;
        match channel.receive().await? {
            Message::Hello(hello) => {
                channel.trust();
                Ok((channel, hello))
            }
            _ => Err(ChannelError::NotAPeer),
        }
    }

    async fn follow(&mut self, mut channel: Channel, first: Received, liveness: &mut Liveness) -> End {
        let mut silence = Duration::ZERO;
        let mut first = Some(first);
        loop {
            let begin = Instant::now();
            let received = match first.take() {
                Some(first) => Ok(first),
                None => timeout(LOOK, channel.receive()).await,
            };
            silence = if received.is_ok() { Duration::ZERO } else { silence + begin.elapsed().min(2 * LOOK) };
            match received {
                Ok(Ok(Message::State(status))) => {
                    self.heard(&status);
                    self.emit(liveness.told(*status)).await;
                }
                Ok(Ok(Message::Wishes(Wishes { wishes }))) => {
                    let known = |told| match told {
                        Told::Wish(wish) => Some(wish),
                        Told::Unknown(_) => None,
                    };
                    self.emit([PeerEvent::Wishes(wishes.into_iter().filter_map(known).collect())]).await;
                }
                Ok(Ok(Message::Sessions(Sessions { batch }))) => self.emit([PeerEvent::Sessions(batch)]).await,
                Ok(Ok(Message::Goodbye(goodbye))) => return End::Goodbye(goodbye),
                Ok(Ok(Message::Hello(_) | Message::Refused(_) | Message::Unknown)) => {}
                // Of another version, perhaps; that it lives and when it dies is seen all the same.
                Ok(Err(ChannelError::NotUnderstood(error))) => {
                    self.down(format!("its state is not understood: {error}"))
                }
                Ok(Err(error)) => return End::Lost(error),
                Err(_) if silence < SILENCE => {}
                // The link is kept: as long as it stands it tells a death at once.
                Err(_) => self.down("it has said nothing for some seconds: it hangs, or the network does".to_owned()),
            }
        }
    }

    async fn emit(&self, events: impl IntoIterator<Item = PeerEvent>) {
        for event in events {
            // Without a receiver the keeper is ending.
            let _ = self.events.send(event).await;
        }
    }

    fn publish(&self, change: impl FnOnce(&mut PeerStatus)) {
        self.peers.send_modify(|peers| {
            if let Some(peer) = peers.get_mut(self.index) {
                change(peer);
            }
        });
    }

    fn publish_gone(&self, gone: bool) {
        self.peers.send_if_modified(|peers| {
            let Some(peer) = peers.get_mut(self.index) else { return false };
            std::mem::replace(&mut peer.gone, gone) != gone
        });
    }

    fn heard(&mut self, status: &NodeStatus) {
        let mut again = false;
        self.publish(|peer| {
            again = !peer.connected;
            (peer.connected, peer.outdated) = (true, false);
            peer.link_error.clear();
            peer.config_matches = status.config_hash == self.identity.config_hash();
            peer.status = status.clone();
        });
        if again {
            info!(peer = self.name, "the peer is heard again");
            self.logged.clear();
        }
    }

    /// No warning, for once: nodes do not start at the same moment.
    fn not_yet_up(&mut self, reason: String) {
        self.publish_lost(&reason);
        let line = format!("the peer link is not up yet: {reason}");
        if !self.logged.contains(&line) {
            info!(peer = self.name, "{line}");
            self.logged.push(line);
        }
    }

    /// One line for all of it: that nobody is there from now on goes without saying.
    fn says_goodbye(&mut self, reason: &str, is_planned: bool) {
        self.publish_lost(&format!("it said goodbye: {reason}"));
        self.excuse = Excuse::SaidGoodbye;
        match is_planned {
            true => info!(peer = self.name, "the peer stops: {reason}"),
            false => warn!(peer = self.name, "the peer stops: {reason}"),
        }
    }

    fn publish_lost(&self, reason: &str) {
        self.peers.send_if_modified(|peers| {
            let Some(peer) = peers.get_mut(self.index) else { return false };
            let news = peer.link_error != reason;
            lost(peer, reason);
            news
        });
    }

    /// Logs each reason once.
    pub(super) fn down(&mut self, reason: String) {
        self.publish_lost(&reason);
        if self.logged.len() < REASONS && !self.logged.contains(&reason) {
            warn!(peer = self.name, "the peer link is down: {reason}");
            self.logged.push(reason);
        }
    }
}

fn welcome(peer: &mut PeerStatus, identity: &Identity, hello: &Hello) {
    (peer.connected, peer.gone) = (true, false);
    peer.link_error.clear();
    peer.goodbye.clear();
    peer.config_matches = hello.config_hash == identity.config_hash();
    peer.status.version.clone_from(&hello.version);
    peer.status.config_hash.clone_from(&hello.config_hash);
    "it has not told its state yet".clone_into(&mut peer.status.cannot_take_over_because);
}

pub(super) fn lost(peer: &mut PeerStatus, reason: &str) {
    peer.connected = false;
    reason.clone_into(&mut peer.link_error);
    peer.status.can_take_over = false;
    peer.status.cannot_take_over_because = format!("the link to it is down: {reason}");
}
