//! Lets the peers watch this node: accepts their links, tells each one our state, says goodbye.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{broadcast, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};
use tracing::warn;

use super::channel::{Channel, ChannelError};
use super::message::{self, Goodbye, Hello, Message, Refused, Sessions, Told};
use super::objection::{self, Objection};
use super::{Identity, Local, socket};
use crate::process::wishes::Wishes;
use crate::status::NodeStatus;

/// Handshakes under way; one more ends the oldest, so that nobody can keep a peer out by doing nothing.
const PENDING: usize = 8;

/// For a handshake and the peer's [`Hello`].
const PATIENCE: Duration = Duration::from_secs(1);

/// Between two accepted connections: whatever comes, the election has the processor for itself most of the time.
const BREATH: Duration = Duration::from_millis(4);

/// Between two states that are told though nothing important changed.
const TELL: Duration = Duration::from_secs(1);

/// Between two log lines about the same kind of bad connection.
const QUIET: Duration = Duration::from_secs(10);

/// Objections that are remembered as logged, and how long after they were last met with.
const OBJECTIONS: usize = 16;
const OVER: Duration = Duration::from_secs(60);

pub(super) struct Serve {
    pub(super) identity: Arc<Identity>,
    pub(super) local: Local,
    /// The goodbye to be said, once there is one.
    pub(super) farewell: watch::Receiver<Option<Goodbye>>,
}

/// To a peer that watches this node.
struct Link {
    task: AbortHandle,
    /// Where the peer dialled from.
    address: IpAddr,
    instance: String,
}

type Greeted = (SocketAddr, Result<(Channel, Hello), ChannelError>);

impl Serve {
    /// Returns when goodbye has been said to all.
    pub(super) async fn run(mut self, listener: TcpListener) {
        let mut pending: JoinSet<Greeted> = JoinSet::new();
        let mut oldest_first: VecDeque<AbortHandle> = VecDeque::new();
        let mut links: JoinSet<Option<String>> = JoinSet::new();
        let mut link_of: HashMap<String, Link> = HashMap::new();
        let mut complaints = Complaints::default();
        let farewell = self.farewell.clone();
        let mut not_before = Instant::now();
        loop {
            tokio::select! {
                biased;
                _ = self.farewell.wait_for(Option::is_some) => break,
                Some(greeted) = pending.join_next() => match greeted {
                    Ok((address, Ok((channel, hello)))) => {
                        let (address, Hello { node, instance, .. }) = (address.ip(), hello);
                        let former = link_of.get(&node).filter(|former| !former.task.is_finished());
                        if let Some(former) = former.filter(|former| {
                            former.instance != instance && self.identity.expects(&node, former.address, address)
                        }) {
                            let objection = objection::to_double(&node, former.address, address);
                            links.spawn(refuse(channel, objection));
                            continue;
                        }
                        let news = News::of(&self.local, farewell.clone());
                        let link = Link { task: links.spawn(tell(channel, news)), address, instance };
                        // A peer that dials again has given up its former link.
                        if let Some(former) = link_of.insert(node, link) {
                            former.task.abort();
                        }
                    }
                    Ok((address, Err(error))) => complaints.rejected(address, &error),
                    Err(_aborted) => complaints.crowded(),
                },
                Some(ended) = links.join_next() => {
                    if let Ok(Some(objection)) = ended {
                        complaints.once(objection);
                    }
                }
                accepted = accept(&listener, &mut not_before) => match accepted {
                    Ok((stream, address)) => {
                        oldest_first.retain(|handshake| !handshake.is_finished());
                        if oldest_first.len() >= PENDING && let Some(oldest) = oldest_first.pop_front() {
                            oldest.abort();
                        }
                        let identity = self.identity.clone();
                        oldest_first.push_back(pending.spawn(async move { (address, greet(stream, address.ip(), &identity).await) }));
                    }
                    Err(error) => complaints.cannot_accept(&error),
                },
            }
        }
        // Nobody new; what is said to the others is bounded by whoever asked for the goodbye.
        drop((listener, pending));
        while links.join_next().await.is_some() {}
    }
}

