//! The SQLite adapter against the contract, and what is its own: files, versions, durability.

mod conformance;
mod open;
mod speed;
