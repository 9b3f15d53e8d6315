//! The unprivileged process that carries traffic.
//!
//! [`run`] is its whole life: it hears from the keeper what to do, locks itself in, starts its workers (`worker.rs`), and
//! keeps in touch with the keeper (`control.rs`). A worker accepts clients (`listener.rs`) and serves them (`http`, `tcp.rs`).

pub mod access_log;
mod accounting;
pub mod admission;
pub mod balance;
pub mod clock;
pub mod connect;
mod control;
pub mod health;
pub mod http;
pub mod keep_alive;
pub mod lack;
pub mod listener;
pub mod listening_socket;
pub mod persistence;
pub mod pipe;
pub mod pool;
pub mod queue;
pub mod readiness;
pub mod relay;
mod replication;
pub mod resolve;
pub mod retry_budget;
pub mod room;
pub mod routing;
pub mod rules;
mod sandbox;
pub mod session;
mod silence;
pub mod state;
mod statistics;
pub mod tcp;
pub mod worker;

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, RawFd};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::Pid;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::balancer::control::Control;
use crate::balancer::replication::Replication;
use crate::balancer::silence::Silences;
use crate::balancer::state::Shared;
use crate::balancer::worker::Plan;
use crate::config::model::{self, AccessLog};
use crate::process::descriptor::to_high_descriptor;
use crate::process::descriptors::{halves, renumber};
use crate::process::log;
use crate::process::messages::{FromBalancer, ToBalancer};

/// How long the first connections wait in the accept queue for the first checks; well below the second after which the keeper
/// takes silence for death.
const FIRST_RESULTS_PATIENCE: Duration = Duration::from_millis(500);

/// The process `relevo balancer`: its standard input is its end of a socketpair with the keeper.
pub fn run() -> ExitCode {
    let started = Instant::now();
    let runtime = match worker::runtime() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&format!("it cannot start: {error}")),
    };
    match runtime.block_on(serve(started)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&error.to_string()),
    }
}

fn failed(reason: &str) -> ExitCode {
    // Its stderr is the node's, which may be full or gone.
    let _ = writeln!(std::io::stderr(), "relevo balancer: {reason}");
    ExitCode::FAILURE
}

async fn serve(started: Instant) -> Result<(), Box<dyn std::error::Error>> {
    // What is sent to all processes of the service at once is for the guard alone: the keeper says when to stop.
    for kind in [
        SignalKind::hangup(),
        SignalKind::interrupt(),
        SignalKind::quit(),
        SignalKind::terminate(),
        SignalKind::user_defined1(),
        SignalKind::user_defined2(),
    ] {
        drop(signal(kind)?);
    }
    let (sender, mut receiver) = halves(keeper_socket()?);
    let Some((ToBalancer::Start(start), mut descriptors)) = receiver.receive().await? else {
        return Err("this command is for the keeper alone; use `relevo run`".into());
    };
    let mut start = *start;
    let log_descriptors = descriptors.split_off(start.listeners.len().min(descriptors.len()));
    let listeners = control::listeners(&start.config, &start.listeners, descriptors)?;
    let zone = log::zone();
    let (highest, shortage) = limit_descriptors(&mut start.config)?;
    let (mut sender, receiver) = renumber(sender, receiver, |socket| to_high_descriptor(socket, highest))?;
    if let Err(error) = sandbox::enter(start.chroot.as_deref(), start.user, Pid::from_raw(start.keeper)) {
        let _ = sender.send(&FromBalancer::Failed(error.to_string()), &[]).await;
        return Err(error.into());
    }

    // Only now may there be threads: what was given up is given up by all of them.
    let mut opened: Vec<_> = start.log_targets.iter().map(|_| None).collect();
    for (place, descriptor) in start.log_opened.iter().zip(log_descriptors) {
        let target = opened.get_mut(*place).ok_or("the keeper opened a target of the log that there is not")?;
        *target = Some(descriptor);
    }
    let is_json = start.config.access_log == AccessLog::Json;
    let guard = log::init_with(&start.log_targets, is_json, opened, "balancer", false);
    if let Some(shortage) = shortage {
        tracing::warn!("{shortage}");
    }
    let is_logged = guard.log().wants_requests();
    let replication = start.has_peers.then(Replication::default);
    let shared = Shared::new(start.config);
    shared.heed_all(&start.wishes);
    start.known.iter().for_each(|known| shared.believe(&known.backends, &known.by));
    let watching = watch_servers(&shared, start.resolv_conf, start.hosts);
    health::first_results(&shared, FIRST_RESULTS_PATIENCE).await;

    let (ready_sender, ready) = mpsc::unbounded_channel();
    let (stop, stop_receiver) = watch::channel(None);
    let (mut workers, mut reloads) = (Vec::new(), Vec::new());
    for (index, listeners) in listeners.into_iter().enumerate() {
        let (reload, reload_receiver) = mpsc::unbounded_channel();
        reloads.push(reload);
        workers.push(worker::start(Plan {
            index,
            listeners,
            shared: shared.clone(),
            log: is_logged.then(|| guard.log().clone()),
            zone: zone.clone(),
            started,
            ready: ready_sender.clone(),
            reloads: reload_receiver,
            stop: stop_receiver.clone(),
        })?);
    }
    drop((ready_sender, stop_receiver));

    let log = guard.log().clone();
    let control = Control {
        sender,
        receiver,
        log,
        shared,
        next: None,
        replication,
        watching,
        started,
        silences: Silences::new(workers.len()),
        ready,
        stop,
        reloads,
        workers,
    };
    let result = control.run().await;
    drop(guard);
    Ok(result?)
}

/// Resolves, checks and raises the servers of a configuration for as long as the value is kept.
fn watch_servers(shared: &Arc<Shared>, resolv_conf: String, hosts: String) -> JoinSet<()> {
    let mut watching = JoinSet::new();
    watching.spawn_local(resolve::watch(shared.clone(), resolv_conf, hosts));
    watching.spawn_local(balance::slow_start::watch(shared.clone()));
    watching.spawn_local(health::watch(shared.clone()));
    watching
}

/// Standard input, which nothing else may read.
fn keeper_socket() -> io::Result<tokio::net::UnixStream> {
    let socket = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    nix::unistd::dup2_stdin(File::open("/dev/null")?)?;
    socket.set_nonblocking(true)?;
    tokio::net::UnixStream::from_std(socket)
}

/// Sets the limit of open files to what the configuration's connections need, or else their number to what the limit is
/// enough for, so that some files are always left for checks and servers. Gives the highest number there then is, and in
/// words what could not be had.
///
/// Not more than needed: when the process dies, its kernel goes through the whole table.
fn limit_descriptors(config: &mut model::Balancer) -> io::Result<(RawFd, Option<String>)> {
    let needed = config.open_files();
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let limit = needed.min(hard);
    let shortage = (limit < needed).then(|| {
        let wanted = config.max_connections;
        config.limit_to(limit);
        let most = config.max_connections;
        let few = format!(
            "at most {limit} files may be open, {needed} are needed; raise the limit (LimitNOFILE in systemd) or lower \
             process.max_connections"
        );
        match most < wanted {
            true => format!("there are at most {most} client connections at a time, not {wanted}: {few}"),
            false => format!("few connections to servers are kept for the next request: {few}"),
        }
    });
    setrlimit(Resource::RLIMIT_NOFILE, limit, hard)?;
    Ok((RawFd::try_from(limit - 1).unwrap_or(RawFd::MAX), shortage))
}

#[cfg(test)]
mod tests;
