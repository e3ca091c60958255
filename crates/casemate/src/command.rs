//! The verbs of the command line, one file each.

pub mod base;
pub mod bench;
pub mod chaos;
pub mod cluster;
pub mod df;
pub mod doctor;
pub mod down;
pub mod internal;
pub mod join;
pub mod key;
pub mod migrate;
pub mod sandbox;
pub mod server;
pub mod status;
pub mod table;
pub mod template;
pub mod top;
