//! One target of the log: its thread, and the channel that leads there.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use crate::config::model::{LogLevel, LogLines, LogTarget};
use crate::process::log::Error;
use crate::process::log::line::Style;
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
    lines: LogLines,
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
    pub(super) fn start(
        settings: LogTarget,
        opened: Option<OwnedFd>,
        may_open: bool,
        trouble: Trouble,
        style: Style,
    ) -> Self {
        let (sender, messages) = sync_channel(WAITING_MESSAGES);
        let shared = Arc::new(Shared { bytes: AtomicUsize::new(0), lost: AtomicU64::new(0), trouble });
        let (level, lines) = (settings.level, settings.lines);
        let is_away = opened.is_none();
        let writer = Writer {
            target: opened.map(|opened| Target::new(settings.clone(), opened)),
            settings,
            may_open,
            shared: shared.clone(),
            style,
            is_away,
            attempted: None,
            has_complained: false,
            told: None,
        };
        let _ = std::thread::Builder::new().name("log".to_owned()).spawn(move || writer.run(&messages));
        Self { level, lines, sender, shared }
    }

    pub(super) fn wants(&self, level: LogLevel, kind: Kind) -> bool {
        let is_about = match self.lines {
            LogLines::All => true,
            LogLines::Requests => kind == Kind::Access,
            LogLines::Processes => kind == Kind::Process,
        };
        is_about && level <= self.level
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
    /// `None`: it could not be opened.
    target: Option<Target>,
    settings: LogTarget,
    may_open: bool,
    shared: Arc<Shared>,
    style: Style,
    /// What was written last did not get there, or there is no there.
    is_away: bool,
    attempted: Option<Instant>,
    /// That it cannot be opened was said.
    has_complained: bool,
    /// When it was told of lost lines.
    told: Option<Instant>,
}

impl Writer {
    fn run(mut self, messages: &Receiver<Message>) {
        loop {
            // One that is away is looked for, whether there are lines or not.
            let message = match self.is_away {
                true => messages.recv_timeout(BETWEEN_ATTEMPTS),
                false => messages.recv().map_err(RecvTimeoutError::from),
            };
            let message = match message {
                Ok(message) => message,
                Err(RecvTimeoutError::Timeout) => {
                    self.look_for_it();
                    continue;
                }
                Err(RecvTimeoutError::Disconnected) => return,
            };
            match message {
                Message::Lines(level, kind, lines) => {
                    // One that has gone away is told how many when it is back.
                    if self.write(level, kind, &lines) {
                        self.tell_of_lost_lines();
                    }
                    self.shared.bytes.fetch_sub(lines.len(), Relaxed);
                }
                Message::Reopen(Some(opened)) => {
                    self.target = Some(Target::new(self.settings.clone(), opened));
                    self.tell_of_lost_lines();
                }
                Message::Reopen(None) => self.open(),
            }
        }
    }

    /// Says whether the target is there.
    fn write(&mut self, level: LogLevel, kind: Kind, lines: &[u8]) -> bool {
        if let Some(Ok(lost)) = self.try_write(level, kind, lines) {
            self.shared.lose(kind, lost);
            self.is_away = false;
            return true;
        }
        self.is_away = true;
        let may_try = self.attempted.is_none_or(|last| last.elapsed() >= BETWEEN_ATTEMPTS);
        if self.may_open && may_try {
            // The daemon that listened there was restarted.
            self.open();
            if let Some(Ok(lost)) = self.try_write(level, kind, lines) {
                self.shared.lose(kind, lost);
                self.is_away = false;
                return true;
            }
        } else if !self.may_open {
            self.shared.trouble.is_broken.store(true, Relaxed);
        }
        self.shared.lose(kind, count(lines));
        false
    }

    fn try_write(&mut self, level: LogLevel, kind: Kind, lines: &[u8]) -> Option<io::Result<u64>> {
        self.target.as_mut().map(|target| target.write(level, kind, lines))
    }

    fn look_for_it(&mut self) {
        match self.may_open {
            true => self.open(),
            false => self.shared.trouble.is_broken.store(true, Relaxed),
        }
        self.tell_of_lost_lines();
    }

    /// The count ends when the target knows it.
    fn tell_of_lost_lines(&mut self) {
        let lost = self.shared.lost.load(Relaxed);
        if lost == 0 || self.told.is_some_and(|told| told.elapsed() < BETWEEN_ATTEMPTS) {
            return;
        }
        let text = "lines were lost: this target was away, or takes them too slowly";
        let line = self.style.warning(text, lost);
        if let Some(Ok(0)) = self.try_write(LogLevel::Warn, Kind::Process, line.as_bytes()) {
            self.shared.lost.fetch_sub(lost, Relaxed);
            self.is_away = false;
            self.told = Some(Instant::now());
        }
    }

    /// What cannot be opened stays what it was, and that is said once.
    fn open(&mut self) {
        self.attempted = Some(Instant::now());
        match target::open(&self.settings.to) {
            Ok(opened) => {
                self.target = Some(Target::new(self.settings.clone(), opened));
                self.has_complained = false;
            }
            Err(_) if self.has_complained => {}
            Err(source) => {
                self.has_complained = true;
                let error = Error { target: self.settings.to.to_string(), source };
                tracing::error!("{error}; it is tried again and again, and what is logged there until then is lost");
            }
        }
    }
}
