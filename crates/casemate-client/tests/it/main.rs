//! The client against servers that say exactly what a test wrote, byte for byte.

mod api;
#[path = "../../../envd-client/tests/it/server.rs"]
mod server;
mod templates;
