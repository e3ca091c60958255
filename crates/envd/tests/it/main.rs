//! A real server on a real socket, driven with raw HTTP/1.1: what a client of the E2B SDKs sees.
//!
//! They run as root on the machine itself, so they stay away from what is not theirs: everything is
//! below temporary directories, and routes that change the system (clock, file system, hosts) are
//! tested at their parts.

mod build;
mod control;
mod files;
mod filesystem;
mod http;
mod init;
mod process;
mod server;
mod streams;
mod transport;
mod watch;
