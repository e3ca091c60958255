//! The store over both databases against the contract, and what is each one's own: files, versions,
//! other writers.

mod conformance;
mod fixture_rows;
mod fixtures;
mod open;
mod places;
mod postgres;
mod removals;
