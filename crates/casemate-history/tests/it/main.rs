//! The SQLite adapter against the contract, and what is its own: its file and its restarts.

mod conformance;
mod restart;
