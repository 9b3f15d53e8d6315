//! Whether the file on disk is what runs: the next start would run what it says, and a file that was refused, or that nobody has
//! reloaded, is a surprise for whoever starts the node at night.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until};

use super::reload::{Offer, Refusal, read};
use crate::process::messages::Charge;

/// Between two looks at the file's times.
const PAUSE: Duration = Duration::from_secs(2);

/// The file, as it was seen last.
pub(super) struct OnDisk {
    path: PathBuf,
    next_look: Instant,
    looking: Option<oneshot::Receiver<Look>>,
    seen: Seen,
}

/// What was compared.
#[derive(Clone)]
struct Seen {
    version: Option<Version>,
    running: Arc<Charge>,
    difference: Option<String>,
}

/// Changes with the file.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Version {
    device: u64,
    inode: u64,
    length: u64,
    /// Of the last change to it, or to what it is called: none before this was something else.
    changed: Timestamp,
}

impl Version {
    fn of(path: &Path) -> Option<Self> {
        let it = std::fs::metadata(path).ok()?;
        let changed = Timestamp::new(it.ctime(), i32::try_from(it.ctime_nsec()).ok()?).ok()?;
        Some(Self { device: it.dev(), inode: it.ino(), length: it.size(), changed })
    }

    /// Was it there when this configuration was read?
    fn is_older_than(&self, running: &Charge) -> bool {
        running.config.read_at.parse::<Timestamp>().is_ok_and(|read_at| self.changed < read_at)
    }
}

/// What was seen, if anything has changed since.
type Look = Option<Seen>;

impl OnDisk {
    /// `running` was read from this file a moment ago.
    pub(super) fn new(path: PathBuf, running: &Arc<Charge>) -> Self {
        let seen = Seen { version: Version::of(&path), running: running.clone(), difference: None };
        Self { path, next_look: Instant::now() + PAUSE, looking: None, seen }
    }

    /// What of the file is not what runs, in words, whenever that is news; `None`: nothing. Cancel-safe.
    pub(super) async fn news(&mut self, running: &Arc<Charge>) -> Option<String> {
        loop {
            if self.looking.is_none() {
                sleep_until(self.next_look).await;
                if !Arc::ptr_eq(&self.seen.running, running) {
                    // It was read from this file a moment ago: that is looked at when it has been so for a while.
                    self.seen.running = running.clone();
                    self.next_look = Instant::now() + PAUSE;
                    if self.seen.difference.take().is_some() {
                        return None;
                    }
                    continue;
                }
                let (path, running, seen) = (self.path.clone(), running.clone(), self.seen.clone());
                let (told, looking) = oneshot::channel();
                // A thread of its own, which takes what it needs of memory with it, and may hang as the file system does.
                let looks = move || drop(told.send(look(&path, &running, &seen)));
                // Where there can be none it is looked again later.
                let _ = std::thread::Builder::new().name("file".to_owned()).spawn(looks);
                self.looking = Some(looking);
            }
            let Some(looking) = &mut self.looking else { continue };
            let looked = looking.await;
            self.looking = None;
            self.next_look = Instant::now() + PAUSE;
            let Ok(Some(seen)) = looked else { continue };
            let before = std::mem::replace(&mut self.seen, seen).difference;
            if before != self.seen.difference {
                return self.difference();
            }
        }
    }

    /// What was said last, for a keeper that does not know it.
    pub(super) fn difference(&self) -> Option<String> {
        self.seen.difference.clone()
    }
}

/// The file is read when it has changed since what runs was read from it.
fn look(path: &Path, running: &Arc<Charge>, seen: &Seen) -> Look {
    let version = Version::of(path);
    if seen.version == version {
        return None;
    }
    let difference = match version {
        Some(version) if version.is_older_than(running) => None,
        _ => difference(path, read(path, running)),
    };
    Some(Seen { version, running: running.clone(), difference })
}

fn difference(path: &Path, read: Result<Offer, Refusal>) -> Option<String> {
    let path = path.display();
    match read {
        Ok(Offer { changes, .. }) if changes.is_nothing() => None,
        Ok(Offer { changes, .. }) => {
            Some(format!("{path} is not what runs ({changes}): relevo reload makes it so, and so does a start"))
        }
        Err(Refusal { refused, line }) if refused.needs_restart => Some(format!("{path} is not what runs: {line}")),
        Err(Refusal { line, .. }) => Some(format!("{path} is not what runs, and cannot: {line}")),
    }
}
