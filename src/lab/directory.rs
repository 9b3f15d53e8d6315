//! A directory for a lab's files that goes away with the value.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use super::error::{Context, Result};

/// An empty directory of its own below the system's temporary one.
pub struct Directory(PathBuf);

impl Directory {
    /// Makes it.
    pub fn new() -> Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("relevo-lab-{}-{number}", std::process::id()));
        // One of a process that had this number before and was killed.
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).context(|| format!("cannot make {}", path.display()))?;
        Ok(Self(path))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
