//! What a member keeps of its join, beside its identity.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use casemate_rpc::control::{Member, NodePlace};
use serde::{Deserialize, Serialize};

use crate::data_dir::write_private;

/// Of the file's format.
const VERSION: u32 = 1;

pub(super) fn identity_path(dir: &Path) -> PathBuf {
    dir.join("identity.json")
}

fn path(dir: &Path) -> PathBuf {
    dir.join("joined.json")
}

/// With what it joined: it holds where the settings say nothing.
pub(super) struct Joined {
    pub(super) member: Member,
    pub(super) api: Vec<String>,
    pub(super) place: Option<NodePlace>,
}

#[derive(Serialize, Deserialize)]
struct Record {
    version: u32,
    member: Member,
    api: Vec<String>,
    place: Option<NodePlace>,
}

impl Joined {
    /// `None`: it has not joined.
    pub(super) fn read(dir: &Path) -> anyhow::Result<Option<Self>> {
        let path = path(dir);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("read {}", path.display())),
        };
        let record: Record =
            serde_json::from_str(&text).with_context(|| format!("read {}", path.display()))?;
        ensure!(
            record.version == VERSION,
            "{} has version {}, which this casemate does not know",
            path.display(),
            record.version
        );
        Ok(Some(Self {
            member: record.member,
            api: record.api,
            place: record.place,
        }))
    }

    pub(super) fn write(self, dir: &Path) -> anyhow::Result<()> {
        let record = Record {
            version: VERSION,
            member: self.member,
            api: self.api,
            place: self.place,
        };
        write_private(&path(dir), &serde_json::to_vec_pretty(&record)?)
    }
}
