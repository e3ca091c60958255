//! What one server of a sandbox leaves to the next, kept in memory that outlives it.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use rustix::fs::{MemfdFlags, memfd_create};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Shared by all servers of one sandbox, and empty until something is written.
pub struct Record(File);

impl Record {
    pub fn new(name: &str) -> io::Result<Self> {
        Ok(Self(memfd_create(name, MemfdFlags::CLOEXEC)?.into()))
    }

    pub fn try_clone(&self) -> io::Result<Self> {
        self.0.try_clone().map(Self)
    }

    /// In place of what is there. What cannot be written is as good as not known.
    pub fn write(&self, value: &impl Serialize) {
        let text = serde_json::to_vec(value).unwrap_or_default();
        // A server that dies in between leaves what cannot be read.
        let _ = self.0.set_len(0);
        let _ = self.0.write_all_at(&text, 0);
    }

    pub fn read<T: DeserializeOwned>(&self) -> Option<T> {
        let length = usize::try_from(self.0.metadata().ok()?.len()).ok()?;
        let mut text = vec![0; length];
        self.0.read_exact_at(&mut text, 0).ok()?;
        serde_json::from_slice(&text).ok()
    }
}
