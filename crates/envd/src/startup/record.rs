//! The outcome of a start, kept in memory that outlives a server.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use rustix::fs::{MemfdFlags, memfd_create};

use super::State;

/// Shared by all servers of one sandbox, and empty until there is an outcome.
pub struct Record(File);

impl Record {
    pub fn new() -> io::Result<Self> {
        Ok(Self(memfd_create("startup", MemfdFlags::CLOEXEC)?.into()))
    }

    pub fn try_clone(&self) -> io::Result<Self> {
        self.0.try_clone().map(Self)
    }

    /// Once. What cannot be written is as good as not known.
    pub(super) fn write(&self, state: &State) {
        let text = serde_json::to_vec(state).unwrap_or_default();
        let _ = self.0.write_all_at(&text, 0);
    }

    pub(super) fn read(&self) -> Option<State> {
        let length = usize::try_from(self.0.metadata().ok()?.len()).ok()?;
        let mut text = vec![0; length];
        self.0.read_exact_at(&mut text, 0).ok()?;
        serde_json::from_slice(&text).ok()
    }
}
