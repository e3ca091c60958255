//! The process service: user programs, their output to many readers, their input, their end.
//!
//! ```text
//!   start ──► live ──(output at its end, or killed; then reaped)──► retained for 30 s ──► gone
//! ```
//! A process belongs to nobody's connection: readers come and go.

pub mod connect;
mod end;
pub mod environment;
pub mod follow;
pub mod input;
pub mod launch;
pub mod list;
pub mod live;
mod output;
mod pace;
mod selector;
pub mod signal;
pub mod start;
pub mod supervise;
pub mod table;
pub mod update;