/// Cancel safe.
async fn accept(listener: &TcpListener, not_before: &mut Instant) -> io::Result<(TcpStream, SocketAddr)> {
    sleep_until(*not_before).await;
    let accepted = listener.accept().await;
    *not_before = Instant::now() + BREATH;
    accepted
}

async fn greet(stream: TcpStream, address: IpAddr, identity: &Identity) -> Result<(Channel, Hello), ChannelError> {
    let greeting = async {
        let stream = socket::accepted(stream, identity.first_descriptor)?;
        let mut channel = Channel::respond(stream, &identity.key).await?;
        channel.send(&Message::Hello(identity.hello())).await?;
        match channel.receive().await? {
            Message::Hello(hello) => match objection::to_dialler(identity, address, &hello) {
                None => {
                    channel.trust();
                    Ok((channel, hello))
                }
                Some(Objection { here, there }) => {
                    let _ = timeout(PATIENCE / 2, channel.refuse(there)).await;
                    Err(ChannelError::Refused(here))
                }
            },
            _ => Err(ChannelError::NotAPeer),
        }
    };
    timeout(PATIENCE, greeting).await.unwrap_or(Err(ChannelError::TooSlow))
}

/// Where one link hears what to tell.
struct News {
    status: watch::Receiver<Arc<NodeStatus>>,
    wishes: watch::Receiver<Arc<Wishes>>,
    sessions: broadcast::Receiver<Arc<str>>,
    farewell: watch::Receiver<Option<Goodbye>>,
}

impl News {
    /// All of the wishes are news to somebody who has just linked.
    fn of(local: &Local, farewell: watch::Receiver<Option<Goodbye>>) -> News {
        let mut wishes = local.wishes.clone();
        wishes.mark_changed();
        News { status: local.status.clone(), wishes, sessions: local.sessions.subscribe(), farewell }
    }
}

/// What is to be told next.
enum Topic {
    State { goodbye: Option<Goodbye> },
    Wishes,
    Sessions(Arc<str>),
}

/// What is to be logged of it.
async fn refuse(mut channel: Channel, Objection { here, there }: Objection) -> Option<String> {
    let _ = timeout(PATIENCE, channel.refuse(there)).await;
    Some(here)
}

/// Tells one peer our state until it leaves or we do. Gives its objection where it has one.
async fn tell(mut channel: Channel, mut news: News) -> Option<String> {
    let mut tick = interval(TELL);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut told: Option<Arc<NodeStatus>> = None;
    let mut told_wishes = Arc::<Wishes>::default();
    loop {
        let topic = tokio::select! {
            biased;
            said = news.farewell.wait_for(Option::is_some) => match said {
                Ok(goodbye) => Topic::State { goodbye: goodbye.clone() },
                Err(_) => return None,
            },
            _ = tick.tick() => Topic::State { goodbye: None },
            changed = news.status.changed() => match changed {
                Ok(()) if told.as_ref().is_some_and(|told| is_news(told, &news.status.borrow())) => {
                    Topic::State { goodbye: None }
                }
                Ok(()) => continue,
                Err(_) => return None,
            },
            Ok(()) = news.wishes.changed() => Topic::Wishes,
            said = channel.receive() => match said {
                Ok(Message::Refused(Refused { reason })) => return Some(ChannelError::Refuses(reason).to_string()),
                // Nothing else is expected; a later version may have something to say.
                Ok(_) | Err(ChannelError::NotUnderstood(_)) => continue,
                Err(_) => return None,
            },
            // An error says that this link was too slow for some.
            Ok(batch) = news.sessions.recv() => Topic::Sessions(batch),
        };
        let goodbye = match topic {
            Topic::State { goodbye } => goodbye,
            Topic::Wishes => {
                let wishes = news.wishes.borrow_and_update().clone();
                if send_wishes(&mut channel, &wishes, &told_wishes).await.is_err() {
                    return None;
                }
                told_wishes = wishes;
                continue;
            }
            Topic::Sessions(batch) => {
                let batch = batch.as_ref().to_owned();
                if channel.send(&Message::Sessions(Sessions { batch })).await.is_err() {
                    return None;
                }
                continue;
            }
        };
        let now = news.status.borrow_and_update().clone();
        if goodbye.is_none() || told.as_ref().is_none_or(|told| is_news(told, &now)) {
            if send_state(&mut channel, &now).await.is_err() {
                return None;
            }
            told = Some(now);
        }
        if let Some(goodbye) = goodbye {
            let _ = channel.send(&Message::Goodbye(goodbye)).await;
            let _ = channel.close().await;
            return None;
        }
    }
}

