//! The control thread: what the balancer tells its keeper and hears from it, and what is done for all workers.

use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};
use std::{io, thread};

use nix::sys::resource::{Resource, getrlimit};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use crate::balancer::replication::{self, Replication};
use crate::balancer::silence::Silences;
use crate::balancer::state::Shared;
use crate::balancer::{health, statistics, worker};
use crate::config::model;
use crate::process::descriptors::{Receiver, Sender};
use crate::process::log::Log;
use crate::process::messages::{BEAT_INTERVAL, Beat, FromBalancer, ListenerPlace, Reload, ToBalancer};

/// What the control thread works with.
pub(super) struct Control {
    /// To the keeper.
    pub(super) sender: Sender,
    /// From the keeper.
    pub(super) receiver: Receiver,
    /// Of this process.
    pub(super) log: Log,
    /// What all workers share.
    pub(super) shared: Arc<Shared>,
    /// What takes its place when all workers follow it.
    pub(super) next: Option<Arc<Shared>>,
    /// Where there is a peer.
    pub(super) replication: Option<Replication>,
    /// Those who look after its servers.
    pub(super) watching: JoinSet<()>,
    /// When the process started.
    pub(super) started: Instant,
    /// Of the workers.
    pub(super) silences: Silences,
    /// The workers that accept.
    pub(super) ready: mpsc::UnboundedReceiver<usize>,
    /// Tells the workers to stop.
    pub(super) stop: watch::Sender<Option<Duration>>,
    /// Tells each worker of another configuration.
    pub(super) reloads: Vec<mpsc::UnboundedSender<worker::Reload>>,
    /// Their threads.
    pub(super) workers: Vec<thread::JoinHandle<()>>,
}

/// Until every worker follows this configuration.
type Reloading = Pin<Box<dyn Future<Output = Arc<Shared>>>>;

impl Control {
    /// Until the keeper says stop, or is gone.
    ///
    /// # Errors
    /// When a worker ends by itself, or the keeper sends what is no message.
    pub(super) async fn run(mut self) -> io::Result<()> {
        let mut beats = tokio::time::interval(BEAT_INTERVAL);
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut waiting = self.workers.len();
        let mut seconds = tokio::time::interval(statistics::SAMPLING);
        seconds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut sampled = Instant::now();
        let mut batches = tokio::time::interval(replication::PAUSE);
        batches.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut reloading: Option<Reloading> = None;
        loop {
            let mut said = Vec::new();
            tokio::select! {
                message = self.receiver.receive::<ToBalancer>() => match message? {
                    Some((ToBalancer::Log(targets), opened)) => self.log.replace(targets.into_iter().zip(opened)),
                    Some((ToBalancer::Pair(pair), _)) => self.shared.statistics.pair.store(Some(pair.into())),
                    Some((ToBalancer::Held(held), _)) => self.shared.held.store(Arc::new(held)),
                    Some((ToBalancer::CutOff(addresses), _)) => self.shared.cut_off.store(Arc::new(addresses)),
                    Some((ToBalancer::CheckAgain(round), _)) => drop(self.shared.check_round.send_replace(round)),
                    Some((ToBalancer::Known(known), _)) => self.shared.believe(&known.backends, &known.by),
                    Some((ToBalancer::Sessions(batch), _)) => replication::learn(&self.shared, &batch, Instant::now()),
                    Some((ToBalancer::TellSessions, _)) => {
                        if let Some(replication) = &mut self.replication {
                            replication.begin_again();
                        }
                    }
                    Some((ToBalancer::Wishes(number, wishes), _)) => {
                        self.shared.heed_all(&wishes);
                        self.next.iter().for_each(|next| next.heed_all(&wishes));
                        said.extend([FromBalancer::Beat(self.beat()), FromBalancer::Heeded(number)]);
                    }
                    Some((ToBalancer::Reload(reload), descriptors)) => match self.begin_reload(*reload, descriptors) {
                        Ok(begun) => reloading = Some(begun),
                        Err(reason) => said.push(FromBalancer::Reloaded(Err(reason))),
                    },
                    Some((ToBalancer::Stop { patience }, _)) => {
                        self.finish(patience).await;
                        return Ok(());
                    }
                    Some((ToBalancer::Start(_), _)) => tracing::error!("the keeper sent a second start: ignored"),
                    None => return Ok(()),
                },
                Some(_) = self.ready.recv(), if waiting > 0 => {
                    waiting -= 1;
                    if waiting == 0 {
                        // The keeper is to know its servers when it hears that.
                        said.extend([FromBalancer::Beat(self.beat()), FromBalancer::Serving]);
                    }
                }
                shared = reloaded(&mut reloading) => {
                    reloading = None;
                    statistics::rearrange(&self.shared, &shared);
                    self.log.set_json(shared.config.access_log == model::AccessLog::Json);
                    self.shared = shared;
                    self.next = None;
                    said.push(FromBalancer::Reloaded(Ok(self.beat())));
                }
                _ = seconds.tick(), if self.shared.shows_statistics => {
                    statistics::sample(&self.shared, sampled.elapsed());
                    self.shared.statistics.lost_log_lines.store(self.log.lost_requests(), Relaxed);
                    sampled = Instant::now();
                }
                _ = batches.tick(), if self.replication.is_some() => {
                    if let Some(replication) = &mut self.replication {
                        said.extend(replication.batches(&self.shared, Instant::now()).map(FromBalancer::Sessions));
                    }
                }
                _ = beats.tick() => {
                    if self.workers.iter().any(thread::JoinHandle::is_finished) {
                        return Err(io::Error::other("a worker has ended"));
                    }
                    said.push(FromBalancer::Beat(self.beat()));
                }
            }
            for message in said {
                if self.sender.send(&message, &[]).await.is_err() {
                    return Ok(());
                }
            }
        }
    }

