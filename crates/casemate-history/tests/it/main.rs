//! The adapter against the contract on both databases, and what is its own: its file, its restarts, its
//! servers.

mod conformance;
mod copy;
mod earlier;
mod postgres;
mod restart;
mod rows;
