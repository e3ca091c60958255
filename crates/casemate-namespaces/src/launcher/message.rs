//! What node and launcher say to each other: one JSON object a message, descriptors beside it.
//!
//! Both ends are the same program, so there is no version. Order of descriptors is part of each
//! message's contract.

use std::collections::BTreeMap;
use std::path::PathBuf;

use casemate_types::InstanceId;
use serde::{Deserialize, Serialize};

use crate::step::StepError;

/// The first message. It carries no descriptors.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Setup {
    pub(crate) instance: InstanceId,
    /// An empty folder of the host on which the room is built.
    pub(crate) site: PathBuf,
    /// Folders of the host that the room shows, by short name.
    pub(crate) shown: BTreeMap<String, PathBuf>,
    /// The folder of the host with what sandboxes see of their machines.
    pub(crate) views: PathBuf,
    /// The agent's binary; its folder has nothing that sandboxes must not see.
    pub(crate) agent: PathBuf,
    /// Whether overlays get layers by path without asking what the kernel can.
    pub(crate) layers_by_path: bool,
    pub(crate) r#use: Use,
}

/// Which requests a launcher gets.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) enum Use {
    Creates,
    Preparations,
}

/// Later messages.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Request {
    /// Answered with [`Reply::Created`] and a pidfd. Descriptors: see [`Parts`].
    Create(Box<Order>),
    /// Answered with one descriptor for each, in order; at most [`USERNS_BATCH_MAX`].
    UserNamespaces { first_ids: Vec<u32> },
}

/// As many descriptors as one message carries.
pub(crate) const USERNS_BATCH_MAX: usize = casemate_linux::scm::FDS_MAX;

/// A sandbox to make. Paths are those of the room.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Order {
    /// Name of its control groups, which exist.
    pub(crate) group: String,
    /// Read-only layers, topmost first.
    pub(crate) lowers: Vec<PathBuf>,
    /// Folder with `upper` and `work`.
    pub(crate) writable: PathBuf,
    /// First id of the user namespace's range on the host.
    pub(crate) first_id: u32,
    pub(crate) hostname: String,
    /// Whose files it sees in `/proc`.
    pub(crate) slot: u16,
    /// Which `/sys` and processors it sees.
    pub(crate) shape: String,
    /// Its clocks count from that second after the host's boot.
    pub(crate) born_s: u64,
    /// Processors that the first process may use; empty for all.
    pub(crate) processors: Vec<u32>,
    /// What `/dev/shm` may hold.
    pub(crate) shared_memory_bytes: u64,
    /// Largest file, where nothing else bounds the writable layer.
    pub(crate) file_bytes_max: Option<u64>,
}

/// Descriptors of a create, in this order.
#[derive(Debug)]
pub(crate) struct Parts<T> {
    pub(crate) userns: T,
    pub(crate) netns: T,
    /// Read by the agent to its end.
    pub(crate) config: T,
    /// Takes the output of the first process.
    pub(crate) output: T,
    /// The agent's "I serve".
    pub(crate) ready: T,
    /// Takes lines of the agent's log.
    pub(crate) log: T,
}

impl<T> Parts<T> {
    pub(crate) fn into_list(self) -> [T; 6] {
        [
            self.userns,
            self.netns,
            self.config,
            self.output,
            self.ready,
            self.log,
        ]
    }

    pub(crate) fn from_list(list: Vec<T>) -> Option<Self> {
        let [userns, netns, config, output, ready, log] = list.try_into().ok()?;
        Some(Self {
            userns,
            netns,
            config,
            output,
            ready,
            log,
        })
    }
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Reply {
    Done,
    Created { pid: i32 },
    Refused(Refusal),
}

/// A failed step on its way to the node.
#[derive(Debug, Serialize, Deserialize, thiserror::Error)]
#[error("cannot {step}: {cause}")]
pub(crate) struct Refusal {
    step: String,
    cause: String,
}

impl From<&StepError> for Refusal {
    fn from(error: &StepError) -> Self {
        Self {
            step: error.step.into(),
            cause: error.source.to_string(),
        }
    }
}