    /// Makes what all workers will share, and has its servers looked after from now on; a server that is new is to be checked
    /// before it is needed.
    fn begin_reload(&mut self, reload: Reload, descriptors: Vec<OwnedFd>) -> Result<Reloading, String> {
        let Reload { mut config, listeners: places, resolv_conf, hosts, wishes } = reload;
        if config.threads != self.workers.len() {
            return Err(format!("there are {} workers", self.workers.len()));
        }
        let listeners = listeners(&config, &places, descriptors)?;
        // Never lowered: old connections go on.
        if getrlimit(Resource::RLIMIT_NOFILE).is_ok_and(|(limit, _)| limit < config.open_files())
            && let Ok((_, Some(shortage))) = super::limit_descriptors(&mut config)
        {
            tracing::warn!("{shortage}");
        }
        let shared = self.shared.succeeded_by(config);
        shared.heed_all(&wishes);
        self.next = Some(shared.clone());
        self.watching = super::watch_servers(&shared, resolv_conf, hosts);
        Ok(Box::pin(reload_workers(shared, self.reloads.clone(), listeners)))
    }

    /// The workers finish what is under way; the keeper still hears the beat, and its end is still the end.
    async fn finish(&mut self, patience: Duration) {
        let _ = self.stop.send(Some(patience));
        let mut beats = tokio::time::interval(BEAT_INTERVAL / 4);
        let mut last = Instant::now();
        while !self.workers.iter().all(thread::JoinHandle::is_finished) {
            tokio::select! {
                message = self.receiver.receive::<ToBalancer>() => {
                    if !matches!(message, Ok(Some(_))) {
                        return;
                    }
                }
                _ = beats.tick() => {
                    if last.elapsed() < BEAT_INTERVAL {
                        continue;
                    }
                    last = Instant::now();
                    let beat = FromBalancer::Beat(self.beat());
                    if self.sender.send(&beat, &[]).await.is_err() {
                        return;
                    }
                }
            }
        }
    }

    fn beat(&mut self) -> Beat {
        let shared = &self.shared;
        let beats = shared.vitals.iter().map(|of| Duration::from_millis(of.beat.load(Relaxed)));
        let silences = self.silences.look(beats, self.started.elapsed());
        Beat {
            worker_silence_ms: silences.map(|silence| silence.as_millis() as u64).collect(),
            connections: shared.connections.count(),
            requests: shared.requests(),
            backends: shared.report(),
            checked: shared.checked(),
            log_is_broken: self.log.was_broken(),
            old_configurations: shared.old_configurations(),
        }
    }
}

/// Never, where none is under way.
async fn reloaded(reloading: &mut Option<Reloading>) -> Arc<Shared> {
    match reloading {
        Some(reloading) => reloading.await,
        None => std::future::pending().await,
    }
}

async fn reload_workers(
    shared: Arc<Shared>,
    workers: Vec<mpsc::UnboundedSender<worker::Reload>>,
    listeners: Vec<Listeners>,
) -> Arc<Shared> {
    health::first_results(&shared, super::FIRST_RESULTS_PATIENCE).await;
    let mut all = Vec::new();
    for (worker, listeners) in workers.iter().zip(listeners) {
        let (done, is_done) = oneshot::channel();
        // A worker that is gone is noticed elsewhere.
        let _ = worker.send(worker::Reload { shared: shared.clone(), listeners, done });
        all.push(is_done);
    }
    for is_done in all {
        let _ = is_done.await;
    }
    shared
}

/// A worker's listening sockets, and where they are bound.
type Listeners = Vec<(SocketAddr, TcpListener)>;

/// Whose the sockets are that came from the keeper, by worker.
///
/// # Errors
/// When they do not fit the configuration.
pub(super) fn listeners(
    config: &model::Balancer,
    places: &[ListenerPlace],
    descriptors: Vec<OwnedFd>,
) -> Result<Vec<Listeners>, String> {
    if descriptors.len() != places.len() {
        return Err(format!("{} listening sockets were announced, {} came", places.len(), descriptors.len()));
    }
    let mut workers: Vec<_> = (0..config.threads).map(|_| Vec::new()).collect();
    for (place, descriptor) in places.iter().zip(descriptors) {
        let bind = config.frontends.get(place.frontend).and_then(|frontend| frontend.binds.get(place.bind));
        let bind = bind.ok_or_else(|| format!("there is no bind {} of a frontend {}", place.bind, place.frontend))?;
        let worker = workers.get_mut(place.worker).ok_or_else(|| format!("there is no worker {}", place.worker))?;
        worker.push((bind.address, TcpListener::from(descriptor)));
    }
    Ok(workers)
}
