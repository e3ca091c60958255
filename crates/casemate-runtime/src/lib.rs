//! The port behind which an isolation kind stands.
//!
//! Owns the contracts of [`Runtime`] and [`Snapshots`], and a fake. It must not know any one
//! isolation kind, nor teams, deadlines, stores or HTTP.

pub mod capabilities;
pub mod conformance;
pub mod consumption;
pub mod create;
pub mod error;
pub mod fake;
pub mod record;
pub mod snapshots;

use std::collections::BTreeSet;
use std::time::Duration;

use async_trait::async_trait;
use casemate_types::{CompiledPolicy, SandboxId};
use tokio::sync::mpsc;

pub use capabilities::{Capabilities, DiskLimit, IsolationKind};
pub use consumption::{Consumption, Seen};
pub use create::{AgentConfig, CreateSpec};
pub use error::{AdoptError, CarryError, CreateError, DialError, RuntimeError, SnapshotError};
pub use record::RuntimeRecord;
pub use snapshots::{Measured, Snapshots, Taken};

/// Most bytes that [`Runtime::log`] answers with; not counting what replaces bytes that are no text.
pub const LOG_BYTES_MAX: usize = 16 * 1024;

/// A sandbox ended without being asked to by [`Runtime::stop`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exit {
    pub sandbox: SandboxId,
}

/// Hears of a sandbox that has just come to be; see [`Runtime::create_noting`].
pub type Born<'a> = &'a (dyn Fn(&RuntimeRecord) -> std::io::Result<()> + Send + Sync);

/// What a frozen sandbox holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frozen {
    /// Memory that only its end gives back; without pages of files that the kernel can drop.
    pub memory_bytes: u64,
}

/// What [`Runtime::stock`] counts: things prepared ahead of creation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Stock {
    pub slots_ready: usize,
    pub layers_ready: usize,
    /// What sandboxes can write together before their disk is full, bytes; `None` until it was
    /// measured.
    pub bytes_left: Option<u64>,
    /// How long ago that disk was last seen full: what was written then may be less than was meant.
    /// Looked at so often that a disk which is full for a tenth of a second is seen. `None`: never.
    pub full_ago: Option<Duration>,
}

/// Runs sandboxes of one isolation kind on this machine.
///
/// Order of calls after a start: [`Runtime::adopt`] for each journalled record, then one
/// [`Runtime::sweep`], then everything else in any order and concurrently. For one sandbox the
/// caller serializes `create`, `stop`, `freeze`, `thaw` and `set_network`, and the calls of
/// [`Snapshots`]; `dial` may come at any time.
///
/// No method is cancel-safe but `dial`; callers run the others to their end.
#[async_trait]
pub trait Runtime: Send + Sync {
    /// What this kind can do on this machine. Constant over the life of the value.
    fn capabilities(&self) -> Capabilities;

    /// Makes and starts a sandbox; returns once its agent serves. On an error everything that was
    /// made for it is undone. Creating an id that exists is [`CreateError::Exists`].
    async fn create(&self, spec: CreateSpec) -> Result<RuntimeRecord, CreateError> {
        self.create_noting(spec, &|_| Ok(())).await
    }

    /// Like [`Runtime::create`]. `born` is called at most once, when the sandbox has processes and
    /// its agent does not serve yet, with what [`Runtime::adopt`] needs: writing that down runs
    /// beside the sandbox's own start. An error of it is the create's.
    async fn create_noting(
        &self,
        spec: CreateSpec,
        born: Born<'_>,
    ) -> Result<RuntimeRecord, CreateError>;

    /// Ends all processes of a sandbox and frees what it held. Idempotent: stopping what is gone
    /// or was never there is `Ok`. Returns after the last process is gone; files may be removed
    /// later.
    async fn stop(&self, sandbox: &SandboxId) -> Result<(), RuntimeError>;

    /// Holds all its processes where they are; none runs once this has returned. What reaches its
    /// open connections meanwhile waits for [`Runtime::thaw`]. Idempotent. On an error, as when a
    /// process does not stand still within 5 s, it runs on. A frozen one can be stopped, adopted
    /// (it is then still frozen), ruled and looked at.
    async fn freeze(&self, sandbox: &SandboxId) -> Result<Frozen, RuntimeError>;

    /// Lets the processes of a frozen sandbox go on. Idempotent; one that was never frozen is `Ok`.
    async fn thaw(&self, sandbox: &SandboxId) -> Result<(), RuntimeError>;

    /// Takes over a sandbox that an earlier process of ours created. [`AdoptError::Gone`] when it
    /// does not run any more: what it left is then removed by the next `sweep`.
    async fn adopt(&self, record: &RuntimeRecord) -> Result<(), AdoptError>;

    /// Removes everything of this instance on the host that belongs to no sandbox of `keep`.
    /// Idempotent, and safe after a crash at any moment.
    async fn sweep(&self, keep: &BTreeSet<SandboxId>) -> Result<(), RuntimeError>;

    /// Connects to a port inside, also one bound to loopback. The stream is an ordinary
    /// non-blocking TCP socket that belongs to the sandbox's network.
    ///
    /// # Cancel safety
    /// Dropping the future drops the connection.
    async fn dial(&self, sandbox: &SandboxId, port: u16) -> Result<std::net::TcpStream, DialError>;

    /// Replaces the egress rules; they hold for new connections when the call returns.
    async fn set_network(
        &self,
        sandbox: &SandboxId,
        policy: &CompiledPolicy,
    ) -> Result<(), RuntimeError>;

    /// Subscribes to ends that nobody asked for. One subscriber; a second call replaces it.
    fn exits(&self) -> mpsc::UnboundedReceiver<Exit>;

    /// Looks once at all that run: what each has consumed, and brings up to date what its programs
    /// see of their machine. One that ends meanwhile may be left out. One caller does it every
    /// second: a look at hundreds that rest must cost next to nothing.
    async fn look(&self) -> Result<Vec<Seen>, RuntimeError>;

    /// What the sandbox wrote to its log since the last call: whole lines, at most [`LOG_BYTES_MAX`]
    /// bytes of them; more waits in the sandbox. Empty when it does not run. Nothing of it can be
    /// trusted, not even that they are lines of its agent.
    fn log(&self, sandbox: &SandboxId) -> String;

    /// [`Seen::memory_kills`] as it is now; `None` when it does not run or cannot be read.
    fn memory_kills(&self, sandbox: &SandboxId) -> Option<u64>;

    /// How much is prepared ahead.
    fn stock(&self) -> Stock;

    /// Ends every sandbox and frees all that must not outlive the platform; with `purge` also
    /// what outlives it on purpose (pool image, leases, changed sysctls).
    async fn teardown(&self, purge: bool) -> Result<(), RuntimeError>;
}
