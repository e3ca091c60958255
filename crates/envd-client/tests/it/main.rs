//! The client against servers that say exactly what a test wrote, byte for byte.

mod agent;
mod dialled;
mod files;
mod process;
mod routes;
mod run;
mod server;
