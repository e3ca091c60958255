//! Safe wrappers over the Linux kernel: the only crate with `unsafe`. Owns no policy.

pub mod btrfs;
pub mod clone;
pub mod creds;
pub mod exec;
pub mod guest;
pub mod loopdev;
pub mod mount;
pub mod net;
pub mod scm;
pub mod seccomp;
