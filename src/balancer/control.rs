//! The control thread: what the balancer tells its keeper and hears from it, and what is done for all workers.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};
use std::{io, thread};

use tokio::sync::{mpsc, watch};
use tokio::time::MissedTickBehavior;

use crate::balancer::state::Shared;
use crate::balancer::statistics;
use crate::process::descriptors::{Receiver, Sender};
use crate::process::log::Log;
use crate::process::messages::{BEAT_INTERVAL, Beat, FromBalancer, ToBalancer};

/// What is under way when the keeper says stop may take this long.
const STOP_PATIENCE: Duration = Duration::from_secs(10);

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
    /// When the process started.
    pub(super) started: Instant,
    /// The workers that accept.
    pub(super) ready: mpsc::UnboundedReceiver<usize>,
    /// Tells the workers to stop.
    pub(super) stop: watch::Sender<Option<Duration>>,
    /// Their threads.
    pub(super) workers: Vec<thread::JoinHandle<()>>,
}

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
        loop {
            tokio::select! {
                message = self.receiver.receive::<ToBalancer>() => match message? {
                    Some((ToBalancer::Log, opened)) => self.log.replace(opened),
                    Some((ToBalancer::Pair(pair), _)) => self.shared.statistics.pair.store(Some(pair.into())),
                    Some((ToBalancer::Held(held), _)) => self.shared.held.store(Arc::new(held)),
                    Some((ToBalancer::Stop, _)) => {
                        self.finish().await;
                        return Ok(());
                    }
                    Some((ToBalancer::Start(_), _)) => tracing::error!("the keeper sent a second start: ignored"),
                    None => return Ok(()),
                },
                Some(_) = self.ready.recv(), if waiting > 0 => {
                    waiting -= 1;
                    if waiting == 0 && self.sender.send(&FromBalancer::Serving, &[]).await.is_err() {
                        return Ok(());
                    }
                }
                _ = seconds.tick(), if self.shared.statistics.are_shown => {
                    statistics::sample(&self.shared, sampled.elapsed());
                    sampled = Instant::now();
                }
                _ = beats.tick() => {
                    if self.workers.iter().any(thread::JoinHandle::is_finished) {
                        return Err(io::Error::other("a worker has ended"));
                    }
                    let beat = FromBalancer::Beat(self.beat());
                    if self.sender.send(&beat, &[]).await.is_err() {
                        return Ok(());
                    }
                }
            }
        }
    }

    /// The workers finish what is under way; the keeper still hears the beat, and its end is still the end.
    async fn finish(&mut self) {
        let _ = self.stop.send(Some(STOP_PATIENCE));
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

    fn beat(&self) -> Beat {
        let now = self.started.elapsed().as_millis() as u64;
        let shared = &self.shared;
        Beat {
            worker_silence_ms: shared.beats.iter().map(|beat| now.saturating_sub(beat.0.load(Relaxed))).collect(),
            connections: shared.connections.count(),
            requests: shared.requests.load(Relaxed),
            backends: shared.report(),
            log_is_broken: self.log.was_broken(),
        }
    }
}
