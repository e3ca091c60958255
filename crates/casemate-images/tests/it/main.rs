//! Images of a real registry (`CASEMATE_TEST_REGISTRY=1`, Debian's `docker-registry`), and of servers
//! that do what registries should not.

mod archives;
mod aws;
mod cached;
mod closed;
mod debian;
mod downloads;
mod files;
mod misbehaved;
mod outside;
mod refused;
mod server;
