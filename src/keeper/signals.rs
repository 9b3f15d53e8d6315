//! What tells a keeper to stop.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// From the guard, or from a person. SIGHUP and SIGUSR2 are the guard's business, and must not end the keeper.
pub(super) struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
    quit: Signal,
}

impl StopSignals {
    pub(super) fn new() -> io::Result<Self> {
        drop((signal(SignalKind::hangup())?, signal(SignalKind::user_defined2())?));
        Ok(StopSignals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            quit: signal(SignalKind::quit())?,
        })
    }

    pub(super) async fn recv(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
            _ = self.quit.recv() => {}
        }
    }
}
