//! Routes for the platform: setting up, freezing, upgrading. The edge keeps outsiders away.

mod ca;
pub mod envs;
pub mod freeze;
pub mod hosts;
pub mod init;
mod time;
pub mod upgrade;
