//! The agent inside a sandbox: processes, terminals, files, watches, what templates are built with,
//! and the init that keeps it up.
//!
//! It speaks the E2B agent's protocol on TCP port 49983. It owns what happens inside the sandbox
//! and knows nothing of the platform outside, except the configuration that it is handed.
//! It trusts nobody: callers have the token, programs inside can reach the port as well.
//!
//! One thread does everything but file work, which may block and goes to a small pool; at the
//! process limit, where there is no thread to be had, it does that as well. There is no
//! forwarding of ports that programs bind on 127.0.0.1: the runtime dials from inside the network
//! namespace, where they are reachable as they are.

mod answer;
pub mod args;
mod auth;
mod body;
mod build;
pub mod config;
mod connect;
mod control;
mod cors;
mod descriptors;
mod files;
mod filesystem;
mod guest;
pub mod init;
mod limits;
mod log;
mod metrics;
mod paths;
mod process;
mod query;
mod ready;
pub mod record;
mod route;
pub mod server;
mod settings;
pub mod startup;
mod tar;
mod users;
mod workers;

pub use descriptors::raise_limit as raise_descriptor_limit;

/// What the agent says it is: the behaviour of this upstream version.
pub const VERSION: &str = "0.6.13";

/// The port of the protocol.
pub const PORT: u16 = 49_983;
