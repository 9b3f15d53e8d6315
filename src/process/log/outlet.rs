//! One target of the log: its thread, and the channel that leads there.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use crate::config::model::{LogLevel, LogTarget};
use crate::process::log::target::{self, Target};

/// Messages that wait for the target.
const WAITING_MESSAGES: usize = 4096;
/// And their bytes.
const WAITING_BYTES: usize = 2 << 20;
/// Between two attempts to open what has gone away.
const BETWEEN_ATTEMPTS: Duration = Duration::from_secs(1);

/// What lines are about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The process itself; a time and a level come first.
    Process,
    /// Requests.
    Access,
}

enum Message {
    Lines(LogLevel, Kind, Arc<[u8]>),
    /// Opened by somebody else, or to be opened here.
    Reopen(Option<OwnedFd>),
}

pub(super) struct Outlet {
    level: LogLevel,
    sender: SyncSender<Message>,
    shared: Arc<Shared>,
}

/// What all outlets of a process have in common.
#[derive(Clone, Default)]
pub(super) struct Trouble {
    /// A target that this process cannot open by itself has gone away.
    pub(super) is_broken: Arc<AtomicBool>,
    /// Lines of requests that were lost; each counts once for every target that did not get it.
    pub(super) lost_requests: Arc<AtomicU64>,
}

struct Shared {
    /// Bytes handed over and not yet written.
    bytes: AtomicUsize,
    /// Lines that were lost and that the target was not yet told of.
    lost: AtomicU64,
    trouble: Trouble,
}

impl Shared {
    fn lose(&self, kind: Kind, lines: u64) {
        self.lost.fetch_add(lines, Relaxed);
        if kind == Kind::Access {
            self.trouble.lost_requests.fetch_add(lines, Relaxed);
        }
    }
}

impl Outlet {
    /// Without a thread nothing would be logged: whoever starts so many that there is none more has other worries.
    pub(super) fn start(settings: LogTarget, opened: OwnedFd, may_open: bool, trouble: Trouble) -> Self {
        let (sender, messages) = sync_channel(WAITING_MESSAGES);
        let shared = Arc::new(Shared { bytes: AtomicUsize::new(0), lost: AtomicU64::new(0), trouble });
        let level = settings.level;
        let writer = Writer {
            target: Target::new(settings.clone(), opened),
            settings,
            may_open,
            shared: shared.clone(),
            attempted: None,
        };
        let _ = std::thread::Builder::new().name("log".to_owned()).spawn(move || writer.run(&messages));
        Self { level, sender, shared }
    }

    pub(super) fn wants(&self, level: LogLevel) -> bool {
        level <= self.level
    }

    /// Without room they are lost.
    pub(super) fn send(&self, level: LogLevel, kind: Kind, lines: &Arc<[u8]>) {
        let is_full = self.shared.bytes.fetch_add(lines.len(), Relaxed) > WAITING_BYTES;
        if is_full || self.sender.try_send(Message::Lines(level, kind, lines.clone())).is_err() {
            self.shared.bytes.fetch_sub(lines.len(), Relaxed);
            self.shared.lose(kind, count(lines));
        }
    }

    /// A full channel means a target that takes nothing: opening it again would have to wait as well.
    pub(super) fn reopen(&self, opened: Option<OwnedFd>) {
        let _ = self.sender.try_send(Message::Reopen(opened));
    }

    pub(super) fn is_waiting(&self) -> bool {
        self.shared.bytes.load(Relaxed) > 0
    }
}

fn count(lines: &[u8]) -> u64 {
    lines.iter().filter(|byte| **byte == b'\n').count() as u64
}

/// The thread's own.
struct Writer {
    target: Target,
    settings: LogTarget,
    may_open: bool,
    shared: Arc<Shared>,
    attempted: Option<Instant>,
}

impl Writer {
    fn run(mut self, messages: &Receiver<Message>) {
        for message in messages {
            match message {
                Message::Lines(level, kind, lines) => {
                    // One that has gone away is told how many when it is back.
                    let lost = if self.write(level, kind, &lines) { self.shared.lost.swap(0, Relaxed) } else { 0 };
                    if lost > 0 {
                        let now = jiff::Timestamp::now();
                        let line = format!(
                            "{now} WARN log: lines were lost: this target was away, or takes them too slowly lines={lost}\n"
                        );
                        self.write(LogLevel::Warn, Kind::Process, line.as_bytes());
                    }
                    self.shared.bytes.fetch_sub(lines.len(), Relaxed);
                }
                Message::Reopen(Some(opened)) => self.target = Target::new(self.settings.clone(), opened),
                Message::Reopen(None) => self.open(),
            }
        }
    }

    /// Says whether the target is there.
    fn write(&mut self, level: LogLevel, kind: Kind, lines: &[u8]) -> bool {
        if let Ok(lost) = self.target.write(level, kind, lines) {
            self.shared.lose(kind, lost);
            return true;
        }
        let may_try = self.attempted.is_none_or(|last| last.elapsed() >= BETWEEN_ATTEMPTS);
        if self.may_open && may_try {
            // The daemon that listened there was restarted.
            self.open();
            if self.target.write(level, kind, lines).is_ok() {
                return true;
            }
        } else if !self.may_open {
            self.shared.trouble.is_broken.store(true, Relaxed);
        }
        self.shared.lose(kind, count(lines));
        false
    }

    /// What cannot be opened stays what it was.
    fn open(&mut self) {
        self.attempted = Some(Instant::now());
        if let Ok(opened) = target::open(&self.settings.to) {
            self.target = Target::new(self.settings.clone(), opened);
        }
    }
}