async fn send_wishes(channel: &mut Channel, wishes: &Wishes, told: &Wishes) -> Result<(), ChannelError> {
    for piece in wishes.news_after(told) {
        let wishes = piece.into_iter().map(Told::Wish).collect();
        channel.send(&Message::Wishes(message::Wishes { wishes })).await?;
    }
    Ok(())
}

/// Without its servers where there are too many to tell: roles and readiness matter more.
async fn send_state(channel: &mut Channel, status: &NodeStatus) -> Result<(), ChannelError> {
    match channel.send(&Message::State(Box::new(status.clone()))).await {
        Err(ChannelError::TooLong(_)) => {
            let status = NodeStatus { backends: Vec::new(), ..status.clone() };
            channel.send(&Message::State(Box::new(status))).await
        }
        sent => sent,
    }
}

/// Roles and readiness are told at once; counters can wait.
fn is_news(told: &NodeStatus, now: &NodeStatus) -> bool {
    let roles = |status: &NodeStatus| {
        let role = |router: &relevo_ha::RouterStatus| {
            (router.name.clone(), router.state, router.effective_priority, router.own_address, router.active_router)
        };
        status.vrrp.iter().map(role).collect::<Vec<_>>()
    };
    told.can_take_over != now.can_take_over
        || told.cannot_take_over_because != now.cannot_take_over_because
        || told.balancer.state != now.balancer.state
        || told.config_hash != now.config_hash
        || roles(told) != roles(now)
}

/// Logs connections that come to nothing, each kind once in a while.
#[derive(Default)]
struct Complaints {
    last: HashMap<&'static str, (Instant, u64)>,
    /// Of nodes that hold the key, and hold to what is wrong with them: when each was last met with.
    objections: HashMap<String, Instant>,
}

impl Complaints {
    fn rejected(&mut self, address: SocketAddr, error: &ChannelError) {
        let ip = address.ip();
        match error {
            // A peer that ended, or that did not like our hello and says so in its own log.
            ChannelError::Closed => {}
            ChannelError::WrongKey => {
                self.once(format!("the key of peer at {ip} differs: copy the same key file to both nodes"));
            }
            ChannelError::Refused(objection) => self.once(objection.clone()),
            error => self.complain("other", |times| {
                warn!(times, "a connection to the peer link from {ip} was closed: {error}");
            }),
        }
    }

    /// However often it tries again. There is room for few: what strangers make up is not remembered.
    fn once(&mut self, objection: String) {
        let now = Instant::now();
        self.objections.retain(|_, met| now.duration_since(*met) < OVER);
        if self.objections.len() >= OBJECTIONS && !self.objections.contains_key(&objection) {
            return self.complain("objections", |times| warn!(times, "no peer link: {objection}"));
        }
        if self.objections.insert(objection.clone(), now).is_none() {
            warn!("no peer link: {objection}");
        }
    }

    fn crowded(&mut self) {
        self.complain("crowded", |times| {
            warn!(times, "too many connections to the peer link do nothing: the oldest was closed; let only peers reach peering.listen");
        });
    }

    fn cannot_accept(&mut self, error: &io::Error) {
        self.complain("accept", |times| warn!(times, "a connection to the peer link cannot be accepted: {error}"));
    }

    /// `say` is given how often it happened since it was last said.
    fn complain(&mut self, kind: &'static str, say: impl FnOnce(u64)) {
        let now = Instant::now();
        let (next, times) = self.last.entry(kind).or_insert((now, 0));
        *times += 1;
        if now >= *next {
            say(std::mem::take(times));
            *next = now + QUIET;
        }
    }
}
