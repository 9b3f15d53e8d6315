//! What can happen to a node, how it is done, how it is undone, and how long clients may notice.

use std::net::TcpStream;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::ptrace;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::client;
use super::error::{Context, Error, Result};
use super::node::send;
use super::pair::{Pair, target};

/// Something that happens to the active node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// `kill -9` of all of its processes.
    AllKilled,
    /// `kill -9` of the balancer alone.
    BalancerKilled,
    /// The same while it has so many connections open.
    BalancerKilledHolding(usize),
    /// `kill -9` of the keeper alone.
    KeeperKilled,
    /// The same while its balancer outlives it.
    KeeperKilledChildLives,
    /// `kill -9` of the guard alone.
    GuardKilled,
    /// SIGTERM to the guard: a service that is stopped.
    Terminated,
    /// The network cable is pulled.
    CarrierLost,
    /// The balancer alone is stopped (SIGSTOP): it lives and does nothing.
    BalancerStopped,
    /// All of its processes are stopped (SIGSTOP).
    Frozen,
    /// Every frame from and to the node is dropped, and nobody is told.
    Partitioned,
}

/// A fault that was done: what must be kept or let go until it is undone.
pub struct Struck {
    at: Instant,
    _connections: Vec<TcpStream>,
    _hold: Option<Hold>,
}

impl Struck {
    /// When it happened, without the time it took to prepare.
    pub fn at(&self) -> Instant {
        self.at
    }
}

impl Fault {
    /// What a pair's `max_connections` must be at least for this fault, where the default may be too low.
    pub fn max_connections(self) -> Option<usize> {
        match self {
            Self::BalancerKilledHolding(count) => Some(count + 1000),
            _ => None,
        }
    }

    /// In words.
    pub fn name(self) -> String {
        match self {
            Self::AllKilled => "kill -9 of all processes",
            Self::BalancerKilled => "kill -9 of the balancer",
            Self::BalancerKilledHolding(n) => return format!("kill -9 of the balancer, {n} connections"),
            Self::KeeperKilled => "kill -9 of the keeper",
            Self::KeeperKilledChildLives => "kill -9 of the keeper, its child lives on",
            Self::GuardKilled => "kill -9 of the guard",
            Self::Terminated => "SIGTERM",
            Self::CarrierLost => "carrier lost",
            Self::BalancerStopped => "SIGSTOP of the balancer",
            Self::Frozen => "SIGSTOP of all processes",
            Self::Partitioned => "silent partition",
        }
        .into()
    }

    /// Longest outage on an idle machine.
    pub fn limit(self, interval: Duration) -> Duration {
        match self {
            Self::Terminated => Duration::from_millis(5),
            Self::BalancerStopped => Duration::from_millis(1500),
            // The active-down interval (three intervals and the skew), and what the takeover itself takes.
            Self::CarrierLost | Self::Frozen | Self::Partitioned => {
                3 * interval + (interval / 2).max(Duration::from_millis(10))
            }
            _ => Duration::from_millis(10),
        }
    }

    /// Does it to a node of the pair. What takes time to prepare is done before.
    pub fn strike(self, pair: &Pair, node: usize) -> Result<Struck> {
        let victim = &pair.nodes[node];
        let processes = victim.expect_processes()?;
        let (mut connections, mut hold) = (Vec::new(), None);
        match self {
            Self::BalancerKilledHolding(count) => {
                connections = client::hold(&pair.client.namespace, target(), count)?;
                wait_for_connections(pair, node, count)?;
            }
            Self::KeeperKilledChildLives => hold = Some(Hold::at_exit(processes.balancer)?),
            _ => {}
        }
        let at = Instant::now();
        match self {
            Self::AllKilled => victim.signal_all(Signal::SIGKILL)?,
            Self::BalancerKilled | Self::BalancerKilledHolding(_) => send(processes.balancer, Signal::SIGKILL)?,
            Self::KeeperKilled | Self::KeeperKilledChildLives => send(processes.keeper, Signal::SIGKILL)?,
            Self::GuardKilled => send(processes.guard, Signal::SIGKILL)?,
            Self::Terminated => send(processes.guard, Signal::SIGTERM)?,
            Self::CarrierLost => victim.host.port.pull()?,
            Self::BalancerStopped => send(processes.balancer, Signal::SIGSTOP)?,
            Self::Frozen => victim.signal_all(Signal::SIGSTOP)?,
            Self::Partitioned => victim.host.port.silence()?,
        }
        Ok(Struck { at, _connections: connections, _hold: hold })
    }

