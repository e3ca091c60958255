//! Slots and rules against a real kernel. Needs root: `CASEMATE_TEST_ROOT=1`.
//!
//! Each test is a host of its own: its thread moves into a fresh network namespace, whose only way
//! out leads into another one of the test with the targets in it (decision 26).

mod attacks;
mod by_name;
mod dns;
mod lifecycle;
mod neighbours;
mod policy;
mod world;
