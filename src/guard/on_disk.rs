//! Whether the file on disk is what runs: the next start would run what it says, and a file that was refused, or that nobody has
//! reloaded, is a surprise for whoever starts the node at night.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{Instant, sleep_until};

use super::reload::{Offer, Refusal, read};
use crate::process::messages::Charge;

/// Between two looks at the file's times.
const PAUSE: Duration = Duration::from_secs(2);

/// The file, as it was seen last.
pub(super) struct OnDisk {
    path: PathBuf,
    next_look: Instant,
    looking: Option<JoinHandle<Look>>,
    seen: Option<Seen>,
}

/// What was compared.
#[derive(Clone)]
struct Seen {
    version: Option<Version>,
    running: Arc<Charge>,
    difference: Option<String>,
}

/// Changes with the file.
type Version = (u64, u64, u64, i64, i64);

/// What was seen, if anything has changed since.
type Look = Option<Seen>;

impl OnDisk {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, next_look: Instant::now() + PAUSE, looking: None, seen: None }
    }

    /// What of the file is not what runs, in words, whenever that is news; `None`: nothing. Cancel-safe.
    pub(super) async fn news(&mut self, running: &Arc<Charge>) -> Option<String> {
        loop {
            if self.looking.is_none() {
                sleep_until(self.next_look).await;
                let (path, running, seen) = (self.path.clone(), running.clone(), self.seen.clone());
                self.looking = Some(spawn_blocking(move || look(&path, &running, seen.as_ref())));
            }
            let Some(looking) = &mut self.looking else { continue };
            let looked = looking.await;
            self.looking = None;
            self.next_look = Instant::now() + PAUSE;
            let Ok(Some(seen)) = looked else { continue };
            let before = self.seen.replace(seen.clone()).and_then(|seen| seen.difference);
            if before != seen.difference {
                return seen.difference;
            }
        }
    }

    /// What was said last, for a keeper that does not know it.
    pub(super) fn difference(&self) -> Option<String> {
        self.seen.as_ref().and_then(|seen| seen.difference.clone())
    }
}

/// The file is read when it is another one, or something else runs.
fn look(path: &Path, running: &Arc<Charge>, seen: Option<&Seen>) -> Look {
    let version = std::fs::metadata(path).ok();
    let version = version.map(|it| (it.dev(), it.ino(), it.size(), it.mtime(), it.mtime_nsec()));
    if seen.is_some_and(|seen| seen.version == version && Arc::ptr_eq(&seen.running, running)) {
        return None;
    }
    let difference = difference(path, read(path, running));
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
