//! What the in-sandbox agent needs of the kernel: spawning user processes, init duties, inherited
//! descriptors. Wrappers only; which user, which limits, what to restart is the agent's affair.

mod fork;
mod inherit;
mod ioctl;
mod memory;
mod signals;
mod spawn;

pub use fork::{Fork, ForkError, fork_single_threaded};
pub use inherit::{close_on_exec_from, take_inherited};
pub use ioctl::{filesystem_freeze, filesystem_thaw};
pub use memory::keep_heap_small;
pub use signals::{Caught, SignalMask, block_for_init, kill_everyone, wait_signal};
pub use spawn::{Failure, Spawn, SpawnError, Spawned, Step, spawn};
