//! The parent that cleans up. It takes no input from any network: when the keeper dies it removes the virtual addresses at
//! once and starts a new keeper, on the configuration and the key that it read before the first, or when it was last told to
//! reload, and with what people want of servers; when it dies itself the keeper notices, hands over and stops.

mod on_disk;
mod reload;
mod service_manager;

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{ExitCode, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use relevo_ha::address::Releaser;
use tokio::net::UnixStream;
use tokio::process::{Child, Command};
use tokio::signal::unix::{Signal as Signals, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use self::on_disk::OnDisk;
use self::reload::{Asked, Offer, Refusal, Reloads};
use self::service_manager::ServiceManager;
use crate::config::key::{Key, KeyError};
use crate::config::model::{AccessLog, Config};
use crate::process::backoff::Backoff;
use crate::process::descriptor;
use crate::process::descriptors::{self, Receiver, Sender};
use crate::process::lock;
use crate::process::log::Log;
use crate::process::messages::{Charge, FromKeeper, REPORT_INTERVAL, Report, ToKeeper};
use crate::process::wishes::{StampedWish, Wishes};

/// For the keeper to stop, beside the time that connections have to finish (`process.stop_timeout`).
const STOP_MARGIN: Duration = Duration::from_secs(5);
/// A look at the clock that is so late was kept from the guard, and so perhaps from all of the node: a paused machine.
const LATE: Duration = Duration::from_millis(500);
/// For what a dead keeper left behind to be dead as well.
const ORPHAN_LIMIT: Duration = Duration::from_secs(5);
/// Pauses before a new keeper by the number of deaths in a row.
const PAUSES_MS: [u64; 6] = [0, 250, 500, 1_000, 2_000, 5_000];

/// What the guard cannot do without.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// For the keepers' peer links.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// To be the only one.
    #[error(transparent)]
    Lock(#[from] lock::Error),
    /// To remove addresses with.
    #[error(transparent)]
    Releaser(#[from] relevo_ha::address::Error),
    /// To be told to stop.
    #[error("signals cannot be handled: {0}")]
    Signals(#[source] io::Error),
    /// To find the balancer of a dead keeper, and to keep the key from others.
    #[error("the guard cannot become what it has to be: {0}")]
    Process(#[from] Errno),
    /// To keep what whoever started it left open from the other processes.
    #[error("inherited descriptors cannot be closed: {0}")]
    Inherited(#[source] io::Error),
    /// The keeper.
    #[error("the keeper cannot be started: {0}")]
    Start(#[source] io::Error),
}

/// Keeps a keeper running on a configuration, which it was read from `path`, until it is told to stop. Returns the keeper's own
/// status if it never got ready: it has said why.
///
/// # Errors
/// When the guard itself cannot work.
pub async fn run(config: Config, path: PathBuf, log: Log) -> Result<ExitCode, Error> {
    descriptor::pass_nothing_on().map_err(Error::Inherited)?;
    // It holds the key.
    nix::sys::prctl::set_dumpable(false)?;
    // No file system is kept busy.
    std::env::set_current_dir("/").map_err(Error::Start)?;
    let key = config.peering.as_ref().map(|peering| Key::read(&peering.key_file)).transpose()?;
    let mut heritage = Heritage { charge: Arc::new(Charge { config, key }), wishes: Wishes::default() };
    let (mut reloads, mut on_disk) = (Reloads::new(path.clone()), OnDisk::new(path, &heritage.charge));
    // Without a virtual router it has no business with anybody's addresses.
    let addresses =
        if heritage.charge.config.virtual_routers.is_empty() { None } else { Some(Addresses::take().await?) };
    let mut manager = ServiceManager::find().map_err(Error::Start)?;
    let mut stop = Signalled::new(log).map_err(Error::Signals)?;
    // The balancer of a dead keeper becomes the guard's child, which can then wait for its end.
    nix::sys::prctl::set_child_subreaper(true)?;
    let mut was_ever_ready = false;
    let mut backoff = Backoff::new(&PAUSES_MS);
    loop {
        let lock = addresses.as_ref().map(|addresses| addresses.lock.clone());
        let mut keeper = Keeper::start(&heritage, lock).map_err(Error::Start)?;
        let end = keeper.watch(&mut stop, &mut manager, &mut reloads, &mut on_disk, &mut heritage).await;
        stop.keeper = None;
        let has_forsaken_a_reload = reloads.keeper_died();
        if reloads.is_idle() {
            manager.reloaded();
        }
        was_ever_ready |= keeper.ready_since.is_some();
        if !was_ever_ready {
            return Ok(match end {
                End::Stopped => ExitCode::SUCCESS,
                End::Died => {
                    keeper.status().await.and_then(|status| status.code()).map_or(ExitCode::FAILURE, exit_code)
                }
            });
        }
        if let Some(addresses) = &addresses {
            addresses.release().await;
        }
        if let End::Stopped = end {
            return Ok(ExitCode::SUCCESS);
        }
        if has_forsaken_a_reload {
            tracing::error!("the configuration stays as it is: the keeper died before it followed another");
        }
        let pause = backoff.pause_after(keeper.ready_since.map_or(Duration::ZERO, |since| since.elapsed()));
        let status = keeper.status().await.map_or_else(|| "unknown".to_owned(), |status| status.to_string());
        tracing::error!(status, pause_ms = pause.as_millis() as u64, "the keeper died; a new one starts after a pause");
        manager.status("its keeper died: the addresses are given up, a new keeper starts");
        tokio::select! {
            () = told_to_stop(&mut stop, &mut reloads) => return Ok(ExitCode::SUCCESS),
            () = manager.wait() => {}
            () = async { bury_orphans().await; sleep(pause).await } => {}
        }
    }
}

/// What the next keeper begins with.
struct Heritage {
    charge: Arc<Charge>,
    /// What people want of servers.
    wishes: Wishes,
}

/// What a keeper's end was.
enum End {
    /// It was told to.
    Stopped,
    /// It was not.
    Died,
}

struct Keeper {
    child: Child,
    pid: Pid,
    /// Its other end is on a high descriptor of the keeper: one of the first that close when it dies.
    link: Receiver,
    outbox: mpsc::UnboundedSender<ToKeeper>,
    ready_since: Option<Instant>,
}

impl Keeper {
    /// The keeper has the lock too: a guard that dies must not leave it to others while its keeper hands over.
    fn start(heritage: &Heritage, lock: Option<Arc<OwnedFd>>) -> io::Result<Self> {
        let (ours, its) = StdUnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let child = Command::new("/proc/self/exe")
            .arg0("relevo")
            .arg("keeper")
            .env_remove("NOTIFY_SOCKET")
            .stdin(Stdio::from(OwnedFd::from(its)))
            // Of its own, so that Ctrl-C reaches the guard alone.
            .process_group(0)
            .spawn()?;
        let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).ok_or(io::ErrorKind::NotFound)?;
        let (sender, link) = descriptors::halves(UnixStream::from_std(ours)?);
        let (outbox, messages) = mpsc::unbounded_channel();
        let wishes = heritage.wishes.iter().cloned().collect();
        tokio::spawn(send(sender, heritage.charge.clone(), wishes, lock, messages));
        Ok(Keeper { child, pid: Pid::from_raw(pid), link, outbox, ready_since: None })
    }

    /// Until it has ended, one way or the other. What it follows, and what it knows of wishes, is what it leaves behind.
    async fn watch(
        &mut self,
        stop: &mut Signalled,
        manager: &mut ServiceManager,
        reloads: &mut Reloads,
        on_disk: &mut OnDisk,
        heritage: &mut Heritage,
    ) -> End {
        self.tell(ToKeeper::FileDiffers(on_disk.difference()));
        let mut second = interval(REPORT_INTERVAL);
        second.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                // Its last words first.
                biased;
                message = self.link.receive() => match message {
                    Ok(Some((FromKeeper::Report(report), _))) => {
                        // One that reports handles its signals.
                        stop.keeper = Some(self.pid);
                        self.reported(&report, manager);
                    }
                    Ok(Some((FromKeeper::WantsReload(wish), _))) => self.ask(Asked::ByWish(wish), manager, reloads),
                    Ok(Some((FromKeeper::WithdrawsReload(wish), _))) => {
                        if reloads.withdraw(Asked::ByWish(wish)) {
                            tracing::warn!("the configuration stays as it is: whoever asked for a reload has not waited for it");
                        }
                        if reloads.is_idle() {
                            manager.reloaded();
                        }
                    }
                    Ok(Some((FromKeeper::Reloaded(result), _))) => {
                        if let Some((asked, offer)) = reloads.take_offered() {
                            let result = result.map(|()| offer).map_err(Refusal::from);
                            if let Ok(offer) = &result {
                                heritage.charge = offer.charge.clone();
                                stop.log.set_json(offer.charge.config.balancer.access_log == AccessLog::Json);
                            }
                            self.answer(asked, &result, manager, reloads);
                        }
                    }
                    Ok(Some((FromKeeper::Wishes(news), _))) => heritage.wishes.extend(news),
                    Ok(None) | Err(_) => return End::Died,
                },
                _ = self.child.wait() => return End::Died,
                due = second.tick() => {
                    if due.elapsed() >= LATE {
                        manager.was_absent(due.elapsed());
                    }
                }
                signal = stop.recv() => match signal {
                    Told::Reload => self.ask(Asked::BySignal, manager, reloads),
                    Told::Stop => {
                        let limit = heritage.charge.config.process.stop_timeout.saturating_add(STOP_MARGIN);
                        manager.stopping(limit.saturating_add(STOP_MARGIN));
                        self.stop(limit).await;
                        return End::Stopped;
                    }
                },
                (asked, read) = reloads.read(&heritage.charge) => match read {
                    Ok(offer) => {
                        self.tell(ToKeeper::Reload { charge: offer.text.clone() });
                        reloads.offered(asked, offer);
                    }
                    Err(refusal) => self.answer(asked, &Err(refusal), manager, reloads),
                },
                difference = on_disk.news(&heritage.charge) => self.tell(ToKeeper::FileDiffers(difference)),
            }
        }
    }

    fn ask(&self, asked: Asked, manager: &mut ServiceManager, reloads: &mut Reloads) {
        manager.reloading();
        reloads.ask(asked);
    }

    /// What becomes of a reload, in one sentence for the log, and for whoever asked.
    fn answer(&self, asked: Asked, result: &Result<Offer, Refusal>, manager: &mut ServiceManager, reloads: &Reloads) {
        match result {
            Ok(offer) => tracing::info!("the configuration was reloaded: {}", offer.changes),
            Err(refusal) => tracing::error!("the configuration stays as it is: {}", refusal.line),
        }
        if let Asked::ByWish(wish) = asked {
            let answer = match result {
                Ok(offer) => Ok(offer.changes.to_string()),
                Err(refusal) => Err(refusal.refused.clone()),
            };
            self.tell(ToKeeper::Answer { wish, answer });
        }
        if reloads.is_idle() {
            manager.reloaded();
        }
    }

    /// One that is dead does not hear it, which the link tells.
    fn tell(&self, message: ToKeeper) {
        let _ = self.outbox.send(message);
    }

    fn reported(&mut self, report: &Report, manager: &mut ServiceManager) {
        if report.is_ready {
            self.ready_since.get_or_insert_with(Instant::now);
        }
        manager.report(report);
    }

    async fn stop(&mut self, limit: Duration) {
        // It was not waited for yet, so that its number is still its own.
        let asked = kill(self.pid, Signal::SIGTERM);
        if asked.is_err() || timeout(limit, self.child.wait()).await.is_err() {
            tracing::error!("the keeper did not stop within {limit:?} and is killed");
            let _ = self.child.kill().await;
        }
    }

    /// Makes sure that it has ended, and returns how. (One that has closed its socket is about to.)
    async fn status(&mut self) -> Option<ExitStatus> {
        if let Ok(status) = timeout(Duration::from_secs(1), self.child.wait()).await {
            return status.ok();
        }
        self.child.kill().await.ok()?;
        Some(ExitStatus::from_raw(Signal::SIGKILL as i32))
    }
}

/// A failure means that the keeper is dead, which the receiving half tells.
async fn send(
    mut sender: Sender,
    charge: Arc<Charge>,
    wishes: Vec<StampedWish>,
    lock: Option<Arc<OwnedFd>>,
    mut messages: mpsc::UnboundedReceiver<ToKeeper>,
) -> io::Result<()> {
    let lock: Vec<_> = lock.iter().map(|lock| lock.as_fd()).collect();
    sender.send(&*charge, &lock).await?;
    drop(charge);
    sender.send(&wishes, &[]).await?;
    drop(wishes);
    while let Some(message) = messages.recv().await {
        sender.send(&message, &[]).await?;
    }
    Ok(())
}

/// What a signal says.
enum Told {
    Stop,
    Reload,
}

/// Between two keepers: what is to be reloaded is for the next.
async fn told_to_stop(signals: &mut Signalled, reloads: &mut Reloads) {
    while let Told::Reload = signals.recv().await {
        reloads.ask(Asked::BySignal);
    }
}

/// SIGTERM, SIGQUIT, and SIGINT for those who run it in a terminal, say stop, SIGHUP says reload; SIGUSR1 is for whoever moves the
/// log's files. SIGUSR2, by which other programs reload, is no reason to end.
struct Signalled {
    log: Log,
    /// One that handles SIGUSR1, and was not waited for yet.
    keeper: Option<Pid>,
    reopen: Signals,
    upgrade: Signals,
    terminate: Signals,
    quit: Signals,
    interrupt: Signals,
    hang_up: Signals,
}

impl Signalled {
    fn new(log: Log) -> io::Result<Self> {
        Ok(Signalled {
            log,
            keeper: None,
            reopen: signal(SignalKind::user_defined1())?,
            upgrade: signal(SignalKind::user_defined2())?,
            terminate: signal(SignalKind::terminate())?,
            quit: signal(SignalKind::quit())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    async fn recv(&mut self) -> Told {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return Told::Stop,
                _ = self.quit.recv() => return Told::Stop,
                _ = self.interrupt.recv() => return Told::Stop,
                _ = self.hang_up.recv() => return Told::Reload,
                _ = self.upgrade.recv() => tracing::warn!(
                    "SIGUSR2 is ignored: the configuration is read again by `relevo reload` or on SIGHUP"
                ),
                _ = self.reopen.recv() => {
                    self.log.reopen();
                    if let Some(keeper) = self.keeper {
                        // Should it have died in this moment, the next one opens them anew.
                        let _ = kill(keeper, Signal::SIGUSR1);
                    }
                }
            }
        }
    }
}

/// The virtual addresses of this network namespace.
struct Addresses {
    lock: Arc<OwnedFd>,
    releaser: Releaser,
}

impl Addresses {
    async fn take() -> Result<Self, Error> {
        Ok(Addresses { lock: Arc::new(lock::take().await?), releaser: Releaser::new()? })
    }

    async fn release(&self) {
        match self.releaser.release_all().await {
            Ok(released) => {
                for (interface, address) in released {
                    tracing::warn!(interface, %address, "removed an address that the keeper left behind");
                }
            }
            Err(error) => tracing::error!(%error, "addresses may be left behind until their lease ends"),
        }
    }
}

/// The balancer dies with its keeper, but its thousands of connections take a moment to close; until then its ports are in use.
async fn bury_orphans() {
    let end = Instant::now() + ORPHAN_LIMIT;
    while Instant::now() < end {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) => sleep(Duration::from_millis(2)).await,
            Ok(_) | Err(Errno::EINTR) => {}
            Err(_) => return,
        }
    }
    tracing::warn!("a process of the dead keeper is still there after {} s", ORPHAN_LIMIT.as_secs());
}

fn exit_code(code: i32) -> ExitCode {
    u8::try_from(code).map_or(ExitCode::FAILURE, ExitCode::from)
}
