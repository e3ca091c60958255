//! Resolver and proxy between slots and the world outside, over real sockets. Needs root, for port 53 in a
//! network namespace of each test's own: `CASEMATE_TEST_ROOT=1`.

mod answers;
mod bounds;
mod encrypted;
mod names;
mod outside;
mod web;
mod world;