    /// Makes the node whole again; what died of it is started.
    pub fn undo(self, pair: &mut Pair, node: usize, struck: Struck) -> Result<()> {
        drop(struck);
        let victim = &mut pair.nodes[node];
        match self {
            Self::AllKilled | Self::GuardKilled | Self::Terminated => {
                victim.end()?;
                victim.start()
            }
            Self::CarrierLost => victim.host.port.plug(),
            Self::Partitioned => victim.host.port.pass(),
            Self::Frozen => victim.signal_all(Signal::SIGCONT),
            Self::BalancerStopped
            | Self::BalancerKilled
            | Self::BalancerKilledHolding(_)
            | Self::KeeperKilled
            | Self::KeeperKilledChildLives => Ok(()),
        }
    }
}

fn wait_for_connections(pair: &Pair, node: usize, connections: usize) -> Result<()> {
    let begin = Instant::now();
    loop {
        let open = pair.nodes[node].status()?.node.balancer.connections;
        // Taking them all at once has held others up.
        if open >= connections as u64 && pair.client_is_well() {
            return Ok(());
        }
        if begin.elapsed() > Duration::from_secs(10) {
            let why = format!("it has {open} of {connections} open");
            return Err(Error::new("the balancer does not take the connections", why));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Keeps a process that was killed from ending: it stays at the door with all its files open.
struct Hold {
    /// Its end lets the process go. Only the thread that traces may do that.
    release: Option<mpsc::Sender<()>>,
    tracer: Option<JoinHandle<()>>,
}

impl Hold {
    fn at_exit(process: Pid) -> Result<Self> {
        let (release, released) = mpsc::channel();
        let (seized, ready) = mpsc::channel();
        let tracer = std::thread::spawn(move || {
            let outcome = ptrace::seize(process, ptrace::Options::PTRACE_O_TRACEEXIT);
            let holds = outcome.is_ok();
            let _ = seized.send(outcome);
            // Other stops (a signal that passes) are continued at once; the stop at the door is kept.
            while holds && released.try_recv() == Err(mpsc::TryRecvError::Empty) {
                match waitpid(process, Some(WaitPidFlag::WNOHANG | WaitPidFlag::__WALL)) {
                    Ok(WaitStatus::PtraceEvent(_, _, event)) if event == ptrace::Event::PTRACE_EVENT_EXIT as i32 => {
                        let _ = released.recv();
                        break;
                    }
                    Ok(WaitStatus::Stopped(_, signal)) => drop(ptrace::cont(process, signal)),
                    Ok(WaitStatus::Exited(..) | WaitStatus::Signaled(..)) | Err(_) => break,
                    _ => std::thread::sleep(Duration::from_millis(1)),
                }
            }
            let _ = ptrace::detach(process, None);
        });
        ready
            .recv()
            .unwrap_or(Err(nix::errno::Errno::ESRCH))
            .context(|| format!("cannot keep the process {process} from ending"))?;
        Ok(Self { release: Some(release), tracer: Some(tracer) })
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.release.take();
        if let Some(tracer) = self.tracer.take() {
            let _ = tracer.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limits_are_those_that_were_promised() {
        let limit = |fault: Fault, interval| fault.limit(Duration::from_millis(interval)).as_millis();
        assert_eq!(limit(Fault::AllKilled, 100), 10);
        assert_eq!(limit(Fault::Terminated, 100), 5);
        assert_eq!(limit(Fault::CarrierLost, 100), 350);
        assert_eq!(limit(Fault::CarrierLost, 10), 40);
        assert_eq!(limit(Fault::BalancerStopped, 100), 1500);
    }

    #[test]
    fn a_process_that_is_held_outlives_its_kill() {
        let mut child = std::process::Command::new("sleep").arg("10").spawn().unwrap();
        let hold = match Hold::at_exit(Pid::from_raw(child.id() as i32)) {
            Ok(hold) => hold,
            Err(error) => {
                child.kill().unwrap();
                child.wait().unwrap();
                assert!(std::env::var_os("CI").is_none(), "{error}");
                eprintln!("not tried: {error}");
                return;
            }
        };
        child.kill().unwrap();
        std::thread::sleep(Duration::from_millis(100));
        assert!(std::fs::read_link(format!("/proc/{}/fd/0", child.id())).is_ok(), "its files are closed");
        drop(hold);
        assert!(!child.wait().unwrap().success());
    }
}
