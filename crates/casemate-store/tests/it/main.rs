//! The SQLite adapter against the contract, and what is its own: files, versions, other writers.

mod conformance;
mod fixture_rows;
mod fixtures;
mod open;
