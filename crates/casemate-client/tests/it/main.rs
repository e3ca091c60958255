//! The client against servers that say exactly what a test wrote, byte for byte.

mod api;
mod process;
mod server;
