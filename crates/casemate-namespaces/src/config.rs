//! What the runtime is opened with.

use std::path::PathBuf;

use casemate_types::InstanceId;
use ipnet::{IpNet, Ipv4Net};

use crate::launchers::LauncherProgram;

/// Everything that an operator or the program decides.
#[derive(Debug, Clone)]
pub struct NamespacesConfig {
    pub instance: InstanceId,
    /// Of the instance; layers of templates must lie in it.
    pub data_dir: PathBuf,
    /// Shared by all instances of the host, gone after a reboot: `/run/casemate`.
    pub run_dir: PathBuf,
    /// The agent's static binary.
    pub agent: PathBuf,
    pub launcher: LauncherProgram,
    /// Launchers that creates share; one more prepares. Two use two processors; more than the
    /// host has gain nothing.
    pub launchers: usize,
    /// Slots and layers prepared ahead. Too low: creates in a row wait for them; too high: idle
    /// memory of about 0.4 MiB each.
    pub slot_stock: usize,
    /// Gives overlays their layers by path even where the kernel takes descriptors. For a kernel
    /// that takes them and gets them wrong; costs a create about 0.2 ms.
    pub layers_by_path: bool,
    /// Size of a new pool image; by default three fifths of the free disk space.
    pub pool_bytes_max: Option<u64>,
    /// Of the disk's free space, what the pool never takes, bytes.
    pub disk_reserve_bytes: u64,
    /// Nothing that sandboxes wrote is wanted: whoever opens it takes all away.
    pub gives_pool_up: bool,
    /// Divided among the instances of this host; must not be routed anywhere else.
    pub slot_range: Ipv4Net,
    /// Closed ranges that the operator opens to all sandboxes.
    pub allow_ranges: Vec<IpNet>,
    /// Tracked connections of one sandbox at once.
    pub connections_per_slot_max: u32,
}

impl NamespacesConfig {
    /// The defaults for an instance.
    pub fn new(instance: InstanceId, data_dir: PathBuf, agent: PathBuf) -> Self {
        Self {
            instance,
            data_dir,
            run_dir: Self::run_dir_default(),
            agent,
            launcher: LauncherProgram::default(),
            launchers: 2,
            slot_stock: 32,
            layers_by_path: false,
            pool_bytes_max: None,
            disk_reserve_bytes: 0,
            gives_pool_up: false,
            slot_range: Ipv4Net::new_assert([100, 64, 0, 0].into(), 10),
            allow_ranges: Vec::new(),
            connections_per_slot_max: casemate_net::CONNECTIONS_PER_SLOT_DEFAULT,
        }
    }

    /// Where instances keep what a reboot takes.
    pub fn run_dir_default() -> PathBuf {
        "/run/casemate".into()
    }

    pub(crate) fn instance_run_dir(&self) -> PathBuf {
        self.run_dir.join(self.instance.as_str())
    }
}
